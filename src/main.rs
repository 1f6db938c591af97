//! Which role is this process: shim, pause, or everything else.

#[cfg(not(test))]
lowtide::before_main!(lowtide::runtime::shim::early_dispatch);

fn main() {
    // With a C library that hands no arguments to start-up functions, only this one is left.
    lowtide::runtime::shim::early_dispatch(lowtide::os::early::arguments_in_main());
}
