//! `describe`: an object and everything about it that helps to see why it is as it is.

mod container;
mod node;
mod page;
mod pod;

use clap::ArgMatches;
use serde_json::Value;

use super::transport::{Client, Error};
use super::{JSON, namespace, put, resource, text, texts};
use crate::apiserver::query::encode;
use crate::object::{Kind, order};
use crate::os::clock;

pub fn run(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let wanted = text(matches, "type").unwrap_or_default();
    let mut names = texts(matches, "names");
    let wanted = match wanted.split_once('/') {
        Some((wanted, name)) => {
            names.insert(0, name);
            wanted
        }
        None => wanted,
    };
    let kind = resource::kind(wanted)?;
    if !matches!(kind, Kind::Pod | Kind::Node) {
        let text = format!("describe knows pods and nodes, not {}", kind.plural());
        return Err(Error::Usage(text));
    }
    client.block_on(describe(client, kind, namespace(matches), names))
}

async fn describe(
    client: &Client,
    kind: Kind,
    namespace: &str,
    names: Vec<&str>,
) -> Result<(), Error> {
    let names = match names.is_empty() {
        false => names.into_iter().map(str::to_owned).collect(),
        true => {
            let list = client
                .get(&resource::collection(kind, Some(namespace)), JSON)
                .await?;
            let items = list["items"].as_array().into_iter().flatten();
            let names = items.filter_map(|item| item["metadata"]["name"].as_str());
            names.map(str::to_owned).collect::<Vec<_>>()
        }
    };
    if names.is_empty() {
        eprintln!("No resources found in {namespace} namespace.");
    }
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            put("\n\n")?;
        }
        let page = match kind {
            Kind::Pod => {
                let name = resource::pod_name(client, namespace, name).await?;
                let path = resource::object(kind, namespace, &name);
                let pod = client.get(&path, JSON).await?;
                let standing = path.replacen("/api/v1/", "/lowtide/v1/standing/", 1);
                let standing = client.get(&standing, JSON).await?;
                let events = events(client, &pod).await?;
                pod::page(&pod, &standing, &events, clock::wall_time())
            }
            _ => {
                let node = client
                    .get(&resource::object(kind, namespace, name), JSON)
                    .await?;
                let pods = client.get("/api/v1/pods", JSON).await?;
                let status = client.get("/lowtide/v1/status", JSON).await?;
                let events = events(client, &node).await?;
                node::page(&node, &pods, &status, &events, clock::wall_time())
            }
        };
        put(page.text())?;
    }
    Ok(())
}

/// Events about an object, oldest first.
async fn events(client: &Client, object: &Value) -> Result<Vec<Value>, Error> {
    let metadata = &object["metadata"];
    let field = |name: &str| metadata[name].as_str().unwrap_or_default().to_owned();
    let mut selector = format!("involvedObject.name={}", field("name"));
    if metadata["namespace"].is_string() {
        selector.push_str(&format!(",involvedObject.uid={}", field("uid")));
    } else {
        selector.push_str(",involvedObject.kind=Node");
    }
    let path = format!("/api/v1/events?fieldSelector={}", encode(&selector));
    let mut list = client.get(&path, JSON).await?;
    let mut events = match list["items"].take() {
        Value::Array(events) => events,
        _ => Vec::new(),
    };
    let last = |event: &Value| {
        event["lastTimestamp"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    order::sort_by_key(&mut events, last);
    Ok(events)
}
