# shellcheck shell=sh
# What taking lowtide away needs: an end for its pods, and for its data. POSIX sh; cross/package puts
# this text where scripts say `# include pods.sh`, since each of them has to work alone.

# Ends all pods within their grace periods, and the agent. Only the agent can, so it is started where it is
# down; the service sees by the file that the pods go too.
stop_pods() {
    [ -n "$(ls /run/lowtide/pods 2>/dev/null)" ] || return 0
    # Left behind by whoever loses patience or the line, it would end the pods at each restart.
    trap 'rm -f /run/lowtide/stop-pods' EXIT
    trap 'exit 1' HUP INT TERM
    if [ -d /run/systemd/system ]; then
        systemctl start lowtide.service || :
        : >/run/lowtide/stop-pods
        systemctl stop lowtide.service || :
    elif [ -x /etc/init.d/lowtide ] && command -v rc-service >/dev/null; then
        rc-service --ifstopped lowtide start || :
        : >/run/lowtide/stop-pods
        rc-service lowtide stop || :
    fi
    rm -f /run/lowtide/stop-pods
    trap - EXIT HUP INT TERM
    [ -z "$(ls /run/lowtide/pods)" ]
}

# An upgrade that waits for a start must not come over what is installed later.
forget_upgrade() {
    rm -f /var/lib/lowtide/upgrade/record.json "$1.new" "$1.old"
}

# Where else the node keeps its data: as the agent said at its last start, or as it is configured.
data_elsewhere() {
    { readlink /run/lowtide/root || sed -n 's/^rootDir: *["'"'"']\{0,1\}\([^"'"'"' #]*\).*/\1/p' \
        /etc/lowtide/config.yaml; } 2>/dev/null | grep -v '^/var/lib/lowtide/*$' | head -n 1 || :
}

# Mounts below the node's directories, deepest first.
mounts_below() {
    awk '$5 ~ "^/(var/lib|run)/lowtide/" { print $5 }' /proc/self/mountinfo | sort -r
}

# Removes all that the node keeps: objects, keys, images, volumes, logs of its pods. Nothing if
# anything is mounted there that cannot be unmounted: what it shows may be somebody else's.
remove_data() {
    [ -r /proc/self/mountinfo ] || return 1
    elsewhere=$(data_elsewhere)
    [ -z "$elsewhere" ] ||
        echo "lowtide: data in $elsewhere stays, with its keys: it is yours to remove" >&2
    mounts_below | while read -r mounted; do umount "$mounted" || :; done
    if [ -n "$(mounts_below)" ]; then
        echo "lowtide: data is kept, since something is still mounted there:" >&2
        mounts_below >&2
        return 1
    fi
    for pod in /var/lib/lowtide/pods/*; do
        [ -d "$pod" ] || continue
        rm -rf /var/log/pods/*_"${pod##*/}"
    done
    for link in /var/log/containers/*; do
        if [ -L "$link" ] && [ ! -e "$link" ]; then rm -f "$link"; fi
    done
    for directory in /var/lib/lowtide /run/lowtide; do
        rm -rf "${directory:?}"/* "$directory"/.[!.]*
        # The directory itself stays where it is a file system of its own.
        rmdir "$directory" 2>/dev/null || :
    done
}
