//! `get` and `events`: tables rendered by the node, or whole objects.

use clap::ArgMatches;
use http::Method;
use serde_json::Value;

use super::print::{self, Columns, Single};
use super::transport::{Client, Error, Lines, TABLE};
use super::{JSON, namespace, put, resource, text, texts};
use crate::apiserver::query::encode;
use crate::object::{Kind, order};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// What was asked for.
struct Request<'a> {
    kind: Kind,
    names: Vec<&'a str>,
    /// `None` for all.
    namespace: Option<&'a str>,
    query: String,
    output: Output,
    watch: bool,
    headers: bool,
}

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
    let mut kinds = wanted
        .split(',')
        .map(resource::kind)
        .collect::<Result<Vec<_>, _>>()?;
    if kinds.len() > 1 && (!names.is_empty() || matches.get_flag("watch")) {
        let text = "names and --watch need a single resource type";
        return Err(Error::Usage(text.to_owned()));
    }
    if kinds.len() == 1 {
        return show(client, &request(kinds.remove(0), names, matches)?);
    }
    for (index, kind) in kinds.into_iter().enumerate() {
        if index > 0 {
            put("\n")?;
        }
        show(client, &request(kind, Vec::new(), matches)?)?;
    }
    Ok(())
}

pub fn events(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    show(client, &request(Kind::Event, Vec::new(), matches)?)
}

fn request<'a>(
    kind: Kind,
    names: Vec<&'a str>,
    matches: &'a ArgMatches,
) -> Result<Request<'a>, Error> {
    let all = matches.get_flag("all-namespaces");
    if all && !names.is_empty() {
        let text = "a resource cannot be retrieved by name across all namespaces";
        return Err(Error::Usage(text.to_owned()));
    }
    let mut query = String::from("?");
    let mut add = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            query.push_str(&format!("{name}={}&", encode(value)));
        }
    };
    add("labelSelector", text(matches, "selector"));
    let fields = matches
        .try_get_one::<String>("field-selector")
        .ok()
        .flatten();
    add("fieldSelector", fields.map(String::as_str));
    Ok(Request {
        kind,
        names,
        namespace: (!all).then(|| namespace(matches)),
        query,
        output: match text(matches, "output") {
            None => Output::Table,
            Some("wide") => Output::Wide,
            Some("json") => Output::Json,
            Some("yaml") => Output::Yaml,
            Some("name") => Output::Name,
            Some(other) => unreachable!("clap takes no output format {other}"),
        },
        watch: matches.get_flag("watch"),
        headers: !matches.get_flag("no-headers"),
    })
}

fn show(client: &Client, request: &Request<'_>) -> Result<(), Error> {
    client.block_on(async {
        match request.output {
            Output::Table | Output::Wide => table(client, request).await,
            Output::Json | Output::Yaml | Output::Name => objects(client, request).await,
        }
    })
}

/// The paths that answer the request, and the first error of a name that is not there: the others
/// are shown all the same.
async fn paths(
    client: &Client,
    request: &Request<'_>,
) -> Result<(Vec<String>, Option<Error>), Error> {
    if request.names.is_empty() {
        let path = resource::collection(request.kind, request.namespace);
        return Ok((vec![format!("{path}{}", request.query)], None));
    }
    let (mut paths, mut missing) = (Vec::new(), None);
    let namespace = request.namespace.unwrap_or_default();
    for name in &request.names {
        let full = match request.kind {
            Kind::Pod => match resource::pod_name(client, namespace, name).await {
                Ok(full) => full,
                Err(error) if error.is_not_found() => {
                    if let Some(before) = missing.replace(error) {
                        eprintln!("{before}");
                    }
                    continue;
                }
                Err(error) => return Err(error),
            },
            _ => (*name).to_owned(),
        };
        paths.push(resource::object(request.kind, namespace, &full));
    }
    Ok((paths, missing))
}

async fn table(client: &Client, request: &Request<'_>) -> Result<(), Error> {
    let (paths, missing) = paths(client, request).await?;
    let mut view = TableView::new(request);
    let (mut rows, mut version) = (Vec::new(), None);
    for path in &paths {
        let table = client.get(path, TABLE).await?;
        view.define(&table);
        rows.extend(view.rows(&table));
        version = version.or(table["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned));
    }
    if request.kind == Kind::Event {
        order::sort_by(&mut rows, |a, b| a.seen.cmp(&b.seen));
    }
    if rows.is_empty() && missing.is_none() && !request.watch {
        eprintln!("{}", nothing(request));
    }
    put(view.print(rows))?;
    if let Some(error) = missing {
        return Err(error);
    }
    if request.watch {
        let version = version.unwrap_or_default();
        return watch(client, request, &paths, &version, |line| {
            view.define(&line["object"]);
            let rows = view.rows(&line["object"]);
            view.print(rows)
        })
        .await;
    }
    Ok(())
}

fn nothing(request: &Request<'_>) -> String {
    match request.namespace.filter(|_| request.kind.namespaced()) {
        Some(namespace) => format!("No resources found in {namespace} namespace."),
        None => "No resources found".to_owned(),
    }
}

/// Follows one path from `version` for ever; a watch that ends is taken up again.
async fn watch(
    client: &Client,
    request: &Request<'_>,
    paths: &[String],
    version: &str,
    mut print: impl FnMut(&Value) -> String,
) -> Result<(), Error> {
    let [path] = paths else {
        return Err(Error::Usage(
            "you may only watch one resource or name".to_owned(),
        ));
    };
    let accept = match request.output {
        Output::Table | Output::Wide => TABLE,
        Output::Json | Output::Yaml | Output::Name => JSON,
    };
    let mut version = version.to_owned();
    loop {
        let mark = if path.contains('?') { "" } else { "?" };
        let path =
            format!("{path}{mark}watch=true&allowWatchBookmarks=true&resourceVersion={version}");
        let mut lines = Lines::of(client.send(Method::GET, &path, accept).await?);
        while let Some(line) = lines.next().await? {
            let object = &line["object"];
            if line["type"] == "ERROR" {
                let code = object["code"]
                    .as_u64()
                    .and_then(|code| u16::try_from(code).ok());
                let status = object.to_string();
                return Err(Error::from_status(code.unwrap_or(500), status.as_bytes()));
            }
            if let Some(seen) = object["metadata"]["resourceVersion"].as_str() {
                version = seen.to_owned();
            }
            if line["type"] != "BOOKMARK" {
                put(print(&line))?;
            }
        }
    }
}

/// One line to print, and when what it tells happened (events are shown in that order).
struct Line {
    cells: Vec<String>,
    seen: Option<String>,
}

/// Turns Table objects into aligned text.
struct TableView {
    columns: Columns,
    /// Index and name of the columns shown.
    shown: Vec<(usize, String)>,
    wide: bool,
    namespaces: bool,
    headers: bool,
}

impl TableView {
    fn new(request: &Request<'_>) -> TableView {
        TableView {
            columns: Columns::default(),
            shown: Vec::new(),
            wide: request.output == Output::Wide,
            namespaces: request.namespace.is_none() && request.kind.namespaced(),
            headers: request.headers,
        }
    }

    fn define(&mut self, table: &Value) {
        let columns = table["columnDefinitions"].as_array().into_iter().flatten();
        let shown = columns
            .enumerate()
            .filter(|(_, column)| self.wide || column["priority"] == 0);
        let shown: Vec<_> = shown
            .map(|(index, column)| {
                (
                    index,
                    column["name"]
                        .as_str()
                        .unwrap_or_default()
                        .to_ascii_uppercase(),
                )
            })
            .collect();
        if !shown.is_empty() {
            self.shown = shown;
        }
    }

    fn rows(&self, table: &Value) -> Vec<Line> {
        let rows = table["rows"].as_array().into_iter().flatten();
        rows.map(|row| {
            let metadata = &row["object"]["metadata"];
            let namespace = self.namespaces.then(|| print::cell(&metadata["namespace"]));
            let cells = self
                .shown
                .iter()
                .map(|(index, _)| print::cell(&row["cells"][*index]));
            Line {
                cells: namespace.into_iter().chain(cells).collect(),
                seen: metadata["resourceVersion"]
                    .as_str()
                    .map(|v| format!("{v:0>20}")),
            }
        })
        .collect()
    }

    fn print(&mut self, rows: Vec<Line>) -> String {
        if rows.is_empty() {
            return String::new();
        }
        let mut lines = Vec::new();
        if std::mem::take(&mut self.headers) {
            let namespace = self.namespaces.then(|| "NAMESPACE".to_owned());
            let names = self.shown.iter().map(|(_, name)| name.clone());
            lines.push(namespace.into_iter().chain(names).collect());
        }
        lines.extend(rows.into_iter().map(|row| row.cells));
        self.columns.print(&lines)
    }
}

async fn objects(client: &Client, request: &Request<'_>) -> Result<(), Error> {
    let (paths, missing) = paths(client, request).await?;
    let (mut found, mut version) = (Vec::new(), String::new());
    for path in &paths {
        let mut answer = client.get(path, JSON).await?;
        if let Some(at) = answer["metadata"]["resourceVersion"].as_str() {
            version = at.to_owned();
        }
        match answer.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => {
                found.extend(items.into_iter().map(|item| typed(item, request.kind)));
            }
            _ => found.push(answer),
        }
    }
    let single = match request.names.len() {
        1 => Single::Alone,
        _ => Single::InList,
    };
    put(render(request, found, single))?;
    match missing {
        Some(error) => Err(error),
        None if request.watch => {
            let print = |line: &Value| render(request, vec![line["object"].clone()], Single::Alone);
            watch(client, request, &paths, &version, print).await
        }
        None => Ok(()),
    }
}

fn render(request: &Request<'_>, found: Vec<Value>, single: Single) -> String {
    match request.output {
        Output::Yaml => print::to_yaml(&print::document(found, single)),
        Output::Json => print::to_json(&print::document(found, single)),
        Output::Name | Output::Table | Output::Wide => {
            let kind = request.kind.name().to_ascii_lowercase();
            let line =
                |object: &Value| format!("{kind}/{}\n", print::cell(&object["metadata"]["name"]));
            found.iter().map(line).collect()
        }
    }
}

/// An item of a list with the kind that the list leaves out.
fn typed(mut item: Value, kind: Kind) -> Value {
    item["apiVersion"] = "v1".into();
    item["kind"] = kind.name().into();
    item
}
