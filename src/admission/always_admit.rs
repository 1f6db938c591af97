//! AlwaysAdmit: nothing. Upstream keeps it for old command lines, and so do we.

use crate::registry::Admit;

pub struct AlwaysAdmit;

impl Admit for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }
}
