# shellcheck shell=sh
# What taking lowtide away needs: an end for its pods, and for its data. POSIX sh; cross/package puts
# this text where scripts say `# include pods.sh`, since each of them has to work alone.

# setting FLAG FIELD NOTE DEFAULT: what the service's flags or its configuration say, or what a removal has
# noted, since a purge finds neither any more.
noted=/var/lib/lowtide/where
setting() {
    {
        # Any of the files may be missing.
        set +e
        sed -n "s/^LOWTIDE_FLAGS=.*--$1[= ]\([^ \"']*\).*/\1/p" /etc/lowtide/environment
        sed -n -e 's/\r$//' -e "/^$2:/!d" -e "s/^$2: *\"\([^\"]*\)\".*/\1/p" -e t -e "s/^$2: *'\([^']*\)'.*/\1/p" -e t \
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

# What the node makes in ROOT; `pki` is what tells one from any other directory.
own_files='store.redb store.key admin.kubeconfig clock-floor .ballast boot.json where'
own_directories='images pods cni upgrade'

# What is the node's alone; with a slash, all below. What else is in a directory that the operator has chosen
# may be anybody's.
own_places() {
    for directory in /var/lib/lowtide /run/lowtide; do
        [ -L "$directory" ] || echo "$directory/"
    done
    for name in $own_directories pki; do
        printf '%s\n' "/var/lib/lowtide/$name" "$root_dir/$name"
    done
    printf '%s\n' "$run_dir/pods" "$run_dir/runc"
}

# Mounts there, deepest first. A link there is removed, and not what it leads to.
own_mounts() {
    own_places | while IFS= read -r place; do
        if [ ! -d "$place" ] || [ -L "$place" ]; then continue; fi
        slash=/
        [ "$place" = "${place%/}" ] || slash=
        top=$(readlink -f "$place") || top=
        # Nowhere is no prefix of anything.
        [ -n "${top#/}" ] || continue
        top=$top slash=$slash awk '{ gsub(/\\040/, " ", $5) }
            index($5 ENVIRON["slash"], ENVIRON["top"] "/") == 1 { print $5 }' /proc/self/mountinfo
    done | sort -ru
}

# Where what is mounted outside has come along, its own place keeps it.
unmount_own() {
    own_mounts | while IFS= read -r mounted; do mount --make-private "$mounted" || :; done
    own_mounts | while IFS= read -r mounted; do umount "$mounted" || :; done
}

# remove_own DIRECTORY: what the node has made there, and nothing else.
remove_own() {
    for name in $own_files; do
        rm -f "${1:?}/$name" "$1/$name.tmp" "$1/.$name.tmp" || return 1
    done
    rm -f "$1"/store.redb.* || return 1
    for name in $own_directories; do
        rm -rf "${1:?}/$name" || return 1
    done
    # Its mark goes last: what failed can be done again.
    rm -rf "${1:?}/pki" || return 1
    rmdir "$1/preload" 2>/dev/null || :
    rmdir "$1" 2>/dev/null || echo "lowtide: what else is in $1 stays" >&2
}

keep_data() {
    echo "lowtide: data is kept: $*" >&2
    return 1
}

# Removes all that the node keeps: objects, keys, images, volumes, logs of its pods. Nothing if
# anything is mounted there that cannot be unmounted: what it shows may be somebody else's.
remove_data() {
    for tool in awk sort readlink mount umount; do
        command -v $tool >/dev/null || keep_data "no $tool here" || return 1
    done
    [ -r /proc/self/mountinfo ] || keep_data 'no /proc here' || return 1
    find_directories
    case $root_dir$run_dir in
        *[\\[:cntrl:]]*) keep_data "its place has an odd name, see $noted or the configuration" || return 1 ;;
    esac
    if ! [ -e "$root_dir/pki" ]; then
        [ "$root_dir" = /var/lib/lowtide ] ||
            echo "lowtide: $root_dir is no data of lowtide now: look there, if it should be" >&2
        root_dir=/var/lib/lowtide
    fi
    if [ -L /var/lib/lowtide ] && [ ! -d /var/lib/lowtide ]; then
        echo 'lowtide: /var/lib/lowtide leads nowhere now: look there' >&2
    fi
    # Twice, where one lies over another.
    unmount_own
    unmount_own
    if [ -n "$(own_mounts)" ]; then
        own_mounts >&2
        keep_data 'that is still mounted there' || return 1
    fi
    for pod in /var/lib/lowtide/pods/* "$root_dir"/pods/*; do
        [ -d "$pod" ] || continue
        rm -rf "$logs_dir"/*_"${pod##*/}" || return 1
    done
    for link in /var/log/containers/*; do
        if [ -L "$link" ] && [ ! -e "$link" ]; then rm -f "$link"; fi
    done
    if [ "$(readlink -f "$root_dir")" != "$(readlink -f /var/lib/lowtide)" ]; then
        remove_own "$root_dir" || return 1
    fi
    if [ ! -L /var/lib/lowtide ]; then
        rm -rf /var/lib/lowtide/* /var/lib/lowtide/.[!.]* || return 1
    elif [ -d /var/lib/lowtide ]; then
        remove_own "$(readlink -f /var/lib/lowtide)" || return 1
        [ -e /var/lib/lowtide ] || rm -f /var/lib/lowtide
    fi
    [ -L /run/lowtide ] || rm -rf /run/lowtide/* /run/lowtide/.[!.]* || return 1
    # They stay where they are file systems of their own.
    rmdir /var/lib/lowtide /run/lowtide 2>/dev/null || :
}
