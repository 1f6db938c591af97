//! The image store from outside: archives, the image directory, registries, crashes; and the
//! HTTP client's other user, the checks of probes.

mod check;
mod crash;
mod hardship;
mod import;
mod pull;
mod registry;
mod through;
mod world;

#[path = "../support/image.rs"]
mod image;
#[path = "../support/proxy.rs"]
mod proxy;
