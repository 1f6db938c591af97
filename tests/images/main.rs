//! The image store from outside: archives, the image directory, registries, crashes.

mod import;
mod world;

#[path = "../support/image.rs"]
mod image;
