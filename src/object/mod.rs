//! Kubernetes objects as pure data: kinds, keys, envelopes and the rules that need no outside.
//!
//! Objects are kept as verbatim JSON, so that fields of newer clusters survive; typed views
//! (k8s-openapi) are read from the JSON where code needs them. No I/O, no clock.

mod envelope;
mod key;
mod quantity;

pub use envelope::{Object, Problem, Provenance, Source, Standing};
pub use key::{Key, Kind, Origin};
pub use quantity::Quantity;
