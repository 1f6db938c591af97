//! The kinds and their merge keys, as the program itself has them.

#![allow(dead_code, reason = "the build needs less of it than the program")]

#[path = "../src/object/key.rs"]
mod key;
#[path = "../src/object/schema.rs"]
pub mod schema;

pub use key::Kind;
