//! X.509: makes keys and certificates, reads names and dates. Pure but for the kernel's randomness.
//!
//! Whether a certificate is trusted is rustls's to say (`tls_server`); nothing here verifies.

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::{COMMON_NAME, ORGANIZATION_NAME};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

/// When a certificate counts: both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub from: Timestamp,
    pub until: Timestamp,
}

/// What a certificate says, read without trusting it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Empty if there is none. The last one counts, as Go has it.
    pub common_name: String,
    /// Every O, in order.
    pub organizations: Vec<String>,
    pub validity: Validity,
    /// Subject alternative names, sorted.
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
}

/// Names and addresses that clients use for this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    pub dns_names: Vec<String>,
    pub ips: Vec<IpAddr>,
}

impl Names {
    /// The first of them that a certificate is not for.
    pub fn missing_in(&self, facts: &Facts) -> Option<String> {
        let name = self.dns_names.iter().find(|n| !facts.dns_names.contains(n));
        let ip = self.ips.iter().find(|ip| !facts.ips.contains(ip));
        name.cloned().or(ip.map(IpAddr::to_string))
    }
}

/// What a new certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    Server {
        /// For people: clients look at the others.
        name: String,
        dns_names: Vec<String>,
        ips: Vec<IpAddr>,
    },
    /// The user is the common name, the group its organization.
    Client { user: String, group: String },
}

/// A certificate and its private key (PKCS #8), both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// From one text that holds both. Errors: what is missing or does not fit together.
    pub fn parse(text: &str) -> Result<Identity, String> {
        let certificate = first_certificate(text)?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("private key: {error}"))?;
        let identity = Identity {
            certificate: pem("CERTIFICATE", &certificate),
            key: pem("PRIVATE KEY", key.secret_pkcs8_der()),
        };
        belongs(&certificate, &load_key(&identity.key)?)?;
        Ok(identity)
    }

    /// What `parse` reads.
    pub fn text(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.certificate)
    }
}

/// A key that has no certificate yet.
pub struct RequestKey(KeyPair);

impl RequestKey {
    pub fn make() -> Result<RequestKey, String> {
        new_key().map(RequestKey)
    }

    /// Reads what `text` gave.
    pub fn parse(text: &str) -> Result<RequestKey, String> {
        load_key(text).map(RequestKey)
    }

    /// PKCS #8, PEM.
    pub fn text(&self) -> String {
        pem("PRIVATE KEY", self.0.serialized_der())
    }

    /// SHA-256 of the public key and the names that are asked for, in hexadecimal digits.
    pub fn digest(&self, names: &Names) -> String {
        let mut bytes = self.0.der_bytes().to_vec();
        let ips = names.ips.iter().map(IpAddr::to_string);
        for name in names.dns_names.iter().cloned().chain(ips) {
            bytes.push(0);
            bytes.extend(name.into_bytes());
        }
        let hash = ring::digest::digest(&ring::digest::SHA256, &bytes);
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// A signing request (PKCS #10, DER) for this key and subject.
    pub fn request(&self, user: &str, group: &str, names: &Names) -> Result<Vec<u8>, String> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = alternative(&names.dns_names, &names.ips)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        let subject = &mut params.distinguished_name;
        subject.push(DnType::OrganizationName, group);
        subject.push(DnType::CommonName, user);
        let request = params.serialize_request(&self.0);
        let request = request.map_err(|error| format!("make a signing request: {error}"))?;
        Ok(request.der().to_vec())
    }
}

/// A certificate authority whose key is here.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Makes a key and a certificate signed by itself, and returns them as text too.
    pub fn make(name: &str, validity: Validity) -> Result<(Authority, Identity), String> {
        Authority::of_key(new_key()?, name, validity)
    }

    /// The same key and name with new dates: who trusts the old certificate believes what the new
    /// one signs, and the other way round.
    pub fn renew(old: &Identity, validity: Validity) -> Result<(Authority, Identity), String> {
        let name = facts(&first_certificate(&old.certificate)?)?.common_name;
        Authority::of_key(load_key(&old.key)?, &name, validity)
    }

    fn of_key(
        key: KeyPair,
        name: &str,
        validity: Validity,
    ) -> Result<(Authority, Identity), String> {
        let mut params = params(name, validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate = params
            .self_signed(&key)
            .map_err(|error| format!("make CA certificate: {error}"))?;
        let identity = Identity {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        };
        let authority = Authority {
            issuer: Issuer::new(params, key),
            certificate: identity.certificate.clone(),
        };
        Ok((authority, identity))
    }

    /// Reads what `make` made. Errors: what is wrong with which of the two texts.
    pub fn load(identity: &Identity) -> Result<Authority, String> {
        let certificate = first_certificate(&identity.certificate)?;
        let facts = facts(&certificate)?;
        let key = load_key(&identity.key)?;
        belongs(&certificate, &key)?;
        let params = params(&facts.common_name, facts.validity);
        Ok(Authority {
            issuer: Issuer::new(params, key),
            certificate: identity.certificate.clone(),
        })
    }

    /// The CA's own certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and a certificate for it.
    pub fn issue(&self, purpose: &Purpose, validity: Validity) -> Result<Identity, String> {
        let name = match purpose {
            Purpose::Server { name, .. } => name,
            Purpose::Client { user, .. } => user,
        };
        let mut params = params(name, validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        match purpose {
            Purpose::Server { dns_names, ips, .. } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                params.subject_alt_names = alternative(dns_names, ips)?;
            }
            Purpose::Client { group, .. } => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
                let group = group.as_str();
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, group);
            }
        }
        let key = new_key()?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|error| format!("make certificate: {error}"))?;
        Ok(Identity {
            certificate: pem("CERTIFICATE", certificate.der()),
            key: pem("PRIVATE KEY", key.serialized_der()),
        })
    }
}

fn alternative(dns_names: &[String], ips: &[IpAddr]) -> Result<Vec<SanType>, String> {
    let names = dns_names.iter().map(|name| {
        let name = name.as_str().try_into().map(SanType::DnsName);
        name.map_err(|error| format!("name in certificate: {error}"))
    });
    let ips = ips.iter().map(|ip| Ok(SanType::IpAddress(*ip)));
    names.chain(ips).collect()
}

fn new_key() -> Result<KeyPair, String> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|error| format!("make a key: {error}"))
}

fn load_key(text: &str) -> Result<KeyPair, String> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
        .map_err(|error| format!("private key: {error}"))?;
    KeyPair::try_from(&key).map_err(|error| format!("private key: {error}"))
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let date = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds)
    };
    params.not_before = date(validity.from);
    params.not_after = date(validity.until);
    params
}

/// PEM text of `der`, in lines of 64 characters (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// The first certificate of a PEM text.
pub fn first_certificate(text: &str) -> Result<CertificateDer<'static>, String> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| format!("certificate: {error}"))
}

/// Reads the names and dates. Errors: not a certificate.
pub fn facts(der: &CertificateDer<'_>) -> Result<Facts, String> {
    let certificate = parse(der)?;
    let body = certificate.tbs_certificate();
    let subject = body.subject();
    let texts = |oid: ObjectIdentifier| subject.iter().filter_map(move |a| text_of(a, oid));
    let date = |time: &x509_cert::time::Time| {
        let seconds = i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
    };
    let (mut dns_names, mut ips) = (Vec::new(), Vec::new());
    if let Ok(Some((_, SubjectAltName(names)))) = body.get_extension::<SubjectAltName>() {
        for name in names {
            match name {
                GeneralName::DnsName(name) => dns_names.push(name.to_string()),
                GeneralName::IpAddress(bytes) => ips.extend(ip_of(bytes.as_bytes())),
                _ => {}
            }
        }
    }
    dns_names.sort();
    ips.sort();
    Ok(Facts {
        common_name: texts(COMMON_NAME).last().unwrap_or_default(),
        organizations: texts(ORGANIZATION_NAME).collect(),
        validity: Validity {
            from: date(&body.validity().not_before),
            until: date(&body.validity().not_after),
        },
        dns_names,
        ips,
    })
}

fn parse(der: &CertificateDer<'_>) -> Result<Certificate, String> {
    Certificate::from_der(der).map_err(|error| format!("certificate: {error}"))
}

fn text_of(attribute: &AttributeTypeAndValue, oid: ObjectIdentifier) -> Option<String> {
    if attribute.oid != oid {
        return None;
    }
    let text = DirectoryString::try_from(&attribute.value).ok()?;
    Some(text.value().into_owned())
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let v6 = <[u8; 16]>::try_from(bytes).map(IpAddr::from);
    v4.or(v6).ok()
}

fn belongs(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    if public_key(certificate)? != key.der_bytes() {
        return Err("the private key does not belong to the certificate".to_owned());
    }
    Ok(())
}

/// Whether the key of `authority` has signed the certificate. Only what is made here (ES256) counts,
/// and no date. Errors: not a certificate.
pub fn is_signed_by(
    der: &CertificateDer<'_>,
    authority: &CertificateDer<'_>,
) -> Result<bool, String> {
    let certificate = parse(der)?;
    let body = certificate.tbs_certificate().to_der();
    let body = body.map_err(|error| format!("certificate: {error}"))?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key(authority)?);
    let signature = certificate.signature().raw_bytes();
    Ok(key.verify(&body, signature).is_ok())
}

/// The bits of the subject's public key.
fn public_key(der: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let certificate = parse(der)?;
    let info = certificate.tbs_certificate().subject_public_key_info();
    Ok(info.subject_public_key.raw_bytes().to_vec())
}

/// The encoded subject: what a server tells clients about the CAs that it knows.
pub fn subject(der: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let certificate = parse(der)?;
    let subject = certificate.tbs_certificate().subject().to_der();
    subject.map_err(|error| format!("certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::CertificateSigningRequestDer;
    use x509_cert::request::CertReq;

    use super::*;

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

    impl Authority {
        /// Signs a request (PEM) as a cluster does: the subject and the key are the request's.
        pub fn sign(&self, request: &[u8], validity: Validity) -> Result<String, String> {
            let der = CertificateSigningRequestDer::from_pem_slice(request)
                .map_err(|error| format!("request: {error}"))?;
            let request = CertReq::from_der(&der).map_err(|error| format!("request: {error}"))?;
            let subject = &request.info.subject;
            let texts = |oid| subject.iter().filter_map(move |a| text_of(a, oid));
            let name = texts(COMMON_NAME).last().unwrap_or_default();
            let mut params = params(&name, validity);
            for group in texts(ORGANIZATION_NAME) {
                params
                    .distinguished_name
                    .push(DnType::OrganizationName, group);
            }
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            for attribute in request.info.attributes.iter() {
                let value = attribute.values.get(0).expect("a value");
                let asked = value.decode_as::<x509_cert::ext::Extensions>();
                for extension in asked.map_err(|error| error.to_string())? {
                    let oid: Vec<u64> = extension.extn_id.arcs().map(u64::from).collect();
                    let bytes = extension.extn_value.as_bytes().to_vec();
                    let extension = rcgen::CustomExtension::from_oid_content(&oid, bytes);
                    params.custom_extensions.push(extension);
                }
            }
            let key = request.info.public_key.subject_public_key.raw_bytes();
            let signed = params.signed_by(&Asked(key.to_vec()), &self.issuer);
            let signed = signed.map_err(|error| format!("sign: {error}"))?;
            Ok(pem("CERTIFICATE", signed.der()))
        }
    }

    fn validity(from: i64, until: i64) -> Validity {
        let at = |seconds| Timestamp::from_second(seconds).expect("a date");
        Validity {
            from: at(from),
            until: at(until),
        }
    }

    #[test]
    fn what_is_issued_reads_back() {
        let long = validity(1_700_000_000, 4_900_000_000);
        let (authority, identity) = Authority::make("a CA", long).expect("make");
        let made = facts(&first_certificate(&identity.certificate).expect("PEM")).expect("facts");
        assert_eq!((made.common_name.as_str(), made.validity), ("a CA", long));

        let short = validity(1_700_000_000, 1_700_003_600);
        let purpose = Purpose::Server {
            name: "kube-apiserver".to_owned(),
            dns_names: vec!["pi".into(), "kubernetes".into()],
            ips: vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()],
        };
        let again = Authority::load(&identity).expect("load");
        let server = again.issue(&purpose, short).expect("issue");
        let read = facts(&first_certificate(&server.certificate).expect("PEM")).expect("facts");
        assert_eq!(read.dns_names, ["kubernetes", "pi"]);
        assert_eq!(read.ips.len(), 2);
        assert_eq!(read.validity, short);

        let purpose = Purpose::Client {
            user: "jane".into(),
            group: "dev".into(),
        };
        let client = authority.issue(&purpose, short).expect("issue");
        let read = facts(&first_certificate(&client.certificate).expect("PEM")).expect("facts");
        assert_eq!(read.common_name, "jane");
        assert_eq!(read.organizations, ["dev"]);
        let text = client.text();
        assert_eq!(Identity::parse(&text).as_ref(), Ok(&client));
        assert!(Identity::parse(&client.certificate).is_err());
    }

    #[test]
    fn a_renewed_authority_has_the_old_ones_key() {
        let (first, later) = (validity(0, 2_000_000_000), validity(0, 4_900_000_000));
        let (old, identity) = Authority::make("a CA", first).expect("make");
        let (new, renewed) = Authority::renew(&identity, later).expect("renew");
        let (other, _) = Authority::make("a CA", later).expect("make");
        let purpose = Purpose::Client {
            user: "jane".into(),
            group: "dev".into(),
        };
        let roots = [&identity, &renewed].map(|i| first_certificate(&i.certificate).expect("PEM"));
        assert_eq!(facts(&roots[1]).expect("facts").validity, later);
        for (authority, ours) in [(&old, true), (&new, true), (&other, false)] {
            let issued = authority.issue(&purpose, first).expect("issue");
            let leaf = first_certificate(&issued.certificate).expect("PEM");
            for root in &roots {
                assert_eq!(is_signed_by(&leaf, root), Ok(ours));
            }
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let always = validity(0, 4_900_000_000);
        let (_, one) = Authority::make("a CA", always).expect("make");
        let (_, two) = Authority::make("a CA", always).expect("make");
        let mixed = Identity {
            certificate: one.certificate.clone(),
            key: two.key,
        };
        let why = Authority::load(&mixed).err().expect("refused");
        assert!(why.contains("does not belong"), "{why}");
        for (certificate, key) in [("", one.key.as_str()), (&one.certificate, "")] {
            let torn = Identity {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
            };
            assert!(Authority::load(&torn).is_err(), "{certificate:?} {key:?}");
        }
    }
}
