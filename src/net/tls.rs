//! Whom a client trusts. The provider is always named (ring): no process-wide default decides.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::os::clock::wall_time;
use crate::world::not_before_build;

/// Bundles of the distributions, the first that exists counts (as Go's crypto/x509 looks for them).
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whether the server's certificate counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    #[default]
    Full,
    /// Probes, and registries whose configuration says so.
    Skip,
}

/// Who may sign a server's certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Roots {
    /// The system's authorities, and those of `extra_ca`.
    #[default]
    System,
    /// Only those of `extra_ca`.
    Extra,
}

/// What a connection trusts and shows; all PEM.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pub verification: Verification,
    pub roots: Roots,
    pub extra_ca: Vec<u8>,
    /// Certificate chain and private key of the client.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Builds a configuration for HTTP/1.1 clients. Errors: a PEM text that cannot be used, in words.
pub fn client_config(trust: &Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(NotBeforeBuild))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("set up TLS: {error}"))?;
    let builder = match trust.verification {
        Verification::Full => builder.with_root_certificates(roots(trust)?),
        Verification::Skip => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider))),
    };
    let config = match &trust.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain)?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| format!("read client key: {error}"))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("use client certificate: {error}"))?
        }
    };
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, String> {
    let mut roots = match trust.roots {
        Roots::System => system_roots(),
        Roots::Extra => RootCertStore::empty(),
    };
    for certificate in certificates(&trust.extra_ca)? {
        roots
            .add(certificate)
            .map_err(|error| format!("use CA certificate: {error}"))?;
    }
    match roots.is_empty() {
        true => Err("use CA certificate: there is none".to_owned()),
        false => Ok(roots),
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let system = SYSTEM_BUNDLES
        .iter()
        .find_map(|path| std::fs::read(path).ok());
    for certificate in CertificateDer::pem_slice_iter(&system.unwrap_or_default()).flatten() {
        // One odd certificate of a bundle must not take the others along.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("read certificate: {error}"))
}

/// A board without a battery boots in 1970, and gets the time only from servers that it trusts.
#[derive(Debug)]
struct NotBeforeBuild;

impl TimeProvider for NotBeforeBuild {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(not_before_build(wall_time()).as_second()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// Takes any certificate, but still checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
