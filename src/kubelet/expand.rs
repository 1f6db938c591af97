//! `$(VAR)` references in commands, arguments, environment values and `subPathExpr`.
//!
//! Never a shell: no quoting, no nesting, no defaults. A reference that cannot be resolved stays
//! as it was written, `$$` is a literal `$`, and an unclosed `$(` is kept.
//! Source: k8s.io/kubernetes third_party/forked/golang/expansion.

/// Replaces every `$(NAME)` for which `lookup` knows a value.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        let after = &rest[dollar + 1..];
        match (after.as_bytes().first(), after.find(')')) {
            (Some(b'$'), _) => {
                expanded.push('$');
                rest = &after[1..];
            }
            (Some(b'('), Some(close)) => {
                let name = &after[1..close];
                match lookup(name) {
                    Some(value) => expanded.push_str(&value),
                    None => expanded.push_str(&rest[dollar..dollar + 2 + close]),
                }
                rest = &after[close + 1..];
            }
            (Some(b'('), None) => {
                expanded.push_str("$(");
                rest = &after[1..];
            }
            (Some(_) | None, _) => {
                expanded.push('$');
                rest = after;
            }
        }
    }
    expanded.push_str(rest);
    expanded
}

/// Like `expand`, but a name that `lookup` does not know is an error: a volume's sub-path must
/// not silently contain a literal `$(VAR)`.
/// Errors: the first unknown name.
pub fn expand_strict(
    text: &str,
    lookup: impl Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expand(text, |name| {
        let value = lookup(name);
        if value.is_none() {
            missing.borrow_mut().get_or_insert_with(|| name.to_owned());
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(name),
        None => Ok(expanded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "B" => Some("two words".to_owned()),
            "SELF" => Some("$(A)".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn references_expand_as_upstream_does() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(B)z", "x1ytwo wordsz"),
            ("$(A)$(A)", "11"),
            ("$(EMPTY)", ""),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$(UNKNOWN)$(A)", "$(UNKNOWN)1"),
            ("$$", "$"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$", "$"),
            ("a$", "a$"),
            ("$(A", "$(A"),
            ("$(A$(B)", "$(A$(B)"),
            ("$()", "$()"),
            ("$(SELF)", "$(A)"),
            ("$(A))", "1)"),
            ("ü$(A)ü", "ü1ü"),
        ] {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
    }

    #[test]
    fn strict_expansion_names_the_first_unknown_variable() {
        assert_eq!(expand_strict("$(A)/$$x", lookup), Ok("1/$x".to_owned()));
        assert_eq!(expand_strict("$(X)/$(Y)", lookup), Err("X".to_owned()));
    }
}
