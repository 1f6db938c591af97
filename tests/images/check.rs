//! The HTTP, TCP and gRPC checks of probes.
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use lowtide::net::RealNet;
use lowtide::world::{HttpAnswer, HttpCheck, Net, NetError, Scheme};

use crate::registry::{Fake, Reply};
use crate::world::{quick_clock, run};

/// The test clock is fast: this is a second.
const TIMEOUT: Duration = Duration::from_secs(20);

fn check(address: &str, path: &str, scheme: Scheme) -> HttpCheck {
    let (host, port) = address.split_once(':').unwrap();
    HttpCheck {
        scheme,
        host: host.to_owned(),
        port: port.parse().unwrap(),
        path: path.to_owned(),
        headers: Vec::new(),
        timeout: TIMEOUT,
    }
}

fn ask(check: HttpCheck) -> Result<HttpAnswer, NetError> {
    run(async { RealNet::new(quick_clock()).unwrap().http_check(check).await })
}

#[test]
fn a_probe_looks_like_the_kubelets() {
    let fake = Fake::start(|_| Reply::status(503));
    let mut probe = check(&fake.address, "/healthz?x=1", Scheme::Http);
    assert_eq!(ask(probe.clone()).unwrap().status, 503);
    let seen = fake.seen("/healthz?x=1").pop().unwrap();
    assert_eq!(seen.headers["user-agent"], "kube-probe/1.36");
    assert_eq!(seen.headers["accept"], "*/*");
    assert_eq!(seen.headers["connection"], "close");
    assert!(!seen.headers.contains_key("accept-encoding"));
    probe.headers = vec![
        ("Host".into(), "web.example".into()),
        ("User-Agent".into(), "mine".into()),
        ("Accept".into(), String::new()),
    ];
    ask(probe).unwrap();
    let seen = fake.seen("/healthz").pop().unwrap();
    assert_eq!(seen.headers["host"], "web.example");
    assert_eq!(seen.headers["user-agent"], "mine");
    assert!(!seen.headers.contains_key("accept"));
}

#[test]
fn redirects_are_followed_to_the_same_host_only() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/here" => Reply::status(302).header("Location", "/there"),
        "/there" => Reply::body(&[b'x'; 20_000]),
        "/away" => Reply::status(302).header("Location", "http://127.0.0.2:1/metadata"),
        _ => Reply::status(302).header("Location", &seen.path),
    });
    let here = ask(check(&fake.address, "/here", Scheme::Http)).unwrap();
    assert_eq!((here.status, here.body.len()), (200, 10 * 1024));
    let away = ask(check(&fake.address, "/away", Scheme::Http)).unwrap();
    assert!(away.redirected_elsewhere);
    assert_eq!(away.status, 302);
    assert!(matches!(
        ask(check(&fake.address, "/circle", Scheme::Http)),
        Err(NetError::Failed(_))
    ));
    assert_eq!(fake.seen("/circle").len(), 11);
}

#[test]
fn https_to_a_plain_server_is_a_protocol_error() {
    let fake = Fake::start(|_| Reply::status(200));
    let answer = ask(check(&fake.address, "/", Scheme::Https));
    assert!(
        matches!(answer, Err(NetError::Protocol(_) | NetError::Failed(_))),
        "{answer:?}"
    );
}

#[test]
fn a_grpc_check_reads_the_status_of_a_service() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut call = vec![0; 1024];
        let read = stream.read(&mut call).unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
        // Settings are acknowledged before there is an answer.
        let mut thanks = [0; 9];
        stream.read_exact(&mut thanks).unwrap();
        assert_eq!(&thanks, b"\0\0\0\x04\x01\0\0\0\0");
        stream
            .write_all(b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x07\0\0\0\0\0\x01\0\0\0\0\x02\x08\x02")
            .unwrap();
        String::from_utf8_lossy(&call[..read]).into_owned()
    });
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    run(async {
        let net = RealNet::new(quick_clock()).unwrap();
        let status = net.grpc_check("127.0.0.1", port, "db", TIMEOUT).await;
        assert_eq!(status, Ok(2));
        let port = silent.local_addr().unwrap().port();
        let late = net.grpc_check("127.0.0.1", port, "", TIMEOUT).await;
        assert_eq!(late, Err(NetError::Timeout));
        let refused = net.grpc_check("127.77.0.1", 1, "", TIMEOUT).await;
        assert!(refused.unwrap_err().to_string().contains("refused"));
    });
    assert!(
        server
            .join()
            .unwrap()
            .contains("/grpc.health.v1.Health/Check")
    );
}

#[test]
fn a_silent_server_times_out_and_a_closed_port_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = ask(check(&address, "/", Scheme::Http));
    assert_eq!(answer, Err(NetError::Timeout));
    run(async {
        let net = RealNet::new(quick_clock()).unwrap();
        let port = listener.local_addr().unwrap().port();
        net.tcp_check("127.0.0.1", port, TIMEOUT).await.unwrap();
        // Port 1 of an address of its own: a freed port could be another test's by now.
        let refused = net.tcp_check("127.77.0.1", 1, TIMEOUT).await;
        assert!(refused.unwrap_err().to_string().contains("refused"));
    });
}
