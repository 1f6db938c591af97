//! A node that has nothing but a bootstrap token: it runs its own pods at once, gets a certificate
//! when somebody approves, renews it, and starts over when it expired behind a cut.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::cluster::{SECRET, apply, bound, is_ready, node_of};
use crate::front::{Front, TOKEN};
use crate::isolation::isolated;
use crate::support::{FOREVER, Node, eventually, pod};
use lowtide::os::clock::wall_time as now;

/// A cluster, its front, and a node that is not started.
fn cluster(place: &Path, config: &Path) -> (Node, Front, Node) {
    let named = place.file_name().unwrap().to_string_lossy();
    let at = |which: &str| {
        let path = place.join(format!("{named}-{which}"));
        fs::create_dir(&path).unwrap();
        path
    };
    let tokens = place.join("tokens.csv");
    fs::write(&tokens, "n0de,system:node:n,1,system:nodes\n").unwrap();
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).unwrap();
    let mut cloud = Node::new(&at("cloud"))
        .flag("--hostname-override=cloud")
        .flag("--authorization-mode=Node")
        .flag("--enable-admission-plugins=NodeRestriction")
        .flag(&format!("--token-auth-file={}", tokens.display()));
    cloud.start();
    let front = Front::start("n0de", &cloud.root.join("pki/ca.crt"));
    let bootstrap = place.join("bootstrap.conf");
    fs::write(&bootstrap, front.bootstrap()).unwrap();
    let edge = Node::new(&at("edge"))
        .flag("--secure-port=0")
        .flag(&format!("--bootstrap-kubeconfig={}", bootstrap.display()))
        .flag(&format!("--kubeconfig={}", config.display()))
        .flag("--rotate-server-certificates");
    (cloud, front, edge)
}

#[test]
fn a_node_joins_by_a_bootstrap_token_and_outlives_its_certificate() {
    isolated(|place| {
        let config = place.join("etc/kubelet.conf");
        let (cloud, front, mut edge) = cluster(place, &config);
        // Nobody answers; the node's own pods do not wait for that.
        edge.manifest("own.yaml", &pod("own", FOREVER, "", ""));
        edge.start_plain();
        edge.up("own");
        assert!(front.state().made_by.is_empty() && !config.exists());

        // Nobody approves: one request, whatever becomes of the agent.
        front.state().open = true;
        eventually("a certificate is asked for", || front.state().looks > 0);
        edge.kill();
        let looks = front.state().looks;
        edge.start_plain();
        eventually("the request is looked at", || front.state().looks > looks);
        assert_eq!(front.state().made_by, ["system:bootstrap:abcdef"]);
        assert!(!config.exists());

        front.state().life_s = 12;
        front.state().approves = true;
        eventually("the node is ready", || {
            node_of(&cloud).is_some_and(|n| is_ready(&n))
        });
        cloud.up("own");
        let text = fs::read_to_string(&config).unwrap();
        assert!(!text.contains(TOKEN) && text.contains("kubelet-client-current.pem"));
        for file in [&config, &edge.root.join("pki/kubelet-client-current.pem")] {
            let mode = fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        eventually("its port shows what the cluster signed", || {
            front.signed_the_port()
        });
        let first = front.state().last_until;
        eventually("it renews its certificate", || {
            front.state().last_until > first
        });
        assert_eq!(front.state().made_by[1..], ["system:node:n"]);

        // Expired while it was cut off: the bootstrap token opens again.
        front.state().open = false;
        eventually("the certificate has ended", || {
            front.state().last_until.unwrap() < now()
        });
        front.state().life_s = 3600;
        front.state().open = true;
        apply(&cloud, "secret.json", SECRET);
        apply(&cloud, "app.json", &bound("app"));
        cloud.up("app");
        let made_by = front.state().made_by.clone();
        assert_eq!(
            made_by.last().unwrap(),
            "system:bootstrap:abcdef",
            "{made_by:?}"
        );

        cloud.ok(&["delete", "pod", "app-n"]);
        cloud.gone("app");
        edge.terminate();
        edge.finish();
        cloud.finish();
    });
}
