# shellcheck shell=bash disable=SC2154
# What has to work between lowtide and a control plane. Source it (run).
#
# Each story leaves the node Ready and nothing of its own. What it expects is said by `within`, which
# waits, `has` and `is`; any command that fails ends the run.

all=(pods streams figures metrics account mirrors probes leave drain node cut crash dark restore many renew links losses storms clocks)

# of KIND NAME PATH: a part of an object, as jsonpath has it.
of() {
    kubectl get "$1" "$2" -o jsonpath="{$3}"
}
# is WHAT EXPECTED GOT
is() {
    [ "$3" = "$2" ] || {
        echo "$1: expected '$2', is '$3'" >&2
        return 1
    }
}
# has KIND NAME PATH VALUE: whether that part is exactly so.
has() {
    is "$1 $2 $3" "$4" "$(of "$1" "$2" "$3")"
}
# says PATTERN COMMAND...: whether its output has a match.
says() {
    local pattern=$1 output
    shift
    output=$("$@" 2>&1) && grep -qE -- "$pattern" <<<"$output" || {
        echo "$*: no '$pattern' in: $output" >&2
        return 1
    }
}
fails() {
    ! "$@" >/dev/null 2>&1
}
condition() {
    has "$1" "$2" ".status.conditions[?(@.type==\"$3\")].status" "$4"
}
ready() {
    condition pod "$1" Ready True
}
node_ready() {
    condition node edge Ready True
}
no_taints() {
    has node edge .spec.taints ''
}
# By name, who runs: pod, UID, container.
who_runs() {
    kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[*].containerID} {.status.containerStatuses[*].restartCount}{"\n"}{end}'
}
# pod NAME SCRIPT [SPEC]: a manifest; SPEC is YAML of the spec, in one line.
forever="trap 'exit 0' TERM; echo started; while :; do sleep 1 & wait \$!; done"
pod() {
    cat <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, labels: {app: $1}}
spec:
  terminationGracePeriodSeconds: 2
  ${3:-}
  containers:
  - {name: c, image: "$image", command: [sh, -c, "$2"]}
YAML
}
# deployment NAME REPLICAS [SPEC]
deployment() {
    cat <<YAML
apiVersion: apps/v1
kind: Deployment
metadata: {name: $1}
spec:
  replicas: $2
  selector: {matchLabels: {app: $1}}
  template:
    metadata: {labels: {app: $1}}
    spec:
      terminationGracePeriodSeconds: 2
      ${3:-}
      containers:
      - name: c
        image: $image
        command: [sh, -c, "mkdir -p /www; echo hello >/www/index.html; httpd -p 8080 -h /www; $forever"]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
YAML
}
create() {
    kubectl create -f - >/dev/null
}
gone() {
    is "pods that are left" '' "$(kubectl get pods -o name)"
}

# By a bootstrap token, with a certificate for the node's port that somebody approves; then again by
# the kubeconfig that was written.
story_join() {
    create <<YAML
apiVersion: v1
kind: Secret
metadata: {name: bootstrap-token-${bootstrap_token%.*}, namespace: kube-system}
type: bootstrap.kubernetes.io/token
stringData:
  token-id: ${bootstrap_token%.*}
  token-secret: ${bootstrap_token#*.}
  usage-bootstrap-authentication: "true"
  auth-extra-groups: system:bootstrappers:kubeadm:default-node-token
YAML
    local group=--group=system:bootstrappers:kubeadm:default-node-token
    local csr=system:certificates.k8s.io:certificatesigningrequests
    kubectl create clusterrolebinding bootstrap --clusterrole=system:node-bootstrapper $group
    kubectl create clusterrolebinding approve --clusterrole=$csr:nodeclient $group
    kubectl create clusterrolebinding renew --clusterrole=$csr:selfnodeclient --group=system:nodes
    kubectl create clusterrolebinding kubelets --clusterrole=system:kubelet-api-admin \
        --user=apiserver-kubelet-client
    lowtide --bootstrap-kubeconfig="$edge/bootstrap.conf"
    within 60 node_ready
    within 30 serving_request
    kubectl certificate approve "$(serving_request)"
    within 30 says ok kubectl get --raw /api/v1/nodes/edge/proxy/healthz
    end lowtide
    lowtide
    within 30 says ok kubectl get --raw /api/v1/nodes/edge/proxy/healthz
    within 30 kubectl get serviceaccount default

    has node edge '.status.addresses[?(@.type=="InternalIP")].address' "$edge_ip"
    has node edge .metadata.labels.place shore
    has node edge '.metadata.labels.kubernetes\.io/hostname' edge
    has node edge .status.allocatable.pods 110
    local kind
    for kind in MemoryPressure DiskPressure PIDPressure; do
        condition node edge $kind False
    done
    within 20 says edge kubectl -n kube-node-lease get lease edge -o jsonpath='{.spec.holderIdentity}'
    says v1.36 kubectl get node edge
}
serving_request() {
    local name
    name=$(kubectl get csr --field-selector spec.signerName=kubernetes.io/kubelet-serving \
        -o jsonpath='{.items[0].metadata.name}') && [ -n "$name" ] && echo "$name"
}

# What controllers make and the scheduler places.
story_pods() {
    deployment web 3 | create
    create <<YAML
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: each}
spec:
  selector: {matchLabels: {app: each}}
  template:
    metadata: {labels: {app: each}}
    spec:
      terminationGracePeriodSeconds: 2
      containers: [{name: c, image: "$image", command: [sh, -c, "$forever"]}]
---
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 2
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "$image", command: [sh, -c, "echo done; exit 0"]}]
YAML
    kubectl rollout status deployment/web --timeout=60s
    kubectl rollout status daemonset/each --timeout=60s
    kubectl wait job/once --for=condition=Complete --timeout=60s
    says '^done$' kubectl logs job/once
    is 'warnings about pods' '' "$(kubectl get events --field-selector type=Warning,reason=FieldNotHonoured -o name)"
    local reason
    for reason in Pulled Created Started; do
        within 10 says "$reason" kubectl get events --field-selector "reason=$reason,source=kubelet"
    done

    kubectl set env deployment/web ROUND=2
    kubectl rollout status deployment/web --timeout=60s
    kubectl scale deployment/web --replicas=1
    within 30 has deployment web .status.replicas 1
    kubectl delete deployment/web daemonset/each job/once --timeout=60s
    within 60 gone
}

# kubectl's streams, each by WebSocket and by SPDY.
story_streams() {
    deployment web 1 | create
    kubectl rollout status deployment/web --timeout=60s
    pod tty "echo up; cat" "" | sed 's/{name: c,/{name: c, stdin: true, tty: true,/' | create
    within 30 ready tty
    says '^started$' kubectl logs deployment/web
    says 'c\] started' kubectl logs -l app=web --prefix
    local sockets
    for sockets in true false; do
        export KUBECTL_REMOTE_COMMAND_WEBSOCKETS=$sockets KUBECTL_PORT_FORWARD_WEBSOCKETS=$sockets
        is 'output of exec' $'err\nout' "$(kubectl exec tty -- sh -c 'echo out; echo err >&2' 2>&1 | sort)"
        local code=0
        kubectl exec tty -- sh -c 'exit 3' 2>/dev/null || code=$?
        is 'code of exec' 3 "$code"
        is 'input of exec' piped "$(echo piped | kubectl exec -i tty -- cat)"
        says '/dev/pts/' script -qec 'kubectl exec -it tty -- tty' /dev/null
        says "word-$sockets" attach "word-$sockets"
        echo "content $sockets" >"$state/copied"
        kubectl cp "$state/copied" tty:/tmp/copied
        kubectl cp tty:/tmp/copied "$state/back" >/dev/null
        cmp "$state/copied" "$state/back"
        begin forward kubectl port-forward deployment/web 18080:8080
        within 10 says hello curl -fsS http://127.0.0.1:18080/
        end forward
    done
    unset KUBECTL_REMOTE_COMMAND_WEBSOCKETS KUBECTL_PORT_FORWARD_WEBSOCKETS
    # A container beside the others, and the API server's way to a pod.
    kubectl debug tty --image="$image" --container=look -- ps
    within 20 says 'ps' kubectl logs tty -c look
    says hello kubectl get --raw "/api/v1/namespaces/default/pods/$(of pod -l=app=web '.items[0].metadata.name'):8080/proxy/"
    kubectl delete deployment/web pod/tty --timeout=60s
    within 60 gone
}
attach() {
    (
        sleep 1
        echo "$1"
        sleep 1
    ) | timeout 5 kubectl attach -i tty 2>/dev/null || :
}

# What metrics servers and Prometheus read, through the API server's proxy.
story_figures() {
    pod busy "$forever" | create
    within 30 ready busy
    local node=/api/v1/nodes/edge/proxy
    within 30 says 'container_cpu_usage_seconds_total\{.*pod="busy"' kubectl get --raw $node/metrics/resource
    says 'container_memory_working_set_bytes\{.*pod="busy"' kubectl get --raw $node/metrics/resource
    says '"podRef":\{"name":"busy"' kubectl get --raw $node/stats/summary
    says 'container_memory_rss' kubectl get --raw $node/metrics/cadvisor
    says '^kubelet_running_pods' kubectl get --raw $node/metrics
    says '"busy"' kubectl get --raw $node/pods
    says '"kubeletconfig"' kubectl get --raw $node/configz
    kubectl delete pod busy --timeout=30s
}

# The metrics-server of the control plane's project, where there is one beside the control plane: it reads the
# node's figures at the node's port, as what it is, and kubectl top asks it by way of the API server.
story_metrics() {
    if [ ! -x "$LOWTIDE_CLUSTER_BIN/metrics-server" ]; then
        echo "skipped: no metrics-server in $LOWTIDE_CLUSTER_BIN" >&2
        return
    fi
    local address=10.96.0.11 who=--user=system:serviceaccount:kube-system:metrics-server
    ip address add "$address/32" dev lo
    issue metrics /CN=system:serviceaccount:kube-system:metrics-server
    issue metrics-serving /CN=metrics-server "DNS:metrics-server.kube-system.svc"
    by_certificate metrics
    create <<YAML
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:metrics-server"}
rules:
- {apiGroups: [""], resources: [nodes/metrics], verbs: [get]}
- {apiGroups: [""], resources: [pods, nodes], verbs: [get, list, watch]}
---
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {clusterIP: $address, ports: [{name: https, port: 443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
endpoints: [{addresses: ["$cloud_ip"]}]
ports: [{name: https, port: 443}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec:
  service: {name: metrics-server, namespace: kube-system}
  group: metrics.k8s.io
  version: v1beta1
  caBundle: $(base64 -w 0 "$pki/ca.crt")
  groupPriorityMinimum: 100
  versionPriority: 100
YAML
    kubectl create clusterrolebinding metrics --clusterrole=system:metrics-server "$who"
    kubectl create clusterrolebinding metrics-auth --clusterrole=system:auth-delegator "$who"
    kubectl -n kube-system create rolebinding metrics --role=extension-apiserver-authentication-reader "$who"
    begin metrics "$LOWTIDE_CLUSTER_BIN/metrics-server" --kubeconfig="$state/metrics.conf" \
        --authentication-kubeconfig="$state/metrics.conf" --authorization-kubeconfig="$state/metrics.conf" \
        --tls-cert-file="$pki/metrics-serving.crt" --tls-private-key-file="$pki/metrics-serving.key" \
        --bind-address="$address" --secure-port=443 --kubelet-certificate-authority="$pki/ca.crt" \
        --kubelet-use-node-status-port --kubelet-preferred-address-types=InternalIP --metric-resolution=15s
    # Half a processor, and 32 MiB.
    pod busy "dd if=/dev/zero of=/dev/shm/some bs=1M count=32 2>/dev/null; while :; do timeout 1 sh -c 'while :; do :; done'; sleep 1; done" | create
    pod idle "$forever" | create
    within 30 ready busy
    within 90 says '^busy ' kubectl top pod busy
    # A look back of 15 seconds and more that is all of the pod's own.
    sleep 35
    kubectl top node | tee "$state/top" >&2
    kubectl top pod --containers | tee -a "$state/top" >&2
    between 'millicores of busy' 250 750 "$(figure busy 3 m)"
    between 'Mi of busy' 32 45 "$(figure busy 4 Mi)"
    between 'millicores of idle' 0 50 "$(figure idle 3 m)"
    between 'Mi of idle' 0 10 "$(figure idle 4 Mi)"
    between 'millicores of the node' 250 "$(($(nproc) * 1000))" "$(figure edge 2 m)"
    between 'Mi of the node' 100 "$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024))" "$(figure edge 4 Mi)"
    kubectl delete apiservice v1beta1.metrics.k8s.io
    end metrics
    kubectl delete pod/busy pod/idle --timeout=30s
}
# figure ROW COLUMN UNIT: a number of what kubectl top said.
figure() {
    awk -v row="$1" -v column="$2" -v unit="$3" '$1 == row {sub(unit "$", "", $column); print $column}' "$state/top"
}
# between WHAT LEAST MOST GOT
between() {
    (($4 >= $2 && $4 <= $3)) || {
        echo "$1: expected $2 to $3, is $4" >&2
        return 1
    }
}

# What a pod is told: objects in volumes and variables, services, and a token that opens the API.
story_account() {
    create <<YAML
apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {a: alpha, B: bravo}
---
apiVersion: v1
kind: Secret
metadata: {name: hush}
stringData: {s: shh}
---
apiVersion: v1
kind: Service
metadata: {name: shop-window}
spec: {ports: [{name: web, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: told, labels: {tide: low}}
spec:
  terminationGracePeriodSeconds: 2
  volumes:
  - {name: words, configMap: {name: words}}
  - {name: hush, secret: {secretName: hush, defaultMode: 0400}}
  - {name: down, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  containers:
  - name: c
    image: $image
    command: [sh, -c, "$forever"]
    envFrom: [{configMapRef: {name: words}}]
    env:
    - {name: S, valueFrom: {secretKeyRef: {name: hush, key: s}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    resources: {limits: {memory: 64Mi}}
    volumeMounts:
    - {name: words, mountPath: /words}
    - {name: hush, mountPath: /hush}
    - {name: down, mountPath: /down}
YAML
    within 30 ready told
    inside() {
        kubectl exec told -- sh -c "$1"
    }
    is words 'alpha bravo shh shh 64' "$(inside 'echo $(cat /words/a) $B $(cat /hush/s) $S $MEMORY')"
    is addresses "$(of pod told .status.podIP) $edge_ip" "$(inside 'echo $IP $HOST')"
    is labels 'tide="low"' "$(inside 'cat /down/labels')"
    is 'address of the service' "$(of service shop-window .spec.clusterIP) 80" \
        "$(inside 'echo $SHOP_WINDOW_SERVICE_HOST $SHOP_WINDOW_SERVICE_PORT_WEB')"
    is 'address of the API' "$api_service 443" \
        "$(inside 'echo $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT')"
    says '^nameserver 10.96.0.10' inside 'cat /etc/resolv.conf'
    kubectl patch configmap words -p '{"data":{"a":"other"}}'
    within 30 says other inside 'cat /words/a'

    # busybox speaks no TLS: the token and the CA of the pod are used from its network by curl.
    local account=/var/run/secrets/kubernetes.io/serviceaccount target
    inside "cat $account/ca.crt" >"$state/told.crt"
    cmp "$state/told.crt" "$pki/ca.crt"
    is namespace default "$(inside "cat $account/namespace")"
    target=$(pgrep -f "$edge/run/pods/$(of pod told .metadata.uid)" | head -1)
    [ -n "$target" ]
    says '"username": "system:serviceaccount:default:default"' nsenter -n -t "$target" \
        curl -fsS --cacert "$state/told.crt" -H "Authorization: Bearer $(inside "cat $account/token")" \
        -H 'Content-Type: application/json' "https://$api_service/apis/authentication.k8s.io/v1/selfsubjectreviews" \
        -d '{"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1"}'
    kubectl delete pod/told configmap/words secret/hush service/shop-window --timeout=30s
}

# Pictures of pods that are the node's own: made by a file, and by the node's own API.
story_mirrors() {
    manifest one
    within 30 ready own-edge
    says one kubectl logs own-edge
    local first
    first=$(of pod own-edge .metadata.uid)
    has pod own-edge '.metadata.ownerReferences[0].kind' Node
    own get pod own-edge -o yaml >"$state/own"
    fails grep -q "$first" "$state/own"

    # Who deletes the picture does not reach the pod.
    kubectl delete pod own-edge --timeout=30s
    kubectl delete pod own-edge --grace-period=0 --force --ignore-not-found
    within 30 another own-edge "$first"
    within 30 ready own-edge
    has pod own-edge '.status.containerStatuses[0].restartCount' 0
    manifest two
    within 30 says two kubectl logs own-edge

    pod here "$forever" >"$state/here.yaml"
    own create -f "$state/here.yaml"
    within 30 ready here
    says '^started' kubectl exec here -- echo started
    # Neither gives way to a taint, nor comes again and again.
    local second
    second=$(of pod here .metadata.uid)
    kubectl taint node edge storm=yes:NoExecute
    sleep 5
    has pod here .metadata.uid "$second"
    kubectl taint node edge storm-
    # A name that the cluster has taken stays the cluster's.
    pod taken "$forever" | create
    within 30 ready taken
    sed 's/here/taken/g' "$state/here.yaml" >"$state/taken.yaml"
    own create -f "$state/taken.yaml" 2>"$state/why" || :
    sleep 2
    has pod taken '.metadata.annotations.kubernetes\.io/config\.mirror' ''
    ready taken
    own delete pod taken 2>/dev/null || :
    own delete pod here
    rm "$edge/manifests/own.yaml"
    kubectl delete pod taken --timeout=30s
    within 30 gone
}
another() {
    local now
    now=$(of pod "$1" .metadata.uid) && [ "$now" != "$2" ]
}
manifest() {
    pod own "echo $1; $forever" >"$state/own.yaml"
    mv "$state/own.yaml" "$edge/manifests/own.yaml"
}

# Probes, restarts, init containers, and what cannot run.
story_probes() {
    create <<YAML
apiVersion: v1
kind: Pod
metadata: {name: frail}
spec:
  terminationGracePeriodSeconds: 1
  initContainers:
  - {name: first, image: "$image", command: [sh, -c, "echo first"]}
  - {name: side, image: "$image", command: [sh, -c, "$forever"], restartPolicy: Always}
  containers:
  - name: c
    image: $image
    command: [sh, -c, "touch /tmp/alive; sleep 4; rm /tmp/alive; $forever"]
    startupProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1}
    livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 1}
  - {name: crash, image: "$image", command: [sh, -c, "echo why >/dev/termination-log; exit 3"]}
  - {name: nothing, image: "localhost/nothing:1"}
YAML
    within 40 says '^[1-9]' of pod frail '.status.containerStatuses[?(@.name=="c")].restartCount'
    within 20 says Unhealthy kubectl get events --field-selector involvedObject.name=frail
    within 20 says '^3 why' of pod frail \
        '.status.containerStatuses[?(@.name=="crash")].lastState.terminated.exitCode} {.status.containerStatuses[?(@.name=="crash")].lastState.terminated.message'
    within 40 has pod frail '.status.containerStatuses[?(@.name=="crash")].state.waiting.reason' CrashLoopBackOff
    within 30 says 'ImagePullBackOff|ErrImagePull' of pod frail \
        '.status.containerStatuses[?(@.name=="nothing")].state.waiting.reason'
    has pod frail '.status.initContainerStatuses[?(@.name=="side")].ready' true
    condition pod frail Initialized True
    condition pod frail Ready False
    has pod frail .status.observedGeneration "$(of pod frail .metadata.generation)"
    kubectl delete pod frail --timeout=30s

    pod gated "$forever" "readinessGates: [{conditionType: example.com/open}]" | create
    within 30 condition pod gated ContainersReady True
    has pod gated '.status.conditions[?(@.type=="Ready")].reason' ReadinessGatesNotReady
    open() {
        kubectl patch pod gated --subresource=status \
            -p "{\"status\": {\"conditions\": [{\"type\": \"example.com/open\", \"status\": \"$1\"}]}}"
    }
    open True
    within 10 ready gated
    open False
    within 10 condition pod gated Ready False
    kubectl delete pod gated --timeout=30s
}

# Pods go: in their time, at once, replaced under the same name, with their namespace.
story_leave() {
    pod slow "trap 'echo ending; sleep 2; exit 0' TERM; while :; do sleep 1 & wait; done" |
        sed 's/Seconds: 2/Seconds: 20/' | create
    within 30 ready slow
    kubectl delete pod slow --wait=false
    within 10 says ending kubectl logs slow
    says '[0-9]' of pod slow .metadata.deletionTimestamp
    within 15 fails kubectl get pod slow

    pod same "trap : TERM; while :; do sleep 1 & wait; done" | create
    within 30 ready same
    local first
    first=$(of pod same .metadata.uid)
    kubectl delete pod same --grace-period=0 --force
    pod same "$forever" | create
    within 30 ready same
    another same "$first"
    within 30 fails own_has "$first"
    kubectl delete pod same --timeout=30s

    # Somebody in the cluster has yet to see how it ended.
    pod seen "$forever" | sed 's/{name: seen,/{name: seen, finalizers: [example.com\/seen],/' | create
    within 30 ready seen
    kubectl delete pod seen --wait=false
    within 30 has pod seen .status.phase Succeeded
    sleep 2
    has pod seen '.status.phase} {.status.containerStatuses[0].state.terminated.exitCode' 'Succeeded 0'
    kubectl patch pod seen -p '{"metadata": {"finalizers": null}}'
    within 10 fails kubectl get pod seen

    kubectl create namespace shore
    deployment web 2 | kubectl -n shore create -f -
    kubectl -n shore rollout status deployment/web --timeout=60s
    kubectl delete namespace shore --timeout=90s
    own get pods -A -o name >"$state/own"
    fails grep -q web "$state/own"
}
own_has() {
    own get pods -A -o yaml | grep -q "$1"
}

# Cordon, drain by evictions, taints.
story_drain() {
    deployment web 2 | create
    kubectl rollout status deployment/web --timeout=60s
    kubectl drain edge --timeout=60s
    is 'pods that run' 0 "$(of pod -l=app=web '.items[*].status.podIP' | wc -w)"
    says SchedulingDisabled kubectl get node edge
    kubectl uncordon edge
    kubectl rollout status deployment/web --timeout=60s
    local tolerant="tolerations: [{key: storm, operator: Exists}]"
    pod stays "$forever" "$tolerant" | create
    within 30 ready stays
    kubectl taint node edge storm=yes:NoExecute
    within 30 has pod -l=app=web '.items[*].status.podIP' ''
    ready stays
    kubectl taint node edge storm-
    kubectl rollout status deployment/web --timeout=60s
    # The kubelet's own word on who cannot be here.
    pod lost "$forever" "nodeName: edge, nodeSelector: {disk: none}" | sed 's/, nodeSel/\n  nodeSel/' | create
    within 20 has pod lost .status.reason NodeAffinity
    kubectl delete deployment/web pod/stays pod/lost --timeout=60s
    within 60 gone
}

# The Node is deleted under a pod that runs: it comes again, and what is the node's own with it.
story_node() {
    manifest node
    pod one "$forever" | create
    within 30 ready one
    within 30 ready own-edge
    local before
    before=$(of node edge .metadata.uid)
    kubectl delete node edge
    within 15 another_node "$before"
    within 20 node_ready
    within 30 ready own-edge
    has pod own-edge '.metadata.ownerReferences[0].uid' "$(of node edge .metadata.uid)"
    within 20 says "$(of node edge .metadata.uid)" kubectl -n kube-node-lease get lease edge -o yaml
    kubectl label node edge disk=ssd
    pod two "$forever" "nodeSelector: {disk: ssd}" | create
    within 30 ready two
    kubectl label node edge disk-
    rm "$edge/manifests/own.yaml"
    kubectl delete pod two --timeout=30s
    kubectl delete pod one --ignore-not-found --timeout=30s
    within 30 gone
    nothing_refused
}
# Nothing that the node asked for was refused, but for what every kubelet is: an object that the API
# server does not know yet to be this node's to read, events of a namespace that ends.
nothing_refused() {
    is 'what was refused to the node' '' "$(grep -E '"code":(400|401|403|405|415|422|429|5..)' "$state/log/audit.json" |
        grep -vE 'no relationship found|on a different node|NamespaceTerminating' || :)"
}
another_node() {
    local now
    now=$(of node edge .metadata.uid) && [ "$now" != "$1" ]
}

story_shell() {
    exec >&2
    echo "nsenter -a -t PID env KUBECONFIG=$KUBECONFIG $kubectl get nodes   (PID: a child of this unshare)"
    sleep infinity
}
