//! What a cluster is asked about others: who a token is, what somebody may do.

use super::{Call, LocalFuture, NoAnswer, Reply};

pub trait Reviews {
    /// Asks at most once, and not at all while the cluster is known to be silent.
    fn review(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>>;
}
