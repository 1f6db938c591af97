# shellcheck shell=sh disable=SC3043
# What the checks of a booted system share. Source it in the VM, and have functions `processes` (all that
# belong to pods: shims, pauses, containers) and `finish` (ends the boot).
bad=0
cgroups=/sys/fs/cgroup
# Patience for any single thing, in tenths of a second of an emulated CPU.
patience=600

is() { # is WHAT FOUND WANTED
    if [ "$2" = "$3" ]; then
        echo "ok   $1: $(echo "$2" | tr '\n' ' ' | cut -c1-100)"
    else
        echo "FAIL $1: '$2' instead of '$3'"
        bad=1
    fi
}
until_is() { # until_is WHAT WANTED COMMAND...
    local what="$1" wanted="$2" found tries=0
    shift 2
    while found=$("$@" 2>&1) || :; [ "$found" != "$wanted" ] && [ $tries -lt $patience ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    is "$what" "$found" "$wanted"
}
running() { lowtide get pods | grep -c ' Running '; }
identities() {
    lowtide get pods -o json |
        jq -r '.items[].status.containerStatuses[] | "\(.containerID) \(.restartCount)"' | sort
}
limits() {
    find $cgroups/kubepods \( -name memory.max -o -name cpu.max -o -name cpu.weight -o -name memory.oom.group \
        -o -name pids.max \) -exec grep -H . {} + | sort
}
untouched() { # untouched WHAT: the pods are those that `remember` saw
    until_is "$1: the agent reports" 2 running
    is "$1: same containers, same restart counts" "$(identities)" "$known_identities"
    is "$1: same processes" "$(processes | sort)" "$known_processes"
    is "$1: same limits" "$(limits | sha256sum)" "$known_limits"
}
remember() {
    known_identities=$(identities)
    known_processes=$(processes | sort)
    known_limits=$(limits | sha256sum)
}
upgrades() { # a signed program takes over, one that cannot start goes back
    is 'a signed program takes over' "$(lowtide upgrade --timeout=200s /root/good | tail -n 1 |
        sed 's/.* is/is/') $(cmp /root/good /usr/local/bin/lowtide && echo same)" 'is ready same'
    untouched 'upgrade'
    lowtide upgrade --timeout=200s /root/bad >/tmp/upgrade 2>&1
    is 'one that cannot start goes back' \
        "$? $(grep -o 'started 3 times' /tmp/upgrade) $(cmp /root/good /usr/local/bin/lowtide && echo same)" \
        '1 started 3 times same'
    untouched 'an upgrade that went back'
}
