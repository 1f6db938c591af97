//! A registry on a simulated disk, with a clock that is set by hand and seeded randomness.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object::{Key, Kind, Provenance};
use crate::registry::{FaultyDisk, Incoming, Limits, OpenReport, Options, Place, Reader, Registry};
use crate::world::{BootTime, Clock, LocalFuture, Random};

pub struct SetClock {
    pub boot: Cell<Duration>,
    pub wall: Cell<Timestamp>,
}

impl Clock for SetClock {
    fn now(&self) -> BootTime {
        BootTime::from_duration(self.boot.get())
    }

    fn wall(&self) -> Timestamp {
        self.wall.get()
    }

    fn sleep_until(&self, _deadline: BootTime) -> LocalFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// xorshift64*: good enough to tell seeds apart.
pub struct Seeded(RefCell<u64>);

impl Seeded {
    pub fn new(seed: u64) -> Seeded {
        Seeded(RefCell::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    pub fn next(&self) -> u64 {
        let mut state = self.0.borrow_mut();
        *state ^= *state >> 12;
        *state ^= *state << 25;
        *state ^= *state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

impl Random for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

pub struct Node {
    pub registry: Registry,
    pub reader: Reader,
    pub report: OpenReport,
    pub clock: Rc<SetClock>,
}

pub fn clock() -> Rc<SetClock> {
    Rc::new(SetClock {
        boot: Cell::new(Duration::from_secs(100)),
        wall: Cell::new(Timestamp::from_second(1_750_000_000).expect("in range")),
    })
}

pub fn options(place: Place, seed: u64) -> (Options, Rc<SetClock>) {
    let clock = clock();
    let options = Options {
        place,
        node_name: "pi-4".to_owned(),
        clock: clock.clone(),
        random: Rc::new(Seeded::new(seed)),
        limits: Limits::default(),
        encryption: Default::default(),
        admission: Vec::new(),
    };
    (options, clock)
}

pub fn start(place: Place, seed: u64) -> Node {
    let (options, clock) = options(place, seed);
    start_with(options, clock)
}

pub fn start_with(options: Options, clock: Rc<SetClock>) -> Node {
    let (registry, report) = wait(Registry::open(options)).expect("opens");
    Node {
        reader: registry.reader(),
        registry,
        report,
        clock,
    }
}

pub fn on(disk: &FaultyDisk, seed: u64) -> Node {
    start(Place::Inline(Arc::new(disk.clone())), seed)
}

pub fn in_memory() -> Node {
    start(Place::Memory, 1)
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    futures_lite::future::block_on(future)
}

pub fn pod_key(name: &str) -> Key {
    Key::local(Kind::Pod, "default", name)
}

pub fn pod(name: &str, uid: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid},
        "spec": {"containers": [{"name": "web", "image": image}]},
    })
}

pub fn at(file: &str, line: u32) -> Option<Provenance> {
    Some(Provenance {
        file: file.to_owned(),
        line,
    })
}

/// A pod in `<name>.yaml`, line 1.
pub fn stated(name: &str, uid: &str, image: &str) -> Incoming {
    Incoming::Object {
        key: pod_key(name),
        provenance: at(&format!("/m/{name}.yaml"), 1),
        body: pod(name, uid, image),
        lines: Default::default(),
    }
}

pub fn config(name: &str, value: &str) -> (Key, Value) {
    let key = Key::local(Kind::ConfigMap, "default", name);
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default"},
        "data": {"value": value},
    });
    (key, body)
}

pub fn secret(name: &str, value: &str) -> (Key, Value) {
    let key = Key::local(Kind::Secret, "default", name);
    let body = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "stringData": {"value": value},
    });
    (key, body)
}
