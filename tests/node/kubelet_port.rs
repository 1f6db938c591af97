//! The kubelet's port of a joined node, as a cluster's API server and a Prometheus use it; a second
//! lowtide is the cluster and says who may do what.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use async_io::Async;
use futures_lite::StreamExt;
use futures_rustls::TlsConnector;
use lowtide::net::tls::{Roots, Trust, client_config};
use lowtide::net::websocket::{self, Frame, Message, V5};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};

use crate::accounts::{ask_for_token, root};
use crate::cluster::{cut, mend, node_of, pair};
use crate::isolation::isolated;
use crate::support::{FOREVER, Node, pod, uid, wait_for};
use crate::tls::{make_certificates, missing};

/// The account `watcher` may read whatever nodes show, and run nothing.
const POLICY: &str = r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","spec":{"user":"system:serviceaccount:default:watcher","resource":"nodes","readonly":true}}"#;

/// Status code and body. The port's certificate must be for the node's name.
fn curl(edge: &Node, arguments: &[&str], path: &str) -> (u16, String) {
    let here = ["--resolve", "n:10250:127.0.0.1"];
    edge.curl(
        &[&here, arguments].concat(),
        &format!("https://n:10250{path}"),
    )
}

/// The header that a client of this account sends.
fn bearer_of(node: &Node, account: &str) -> String {
    let (code, answer) = ask_for_token(node, account, &json!({}));
    assert_eq!(code, 201, "{answer}");
    format!(
        "Authorization: Bearer {}",
        answer["status"]["token"].as_str().unwrap()
    )
}

/// What a command said, asked for as an API server that passes WebSockets on does.
fn exec(edge: &Node, place: &Path, path: &str) -> (String, Value) {
    let read = |path: &Path| fs::read(path).unwrap();
    let trust = Trust {
        roots: Roots::Extra,
        extra_ca: read(&edge.root.join("pki/ca.crt")),
        identity: Some((
            read(&place.join("apiserver.crt")),
            read(&place.join("apiserver.key")),
        )),
        ..Trust::default()
    };
    let connector = TlsConnector::from(client_config(&trust).unwrap());
    let address: SocketAddr = "127.0.0.1:10250".parse().unwrap();
    async_io::block_on(async {
        let stream = Async::<TcpStream>::connect(address).await.unwrap();
        let stream = connector
            .connect(ServerName::try_from("n").unwrap(), stream)
            .await;
        let connected = websocket::connect(Box::new(stream.unwrap()), path, &[V5]).await;
        let (mut socket, _) = connected.expect("upgraded");
        let mut stdout = String::new();
        while let Some(message) = socket.next().await {
            let Message::Binary(bytes) = message.unwrap() else {
                continue;
            };
            match Frame::decode(&bytes) {
                Some(Frame::Stdout(bytes)) => stdout.push_str(&String::from_utf8_lossy(&bytes)),
                Some(Frame::Error(status)) => {
                    return (stdout, serde_json::from_slice(&status).unwrap());
                }
                _ => {}
            }
        }
        panic!("no Status at the end");
    })
}

// One story of one pair of nodes, told in order.
#[allow(clippy::too_many_lines)]
#[test]
fn a_cluster_reads_and_runs_at_the_nodes_port_and_a_cut_takes_no_right_away() {
    isolated(|place| {
        if missing(&["curl", "openssl"]) {
            return;
        }
        let subjects = [
            (
                "apiserver",
                "/O=system:masters/CN=kube-apiserver-kubelet-client",
            ),
            ("stranger", "/CN=stranger"),
        ];
        make_certificates(place, &subjects);
        let (mut cloud, mut edge) = pair(place);
        let policy = place.join("policy");
        fs::write(&policy, POLICY).unwrap();
        cloud.flags.push("--authorization-mode=ABAC".to_owned());
        let flag = format!("--authorization-policy-file={}", policy.display());
        cloud.flags.push(flag);
        let office = place.join("office.crt");
        edge.flags
            .push(format!("--client-ca-file={}", office.display()));
        // Of the node's own API; it opens nothing here.
        edge.flags
            .push("--authorization-mode=AlwaysAllow".to_owned());
        cloud.start();
        edge.start();
        let node = wait_for("the node is registered", || node_of(&cloud));
        let port = &node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"];
        assert_eq!(*port, 10250);
        let features = &node["status"]["declaredFeatures"];
        assert_eq!(*features, json!(["ExtendWebSocketsToKubelet"]));

        edge.manifest("own.yaml", &pod("own", FOREVER, "", ""));
        let own = edge.up("own");
        let mirror = cloud.up("own");
        assert_ne!(uid(&own), uid(&mirror));
        let cert = |name: &str, arguments: &[&str], path: &str| {
            let file = |end| place.join(format!("{name}.{end}")).display().to_string();
            let (cert, key) = (file("crt"), file("key"));
            let mut all = vec!["--cert", &cert, "--key", &key];
            all.extend(arguments);
            curl(&edge, &all, path)
        };
        let master = |arguments: &[&str], path: &str| cert("apiserver", arguments, path);
        // The mirror's name is that of the pod that it mirrors.
        let logs = "/containerLogs/default/own-n/c?tailLines=1";
        assert_eq!(master(&[], logs), (200, "started\n".to_owned()));
        let run = "/run/default/own-n/c?cmd=echo+hello";
        assert_eq!(master(&["-X", "POST"], run), (200, "hello\n".to_owned()));
        let command = "output=1&error=1&command=sh&command=-c&command=echo%20hi%3B%20exit%204";
        let path = format!("/exec/default/own-n/{}/c?{command}", uid(&own));
        let (said, status) = exec(&edge, place, &path);
        assert_eq!(said, "hi\n");
        assert_eq!(status["details"]["causes"][0]["message"], "4");
        let (code, pods) = master(&[], "/pods");
        assert!(code == 200 && pods.contains("own-n"), "{code} {pods}");
        let (_, configuration) = master(&[], "/configz");
        assert!(configuration.contains("\"port\":10250"), "{configuration}");

        let account = json!({"metadata": {"name": "watcher"}});
        for node in [&cloud, &edge] {
            let accounts = "/api/v1/namespaces/default/serviceaccounts";
            assert_eq!(root(node, "POST", accounts, &account).0, 201);
        }
        let theirs = bearer_of(&cloud, "watcher");
        let other = bearer_of(&cloud, "default");
        let ours = bearer_of(&edge, "watcher");
        let bearer = |header: &str, path: &str| curl(&edge, &["-H", header], path);
        let (code, figures) = bearer(&theirs, "/metrics/resource");
        assert!(
            code == 200 && figures.contains("pod=\"own-n\""),
            "{code} {figures}"
        );
        assert_eq!(bearer(&theirs, "/stats/summary").0, 200);
        let (code, why) = curl(&edge, &["-H", &theirs, "-X", "POST"], run);
        let expected = "Forbidden (user=system:serviceaccount:default:watcher, verb=create, \
                        resource=nodes, subresource(s)=[proxy])\n";
        assert_eq!((code, &*why), (403, expected));
        for (arguments, code) in [
            (&[][..], 401),
            (&["-H", &ours], 401),
            (&["-H", "Authorization: Bearer x"], 401),
            (&["-H", &other], 403),
        ] {
            assert_eq!(curl(&edge, arguments, "/metrics").0, code, "{arguments:?}");
        }
        assert_eq!(cert("stranger", &[], "/metrics").0, 403);

        cut();
        assert_eq!(bearer(&theirs, "/metrics/resource").0, 200);
        assert_eq!(bearer(&theirs, logs).0, 403, "not asked for before");
        let (code, why) = bearer("Authorization: Bearer new", "/metrics");
        assert_eq!(
            (code, &*why),
            (401, "Unauthorized: the cluster cannot be asked\n")
        );
        assert_eq!(master(&[], logs).0, 200);
        mend();
        edge.finish();
        cloud.finish();
    });
}
