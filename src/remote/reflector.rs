//! Some objects of the cluster, as it was last seen to hold them: a list, then a watch, for ever.
//!
//! ```text
//!            ┌───────── 410, a cluster put back in time ◄──────┐
//!            ▼                                                  │
//!   list (in pages) ──► all replaced ──► watch ──► one by one ──┴──► watch again, at the same version
//! ```
//! Source: Kubernetes client-go tools/cache/reflector.go.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use event_listener::{Event, EventListener};
use futures_lite::future::or;
use serde_json::Value;

use super::link::{Backoff, Link};
use super::paths::Selection;
use crate::world::{Call, NoAnswer, NoWatch, Reply};

/// Namespace and name.
pub type Name = (String, String);

/// One object, without what nobody here asks for.
#[derive(Debug)]
pub struct Held {
    /// As text: a value is about ten times as large.
    body: Box<str>,
    uid: Box<str>,
    version: Box<str>,
    /// What its readers tell it from others by.
    print: OnceCell<u64>,
}

impl Held {
    fn new(mut body: Value) -> Held {
        let text = |body: &Value, field: &str| {
            let text = body["metadata"][field].as_str().unwrap_or_default();
            text.into()
        };
        let (uid, version) = (text(&body, "uid"), text(&body, "resourceVersion"));
        // A third of an object, and of use to nobody but its writers.
        if let Some(metadata) = body["metadata"].as_object_mut() {
            metadata.remove("managedFields");
        }
        Held {
            body: body.to_string().into_boxed_str(),
            uid,
            version,
            print: OnceCell::new(),
        }
    }

    /// What `of` makes of the body, once.
    pub fn print(&self, of: impl FnOnce(Value) -> u64) -> u64 {
        *self.print.get_or_init(|| of(self.body()))
    }

    pub fn body(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Of one object's versions, and only where they are numbers. Source: Kubernetes API concepts,
    /// resource versions (comparable since 1.35, numbers of etcd before).
    fn is_newer_than(&self, other: &Held) -> bool {
        let number = |held: &Held| held.version.parse::<u64>().ok();
        let pair = number(self).zip(number(other));
        self.uid == other.uid && pair.is_some_and(|(one, other)| one > other)
    }

    /// The cluster's resourceVersion: equal or not, and nothing else.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// What one try has come to.
enum Trouble {
    NoAnswer(NoAnswer),
    Refused(Reply),
    /// List again.
    Gone,
}

pub struct Reflector {
    link: Rc<Link>,
    selection: Selection,
    objects: RefCell<BTreeMap<Name, Rc<Held>>>,
    version: RefCell<String>,
    listed: Cell<bool>,
    /// Of the link, when that list was asked for.
    rewinds: Cell<u32>,
    changed: Rc<Event>,
    /// The cluster said no; told once.
    refused: RefCell<Option<String>>,
}

impl Reflector {
    pub fn new(link: Rc<Link>, selection: Selection) -> Rc<Reflector> {
        Reflector::ringing(link, selection, Rc::default())
    }

    /// Another, over the same link: who listens to this one hears of both.
    pub fn beside(&self, selection: Selection) -> Rc<Reflector> {
        Reflector::ringing(self.link.clone(), selection, self.changed.clone())
    }

    fn ringing(link: Rc<Link>, selection: Selection, changed: Rc<Event>) -> Rc<Reflector> {
        Rc::new(Reflector {
            link,
            selection,
            objects: RefCell::default(),
            version: RefCell::default(),
            listed: Cell::new(false),
            rewinds: Cell::new(0),
            changed,
            refused: RefCell::default(),
        })
    }

    /// Whether there was a complete list since this agent was started.
    pub fn has_listed(&self) -> bool {
        self.listed.get()
    }

    pub fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Rc<Held>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.objects.borrow().get(&name).cloned()
    }

    pub fn all(&self) -> Vec<(Name, Rc<Held>)> {
        let objects = self.objects.borrow();
        let pairs = objects.iter();
        pairs
            .map(|(name, held)| (name.clone(), held.clone()))
            .collect()
    }

    /// Takes an answer of the cluster to a write of our own: the watch only repeats it. One that the
    /// watch has overtaken is no news, least of all of an object that is gone by now.
    pub fn learn(&self, body: Value) {
        let number = |version: &str| version.parse::<u64>().unwrap_or(0);
        let answered = body["metadata"]["resourceVersion"].as_str();
        let overtaken = number(answered.unwrap_or_default()) <= number(&self.version.borrow());
        if !overtaken {
            self.put(body);
        }
    }

    /// Follows the cluster; never ends.
    pub async fn run(&self) {
        let mut backoff = Backoff::default();
        let mut follow_on = false;
        loop {
            let trouble = match follow_on {
                true => self.watch(&mut backoff).await,
                // That a list is answered says nothing of the watch after it.
                false => self.list().await.map(|()| true),
            };
            match trouble {
                Ok(ordered) => {
                    follow_on = ordered;
                    continue;
                }
                Err(Trouble::Gone) => {
                    follow_on = false;
                    self.link.pause(&mut backoff, None).await;
                }
                Err(Trouble::NoAnswer(why)) => {
                    log::debug!("{}: {why}", self.selection.kind.plural());
                    self.link.pause(&mut backoff, None).await;
                }
                Err(Trouble::Refused(reply)) => {
                    // Too many requests say nothing of the version; anything else may.
                    follow_on &= matches!(reply.status, 429 | 503);
                    self.tell(&reply);
                    self.link.pause(&mut backoff, reply.retry_after).await;
                }
            }
        }
    }

    fn tell(&self, reply: &Reply) {
        let what = self.selection.list("");
        let text = format!(
            "the cluster refuses {what}: {} {}",
            reply.status,
            reply.message()
        );
        if self.refused.borrow().as_ref() != Some(&text) {
            log::warn!("{text}");
            self.refused.replace(Some(text));
        }
    }

    async fn list(&self) -> Result<(), Trouble> {
        let rewinds = self.link.rewinds();
        let mut found = BTreeMap::new();
        let mut continue_at = String::new();
        let version = loop {
            let call = Call::get(self.selection.list(&continue_at));
            let mut reply = self.link.call(call).await.map_err(Trouble::NoAnswer)?;
            match reply.status {
                200 if is_list(&reply.body) => {}
                // Absence is deletion: what may be anything is never taken for an empty list.
                200 => {
                    let text = format!("{}: no list of an API server", self.selection.list(""));
                    return Err(Trouble::NoAnswer(NoAnswer::Unusable(text)));
                }
                410 => return Err(Trouble::Gone),
                _ => return Err(Trouble::Refused(reply)),
            }
            let items = reply.body["items"].take();
            for body in items.as_array().into_iter().flatten() {
                found.insert(name_of(body), Rc::new(Held::new(body.clone())));
            }
            let metadata = &reply.body["metadata"];
            continue_at = metadata["continue"].as_str().unwrap_or_default().to_owned();
            if continue_at.is_empty() {
                break metadata["resourceVersion"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
            }
        };
        self.refused.replace(None);
        self.objects.replace(found);
        self.version.replace(version);
        self.listed.set(true);
        self.rewinds.set(rewinds);
        self.ring();
        Ok(())
    }

    /// Follows a watch to its end. `Ok(true)`: the next one goes on where this one ended.
    async fn watch(&self, backoff: &mut Backoff) -> Result<bool, Trouble> {
        if self.rewinds.get() != self.link.rewinds() {
            return Err(Trouble::Gone);
        }
        let version = self.version.borrow().clone();
        let opening = async { Some(self.link.watch(self.selection.watch(&version)).await) };
        // What was begun before a cut may be answered late.
        let cut = async {
            self.link.back().await;
            None
        };
        let Some(opened) = or(opening, cut).await else {
            return Ok(true);
        };
        let mut watch = opened.map_err(|why| match why {
            NoWatch::NoAnswer(why) => Trouble::NoAnswer(why),
            NoWatch::Refused(reply) if reply.status == 410 => Trouble::Gone,
            NoWatch::Refused(reply) => Trouble::Refused(reply),
        })?;
        let mut told_anything = false;
        loop {
            // Also while it opened: its version may lie in the future of the cluster as it is now.
            if self.rewinds.get() != self.link.rewinds() {
                return Err(Trouble::Gone);
            }
            // A watch from before a cut may be half open: nothing would ever come of it.
            let cut = async {
                self.link.back().await;
                Ok(None)
            };
            let next = or(watch.next(), cut).await;
            match next {
                Ok(Some(mut event)) => {
                    let object = event["object"].take();
                    let kind = event["type"].as_str().unwrap_or_default();
                    self.absorb(kind, object)?;
                    told_anything = true;
                    backoff.reset();
                }
                Ok(None) if told_anything => return Ok(true),
                // One that ends at once, again and again, is not asked for in a tight loop.
                Ok(None) => {
                    self.link.pause(backoff, None).await;
                    return Ok(true);
                }
                Err(why) => {
                    self.link.doubt();
                    return Err(match why {
                        // From the same version on it would say the same.
                        NoAnswer::Unusable(_) => Trouble::Gone,
                        NoAnswer::Unreachable(_) => Trouble::NoAnswer(why),
                    });
                }
            }
        }
    }

    fn absorb(&self, kind: &str, object: Value) -> Result<(), Trouble> {
        let version = object["metadata"]["resourceVersion"].as_str();
        let version = version.map(str::to_owned);
        match kind {
            "ERROR" => {
                return Err(match object["code"].as_u64() {
                    Some(410) => Trouble::Gone,
                    code => Trouble::Refused(Reply {
                        status: code.and_then(|code| code.try_into().ok()).unwrap_or(500),
                        body: object,
                        retry_after: None,
                    }),
                });
            }
            "BOOKMARK" => {}
            "DELETED" => {
                let (name, uid) = (name_of(&object), object["metadata"]["uid"].as_str());
                let mut objects = self.objects.borrow_mut();
                // Another may have the name already, by an answer that overtook this.
                if objects
                    .get(&name)
                    .is_some_and(|held| Some(held.uid()) == uid)
                {
                    objects.remove(&name);
                }
                drop(objects);
                self.ring();
            }
            _ => self.put(object),
        }
        if let Some(version) = version {
            self.version.replace(version);
        }
        Ok(())
    }

    fn put(&self, body: Value) {
        let name = name_of(&body);
        let held = Held::new(body);
        let known = self.objects.borrow().get(&name).cloned();
        // An answer to a write of our own overtook the watch, or said the same.
        let is_news = |known: Rc<Held>| !known.is_newer_than(&held) && known.body != held.body;
        if known.is_none_or(is_news) {
            self.objects.borrow_mut().insert(name, Rc::new(held));
            self.ring();
        }
    }

    fn ring(&self) {
        self.changed.notify(usize::MAX);
    }
}

/// Go writes an empty list as null.
fn is_list(body: &Value) -> bool {
    let kind = body["kind"].as_str().unwrap_or_default();
    let items = &body["items"];
    kind.ends_with("List") && body["metadata"].is_object() && (items.is_array() || items.is_null())
}

fn name_of(body: &Value) -> Name {
    let text = |field: &str| {
        body["metadata"][field]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    (text("namespace"), text("name"))
}
