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
# Else all pods are stopped first, within their grace periods: nothing could stop them later.
set -eu
prefix=/usr/local root='' data='' pods=stop

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
[ "$data-$pods" != purge-leave ] || fail "--purge and --leave-pods: pods cannot go on without their data"
if [ -z "$data" ] && [ "$pods" = stop ] && [ -t 0 ]; then
    printf 'Remove data as well (objects, keys, images, volumes, logs)? [y/N] '
    read -r answer || answer=
    case $answer in [yY]*) data=purge ;; esac
fi

if [ -z "$root" ]; then
    if [ "$pods" = stop ]; then
        stop_pods || fail "pods still run and cannot be stopped; mend the service, or give --leave-pods"
    fi
    if [ -d /run/systemd/system ]; then
        systemctl --quiet disable --now lowtide.service 2>/dev/null || :
    elif command -v rc-service >/dev/null; then
        rc-service --ifstarted lowtide stop || :
        rc-update -q del lowtide || :
    fi
fi
for service in /etc/systemd/system/lowtide.service /etc/init.d/lowtide; do
    rm -f "$root$service" "$root$service.new"
done
[ -n "$root" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
rm -f "$root$prefix/bin/lowtide" "$root$prefix/share/man/man1/lowtide.1" \
    "$root$prefix/share/man/man8/lowtide-run.8" \
    "$root$prefix/share/bash-completion/completions/lowtide" \
    "$root$prefix/share/zsh/site-functions/_lowtide" \
    "$root$prefix/share/fish/vendor_completions.d/lowtide.fish"
rm -rf "$root$prefix/share/doc/lowtide" "$root$prefix/share/lowtide"

if [ "$data" != purge ]; then
    echo "lowtide is gone; kept: $root/etc/lowtide, $root/var/lib/lowtide and logs in $root/var/log/pods"
    exit 0
fi
if [ -z "$root" ]; then
    remove_data
else
    rm -rf "$root/var/lib/lowtide"
fi
for file in config.yaml environment release.pub; do
    rm -f "$root/etc/lowtide/$file" "$root/etc/lowtide/$file.new"
done
# What else is there was put there by its owner.
rmdir "$root/etc/lowtide/manifests" "$root/etc/lowtide" 2>/dev/null || :
echo "lowtide and its data are gone$([ ! -d "$root/etc/lowtide" ] || echo "; kept: your own files in $root/etc/lowtide")"
