//! Defaults that the API gives a stored object. Source: Kubernetes `pkg/apis/core/v1/defaults.go`.
//!
//! Runs on decoded objects (types are right) and is idempotent. What a *source* adds to a manifest
//! (name suffix, uid, annotations) is not here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use super::Kind;
use super::resources::quantity;

/// Mode of files made from secrets, config maps, downward API and projections.
const FILE_MODE: u32 = 0o644;
/// Life of a projected service account token, in seconds.
const TOKEN_LIFE_S: u32 = 3600;

/// Fills in what the object leaves out.
pub fn apply_defaults(kind: Kind, body: &mut Value) {
    match kind {
        Kind::Pod => {
            if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
                default_pod(spec);
            }
        }
        Kind::Secret => default_secret(body),
        Kind::Namespace => default_namespace(body),
        Kind::Service | Kind::LimitRange | Kind::ResourceQuota => {
            if let Some(spec) = body.get_mut("spec").and_then(Value::as_object_mut) {
                match kind {
                    Kind::Service => default_service(spec),
                    Kind::LimitRange => objects(spec, "limits").for_each(default_limit),
                    _ => amounts(spec, &["hard"]),
                }
            }
        }
        _ => {}
    }
}

/// Sets a field that is absent or null.
fn fill(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    let field = fields.entry(name).or_insert(Value::Null);
    if field.is_null() {
        *field = value.into();
    }
}

/// Sets a text that is absent, null or empty.
fn fill_text(fields: &mut Map<String, Value>, name: &str, value: &str) {
    if fields.get(name).and_then(Value::as_str).unwrap_or_default() == "" {
        fields.insert(name.to_owned(), json!(value));
    }
}

/// Sets a number that is absent, null or 0.
fn fill_number(fields: &mut Map<String, Value>, name: &str, value: u32) {
    if fields.get(name).and_then(Value::as_i64).unwrap_or_default() == 0 {
        fields.insert(name.to_owned(), json!(value));
    }
}

/// The elements of a list of objects; none if it is something else.
fn objects<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    let list = fields.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn object<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(name).and_then(Value::as_object_mut)
}

fn default_pod(spec: &mut Map<String, Value>) {
    fill_text(spec, "restartPolicy", "Always");
    fill_text(spec, "dnsPolicy", "ClusterFirst");
    fill_text(spec, "schedulerName", "default-scheduler");
    fill(spec, "terminationGracePeriodSeconds", 30);
    fill(spec, "securityContext", json!({}));
    fill(spec, "enableServiceLinks", true);
    mirror_service_account(spec);
    amounts(spec, &["overhead"]);
    if let Some(resources) = object(spec, "resources") {
        amounts(resources, &["limits", "requests"]);
    }
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool) == Some(true);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in objects(spec, list) {
            default_container(container);
            for port in objects(container, "ports") {
                fill_text(port, "protocol", "TCP");
                let inner = port.get("containerPort").and_then(Value::as_u64);
                if host_network && let Some(inner) = inner {
                    fill_number(port, "hostPort", inner as u32);
                }
            }
        }
    }
    for volume in objects(spec, "volumes") {
        default_volume(volume);
    }
}

/// `serviceAccount` is the older name of `serviceAccountName`; the API shows both.
fn mirror_service_account(spec: &mut Map<String, Value>) {
    let of = |name: &str| {
        let text = spec.get(name).and_then(Value::as_str);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    if let Some(account) = of("serviceAccountName").or_else(|| of("serviceAccount")) {
        spec.insert("serviceAccountName".to_owned(), json!(account));
        spec.insert("serviceAccount".to_owned(), json!(account));
    }
}

fn default_container(container: &mut Map<String, Value>) {
    fill_text(container, "terminationMessagePath", "/dev/termination-log");
    fill_text(container, "terminationMessagePolicy", "File");
    let image = container.get("image").and_then(Value::as_str);
    let policy = pull_policy(image.unwrap_or_default());
    fill_text(container, "imagePullPolicy", policy);
    fill(container, "resources", json!({}));
    default_requests(container);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object(container, probe) {
            for (name, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                fill_number(probe, name, value);
            }
            default_http_get(probe);
            if let Some(grpc) = object(probe, "grpc") {
                fill(grpc, "service", "");
            }
        }
    }
    if let Some(lifecycle) = object(container, "lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(hook) = object(lifecycle, hook) {
                default_http_get(hook);
            }
        }
    }
    for variable in objects(container, "env") {
        if let Some(from) = object(variable, "valueFrom") {
            default_field_ref(from);
        }
    }
}

/// `Always` for the tag `latest`, said or not; a digest or another tag does not change.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') {
        return "IfNotPresent";
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Quantities may be written in many ways; the API keeps one. What is none is refused later.
fn canonical(amount: &mut Value) {
    if let Some(quantity) = quantity(amount) {
        *amount = json!(quantity.to_string());
    }
}

/// The quantities of some lists.
fn amounts(fields: &mut Map<String, Value>, lists: &[&str]) {
    for list in lists {
        if let Some(amounts) = object(fields, list) {
            amounts.values_mut().for_each(canonical);
        }
    }
}

/// What is not said of a container's bounds follows from what is.
fn default_limit(limit: &mut Map<String, Value>) {
    amounts(
        limit,
        &[
            "max",
            "min",
            "default",
            "defaultRequest",
            "maxLimitRequestRatio",
        ],
    );
    if limit.get("type").and_then(Value::as_str) == Some("Container") {
        follow(limit, "max", "default");
        follow(limit, "default", "defaultRequest");
        follow(limit, "min", "defaultRequest");
    }
}

/// Amounts of one list are those of another where that has none.
fn follow(lists: &mut Map<String, Value>, from: &str, to: &str) {
    let Some(given) = lists.get(from).and_then(Value::as_object).cloned() else {
        return;
    };
    if given.is_empty() {
        return;
    }
    fill(lists, to, json!({}));
    if let Some(amounts) = object(lists, to) {
        for (name, amount) in given {
            amounts.entry(name).or_insert(amount);
        }
    }
}

fn default_service(spec: &mut Map<String, Value>) {
    fill_text(spec, "sessionAffinity", "None");
    fill_text(spec, "type", "ClusterIP");
    for port in objects(spec, "ports") {
        fill_text(port, "protocol", "TCP");
        let target = port.get("targetPort");
        if target.is_none_or(|target| target.is_null() || *target == 0 || *target == "")
            && let Some(outer) = port.get("port").cloned()
        {
            port.insert("targetPort".to_owned(), outer);
        }
    }
    if spec["type"] != "ExternalName" {
        fill_text(spec, "internalTrafficPolicy", "Cluster");
    }
}

/// A limit is also the request where there is none.
fn default_requests(container: &mut Map<String, Value>) {
    let Some(resources) = object(container, "resources") else {
        return;
    };
    amounts(resources, &["limits", "requests"]);
    follow(resources, "limits", "requests");
}

fn default_http_get(handler: &mut Map<String, Value>) {
    if let Some(get) = object(handler, "httpGet") {
        fill_text(get, "path", "/");
        fill_text(get, "scheme", "HTTP");
    }
}

fn default_field_ref(from: &mut Map<String, Value>) {
    if let Some(field) = object(from, "fieldRef") {
        fill_text(field, "apiVersion", "v1");
    }
    if let Some(field) = object(from, "resourceFieldRef") {
        // As Go writes a quantity that is not there.
        fill(field, "divisor", "0");
        field.get_mut("divisor").map(canonical);
    }
}

fn default_volume(volume: &mut Map<String, Value>) {
    let sources = volume
        .iter()
        .filter(|(name, value)| *name != "name" && !value.is_null());
    if sources.count() == 0 {
        volume.insert("emptyDir".to_owned(), json!({}));
    }
    for plugin in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = object(volume, plugin) {
            fill(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(size) = object(volume, "emptyDir").and_then(|e| e.get_mut("sizeLimit")) {
        canonical(size);
    }
    if let Some(path) = object(volume, "hostPath") {
        fill(path, "type", "");
    }
    if let Some(fields) = object(volume, "downwardAPI") {
        for item in objects(fields, "items") {
            default_field_ref(item);
        }
    }
    if let Some(projected) = object(volume, "projected") {
        for source in objects(projected, "sources") {
            if let Some(token) = object(source, "serviceAccountToken") {
                fill(token, "expirationSeconds", TOKEN_LIFE_S);
            }
            if let Some(fields) = object(source, "downwardAPI") {
                for item in objects(fields, "items") {
                    default_field_ref(item);
                }
            }
        }
    }
}

/// The write-only `stringData` goes over `data`.
fn default_secret(body: &mut Value) {
    let Some(fields) = body.as_object_mut() else {
        return;
    };
    fill_text(fields, "type", "Opaque");
    let Some(texts) = fields.remove("stringData") else {
        return;
    };
    let texts = texts.as_object().cloned().unwrap_or_default();
    if texts.is_empty() {
        return;
    }
    fill(fields, "data", json!({}));
    if let Some(data) = object(fields, "data") {
        for (key, text) in texts {
            let text = text.as_str().unwrap_or_default();
            data.insert(key, json!(BASE64.encode(text)));
        }
    }
}

fn default_namespace(body: &mut Value) {
    let Some(fields) = body.as_object_mut() else {
        return;
    };
    fill(fields, "metadata", json!({}));
    fill(fields, "spec", json!({}));
    fill(fields, "status", json!({}));
    if let Some(status) = object(fields, "status") {
        fill_text(status, "phase", "Active");
    }
    if let Some(spec) = object(fields, "spec") {
        fill(spec, "finalizers", json!(["kubernetes"]));
    }
    if let Some(metadata) = object(fields, "metadata") {
        let name = metadata.get("name").cloned().unwrap_or_default();
        fill(metadata, "labels", json!({}));
        if let Some(labels) = object(metadata, "labels") {
            labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_upstreams_defaults() {
        let mut pod = json!({"spec": {
            "hostNetwork": true,
            "serviceAccount": "sa",
            "containers": [{
                "name": "a", "image": "x",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": 1, "memory": "1Gi"}, "requests": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": 80}, "periodSeconds": 5},
                "env": [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            }],
            "volumes": [
                {"name": "e"},
                {"name": "c", "configMap": {"name": "c"}},
                {"name": "h", "hostPath": {"path": "/x"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            ],
        }});
        apply_defaults(Kind::Pod, &mut pod);
        let expected = json!({"spec": {
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "securityContext": {},
            "enableServiceLinks": true,
            "hostNetwork": true,
            "serviceAccount": "sa",
            "serviceAccountName": "sa",
            "containers": [{
                "name": "a", "image": "x",
                "imagePullPolicy": "Always",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {
                    "limits": {"cpu": "1", "memory": "1Gi"},
                    "requests": {"cpu": "100m", "memory": "1Gi"},
                },
                "livenessProbe": {
                    "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
                    "periodSeconds": 5, "timeoutSeconds": 1,
                    "successThreshold": 1, "failureThreshold": 3,
                },
                "env": [{"name": "N", "valueFrom": {
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"},
                }}],
            }],
            "volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
                {"name": "h", "hostPath": {"path": "/x", "type": ""}},
                {"name": "p", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}},
                ]}},
            ],
        }});
        assert_eq!(pod, expected);
        let once = pod.clone();
        apply_defaults(Kind::Pod, &mut pod);
        assert_eq!(pod, once, "idempotent");
    }

    #[test]
    fn quantities_have_one_form() {
        let pod = |limits: Value, of: Value, size: Value, overhead: Value| {
            let env = json!([{"name": "M", "valueFrom": {"resourceFieldRef": of}}]);
            json!({"spec": {
                "containers": [{"name": "a", "env": env, "resources": {"limits": limits}}],
                "volumes": [{"name": "s", "emptyDir": {"sizeLimit": size}}],
                "overhead": {"cpu": overhead},
            }})
        };
        let mut given = pod(
            json!({"cpu": "1000m", "memory": "1024Mi", "x": "y", "z": 1.5}),
            json!({"resource": "limits.cpu"}),
            json!("0.5Gi"),
            json!(0.1),
        );
        let mut stored = pod(
            json!({"cpu": "1", "memory": "1Gi", "x": "y", "z": "1500m"}),
            json!({"resource": "limits.cpu", "divisor": "0"}),
            json!("512Mi"),
            json!("100m"),
        );
        apply_defaults(Kind::Pod, &mut given);
        apply_defaults(Kind::Pod, &mut stored);
        assert_eq!(given, stored);
        let amounts = &stored["spec"]["containers"][0]["resources"]["limits"];
        assert_eq!(
            *amounts,
            json!({"cpu": "1", "memory": "1Gi", "x": "y", "z": "1500m"})
        );
    }

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("nginx:latest@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn string_data_is_merged_and_not_kept() {
        let mut secret = json!({"data": {"a": "YQ==", "b": "Yg=="}, "stringData": {"b": "new"}});
        apply_defaults(Kind::Secret, &mut secret);
        let expected = json!({"type": "Opaque", "data": {"a": "YQ==", "b": "bmV3"}});
        assert_eq!(secret, expected);
    }

    #[test]
    fn wrong_types_do_no_harm() {
        for spec in [
            json!(null),
            json!("x"),
            json!([1]),
            json!({"containers": "x", "volumes": [1]}),
        ] {
            apply_defaults(Kind::Pod, &mut json!({ "spec": spec }));
        }
        apply_defaults(Kind::Secret, &mut json!("x"));
    }

    #[test]
    fn services_and_bounds_get_upstreams_defaults() {
        for (kind, spec, expected) in [
            (
                Kind::Service,
                json!({"ports": [{"port": 80}, {"port": 53, "protocol": "UDP", "targetPort": "dns"}]}),
                json!({
                    "type": "ClusterIP", "sessionAffinity": "None",
                    "internalTrafficPolicy": "Cluster",
                    "ports": [
                        {"port": 80, "protocol": "TCP", "targetPort": 80},
                        {"port": 53, "protocol": "UDP", "targetPort": "dns"},
                    ],
                }),
            ),
            (
                Kind::Service,
                json!({"type": "ExternalName", "externalName": "a.b"}),
                json!({"type": "ExternalName", "externalName": "a.b", "sessionAffinity": "None"}),
            ),
            (
                Kind::LimitRange,
                json!({"limits": [
                    {"type": "Container", "max": {"cpu": 2}, "min": {"memory": "1Mi"}},
                    {"type": "Pod", "max": {"cpu": 2}},
                ]}),
                json!({"limits": [
                    {
                        "type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
                        "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"},
                    },
                    {"type": "Pod", "max": {"cpu": "2"}},
                ]}),
            ),
            (
                Kind::ResourceQuota,
                json!({"hard": {"pods": 4}}),
                json!({"hard": {"pods": "4"}}),
            ),
        ] {
            let mut body = json!({ "spec": spec });
            apply_defaults(kind, &mut body);
            assert_eq!(body["spec"], expected);
            let once = body.clone();
            apply_defaults(kind, &mut body);
            assert_eq!(body, once);
        }
    }
}
