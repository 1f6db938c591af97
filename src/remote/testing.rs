//! A scripted API server for tests: real TLS on loopback, one answer for each request.

use std::cell::{Cell, RefCell};
use std::net::TcpListener;
use std::rc::Rc;

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use futures_rustls::TlsAcceptor;
use http::Uri;

use super::kubeconfig::{Content, Settings};
use crate::net::certificates::{Authority, Identity, Purpose, Validity, facts};
use crate::net::proxy::Proxies;
use crate::net::tls_server::server_config;
use crate::os::clock::SystemClock;
use crate::world::{BootTime, Clock, LocalFuture};

/// What the server saw of one request.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Which connection it came over, from 0.
    pub(super) connection: usize,
    /// Of the client's certificate.
    pub(super) user: String,
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    pub(super) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|l| l.eq_ignore_ascii_case(line))
    }
}

/// What comes after the bytes of an answer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Then {
    Stay,
    Close,
}

pub(super) type Script = Rc<dyn Fn(&Seen) -> (Vec<u8>, Then)>;

/// Seconds of the node pass a hundred times as fast.
pub(super) struct Hurried(pub(super) SystemClock);

const SPEED: u32 = 100;

impl Clock for Hurried {
    fn now(&self) -> BootTime {
        BootTime::from_duration(self.0.now().as_duration() * SPEED)
    }

    fn wall(&self) -> jiff::Timestamp {
        self.0.wall()
    }

    fn sleep_until(&self, deadline: BootTime) -> LocalFuture<'static, ()> {
        let real = BootTime::from_duration(deadline.as_duration() / SPEED);
        self.0.sleep_until(real)
    }
}

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) seen: Rc<RefCell<Vec<Seen>>>,
    /// Connections that have ended here.
    pub(super) closed: Rc<Cell<usize>>,
    pub(super) authority: Authority,
    pub(super) ca: Identity,
}

pub(super) fn validity() -> Validity {
    let at = |seconds| jiff::Timestamp::from_second(seconds).expect("a date");
    Validity {
        from: at(1_000_000_000),
        until: at(4_000_000_000),
    }
}

impl Server {
    pub(super) fn start(executor: &LocalExecutor<'static>, script: Script) -> Server {
        let (authority, ca) = Authority::make("cluster", validity()).expect("CA");
        let purpose = Purpose::Server {
            name: "kube-apiserver".to_owned(),
            dns_names: vec!["kubernetes".into()],
            ips: vec!["127.0.0.1".parse().unwrap()],
        };
        let identity = authority.issue(&purpose, validity()).expect("issue");
        let acceptor = TlsAcceptor::from(server_config(&identity, &[]).expect("TLS"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().unwrap().port();
        let listener = Async::new(listener).expect("listener");
        let seen = Rc::new(RefCell::new(Vec::new()));
        let record = seen.clone();
        let closed: Rc<Cell<usize>> = Rc::default();
        let ended = closed.clone();
        let mut connection = 0;
        let serve = async move {
            let mut incoming = Box::pin(listener.incoming());
            let connections = LocalExecutor::new();
            let accepting = async {
                while let Some(Ok(stream)) = incoming.next().await {
                    let (acceptor, script, record) =
                        (acceptor.clone(), script.clone(), record.clone());
                    let number = connection;
                    connection += 1;
                    let ended = ended.clone();
                    let served = async move {
                        // A client that does not trust us is gone here.
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let shown = stream.get_ref().1.peer_certificates();
                        let user = shown.and_then(|chain| facts(&chain[0]).ok());
                        let user = user.map_or(String::new(), |facts| facts.common_name);
                        serve(stream, number, user, &*script, &record).await;
                        ended.set(ended.get() + 1);
                    };
                    connections.spawn(served).detach();
                }
            };
            connections.run(accepting).await;
        };
        executor.spawn(serve).detach();
        Server {
            port,
            seen,
            closed,
            authority,
            ca,
        }
    }

    pub(super) fn url(&self) -> Uri {
        format!("https://127.0.0.1:{}", self.port).parse().unwrap()
    }

    pub(super) fn settings(&self) -> Settings {
        let mut settings = Settings::without_credentials(vec![self.url()]);
        settings.authority = Some(Content::Here(self.ca.certificate.clone().into_bytes()));
        settings.proxies = Some(Proxies::default());
        settings
    }

    pub(super) fn connections(&self) -> Vec<usize> {
        self.seen
            .borrow()
            .iter()
            .map(|seen| seen.connection)
            .collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    user: String,
    script: &dyn Fn(&Seen) -> (Vec<u8>, Then),
    record: &RefCell<Vec<Seen>>,
) {
    loop {
        let mut bytes = Vec::new();
        let seen = loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                });
                if body.len() >= length.unwrap_or(0) {
                    break Seen {
                        connection,
                        user: user.clone(),
                        head: head.to_owned(),
                        body: body.to_owned(),
                    };
                }
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(count) if count > 0 => bytes.extend_from_slice(&piece[..count]),
                _ => return,
            }
        };
        let (answer, then) = script(&seen);
        record.borrow_mut().push(seen);
        if stream.write_all(&answer).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        if then == Then::Close {
            let _ = stream.close().await;
            return;
        }
    }
}

pub(super) fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}
