//! `metrics.k8s.io/v1beta1`: what `kubectl top` reads. Pure.
//!
//! Made from a look like any other figure: `window` is what the rates are reckoned over.
//! Source: Kubernetes staging/src/k8s.io/metrics, sigs.k8s.io/metrics-server pkg/api.

use serde_json::{Value, json};

use super::summary::time;
use crate::apiserver::selector::Selector;
use crate::object::{Key, Kind};
use crate::registry::Packed;
use crate::world::{PodStats, Sample, Usage};

pub const GROUP_VERSION: &str = "metrics.k8s.io/v1beta1";

/// The node's, or `None` while nothing can be measured.
pub fn node(sample: &Sample, node: &Packed) -> Option<Value> {
    let mut metrics = head("NodeMetrics", node, sample);
    metrics["usage"] = usage(&sample.node)?;
    Some(metrics)
}

/// The pod's, or `None` while it does not run or nothing can be measured.
pub fn pod(sample: &Sample, pod: &Packed) -> Option<Value> {
    let stats = stats_of(sample, pod)?;
    let containers = stats.containers.iter().map(|container| {
        let usage = usage(&container.usage)?;
        Some(json!({"name": container.name, "usage": usage}))
    });
    // One without a figure would make the sum look small: then nothing is said.
    let containers: Option<Vec<Value>> = containers.collect();
    let containers = containers.filter(|all| !all.is_empty())?;
    let mut metrics = head("PodMetrics", pod, sample);
    metrics["containers"] = containers.into();
    Some(metrics)
}

fn stats_of<'a>(sample: &'a Sample, pod: &Packed) -> Option<&'a PodStats> {
    let mut pods = sample.pods.iter();
    pods.find(|stats| stats.uid.as_str() == pod.uid())
}

/// All that the selector selects, in the order of `objects`.
pub fn list<'a>(
    kind: &str,
    objects: impl Iterator<Item = &'a Packed>,
    selector: &Selector,
    one: impl Fn(&Packed) -> Option<Value>,
) -> Value {
    let selected = objects.filter(|object| selector.selects(object));
    let items: Vec<Value> = selected.filter_map(one).collect();
    json!({"kind": kind, "apiVersion": GROUP_VERSION, "metadata": {}, "items": items})
}

fn head(kind: &str, object: &Packed, sample: &Sample) -> Value {
    let key: &Key = object.key();
    let mut metadata = json!({"name": key.name, "creationTimestamp": time(sample.at)});
    if key.kind == Kind::Pod {
        metadata["namespace"] = key.namespace.as_str().into();
    }
    let labels = &object.metadata()["labels"];
    if !labels.is_null() {
        metadata["labels"] = labels.clone();
    }
    json!({
        "kind": kind,
        "apiVersion": GROUP_VERSION,
        "metadata": metadata,
        "timestamp": time(sample.at),
        "window": format!("{}s", sample.window.as_millis() as f64 / 1e3),
    })
}

fn usage(usage: &Usage) -> Option<Value> {
    let memory = usage.memory?.working_set / 1024;
    let cpu = usage.cpu?.nano_cores?;
    let cpu = if cpu == 0 {
        "0".to_owned()
    } else {
        format!("{cpu}n")
    };
    Some(json!({"cpu": cpu, "memory": format!("{memory}Ki")}))
}
