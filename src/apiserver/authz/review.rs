//! The access reviews of authorization.k8s.io/v1: a question in, the same question with its answer
//! out. Nothing is stored. Pure but for the authorizer that is asked.
//!
//! Source: Kubernetes `pkg/registry/authorization`, `pkg/apis/authorization/validation`.

use serde_json::{Value, json};

use super::{Authorizer, Decision};
use crate::apiserver::request_info::RequestInfo;
use crate::apiserver::status::Refusal;
use crate::object::User;
use crate::object::gather::Gather;

/// Which review was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Review {
    SubjectAccess,
    LocalSubjectAccess,
    SelfSubjectAccess,
    SelfSubjectRules,
}

impl Review {
    pub const ALL: [Review; 4] = [
        Review::LocalSubjectAccess,
        Review::SelfSubjectAccess,
        Review::SelfSubjectRules,
        Review::SubjectAccess,
    ];

    pub fn kind(self) -> &'static str {
        match self {
            Review::SubjectAccess => "SubjectAccessReview",
            Review::LocalSubjectAccess => "LocalSubjectAccessReview",
            Review::SelfSubjectAccess => "SelfSubjectAccessReview",
            Review::SelfSubjectRules => "SelfSubjectRulesReview",
        }
    }

    /// `subjectaccessreviews`
    pub fn plural(self) -> String {
        format!("{}s", self.kind().to_ascii_lowercase())
    }

    pub fn namespaced(self) -> bool {
        self == Review::LocalSubjectAccess
    }

    pub fn from_plural(plural: &str) -> Option<Review> {
        let mut all = Review::ALL.into_iter();
        all.find(|review| review.plural() == plural)
    }
}

/// The body with its `status`. `namespace` is that of the path, empty for none.
/// Errors: 400 for a body that is no such review, 422 for a question that makes no sense.
pub fn answer(
    review: Review,
    authorizer: &Authorizer,
    asking: &User,
    namespace: &str,
    mut body: Value,
) -> Result<Value, Refusal> {
    check_type(review, &body)?;
    body["kind"] = json!(review.kind());
    body["apiVersion"] = json!("authorization.k8s.io/v1");
    if review == Review::SelfSubjectRules {
        return rules(authorizer, asking, body);
    }
    let spec = &body["spec"];
    let of_subject = review != Review::SelfSubjectAccess;
    let mut causes = question_causes(spec, of_subject);
    causes.extend(place_causes(review, &body, namespace)?);
    if !causes.is_empty() {
        return Err(Refusal::invalid_review(review.kind(), &causes));
    }
    let request = request(spec);
    let decision = match of_subject {
        true => authorizer.decide(&subject(spec), &request),
        false => authorizer.decide(asking, &request),
    };
    body["status"] = status(&decision);
    if body["metadata"].is_null() {
        body["metadata"] = json!({});
    }
    Ok(body)
}

fn check_type(review: Review, body: &Value) -> Result<(), Refusal> {
    if !body.is_object() {
        return Err(Refusal::bad_request("the body must be a JSON object"));
    }
    let text = |field: &str| body[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let fits = (version.is_empty() || version == "authorization.k8s.io/v1")
        && (kind.is_empty() || kind == review.kind());
    if !fits {
        return Err(Refusal::bad_request(format!(
            "{} in version \"v1\" cannot be handled as a {}: the body says {kind:?} of {version:?}",
            review.kind(),
            review.kind()
        )));
    }
    Ok(())
}

fn question_causes(spec: &Value, of_subject: bool) -> Vec<(String, String)> {
    let mut causes = Vec::new();
    let mut invalid = |field: &str, value: &Value, why: &str| {
        causes.push((
            format!("spec.{field}"),
            format!("Invalid value: {value}: {why}"),
        ));
    };
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    match (resource.is_object(), path.is_object()) {
        (true, true) => invalid(
            "nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => invalid(
            "resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    let someone = !text(spec, "user").is_empty()
        || spec["groups"]
            .as_array()
            .is_some_and(|groups| !groups.is_empty());
    if of_subject && !someone {
        let why = "at least one of user or group must be specified";
        invalid("user", &json!(""), why);
    }
    causes
}

/// A local review is of the namespace of its path, and of nothing else.
fn place_causes(
    review: Review,
    body: &Value,
    namespace: &str,
) -> Result<Vec<(String, String)>, Refusal> {
    let metadata = body["metadata"].as_object();
    let stated = text(&body["metadata"], "namespace");
    let mut set = metadata.into_iter().flatten().filter(|(name, value)| {
        let empty = value.is_null() || value.as_str() == Some("");
        let ours = review.namespaced() && *name == "namespace";
        !empty && !ours && *name != "managedFields" && *name != "creationTimestamp"
    });
    let mut causes = Vec::new();
    if set.next().is_some() {
        let except = if review.namespaced() {
            " except for namespace"
        } else {
            ""
        };
        let why = format!("Invalid value: {}: must be empty{except}", body["metadata"]);
        causes.push(("metadata".to_owned(), why));
    }
    if !review.namespaced() {
        return Ok(causes);
    }
    if !stated.is_empty() && stated != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let spec = &body["spec"];
    let asked = text(&spec["resourceAttributes"], "namespace");
    if spec["resourceAttributes"].is_object() && asked != namespace {
        let why = format!("Invalid value: {asked:?}: must match metadata.namespace");
        causes.push(("spec.resourceAttributes.namespace".to_owned(), why));
    }
    if spec["nonResourceAttributes"].is_object() {
        let value = &spec["nonResourceAttributes"];
        let why = format!("Invalid value: {value}: disallowed on this kind of request");
        causes.push(("spec.nonResourceAttributes".to_owned(), why));
    }
    Ok(causes)
}

fn text<'a>(parent: &'a Value, field: &str) -> &'a str {
    parent[field].as_str().unwrap_or_default()
}

/// The request that the question is about.
fn request(spec: &Value) -> RequestInfo {
    let owned = |parent: &Value, field: &str| text(parent, field).to_owned();
    let resource = &spec["resourceAttributes"];
    if !resource.is_object() {
        let path = &spec["nonResourceAttributes"];
        return RequestInfo {
            path: owned(path, "path"),
            verb: owned(path, "verb"),
            ..RequestInfo::default()
        };
    }
    let name = owned(resource, "name");
    RequestInfo {
        is_resource: true,
        verb: owned(resource, "verb"),
        group: owned(resource, "group"),
        version: owned(resource, "version"),
        namespace: owned(resource, "namespace"),
        resource: owned(resource, "resource"),
        subresource: owned(resource, "subresource"),
        is_collection: name.is_empty(),
        name,
        field_selector: field_selector(&resource["fieldSelector"]),
        ..RequestInfo::default()
    }
}

/// The requirements as a query has them; those of other operators ask for nothing here, which can
/// only make the answer narrower.
fn field_selector(selector: &Value) -> String {
    let raw = text(selector, "rawSelector");
    if !raw.is_empty() {
        return raw.to_owned();
    }
    let requirements = selector["requirements"].as_array().into_iter().flatten();
    let equal = requirements.filter_map(|requirement| {
        let values = requirement["values"].as_array()?;
        match (text(requirement, "operator"), values.as_slice()) {
            ("In", [value]) => Some(format!("{}={}", text(requirement, "key"), value.as_str()?)),
            _ => None,
        }
    });
    equal.collect::<Vec<_>>().join(",")
}

fn subject(spec: &Value) -> User {
    let texts = |value: &Value| {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let extra = spec["extra"].as_object().into_iter().flatten();
    User {
        name: text(spec, "user").to_owned(),
        uid: text(spec, "uid").to_owned(),
        groups: texts(&spec["groups"]),
        extra: extra
            .map(|(name, values)| (name.to_ascii_lowercase(), texts(values)))
            .gathered(),
    }
}

fn status(decision: &Decision) -> Value {
    let mut status = json!({"allowed": matches!(decision, Decision::Allow(_))});
    if matches!(decision, Decision::Deny(_)) {
        status["denied"] = json!(true);
    }
    let (Decision::Allow(why) | Decision::Deny(why) | Decision::NoOpinion(why)) = decision;
    if !why.is_empty() {
        status["reason"] = json!(why);
    }
    status
}

fn rules(authorizer: &Authorizer, asking: &User, body: Value) -> Result<Value, Refusal> {
    let namespace = text(&body["spec"], "namespace");
    if namespace.is_empty() {
        return Err(Refusal::bad_request("no namespace on request"));
    }
    let rules = authorizer.rules(asking, namespace);
    let resources = rules.resources.iter().map(
        |rule| json!({"verbs": rule.verbs, "apiGroups": rule.groups, "resources": rule.resources}),
    );
    let paths = rules.paths.iter();
    let paths = paths.map(|rule| json!({"verbs": rule.verbs, "nonResourceURLs": rule.paths}));
    let mut status = json!({
        "resourceRules": resources.collect::<Vec<_>>(),
        "nonResourceRules": paths.collect::<Vec<_>>(),
        "incomplete": rules.incomplete,
    });
    if !rules.problems.is_empty() {
        status["evaluationError"] = json!(rules.problems.join(", "));
    }
    Ok(json!({
        "kind": body["kind"],
        "apiVersion": body["apiVersion"],
        "metadata": {},
        "spec": {},
        "status": status,
    }))
}
