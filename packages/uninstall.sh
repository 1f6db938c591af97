#!/bin/sh
# Takes away what install.sh has installed.
#
#   uninstall.sh [--prefix DIR] [--root DIR] [--purge | --keep-data] [--leave-pods]
#
# --purge       removes data too: objects, keys, images, volumes and logs of pods, configuration;
#               your own files in /etc/lowtide stay
# --keep-data   keeps it; this is also what happens where nobody can be asked
# --leave-pods  pods go on without an agent, until another installation finds them
#
# Else all pods are stopped first, within their grace periods: nothing could stop them later. Where a package
# of lowtide is installed too, its service takes over, with the data.
set -eu
prefix='' root='' data='' pods=stop

fail() {
    echo "uninstall.sh: $*" >&2
    exit 1
}
# include pods.sh

while [ $# -gt 0 ]; do
    case $1 in
        --prefix | --root) [ $# -ge 2 ] || fail "$1 wants a directory" ;;
    esac
    case $1 in
        --prefix) prefix=${2%/}; shift ;;
        --root) root=${2%/}; shift ;;
        --prefix=*) prefix=${1#*=}; prefix=${prefix%/} ;;
        --root=*) root=${1#*=}; root=${root%/} ;;
        --purge) data=purge ;;
        --keep-data) data=keep ;;
        --leave-pods) pods=leave ;;
        -h | --help) sed -n '2,/^set /s/^#\( \|$\)//p' "$0"; exit 0 ;;
        *) fail "unknown argument $1; --help says more" ;;
    esac
    shift
done
[ -n "$root" ] || [ "$(id -u)" = 0 ] || fail "run as root"
# It lies in PREFIX/share/lowtide.
self=$(cd "$(dirname "$0")" && pwd)
if [ -z "$prefix" ] && [ -z "$root" ] && [ "${self%/share/lowtide}" != "$self" ]; then
    prefix=${self%/share/lowtide}
fi
prefix=${prefix:-/usr/local}
[ "$data-$pods" != purge-leave ] || fail "--purge and --leave-pods: pods cannot go on without their data"
package=
for unit in /lib/systemd/system/lowtide.service /usr/lib/systemd/system/lowtide.service; do
    [ ! -e "$root$unit" ] || package=$unit
done
[ -z "$package" ] || [ "$data" != purge ] || fail "--purge: the data is that of the lowtide package here"
if [ -z "$data$package" ] && [ "$pods" = stop ] && [ -t 0 ]; then
    printf 'Remove data as well (objects, keys, images, volumes, logs)? [y/N] '
    read -r answer || answer=
    case $answer in [yY]*) data=purge ;; esac
fi

systemd=no active=no
if [ -z "$root" ]; then
    if [ -d /run/systemd/system ]; then
        systemd=yes
        case $(systemctl is-active lowtide.service) in active | activating | reloading) active=yes ;; esac
    fi
    if [ "$pods" = stop ]; then
        stop_pods || fail "pods still run and cannot be stopped; mend the service, or give --leave-pods"
    fi
    if [ $systemd = yes ]; then
        [ -n "$package" ] || systemctl --quiet disable --now lowtide.service 2>/dev/null || :
    elif command -v rc-service >/dev/null; then
        rc-service --ifstarted lowtide stop || :
        rc-update -q del lowtide || :
    fi
fi
for service in /etc/systemd/system/lowtide.service /etc/init.d/lowtide; do
    # A mask is the administrator's.
    [ "$(readlink "$root$service")" = /dev/null ] || rm -f "$root$service"
    rm -f "$root$service.new"
done
if [ -n "$package" ]; then
    for link in "$root"/etc/systemd/system/*.wants/lowtide.service; do
        [ ! -L "$link" ] || ln -sf "$package" "$link"
    done
fi
[ $systemd = no ] || systemctl daemon-reload
[ -n "$root" ] || forget_upgrade "$prefix/bin/lowtide"
# While this script is still there to be run again.
if [ "$data" = purge ] && [ -z "$root" ]; then
    remove_data || fail "not all is removed; mend that, then run this again"
elif [ "$data" = purge ]; then
    rm -rf "$root/var/lib/lowtide"
fi
rm -f "$root$prefix/bin/lowtide" "$root$prefix/share/man/man1/lowtide.1" \
    "$root$prefix/share/man/man8/lowtide-run.8" \
    "$root$prefix/share/bash-completion/completions/lowtide" \
    "$root$prefix/share/zsh/site-functions/_lowtide" \
    "$root$prefix/share/fish/vendor_completions.d/lowtide.fish"
rm -rf "$root$prefix/share/doc/lowtide" "$root$prefix/share/lowtide"

if [ -n "$package" ]; then
    [ $active = no ] || systemctl restart lowtide.service || fail "the package's service does not start"
    echo "lowtide in $root$prefix is gone; the package's service has its data and configuration now"
    exit 0
fi
if [ "$data" != purge ]; then
    echo "lowtide is gone; kept: $root/etc/lowtide, $root/var/lib/lowtide and logs in $root/var/log/pods"
    exit 0
fi
for file in config.yaml environment release.pub; do
    rm -f "$root/etc/lowtide/$file" "$root/etc/lowtide/$file.new"
done
# What else is there was put there by its owner.
rmdir "$root/etc/lowtide/manifests" "$root/etc/lowtide" 2>/dev/null || :
echo "lowtide and its data are gone$([ ! -d "$root/etc/lowtide" ] || echo "; kept: your own files in $root/etc/lowtide")"
