//! The admission plug-ins, and which of them a node uses in what order.
//!
//! ```text
//!  --admission-control=B,A                         B, A           as written (the article's way)
//!  --enable-/--disable-admission-plugins           in ORDER       the default set, more or fewer
//! ```
//! Each plug-in is a rule about one write, with a look at what the registry holds; none does I/O or
//! keeps time. The registry runs them (`registry::admission`). Order, defaults and texts are those
//! of Kubernetes `pkg/kubeapiserver/options/plugins.go` and `plugin/pkg/admission`.

mod always_admit;
mod always_deny;
mod always_pull_images;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_auto_provision;
mod namespace_exists;
mod namespace_lifecycle;
mod node_restriction;
mod pod;
mod pod_security;
mod priority;
pub mod resource_quota;
mod security_context_deny;
mod service_account;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::rc::Rc;

pub use node_restriction::own_label_problem;

use crate::registry::Admit;
use crate::world::Random;

/// All names, in upstream's fixed order.
pub const ORDER: [&str; 14] = [
    "AlwaysAdmit",
    "NamespaceAutoProvision",
    "NamespaceLifecycle",
    "NamespaceExists",
    "SecurityContextDeny",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "AlwaysPullImages",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "ResourceQuota",
    "AlwaysDeny",
];

/// Used when nothing is said.
pub const DEFAULT_ON: [&str; 7] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "ResourceQuota",
];

/// Which plug-ins, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// `--admission-control`: exactly these, in this order.
    pub exactly: Option<Vec<String>>,
    /// `--enable-admission-plugins`
    pub enable: Vec<String>,
    /// `--disable-admission-plugins`
    pub disable: Vec<String>,
}

/// Names that may be given, in alphabetical order.
pub fn names() -> Vec<&'static str> {
    let mut names = ORDER.to_vec();
    names.sort_unstable();
    names
}

impl Selection {
    /// Names in the order in which they run, each once.
    pub fn chain(&self) -> Vec<&'static str> {
        let known = |name: &String| ORDER.into_iter().find(|one| one == name);
        if let Some(exactly) = &self.exactly {
            let mut chain = Vec::new();
            for name in exactly.iter().filter_map(known) {
                if !chain.contains(&name) {
                    chain.push(name);
                }
            }
            return chain;
        }
        let says = |list: &[String], name: &str| list.iter().any(|one| one == name);
        let wanted = |name: &&str| {
            let on = DEFAULT_ON.contains(name) || says(&self.enable, name);
            on && !says(&self.disable, name)
        };
        ORDER.into_iter().filter(wanted).collect()
    }
}

/// The plug-ins of these names. Unknown names are left out: whoever read them has told.
pub fn make(chain: &[&str], random: &Rc<dyn Random>) -> Vec<Box<dyn Admit>> {
    let made = chain.iter().filter_map(|name| -> Option<Box<dyn Admit>> {
        Some(match *name {
            "AlwaysAdmit" => Box::new(always_admit::AlwaysAdmit),
            "NamespaceAutoProvision" => Box::new(namespace_auto_provision::NamespaceAutoProvision),
            "NamespaceLifecycle" => Box::new(namespace_lifecycle::NamespaceLifecycle),
            "NamespaceExists" => Box::new(namespace_exists::NamespaceExists),
            "SecurityContextDeny" => Box::new(security_context_deny::SecurityContextDeny),
            "LimitRanger" => Box::new(limit_ranger::LimitRanger),
            "ServiceAccount" => Box::new(service_account::ServiceAccount::new(random.clone())),
            "NodeRestriction" => Box::new(node_restriction::NodeRestriction),
            "AlwaysPullImages" => Box::new(always_pull_images::AlwaysPullImages),
            "PodSecurity" => Box::new(pod_security::PodSecurity),
            "Priority" => Box::new(priority::Priority),
            "DefaultTolerationSeconds" => {
                Box::new(default_toleration_seconds::DefaultTolerationSeconds)
            }
            "ResourceQuota" => Box::new(resource_quota::ResourceQuota::default()),
            "AlwaysDeny" => Box::new(always_deny::AlwaysDeny),
            _ => return None,
        })
    });
    made.collect()
}
