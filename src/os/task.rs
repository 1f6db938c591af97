//! Tasks on an executor, all of one type for each result.
//!
//! The executor makes its whole machinery anew for each type of future that it is given, some 8 kB
//! of program each time. A box costs one allocation.

use std::future::Future;
use std::pin::Pin;

use async_executor::{LocalExecutor, Task};

/// Starts `work`; dropping the task ends it.
pub fn spawn<T: 'static>(
    executor: &LocalExecutor<'static>,
    work: impl Future<Output = T> + 'static,
) -> Task<T> {
    let boxed: Pin<Box<dyn Future<Output = T>>> = Box::pin(work);
    executor.spawn(boxed)
}
