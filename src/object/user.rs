//! Who asks: what authentication found out, for authorization, admission and audit. Pure.
//!
//! Source: Kubernetes apiserver, authentication/user.

use std::collections::BTreeMap;

/// Members may do everything, whatever the authorization mode says.
pub const GROUP_MASTERS: &str = "system:masters";
pub const GROUP_NODES: &str = "system:nodes";
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
pub const USER_ANONYMOUS: &str = "system:anonymous";
/// Followed by the node's name.
pub const USER_NODE_PREFIX: &str = "system:node:";
/// Followed by `NAMESPACE:NAME`.
pub const USER_SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// An identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Empty if the authenticator knows none.
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    pub fn new(name: &str, groups: &[&str]) -> User {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// The node that this identity is: `system:node:NAME` in `system:nodes`.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix(USER_NODE_PREFIX)?;
        (!name.is_empty() && self.is_in(GROUP_NODES)).then_some(name)
    }

    /// Namespace and name of the service account that this identity is.
    pub fn service_account(&self) -> Option<(&str, &str)> {
        let name = self.name.strip_prefix(USER_SERVICE_ACCOUNT_PREFIX)?;
        name.split_once(':').filter(|(_, name)| !name.contains(':'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_service_accounts_are_told_by_name_and_group() {
        let table = [
            ("system:node:pi", GROUP_NODES, Some("pi"), None),
            ("system:node:pi", GROUP_AUTHENTICATED, None, None),
            ("system:node:", GROUP_NODES, None, None),
            ("system:serviceaccount:a:b", "", None, Some(("a", "b"))),
            ("system:serviceaccount:a:b:c", "", None, None),
            ("system:serviceaccount:a", "", None, None),
        ];
        for (name, group, node, account) in table {
            let user = User::new(name, &[group]);
            assert_eq!((user.node_name(), user.service_account()), (node, account));
        }
    }
}
