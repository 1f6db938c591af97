//! How the fields of the served kinds are merged: which lists have keys, which maps are one value.
//!
//! One table for strategic merge, server-side apply and the published schemas. What it does not
//! name is the rule: maps merge by member, lists are one value.
//! Source: Kubernetes 1.36, api/openapi-spec/v3 (`x-kubernetes-list-type`, `-list-map-keys`,
//! `-map-type`, `-patch-merge-key`, `-patch-strategy`, from the struct tags of staging/src/k8s.io/api).

use super::Kind;

/// What a list is to server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// One value.
    Atomic,
    /// Scalars, each once.
    Set,
    /// Maps, told apart by these members.
    Map(&'static [&'static str]),
}

/// What a list is to a strategic merge patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    Replace,
    /// Scalars, each once.
    MergeScalars,
    /// Maps, told apart by this member.
    Merge(&'static str),
    /// The same, and a patch made by a client names the members to keep.
    MergeRetainKeys(&'static str),
}

/// One field that is not like all others, or leads to one.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub list: List,
    pub patch: Patch,
    /// What the value, or an element of the list, is.
    pub of: &'static Type,
}

#[derive(Debug)]
pub struct Type {
    /// The whole map is one value to server-side apply.
    pub atomic: bool,
    pub fields: &'static [Field],
}

/// A place in an object: what stands there, and what is below.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub list: List,
    pub patch: Patch,
    pub of: &'static Type,
}

impl Place {
    pub fn root(kind: Kind) -> Place {
        Place::element(match kind {
            Kind::Pod => &POD,
            Kind::Node => &NODE,
            Kind::Namespace => &NAMESPACE,
            Kind::ServiceAccount => &SERVICE_ACCOUNT,
            Kind::Service => &SERVICE,
            Kind::Event => &EVENT,
            Kind::ResourceQuota => &RESOURCE_QUOTA,
            Kind::ConfigMap
            | Kind::Secret
            | Kind::Endpoints
            | Kind::LimitRange
            | Kind::Lease
            | Kind::PriorityClass => &WITH_METADATA,
        })
    }

    pub fn field(self, name: &str) -> Place {
        match self.of.fields.iter().find(|field| field.name == name) {
            Some(field) => Place {
                list: field.list,
                patch: field.patch,
                of: field.of,
            },
            None => Place::element(&ANY),
        }
    }

    /// An element of the list that stands here.
    pub fn of_element(self) -> Place {
        Place::element(self.of)
    }

    const fn element(of: &'static Type) -> Place {
        Place {
            list: List::Atomic,
            patch: Patch::Replace,
            of,
        }
    }
}

/// The value of a list key that is left out. Source: `default` in the schemas.
pub fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}

const fn map(name: &'static str, of: &'static Type) -> Field {
    Field {
        name,
        list: List::Atomic,
        patch: Patch::Replace,
        of,
    }
}

/// A list of maps; patches tell them apart by the first key.
const fn keyed(name: &'static str, keys: &'static [&'static str], of: &'static Type) -> Field {
    Field {
        name,
        list: List::Map(keys),
        patch: Patch::Merge(keys[0]),
        of,
    }
}

const fn retaining(field: Field) -> Field {
    match field.patch {
        Patch::Merge(key) => Field {
            patch: Patch::MergeRetainKeys(key),
            ..field
        },
        _ => field,
    }
}

/// A list with keys that patches replace.
const fn replaced(field: Field) -> Field {
    Field {
        patch: Patch::Replace,
        ..field
    }
}

const fn set(name: &'static str) -> Field {
    Field {
        name,
        list: List::Set,
        patch: Patch::MergeScalars,
        of: &ANY,
    }
}

const fn fields(fields: &'static [Field]) -> Type {
    Type {
        atomic: false,
        fields,
    }
}

static ANY: Type = fields(&[]);
static ATOMIC: Type = Type {
    atomic: true,
    fields: &[],
};

static OBJECT_META: Type = fields(&[
    set("finalizers"),
    keyed("ownerReferences", &["uid"], &ATOMIC),
]);
static WITH_METADATA: Type = fields(&[map("metadata", &OBJECT_META)]);

static POD: Type = fields(&[
    map("metadata", &OBJECT_META),
    map("spec", &POD_SPEC),
    map("status", &POD_STATUS),
]);
static POD_SPEC: Type = fields(&[
    map("affinity", &AFFINITY),
    keyed("containers", &["name"], &CONTAINER),
    keyed("ephemeralContainers", &["name"], &CONTAINER),
    keyed("hostAliases", &["ip"], &ANY),
    keyed("imagePullSecrets", &["name"], &ATOMIC),
    keyed("initContainers", &["name"], &CONTAINER),
    map("nodeSelector", &ATOMIC),
    retaining(keyed("resourceClaims", &["name"], &ANY)),
    map("resources", &RESOURCE_REQUIREMENTS),
    keyed("schedulingGates", &["name"], &ANY),
    keyed(
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
        &SPREAD_CONSTRAINT,
    ),
    retaining(keyed("volumes", &["name"], &VOLUME)),
]);
static POD_STATUS: Type = fields(&[
    keyed("conditions", &["type"], &ANY),
    Field {
        list: List::Atomic,
        ..keyed("hostIPs", &["ip"], &ANY)
    },
    keyed("podIPs", &["ip"], &ANY),
    retaining(keyed("resourceClaimStatuses", &["name"], &ANY)),
    map("resources", &RESOURCE_REQUIREMENTS),
]);
static AFFINITY: Type = fields(&[map("nodeAffinity", &NODE_AFFINITY)]);
static NODE_AFFINITY: Type = fields(&[map(
    "requiredDuringSchedulingIgnoredDuringExecution",
    &ATOMIC,
)]);
static SPREAD_CONSTRAINT: Type = fields(&[map("labelSelector", &ATOMIC)]);
static RESOURCE_REQUIREMENTS: Type = fields(&[replaced(keyed("claims", &["name"], &ANY))]);

static CONTAINER: Type = fields(&[
    keyed("env", &["name"], &ENV_VAR),
    keyed("ports", &["containerPort", "protocol"], &ANY),
    map("resources", &RESOURCE_REQUIREMENTS),
    keyed("volumeDevices", &["devicePath"], &ANY),
    keyed("volumeMounts", &["mountPath"], &ANY),
]);
static ENV_VAR: Type = fields(&[map("valueFrom", &ENV_VAR_SOURCE)]);
static ENV_VAR_SOURCE: Type = fields(&[
    map("configMapKeyRef", &ATOMIC),
    map("fieldRef", &ATOMIC),
    map("fileKeyRef", &ATOMIC),
    map("resourceFieldRef", &ATOMIC),
    map("secretKeyRef", &ATOMIC),
]);

static VOLUME: Type = fields(&[
    map("cephfs", &WITH_SECRET_REF),
    map("cinder", &WITH_SECRET_REF),
    map("csi", &CSI_VOLUME),
    map("ephemeral", &EPHEMERAL_VOLUME),
    map("flexVolume", &WITH_SECRET_REF),
    map("iscsi", &WITH_SECRET_REF),
    map("rbd", &WITH_SECRET_REF),
    map("scaleIO", &WITH_SECRET_REF),
    map("storageos", &WITH_SECRET_REF),
]);
static WITH_SECRET_REF: Type = fields(&[map("secretRef", &ATOMIC)]);
static CSI_VOLUME: Type = fields(&[map("nodePublishSecretRef", &ATOMIC)]);
static EPHEMERAL_VOLUME: Type = fields(&[map("volumeClaimTemplate", &CLAIM_TEMPLATE)]);
static CLAIM_TEMPLATE: Type = fields(&[map("metadata", &OBJECT_META), map("spec", &CLAIM_SPEC)]);
static CLAIM_SPEC: Type = fields(&[map("dataSource", &ATOMIC), map("selector", &ATOMIC)]);

static NODE: Type = fields(&[
    map("metadata", &OBJECT_META),
    map("spec", &NODE_SPEC),
    map("status", &NODE_STATUS),
]);
static NODE_SPEC: Type = fields(&[set("podCIDRs")]);
static NODE_STATUS: Type = fields(&[
    keyed("addresses", &["type"], &ANY),
    keyed("conditions", &["type"], &ANY),
]);

static NAMESPACE: Type = fields(&[
    map("metadata", &OBJECT_META),
    map("status", &WITH_CONDITIONS),
]);
static WITH_CONDITIONS: Type = fields(&[keyed("conditions", &["type"], &ANY)]);

static SERVICE_ACCOUNT: Type = fields(&[
    map("metadata", &OBJECT_META),
    keyed("secrets", &["name"], &ATOMIC),
]);

static SERVICE: Type = fields(&[
    map("metadata", &OBJECT_META),
    map("spec", &SERVICE_SPEC),
    map("status", &WITH_CONDITIONS),
]);
static SERVICE_SPEC: Type = fields(&[
    keyed("ports", &["port", "protocol"], &ANY),
    map("selector", &ATOMIC),
]);

static EVENT: Type = fields(&[
    map("involvedObject", &ATOMIC),
    map("metadata", &OBJECT_META),
    map("regarding", &ATOMIC),
    map("related", &ATOMIC),
]);

static RESOURCE_QUOTA: Type = fields(&[map("metadata", &OBJECT_META), map("spec", &QUOTA_SPEC)]);
static QUOTA_SPEC: Type = fields(&[map("scopeSelector", &ATOMIC)]);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: Kind, path: &str) -> Place {
        let steps = path.split('.');
        steps.fold(Place::root(kind), |place, step| place.field(step))
    }

    #[test]
    fn lists_have_the_keys_of_their_struct_tags() {
        use Patch::{Merge, MergeRetainKeys, MergeScalars, Replace};
        let table = [
            (
                Kind::Pod,
                "spec.containers",
                List::Map(&["name"]),
                Merge("name"),
            ),
            (
                Kind::Pod,
                "spec.containers.ports",
                List::Map(&["containerPort", "protocol"]),
                Merge("containerPort"),
            ),
            (
                Kind::Pod,
                "spec.initContainers.volumeMounts",
                List::Map(&["mountPath"]),
                Merge("mountPath"),
            ),
            (
                Kind::Pod,
                "spec.volumes",
                List::Map(&["name"]),
                MergeRetainKeys("name"),
            ),
            (Kind::Pod, "spec.tolerations", List::Atomic, Replace),
            (Kind::Pod, "spec.containers.command", List::Atomic, Replace),
            (Kind::Pod, "status.hostIPs", List::Atomic, Merge("ip")),
            (
                Kind::Pod,
                "spec.containers.resources.claims",
                List::Map(&["name"]),
                Replace,
            ),
            (Kind::Secret, "metadata.finalizers", List::Set, MergeScalars),
            (
                Kind::Lease,
                "metadata.ownerReferences",
                List::Map(&["uid"]),
                Merge("uid"),
            ),
            (Kind::Node, "spec.taints", List::Atomic, Replace),
            (
                Kind::Node,
                "status.addresses",
                List::Map(&["type"]),
                Merge("type"),
            ),
            (
                Kind::ServiceAccount,
                "imagePullSecrets",
                List::Atomic,
                Replace,
            ),
            (
                Kind::ServiceAccount,
                "secrets",
                List::Map(&["name"]),
                Merge("name"),
            ),
        ];
        for (kind, path, list, patch) in table {
            let place = at(kind, path);
            assert_eq!((place.list, place.patch), (list, patch), "{kind} {path}");
        }
    }

    #[test]
    fn ports_of_services_and_maps_that_are_one_value_are_told() {
        let ports = at(Kind::Service, "spec.ports");
        let keys = List::Map(&["port", "protocol"]);
        assert_eq!((ports.list, ports.patch), (keys, Patch::Merge("port")));
        assert!(at(Kind::Pod, "spec.nodeSelector").of.atomic);
        assert!(!at(Kind::Pod, "metadata.labels").of.atomic);
        assert!(
            at(Kind::Pod, "spec.containers.env.valueFrom.secretKeyRef")
                .of
                .atomic
        );
    }
}
