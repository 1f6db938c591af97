#!/bin/sh
# Installs lowtide from this directory, on any Linux with systemd or OpenRC. Needs no network; running it
# again brings what is newer, and pods go on meanwhile.
#
#   ./install.sh [--prefix DIR] [--root DIR] [--no-start]
#
# --prefix    where the program goes; /usr/local
# --root      a directory that is a system's root, such as an image in the making; nothing is started
# --no-start  enables and starts nothing
#
# A configuration that was changed is never overwritten: the new one is put beside it as FILE.new.
set -eu
umask 022
here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local root='' start=yes

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --root) [ $# -ge 2 ] || fail "$1 wants a directory" ;;
    esac
    case $1 in
        --prefix) prefix=${2%/}; shift ;;
        --root) root=${2%/}; start=no; shift ;;
        --prefix=*) prefix=${1#*=}; prefix=${prefix%/} ;;
        --root=*) root=${1#*=}; root=${root%/}; start=no ;;
        --no-start) start=no ;;
        -h | --help) sed -n '2,/^set /s/^#\( \|$\)//p' "$0"; exit 0 ;;
        *) fail "unknown argument $1; --help says more" ;;
    esac
    shift
done
case $prefix in /*) ;; *) fail "--prefix $prefix: not an absolute path" ;; esac
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run as root (sudo ./install.sh)"
[ -z "$root" ] || [ -d "$root" ] || fail "--root $root: no such directory"

# What the distribution calls the packages that pods need, as a command.
how_to_get() {
    # shellcheck source=/dev/null
    kind=$(. "$root/etc/os-release" 2>/dev/null && echo " ${ID:-} ${ID_LIKE:-} ") || kind=
    case $kind in
        *' debian '* | *' ubuntu '*) echo "apt install runc nftables" ;;
        *' alpine '*) echo "apk add runc nftables (and: rc-update add cgroups, rc-service cgroups start)" ;;
        *' fedora '* | *' rhel '*) echo "dnf install runc nftables" ;;
        *' suse '* | *' opensuse '*) echo "zypper install runc nftables" ;;
        *' arch '*) echo "pacman -S runc nftables" ;;
        *) echo "install runc (or crun) and nft with your package manager" ;;
    esac
}

# place MODE FILE DESTINATION: whole or not at all, also over a program that runs.
place() {
    mkdir -p "$root${3%/*}"
    cp "$2" "$root$3.tmp"
    chmod "$1" "$root$3.tmp"
    # All of it before its name, also where the power fails in between.
    sync "$root$3.tmp" 2>/dev/null || sync
    mv -f "$root$3.tmp" "$root$3"
}

# place_config FILE DESTINATION: only where nobody has changed what an installation before put there.
place_config() {
    sums=$prefix/share/lowtide/installed.sha256
    mkdir -p "$root${2%/*}" "$root${sums%/*}"
    : >>"$root$sums"
    new=$(sha256sum <"$1" | cut -d' ' -f1)
    now=$([ ! -e "$root$2" ] || sha256sum <"$root$2" | cut -d' ' -f1)
    if [ -z "$now" ] || [ "$now" = "$new" ] || grep -qx "$now  $2" "$root$sums"; then
        place 0644 "$1" "$2"
        rm -f "$root$2.new"
        { grep -v "  $2\$" "$root$sums" || :; echo "$new  $2"; } >"$root$sums.tmp"
        mv -f "$root$sums.tmp" "$root$sums"
    else
        place 0644 "$1" "$2.new"
        echo "kept $root$2 as it is; what this version brings is in $root$2.new"
    fi
}

# with_prefix FILE: prints it with the place of the program.
with_prefix() {
    sed "s|/usr/local/bin/lowtide|$prefix/bin/lowtide|" "$1"
}

"$here/bin/lowtide" --version >/dev/null 2>&1 || {
    arch=$(cat "$here/ARCH") machine=$(uname -m)
    wanted="this is lowtide for $arch, this machine is $machine" hint="take the package for it"
    case $machine in
        "$arch"*)
            wanted="$here/bin/lowtide does not run on this $machine"
            hint="is the file system mounted noexec? Then unpack it on another"
            ;;
    esac
    [ -n "$root" ] || fail "$wanted: $hint"
    echo "note: $wanted" >&2
}
init=none
if [ -d "$root/run/systemd/system" ] || [ -e "$root/lib/systemd/systemd" ]; then
    init=systemd
elif [ -e "$root/sbin/openrc-run" ]; then
    init=openrc
fi

# A mask that a removed Debian package has left is nobody's wish; any other is the administrator's.
unit=/etc/systemd/system/lowtide.service
left=$root/var/lib/systemd/deb-systemd-helper-masked/lowtide.service
if [ $init = systemd ] && [ "$(readlink "$root$unit")" = /dev/null ]; then
    if [ -e "$left" ]; then
        rm -f "$root$unit" "$left"
    else
        echo "the service is masked, and stays so, neither enabled nor started; to have it:"
        echo "  systemctl unmask lowtide, then this again"
        start=no
    fi
fi

# An installation that is there and was disabled stays disabled; one that was never to start yet is none.
never_started=$prefix/share/lowtide/never-started
enabled() {
    case $init in
        systemd) systemctl --quiet is-enabled lowtide.service 2>/dev/null ;;
        openrc) [ -n "$(find /etc/runlevels -name lowtide)" ] ;;
        none) false ;;
    esac
}
if [ "$start" = yes ] && [ -e "$prefix/share/lowtide/installed.sha256" ] && [ ! -e "$never_started" ] && ! enabled
then
    echo "the service was not enabled, and stays so: systemctl enable --now lowtide, rc-update add lowtide"
    start=no
fi

mkdir -p "$root${never_started%/*}"
if [ "$start" = yes ]; then
    rm -f "$never_started"
elif [ ! -e "$root$prefix/share/lowtide/installed.sha256" ]; then
    : >"$root$never_started"
fi

place 0755 "$here/bin/lowtide" "$prefix/bin/lowtide"
place 0755 "$here/uninstall.sh" "$prefix/share/lowtide/uninstall.sh"
for file in LICENSE THIRD-PARTY-LICENSES sbom.cdx.json; do
    place 0644 "$here/$file" "$prefix/share/doc/lowtide/$file"
done
for file in "$here"/examples/*; do
    mode=0644
    [ ! -x "$file" ] || mode=0755
    place $mode "$file" "$prefix/share/doc/lowtide/examples/${file##*/}"
done
for file in "$here"/man/*; do
    place 0644 "$file" "$prefix/share/man/man${file##*.}/${file##*/}"
done
place 0644 "$here/completions/lowtide.bash" "$prefix/share/bash-completion/completions/lowtide"
place 0644 "$here/completions/_lowtide" "$prefix/share/zsh/site-functions/_lowtide"
place 0644 "$here/completions/lowtide.fish" "$prefix/share/fish/vendor_completions.d/lowtide.fish"
for file in "$here"/etc/*; do
    place_config "$file" "/etc/lowtide/${file##*/}"
done
mkdir -p "$root/etc/lowtide/manifests" "$root/var/lib/lowtide/preload"
chmod 0700 "$root/var/lib/lowtide"
service=$(mktemp)
trap 'rm -f "$service"' EXIT
case $init in
    systemd)
        with_prefix "$here/systemd/lowtide.service" >"$service"
        place_config "$service" $unit
        ;;
    openrc)
        with_prefix "$here/openrc/lowtide" >"$service"
        place_config "$service" /etc/init.d/lowtide
        chmod 0755 "$root/etc/init.d/lowtide"
        ;;
    none) echo "neither systemd nor OpenRC here: have '$prefix/bin/lowtide run' started by your init" ;;
esac
echo "installed $prefix/bin/lowtide$([ -z "$root" ] || echo " in $root")"
[ -z "$root" ] || exit 0

# What pods need of this machine; said by the program itself.
missing=no
"$prefix/bin/lowtide" check >"$service" 2>&1 || missing=yes
grep -v '^ok' "$service" || :
[ $missing = no ] || echo "packages: $(how_to_get)"
[ "$start" = yes ] || exit 0
case $init in
    systemd)
        systemctl daemon-reload
        systemctl enable --quiet lowtide.service
        [ $missing = yes ] || systemctl restart lowtide.service
        ;;
    openrc)
        rc-update -q add lowtide default
        [ $missing = yes ] || rc-service -q lowtide restart
        ;;
    none) exit 0 ;;
esac
if [ $missing = yes ]; then
    echo "not started, since something is missing; then run this again"
    exit 0
fi
echo "lowtide runs; put manifests into /etc/lowtide/manifests ($prefix/share/doc/lowtide/examples has some)"
