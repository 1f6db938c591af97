//! (being written)
pub mod netns;
