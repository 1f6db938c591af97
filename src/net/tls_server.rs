//! The server's side of TLS: what it shows, and which client certificates count.
//!
//! A handshake takes any client certificate and checks only that the client holds its key: whether
//! the certificate is worth anything is asked at each request ([`ClientTrust`]), so that a bad one
//! is a 401 with a body, may stand beside a good token, and ends when it expires. Source:
//! Kubernetes apiserver (`tls.RequestClientCert`, authentication/request/x509).

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::certificates::{self, Identity};

/// A configuration for HTTP/1.1 servers. `client_cas` are named to clients that have several
/// certificates. Errors: an identity that cannot be used, in words.
pub fn server_config(
    identity: &Identity,
    client_cas: &[CertificateDer<'static>],
) -> Result<Arc<ServerConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("serving certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|error| format!("key of the serving certificate: {error}"))?;
    let hints = client_cas.iter().map(certificates::subject);
    let hints = hints.map(|subject| subject.map(DistinguishedName::from));
    let verifier = AnyClient {
        provider: provider.clone(),
        hints: hints.collect::<Result<_, _>>()?,
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("set up TLS: {error}"))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(chain, key)
        .map_err(|error| format!("use serving certificate: {error}"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Clients of this API live for one command or for days: there is nothing to resume.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The configuration of a listener, replaced while it listens. Clones share it.
#[derive(Clone, Debug)]
pub struct SharedConfig(Arc<Mutex<Arc<ServerConfig>>>);

impl SharedConfig {
    pub fn new(config: Arc<ServerConfig>) -> SharedConfig {
        SharedConfig(Arc::new(Mutex::new(config)))
    }

    pub fn get(&self) -> Arc<ServerConfig> {
        let config = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        config.clone()
    }

    /// Counts for handshakes from now on; open connections go on.
    pub fn replace(&self, config: Arc<ServerConfig>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = config;
    }
}

/// All certificates of a PEM text. Errors: a broken one, or none at all.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not a PEM certificate: {error}"))?;
    if found.is_empty() {
        return Err("holds no PEM certificate".to_owned());
    }
    Ok(found)
}

/// The CAs whose client certificates count.
#[derive(Clone)]
pub struct ClientTrust(Option<Arc<dyn ClientCertVerifier>>);

impl ClientTrust {
    /// Errors: a certificate that cannot be a CA's, by its place (from 1).
    pub fn new(authorities: &[CertificateDer<'static>]) -> Result<ClientTrust, String> {
        if authorities.is_empty() {
            return Ok(ClientTrust(None));
        }
        let mut roots = RootCertStore::empty();
        for (index, authority) in authorities.iter().enumerate() {
            let added = roots.add(authority.clone());
            added.map_err(|error| format!("certificate {}: {error}", index + 1))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build();
        let verifier = verifier.map_err(|error| format!("use client CAs: {error}"))?;
        Ok(ClientTrust(Some(verifier)))
    }

    /// Whether the chain (the client's own certificate first) counts now.
    /// Errors: why not, in Go's words where it has some.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<(), String> {
        let unknown = "x509: certificate signed by unknown authority";
        let (Some((own, between)), Some(verifier)) = (chain.split_first(), &self.0) else {
            return Err(unknown.to_owned());
        };
        let seconds = u64::try_from(now.as_second()).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let verified = verifier.verify_client_cert(own, between, now);
        verified.map(drop).map_err(|error| match error {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer => unknown.to_owned(),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "x509: certificate has expired or is not yet valid".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "x509: certificate has expired or is not yet valid".to_owned()
                }
                CertificateError::InvalidPurpose
                | CertificateError::InvalidPurposeContext { .. } => {
                    "x509: certificate specifies an incompatible key usage".to_owned()
                }
                why => format!("x509: {why}"),
            },
            other => format!("x509: {other}"),
        })
    }
}

impl std::fmt::Debug for ClientTrust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTrust")
    }
}

/// Takes any certificate, or none, but checks that the client holds its key.
#[derive(Debug)]
struct AnyClient {
    provider: Arc<CryptoProvider>,
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::certificates::{Authority, Purpose, Validity, first_certificate};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a date")
    }

    fn validity(from: i64, until: i64) -> Validity {
        Validity {
            from: at(from),
            until: at(until),
        }
    }

    #[test]
    fn client_certificates_count_by_ca_date_and_usage() {
        let always = validity(1_000_000_000, 4_000_000_000);
        let (ours, own) = Authority::make("ours", always).expect("make");
        let (theirs, _) = Authority::make("ours", always).expect("make");
        let root = first_certificate(&own.certificate).expect("PEM");
        let trust = ClientTrust::new(std::slice::from_ref(&root)).expect("trust");
        let client = Purpose::Client {
            user: "jane".into(),
            group: "dev".into(),
        };
        let server = Purpose::Server {
            name: "kube-apiserver".to_owned(),
            dns_names: vec!["pi".into()],
            ips: Vec::new(),
        };
        let year = validity(2_000_000_000, 2_000_001_000);
        let dates = "expired or is not yet valid";
        let table = [
            (&ours, &client, 2_000_000_500, None),
            (&ours, &client, 2_000_001_001, Some(dates)),
            (&ours, &client, 1_999_999_999, Some(dates)),
            (
                &ours,
                &server,
                2_000_000_500,
                Some("incompatible key usage"),
            ),
            (&theirs, &client, 2_000_000_500, Some("x509: ")),
        ];
        for (authority, purpose, now, refused) in table {
            let issued = authority.issue(purpose, year).expect("issue");
            let certificate = first_certificate(&issued.certificate).expect("PEM");
            let result = trust.verify(&[certificate], at(now));
            match (&result, refused) {
                (Ok(()), None) => {}
                (Err(why), Some(part)) => assert!(why.contains(part), "{why}"),
                _ => panic!("{purpose:?} at {now}: {result:?}"),
            }
        }
        let nobody = ClientTrust::new(&[]).expect("trust");
        assert!(nobody.verify(&[root], at(2_000_000_500)).is_err());
        assert!(trust.verify(&[], at(2_000_000_500)).is_err());
    }
}
