//! `logs`: a container's output, as it comes.

use clap::ArgMatches;
use http::Method;
use http_body_util::BodyExt;

use super::transport::{Client, Error};
use super::{namespace, put, resource, text};
use crate::apiserver::query::encode;
use crate::object::Kind;

pub fn run(client: &Client, matches: &ArgMatches) -> Result<(), Error> {
    let query = query(matches)?;
    client.block_on(async {
        let (namespace, wanted) = (namespace(matches), text(matches, "pod").unwrap_or_default());
        let wanted = wanted.strip_prefix("pod/").unwrap_or(wanted);
        let name = resource::pod_name(client, namespace, wanted).await?;
        let path = format!(
            "{}/log{query}",
            resource::object(Kind::Pod, namespace, &name)
        );
        let mut body = client.send(Method::GET, &path, "*/*").await?.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Error::Broken(format!("read the log: {error}")))?;
            put(frame.into_data().unwrap_or_default())?;
        }
        Ok(())
    })
}

fn query(matches: &ArgMatches) -> Result<String, Error> {
    let mut query = String::from("?");
    let mut add = |name: &str, value: &str| query.push_str(&format!("{name}={}&", encode(value)));
    if let Some(container) = text(matches, "container").or(text(matches, "container-name")) {
        add("container", container);
    }
    for flag in ["follow", "previous", "timestamps"] {
        if matches.get_flag(flag) {
            add(flag, "true");
        }
    }
    if let Some(lines) = matches.get_one::<i64>("tail").filter(|lines| **lines >= 0) {
        add("tailLines", &lines.to_string());
    }
    if let Some(span) = text(matches, "since") {
        let seconds = go_seconds(span).ok_or_else(|| {
            Error::Usage(format!(
                "--since {span:?}: must be a span such as 5s, 2m, 1h30m"
            ))
        })?;
        add("sinceSeconds", &seconds.to_string());
    }
    if let Some(time) = text(matches, "since-time") {
        add("sinceTime", time);
    }
    if let Some(bytes) = matches.get_one::<u64>("limit-bytes") {
        add("limitBytes", &bytes.to_string());
    }
    Ok(query)
}

/// Whole seconds of a Go duration, rounded up; `None` if it is none or not positive.
fn go_seconds(text: &str) -> Option<u64> {
    let (mut rest, mut seconds) = (text, 0.0_f64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (seconds > 0.0 && seconds < 1e12).then(|| seconds.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_become_seconds() {
        let table = [
            ("5s", Some(5)),
            ("1h30m", Some(5400)),
            ("1.5m", Some(90)),
            ("10ms", Some(1)),
            ("5", None),
            ("", None),
            ("s", None),
            ("-5s", None),
            ("5d", None),
        ];
        for (text, seconds) in table {
            assert_eq!(go_seconds(text), seconds, "{text}");
        }
    }
}
