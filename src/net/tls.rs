//! Whom a client trusts. The provider is always named (ring): no process-wide default decides.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::certificates::facts;
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
    let verifier: Arc<dyn ServerCertVerifier> = match trust.verification {
        Verification::Full => Arc::new(Known::new(trust, provider)?),
        Verification::Skip => Arc::new(AnyCertificate(provider)),
    };
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
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
    let (mut used, mut odd) = (false, None);
    for certificate in CertificateDer::pem_slice_iter(&trust.extra_ca) {
        let certificate = certificate.map_err(|error| format!("read CA certificate: {error}"));
        let added = certificate.and_then(|certificate| {
            let added = roots.add(certificate);
            added.map_err(|error| format!("use CA certificate: {error}"))
        });
        match added {
            Ok(()) => used = true,
            Err(why) => odd = Some(why),
        }
    }
    match odd {
        // It must not take the others along.
        Some(odd) if used => log::warn!("{odd}; the others of its file are used"),
        Some(odd) => return Err(odd),
        None if roots.is_empty() => return Err("use CA certificate: there is none".to_owned()),
        None => {}
    }
    Ok(roots)
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

/// Takes what the authorities have signed; and as Go does, a certificate that is itself one of those of
/// `extra_ca`, though it may call itself an authority.
#[derive(Debug)]
struct Known {
    by_authorities: Arc<WebPkiServerVerifier>,
    itself: Vec<CertificateDer<'static>>,
}

impl Known {
    fn new(trust: &Trust, provider: Arc<CryptoProvider>) -> Result<Known, String> {
        let roots = Arc::new(roots(trust)?);
        let built = WebPkiServerVerifier::builder_with_provider(roots, provider).build();
        Ok(Known {
            by_authorities: built.map_err(|error| format!("set up TLS: {error}"))?,
            itself: CertificateDer::pem_slice_iter(&trust.extra_ca)
                .flatten()
                .collect(),
        })
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by_authorities = &self.by_authorities;
        let verified =
            by_authorities.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        if verified.is_ok() || !self.itself.contains(end_entity) {
            return verified;
        }
        let counts = facts(end_entity).is_ok_and(|facts| {
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            (facts.validity.from.as_second()..=facts.validity.until.as_second()).contains(&now)
        });
        if !counts {
            return verified;
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_authorities = &self.by_authorities;
        by_authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_authorities = &self.by_authorities;
        by_authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authorities.supported_verify_schemes()
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
    use crate::net::certificates::{Authority, Identity, Purpose, Validity, pem};
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

    /// Calls itself an authority, is for `kubernetes`, and ends in 2126.
    const OWN: &str = "\
-----BEGIN CERTIFICATE-----
MIIBmDCCAT6gAwIBAgIUYqypGAQJzIaiRjN4E5/Nf/20l7IwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjcxOTE5NDJaGA8yMTI2MTEw
MzE5MTk0MlowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABAvoBNuyfUsBhSswbJ5nKk+wRicJmOBU16bP0dS1lzRMTD4MPQiD
zXwbnVjlFArizu6NvMVMk6NLbXUe0cclt4ejajBoMB0GA1UdDgQWBBSS/y31Uv5P
wzOuGcm9PKYVhfeMlTAfBgNVHSMEGDAWgBSS/y31Uv5PwzOuGcm9PKYVhfeMlTAV
BgNVHREEDjAMggprdWJlcm5ldGVzMA8GA1UdEwEB/wQFMAMBAf8wCgYIKoZIzj0E
AwIDSAAwRQIhAJE5Wx9XL5TOEsnPbGuRPTFyAw9gmB8yBwHPaex/q93+AiBuH7IY
SIHiogOOfOYNa7fdnal/zkIqSD3WzwDBdcwLnA==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdk1Gws7VlsOFFXuy
hGao1oH71SVNjKuoqslwrhC28+6hRANCAAQL6ATbsn1LAYUrMGyeZypPsEYnCZjg
VNemz9HUtZc0TEw+DD0Ig818G51Y5RQK4s7ujbzFTJOjS211HtHHJbeH
-----END PRIVATE KEY-----
";

    #[test]
    fn a_server_may_show_the_very_certificate_that_is_trusted() {
        let own = Identity::parse(OWN).expect("PEM");
        let known: &'static Floor = Box::leak(Box::default());
        let shake = |extra_ca: &str, name: &'static str, wall| {
            let trust = Trust {
                roots: Roots::Extra,
                extra_ca: extra_ca.into(),
                ..Trust::default()
            };
            let config = dated_config(&trust, Dates { floor: known, wall }).expect("client");
            let name = ServerName::try_from(name).expect("a name");
            let client = ClientConnection::new(config, name).expect("client");
            let server = server_config(&own, &[]).expect("server");
            shake_hands(client, ServerConnection::new(server).expect("server"))
        };
        let always = Validity {
            from: Timestamp::UNIX_EPOCH,
            until: year(100),
        };
        let (_, other) = Authority::make("cluster", always).expect("CA");
        assert_eq!(shake(OWN, "kubernetes", || year(3)), Ok(()));
        assert!(shake(OWN, "other", || year(3)).is_err());
        assert!(shake(OWN, "kubernetes", || year(50)).is_err());
        assert!(shake(&other.certificate, "kubernetes", || year(3)).is_err());
    }

    #[test]
    fn an_odd_certificate_of_a_bundle_takes_no_other_along() {
        let odd = pem("CERTIFICATE", b"odd");
        let config = |extra_ca: String| {
            let trust = Trust {
                roots: Roots::Extra,
                extra_ca: extra_ca.into_bytes(),
                ..Trust::default()
            };
            client_config(&trust).map(drop)
        };
        assert_eq!(config(format!("{odd}{OWN}")), Ok(()));
        let torn = "-----BEGIN CERTIFICATE-----\nAA*\n-----END CERTIFICATE-----\n";
        let cut = OWN.split_at(OWN.len() / 2).0;
        assert_eq!(config(format!("{torn}{OWN}{cut}")), Ok(()));
        let alone = config(odd);
        assert!(
            alone
                .as_ref()
                .is_err_and(|why| why.contains("use CA certificate: ")),
            "{alone:?}"
        );
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
