//! `apply`, `create` and `delete`: what files say, done by the node; told as kubectl tells it.
//!
//! `apply` is a server-side apply under the name `lowtide`: the node merges, and says who else holds
//! a field. One object that fails does not keep the others back; the exit code tells.

use bytes::Bytes;
use clap::ArgMatches;
use http::Method;
use serde_json::{Value, json};

use super::files::{self, Stated};
use super::transport::{Client, Error, Lines, read_json};
use super::{JSON, given_namespace, namespace, put, resource, texts};
use crate::apiserver::query::encode;
use crate::object::Kind;

/// Holds the fields that `lowtide apply` sets.
const MANAGER: &str = "lowtide";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

pub fn apply(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let force = matches.get_flag("force-conflicts");
    each(client, matches, async |stated| {
        let (Some(name), path) = (&stated.name, stated.collection()) else {
            let text = format!("{}: cannot use generate name with apply", stated.place);
            return Err(Error::Usage(text));
        };
        let query = format!("fieldManager={MANAGER}&force={force}&fieldValidation=Strict");
        let path = format!("{path}/{}?{query}{}", encode(name), dry_run(matches));
        let body = Bytes::from(stated.body.to_string());
        let sent = client
            .send_body(Method::PATCH, &path, APPLY_PATCH, body)
            .await;
        let object = read_json(sent.map_err(with_advice)?).await?;
        said(stated.kind, &object, "serverside-applied", matches)
    })
}

pub fn create(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    each(client, matches, async |stated| {
        let query = format!(
            "fieldManager={MANAGER}&fieldValidation=Strict{}",
            dry_run(matches)
        );
        let path = format!("{}?{query}", stated.collection());
        let body = Bytes::from(stated.body.to_string());
        let sent = client.send_body(Method::POST, &path, JSON, body).await?;
        said(stated.kind, &read_json(sent).await?, "created", matches)
    })
}

/// Does `act` for every object of `-f`; the last error is the command's, those before it are printed.
fn each(
    client: &Client,
    matches: &ArgMatches,
    act: impl AsyncFn(&Stated) -> Result<(), Error>,
) -> Result<(), Error> {
    let stated = files::read(&texts(matches, "filename"), given_namespace(matches))?;
    let act = async |one: &Stated| act(one).await.map_err(|error| error.at(&one.place));
    client.block_on(all(stated.iter(), act))
}

async fn all<T>(
    them: impl Iterator<Item = T>,
    act: impl AsyncFn(T) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut failed = None;
    for one in them {
        if let Err(error) = act(one).await
            && let Some(before) = failed.replace(error)
        {
            eprintln!("{before}");
        }
    }
    failed.map_or(Ok(()), Err)
}

fn dry_run(matches: &ArgMatches) -> &'static str {
    match matches.get_flag("dry-run") {
        true => "&dryRun=All",
        false => "",
    }
}

/// `pod/web created`
fn said(kind: Kind, object: &Value, what: &str, matches: &ArgMatches) -> Result<(), Error> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let dry = match matches.get_flag("dry-run") {
        true => " (server dry run)",
        false => "",
    };
    put(format!("{}/{name} {what}{dry}\n", typed(kind)))
}

/// As kubectl names a kind in its reports: `pod`, `priorityclass.scheduling.k8s.io`.
fn typed(kind: Kind) -> String {
    let name = kind.name().to_lowercase();
    match kind.group() {
        "" => name,
        group => format!("{name}.{group}"),
    }
}

/// A conflict, with the way out of it.
fn with_advice(error: Error) -> Error {
    match error {
        Error::Server {
            code: 409,
            reason,
            message,
        } if message.starts_with("Apply failed") => Error::Server {
            code: 409,
            reason,
            message: format!(
                "{message}\nthe fields above have other managers: leave them out of the file, give \
                 them the same value, or take them with --force-conflicts"
            ),
        },
        other => other,
    }
}

/// One object that is to go.
struct Doomed {
    kind: Kind,
    namespace: String,
    name: String,
}

pub fn delete(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let doomed = doomed(matches)?;
    client.block_on(all(doomed.iter(), async |one| {
        end(client, one, matches).await
    }))
}

fn doomed(matches: &ArgMatches) -> Result<Vec<Doomed>, Error> {
    let files = texts(matches, "filename");
    let words = texts(matches, "words");
    let namespace = namespace(matches).to_owned();
    let usage = |text: &str| Err(Error::Usage(text.to_owned()));
    if !files.is_empty() {
        if !words.is_empty() {
            return usage("give either -f or a type and names");
        }
        let stated = files::read(&files, given_namespace(matches))?.into_iter();
        let named = stated.filter_map(|one| {
            let name = one.name?;
            let (kind, namespace) = (one.kind, one.namespace);
            Some(Doomed {
                kind,
                namespace,
                name,
            })
        });
        return Ok(named.collect());
    }
    let one = |kind: &str, name: &str| {
        Ok(Doomed {
            kind: resource::kind(kind)?,
            namespace: namespace.clone(),
            name: name.to_owned(),
        })
    };
    let pairs = words.iter().map(|word| word.split_once('/'));
    if let Some(pairs) = pairs.collect::<Option<Vec<_>>>()
        && !pairs.is_empty()
    {
        return pairs
            .into_iter()
            .map(|(kind, name)| one(kind, name))
            .collect();
    }
    match words.as_slice() {
        [] | [_] => usage("resource(s) were provided, but no name was specified"),
        [kind, names @ ..] => names.iter().map(|name| one(kind, name)).collect(),
    }
}

async fn end(client: &Client, one: &Doomed, matches: &ArgMatches) -> Result<(), Error> {
    let name = match one.kind {
        // By the name of its manifest too, as with every other command.
        Kind::Pod => resource::pod_name(client, &one.namespace, &one.name).await,
        _ => Ok(one.name.clone()),
    };
    // One that is not there is for the node to say.
    let name = name.unwrap_or_else(|_| one.name.clone());
    let path = resource::object(one.kind, &one.namespace, &name);
    let grace = matches.get_one::<i64>("grace-period");
    let mut options = json!({"propagationPolicy": "Background"});
    if let Some(grace) = grace.filter(|grace| **grace >= 0) {
        options["gracePeriodSeconds"] = json!(grace);
    }
    let body = Bytes::from(options.to_string());
    let answer = match client.send_body(Method::DELETE, &path, JSON, body).await {
        Err(error) if error.is_not_found() && matches.get_flag("ignore-not-found") => {
            return Ok(());
        }
        answer => read_json(answer?).await?,
    };
    let place = match one.kind.namespaced() {
        true => format!(" from {} namespace", one.namespace),
        false => String::new(),
    };
    put(format!(
        "{} {:?} deleted{place}\n",
        typed(one.kind),
        one.name
    ))?;
    match matches.get_flag("no-wait") {
        true => Ok(()),
        false => gone(client, one, &path, &answer).await,
    }
}

/// Waits until the object of this uid is not there any more.
async fn gone(client: &Client, one: &Doomed, path: &str, answer: &Value) -> Result<(), Error> {
    let uid = &answer["metadata"]["uid"];
    if answer["kind"] == "Status" || !uid.is_string() {
        return Ok(());
    }
    loop {
        let object = match client.get(path, JSON).await {
            Err(error) if error.is_not_found() => return Ok(()),
            object => object?,
        };
        if object["metadata"]["uid"] != *uid {
            return Ok(());
        }
        let version = object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default();
        let collection = resource::collection(one.kind, Some(&one.namespace));
        let path = format!(
            "{collection}?watch=true&fieldSelector=metadata.name%3D{}&resourceVersion={version}",
            encode(&one.name)
        );
        let mut lines = Lines::of(client.send(Method::GET, &path, JSON).await?);
        while let Some(line) = lines.next().await? {
            match line["type"].as_str() {
                Some("DELETED") if line["object"]["metadata"]["uid"] == *uid => return Ok(()),
                // The history is too short: from what is there now.
                Some("ERROR") => break,
                _ => {}
            }
        }
    }
}
