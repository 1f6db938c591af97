//! The manifest directory of a run: files that come, change, break and go.
//!
//! Pods' commands are scripts (see `script.rs`). A broken text keeps the last good pod of its file.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::random::Stream;

/// What the generator may use; the plain set is for nodes that know little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Features {
    Plain,
    Full,
}

pub const IMAGES: [&str; 4] = [
    "registry.sim/busybox:1",
    "registry.sim/busybox:2",
    "registry.sim/web:1",
    "registry.sim/late:1",
];
pub const OBJECTS: [&str; 3] = ["settings", "flags", "tls"];
/// Pods at the same time; more find nothing new and cost time.
const PODS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub enum Document {
    Pod(Value),
    /// A ConfigMap and a Secret of this name.
    Objects(&'static str, u64),
}

#[derive(Clone, Debug)]
pub struct File {
    /// What the file said when it last made sense.
    pub good: Option<Document>,
    pub broken: bool,
}

#[derive(Default)]
pub struct Manifests {
    pub files: BTreeMap<String, File>,
    /// The pod that the last change put another in the place of.
    pub replaced: Option<String>,
    made: u64,
}

impl Manifests {
    /// Changes one thing, at random, and says what. Only a file whose pod the node has `accepted`
    /// breaks: of any other there is no last good pod to keep.
    pub fn change(
        &mut self,
        luck: &Stream,
        features: Features,
        accepted: impl Fn(&str) -> bool,
    ) -> String {
        let pods = self.pod_files();
        if pods.is_empty() || (pods.len() < PODS_MAX && luck.chance(250)) {
            return self.add(luck, features);
        }
        let file = luck.pick(&pods).clone();
        let choice = luck.between(0, if features == Features::Full { 6 } else { 1 });
        match choice {
            0 => {
                self.files.remove(&file);
                format!("remove {file}")
            }
            1 => self.edit(&file, luck),
            2 => {
                let broken = self.files.get_mut(&file).expect("listed");
                let known = broken
                    .good
                    .as_ref()
                    .and_then(pod_name)
                    .is_some_and(accepted);
                broken.broken = known && !broken.broken;
                format!("{file} broken: {}", broken.broken)
            }
            3 => {
                let mut moved = self.files.remove(&file).expect("listed");
                moved.broken = false;
                self.made += 1;
                let to = format!("f{}.yaml", self.made);
                self.files.insert(to.clone(), moved);
                format!("rename {file} {to}")
            }
            _ => self.toggle_objects(luck),
        }
    }

    pub fn pod_files(&self) -> Vec<String> {
        let is_pod = |file: &File| matches!(file.good, Some(Document::Pod(_)));
        let pods = self.files.iter().filter(|(_, file)| is_pod(file));
        pods.map(|(name, _)| name.clone()).collect()
    }

    fn add(&mut self, luck: &Stream, features: Features) -> String {
        self.made += 1;
        let (file, name) = (format!("f{}.yaml", self.made), format!("p{}", self.made));
        let pod = pod(&name, luck, features);
        let said = format!("add {file}: {pod}");
        let good = Some(Document::Pod(pod));
        let broken = false;
        self.files.insert(file, File { good, broken });
        said
    }

    fn edit(&mut self, file: &str, luck: &Stream) -> String {
        let edited = self.files.get_mut(file).expect("listed");
        edited.broken = false;
        let Some(Document::Pod(pod)) = &mut edited.good else {
            unreachable!("only pods are listed");
        };
        if luck.chance(500) {
            pod["metadata"]["labels"]["revision"] = json!(luck.between(0, 999).to_string());
            return format!("edit a label in {file}");
        }
        let image = *luck.pick(&IMAGES);
        if pod["spec"]["containers"][0]["image"] != image {
            self.replaced = pod["metadata"]["name"].as_str().map(str::to_owned);
        }
        pod["spec"]["containers"][0]["image"] = json!(image);
        format!("edit {file}: image {image}")
    }

    fn toggle_objects(&mut self, luck: &Stream) -> String {
        let name = *luck.pick(&OBJECTS);
        let file = format!("o-{name}.yaml");
        if self.files.remove(&file).is_some() {
            return format!("remove {file}");
        }
        let good = Some(Document::Objects(name, luck.next()));
        let broken = false;
        self.files.insert(file.clone(), File { good, broken });
        format!("add {file}")
    }

    /// Every object there is at the end: nothing waits for one that is missing.
    pub fn complete(&mut self) {
        for name in OBJECTS {
            let file = format!("o-{name}.yaml");
            let good = Some(Document::Objects(name, 1));
            let broken = false;
            self.files.entry(file).or_insert(File { good, broken });
        }
    }

    /// Images that only an import can bring to a container that waits for them.
    pub fn never_pulled(&self) -> Vec<String> {
        let goods = self.files.values().filter_map(|file| file.good.as_ref());
        let containers = goods.flat_map(|good| match good {
            Document::Pod(pod) => pod["spec"]["containers"].as_array().cloned(),
            Document::Objects(..) => None,
        });
        containers
            .flatten()
            .filter(|container| container["imagePullPolicy"] == "Never")
            .filter_map(|container| container["image"].as_str().map(str::to_owned))
            .collect()
    }

    /// Names (without the node's suffix) of pods that must be there.
    pub fn pod_names(&self) -> Vec<String> {
        let goods = self.files.values().filter_map(|file| file.good.as_ref());
        let mut names: Vec<String> = goods.filter_map(pod_name).map(str::to_owned).collect();
        names.sort();
        names
    }
}

fn pod_name(document: &Document) -> Option<&str> {
    match document {
        Document::Pod(pod) => pod["metadata"]["name"].as_str(),
        Document::Objects(..) => None,
    }
}

/// What a file says now: YAML's subset JSON, several documents.
pub fn text(file: &File) -> String {
    if file.broken {
        return "apiVersion: v1\nkind: Pod\nmetadata: {name: [\n".to_owned();
    }
    match &file.good {
        Some(Document::Pod(pod)) => pod.to_string(),
        Some(Document::Objects(name, value)) => {
            let value = value.to_string();
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": name}, "data": {"value": value}});
            let secret = json!({"apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": name}, "stringData": {"value": value}});
            format!("{map}\n---\n{secret}\n")
        }
        None => String::new(),
    }
}

fn words(text: &str) -> Value {
    text.split(' ').collect()
}

fn regular_script(luck: &Stream) -> String {
    let after = luck.between(5, 40_000);
    match luck.between(0, 9) {
        0 => format!("exit 0 after-ms {after}"),
        1 => format!("exit 1 after-ms {after}"),
        2 => format!("oom after-ms {after}"),
        3 => "not-found".to_owned(),
        4 => "forever deaf".to_owned(),
        5 => "forever stops-in-ms 3000".to_owned(),
        _ => "forever".to_owned(),
    }
}

pub fn pod(name: &str, luck: &Stream, features: Features) -> Value {
    let restart = *luck.pick(&["Always", "OnFailure", "Never"]);
    let mut containers = Vec::new();
    for index in 0..luck.between(1, 2) {
        let mut command = regular_script(luck);
        let mut container = json!({"name": format!("c{index}"), "image": luck.pick(&IMAGES)});
        let policies: &[&str] = match features {
            Features::Plain => &["IfNotPresent", "Always"],
            Features::Full => &["IfNotPresent", "IfNotPresent", "Always", "Always", "Never"],
        };
        container["imagePullPolicy"] = json!(luck.pick(policies));
        if features == Features::Full && luck.chance(350) {
            command = add_probes(&mut container, command, 8000 + index, luck);
        }
        if features == Features::Full {
            add_hooks(&mut container, luck);
        }
        container["command"] = words(&command);
        containers.push(container);
    }
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"revision": "0"}},
        "spec": {
            "restartPolicy": restart,
            "terminationGracePeriodSeconds": luck.between(1, 30),
            "containers": containers,
        },
    });
    if features == Features::Full {
        add_init(&mut pod, luck);
        add_objects(&mut pod, luck);
        if luck.chance(250) {
            pod["metadata"]["uid"] = json!(format!("pinned-{name}"));
        }
        if luck.chance(150) {
            pod["spec"]["hostNetwork"] = json!(true);
        }
        if luck.chance(100) {
            pod["spec"]["activeDeadlineSeconds"] = json!(luck.between(1, 300));
        }
    }
    pod
}

fn add_probes(container: &mut Value, command: String, port: u64, luck: &Stream) -> String {
    let action = match luck.between(0, 2) {
        0 => json!({"exec": {"command": ["check"]}}),
        1 => json!({"httpGet": {"port": port}}),
        _ => json!({"tcpSocket": {"port": port}}),
    };
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if luck.chance(500) {
            let mut probe = action.clone();
            probe["periodSeconds"] = json!(luck.between(1, 10));
            probe["failureThreshold"] = json!(luck.between(1, 3));
            container[kind] = probe;
        }
    }
    let well_at = luck.between(0, 1) * 4000;
    let sick = if luck.chance(250) {
        " sick-at-ms 50000"
    } else {
        ""
    };
    format!("{command} listen {port} well-at-ms {well_at}{sick}")
}

/// `hook` goes well unless the weather is bad, `fail` never does.
fn add_hooks(container: &mut Value, luck: &Stream) {
    for name in ["postStart", "preStop"] {
        if luck.chance(150) {
            let command = *luck.pick(&["hook", "hook", "hook", "fail"]);
            container["lifecycle"][name] = json!({"exec": {"command": [command, name]}});
        }
    }
}

fn add_init(pod: &mut Value, luck: &Stream) {
    let mut init = Vec::new();
    for index in 0..luck.between(0, 2) {
        let image = luck.pick(&IMAGES);
        let mut container = json!({"name": format!("i{index}"), "image": image});
        if luck.chance(300) {
            container["restartPolicy"] = json!("Always");
            container["command"] = words("forever");
        } else {
            let code = u64::from(luck.chance(150));
            let after = luck.between(1, 2000);
            container["command"] = words(&format!("exit {code} after-ms {after}"));
        }
        init.push(container);
    }
    if !init.is_empty() {
        pod["spec"]["initContainers"] = json!(init);
    }
}

fn add_objects(pod: &mut Value, luck: &Stream) {
    if luck.chance(350) {
        let name = luck.pick(&OBJECTS);
        let volume = match luck.between(0, 2) {
            0 => json!({"name": "v", "configMap": {"name": name}}),
            1 => json!({"name": "v", "secret": {"secretName": name}}),
            _ => json!({"name": "v", "emptyDir": {}}),
        };
        pod["spec"]["volumes"] = json!([volume]);
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    }
    if luck.chance(250) {
        let name = luck.pick(&OBJECTS);
        pod["spec"]["containers"][0]["envFrom"] = json!([{"configMapRef": {"name": name}}]);
    }
}
