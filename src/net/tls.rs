//! Whom a client trusts. The provider is always named (ring): no process-wide default decides.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::os::clock::wall_time;
use crate::os::floor::{FLOOR, Floor};

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
    let dates = Dates {
        floor: &FLOOR,
        wall: wall_time,
    };
    dated_config(trust, dates)
}

fn dated_config(trust: &Trust, dates: Dates) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(dates))
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

/// What the dates of servers' certificates are compared with.
#[derive(Debug)]
struct Dates {
    floor: &'static Floor,
    wall: fn() -> Timestamp,
}

impl TimeProvider for Dates {
    fn current_time(&self) -> Option<UnixTime> {
        let now = self.floor.credible((self.wall)());
        let seconds = u64::try_from(now.as_second()).ok()?;
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

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::net::certificates::{Authority, Purpose, Validity};
    use crate::net::tls_server::server_config;

    const YEAR_S: i64 = 365 * 24 * 3600;

    /// Years after 2100: the build is before all of them.
    fn year(year: i64) -> Timestamp {
        Timestamp::from_second(4_102_444_800 + year * YEAR_S).expect("a date")
    }

    /// Hands bytes to and fro until both are content or one is not.
    fn shake_hands(
        mut client: ClientConnection,
        mut server: ServerConnection,
    ) -> Result<(), String> {
        while client.is_handshaking() || server.is_handshaking() {
            let mut bytes = Vec::new();
            client.write_tls(&mut bytes).expect("memory");
            server.read_tls(&mut &bytes[..]).expect("memory");
            server
                .process_new_packets()
                .map_err(|error| error.to_string())?;
            bytes.clear();
            server.write_tls(&mut bytes).expect("memory");
            client.read_tls(&mut &bytes[..]).expect("memory");
            client
                .process_new_packets()
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    #[test]
    fn certificates_are_judged_by_the_floor_when_the_clock_is_behind_it() {
        let always = Validity {
            from: Timestamp::UNIX_EPOCH,
            until: year(100),
        };
        let (authority, ca) = Authority::make("cluster", always).expect("CA");
        let trust = Trust {
            roots: Roots::Extra,
            extra_ca: ca.certificate.into_bytes(),
            ..Trust::default()
        };
        let purpose = Purpose::Server {
            name: "kube-apiserver".into(),
            dns_names: vec!["kubernetes".into()],
            ips: Vec::new(),
        };
        let dead_battery: fn() -> Timestamp = || Timestamp::UNIX_EPOCH;
        let right: fn() -> Timestamp = || year(3);
        let ahead: fn() -> Timestamp = || year(13);
        let rows: [(_, &[Timestamp], _, _, _); 7] = [
            (dead_battery, &[], (2, 4), false, "not valid yet"),
            (dead_battery, &[year(3)], (2, 4), true, ""),
            (dead_battery, &[year(3)], (1, 2), false, "expired"),
            (right, &[], (2, 4), true, ""),
            (right, &[year(1)], (2, 4), true, ""),
            (right, &[year(5)], (2, 4), false, "expired"),
            (ahead, &[year(3)], (2, 4), false, "expired"),
        ];
        for (wall, floor, (from, until), good, why) in rows {
            let validity = Validity {
                from: year(from),
                until: year(until),
            };
            let shown = authority.issue(&purpose, validity).expect("issue");
            let known: &'static Floor = Box::leak(Box::default());
            floor.iter().for_each(|at| known.recall(*at));
            let dates = Dates { floor: known, wall };
            let config = dated_config(&trust, dates).expect("client");
            let name = ServerName::try_from("kubernetes").expect("a name");
            let client = ClientConnection::new(config, name).expect("client");
            let server = server_config(&shown, &[]).expect("server");
            let server = ServerConnection::new(server).expect("server");
            let shaken = shake_hands(client, server);
            assert_eq!(shaken.is_ok(), good, "{floor:?} {shaken:?}");
            assert!(
                good || shaken.as_ref().is_err_and(|text| text.contains(why)),
                "{shaken:?}"
            );
        }
    }
}
