//! The image store from outside: archives, the image directory, registries, crashes.

mod crash;
mod import;
mod pull;
mod registry;
mod world;

#[path = "../support/image.rs"]
mod image;
