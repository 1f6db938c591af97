//! Who writes, and how: what admission may know of the one behind a write.

use std::sync::Arc;

use crate::object::user::{GROUP_AUTHENTICATED, GROUP_MASTERS};
use crate::object::{Source, User};

/// The one behind a write.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Owner of what is created; only its own objects may be changed.
    pub source: Source,
    pub user: Arc<User>,
    /// `status`, `ephemeralcontainers`, `binding` …; empty for the object itself.
    pub subresource: &'static str,
    /// Everything is checked, nothing is written.
    pub dry_run: bool,
    /// The field manager whom what changes is ascribed to; `None`: the body says it already, or
    /// nobody keeps count (manifests, the node itself).
    pub manager: Option<String>,
}

impl Actor {
    pub fn new(source: Source, user: Arc<User>) -> Actor {
        Actor {
            source,
            user,
            subresource: "",
            dry_run: false,
            manager: None,
        }
    }
}

impl From<Source> for Actor {
    /// The node's own parts, each under a name of its own: `system:lowtide:file`.
    fn from(source: Source) -> Actor {
        let groups = [GROUP_MASTERS, GROUP_AUTHENTICATED];
        let name = format!("system:lowtide:{}", source.name());
        Actor::new(source, Arc::new(User::new(&name, &groups)))
    }
}
