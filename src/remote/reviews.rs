//! Questions to the cluster about whoever asks at this node's own port.

use std::rc::Rc;

use super::link::Link;
use crate::world::{Call, LocalFuture, NoAnswer, Reply, Reviews};

pub struct ClusterReviews(pub Rc<Link>);

impl Reviews for ClusterReviews {
    fn review(&self, call: Call) -> LocalFuture<'_, Result<Reply, NoAnswer>> {
        Box::pin(async move {
            match self.0.is_out() {
                false => self.0.call(call).await,
                true => Err(NoAnswer::Unreachable(
                    "the cluster does not answer".to_owned(),
                )),
            }
        })
    }
}
