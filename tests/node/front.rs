//! The front of a cluster that signs certificates: TLS on 127.0.0.1:7443, kube-apiserver's part of
//! `certificates.k8s.io`, and everything else handed on to the API of another lowtide for whoever
//! shows a certificate that was signed here. It can be shut, and approve when the test says so.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_executor::LocalExecutor;
use async_io::Async;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_lite::{AsyncReadExt, AsyncWriteExt, io};
use futures_rustls::{TlsAcceptor, TlsConnector, server::TlsStream};
use jiff::Timestamp;
use lowtide::net::certificates::{
    Authority, Identity, Purpose, Validity, facts, first_certificate, is_signed_by, pem,
};
use lowtide::net::tls::{Roots, Trust, client_config};
use lowtide::net::tls_server::server_config;
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::{Value, json};
use x509_cert::der::{Decode, Encode};
use x509_cert::request::CertReq;

use lowtide::os::clock::wall_time as now;

pub const TOKEN: &str = "abcdef.0123456789abcdef";
pub const SERVER: &str = "https://127.0.0.1:7443";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const SERVING_SIGNER: &str = "kubernetes.io/kubelet-serving";
const REQUESTS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// What the test reads and sets.
#[derive(Default)]
pub struct State {
    pub open: bool,
    pub approves: bool,
    /// Of what is signed from now on.
    pub life_s: i64,
    pub requests: BTreeMap<String, Value>,
    /// Who asked for a client's certificate, in order.
    pub made_by: Vec<String>,
    pub looks: u32,
    pub last_until: Option<Timestamp>,
}

#[derive(Clone)]
pub struct Front {
    state: Arc<Mutex<State>>,
    ca: Arc<Identity>,
    /// Of the node's token at the API behind.
    behind: Arc<Behind>,
}

struct Behind {
    token: &'static str,
    ca: String,
}

impl Front {
    /// Shut at first. `token`: whom the API at 127.0.0.1:6443 takes for the node.
    pub fn start(token: &'static str, ca_file: &Path) -> Front {
        let long = Validity {
            from: Timestamp::UNIX_EPOCH,
            until: Timestamp::from_second(4_000_000_000).unwrap(),
        };
        let (authority, ca) = Authority::make("cluster", long).unwrap();
        let purpose = Purpose::Server {
            name: "kube-apiserver".to_owned(),
            dns_names: Vec::new(),
            ips: vec!["127.0.0.1".parse().unwrap()],
        };
        let shown = authority.issue(&purpose, long).unwrap();
        let acceptor = TlsAcceptor::from(server_config(&shown, &[]).unwrap());
        let front = Front {
            state: Arc::default(),
            ca: Arc::new(ca),
            behind: Arc::new(Behind {
                token,
                ca: std::fs::read_to_string(ca_file).unwrap(),
            }),
        };
        let listener = TcpListener::bind("127.0.0.1:7443").unwrap();
        let own = front.clone();
        // Ends with the process of the test.
        std::thread::spawn(move || async_io::block_on(own.serve(listener, acceptor)));
        front
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A kubeconfig with the bootstrap token.
    pub fn bootstrap(&self) -> String {
        let authority = STANDARD.encode(&self.ca.certificate);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster:\n    \
             server: {SERVER}\n    certificate-authority-data: {authority}\nusers:\n- name: u\n  \
             user: {{token: {TOKEN}}}\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n"
        )
    }

    async fn serve(self, listener: TcpListener, acceptor: TlsAcceptor) {
        let listener = Async::new(listener).unwrap();
        let connections = LocalExecutor::new();
        let accepting = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if !self.state().open {
                    continue;
                }
                let (own, acceptor) = (self.clone(), acceptor.clone());
                let served = async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        // A client may be gone at any time.
                        let _ = own.connection(stream).await;
                    }
                };
                connections.spawn(served).detach();
            }
        };
        connections.run(accepting).await;
    }

    async fn connection(&self, mut stream: TlsStream<Async<TcpStream>>) -> io::Result<()> {
        let shown = stream.get_ref().1.peer_certificates();
        let certificate = shown.map(|chain| chain[0].clone().into_owned());
        loop {
            let (head, body) = read_request(&mut stream).await?;
            let who = self.who(&head, certificate.as_ref());
            let mut words = head.split(' ');
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (status, answer) = match (&who, path.strip_prefix(REQUESTS)) {
                (None, _) => (401, json!({"kind": "Status", "message": "Unauthorized"})),
                (Some(who), Some(name)) if method == "POST" => {
                    assert_eq!(name, "");
                    self.make(who, &body)
                }
                (Some(_), Some(name)) => self.look(name.trim_start_matches('/')),
                (Some(who), None) if who.starts_with("system:bootstrap:") => {
                    (403, json!({"kind": "Status", "message": "forbidden"}))
                }
                (Some(_), None) => return self.hand_on(stream, &head, &body).await,
            };
            let text = answer.to_string();
            let length = text.len();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{text}").as_bytes()).await?;
            stream.flush().await?;
        }
    }

    fn who(&self, head: &str, certificate: Option<&Der>) -> Option<String> {
        if head.contains(&format!("Bearer {TOKEN}")) {
            return Some("system:bootstrap:abcdef".to_owned());
        }
        let certificate = certificate?;
        let ca = first_certificate(&self.ca.certificate).unwrap();
        let facts = facts(certificate).unwrap();
        assert_eq!(is_signed_by(certificate, &ca), Ok(true));
        assert_eq!(facts.organizations, ["system:nodes"]);
        (facts.validity.until >= now()).then_some(facts.common_name)
    }

    fn make(&self, who: &str, body: &str) -> (u16, Value) {
        let object: Value = serde_json::from_str(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut state = self.state();
        let before = state.requests.insert(name, object.clone());
        assert_eq!(before, None, "made twice");
        match object["spec"]["signerName"] == CLIENT_SIGNER {
            true => state.made_by.push(who.to_owned()),
            false => assert_eq!(who, "system:node:n"),
        }
        (201, object)
    }

    fn look(&self, name: &str) -> (u16, Value) {
        let mut state = self.state();
        let Some(mut object) = state.requests.get(name).cloned() else {
            return (404, json!({"kind": "Status", "message": "not found"}));
        };
        state.looks += 1;
        if state.approves && object["status"].is_null() {
            let from = Timestamp::from_second(now().as_second()).unwrap();
            let client = object["spec"]["signerName"] == CLIENT_SIGNER;
            let life_s = if client { state.life_s } else { 3600 };
            let until = from + jiff::SignedDuration::from_secs(life_s);
            object["status"]["certificate"] = self.sign(&object["spec"], from, until).into();
            if client {
                state.last_until = Some(until);
            }
            state.requests.insert(name.to_owned(), object.clone());
        }
        (200, object)
    }

    /// As kube-controller-manager's signers of these names do.
    fn sign(&self, spec: &Value, from: Timestamp, until: Timestamp) -> String {
        let (usage, purpose) = match spec["signerName"].as_str().unwrap() {
            CLIENT_SIGNER => ("client auth", ExtendedKeyUsagePurpose::ClientAuth),
            SERVING_SIGNER => ("server auth", ExtendedKeyUsagePurpose::ServerAuth),
            other => panic!("no signer {other}"),
        };
        assert_eq!(spec["usages"], json!(["digital signature", usage]));
        let request = STANDARD.decode(spec["request"].as_str().unwrap()).unwrap();
        let der = CertificateSigningRequestDer::from_pem_slice(&request).unwrap();
        let request = CertReq::from_der(&der).unwrap();
        assert_eq!(
            request.info.subject.to_string(),
            "CN=system:node:n,O=system:nodes"
        );
        let date = |at: Timestamp| {
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(at.as_second() as u64)
        };
        let mut params = named("system:node:n");
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, "system:nodes");
        params.extended_key_usages = vec![purpose];
        if usage == "server auth" {
            // A namespace with nothing but lo has no address that others reach.
            params.subject_alt_names = vec![SanType::DnsName("n".try_into().unwrap())];
            let asked = request.info.attributes.to_der().unwrap();
            assert!(asked.ends_with(b"\x30\x03\x82\x01n"), "{asked:x?}");
        }
        (params.not_before, params.not_after) = (date(from), date(until));
        let key = PrivatePkcs8KeyDer::from_pem_slice(self.ca.key.as_bytes()).unwrap();
        let key = KeyPair::try_from(&key).unwrap();
        let issuer = Issuer::new(named("cluster"), key);
        let key = request.info.public_key.subject_public_key.raw_bytes();
        let signed = params.signed_by(&Asked(key.to_vec()), &issuer).unwrap();
        STANDARD.encode(pem("CERTIFICATE", signed.der()))
    }

    /// Whether the kubelet's port shows what was signed here.
    pub fn signed_the_port(&self) -> bool {
        let trust = Trust {
            roots: Roots::Extra,
            extra_ca: self.ca.certificate.clone().into_bytes(),
            ..Trust::default()
        };
        let connector = TlsConnector::from(client_config(&trust).unwrap());
        let address: SocketAddr = "127.0.0.1:10250".parse().unwrap();
        let name = ServerName::try_from("n").unwrap();
        async_io::block_on(async {
            let stream = Async::<TcpStream>::connect(address).await?;
            connector.connect(name, stream).await.map(drop)
        })
        .is_ok()
    }

    /// One request to the API behind, as the node; the answer goes back until its end.
    async fn hand_on(
        &self,
        mut client: TlsStream<Async<TcpStream>>,
        head: &str,
        body: &str,
    ) -> io::Result<()> {
        let trust = Trust {
            roots: Roots::Extra,
            extra_ca: self.behind.ca.clone().into_bytes(),
            ..Trust::default()
        };
        let connector = TlsConnector::from(client_config(&trust).unwrap());
        let address: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let stream = Async::<TcpStream>::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut api = connector.connect(name, stream).await?;
        let token = self.behind.token;
        let head = format!("{head}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n");
        api.write_all(format!("{head}{body}").as_bytes()).await?;
        api.flush().await?;
        let mut piece = [0; 4096];
        loop {
            match api.read(&mut piece).await {
                Ok(count) if count > 0 => client.write_all(&piece[..count]).await?,
                _ => return client.close().await,
            }
            client.flush().await?;
        }
    }
}

type Der = rustls_pki_types::CertificateDer<'static>;

/// The public key of a request.
struct Asked(Vec<u8>);

impl PublicKeyData for Asked {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

async fn read_request(stream: &mut TlsStream<Async<TcpStream>>) -> io::Result<(String, String)> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            let length = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return Ok((head.to_owned(), body.to_owned()));
            }
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&piece[..count]),
        }
    }
}
