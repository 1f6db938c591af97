//! Firewalls of others that drop what pods send: docker's, ufw's, firewalld's.
//!
//! A packet passes only if all tables let it, so no rule of ours helps; theirs are not ours to
//! change. Tables of iptables-legacy are invisible to nft.

use super::nft;

/// The tables that drop what is forwarded and have no rule that names the bridge. None if nft does
/// not say. Blocking.
pub fn obstacles(program: &str, bridge: &str) -> Vec<String> {
    let run = |what: &str| nft::run(program, &["list", what], "").ok();
    let mut tables = closed(&run("chains").unwrap_or_default());
    tables.retain(|table| run(table).is_some_and(|rules| !rules.contains(bridge)));
    tables
}

/// What to say of one of them.
pub fn advice(table: &str, bridge: &str) -> String {
    format!(
        "{table} drops what is forwarded and has no rule for {bridge}: pods may reach nothing beyond \
         this node. docker: iptables -I DOCKER-USER -i {bridge} -j ACCEPT, and the same with -o; \
         ufw: ufw route allow in on {bridge}, and out on; firewalld: firewall-cmd --zone=trusted \
         --add-interface={bridge} (docs/operating.md, Firewalls)"
    )
}

/// `table ip filter` and the like, of `nft list chains`. Pods have no IPv6.
fn closed(chains: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut table = "";
    for line in chains.lines().map(str::trim) {
        if line.starts_with("table ") {
            table = line.trim_end_matches([' ', '{']);
        }
        // firewalld's accepts by policy and rejects by its last rule.
        let closed = line.ends_with("policy drop;") || table.ends_with(" firewalld");
        let new = found.last().is_none_or(|last| last != table);
        if closed && new && line.contains(" hook forward ") && !table.starts_with("table ip6 ") {
            found.push(table.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::closed;

    #[test]
    fn a_forward_chain_that_drops_is_an_obstacle() {
        let chain =
            |head: &str, rest: &str| format!("{head} {{\n\tchain c {{\n\t\t{rest}\n\t}}\n}}\n");
        let forward = "type filter hook forward priority filter; policy";
        for (table, rest, found) in [
            ("table ip filter", format!("{forward} drop;"), true),
            ("table ip filter", format!("{forward} accept;"), false),
            ("table inet mine", format!("{forward} drop;"), true),
            ("table ip6 filter", format!("{forward} drop;"), false),
            ("table inet firewalld", format!("{forward} accept;"), true),
            ("table inet firewalld", String::new(), false),
            (
                "table inet filter",
                "type filter hook input priority filter; policy drop;".to_owned(),
                false,
            ),
        ] {
            let listed = chain("table ip other", "") + &chain(table, &rest);
            let expected = found.then(|| table.to_owned());
            assert_eq!(closed(&listed), Vec::from_iter(expected), "{listed}");
        }
    }
}
