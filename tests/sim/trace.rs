//! What happened, line by line, kept only when somebody reads it.
//!
//! A run is traced when its seed is reproduced; thousands of seeds that pass format nothing. Log
//! lines of the node land between the world's own, so that a trace tells the whole story.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Once;

use crate::timeline::Timeline;

/// Lines kept; a livelock would fill memory otherwise.
const LINES_MAX: usize = 200_000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tracing {
    On,
    Off,
}

pub struct Trace {
    tracing: Tracing,
    timeline: Rc<Timeline>,
    lines: RefCell<Vec<String>>,
}

impl Trace {
    pub fn new(tracing: Tracing, timeline: Rc<Timeline>) -> Rc<Trace> {
        let trace = Rc::new(Trace {
            tracing,
            timeline,
            lines: RefCell::default(),
        });
        if tracing == Tracing::On {
            capture_log(&trace);
        }
        trace
    }

    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.tracing == Tracing::Off {
            return;
        }
        let mut lines = self.lines.borrow_mut();
        if lines.len() < LINES_MAX {
            let seconds = self.timeline.now() as f64 / 1e9;
            lines.push(format!("{seconds:12.6}  {}", line()));
        }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static CURRENT: RefCell<Option<Rc<Trace>>> = const { RefCell::new(None) };
}

/// Sends the log lines of this thread to `trace` until the next run.
fn capture_log(trace: &Rc<Trace>) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LogToTrace).expect("the only logger of this test program");
        log::set_max_level(log::LevelFilter::Debug);
    });
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(trace)));
}

struct LogToTrace;

impl log::Log for LogToTrace {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("lowtide")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // Fails only while the thread ends.
        let _ = CURRENT.try_with(|current| {
            if let Some(trace) = &*current.borrow() {
                trace.note(|| {
                    let level = record.level().as_str().to_lowercase();
                    format!("    log {level}: {}", record.args())
                });
            }
        });
    }

    fn flush(&self) {}
}

/// What panicked on this thread since the last call: an executor keeps a task's panic to itself.
pub fn last_panic() -> Option<String> {
    PANIC.with(|panic| panic.borrow_mut().take())
}

/// Remembers panics of simulated nodes for `last_panic`; all others are printed as ever.
pub fn watch_panics(simulating: fn() -> bool) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !simulating() {
                return usual(info);
            }
            let text = info.to_string();
            PANIC.with(|panic| {
                panic.borrow_mut().get_or_insert(text);
            });
        }));
    });
}
