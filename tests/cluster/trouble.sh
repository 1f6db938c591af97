# shellcheck shell=bash disable=SC2154
# Stories of links, clusters and nodes that fail. Source it (run) after stories.sh, which has the words
# they are told in.

# A minute without the link: the cluster gives the node up and drives out who does not wait; what is
# here runs on, and all is as it should be within seconds of the link's return.
story_cut() {
    deployment waits 2 | create
    deployment hurries 1 "tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 2}]" | create
    manifest cut
    pod goes "$forever" | create
    kubectl rollout status deployment/waits --timeout=60s
    kubectl rollout status deployment/hurries --timeout=60s
    within 30 ready goes
    within 30 ready own-edge
    who_runs >"$state/before"
    unplug
    within 60 condition node edge Ready Unknown
    within 20 says unreachable of node edge '.spec.taints[*].key'
    within 20 says '[0-9]' of pod -l=app=hurries '.items[*].metadata.deletionTimestamp'
    kubectl delete pod goes --wait=false
    sleep 30
    is 'containers of the node' 5 "$(own get pods | grep -c ' Running ')"
    plug
    within 10 node_ready
    within 10 no_taints
    within 20 fails kubectl get pod goes
    kubectl rollout status deployment/hurries --timeout=60s
    within 30 ready own-edge
    who_runs >"$state/after"
    is 'who ran on' "$(grep -E '^(waits|own)' "$state/before")" "$(grep -E '^(waits|own)' "$state/after")"
    rm "$edge/manifests/own.yaml"
    kubectl delete deployment/waits deployment/hurries --timeout=60s
    within 60 gone
}

# The agent dies, the API server restarts: no container notices.
story_crash() {
    deployment web 2 | create
    kubectl rollout status deployment/web --timeout=60s
    who_runs >"$state/before"
    end lowtide KILL
    lowtide
    within 30 says started kubectl logs -l app=web
    end apiserver KILL
    sleep 3
    apiserver
    within 60 node_ready
    end lowtide KILL
    pod late "$forever" | create
    lowtide
    within 60 ready late
    kubectl delete pod late --timeout=30s
    who_runs >"$state/after"
    is 'who runs' "$(cat "$state/before")" "$(cat "$state/after")"
    kubectl delete deployment/web --timeout=60s
    within 60 gone
}

# A reboot without the link: everything in memory is gone, the disk is not.
story_dark() {
    create <<YAML
apiVersion: v1
kind: Secret
metadata: {name: hush}
stringData: {s: shh}
YAML
    pod stays 'cat /hush/s; '"$forever" "volumes: [{name: h, secret: {secretName: hush}}]" |
        sed 's/{name: c,/{name: c, volumeMounts: [{name: h, mountPath: \/hush}],/' | create
    pod goes "$forever" | create
    within 30 ready stays
    within 30 ready goes
    local before
    before=$(of pod stays .metadata.uid)
    unplug
    end lowtide KILL
    power_off
    kubectl delete pod goes --wait=false
    lowtide
    within 30 says 'stays +1/1 +Running' own get pods
    plug
    within 10 node_ready
    within 20 fails kubectl get pod goes
    within 20 ready stays
    has pod stays .metadata.uid "$before"
    has pod stays '.status.containerStatuses[0].restartCount' 1
    says shh kubectl logs stays
    kubectl delete pod/stays secret/hush --timeout=30s
}
# The cluster comes back as it was an hour ago.
story_restore() {
    pod old "$forever" | create
    pod removed "$forever" | create
    within 30 ready old
    within 30 ready removed
    who_runs | grep '^old' >"$state/before"
    stop_cluster
    cp -a "$state/etcd" "$state/backup"
    start_cluster
    kubectl delete pod removed --timeout=30s
    pod young "$forever" | create
    within 30 ready young
    stop_cluster
    rm -rf "$state/etcd"
    mv "$state/backup" "$state/etcd"
    start_cluster
    within 60 node_ready
    # What the cluster does not know any more ends here; what it remembers runs again.
    within 60 fails own_has 'name: young'
    within 60 ready removed
    within 30 ready old
    who_runs | grep '^old' >"$state/after"
    is 'who ran on' "$(cat "$state/before")" "$(cat "$state/after")"
    kubectl delete pod old removed --timeout=30s
    within 60 gone
}
stop_cluster() {
    end scheduler
    end controllers
    end apiserver KILL
    end etcd
}
start_cluster() {
    etcd
    apiserver
    controllers
    scheduler
}

# As many as a node takes.
story_many() {
    kubectl create deployment many --replicas=110 --image="$image" -- \
        sh -c "trap 'exit 0' TERM; sleep 100000 & wait"
    within 240 has deployment many .status.readyReplicas 110
    end lowtide KILL
    lowtide
    within 60 has deployment many .status.readyReplicas 110
    unplug
    within 60 condition node edge Ready Unknown
    plug
    within 10 node_ready
    within 60 has deployment many .status.readyReplicas 110
    kubectl delete deployment many --timeout=240s
    within 240 gone
}

# A certificate of minutes: the signer's, renewed in time by a request of the node's own.
story_renew() {
    end controllers
    controllers --cluster-signing-duration=3m
    bootstrap_anew
    local first
    first=$(serial)
    within 20 node_ready
    within 180 renewed "$first"
    says system:node:edge kubectl get csr \
        --field-selector spec.signerName=kubernetes.io/kube-apiserver-client-kubelet
    pod late "$forever" | create
    within 30 ready late
    kubectl delete pod late --timeout=30s
    # The stories after this one have certificates that outlast them.
    end controllers
    controllers
    bootstrap_anew
}
bootstrap_anew() {
    end lowtide
    rm "$edge/kubelet.conf" "$edge"/root/pki/kubelet-client-*
    lowtide --bootstrap-kubeconfig="$edge/bootstrap.conf"
    within 60 test -s "$edge/kubelet.conf"
}
serial() {
    openssl x509 -noout -serial -in "$edge/root/pki/kubelet-client-current.pem"
}
renewed() {
    [ "$(serial)" != "$1" ]
}

# The way to the API server leads over a link that tests/support/link.rs makes bad. Whatever it does, what
# runs goes on, and once it is good again the cluster hears at once of all that was meanwhile.
story_links() {
    begin_trouble
    bad_way
    kubectl create namespace brief
    within 20 kubectl -n brief get serviceaccount default
    pod passenger "$forever" | kubectl -n brief create -f -

    # 2 s there and back, 10 kB/s: later, but everything.
    link slow
    pod slow "$forever" | create
    within 60 ready slow
    mended slow link pass

    # What the node says is lost.
    link mute
    kubectl delete pod slow --wait=false
    kubectl delete namespace brief --wait=false
    manifest mute
    within 30 fails own_has 'name: slow'
    within 30 fails own_has 'name: passenger'
    within 40 condition node edge Ready Unknown
    mended 'the node not heard' link pass
    within 10 fails kubectl get pod slow
    within 30 fails kubectl get namespace brief
    within 20 ready own-edge

    # What the cluster says is lost: renewals arrive, over connections that are there by then.
    within 15 renewed_since "$(date -u +%FT%T.%6NZ)"
    link deaf
    pod new "$forever" | create
    rm "$edge/manifests/own.yaml"
    within 30 fails own_has 'name: own-edge'
    sleep 20
    condition node edge Ready True
    mended 'the cluster not heard' link pass
    within 20 ready new
    within 20 fails kubectl get pod own-edge

    # Nobody is told that the connections are dead; a pod is replaced by another of its name.
    link half-open
    local first
    first=$(of pod new .metadata.uid)
    kubectl delete pod new --grace-period=0 --force
    pod new "echo second; $forever" | create
    sleep 25
    mended half-open link pass
    within 20 ready new
    another new "$first"
    says second kubectl logs new
    within 20 fails own_has "$first"

    # Half of an answer is none.
    link truncate
    sleep 8
    link reset
    first=$(of node edge .metadata.uid)
    kubectl delete node edge
    sleep 8
    mended 'half of all answers, and no Node' link pass
    another_node "$first"

    link dropped
    kubectl delete pod new --timeout=30s
    pod new "$forever" | create
    within 30 ready new
    mended 'connections of a second' link pass
    kubectl delete pod new --timeout=30s
    good_way
    end_trouble
}

# The cable: cut each second, and deaf one way.
story_losses() {
    begin_trouble
    pod goes "$forever" | create
    within 30 ready goes
    local round
    for round in 1 2 3 4 5 6; do
        unplug
        sleep 1
        plug
        sleep 1
        [ "$round" != 2 ] || kubectl delete pod goes --wait=false
        [ "$round" != 4 ] || pod comes "$forever" | create
    done
    unplug
    sleep 1
    mended 'cut each second' plug
    within 20 fails kubectl get pod goes
    within 20 ready comes

    nft 'add table inet loss; add chain inet loss in { type filter hook prerouting priority -300; }'
    nft 'add chain inet loss out { type filter hook postrouting priority 300; }'
    nft 'add rule inet loss in iifname cloud drop'
    kubectl delete pod comes --wait=false
    within 40 condition node edge Ready Unknown
    mended 'nothing arrives from the node' nft flush chain inet loss in
    within 20 fails kubectl get pod comes
    nft 'add rule inet loss out oifname cloud drop'
    pod comes "$forever" | create
    within 60 condition node edge Ready Unknown
    mended 'nothing arrives at the node' nft delete table inet loss
    within 20 ready comes
    kubectl delete pod comes --timeout=30s
    end_trouble
}

# An API server that has no time for anything (busy), one that takes no write, and one whose store hangs.
story_storms() {
    begin_trouble
    pod goes "$forever" | create
    within 30 ready goes
    local code
    for code in 429 503; do
        busy "$code"
        # Somebody starts in the middle of it.
        end lowtide KILL
        lowtide
        within 30 says 'stays +1/1 +Running' own get pods
        kubectl delete pod goes --wait=false
        within 60 condition node edge Ready Unknown
        mended "only $code" no_longer_busy
        within 20 fails kubectl get pod goes
        pod goes "$forever" | create
        within 20 ready goes
    done

    create <<YAML
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: storm}
webhooks:
- name: storm.example.com
  clientConfig: {url: "https://127.0.0.1:1/"}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  matchConditions: [{name: node, expression: "request.userInfo.username == 'system:node:edge'"}]
  rules: [{apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"], scope: "*"}]
YAML
    within 20 grep -q '"code":500[,}]' "$state/log/audit.json"
    local from=$SECONDS count
    kubectl delete pod goes --wait=false
    pod comes "$forever" | create
    within 60 condition node edge Ready Unknown
    count=$(grep -c '"code":500[,}]' "$state/log/audit.json")
    no_storm 500 "$count" $((SECONDS - from))
    mended 'no write is taken' kubectl delete validatingwebhookconfiguration/storm
    within 20 fails kubectl get pod goes
    within 20 ready comes

    kill -STOP "${pid[etcd]}"
    sleep 30
    mended 'a store that hangs' kill -CONT "${pid[etcd]}"
    kubectl delete pod comes --timeout=30s
    end_trouble
}
# busy CODE: all that the node asks is answered so, on new connections; there are no old ones.
busy() {
    : >"$state/log/busy.log"
    begin busy "$here/busy" 6445 "$1" "$pki/apiserver.crt" "$pki/apiserver.key"
    busy_since=$SECONDS
    nft "table inet busy {
        chain way { type nat hook prerouting priority -110; iifname cloud tcp dport { 443, 6443 } redirect to :6445; }
        chain old { type filter hook input priority 0; iifname cloud tcp dport 6443 reject with tcp reset; }
    }"
    within 20 grep -q "^$1" "$state/log/busy.log"
}
no_longer_busy() {
    nft delete table inet busy
    end busy
    local count
    count=$(grep -c '^[45]' "$state/log/busy.log")
    no_storm "$(head -c 3 "$state/log/busy.log")" "$count" $((SECONDS - busy_since))
}
no_storm() {
    echo "$2 times $1 in $3 s" >&2
    (($2 < 5 * $3 + 50))
}

# A node that starts with a clock that is years off, and with the right one later. One that is behind works:
# no certificate is judged by a time that cannot be. To one that is ahead all certificates have ended.
story_clocks() {
    if ! cc -O1 -o "$state/shifted" "$here/shifted.c"; then
        echo 'skipped: no C compiler' >&2
        return
    fi
    begin_trouble
    local off
    for off in "-$(date +%s)" -315360000 315360000; do
        pod goes "$forever" | create
        within 30 ready goes
        end lowtide
        wall=("$state/shifted" "$off")
        lowtide
        within 30 says 'stays +1/1 +Running' own get pods
        kubectl delete pod goes --wait=false
        pod comes "$forever" | create
        if ((off < 0)); then
            within 20 fails kubectl get pod goes
            within 20 ready comes
            # Longer than the cluster waits for a node.
            sleep 25
            node_ready
        else
            within 60 condition node edge Ready Unknown
            own_has 'name: goes'
        fi
        mended "a clock that is $((off / 31536000)) years off" right_clock
        within 20 fails kubectl get pod goes
        within 20 ready comes
        kubectl delete pod comes --timeout=30s
    done
    end_trouble
}
right_clock() {
    wall=()
    end lowtide
    lowtide
}

# A pod that nothing may touch.
begin_trouble() {
    pod stays "$forever" | create
    within 30 ready stays
    who_runs | grep '^stays' >"$state/before"
}
end_trouble() {
    kubectl delete pod stays --timeout=30s
    within 30 gone
}
# mended WHAT COMMAND...: the command makes it good again; says how long the cluster waits for the node then,
# and that the two agree.
mended() {
    local what=$1 from
    shift
    from=$(date -u +%FT%T.%6NZ)
    "$@"
    within 20 renewed_since "$from"
    echo "$what: heard of after $(($(milliseconds "$(renewed_at)") - $(milliseconds "$from"))) ms" >&2
    within 10 node_ready
    within 10 no_taints
    who_runs | grep '^stays' >"$state/after"
    is 'who ran on' "$(cat "$state/before")" "$(cat "$state/after")"
    within 10 ready stays
}
renewed_at() {
    kubectl --request-timeout=2s -n kube-node-lease get lease edge -o jsonpath='{.spec.renewTime}'
}
renewed_since() {
    local at
    at=$(renewed_at) && [[ "$at" > "$1" ]]
}
milliseconds() {
    date -d "$1" +%s%3N
}

# From now on by way of a link that `link` makes bad.
bad_way() {
    (cd "$project" && cargo build --quiet --offline --example bad-link)
    mkfifo "$state/link"
    begin link bash -c 'exec "$@" <"$0"' "$state/link" \
        "$project/target/debug/examples/bad-link" 0.0.0.0:6444 127.0.0.1:6443
    exec {words}>"$state/link"
    nft insert rule ip proxy in iifname cloud tcp dport 6443 redirect to :6444
    end lowtide
    lowtide
    within 20 says ":6444" ss -Hnt state established sport = :6444
}
link() {
    echo "$1" >&"$words"
}
good_way() {
    nft delete rule ip proxy in handle "$(nft -a list chain ip proxy in | awk '/:6444/ {print $NF}')"
    exec {words}>&-
    end link
    rm "$state/link"
    within 20 node_ready
}
