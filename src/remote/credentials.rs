//! Who we are towards the cluster, and whom we trust: read from files and programs, kept fresh.
//!
//! ```text
//!   fresh ── a minute, or the end of what a program issued ──► read again ──► changed? ──► new
//!     ▲                                                            │             no ──► as before
//!     └── 401: at once, one time for each request ─────────────────┘
//! ```
//! Others rotate these files while we run. A file that cannot be read, or does not fit its key,
//! leaves what was read before in force. Nothing is read on the node's thread.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use rustls::ClientConfig;

use super::exec::{self, Issued};
use super::kubeconfig::{Content, Exec, Login, Settings};
use crate::net::certificates::{Validity, facts, first_certificate};
use crate::net::tls::{self, Roots, Trust};
use crate::os::regular_file;
use crate::world::{BootTime, Clock, NoAnswer};

/// Source: client-go transport/token_source.go (tokens) and cert_rotation.go (certificates).
const FILES_AGE_MAX: Duration = Duration::from_secs(60);
/// A program is run no more often, whatever the clock or the cluster says of its work; one that has
/// never succeeded less and less often.
const PROGRAM_PAUSE_MIN: Duration = Duration::from_secs(10);
const PROGRAM_PAUSE_MAX: Duration = Duration::from_secs(60);
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What requests are made with.
pub(super) struct Access {
    pub tls: Arc<ClientConfig>,
    pub headers: HeaderMap,
}

pub(super) struct Credentials {
    settings: Arc<Settings>,
    clock: Rc<dyn Clock>,
    known: RefCell<Option<Known>>,
    /// The last look, if none has ever brought anything.
    failed: RefCell<Option<Failed>>,
    /// Why what is known stays as it is; told once.
    complaint: RefCell<String>,
    /// Files are known to have changed.
    doubted: Cell<bool>,
    /// One reader at a time; the others want what it reads.
    turn: smol::lock::Mutex<()>,
}

struct Failed {
    why: NoAnswer,
    at: BootTime,
    /// Before the next look.
    pause: Duration,
}

#[derive(Clone)]
struct Known {
    material: Material,
    access: Rc<Access>,
    read_at: BootTime,
    issued: Option<(Issued, BootTime)>,
}

/// All that decides about an `Access`, in memory.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    shown: Shown,
    /// Of the `Authorization` header.
    authorization: Option<String>,
}

/// What TLS needs.
#[derive(Clone, PartialEq, Eq)]
struct Shown {
    authority: Option<Vec<u8>>,
    certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// How eager a look is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    IfOld,
    /// The cluster has refused what is known.
    Now,
}

impl Credentials {
    pub fn new(clock: Rc<dyn Clock>, settings: Arc<Settings>) -> Credentials {
        Credentials {
            settings,
            clock,
            known: RefCell::default(),
            failed: RefCell::default(),
            complaint: RefCell::default(),
            doubted: Cell::new(false),
            turn: smol::lock::Mutex::new(()),
        }
    }

    /// When the kubeconfig's client certificate counts; `None`: it has none, or was not asked for it yet.
    pub fn validity(&self) -> Option<Validity> {
        self.settings.certificate.as_ref()?;
        let known = self.known.borrow();
        let (chain, _) = known.as_ref()?.material.shown.certificate.as_ref()?;
        let first = first_certificate(&String::from_utf8_lossy(chain)).ok()?;
        Some(facts(&first).ok()?.validity)
    }

    /// Whatever is known is read again before it is used.
    pub fn doubt(&self) {
        self.doubted.set(true);
        self.failed.take();
    }

    /// Whether files could never be read or used. A program that fails is another matter: it may need the
    /// network.
    pub fn are_unreadable(&self) -> bool {
        !self.runs_program() && self.failed.borrow().is_some()
    }

    fn runs_program(&self) -> bool {
        matches!(self.settings.login, Login::Exec(_))
    }

    /// What counts now. Errors: nothing was ever read that can be used.
    pub async fn access(&self) -> Result<Rc<Access>, NoAnswer> {
        if let Some(known) = &*self.known.borrow()
            && self.is_fresh(known)
        {
            return Ok(known.access.clone());
        }
        let _turn = self.turn.lock().await;
        self.look(Look::IfOld).await
    }

    /// After a 401: what may do better than `refused`, if there is anything.
    pub async fn better_than(&self, refused: &Rc<Access>) -> Option<Rc<Access>> {
        if !self.settings.changes() {
            return None;
        }
        let _turn = self.turn.lock().await;
        let known = self
            .known
            .borrow()
            .as_ref()
            .map(|known| known.access.clone());
        let access = match known {
            // Somebody else has looked since.
            Some(access) if !Rc::ptr_eq(&access, refused) => access,
            _ => self.look(Look::Now).await.ok()?,
        };
        (!Rc::ptr_eq(&access, refused)).then_some(access)
    }

    fn is_fresh(&self, known: &Known) -> bool {
        let now = self.clock.now();
        let files = !self.settings.names_files() || now.since(known.read_at) < FILES_AGE_MAX;
        let program = known.issued.as_ref().is_none_or(|(issued, at)| {
            let wall = self.clock.credible();
            let counts = issued.expires.is_none_or(|expires| wall < expires);
            counts || now.since(*at) < PROGRAM_PAUSE_MIN
        });
        files && program && !self.doubted.get()
    }

    /// Called in turn.
    async fn look(&self, look: Look) -> Result<Rc<Access>, NoAnswer> {
        let before = self.known.borrow().clone();
        if let Some(known) = &before
            && look == Look::IfOld
            && self.is_fresh(known)
        {
            return Ok(known.access.clone());
        }
        if let Some(failed) = &*self.failed.borrow()
            && self.clock.now().since(failed.at) < failed.pause
        {
            return match before {
                Some(known) => Ok(known.access),
                None => Err(failed.why.clone()),
            };
        }
        self.doubted.set(false);
        match self.read(before.as_ref(), look).await {
            Ok(known) => {
                self.failed.take();
                self.complaint.take();
                let access = known.access.clone();
                *self.known.borrow_mut() = Some(known);
                Ok(access)
            }
            Err(why) => {
                let known = &mut *self.known.borrow_mut();
                if known.is_none() || self.runs_program() {
                    self.note_failure(why.clone());
                }
                let Some(known) = known else {
                    return Err(why);
                };
                let text = why.to_string();
                if self.complaint.replace(text.clone()) != text {
                    log::warn!("credentials for the cluster stay as they are: {text}");
                }
                known.read_at = self.clock.now();
                if let Some((_, at)) = &mut known.issued {
                    *at = known.read_at;
                }
                Ok(known.access.clone())
            }
        }
    }

    fn note_failure(&self, why: NoAnswer) {
        let before = self.failed.take();
        let pause = match before {
            _ if !self.runs_program() => Duration::ZERO,
            None => PROGRAM_PAUSE_MIN,
            Some(before) => (before.pause * 2).min(PROGRAM_PAUSE_MAX),
        };
        let at = self.clock.now();
        self.failed.replace(Some(Failed { why, at, pause }));
    }

    async fn read(&self, before: Option<&Known>, look: Look) -> Result<Known, NoAnswer> {
        let issued = match &self.settings.login {
            Login::Exec(exec) => Some(self.issued(exec, before, look).await?),
            _ => None,
        };
        let settings = self.settings.clone();
        let from_program = issued.as_ref().map(|(issued, _)| issued.clone());
        let read = blocking::unblock(move || Material::read(&settings, from_program));
        let material = read.await.map_err(NoAnswer::Unusable)?;
        let same = before.filter(|known| known.material == material);
        let access = match same {
            Some(known) => known.access.clone(),
            None => Rc::new(self.access_of(&material, before).await?),
        };
        Ok(Known {
            material,
            access,
            read_at: self.clock.now(),
            issued,
        })
    }

    async fn issued(
        &self,
        exec: &Exec,
        before: Option<&Known>,
        look: Look,
    ) -> Result<(Issued, BootTime), NoAnswer> {
        let now = self.clock.now();
        let known = before.and_then(|known| known.issued.clone());
        if let Some((issued, at)) = known {
            let wall = self.clock.credible();
            let counts = issued.expires.is_none_or(|expires| wall < expires);
            let again = look == Look::Now || !counts;
            if !again || now.since(at) < PROGRAM_PAUSE_MIN {
                return Ok((issued, at));
            }
        }
        let (mut exec, settings) = (exec.clone(), self.settings.clone());
        let run = blocking::unblock(move || {
            if let (Some(cluster), Some(Content::File(path))) =
                (&mut exec.cluster, &settings.authority)
            {
                let bytes = read_file(path).map_err(NoAnswer::Unusable)?;
                cluster["certificate-authority-data"] = STANDARD.encode(bytes).into();
            }
            exec::run(&exec)
        });
        Ok((run.await?, now))
    }

    async fn access_of(
        &self,
        material: &Material,
        before: Option<&Known>,
    ) -> Result<Access, NoAnswer> {
        let same = before.filter(|known| known.material.shown == material.shown);
        let tls = match same {
            Some(known) => known.access.tls.clone(),
            None => {
                let shown = material.shown.clone();
                let trust = Trust {
                    verification: self.settings.verification,
                    roots: match shown.authority {
                        Some(_) => Roots::Extra,
                        None => Roots::System,
                    },
                    extra_ca: shown.authority.unwrap_or_default(),
                    identity: shown.certificate,
                };
                let made = blocking::unblock(move || tls::client_config(&trust)).await;
                made.map_err(NoAnswer::Unusable)?
            }
        };
        let headers = headers(
            material.authorization.as_deref(),
            &self.settings.impersonate,
        );
        Ok(Access {
            tls,
            headers: headers.map_err(NoAnswer::Unusable)?,
        })
    }
}

impl Settings {
    /// Whether looking again can bring anything new.
    fn changes(&self) -> bool {
        self.names_files() || matches!(self.login, Login::Exec(_))
    }

    fn names_files(&self) -> bool {
        let file = |content: &Content| matches!(content, Content::File(_));
        let certificate = self.certificate.as_ref();
        self.authority.as_ref().is_some_and(file)
            || certificate.is_some_and(|(chain, key)| file(chain) || file(key))
            || matches!(self.login, Login::TokenFile { .. })
    }
}

impl Material {
    /// Blocks; for a thread that may wait.
    fn read(settings: &Settings, issued: Option<Issued>) -> Result<Material, String> {
        let issued = issued.unwrap_or_default();
        let authority = settings.authority.as_ref().map(read_content).transpose()?;
        let certificate = match &settings.certificate {
            Some((chain, key)) => Some((read_content(chain)?, read_content(key)?)),
            None => issued.certificate,
        };
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        let authorization = match &settings.login {
            Login::Nothing => None,
            Login::Token(token) => bearer(token),
            Login::TokenFile { path, otherwise } => match (read_token(path), otherwise) {
                (Ok(token), _) => bearer(&token),
                (Err(_), Some(token)) => bearer(token),
                (Err(why), None) => return Err(why),
            },
            Login::Basic { username, password } => {
                let packed = STANDARD.encode(format!("{username}:{password}"));
                Some(format!("Basic {packed}"))
            }
            Login::Exec(_) => issued.token.as_deref().and_then(bearer),
        };
        Ok(Material {
            shown: Shown {
                authority,
                certificate,
            },
            authorization,
        })
    }
}

fn read_content(content: &Content) -> Result<Vec<u8>, String> {
    match content {
        Content::Here(bytes) => Ok(bytes.clone()),
        Content::File(path) => read_file(path),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |why: &dyn std::fmt::Display| format!("read {}: {why}", path.display());
    let (file, _) = regular_file::open(path).map_err(|error| failed(&error))?;
    let bytes =
        regular_file::read_at_most(&file, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
    bytes.ok_or_else(|| failed(&format!("longer than {FILE_BYTES_MAX} bytes")))
}

fn read_token(path: &Path) -> Result<String, String> {
    let text = String::from_utf8(read_file(path)?).unwrap_or_default();
    match text.trim() {
        "" => Err(format!("read {}: holds no token", path.display())),
        token => Ok(token.to_owned()),
    }
}

fn headers(authorization: Option<&str>, more: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    if let Some(text) = authorization {
        let value = HeaderValue::from_str(text);
        let mut value = value.map_err(|_| "the token holds what no header may".to_owned())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    for (name, value) in more {
        let bad = || format!("{name}: the value holds what no header may");
        let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        headers.append(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(headers)
}
