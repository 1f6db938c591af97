//! Who may knock: certificates, files and keys of an office, and a door without a network.
//!
//! A [`Door`] is the real server on this thread, one for each set of modes, all over one registry. A
//! connection to it is a pair of sockets, or TLS over loopback where the handshake is the point.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_executor::LocalExecutor;
use async_io::Async;
use futures_lite::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use futures_rustls::TlsConnector;
use jiff::{Timestamp, ToSpan};
use lowtide::apiserver::authn::{Authenticator, Files, Network, Paths, Peer};
use lowtide::apiserver::authz::{Authorizer, Mode, PolicyFile};
use lowtide::apiserver::{self, Limits, Options, Server};
use lowtide::net::certificates::{Authority, Identity, Purpose, Validity};
use lowtide::net::serve::{Duplex, Ending};
use lowtide::net::tls_server::{SharedConfig, server_config};
use lowtide::object::Object;
use lowtide::object::token::{Issuer, SigningKey, Wanted};
use lowtide::os::clock::{SystemClock, wall_time};
use lowtide::world::Clock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use crate::node::Node;

/// Certificates, files and keys, made once.
pub struct Office {
    authority: Authority,
    root: Identity,
    stranger: Authority,
    key: Vec<u8>,
    now: Timestamp,
}

pub const TOKENS: &str = "t0ken,jane,1\nd3v,dora,2,dev\nadm1n,amy,3,system:masters\n";
pub const PASSWORDS: &str = "pa55,paul,4\nr00t,rosa,5,system:masters\n";

/// Whose certificate, from which CA, from when to when.
pub enum Signed {
    Well,
    ByAStranger,
    TooEarly,
    TooLate,
}

impl Office {
    pub fn open() -> Office {
        let now = wall_time();
        let validity = hours(now, -1, 1);
        let (authority, root) = Authority::make("office", validity).expect("a CA");
        let (stranger, _) = Authority::make("office", validity).expect("another CA");
        let key = SigningKey::generate().expect("a key");
        Office {
            authority,
            root,
            stranger,
            key,
            now,
        }
    }

    fn issuer(&self) -> Issuer {
        Issuer::new(SigningKey::from_pkcs8(&self.key).expect("a key"))
    }

    pub fn client(&self, signed: &Signed, user: &str, group: &str) -> Identity {
        let purpose = Purpose::Client {
            user: user.to_owned(),
            group: group.to_owned(),
        };
        let (by, from, until) = match signed {
            Signed::Well => (&self.authority, -1, 1),
            Signed::ByAStranger => (&self.stranger, -1, 1),
            Signed::TooEarly => (&self.authority, 2, 3),
            Signed::TooLate => (&self.authority, -3, -2),
        };
        let validity = hours(self.now, from, until);
        by.issue(&purpose, validity).expect("a certificate")
    }

    /// A service account's token for an audience, `""` for the API, issued so many hours from now.
    pub fn token(&self, account: &Object, audience: &str, hours: i64) -> String {
        mint(&self.issuer(), account, audience, self.now + hours.hours())
    }

    /// The same from another key.
    pub fn forged(&self, account: &Object) -> String {
        let key = SigningKey::generate().expect("a key");
        let forger = Issuer::new(SigningKey::from_pkcs8(&key).expect("a key"));
        mint(&forger, account, "", self.now)
    }

    fn files(&self, place: &Path) -> Files {
        let secret = |name: &str, text: &str| {
            let path = place.join(name);
            std::fs::write(&path, text).expect("written");
            let owner_only = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, owner_only).expect("chmod");
            Some(path)
        };
        let paths = Paths {
            client_ca: None,
            tokens: secret("tokens", TOKENS),
            passwords: secret("passwords", PASSWORDS),
        };
        Files::load(&paths, &self.root.certificate).expect("files")
    }

    /// What the server shows to TLS clients.
    pub fn serving(&self) -> SharedConfig {
        let purpose = Purpose::Server {
            name: "kube-apiserver".to_owned(),
            dns_names: vec!["pi".to_owned()],
            ips: vec![Ipv4Addr::LOCALHOST.into()],
        };
        let shown = self.authority.issue(&purpose, hours(self.now, -1, 1));
        let config = server_config(&shown.expect("issued"), &[]);
        SharedConfig::new(config.expect("TLS"))
    }

    pub fn authenticator(&self, node: &Node, anonymous: bool) -> Authenticator {
        let files = self.files(node.directory.path());
        let accounts = Some((Arc::new(self.issuer()), node.reader.clone()));
        Authenticator::new(files, accounts, anonymous)
    }

    /// A client that trusts this office and shows `identity`.
    pub fn connector(&self, identity: Option<&Identity>) -> TlsConnector {
        let mut roots = rustls::RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.root.certificate.as_bytes());
        roots.add(root.expect("PEM")).expect("a CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS")
            .with_root_certificates(roots);
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
                let config = config.with_client_auth_cert(chain(identity), key);
                config.expect("a certificate")
            }
        };
        TlsConnector::from(Arc::new(config))
    }
}

fn hours(now: Timestamp, from: i64, until: i64) -> Validity {
    Validity {
        from: now + from.hours(),
        until: now + until.hours(),
    }
}

fn mint(issuer: &Issuer, account: &Object, audience: &str, issued: Timestamp) -> String {
    let named = Some(audience.to_owned()).filter(|audience| !audience.is_empty());
    let wanted = Wanted {
        account,
        audiences: named.into_iter().collect(),
        lifetime: Duration::from_secs(600),
        bound: None,
        node: None,
    };
    issuer.mint(&wanted, issued).expect("a token").token
}

fn chain(identity: &Identity) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_slice_iter(identity.certificate.as_bytes());
    found.collect::<Result<_, _>>().expect("PEM")
}

/// Where somebody comes from.
#[derive(Clone)]
pub enum From {
    LocalSocket,
    Network(Option<Identity>),
    /// To the kubelet's port.
    Kubelet(Option<Identity>),
}

/// A server of one set of modes.
pub struct Door {
    pub executor: Rc<LocalExecutor<'static>>,
    server: Server,
}

impl Door {
    pub fn new(node: &Node, authenticator: Authenticator, modes: &[Mode], policy: &str) -> Door {
        Door::with_limits(node, authenticator, modes, policy, Limits::default())
    }

    pub fn with_limits(
        node: &Node,
        authenticator: Authenticator,
        modes: &[Mode],
        policy: &str,
        limits: Limits,
    ) -> Door {
        let path = node.directory.path().join("policy");
        std::fs::write(&path, policy).expect("policy");
        let policy = PolicyFile::open(Some(&path)).expect("policy");
        let options = Options {
            node_name: "pi".to_owned(),
            kubelet_configuration: r#"{"kubeletconfig":{}}"#.to_owned(),
            pod_logs_dir: node.directory.path().join("logs"),
            figures: Default::default(),
            authenticator,
            authorizer: Authorizer::new(modes, &policy, &node.reader),
            limits,
        };
        let clock = Rc::new(SystemClock::new().expect("clock"));
        Door::on_clock(node, options, clock)
    }

    /// A server whose time is somebody's.
    pub fn on_clock(node: &Node, options: Options, clock: Rc<dyn Clock>) -> Door {
        let executor = Rc::new(LocalExecutor::new());
        let (reader, backend) = (node.reader.clone(), node.backend.clone());
        let server = Server::new(reader, backend, clock, options, executor.clone());
        Door { executor, server }
    }

    /// A connection that skips TLS: the peer is who its handshake would have shown.
    pub fn walk_in(&self, from: &From) -> Line {
        Line::new(Box::new(self.wire(from)))
    }

    /// The same as bytes.
    pub fn wire(&self, from: &From) -> Async<UnixStream> {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let peer = match from {
            From::LocalSocket => Peer::Local,
            From::Network(identity) | From::Kubelet(identity) => {
                let shown = identity.as_ref().map(chain).unwrap_or_default();
                let network = Network::new(([127, 0, 0, 1], 1).into(), shown);
                Peer::Network(match from {
                    From::Kubelet(_) => network.at(apiserver::Door::Kubelet),
                    _ => network,
                })
            }
        };
        let server = self.server.clone();
        let theirs = Async::new(theirs).expect("non-blocking");
        let serve = async move { server.serve(Box::new(Ending(theirs)), peer).await };
        self.executor.spawn(serve).detach();
        Async::new(ours).expect("non-blocking")
    }

    /// Listens with TLS until the executor is dropped.
    pub fn listen(&self, config: SharedConfig) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let listener = Async::new(listener).expect("non-blocking");
        let server = self.server.clone();
        let serve = async move {
            server
                .listen_secure(&listener, &config, apiserver::Door::Api)
                .await
        };
        self.executor.spawn(serve).detach();
        address
    }
}

/// One connection of a client.
pub struct Line(BufReader<Box<dyn Duplex>>);

impl Line {
    fn new(io: Box<dyn Duplex>) -> Line {
        Line(BufReader::new(io))
    }

    pub async fn shake_hands(connector: &TlsConnector, address: SocketAddr) -> Line {
        let socket = Async::<TcpStream>::connect(address).await.expect("connect");
        socket.get_ref().set_nodelay(true).expect("no delay");
        let name = "127.0.0.1".try_into().expect("a name");
        let stream = connector.connect(name, socket).await.expect("handshake");
        Line::new(Box::new(stream))
    }

    /// One request, and all of its answer.
    pub async fn ask(&mut self, method: &str, path: &str, authorization: &str) -> Answer {
        let authorization = match authorization {
            "" => String::new(),
            text => format!("Authorization: {text}\r\n"),
        };
        let (kind, body) = match method {
            "PATCH" => ("application/merge-patch+json", "{}"),
            "POST" | "PUT" => ("application/json", "{}"),
            _ => ("application/json", ""),
        };
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: pi\r\n{authorization}Content-Type: {kind}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.send(request.as_bytes()).await;
        self.answer().await
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.expect("write");
        self.0.get_mut().flush().await.expect("flush");
    }

    /// Waits for the end of a connection on which nothing comes any more.
    pub async fn is_closed(&mut self) -> bool {
        !matches!(self.0.read(&mut [0; 1]).await, Ok(1..))
    }

    pub async fn answer(&mut self) -> Answer {
        let (mut code, mut length, mut closes) = (0, 0, false);
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).await.expect("a line");
            assert!(read > 0, "closed in the head");
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                code = rest[..3].parse().expect("a code");
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.parse().expect("a length");
            } else if line.is_empty() {
                break;
            }
            closes |= line == "connection: close";
            assert!(!line.starts_with("transfer-encoding"), "{code}: a stream");
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.expect("a body");
        Answer { code, body, closes }
    }
}

pub struct Answer {
    pub code: u16,
    pub body: Vec<u8>,
    /// The server will hang up.
    pub closes: bool,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}
