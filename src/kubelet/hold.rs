//! Why a pod may not start although it is wanted: fields that are not honoured yet, sysctls that
//! are not allowed, a predecessor of its name that is still ending.

use std::collections::BTreeMap;

use super::core::{Core, EventKind};
use super::facts::NodeFacts;
use super::plan::Waiting;
use super::sandbox_config;
use super::view::PodView;
use crate::object::{Effect, Unhonoured, order};
use crate::world::Uid;

/// Reason of a static pod that waits for the pod it replaces.
pub const PREDECESSOR: &str = "WaitingForPredecessor";

pub const NOT_HONOURED: &str = "FieldNotHonoured";

pub fn not_honoured(field: &Unhonoured) -> String {
    let path = &field.path;
    format!("{path} is not honoured by this version of lowtide")
}

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
        .find(|field| field.waits(node.selinux) && field.ephemeral().is_none());
    if let Some(field) = fatal {
        return Some(Waiting::new(NOT_HONOURED, not_honoured(field)));
    }
    let forbidden = forbidden_sysctl(view, node);
    if let Some(no) = forbidden {
        return Some(Waiting::new(no.reason, no.message));
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

/// The pod's first sysctl that may not be set here.
pub fn forbidden_sysctl(view: &PodView, node: &NodeFacts) -> Option<sandbox_config::Rejection> {
    let check = || sandbox_config::check_sysctls(&view.typed().pod, node).err();
    view.has_sysctls.then(check).flatten()
}

/// Who of `applicants` (and whether they were let in before) finds no room.
///
/// They wait, and are let in when another pod has ended. Upstream fails them for good with the same
/// reason, since a scheduler makes another pod elsewhere; for a manifest there is no elsewhere.
/// Source: Kubernetes pkg/kubelet/lifecycle/predicate.go (`OutOfpods`).
pub fn over_capacity(mut applicants: Vec<(Uid, bool)>, pods_max: u32) -> BTreeMap<Uid, Waiting> {
    order::sort_by(&mut applicants, |(a, a_in), (b, b_in)| {
        b_in.cmp(a_in).then_with(|| a.cmp(b))
    });
    let text = format!(
        "Node didn't have enough resource: pods, requested: 1, used: {pods_max}, capacity: {pods_max}"
    );
    let over = applicants.into_iter().skip(pods_max as usize);
    over.filter(|(_, was_in)| !was_in)
        .map(|(uid, _)| (uid, Waiting::new("OutOfpods", &*text)))
        .collect()
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
        core.event(view, None, EventKind::Warning, NOT_HONOURED, text);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use serde_json::{Value, json};

    use super::*;
    use crate::object::{Key, Kind, Object, Selinux, Source, Standing};

    fn pod(uid: &str, source: Source, spec: Value) -> Rc<PodView> {
        let object = Object {
            key: Key::local(Kind::Pod, "default", "web"),
            source,
            provenance: None,
            standing: Standing::Accepted,
            resource_version: 1,
            body: json!({"metadata": {"name": "web", "namespace": "default", "uid": uid}, "spec": spec}),
        };
        PodView::new(&object).unwrap()
    }

    fn held(view: &PodView, other: &PodView, ending: &[&PodView]) -> Option<String> {
        let ending: Vec<Uid> = ending.iter().map(|v| v.uid.clone()).collect();
        let node = NodeFacts::default();
        reason(view, [view, other].into_iter(), &node, &ending).map(|w| w.reason)
    }

    #[test]
    fn a_static_successor_waits_for_its_predecessor_and_pods_of_the_api_overlap() {
        let empty = || json!({"containers": []});
        let [old, new] = ["u1", "u2"].map(|uid| pod(uid, Source::File, empty()));
        assert_eq!(held(&new, &old, &[&old]).as_deref(), Some(PREDECESSOR));
        assert_eq!(held(&new, &old, &[]), None);
        let [old, new] = ["u1", "u2"].map(|uid| pod(uid, Source::Api, empty()));
        assert_eq!(held(&new, &old, &[&old]), None);
    }

    #[test]
    fn who_was_let_in_stays_and_the_rest_waits_for_room() {
        let uid = |name: &str| Uid::new(name).unwrap();
        let over = |applicants: &[(&str, bool)], most| -> Vec<String> {
            let applicants = applicants.iter().map(|(name, was_in)| (uid(name), *was_in));
            let over = over_capacity(applicants.collect(), most);
            over.keys().map(ToString::to_string).collect()
        };
        let four = [("a", false), ("b", true), ("c", false), ("d", true)];
        assert_eq!(over(&four, 4), [""; 0]);
        assert_eq!(over(&four, 3), ["c"]);
        assert_eq!(over(&four, 2), ["a", "c"]);
        // The limit was lowered: what runs goes on.
        assert_eq!(over(&four, 1), ["a", "c"]);
        let text = &over_capacity(vec![(uid("a"), false)], 0)[&uid("a")];
        assert_eq!(text.reason, "OutOfpods");
        assert!(text.message.ends_with("used: 0, capacity: 0"));
    }

    #[test]
    fn a_pod_with_a_field_that_is_not_honoured_waits_and_names_it() {
        let asks = pod(
            "u1",
            Source::File,
            json!({"containers": [], "runtimeClassName": "gvisor"}),
        );
        let node = NodeFacts::default();
        let waiting = reason(&asks, [].into_iter(), &node, &[]).unwrap();
        assert_eq!(waiting.reason, "FieldNotHonoured");
        assert!(waiting.message.contains("spec.runtimeClassName"));

        let context = json!({"seLinuxOptions": {"level": "s0:c0,c1"}});
        let labelled = json!({"containers": [], "securityContext": context});
        let labelled = pod("u2", Source::Api, labelled);
        for (selinux, waits) in [(Selinux::On, true), (Selinux::Off, false)] {
            let node = NodeFacts {
                selinux,
                ..NodeFacts::default()
            };
            let waiting = reason(&labelled, [].into_iter(), &node, &[]);
            assert_eq!(waiting.is_some(), waits, "{selinux:?}");
        }
    }
}
