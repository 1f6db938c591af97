//! AlwaysDeny: no write at all.

use serde_json::Value;

use crate::registry::{Admit, Attributes, Denial};

/// What it says, also to streams into containers, which upstream admits as `CONNECT`.
pub const MESSAGE: &str = "admission control is denying all modifications";

pub struct AlwaysDeny;

impl Admit for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn mutate(&self, _attributes: &Attributes<'_>, _object: &mut Value) -> Result<(), Denial> {
        Err(Denial::forbidden(MESSAGE))
    }

    fn validate(&self, _attributes: &Attributes<'_>, _object: &Value) -> Result<(), Denial> {
        Err(Denial::forbidden(MESSAGE))
    }
}
