# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_lowtide_global_optspecs
    string join \n h/help V/version
end

function __fish_lowtide_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_lowtide_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_lowtide_using_subcommand
    set -l cmd (__fish_lowtide_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c lowtide -n "__fish_lowtide_needs_command" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_needs_command" -s V -l version -d 'Print version'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "run" -d 'Run the node'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "check" -d 'Say whether this machine can run pods, and what is missing'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "upgrade" -d 'Put another lowtide in the place of this one, under running pods'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "get" -d 'Show objects: pods, events, nodes, configmaps, secrets, namespaces, serviceaccounts'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "describe" -d 'Show all about a pod or the node: states, conditions, events, its manifest'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "logs" -d 'Print a container\'s log'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "exec" -d 'Run a command in a container'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "attach" -d 'Follow and feed what a container runs'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "top" -d 'Show what the node or its pods use: processor and memory'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "images" -d 'Show the images that are here'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "pull" -d 'Fetch an image from its registry'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "import" -d 'Take images from archives or OCI layouts (.tar, .tar.gz, .tar.zst, directories)'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "events" -d 'Show events, oldest first'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "apply" -d 'Make the node\'s objects what files say (server-side apply)'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "create" -d 'Make the objects of files'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "delete" -d 'Delete objects by files, or by type and name; waits until they are gone'
complete -c lowtide -n "__fish_lowtide_needs_command" -f -a "completions" -d 'Print completions for a shell'
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l config -d 'YAML file with KubeletConfiguration field names; the command line wins' -r -F
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l pod-manifest-path -d 'directory or file with manifests [default: /etc/lowtide/manifests]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l manifest-url -d 'URL with a pod or a list of pods' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l manifest-url-header -d 'headers for --manifest-url' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l file-check-frequency -d 'how often manifests are looked at unasked [default: 20s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l http-check-frequency -d 'how often --manifest-url is asked [default: 20s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l root-dir -d 'store, images and pods\' volumes (ROOT) [default: /var/lib/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l run-dir -d 'sockets and runtime state, on a tmpfs (RUN) [default: /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l pod-logs-dir -d 'containers\' logs [default: /var/log/pods]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l image-dir -d 'image archives and layouts imported as they appear [default: ROOT/preload]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l registry-config -d 'registry mirrors, extra CAs, plain HTTP' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l runtime -d 'OCI runtime: runc, crun, youki or a path [default: auto]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l hostname-override -d 'name of the node [default: host\'s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l node-ip -d 'address of the node, one for each family [default: host\'s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l node-labels -d 'labels of the node' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l register-with-taints -d 'taints of the node' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l provider-id -d 'the cloud\'s name of this machine' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l pod-cidr -d 'addresses of the built-in pod network [default: 10.88.0.0/24]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l cni-conf-dir -d 'CNI configuration in place of the built-in pod network' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l resolv-conf -d 'the host\'s resolver configuration for pods [default: /etc/resolv.conf]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l cluster-dns -d 'name servers of dnsPolicy ClusterFirst' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l cluster-domain -d 'domain for search lists' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l cgroup-root -d 'cgroup below which pods live [default: /]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l max-pods -d 'pods on this node [default: 110]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l pod-max-pids -d 'processes of one pod, -1 for no limit [default: -1]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l seccomp-default -d 'RuntimeDefault where a pod names no seccomp profile [default: false]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l allowed-unsafe-sysctls -d 'sysctls that pods may set beyond the safe ones, * at the end' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l container-log-max-size -d 'size at which a log is rotated [default: 10Mi]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l container-log-max-files -d 'log files kept for one container, at least 2 [default: 5]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l image-gc-high-threshold -d 'disk use that starts image collection [default: 85]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l image-gc-low-threshold -d 'disk use that ends it [default: 80]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l minimum-image-ttl-duration -d 'unused images are kept at least this long [default: 2m]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-hard -d 'shortages at which pods are evicted at once [default: memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-soft -d 'shortages at which pods are evicted when they last' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-soft-grace-period -d 'how long they last before that' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-max-pod-grace-period -d 'most that a pod is given to stop then [default: 0]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-minimum-reclaim -d 'how much more must be free before a shortage is over' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l eviction-pressure-transition-period -d 'how long a condition of pressure lasts after its cause [default: 5m]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l node-status-update-frequency -d 'how often the node\'s status is computed [default: 10s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l exit-stops-pods -d 'stop all pods on SIGTERM (for examples and tests) [default: false]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l bind-address -d 'address of the TLS API [default: 127.0.0.1]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l secure-port -d 'port of the TLS API, 0 turns it off [default: 6443]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l client-ca-file -d 'CA of client certificates beside the node\'s own, read again on SIGHUP' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l token-auth-file -d 'static tokens: token,user,uid,"group,group"; read again on SIGHUP' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l basic-auth-file -d 'static passwords: password,user,uid,"group,group"; read again on SIGHUP' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l anonymous-auth -d 'requests without credentials [default: false]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l authorization-mode -d 'AlwaysAllow, AlwaysDeny, ABAC, Node in order; none: system:masters only' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l authorization-policy-file -d 'policy of mode ABAC, read again on SIGHUP' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l encryption-key-file -d 'keys for Secrets on disk, read again on SIGHUP; none: no encryption' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l admission-control -d 'exactly these admission plug-ins, in this order' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l enable-admission-plugins -d 'admission plug-ins beside the default ones' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l disable-admission-plugins -d 'default admission plug-ins to leave out' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l kubeconfig -d 'how to reach the remote cluster' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l bootstrap-kubeconfig -d 'how to get the node\'s certificate, which --kubeconfig then names' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l api-server -d 'API servers of the cluster, tried in turn [default: kubeconfig\'s]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l register-node -d 'create the Node in the remote cluster [default: true]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l cloud-provider -d 'external: a controller of the cloud gives addresses; else JSON that says where the machine is' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l address -d 'address of the kubelet\'s endpoints [default: 0.0.0.0]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l port -d 'port of the kubelet\'s endpoints on a node of a cluster, 0 turns it off [default: 10250]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -l rotate-server-certificates -d 'ask the cluster for the certificate of these endpoints; somebody has to approve it [default: false]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand run" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -l root-dir -d 'store, images and volumes (ROOT)' -r -f -a "(__fish_complete_directories)"
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -l config -d 'Try this configuration of run, and look at what it names' -r -F
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -l runtime -d 'OCI runtime to look at' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -l cni-conf-dir -d 'CNI configuration to look at' -r -f -a "(__fish_complete_directories)"
complete -c lowtide -n "__fish_lowtide_using_subcommand check" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l public-key -d 'minisign keys that it may be signed with' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l signature -d 'Its signature [default: FILE.minisig]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l timeout -d 'Until it must be ready' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l restart-command -d 'What restarts the agent [default: systemd or OpenRC, or a SIGTERM]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l root-dir -d 'store, images and volumes (ROOT) [default: that of the agent]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l guard
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -l compare
complete -c lowtide -n "__fish_lowtide_using_subcommand upgrade" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s l -l selector -d 'Labels: key=value, key!=value, key in (a,b), key' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s o -l output -d 'Output format' -r -f -a "wide\t''
json\t''
yaml\t''
name\t''"
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -l field-selector -d 'Fields, such as status.phase=Running' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s A -l all-namespaces -d 'Objects of all namespaces'
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s w -l watch -d 'Go on with what changes'
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -l no-headers -d 'No line of column names'
complete -c lowtide -n "__fish_lowtide_using_subcommand get" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand describe" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand describe" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand describe" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -s c -l container -d 'Container [default: the only one, or the annotated one]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l tail -d 'Only the last lines; -1 for all' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l since -d 'Only newer than 5s, 2m, 3h …' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l since-time -d 'Only since an RFC 3339 time' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l limit-bytes -d 'At most' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -s f -l follow -d 'Go on with what is written'
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -s p -l previous -d 'The instance before'
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -l timestamps -d 'Each line with its time'
complete -c lowtide -n "__fish_lowtide_using_subcommand logs" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -s c -l container -d 'Container [default: the only one, or the annotated one]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -s i -l stdin -d 'Pass standard input on'
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -s t -l tty -d 'With a terminal'
complete -c lowtide -n "__fish_lowtide_using_subcommand exec" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -s c -l container -d 'Container [default: the only one, or the annotated one]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -s i -l stdin -d 'Pass standard input on'
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -s t -l tty -d 'The container has a terminal'
complete -c lowtide -n "__fish_lowtide_using_subcommand attach" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -s l -l selector -d 'Labels of pods' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -s A -l all-namespaces -d 'Pods of all namespaces'
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -l containers -d 'One line for each container'
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -l no-headers -d 'No line of column names'
complete -c lowtide -n "__fish_lowtide_using_subcommand top" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand images" -s o -l output -d 'Output format' -r -f -a "wide\t''
json\t''
yaml\t''"
complete -c lowtide -n "__fish_lowtide_using_subcommand images" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand images" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand pull" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand pull" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand import" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand import" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s l -l selector -d 'Labels: key=value, key!=value, key in (a,b), key' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s o -l output -d 'Output format' -r -f -a "wide\t''
json\t''
yaml\t''
name\t''"
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s A -l all-namespaces -d 'Objects of all namespaces'
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s w -l watch -d 'Go on with what changes'
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -l no-headers -d 'No line of column names'
complete -c lowtide -n "__fish_lowtide_using_subcommand events" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -s f -l filename -d 'File or directory with objects, - for standard input' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -l dry-run -d 'Ask the node, and change nothing'
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -l force-conflicts -d 'Take fields that others have set to other values'
complete -c lowtide -n "__fish_lowtide_using_subcommand apply" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand create" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand create" -s f -l filename -d 'File or directory with objects, - for standard input' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand create" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand create" -l dry-run -d 'Ask the node, and change nothing'
complete -c lowtide -n "__fish_lowtide_using_subcommand create" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -s n -l namespace -d 'Namespace' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -s f -l filename -d 'File or directory with objects, - for standard input' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -l grace-period -d 'Between SIGTERM and SIGKILL; 0 forgets at once' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -l run-dir -d 'The node\'s run directory [default: $LOWTIDE_RUN_DIR or /run/lowtide]' -r
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -l ignore-not-found -d 'No error for what is not there'
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -l no-wait -d 'Do not wait until it is gone'
complete -c lowtide -n "__fish_lowtide_using_subcommand delete" -s h -l help -d 'Print help'
complete -c lowtide -n "__fish_lowtide_using_subcommand completions" -s h -l help -d 'Print help'
