//! Why a pod may not start although it is wanted: fields that are not honoured yet, sysctls that
//! are not allowed, a predecessor of its name that is still ending.

use super::core::{Core, EventKind};
use super::facts::NodeFacts;
use super::plan::Waiting;
use super::sandbox_config;
use super::view::PodView;
use crate::object::Effect;
use crate::world::Uid;

/// Reason of a static pod that waits for the pod it replaces.
pub const PREDECESSOR: &str = "WaitingForPredecessor";

/// The reason to wait, or `None`: go.
pub fn reason<'a>(
    view: &PodView,
    others: impl Iterator<Item = &'a PodView>,
    node: &NodeFacts,
    ending: &[Uid],
) -> Option<Waiting> {
    let fatal = view
        .unhonoured
        .iter()
        .find(|field| field.effect == Effect::Wait);
    if let Some(field) = fatal {
        let text = format!("{} is not honoured by this version of lowtide", field.path);
        return Some(Waiting::new("FieldNotHonoured", text));
    }
    if let Err(forbidden) = sandbox_config::check_sysctls(&view.pod, node) {
        return Some(Waiting::new("SysctlForbidden", forbidden.message));
    }
    if !view.is_static {
        return None;
    }
    let same_name = |other: &&PodView| {
        other.uid != view.uid && other.key == view.key && ending.contains(&other.uid)
    };
    let predecessor = others.into_iter().find(same_name)?;
    let text = format!("pod {} of the same name is still ending", predecessor.uid);
    Some(Waiting::new(PREDECESSOR, text))
}

/// One Warning event for the fields that are passed over without harm.
pub fn warn(core: &Core, view: &PodView) {
    let passed_over = view
        .unhonoured
        .iter()
        .filter(|field| field.effect == Effect::Warn);
    let paths: Vec<&str> = passed_over.map(|field| field.path.as_str()).collect();
    if !paths.is_empty() {
        let text = format!(
            "without effect in this version of lowtide: {}",
            paths.join(", ")
        );
        core.event(view, None, EventKind::Warning, "FieldNotHonoured", text);
    }
}
