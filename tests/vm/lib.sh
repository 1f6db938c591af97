# shellcheck shell=bash disable=SC2034
# What the scripts of this directory share. Source it.
#
# Everything downloaded goes under target/vm/cache and is fetched by apt, which checks signatures
# and hashes with the distribution's keyring. No mirror is named here: it is read from the
# machine's apt sources, or taken from $DEBIAN_MIRROR. With a filled cache no network is needed;
# REFRESH=1 asks for newer packages.

set -euo pipefail
program=$(basename "$0")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
state=$project/target/vm
cache=$state/cache
mkdir -p "$cache"

die() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}
log() {
    printf '%s: %s\n' "$program" "$*" >&2
}
now() {
    date +%s.%N
}
since() {
    awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'
}

# The first Debian archive of this machine that is not a security archive.
mirror() {
    local found=${DEBIAN_MIRROR:-} file
    if [ -z "$found" ]; then
        found=$(for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources}; do
            [ ! -r "$file" ] || cat "$file"
        done | awk '
            $1 == "URIs:" { for (i = 2; i <= NF; i++) print $i }
            $1 == "deb" { for (i = 2; i <= NF; i++) if ($i ~ /^[a-z+]+:/) { print $i; break } }
        ' | grep -E '/debian/?$' | head -1) || :
    fi
    [ -n "$found" ] || die "no Debian mirror in /etc/apt; set DEBIAN_MIRROR"
    echo "$found"
}

# private_apt SUITE ARCH: an apt state of its own, with an empty dpkg status: resolves packages as
# for an empty machine, for any architecture, and changes nothing on this one. Sets apt_state.
private_apt() {
    apt_state=$cache/apt-$1-$2
    local keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keys" ] || die "no $keys: install debian-archive-keyring"
    mkdir -p "$apt_state"/{state/lists/partial,archives/partial,etc/preferences.d,etc/sources.list.d}
    : >>"$apt_state/status"
    echo "deb [arch=$2 signed-by=$keys] $(mirror) $1 main" >"$apt_state/etc/sources.list"
    cat >"$apt_state/apt.conf" <<CONF
Dir::State "$apt_state/state";
Dir::State::status "$apt_state/status";
Dir::Cache "$apt_state";
Dir::Cache::archives "$apt_state/archives";
Dir::Etc::sourcelist "$apt_state/etc/sources.list";
Dir::Etc::sourceparts "$apt_state/etc/sources.list.d";
Dir::Etc::preferencesparts "$apt_state/etc/preferences.d";
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
CONF
}
private() {
    local tool=$1
    shift
    APT_CONFIG=$apt_state/apt.conf "apt-$tool" "$@"
}
package_lists() {
    if [ -n "${REFRESH:-}" ] || ! ls "$apt_state"/state/lists/*_Packages >/dev/null 2>&1; then
        private get -qq update || die "apt-get update failed for $apt_state"
    fi
}

# debs_with_dependencies PACKAGE...: prints the files of the packages and all they need. What was
# resolved is kept, so that a second call needs no network.
debs_with_dependencies() {
    local key list name version
    key=$(printf '%s\n' "$@" | sort | sha256sum | cut -c1-16)
    list=$apt_state/resolved-$key
    if [ -n "${REFRESH:-}" ] || [ ! -s "$list" ] || ! xargs -r -a "$list" ls >/dev/null 2>&1; then
        package_lists
        private get -y -qq --download-only install "$@" >"$list.err" 2>&1 || {
            REFRESH=1 package_lists
            private get -y -qq --download-only install "$@" >"$list.err" 2>&1
        } || die "cannot download $*: $(cat "$list.err")"
        private get -s install "$@" |
            sed -n 's/^Inst \([^ :]*\)[^ ]* (\([^ ]*\) .*/\1 \2/p' |
            while read -r name version; do
                ls "$apt_state/archives/${name}_${version//:/%3a}"_*.deb
            done >"$list.new"
        mv "$list.new" "$list"
    fi
    cat "$list"
}
# deb_alone PACKAGE: downloads it without its dependencies, prints its file.
deb_alone() {
    local list=$apt_state/single-$1
    if [ -n "${REFRESH:-}" ] || [ ! -s "$list" ] || [ ! -e "$(cat "$list")" ]; then
        package_lists
        (cd "$apt_state/archives" && private get -qq download "$1" >&2) || die "cannot download $1"
        find "$apt_state/archives" -name "${1}_*.deb" | sort | tail -1 >"$list"
    fi
    cat "$list"
}
# unpack ROOT DEB...: files only, no maintainer scripts, no documentation; merged /usr.
unpack() {
    local root=$1 link deb
    shift
    mkdir -p "$root/usr"
    for link in bin sbin lib lib64; do
        mkdir -p "$root/usr/$link"
        [ -e "$root/$link" ] || ln -s "usr/$link" "$root/$link"
    done
    for deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink \
            --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
            --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*'
    done
}

# debian_tree ROOT PACKAGES: a small Debian with systemd that asks nothing and offers no login. The
# base system is kept under target/vm/cache. Root is needed.
debian_tree() {
    local root=$1 packages=$2 suite=bookworm base unit
    [ "$(id -u)" = 0 ] || die "root is needed"
    base=$cache/systemd-$suite-$(echo "$packages" | sha256sum | cut -c1-12).tar
    if [ -n "${REFRESH:-}" ] || [ ! -s "$base" ]; then
        mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" \
            --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='APT::Install-Recommends "false"' \
            --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
            --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --format=tar "$suite" "$base.tmp" "$(mirror)" >"$base.log" 2>&1 ||
            die "mmdebstrap: $(tail -20 "$base.log")"
        mv "$base.tmp" "$base"
    fi
    mkdir "$root"
    tar -C "$root" -xf "$base" --exclude='./dev/*'
    # A machine id now: no questions at the first boot. No logins on the console.
    echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
    echo testvm >"$root/etc/hostname"
    for unit in systemd-firstboot.service serial-getty@.service getty@.service apt-daily.timer \
        apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
        ln -sf /dev/null "$root/etc/systemd/system/$unit"
    done
}

# signed_programs BINARY ROOT KEY: two for `lowtide upgrade` in /root, the same one with a byte more (good) and
# one that cannot start (bad), and the public key that the node believes.
signed_programs() {
    (cat "$1" && echo) >"$2/root/good"
    printf '#!/bin/sh\n[ "$1" != --version ] || exec echo lowtide 9.9.9\nexit 1\n' >"$2/root/bad"
    chmod 755 "$2"/root/{good,bad}
    minisign -G -W -f -p "$2/etc/lowtide/release.pub" -s "$3" >/dev/null
    minisign -S -s "$3" -m "$2/root/good" "$2/root/bad" >/dev/null
}

# accelerator ARCH: whether an unmodified kernel can be virtualised by hardware. /dev/kvm alone does not
# say so: the page-table based kvm_pvm makes VMs that only kernels built for it can boot.
accelerator() {
    if [ "$1" != amd64 ]; then
        echo tcg
    elif [ -n "${VM_ACCEL:-}" ]; then
        echo "$VM_ACCEL"
    elif [ -r /dev/kvm ] && [ -w /dev/kvm ] && [ ! -d /sys/module/kvm_pvm ] &&
        grep -qwE 'vmx|svm' /proc/cpuinfo; then
        echo kvm
    else
        echo tcg
    fi
}
