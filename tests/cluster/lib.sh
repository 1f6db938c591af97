# shellcheck shell=bash disable=SC2034
# A Kubernetes control plane of release binaries, for the scripts of this directory. Source it.
#
#   LOWTIDE_CLUSTER_BIN   directory with etcd, kube-apiserver, kube-controller-manager and
#                         kube-scheduler, as their projects release them
#
# All of it lives in network and mount namespaces of its own and in a directory under /tmp, which
# stays when something failed. Nothing is listened to or reached outside.

set -euo pipefail
program=$(basename "$0")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)

cloud_ip=10.123.0.1
edge_ip=10.123.0.2
services=10.96.0.0/16
api_service=10.96.0.1
bootstrap_token=abcdef.0123456789abcdef
image=localhost/lowtide-example:1

die() {
    printf '%s: %s\n' "$program" "$*" >&2
    exit 1
}
skip() {
    echo "skipped: tests/cluster/$program: $*"
    exit 0
}

# needs PROGRAM...: of the control plane, of this machine; and root.
needs() {
    local wanted
    [ -n "${LOWTIDE_CLUSTER_BIN:-}" ] || skip "LOWTIDE_CLUSTER_BIN names no directory with a control plane"
    for wanted; do
        [ -x "$LOWTIDE_CLUSTER_BIN/$wanted" ] || skip "no $wanted in $LOWTIDE_CLUSTER_BIN"
    done
    for wanted in openssl unshare ip nft curl; do
        command -v "$wanted" >/dev/null || skip "$wanted is not installed"
    done
    [ "$(id -u)" = 0 ] || skip "not root"
}

# issue NAME SUBJECT [NAMES]: NAME.crt and NAME.key by the cluster's CA.
issue() {
    local uses=clientAuth names=
    [ -z "${3:-}" ] || uses=serverAuth,clientAuth names="subjectAltName=$3"
    openssl req -new -newkey rsa:2048 -nodes -keyout "$pki/$1.key" -subj "$2" -out "$pki/$1.csr" \
        2>/dev/null
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial \
        -days 30 -out "$pki/$1.crt" 2>/dev/null \
        -extfile <(printf 'extendedKeyUsage=%s\nkeyUsage=digitalSignature\n%s\n' "$uses" "$names")
}

# kubeconfig NAME USER...: prints one for the cluster; USER are lines of YAML.
kubeconfig() {
    cat <<YAML
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://$cloud_ip:6443", certificate-authority: $pki/ca.crt}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
users: [{name: u, user: {$1}}]
YAML
}
by_certificate() {
    kubeconfig "client-certificate: $pki/$1.crt, client-key: $pki/$1.key" >"$state/$1.conf"
}

# Everything that has to be there once.
prepare() {
    state=$(mktemp -d "/tmp/lowtide-$program.XXXXXX")
    pki=$state/pki
    mkdir -p "$pki" "$state/log"
    openssl req -x509 -newkey rsa:2048 -nodes -keyout "$pki/ca.key" -subj /CN=cluster-ca -days 30 \
        -addext keyUsage=critical,keyCertSign,cRLSign -out "$pki/ca.crt" 2>/dev/null
    openssl genrsa -out "$pki/accounts.key" 2048 2>/dev/null
    issue apiserver /CN=kube-apiserver \
        "DNS:kubernetes.default.svc,IP:$api_service,IP:$cloud_ip,IP:127.0.0.1"
    # No master of everything: what it may do at a node's port is asked about.
    issue apiserver-kubelet-client /CN=apiserver-kubelet-client
    issue front-proxy /CN=front-proxy
    issue admin /O=system:masters/CN=admin
    issue controllers /CN=system:kube-controller-manager
    issue scheduler /CN=system:kube-scheduler
    local who
    for who in admin controllers scheduler; do
        by_certificate "$who"
    done
    cat >"$state/audit.yaml" <<YAML
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, users: ["system:node:edge"]}, {level: None}]
YAML
    ip link set lo up
    export KUBECONFIG=$state/admin.conf
    kubectl=$("$project/tests/kubectl")
    PATH=$(dirname "$kubectl"):$PATH
}

# begin NAME COMMAND...: in the background, logged; its process is pid[NAME].
declare -A pid
begin() {
    local name=$1
    shift
    "$@" >>"$state/log/$name.log" 2>&1 &
    pid[$name]=$!
}
# end NAME [SIGNAL]: and waits for it.
end() {
    [ -n "${pid[$1]:-}" ] || return 0
    kill "-${2:-TERM}" "${pid[$1]}" 2>/dev/null || :
    wait "${pid[$1]}" 2>/dev/null || :
    unset "pid[$1]"
}
# No farewells: an API server waits a minute for who watches it.
end_all() {
    local name
    for name in "${!pid[@]}"; do
        end "$name" KILL
    done
}

# within SECONDS COMMAND...: tries until it succeeds.
within() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >"$state/tried" 2>&1; do
        if ((SECONDS >= until)); then
            echo "not in time: $*" >&2
            cat "$state/tried" >&2
            return 1
        fi
        sleep 0.3
    done
}

etcd() {
    begin etcd "$LOWTIDE_CLUSTER_BIN/etcd" --data-dir "$state/etcd" --unsafe-no-fsync \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
        --initial-cluster default=http://127.0.0.1:2380
    within 60 curl -fsS http://127.0.0.1:2379/health
}

apiserver() {
    begin apiserver "$LOWTIDE_CLUSTER_BIN/kube-apiserver" \
        --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=6443 \
        --advertise-address="$cloud_ip" --service-cluster-ip-range="$services" \
        --tls-cert-file="$pki/apiserver.crt" --tls-private-key-file="$pki/apiserver.key" \
        --client-ca-file="$pki/ca.crt" --authorization-mode=Node,RBAC --allow-privileged \
        --audit-policy-file="$state/audit.yaml" --audit-log-path="$state/log/audit.json" \
        --enable-admission-plugins=NodeRestriction --enable-bootstrap-token-auth \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-account-key-file="$pki/accounts.key" \
        --service-account-signing-key-file="$pki/accounts.key" \
        --kubelet-client-certificate="$pki/apiserver-kubelet-client.crt" \
        --kubelet-client-key="$pki/apiserver-kubelet-client.key" \
        --kubelet-certificate-authority="$pki/ca.crt" \
        --kubelet-preferred-address-types=InternalIP \
        --requestheader-client-ca-file="$pki/ca.crt" \
        --requestheader-allowed-names=front-proxy --requestheader-username-headers=X-Remote-User \
        --requestheader-group-headers=X-Remote-Group \
        --requestheader-extra-headers-prefix=X-Remote-Extra- \
        --proxy-client-cert-file="$pki/front-proxy.crt" --proxy-client-key-file="$pki/front-proxy.key"
    within 120 kubectl get --raw /readyz
}

controllers() {
    begin controllers "$LOWTIDE_CLUSTER_BIN/kube-controller-manager" \
        --kubeconfig="$state/controllers.conf" --leader-elect=false --secure-port=0 \
        --controllers='*,bootstrapsigner,tokencleaner' --use-service-account-credentials \
        --service-account-private-key-file="$pki/accounts.key" --root-ca-file="$pki/ca.crt" \
        --cluster-signing-cert-file="$pki/ca.crt" --cluster-signing-key-file="$pki/ca.key" \
        --node-monitor-period=1s --node-monitor-grace-period=20s --node-eviction-rate=10 "$@"
}

scheduler() {
    begin scheduler "$LOWTIDE_CLUSTER_BIN/kube-scheduler" --kubeconfig="$state/scheduler.conf" \
        --leader-elect=false --secure-port=0
}

# The network of the node: a namespace that one cable joins to the control plane's. A rule stands for
# kube-proxy: the service of the API is reachable by its address.
cable() {
    begin cable unshare -n sleep infinity
    within 5 apart
    ip link add cloud type veth peer name edge netns "${pid[cable]}"
    ip address add "$cloud_ip/24" dev cloud
    ip link set cloud up
    ip address add "$api_service/32" dev lo
    nft "add table ip proxy; add chain ip proxy in { type nat hook prerouting priority -100; };
        add rule ip proxy in ip daddr $api_service tcp dport 443 redirect to :6443"
    at_edge ip link set lo up
    at_edge ip address add "$edge_ip/24" dev edge
    plug
}
plug() {
    at_edge ip link set edge up
    at_edge ip route add default via "$cloud_ip"
    # To pods, as a network of the cluster would have it.
    ip route replace 10.88.0.0/24 via "$edge_ip"
}
unplug() {
    at_edge ip link set edge down
}
apart() {
    [ "$(readlink "/proc/${pid[cable]}/ns/net")" != "$(readlink /proc/self/ns/net)" ]
}
at_edge() {
    nsenter --net -t "${pid[cable]}" "$@"
}

# Directories of the node, and an image that needs no registry.
furnish() {
    edge=$state/edge
    mkdir -p "$edge/manifests" "$edge/images"
    "$project/examples/make-image" "$edge/images/example.tar" "$image" >/dev/null
    kubeconfig "token: $bootstrap_token" >"$edge/bootstrap.conf"
}

# lowtide [FLAG...]: the agent, begun; by the clock of `wall`.
wall=()
lowtide() {
    begin lowtide env RUST_LOG="${RUST_LOG:-info}" nsenter --net -t "${pid[cable]}" "${wall[@]}" "$binary" run \
        --root-dir="$edge/root" --run-dir="$edge/run" --pod-logs-dir="$edge/logs/pods" \
        --pod-manifest-path="$edge/manifests" --image-dir="$edge/images" \
        --cgroup-root="$cgroup" --hostname-override=edge --node-labels=place=shore \
        --eviction-hard='memory.available<1Mi,nodefs.available<1Mi' \
        --client-ca-file="$pki/ca.crt" --rotate-server-certificates \
        --cluster-dns=10.96.0.10 --cluster-domain=cluster.local \
        --kubeconfig="$edge/kubelet.conf" "$@"
}
# The node's own client.
own() {
    "$binary" "$1" --run-dir "$edge/run" "${@:2}"
}
# What a power cut ends, once there is no agent: all processes of pods, all mounts, RUN, the network.
power_off() {
    local top name
    for top in /sys/fs/cgroup{,/*}"$cgroup"; do
        [ ! -d "$top" ] || find "$top" -name cgroup.procs -exec cat {} + | xargs -r kill -KILL 2>/dev/null || :
    done
    pkill -KILL -f "^lowtide (shim|pause) .*$edge/run" || :
    sleep 1
    tac /proc/self/mountinfo | cut -d' ' -f5 | grep "^$edge/" | xargs -r -n 1 umount -l
    rm -rf "$edge/run"
    at_edge nft flush ruleset
    for name in $(at_edge ip -o link | grep -o ' lt[^:@]*'); do
        at_edge ip link delete "$name" 2>/dev/null || :
    done
}
