# shellcheck shell=sh
# What taking lowtide away needs: an end for its pods, and for its data. POSIX sh; cross/package puts
# this text where scripts say `# include pods.sh`, since each of them has to work alone.

# setting FLAG FIELD NOTE DEFAULT: what the service's flags or its configuration say, or what a removal has
# noted, since a purge finds neither any more.
noted=/var/lib/lowtide/where
setting() {
    {
        sed -n "s/^LOWTIDE_FLAGS=.*--$1[= ]\([^ \"']*\).*/\1/p" /etc/lowtide/environment
        sed -n -e "/^$2:/!d" -e "s/^$2: *\"\([^\"]*\)\".*/\1/p" -e t -e "s/^$2: *'\([^']*\)'.*/\1/p" -e t \
            -e 's/ #.*//' -e 's/ *$//' -e "s/^$2: *//p" /etc/lowtide/config.yaml
        sed -n "s/^$3 //p" $noted
        echo "$4"
    } 2>/dev/null | grep -m 1 .
}

# ROOT, RUN and the directory of logs; ROOT by the link first that the agent left at its last start.
find_directories() {
    run_dir=$(setting run-dir runDir run /run/lowtide)
    root_dir=$(readlink "$run_dir/root" || setting root-dir rootDir root /var/lib/lowtide)
    logs_dir=$(setting pod-logs-dir podLogsDir logs /var/log/pods)
}
note_directories() {
    find_directories
    { printf 'root %s\nrun %s\nlogs %s\n' "$root_dir" "$run_dir" "$logs_dir" >$noted; } 2>/dev/null || :
}

# Ends all pods within their grace periods, and the agent. Only the agent can, so it is started where it is
# down; the service sees by the file that the pods go too. A bridge that is left of them goes with it.
stop_pods() {
    find_directories
    [ -n "$(ls -d "$run_dir"/pods/* /sys/class/net/lt-* 2>/dev/null)" ] || return 0
    mkdir -p /run/lowtide
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
    [ -z "$(ls "$run_dir/pods" 2>/dev/null)" ]
}

# An upgrade that waits for a start must not come over what is installed later.
forget_upgrade() {
    find_directories
    rm -f /var/lib/lowtide/upgrade/record.json "$root_dir/upgrade/record.json" "$1.new" "$1.old"
}

# elsewhere DIRECTORY DEFAULT: whether the operator has chosen it, who may keep other things there too.
elsewhere() {
    [ "$(readlink -f "$1")" != "$(readlink -f "$2")" ]
}

# Mounts below what is the node's alone, wherever links lead, deepest first.
mounts_below() {
    for top in /var/lib/lowtide /run/lowtide "$root_dir"/pods "$root_dir"/images "$run_dir"/pods "$run_dir"/runc; do
        # One that is not there leads nowhere, and nowhere is no prefix.
        top=$(readlink -f "$top") || top=
        [ -n "${top#/}" ] || continue
        top=$top awk '{ gsub(/\\040/, " ", $5) } index($5, ENVIRON["top"] "/") == 1 { print $5 }' /proc/self/mountinfo
    done | sort -ru
}

# Removes what a ROOT elsewhere has of the node; nothing if it does not look like one.
remove_root() {
    if ! [ -e "$root_dir/pki" ]; then
        echo "lowtide: $root_dir is no data of lowtide now: look there, if it should be" >&2
        return 0
    fi
    for own in store.redb store.key pki admin.kubeconfig clock-floor .ballast boot.json images pods cni upgrade; do
        rm -rf "${root_dir:?}/$own" || return 1
    done
    rm -f "$root_dir"/store.redb.* "$root_dir"/.*.tmp || return 1
    rmdir "$root_dir/preload" 2>/dev/null || :
    rmdir "$root_dir" 2>/dev/null || echo "lowtide: what else is in $root_dir stays" >&2
}

# Removes all that the node keeps: objects, keys, images, volumes, logs of its pods. Nothing if
# anything is mounted there that cannot be unmounted: what it shows may be somebody else's.
remove_data() {
    [ -r /proc/self/mountinfo ] || return 1
    find_directories
    mounts_below | while read -r mounted; do umount "$mounted" || :; done
    if [ -n "$(mounts_below)" ]; then
        echo "lowtide: data is kept, since something is still mounted there:" >&2
        mounts_below >&2
        return 1
    fi
    for pod in /var/lib/lowtide/pods/* "$root_dir"/pods/*; do
        [ -d "$pod" ] || continue
        rm -rf "$logs_dir"/*_"${pod##*/}" || return 1
    done
    for link in /var/log/containers/*; do
        if [ -L "$link" ] && [ ! -e "$link" ]; then rm -f "$link"; fi
    done
    if elsewhere "$root_dir" /var/lib/lowtide; then
        remove_root || return 1
    fi
    for directory in /var/lib/lowtide /run/lowtide; do
        rm -rf "${directory:?}"/* "$directory"/.[!.]* || return 1
        # The directory itself stays where it is a file system of its own.
        rmdir "$directory" 2>/dev/null || :
    done
}
