//! `/metrics`: what the server has answered, how fast, and what it holds, as Prometheus text.
//!
//! Labels come out of the table of what is served, never out of a request, so that nobody can make
//! the table of figures grow. Source: Kubernetes apiserver, endpoints/metrics; Prometheus text
//! format 0.0.4.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;

use super::Shared;
use super::discovery::served::SERVED;
use super::discovery::{MAJOR, MINOR, git_version};
use super::request_info::RequestInfo;
use super::status::typed_response;
use crate::net::serve::{Body, Response};
use crate::object::Kind;
use crate::runtime;

/// Upper bounds of the durations, in seconds; a few of upstream's.
const BUCKETS_S: [f64; 5] = [0.005, 0.05, 0.5, 5.0, 60.0];

/// What a request was, in words that are bounded in number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

impl Labels {
    pub fn of(info: &RequestInfo) -> Labels {
        let verb = match info.verb.as_str() {
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" | "post" => "POST",
            "update" | "put" => "PUT",
            "patch" => "PATCH",
            "delete" => "DELETE",
            "deletecollection" => "DELETECOLLECTION",
            _ => "other",
        };
        let mut all = SERVED
            .iter()
            .filter(|s| s.group == info.group && s.version == info.version);
        let found = all.find_map(|served| {
            let mut resources = served.resources.iter();
            let resource = resources.find(|resource| resource.plural == info.resource)?;
            let part = resource
                .parts
                .iter()
                .find(|part| part.name == info.subresource);
            Some(Labels {
                verb,
                group: served.group,
                version: served.version,
                resource: resource.plural,
                subresource: part.map_or("", |part| part.name),
            })
        });
        found.unwrap_or(Labels {
            verb,
            ..Labels::default()
        })
    }

    fn text(&self) -> String {
        let Labels {
            verb,
            group,
            version,
            resource,
            subresource,
        } = self;
        format!(
            "group=\"{group}\",resource=\"{resource}\",subresource=\"{subresource}\",\
             verb=\"{verb}\",version=\"{version}\""
        )
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Durations {
    buckets: [u64; BUCKETS_S.len()],
    count: u64,
    sum_s: f64,
}

/// Counted since the start of the program.
#[derive(Debug)]
pub struct Metrics {
    started: Timestamp,
    requests: RefCell<BTreeMap<(Labels, u16), u64>>,
    durations: RefCell<BTreeMap<Labels, Durations>>,
}

impl Metrics {
    /// `started`: when the program did, as far as its server knows.
    pub fn new(started: Timestamp) -> Metrics {
        Metrics {
            started,
            requests: RefCell::default(),
            durations: RefCell::default(),
        }
    }

    /// Notes an answer. Of streams only the time until they began is known, and not kept.
    pub fn note(&self, labels: Labels, code: StatusCode, took: Duration) {
        *self
            .requests
            .borrow_mut()
            .entry((labels, code.as_u16()))
            .or_default() += 1;
        if labels.verb == "WATCH" {
            return;
        }
        let mut all = self.durations.borrow_mut();
        let durations = all.entry(labels).or_default();
        let took_s = took.as_secs_f64();
        durations.count += 1;
        durations.sum_s += took_s;
        for (bucket, bound) in durations.buckets.iter_mut().zip(BUCKETS_S) {
            *bucket += u64::from(took_s <= bound);
        }
    }

    fn write(&self, text: &mut String) {
        head(
            text,
            "apiserver_request_total",
            "counter",
            "Requests answered.",
        );
        for ((labels, code), count) in &*self.requests.borrow() {
            let labels = labels.text();
            line(
                text,
                "apiserver_request_total",
                &format!("code=\"{code}\",{labels}"),
                count,
            );
        }
        let name = "apiserver_request_duration_seconds";
        head(
            text,
            name,
            "histogram",
            "Time until an answer began, in seconds.",
        );
        for (labels, durations) in &*self.durations.borrow() {
            let labels = labels.text();
            let bucket = format!("{name}_bucket");
            for (count, bound) in durations.buckets.iter().zip(BUCKETS_S) {
                line(text, &bucket, &format!("{labels},le=\"{bound}\""), count);
            }
            line(
                text,
                &bucket,
                &format!("{labels},le=\"+Inf\""),
                durations.count,
            );
            line(text, &format!("{name}_sum"), &labels, durations.sum_s);
            line(text, &format!("{name}_count"), &labels, durations.count);
        }
    }
}

pub(super) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

pub(super) fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name}{{{labels}}} {value}").expect("a String takes it");
}

/// All figures of the server, behind those that are there already.
pub fn answer(shared: &Shared, mut text: String) -> Response {
    shared.metrics.write(&mut text);
    let name = "apiserver_storage_objects";
    head(&mut text, name, "gauge", "Objects of each kind.");
    for kind in Kind::ALL {
        let resource = match kind.group() {
            "" => kind.plural().to_owned(),
            group => format!("{}.{group}", kind.plural()),
        };
        let count = shared.reader.list_packed(kind, None).0.len();
        line(&mut text, name, &format!("resource=\"{resource}\""), count);
    }
    let gauges = [
        (
            "lowtide_api_streams",
            "Watches and followed logs.",
            shared.streams.0.get(),
        ),
        (
            "lowtide_api_execs",
            "Commands under way by exec.",
            shared.execs.0.get(),
        ),
        (
            "lowtide_api_connections",
            "Over TLS.",
            shared.at_api.connections.0.get(),
        ),
    ];
    for (name, help, value) in gauges {
        head(&mut text, name, "gauge", help);
        text.push_str(&format!("{name} {value}\n"));
    }
    process(shared, &mut text);
    head(
        &mut text,
        "kubernetes_build_info",
        "gauge",
        "What is running.",
    );
    let labels = format!(
        "git_version=\"{}\",major=\"{MAJOR}\",minor=\"{MINOR}\"",
        git_version()
    );
    line(&mut text, "kubernetes_build_info", &labels, 1);
    let body = Body::bytes(text);
    typed_response(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        body,
    )
}

/// What the program itself uses, and how often its workers looked at their pods. What cannot be read
/// is left out. Source: Prometheus, "Standard and runtime collectors".
fn process(shared: &Shared, text: &mut String) {
    let usage = runtime::stats::this_process();
    let cpu_s = usage
        .cpu
        .map(|cpu| Duration::from_nanos(cpu.total_ns).as_secs_f64());
    let resident = usage.memory.map(|memory| memory.usage as f64);
    let started_s = shared.metrics.started.as_millisecond() as f64 / 1000.0;
    let turns = shared.options.figures.turns() as f64;
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Processor time of user and system.",
            cpu_s,
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory.",
            resident,
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start, since 1970.",
            Some(started_s),
        ),
        (
            "lowtide_pod_worker_turns_total",
            "counter",
            "Looks at a pod and what was due.",
            Some(turns),
        ),
    ] {
        if let Some(value) = value {
            head(text, name, kind, help);
            text.push_str(&format!("{name} {value}\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::query::Query;
    use http::Method;

    fn labels(method: &Method, path: &str) -> Labels {
        let info = RequestInfo::parse(method, path, &Query::default());
        Labels::of(&info.expect("a clean path"))
    }

    #[test]
    fn answers_are_counted_by_what_is_served_only() {
        let metrics = Metrics::new(Timestamp::UNIX_EPOCH);
        let get = labels(&Method::GET, "/api/v1/namespaces/a/pods/p/log");
        metrics.note(get, StatusCode::OK, Duration::from_millis(20));
        metrics.note(get, StatusCode::OK, Duration::from_secs(2));
        for n in 0..100 {
            let strange = labels(&Method::GET, &format!("/apis/g{n}/v1/r{n}/x/y{n}"));
            metrics.note(strange, StatusCode::NOT_FOUND, Duration::ZERO);
        }
        assert_eq!(metrics.requests.borrow().len(), 2);
        let mut text = String::new();
        metrics.write(&mut text);
        let pods = "group=\"\",resource=\"pods\",subresource=\"log\",verb=\"GET\",version=\"v1\"";
        for part in [
            format!("apiserver_request_total{{code=\"200\",{pods}}} 2\n"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"0.05\"}} 1\n"),
            format!("apiserver_request_duration_seconds_bucket{{{pods},le=\"+Inf\"}} 2\n"),
            format!("apiserver_request_duration_seconds_sum{{{pods}}} 2.02\n"),
        ] {
            assert!(text.contains(&part), "{part} in {text}");
        }
    }
}
