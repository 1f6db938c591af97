//! Keys and certificates of this node: made at the first start, kept under ROOT, renewed in time.
//!
//! ```text
//!   ROOT/pki/ca.pem               certificate and key, 10 years; renewed with the same key
//!   ROOT/pki/ca.crt               the certificate alone, for clients
//!   ROOT/pki/apiserver.pem        what the API shows; made anew when a name or address is missing
//!   ROOT/pki/kubelet.pem          what the kubelet's port shows until the cluster signs another
//!   ROOT/pki/admin.pem            the administrator's, in group system:masters
//!   ROOT/pki/service-account.pem  key of service account tokens
//!   ROOT/admin.kubeconfig         made from ca.crt and admin.pem
//! ```
//! Certificates count from the build of this program on: a board without a clock battery makes and
//! shows them in 1970. They are renewed when a fifth of their life is left, so that clients who
//! trust an old certificate of the CA have time. A file that cannot be used is set aside and made
//! anew; a disk that takes no changes leaves everything in memory, until the next start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::net::certificates::{
    self, Authority, Facts, Identity, Names, Purpose, Validity, first_certificate,
};
use crate::object::token::{Issuer, SigningKey};
use crate::object::user::GROUP_MASTERS;
use crate::world::{Area, Disk, build_time};

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_LIFE: Duration = DAY.saturating_mul(10 * 365);
const LEAF_LIFE: Duration = DAY.saturating_mul(365);
/// The part of a life that is left when a certificate is renewed.
const RENEW_LEFT: u32 = 5;

const AUTHORITY: &str = "pki/ca.pem";
const AUTHORITY_CERTIFICATE: &str = "pki/ca.crt";
const SERVER: &str = "pki/apiserver.pem";
const KUBELET: &str = "pki/kubelet.pem";
const ADMIN: &str = "pki/admin.pem";
const ACCOUNTS: &str = "pki/service-account.pem";
const KUBECONFIG: &str = "admin.kubeconfig";

/// What is to be done with what a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It was good: made anew, for this reason.
    Due(String),
    /// It cannot be used: set aside, and made anew.
    Broken(String),
}

/// The node's keys, in memory and as files.
pub struct Pki {
    files: Files,
    authority: Authority,
    authority_identity: Identity,
    issuer: Arc<Issuer>,
    /// What is in use, by file.
    leaves: BTreeMap<&'static str, Identity>,
    kubeconfig: Option<KubeconfigParts>,
}

impl Pki {
    /// Reads or makes the CA and the key of tokens.
    /// Errors: no key could be made. What is wrong with files is logged.
    pub async fn open(disk: Rc<dyn Disk>, now: Timestamp) -> Result<Pki, String> {
        let files = Files::new(disk);
        let (authority, authority_identity) = files.authority(now).await?;
        let key = files.account_key().await?;
        let pki = Pki {
            files,
            authority,
            authority_identity,
            issuer: Arc::new(Issuer::new(key)),
            leaves: BTreeMap::new(),
            kubeconfig: None,
        };
        pki.publish_authority().await;
        Ok(pki)
    }

    /// The CA's certificate, PEM: what clients trust.
    pub fn authority(&self) -> &str {
        self.authority.certificate()
    }

    /// Makes and checks service account tokens.
    pub fn issuer(&self) -> Arc<Issuer> {
        self.issuer.clone()
    }

    /// What the API shows at these names.
    pub async fn server(&mut self, names: &Names, now: Timestamp) -> Result<Identity, String> {
        self.leaf(SERVER, &server_purpose("kube-apiserver", names), now)
            .await
    }

    /// What the kubelet's port shows at these names.
    pub async fn kubelet(&mut self, names: &Names, now: Timestamp) -> Result<Identity, String> {
        self.leaf(KUBELET, &server_purpose("kubelet", names), now)
            .await
    }

    /// Makes `admin.kubeconfig` what it has to be for a server at this address.
    pub async fn kubeconfig(&mut self, address: SocketAddr, now: Timestamp) -> Result<(), String> {
        let admin = Purpose::Client {
            user: "system:admin".to_owned(),
            group: GROUP_MASTERS.to_owned(),
        };
        let admin = self.leaf(ADMIN, &admin, now).await?;
        let parts = KubeconfigParts::new(address, self.authority(), &admin);
        if self.kubeconfig.as_ref() == Some(&parts) {
            return Ok(());
        }
        let text = parts.text();
        let known = self.kubeconfig.insert(parts);
        if let Ok(Some(bytes)) = self.files.read(KUBECONFIG).await
            && known.are_in(&String::from_utf8_lossy(&bytes))
        {
            // Contexts and namespaces that somebody added stay.
            return Ok(());
        }
        self.files.write(KUBECONFIG, text).await;
        Ok(())
    }

    /// Renews the CA when its time has come. This, `server` and `kubeconfig` are done on memory when
    /// there is nothing to renew.
    pub async fn renew_authority(&mut self, now: Timestamp) -> Result<bool, String> {
        self.files.write_unsaved().await;
        let facts = facts(&self.authority_identity)?;
        if !is_due(&facts, now, AUTHORITY_LIFE) {
            return Ok(false);
        }
        let validity = validity(now, AUTHORITY_LIFE);
        let (authority, identity) = Authority::renew(&self.authority_identity, validity)?;
        self.files.write(AUTHORITY, identity.text()).await;
        log::info!("{AUTHORITY} is renewed, with the same key");
        (self.authority, self.authority_identity) = (authority, identity);
        self.publish_authority().await;
        Ok(true)
    }

    async fn publish_authority(&self) {
        let text = self.authority().to_owned();
        match self.files.read(AUTHORITY_CERTIFICATE).await {
            Ok(Some(bytes)) if bytes == text.as_bytes() => {}
            _ => self.files.write(AUTHORITY_CERTIFICATE, text).await,
        }
    }

    async fn leaf(
        &mut self,
        file: &'static str,
        purpose: &Purpose,
        now: Timestamp,
    ) -> Result<Identity, String> {
        let root = first_certificate(self.authority())?;
        let judge = |identity: &Identity| judge_leaf(identity, &root, purpose, now);
        if let Some(known) = self.leaves.get(file)
            && judge(known) == Verdict::Good
        {
            return Ok(known.clone());
        }
        let make = || self.authority.issue(purpose, validity(now, LEAF_LIFE));
        let identity = self.files.identity(file, judge, make).await?;
        self.leaves.insert(file, identity.clone());
        Ok(identity)
    }
}

fn server_purpose(name: &str, names: &Names) -> Purpose {
    Purpose::Server {
        name: name.to_owned(),
        dns_names: names.dns_names.clone(),
        ips: names.ips.clone(),
    }
}

fn facts(identity: &Identity) -> Result<Facts, String> {
    certificates::facts(&first_certificate(&identity.certificate)?)
}

fn validity(now: Timestamp, life: Duration) -> Validity {
    Validity {
        from: build_time().min(now),
        until: now.saturating_add(life).unwrap_or(Timestamp::MAX),
    }
}

/// Dates count from the build, so what is left is measured against the life that was given.
fn is_due(facts: &Facts, now: Timestamp, life: Duration) -> bool {
    let left = facts.validity.until.duration_since(now);
    left < jiff::SignedDuration::try_from(life / RENEW_LEFT).unwrap_or(jiff::SignedDuration::MAX)
        || facts.validity.from > now
}

fn judge_leaf(
    identity: &Identity,
    root: &CertificateDer<'_>,
    purpose: &Purpose,
    now: Timestamp,
) -> Verdict {
    let facts = match facts(identity) {
        Ok(facts) => facts,
        Err(why) => return Verdict::Broken(why),
    };
    let signed = first_certificate(&identity.certificate)
        .and_then(|leaf| certificates::is_signed_by(&leaf, root));
    if signed != Ok(true) {
        return Verdict::Due("it is not of this CA".to_owned());
    }
    if is_due(&facts, now, LEAF_LIFE) {
        return Verdict::Due(format!("it ends at {}", facts.validity.until));
    }
    // One name too many does no harm: an interface that is down today is up tomorrow.
    let missing = match purpose {
        Purpose::Server { dns_names, ips, .. } => {
            let name = dns_names.iter().find(|n| !facts.dns_names.contains(n));
            let ip = ips.iter().find(|ip| !facts.ips.contains(ip));
            name.cloned().or(ip.map(IpAddr::to_string))
        }
        Purpose::Client { user, group } => {
            let ours = facts.common_name == *user && facts.organizations.contains(group);
            (!ours).then(|| user.clone())
        }
    };
    missing.map_or(Verdict::Good, |name| {
        Verdict::Due(format!("it is not for {name}"))
    })
}

/// The files below ROOT; none of them larger than some kilobytes.
struct Files {
    disk: Rc<dyn Disk>,
    /// What could not be written.
    unsaved: RefCell<BTreeMap<&'static str, String>>,
}

impl Files {
    fn new(disk: Rc<dyn Disk>) -> Files {
        Files {
            disk,
            unsaved: RefCell::default(),
        }
    }

    async fn authority(&self, now: Timestamp) -> Result<(Authority, Identity), String> {
        let judge = |identity: &Identity| match facts(identity) {
            Err(why) => Verdict::Broken(why),
            Ok(_) => match Authority::load(identity) {
                Err(why) => Verdict::Broken(why),
                Ok(_) => Verdict::Good,
            },
        };
        let new = || {
            let made = Authority::make("lowtide", validity(now, AUTHORITY_LIFE))?;
            Ok(made.1)
        };
        let identity = self.identity(AUTHORITY, judge, new).await?;
        if !is_due(&facts(&identity)?, now, AUTHORITY_LIFE) {
            return Ok((Authority::load(&identity)?, identity));
        }
        let renewed = Authority::renew(&identity, validity(now, AUTHORITY_LIFE))?;
        log::info!("{AUTHORITY} is renewed, with the same key");
        self.write(AUTHORITY, renewed.1.text()).await;
        Ok(renewed)
    }

    async fn account_key(&self) -> Result<SigningKey, String> {
        let parse = |bytes: &[u8]| {
            let der = PrivatePkcs8KeyDer::from_pem_slice(bytes);
            let der = der.map_err(|error| format!("private key: {error}"))?;
            SigningKey::from_pkcs8(der.secret_pkcs8_der())
        };
        match self.read(ACCOUNTS).await {
            Ok(Some(bytes)) => match parse(&bytes) {
                Ok(key) => return Ok(key),
                Err(why) => self.set_aside(ACCOUNTS, bytes, &why).await,
            },
            Ok(None) => {}
            Err(why) => {
                log::error!("{why}; service account tokens of this start end with it");
                return SigningKey::from_pkcs8(&SigningKey::generate()?);
            }
        }
        let der = SigningKey::generate()?;
        let text = certificates::pem("PRIVATE KEY", &der);
        self.write(ACCOUNTS, text).await;
        SigningKey::from_pkcs8(&der)
    }

    /// What the file holds if it is good, else what `make` makes, written there.
    async fn identity(
        &self,
        file: &'static str,
        judge: impl Fn(&Identity) -> Verdict,
        make: impl FnOnce() -> Result<Identity, String>,
    ) -> Result<Identity, String> {
        let bytes = match self.read(file).await {
            Ok(bytes) => bytes,
            Err(why) => {
                log::error!("{why}; one in memory takes its place until the next start");
                return make();
            }
        };
        if let Some(bytes) = bytes {
            let text = String::from_utf8_lossy(&bytes);
            let parsed = Identity::parse(&text);
            let verdict = match &parsed {
                Ok(identity) => judge(identity),
                Err(why) => Verdict::Broken(why.clone()),
            };
            match (verdict, parsed) {
                (Verdict::Good, Ok(identity)) => return Ok(identity),
                (Verdict::Broken(why), _) | (_, Err(why)) => {
                    self.set_aside(file, bytes, &why).await;
                }
                (Verdict::Due(why), _) => log::info!("{file} is made anew: {why}"),
            }
        }
        let identity = make()?;
        self.write(file, identity.text()).await;
        Ok(identity)
    }

    async fn read(&self, file: &'static str) -> Result<Option<Vec<u8>>, String> {
        if let Some(text) = self.unsaved.borrow().get(file) {
            return Ok(Some(text.clone().into_bytes()));
        }
        let read = self.disk.read(Area::Root, file).await;
        read.map_err(|error| error.to_string())
    }

    async fn write(&self, file: &'static str, text: String) {
        let bytes = text.clone().into_bytes();
        match self.disk.write_durable(Area::Root, file, bytes).await {
            Ok(()) => {
                self.unsaved.borrow_mut().remove(file);
            }
            Err(error) => {
                log::error!("{error}; what it would hold is in memory until the next start");
                self.unsaved.borrow_mut().insert(file, text);
            }
        }
    }

    /// The disk may take changes again.
    async fn write_unsaved(&self) {
        let unsaved: Vec<_> = self.unsaved.borrow().clone().into_iter().collect();
        for (file, text) in unsaved {
            let written = self
                .disk
                .write_durable(Area::Root, file, text.into_bytes())
                .await;
            if written.is_ok() {
                log::info!("{file} is written now");
                self.unsaved.borrow_mut().remove(file);
            }
        }
    }

    async fn set_aside(&self, file: &'static str, bytes: Vec<u8>, why: &str) {
        let aside = format!("{file}.broken");
        let kept = self.disk.write_durable(Area::Root, &aside, bytes).await;
        let kept = kept.map_or_else(|error| error.to_string(), |()| format!("kept as {aside}"));
        log::error!("{file} cannot be used: {why}; {kept}; a new one takes its place");
    }
}

/// The texts that make a kubeconfig work.
#[derive(PartialEq, Eq)]
struct KubeconfigParts {
    server: String,
    authority: String,
    certificate: String,
    key: String,
}

impl KubeconfigParts {
    fn new(address: SocketAddr, authority: &str, admin: &Identity) -> KubeconfigParts {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        KubeconfigParts {
            server: format!("https://{}", SocketAddr::new(ip, address.port())),
            authority: STANDARD.encode(authority),
            certificate: STANDARD.encode(&admin.certificate),
            key: STANDARD.encode(&admin.key),
        }
    }

    fn are_in(&self, text: &str) -> bool {
        let has = |word: &str| {
            let mut words = text.split_whitespace();
            words.any(|w| w.trim_matches('"') == word)
        };
        [&self.server, &self.authority, &self.certificate, &self.key]
            .into_iter()
            .all(|part| has(part))
    }

    fn text(&self) -> String {
        let KubeconfigParts {
            server,
            authority,
            certificate,
            key,
        } = self;
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: lowtide\n\
             \x20 cluster:\n\
             \x20   server: {server}\n\
             \x20   certificate-authority-data: {authority}\n\
             users:\n\
             - name: admin\n\
             \x20 user:\n\
             \x20   client-certificate-data: {certificate}\n\
             \x20   client-key-data: {key}\n\
             contexts:\n\
             - name: lowtide\n\
             \x20 context:\n\
             \x20   cluster: lowtide\n\
             \x20   user: admin\n\
             current-context: lowtide\n"
        )
    }
}

#[cfg(test)]
#[path = "pki_tests.rs"]
mod tests;
