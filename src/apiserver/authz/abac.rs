//! Mode ABAC: a file of rules, one JSON object a line, in both of upstream's formats.
//!
//! | | v0, flat, without `apiVersion` | `abac.authorization.kubernetes.io/v1beta1` |
//! |---|---|---|
//! | user and group unset | any authenticated user | nobody |
//! | namespace, resource unset | any | none |
//! | both of them unset | all paths too | |
//! | `*` as user or group | any authenticated user, whatever the other says | the same |
//!
//! Rules are or-ed, the conditions of one are and-ed, nothing denies. Subresources are not looked
//! at: a rule on `pods` covers `pods/exec`. Source: Kubernetes `pkg/auth/authorizer/abac`,
//! `pkg/apis/abac`.
//!
//! Stricter than upstream in one thing: a field that the format does not have is an error, since a
//! misspelt condition would be one that matches everything.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::{Authorize, Decision, PathRule, ResourceRule, Rules};
use crate::apiserver::request_info::RequestInfo;
use crate::object::User;
use crate::object::user::GROUP_AUTHENTICATED;
use crate::os::regular_file;

/// Longest policy file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;
const API_GROUP: &str = "abac.authorization.kubernetes.io";

/// One rule. Empty conditions match what is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Rule {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    non_resource_path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Flat {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    user: String,
    group: String,
    readonly: bool,
    resource: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Versioned {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    spec: Rule,
}

/// The rules of `--authorization-policy-file`, which may be read anew while they are in use.
#[derive(Clone)]
pub struct PolicyFile {
    path: Option<PathBuf>,
    rules: Arc<Mutex<Arc<[Rule]>>>,
}

impl PolicyFile {
    /// No rule yet.
    pub(super) fn new(path: Option<&Path>) -> PolicyFile {
        PolicyFile {
            path: path.map(Path::to_owned),
            rules: Arc::new(Mutex::new(Arc::new([]))),
        }
    }

    /// Reads the file again; the rules in use stay if it cannot be used. Returns how many there are.
    /// Errors: file, line and what is wrong there.
    pub fn reload(&self) -> Result<usize, String> {
        let Some(path) = &self.path else {
            return Ok(0);
        };
        let failed =
            |error: String| format!("error reading policy file {}: {error}", path.display());
        let text = read(path).map_err(failed)?;
        let rules = parse(&text).map_err(|(line, content, why)| {
            let at = path.display();
            format!("error reading policy file {at}, line {line}: {content}: {why}")
        })?;
        let count = rules.len();
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = rules.into();
        Ok(count)
    }

    #[cfg(test)]
    pub(super) fn of(text: &str) -> PolicyFile {
        let policy = PolicyFile::new(None);
        let rules = parse(text).expect("rules");
        *policy.rules.lock().expect("lock") = rules.into();
        policy
    }

    fn look(&self) -> Arc<[Rule]> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.clone()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let told = |error: io::Error| error.to_string();
    let (file, _) = regular_file::open(path).map_err(told)?;
    let bytes = regular_file::read_at_most(&file, FILE_BYTES_MAX).map_err(told)?;
    let bytes = bytes.ok_or_else(|| format!("longer than {FILE_BYTES_MAX} bytes"))?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Errors: line from 1, its text, and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Rule>, (usize, String, String)> {
    let mut rules = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        rules.push(rule(line).map_err(|why| (number + 1, line.to_owned(), why))?);
    }
    Ok(rules)
}

fn rule(line: &str) -> Result<Rule, String> {
    let told = |error: serde_json::Error| error.to_string();
    let value: Value = serde_json::from_str(line).map_err(told)?;
    if !value.is_object() {
        return Err("a rule must be a JSON object".to_owned());
    }
    let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if version.is_empty() || kind.is_empty() {
        return Flat::deserialize(&value).map(from_flat).map_err(told);
    }
    if kind == "Policy" && version == format!("{API_GROUP}/v0") {
        return Flat::deserialize(&value).map(from_flat).map_err(told);
    }
    if kind != "Policy" || version != format!("{API_GROUP}/v1beta1") {
        return Err(format!(
            "unknown kind {kind:?} of {version:?}: must be \"Policy\" of \"{API_GROUP}/v1beta1\", \
             or a flat rule without both"
        ));
    }
    let versioned = Versioned::deserialize(&value).map_err(told)?;
    Ok(anybody(versioned.spec))
}

fn from_flat(flat: Flat) -> Rule {
    let any = |text: &str| match text {
        "" => "*".to_owned(),
        text => text.to_owned(),
    };
    let everywhere = flat.namespace.is_empty() && flat.resource.is_empty();
    let nobody_named = flat.user.is_empty() && flat.group.is_empty();
    anybody(Rule {
        readonly: flat.readonly,
        api_group: "*".to_owned(),
        resource: any(&flat.resource),
        namespace: any(&flat.namespace),
        non_resource_path: if everywhere { "*" } else { "" }.to_owned(),
        group: if nobody_named {
            "*".to_owned()
        } else {
            flat.group
        },
        user: flat.user,
    })
}

/// `*` stands for everybody who is authenticated.
fn anybody(rule: Rule) -> Rule {
    if rule.user != "*" && rule.group != "*" {
        return rule;
    }
    Rule {
        user: String::new(),
        group: GROUP_AUTHENTICATED.to_owned(),
        ..rule
    }
}

impl Rule {
    fn is_for(&self, user: &User) -> bool {
        let named = !self.user.is_empty() || !self.group.is_empty();
        named
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.is_in(&self.group))
    }

    fn allows(&self, user: &User, request: &RequestInfo) -> bool {
        let reads = matches!(request.verb.as_str(), "get" | "list" | "watch");
        let covered = if request.is_resource {
            self.covers_resource(request)
        } else {
            self.covers_path(&request.path)
        };
        self.is_for(user) && (reads || !self.readonly) && covered
    }

    fn covers_resource(&self, request: &RequestInfo) -> bool {
        let fits = |condition: &str, value: &str| condition == "*" || condition == value;
        fits(&self.namespace, &request.namespace)
            && fits(&self.resource, &request.resource)
            && fits(&self.api_group, &request.group)
    }

    fn covers_path(&self, path: &str) -> bool {
        let condition = self.non_resource_path.as_str();
        let start = condition.trim_end_matches('*');
        condition == path || (condition.ends_with('*') && path.starts_with(start))
    }

    fn verbs(&self) -> Vec<String> {
        let verbs: &[&str] = match self.readonly {
            true => &["get", "list", "watch"],
            false => &["*"],
        };
        verbs.iter().map(|verb| (*verb).to_owned()).collect()
    }
}

impl Authorize for PolicyFile {
    fn decide(&self, user: &User, request: &RequestInfo) -> Decision {
        match self.look().iter().any(|rule| rule.allows(user, request)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("No policy matched.".to_owned()),
        }
    }

    fn rules(&self, user: &User, namespace: &str) -> Rules {
        let mut rules = Rules::default();
        for rule in self.look().iter().filter(|rule| rule.is_for(user)) {
            if rule.namespace != "*" && rule.namespace != namespace {
                continue;
            }
            if !rule.resource.is_empty() {
                rules.resources.push(ResourceRule {
                    verbs: rule.verbs(),
                    groups: vec![rule.api_group.clone()],
                    resources: vec![rule.resource.clone()],
                });
            }
            if !rule.non_resource_path.is_empty() {
                rules.paths.push(PathRule {
                    verbs: rule.verbs(),
                    paths: vec![rule.non_resource_path.clone()],
                });
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_upstream_converts_them() {
        let v1 = |spec: &str| {
            format!(r#"{{"apiVersion":"{API_GROUP}/v1beta1","kind":"Policy","spec":{spec}}}"#)
        };
        // line: user, group, readonly, apiGroup, resource, namespace, nonResourcePath
        let table = [
            (
                "{}".to_owned(),
                ["", GROUP_AUTHENTICATED, "", "*", "*", "*", "*"],
            ),
            (
                r#"{"user":"a"}"#.to_owned(),
                ["a", "", "", "*", "*", "*", "*"],
            ),
            (
                r#"{"user":"a","group":"*"}"#.to_owned(),
                ["", GROUP_AUTHENTICATED, "", "*", "*", "*", "*"],
            ),
            (
                r#"{"user":"*","group":"devs"}"#.to_owned(),
                ["", GROUP_AUTHENTICATED, "", "*", "*", "*", "*"],
            ),
            (
                r#"{"user":"a","namespace":"n","readonly":true}"#.to_owned(),
                ["a", "", "ro", "*", "*", "n", ""],
            ),
            (
                r#"{"group":"g","resource":"pods"}"#.to_owned(),
                ["", "g", "", "*", "pods", "*", ""],
            ),
            (v1("{}"), ["", "", "", "", "", "", ""]),
            (
                v1(r#"{"user":"*","group":"g","namespace":"n"}"#),
                ["", GROUP_AUTHENTICATED, "", "", "", "n", ""],
            ),
            (
                v1(r#"{"user":"a","apiGroup":"*","nonResourcePath":"/x*","readonly":true}"#),
                ["a", "", "ro", "*", "", "", "/x*"],
            ),
        ];
        for (line, [user, group, readonly, api_group, resource, namespace, path]) in table {
            let expected = Rule {
                user: user.to_owned(),
                group: group.to_owned(),
                readonly: !readonly.is_empty(),
                api_group: api_group.to_owned(),
                resource: resource.to_owned(),
                namespace: namespace.to_owned(),
                non_resource_path: path.to_owned(),
            };
            assert_eq!(rule(&line), Ok(expected), "{line}");
        }
    }

    #[test]
    fn a_bad_line_is_named_with_its_number() {
        let table = [
            ("{", "EOF"),
            ("[]", "must be a JSON object"),
            ("null", "must be a JSON object"),
            (r#"{"user":1}"#, "invalid type"),
            (r#"{"readonly":"true"}"#, "invalid type"),
            (r#"{"namespce":"a"}"#, "unknown field `namespce`"),
            (r#"{"user":"a","nonResourcePath":"*"}"#, "unknown field"),
            (r#"{"spec":{"user":"a"}}"#, "unknown field `spec`"),
            (r#"{"apiVersion":"v9","kind":"Policy"}"#, "unknown kind"),
            (
                r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Role"}"#,
                "unknown kind \"Role\"",
            ),
            (
                r#"{"apiVersion":"abac.authorization.kubernetes.io/v1beta1","kind":"Policy","user":"a"}"#,
                "unknown field `user`",
            ),
        ];
        for (line, why) in table {
            let text = format!("# comment\n\n  {{}} \n{line}\n{{}}");
            let (number, content, told) = parse(&text).expect_err(line);
            assert_eq!((number, content.as_str()), (4, line));
            assert!(told.contains(why), "{line}: {told}");
        }
    }

    #[test]
    fn a_file_that_broke_leaves_the_rules_in_use() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("policy.jsonl");
        std::fs::write(&path, "{\"user\":\"a\"}\n").expect("write");
        let policy = PolicyFile::open(Some(&path)).expect("rules");
        let request = RequestInfo {
            path: "/version".to_owned(),
            verb: "get".to_owned(),
            ..RequestInfo::default()
        };
        let allowed = |name: &str| {
            let decision = policy.decide(&User::new(name, &[]), &request);
            matches!(decision, Decision::Allow(_))
        };
        assert!(allowed("a") && !allowed("b"));
        std::fs::write(&path, "{\"user\":\"b\"}\n{\n").expect("write");
        let error = policy.reload().expect_err("a broken line");
        assert!(error.contains("policy.jsonl, line 2: {: "), "{error}");
        assert!(allowed("a") && !allowed("b"));
        std::fs::write(&path, "{\"user\":\"b\"}\n").expect("write");
        assert_eq!(policy.reload(), Ok(1));
        assert!(!allowed("a") && allowed("b"));
        std::fs::remove_file(&path).expect("remove");
        let error = policy.reload().expect_err("no file");
        assert!(error.starts_with("error reading policy file "), "{error}");
    }
}
