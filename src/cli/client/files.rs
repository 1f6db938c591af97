//! Objects of `-f`: files, directories and standard input, as YAML or JSON.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::resource;
use super::transport::Error;
use crate::manifest::decode;
use crate::object::Kind;

/// Of one file; the node takes 3 MiB an object.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// One object, and where it goes.
#[derive(Debug)]
pub struct Stated {
    pub kind: Kind,
    /// Empty for kinds without.
    pub namespace: String,
    /// `None`: it has a `generateName`.
    pub name: Option<String>,
    pub body: Value,
    /// `web.yaml:3`
    pub place: String,
}

impl Stated {
    pub fn collection(&self) -> String {
        resource::collection(self.kind, Some(&self.namespace))
    }
}

/// All objects, in order: of directories the files `.yaml`, `.yml` and `.json` by name. Errors:
/// usage, with file and line, before anything is sent.
pub fn read(names: &[&str], namespace: Option<&str>) -> Result<Vec<Stated>, Error> {
    if names.is_empty() {
        return Err(Error::Usage("must specify -f".to_owned()));
    }
    let mut all = Vec::new();
    for name in names {
        for path in paths(name)? {
            let text = content(&path)?;
            let shown = path
                .as_ref()
                .map_or("-".into(), |path| path.display().to_string());
            for decoded in decode::decode_any(&text) {
                let place = format!("{shown}:{}", decoded.line);
                let wrong = |why: String| Error::Usage(format!("{place}: {why}"));
                let body = decoded.outcome.map_err(wrong)?;
                all.push(stated(body, namespace, &place)?);
            }
        }
    }
    match all.is_empty() {
        true => Err(Error::Usage("no objects passed".to_owned())),
        false => Ok(all),
    }
}

/// `None` is standard input.
fn paths(name: &str) -> Result<Vec<Option<PathBuf>>, Error> {
    if name == "-" {
        return Ok(vec![None]);
    }
    let path = Path::new(name);
    if !path.is_dir() {
        return Ok(vec![Some(path.to_owned())]);
    }
    let failed = |error: io::Error| Error::Usage(format!("{name}: {error}"));
    let mut found = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("yaml" | "yml" | "json")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found.into_iter().map(Some).collect())
}

fn content(path: &Option<PathBuf>) -> Result<Vec<u8>, Error> {
    let (name, source): (String, Box<dyn Read>) = match path {
        None => ("standard input".to_owned(), Box::new(io::stdin())),
        Some(path) => {
            let name = path.display().to_string();
            let file = fs::File::open(path);
            let file = file.map_err(|error| Error::Usage(format!("{name}: {error}")))?;
            (name, Box::new(file))
        }
    };
    let mut bytes = Vec::new();
    let read = source.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::Usage(format!("{name}: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("{name}: larger than {FILE_BYTES_MAX} bytes");
        return Err(Error::Usage(text));
    }
    Ok(bytes)
}

fn stated(mut body: Value, asked: Option<&str>, place: &str) -> Result<Stated, Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&body["apiVersion"]), text(&body["kind"]));
    let wrong = |why: String| Error::Usage(format!("{place}: {why}"));
    let known = Kind::from_name(&kind).filter(|kind| kind.api_version() == version);
    let kind = known.ok_or_else(|| {
        wrong(format!(
            "no matches for kind {kind:?} in version {version:?}"
        ))
    })?;
    let metadata = &body["metadata"];
    let (name, given) = (text(&metadata["name"]), text(&metadata["namespace"]));
    if name.is_empty() && text(&metadata["generateName"]).is_empty() {
        return Err(wrong("resource name may not be empty".to_owned()));
    }
    let namespace = match (kind.namespaced(), given.as_str(), asked) {
        (false, _, _) => String::new(),
        (true, given, Some(asked)) if !given.is_empty() && given != asked => {
            return Err(wrong(format!(
                "the namespace from the provided object {given:?} does not match the namespace \
                 {asked:?}. You must pass '--namespace={given}' to perform this operation."
            )));
        }
        (true, "", asked) => asked.unwrap_or("default").to_owned(),
        (true, given, _) => given.to_owned(),
    };
    if kind.namespaced() {
        body["metadata"]["namespace"] = namespace.clone().into();
    }
    Ok(Stated {
        kind,
        namespace,
        name: Some(name).filter(|name| !name.is_empty()),
        body,
        place: place.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_go_where_they_say_or_where_the_user_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let object = |kind: &str, more: &str| {
            format!("apiVersion: v1\nkind: {kind}\nmetadata:\n  name: x\n{more}")
        };
        write("b.yaml", &object("ConfigMap", ""));
        let both = [
            object("Secret", "  namespace: b\n"),
            object("Namespace", ""),
        ];
        write("a.yml", &both.join("---\n"));
        write("c.txt", "not yaml: [");
        let all = directory.path().display().to_string();
        let found = read(&[&all], None).expect("three objects");
        let found: Vec<_> = found
            .iter()
            .map(|one| (one.kind, one.namespace.as_str()))
            .collect();
        let expected = [
            (Kind::Secret, "b"),
            (Kind::Namespace, ""),
            (Kind::ConfigMap, "default"),
        ];
        assert_eq!(found, expected);
        let error = read(&[&all], Some("c"))
            .expect_err("two namespaces")
            .to_string();
        assert!(
            error.contains("a.yml:1: ") && error.contains("--namespace=b"),
            "{error}"
        );
        for (text, part) in [
            (
                "apiVersion: v2\nkind: Pod\nmetadata: {name: x}\n",
                "no matches for kind \"Pod\"",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {}\n",
                "name may not be empty",
            ),
            ("a: 1\n---\nb: [\n", "d.yaml:"),
            ("", "no objects passed"),
        ] {
            let path = write("d.yaml", text);
            let error = read(&[&path], None).expect_err(text).to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
