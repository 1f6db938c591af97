//! Kubernetes objects as pure data: kinds, keys, envelopes and the rules that need no outside.
//!
//! Objects are kept as verbatim JSON, so that fields of newer clusters survive; typed views
//! (k8s-openapi) are read from the JSON where code needs them. No I/O, no clock.

pub mod apply;
pub mod conditions;
mod decode;
mod default;
mod envelope;
pub mod gather;
mod honoured;
pub mod json;
mod key;
pub mod locate;
mod names;
pub mod order;
pub mod patch;
pub mod placement;
pub mod protobuf;
mod quantity;
pub mod references;
pub mod resources;
pub mod schema;
mod selector;
mod shape;
mod spelling;
pub mod text;
pub mod token;
pub mod user;
mod validate;
mod view;
pub mod yaml;

pub use decode::{decode, fill_texts};
pub use default::apply_defaults;
pub use envelope::{ENDED_THERE, Object, Problem, Provenance, Source, Standing};
pub use honoured::{Effect, Selinux, Unhonoured, unhonoured};
pub use key::{Key, Kind, Origin};
pub use names::{label_from, label_problem, label_value_problem, subdomain_problem};
pub use quantity::{NotAQuantity, Quantity};
pub use selector::{FieldSelector, LabelSelector};
pub use spelling::keep_spelling;
pub use user::User;
pub use validate::{Cause, remarks, validate, validate_update};
pub use view::view;
