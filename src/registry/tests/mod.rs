//! Tests of the registry through its front door, on the simulated disk where the disk matters.

mod crashes;
mod fixture;
mod keys;
mod lists;
mod rescue;
mod store;
mod watches;
mod writes;
