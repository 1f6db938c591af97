//! How to reach the cluster and as whom: what a kubeconfig file says. Pure.
//!
//! Files that it names are only named here; `credentials` reads them, again and again. What cannot
//! be honoured is refused by name, with file, line and field; a field that nobody knows is a warning.
//! Source: Kubernetes, "Organizing Cluster Access Using kubeconfig Files", and client-go's clientcmd.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde_json::{Map, Value, json};

use crate::net::proxy::Proxies;
use crate::net::tls::Verification;
use crate::object::locate::line_of;
use crate::object::text;

/// API servers of one cluster that are tried in turn.
pub const SERVERS_MAX: usize = 16;

/// One way to one cluster.
#[derive(Clone)]
pub struct Settings {
    /// One to `SERVERS_MAX`, absolute. A path is put before those of requests.
    pub servers: Vec<Uri>,
    /// What certificates have to be for, if not for the host of the URL.
    pub server_name: Option<String>,
    pub verification: Verification,
    /// PEM. `None`: the system's authorities count; else only these.
    pub authority: Option<Content>,
    /// Certificate chain and private key, PEM.
    pub certificate: Option<(Content, Content)>,
    pub login: Login,
    /// `Impersonate-…` headers.
    pub impersonate: Vec<(String, String)>,
    /// `None`: the environment's.
    pub proxies: Option<Proxies>,
}

/// Bytes, or where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Here(Vec<u8>),
    File(PathBuf),
}

/// What is said in the `Authorization` header.
#[derive(Clone, PartialEq)]
pub enum Login {
    Nothing,
    Token(String),
    /// The file wins; `otherwise` counts while it cannot be read.
    TokenFile {
        path: PathBuf,
        otherwise: Option<String>,
    },
    Basic {
        username: String,
        password: String,
    },
    Exec(Exec),
}

/// A program that prints credentials (KEP-541).
#[derive(Clone, PartialEq)]
pub struct Exec {
    /// `client.authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// A path, or a name to look for on PATH.
    pub command: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// `spec.cluster` of what it is told, if it wants that.
    pub cluster: Option<Value>,
    /// Shown when there is no such program.
    pub install_hint: String,
}

impl Settings {
    /// What `--api-server` alone says: no credentials, and whom the system trusts.
    pub fn without_credentials(servers: Vec<Uri>) -> Settings {
        Settings {
            servers,
            server_name: None,
            verification: Verification::Full,
            authority: None,
            certificate: None,
            login: Login::Nothing,
            impersonate: Vec::new(),
            proxies: None,
        }
    }

    /// The one file that both the client's chain and its key are in.
    pub fn certificate_file(&self) -> Option<&Path> {
        match &self.certificate {
            Some((Content::File(chain), Content::File(key))) if chain == key => Some(chain),
            _ => None,
        }
    }
}

/// The URL of an API server. Errors: why it is none, without the text, which may hold a password.
pub fn server_url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
    if !matches!(url.scheme_str(), Some("https" | "http")) {
        return Err("must begin with https:// or http://".to_owned());
    }
    let authority = url.authority().map_or("", |authority| authority.as_str());
    match (authority.contains('@'), url.query()) {
        (true, _) => Err("must not hold a user; users[].user says who asks".to_owned()),
        (_, Some(_)) => Err("must not have a query".to_owned()),
        _ => Ok(url),
    }
}

/// Reads the current context of the kubeconfig `text` of the file `path`; `servers`, if any, take
/// the place of the file's. Returns warnings too, each on a line.
/// Errors: `PATH:LINE: FIELD: why`.
pub fn parse(path: &Path, text: &str, servers: &[Uri]) -> Result<(Settings, Vec<String>), String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value =
        text::parse(text).map_err(|(line, why)| format!("{}:{line}: {why}", path.display()))?;
    let mut reader = Reader {
        path,
        text,
        directory: path.parent().unwrap_or(Path::new("/")),
        warnings: Vec::new(),
    };
    let settings = reader.settings(&value, servers)?;
    Ok((settings, reader.warnings))
}

/// The kubeconfig (as JSON) of a node that got its certificate: the cluster of the bootstrap
/// kubeconfig `text`, and `certificate` (chain and key in one file) as who it is.
/// Errors: as `parse`.
pub fn with_certificate(path: &Path, text: &str, certificate: &Path) -> Result<String, String> {
    parse(path, text, &[])?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let value = text::parse(text).map_err(|(_, why)| why)?;
    let named = |list: &str, name: &Value, inner: &str| {
        let entries = value[list].as_array().into_iter().flatten();
        let mut fitting = entries.filter(|entry| &entry["name"] == name);
        fitting
            .next()
            .map_or(Value::Null, |entry| entry[inner].clone())
    };
    let context = named("contexts", &value["current-context"], "context");
    let mut cluster = named("clusters", &context["cluster"], "cluster");
    if let Some(Value::String(file)) = cluster.get_mut("certificate-authority") {
        let directory = path.parent().unwrap_or(Path::new("/"));
        *file = directory.join(&*file).display().to_string();
    }
    let user = json!({ "client-certificate": certificate, "client-key": certificate });
    let context = json!({ "cluster": "default-cluster", "user": "default-auth" });
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "default-cluster", "cluster": cluster }],
        "users": [{ "name": "default-auth", "user": user }],
        "contexts": [{ "name": "default-context", "context": context }],
        "current-context": "default-context",
    });
    Ok(format!("{config:#}\n"))
}

const TOP: &[&str] = &[
    "apiVersion",
    "kind",
    "preferences",
    "clusters",
    "users",
    "contexts",
    "current-context",
    "extensions",
];
const CONTEXT: &[&str] = &["cluster", "user", "namespace", "extensions"];
/// `disable-compression` only ever costs bytes: both ways are honoured by any server.
const CLUSTER: &[&str] = &[
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
    "extensions",
];
const USER: &[&str] = &[
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "token",
    "tokenFile",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
    "username",
    "password",
    "auth-provider",
    "exec",
    "extensions",
];
const EXEC: &[&str] = &[
    "apiVersion",
    "command",
    "args",
    "env",
    "installHint",
    "provideClusterInfo",
    "interactiveMode",
];
const EXEC_VERSIONS: [&str; 2] = [
    "client.authentication.k8s.io/v1",
    "client.authentication.k8s.io/v1beta1",
];

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    directory: &'a Path,
    warnings: Vec<String>,
}

/// A mapping and where it is in the file.
#[derive(Clone)]
struct Section<'v> {
    fields: &'v Map<String, Value>,
    at: String,
}

impl Section<'_> {
    fn field(&self, name: &str) -> String {
        match self.at.as_str() {
            "" => name.to_owned(),
            at => format!("{at}.{name}"),
        }
    }
}

impl<'a> Reader<'a> {
    fn at(&self, field: &str, why: &str) -> String {
        let line = line_of(self.text, field).unwrap_or(1);
        format!("{}:{line}: {field}: {why}", self.path.display())
    }

    fn settings(&mut self, value: &Value, servers: &[Uri]) -> Result<Settings, String> {
        let top = self.section(value, String::new(), TOP)?;
        for (name, legal) in [("apiVersion", "v1"), ("kind", "Config")] {
            if self.string(&top, name)?.is_some_and(|text| text != legal) {
                return Err(self.at(name, &format!("must be {legal}")));
            }
        }
        let context = self.named(
            &top,
            "contexts",
            "context",
            CONTEXT,
            &top,
            "current-context",
        )?;
        let cluster = self.named(&top, "clusters", "cluster", CLUSTER, &context, "cluster")?;
        let user = self.named(&top, "users", "user", USER, &context, "user")?;
        let mut settings = self.cluster(&cluster, servers)?;
        settings.certificate = self.certificate(&user)?;
        settings.login = self.login(&user, &cluster, &settings)?;
        settings.impersonate = self.impersonate(&user)?;
        let secret = settings.login != Login::Nothing;
        if let Some(url) = settings.servers.iter().find(|_| secret)
            && url.scheme_str() == Some("http")
        {
            let why = "credentials go over http in the clear";
            self.warnings.push(self.at(&cluster.field("server"), why));
        }
        Ok(settings)
    }

    /// The mapping at `at`. A field that nobody knows is a warning.
    fn section<'v>(
        &mut self,
        value: &'v Value,
        at: String,
        known: &[&str],
    ) -> Result<Section<'v>, String> {
        let Value::Object(fields) = value else {
            return Err(match at.as_str() {
                "" => format!("{}:1: not a mapping of fields", self.path.display()),
                at => self.at(at, "must be a mapping of fields"),
            });
        };
        let section = Section { fields, at };
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let warning = self.at(&section.field(name), "unknown field, not used");
            self.warnings.push(warning);
        }
        Ok(section)
    }

    /// The entry of the list `list` whose name is in the field `by` of `from`.
    fn named<'v>(
        &mut self,
        top: &Section<'v>,
        list: &str,
        inner: &str,
        known: &[&str],
        from: &Section<'_>,
        by: &str,
    ) -> Result<Section<'v>, String> {
        let field = from.field(by);
        let name = self
            .string(from, by)?
            .ok_or_else(|| self.at(&field, "missing"))?;
        let entries = self.list(top, list)?.iter().enumerate();
        let mut fitting = entries.filter(|(_, entry)| entry["name"] == name.as_str());
        let Some((index, entry)) = fitting.next() else {
            return Err(self.at(&field, &format!("{name:?} is not in {list}")));
        };
        if let Some((twice, _)) = fitting.next() {
            let why = format!("{name:?} is there twice");
            return Err(self.at(&format!("{list}[{twice}].name"), &why));
        }
        match entry.get(inner) {
            None | Some(Value::Null) => {
                Err(self.at(&format!("{list}[{index}].{inner}"), "missing"))
            }
            Some(value) => self.section(value, format!("{list}[{index}].{inner}"), known),
        }
    }

    fn cluster(&mut self, cluster: &Section<'_>, servers: &[Uri]) -> Result<Settings, String> {
        let mut servers = servers.to_vec();
        if servers.is_empty() {
            let field = cluster.field("server");
            let text = self.string(cluster, "server")?;
            let text = text.ok_or_else(|| self.at(&field, "missing"))?;
            servers.push(server_url(&text).map_err(|why| self.at(&field, &why))?);
        }
        let mut settings = Settings::without_credentials(servers);
        settings.server_name = self.string(cluster, "tls-server-name")?;
        settings.authority = self.content(cluster, "certificate-authority")?;
        if self.switch(cluster, "insecure-skip-tls-verify")? {
            settings.verification = Verification::Skip;
            if settings.authority.is_some() {
                let field = cluster.field("insecure-skip-tls-verify");
                return Err(self.at(&field, "cannot be true beside a certificate-authority"));
            }
        }
        if let Some(url) = self.string(cluster, "proxy-url")? {
            let proxies = Proxies::only(&url);
            let bad = |why: String| self.at(&cluster.field("proxy-url"), &why);
            settings.proxies = Some(proxies.map_err(bad)?);
        }
        Ok(settings)
    }

    fn certificate(&mut self, user: &Section<'_>) -> Result<Option<(Content, Content)>, String> {
        let chain = self.content(user, "client-certificate")?;
        let key = self.content(user, "client-key")?;
        match (chain, key) {
            (Some(chain), Some(key)) => Ok(Some((chain, key))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(self.at(&user.field("client-key"), "missing")),
            (None, Some(_)) => Err(self.at(&user.field("client-certificate"), "missing")),
        }
    }

    fn login(
        &mut self,
        user: &Section<'_>,
        cluster: &Section<'_>,
        settings: &Settings,
    ) -> Result<Login, String> {
        if user
            .fields
            .get("auth-provider")
            .is_some_and(|value| !value.is_null())
        {
            let why = "cannot be used; exec takes its place";
            return Err(self.at(&user.field("auth-provider"), why));
        }
        let token = self.string(user, "token")?;
        let file = self.string(user, "tokenFile")?;
        let username = self.string(user, "username")?;
        let password = self.string(user, "password")?;
        let exec = user.fields.get("exec").filter(|value| !value.is_null());
        let tokens = token.is_some() || file.is_some();
        let basic = username.is_some() || password.is_some();
        if tokens && basic {
            let why = "only one of token and username can be used";
            return Err(self.at(&user.field("username"), why));
        }
        if let Some(value) = exec {
            // A program that could never be run is wrong even beside a token.
            let exec = self.exec(value, user.field("exec"), cluster, settings)?;
            if !tokens && !basic {
                return Ok(Login::Exec(exec));
            }
        }
        Ok(match (file, token) {
            (Some(file), otherwise) => Login::TokenFile {
                path: self.directory.join(file),
                otherwise,
            },
            (None, Some(token)) => Login::Token(token),
            (None, None) if basic => Login::Basic {
                username: username.unwrap_or_default(),
                password: password.unwrap_or_default(),
            },
            (None, None) => Login::Nothing,
        })
    }

    fn exec(
        &mut self,
        value: &Value,
        at: String,
        cluster: &Section<'_>,
        settings: &Settings,
    ) -> Result<Exec, String> {
        let section = self.section(value, at, EXEC)?;
        let need = |reader: &Self, name: &str| {
            let text = reader.string(&section, name)?;
            text.ok_or_else(|| reader.at(&section.field(name), "missing"))
        };
        let api_version = need(self, "apiVersion")?;
        if !EXEC_VERSIONS.contains(&api_version.as_str()) {
            let why = format!("must be one of {}", EXEC_VERSIONS.join(", "));
            return Err(self.at(&section.field("apiVersion"), &why));
        }
        let mode = match api_version == EXEC_VERSIONS[0] {
            true => need(self, "interactiveMode")?,
            false => self
                .string(&section, "interactiveMode")?
                .unwrap_or("Never".into()),
        };
        match mode.as_str() {
            "Never" | "IfAvailable" => {}
            "Always" => {
                let why = "Always cannot be used: nobody sits at a node";
                return Err(self.at(&section.field("interactiveMode"), why));
            }
            _ => {
                let why = "must be Never, IfAvailable or Always";
                return Err(self.at(&section.field("interactiveMode"), why));
            }
        }
        let command = PathBuf::from(need(self, "command")?);
        let mut environment = Vec::new();
        for (index, pair) in self.list(&section, "env")?.iter().enumerate() {
            let at = format!("{}[{index}]", section.field("env"));
            let pair = self.section(pair, at, &["name", "value"])?;
            let name = self.string(&pair, "name")?;
            let name = name.ok_or_else(|| self.at(&pair.field("name"), "missing"))?;
            environment.push((name, self.string(&pair, "value")?.unwrap_or_default()));
        }
        let informed = self.switch(&section, "provideClusterInfo")?;
        Ok(Exec {
            api_version,
            command: match command.components().count() {
                1 => command,
                _ => self.directory.join(command),
            },
            arguments: self.strings(&section, "args")?,
            environment,
            cluster: informed.then(|| cluster_info(cluster, settings)),
            install_hint: self.string(&section, "installHint")?.unwrap_or_default(),
        })
    }

    fn impersonate(&mut self, user: &Section<'_>) -> Result<Vec<(String, String)>, String> {
        let mut headers = Vec::new();
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        let name = self.string(user, "as")?;
        if let Some(name) = name.clone() {
            add("Impersonate-User", name);
        }
        if let Some(uid) = self.string(user, "as-uid")? {
            add("Impersonate-Uid", uid);
        }
        for group in self.strings(user, "as-groups")? {
            add("Impersonate-Group", group);
        }
        if let Some(Value::Object(extra)) = user.fields.get("as-user-extra") {
            let extra = Section {
                fields: extra,
                at: user.field("as-user-extra"),
            };
            for name in extra.fields.keys() {
                for value in self.strings(&extra, name)? {
                    add(&format!("Impersonate-Extra-{}", escaped(name)), value);
                }
            }
        }
        match name {
            None if !headers.is_empty() => Err(self.at(
                &user.field("as"),
                "missing beside as-uid, as-groups or as-user-extra",
            )),
            _ => Ok(headers),
        }
    }

    /// `NAME-data` (base64) over the file `NAME`.
    fn content(&mut self, section: &Section<'_>, name: &str) -> Result<Option<Content>, String> {
        let file = self.string(section, name)?;
        let data = format!("{name}-data");
        let Some(text) = self.string(section, &data)? else {
            return Ok(file.map(|file| Content::File(self.directory.join(file))));
        };
        let field = section.field(&data);
        if file.is_some() {
            let warning = self.at(&section.field(name), &format!("not used beside {data}"));
            self.warnings.push(warning);
        }
        // Folded and literal texts of YAML have line ends inside.
        let packed: String = text.split_whitespace().collect();
        let bytes = STANDARD.decode(packed);
        let bytes = bytes.map_err(|error| self.at(&field, &format!("not base64: {error}")))?;
        Ok(Some(Content::Here(bytes)))
    }

    /// An empty text is none, as in Go.
    fn string(&self, section: &Section<'_>, name: &str) -> Result<Option<String>, String> {
        match section.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.at(&section.field(name), "must be a text (put it in quotes)")),
        }
    }

    fn switch(&self, section: &Section<'_>, name: &str) -> Result<bool, String> {
        match section.fields.get(name) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(self.at(&section.field(name), "must be true or false")),
        }
    }

    fn list<'v>(&self, section: &Section<'v>, name: &str) -> Result<&'v [Value], String> {
        match section.fields.get(name) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(self.at(&section.field(name), "must be a list")),
        }
    }

    fn strings(&self, section: &Section<'_>, name: &str) -> Result<Vec<String>, String> {
        let items = self.list(section, name)?.iter().enumerate();
        let texts = items.map(|(index, item)| match item {
            Value::String(text) => Ok(text.clone()),
            _ => {
                let field = format!("{}[{index}]", section.field(name));
                Err(self.at(&field, "must be a text (put it in quotes)"))
            }
        });
        texts.collect()
    }
}

/// What a plug-in that wants to know is told of its cluster (`ExecCredential.spec.cluster`).
fn cluster_info(cluster: &Section<'_>, settings: &Settings) -> Value {
    let mut info = json!({ "server": settings.servers[0].to_string() });
    for name in ["tls-server-name", "insecure-skip-tls-verify", "proxy-url"] {
        if let Some(value) = cluster.fields.get(name) {
            info[name] = value.clone();
        }
    }
    if let Some(Content::Here(bytes)) = &settings.authority {
        info["certificate-authority-data"] = STANDARD.encode(bytes).into();
    }
    let extensions = cluster.fields.get("extensions").and_then(Value::as_array);
    let config = extensions.into_iter().flatten().find(|extension| {
        // Kept for these plug-ins (KEP-541).
        extension["name"] == "client.authentication.k8s.io/exec"
    });
    if let Some(config) = config {
        info["config"] = config["extension"].clone();
    }
    info
}

/// Keys of extra fields in header names: `%xx` for what a name may not hold. Source: client-go
/// transport (`headerKeyEscape`).
fn escaped(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    let mut escaped = String::new();
    for byte in key.bytes() {
        match legal(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
