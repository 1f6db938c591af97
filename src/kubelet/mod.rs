//! (being written)

pub mod container_config;
pub mod dns;
pub mod env;
pub mod expand;
pub mod facts;
pub mod resources;
pub mod sandbox_config;
pub mod security;
pub mod volumes;

#[cfg(test)]
mod tests;
