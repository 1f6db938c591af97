use super::*;

fn read(text: &str) -> Result<(Settings, Vec<String>), String> {
    parse(Path::new("/etc/k/config"), text, &[])
}

fn error(text: &str) -> String {
    match read(text) {
        Err(why) => why,
        Ok(_) => panic!("must be refused: {text}"),
    }
}

/// A whole file with these lines (already indented by 4) of cluster and user.
fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts:\n- name: here\n  context:\n    \
         cluster: c\n    user: u\nclusters:\n- name: c\n  cluster:\n    server: https://k:6443\n{cluster}\
         users:\n- name: u\n  user:\n    as: \"\"\n{user}"
    )
}

#[test]
fn a_file_of_today_reads_whole() {
    let (settings, warnings) = read(&config(
        "    certificate-authority-data: Q0E=\n    tls-server-name: kubernetes\n",
        "    client-certificate-data: Q0VSVA==\n    client-key: pki/key.pem\n    as: system:node:pi\n    \
         as-uid: \"7\"\n    as-groups: [a, b]\n    as-user-extra: {\"x/y\": [z]}\n",
    )
    .replace("    as: \"\"\n", ""))
    .expect("good");
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings.servers, ["https://k:6443".parse::<Uri>().unwrap()]);
    assert_eq!(settings.server_name.as_deref(), Some("kubernetes"));
    assert_eq!(settings.authority, Some(Content::Here(b"CA".to_vec())));
    let key = Content::File("/etc/k/pki/key.pem".into());
    assert_eq!(
        settings.certificate,
        Some((Content::Here(b"CERT".to_vec()), key))
    );
    let headers = settings.impersonate.iter();
    let headers: Vec<String> = headers
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    assert_eq!(
        headers,
        [
            "Impersonate-User: system:node:pi",
            "Impersonate-Uid: 7",
            "Impersonate-Group: a",
            "Impersonate-Group: b",
            "Impersonate-Extra-x%2Fy: z"
        ]
    );
}

#[test]
fn json_reads_like_yaml_and_given_servers_win() {
    let text = r#"{"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"insecure-skip-tls-verify": true}}],
        "users": [{"name": "u", "user": {"username": "me", "password": "pw"}}]}"#;
    let servers = [
        server_url("http://a:1").unwrap(),
        server_url("https://b/x/").unwrap(),
    ];
    let (settings, warnings) = parse(Path::new("/k"), text, &servers).expect("good");
    assert_eq!(settings.servers, servers);
    assert_eq!(settings.verification, Verification::Skip);
    assert!(
        matches!(&settings.login, Login::Basic { username, password } if username == "me" && password == "pw")
    );
    assert!(
        warnings.len() == 1 && warnings[0].contains("in the clear"),
        "{warnings:?}"
    );
    let why = error(text);
    assert!(
        why.starts_with("/etc/k/config:2: clusters[0].cluster.server: missing"),
        "{why}"
    );
}

#[test]
fn each_login_is_what_it_says_and_the_file_of_a_token_wins() {
    let login = |user: &str| read(&config("", user)).expect(user).0.login;
    assert!(login("") == Login::Nothing);
    assert!(login("    token: t\n") == Login::Token("t".into()));
    assert!(
        login("    token: t\n    tokenFile: ../t\n")
            == Login::TokenFile {
                path: "/etc/k/../t".into(),
                otherwise: Some("t".into())
            }
    );
    let exec = "    exec:\n      apiVersion: client.authentication.k8s.io/v1\n      interactiveMode: IfAvailable\n      \
                command: bin/login\n      args: [a, b]\n      env: [{name: X, value: z}]\n      installHint: get it\n      \
                provideClusterInfo: true\n";
    let Login::Exec(exec) = login(exec) else {
        panic!("no exec");
    };
    assert_eq!(exec.command, Path::new("/etc/k/bin/login"));
    assert_eq!(exec.arguments, ["a", "b"]);
    assert_eq!(exec.environment, [("X".to_owned(), "z".to_owned())]);
    assert_eq!(exec.cluster, Some(json!({"server": "https://k:6443/"})));
    let beta = "    exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: aws}\n";
    let Login::Exec(exec) = login(beta) else {
        panic!("no exec");
    };
    assert_eq!(
        (exec.command.as_path(), exec.cluster),
        (Path::new("aws"), None)
    );
    // A token is there already: nothing needs to be run for one.
    let both = format!("    token: t\n{beta}");
    assert!(login(&both) == Login::Token("t".into()));
}

/// Lines of a cluster, lines of a user, what the error holds.
const UNUSABLE: &[(&str, &str, &str)] = &[
    (
        "    proxy-url: socks5://h:1\n",
        "",
        ":13: clusters[0].cluster.proxy-url: a proxy by socks5 cannot be used",
    ),
    (
        "    certificate-authority-data: '*'\n",
        "",
        ":13: clusters[0].cluster.certificate-authority-data: not base64",
    ),
    (
        "    certificate-authority: ca\n    insecure-skip-tls-verify: true\n",
        "",
        "insecure-skip-tls-verify: cannot be true",
    ),
    (
        "    insecure-skip-tls-verify: 1\n",
        "",
        "must be true or false",
    ),
    (
        "",
        "    client-certificate: c\n",
        "users[0].user.client-key: missing",
    ),
    (
        "",
        "    client-key: c\n",
        "users[0].user.client-certificate: missing",
    ),
    (
        "",
        "    token: 123\n",
        ":17: users[0].user.token: must be a text (put it in quotes)",
    ),
    (
        "",
        "    token: t\n    username: u\n",
        "users[0].user.username: only one of token and username",
    ),
    (
        "",
        "    auth-provider: {name: gcp}\n",
        "users[0].user.auth-provider: cannot be used",
    ),
    (
        "",
        "    as-uid: \"1\"\n",
        "users[0].user.as: missing beside",
    ),
    (
        "",
        "    as-groups: g\n",
        "users[0].user.as-groups: must be a list",
    ),
];

/// Fields of a plug-in, what the error holds.
const UNUSABLE_EXEC: &[(&str, &str)] = &[
    ("command: x", "exec.apiVersion: missing"),
    (
        "apiVersion: client.authentication.k8s.io/v1alpha1, command: x",
        "exec.apiVersion: must be one of",
    ),
    ("V1, command: x", "exec.interactiveMode: missing"),
    (
        "V1, command: x, interactiveMode: Always",
        "Always cannot be used",
    ),
    ("V1, command: x, interactiveMode: Often", "must be Never"),
    ("V1, interactiveMode: Never", "exec.command: missing"),
    (
        "V1, interactiveMode: Never, command: x, env: [{value: y}]",
        "exec.env[0].name: missing",
    ),
];

#[test]
fn what_cannot_be_used_is_named_with_file_line_and_field() {
    let exec = |fields: &str| {
        let fields = fields.replace("V1", "apiVersion: client.authentication.k8s.io/v1");
        config("", &format!("    exec: {{{fields}}}\n"))
    };
    let plain = UNUSABLE.iter();
    let plain = plain.map(|(cluster, user, expected)| (config(cluster, user), expected));
    let execs = UNUSABLE_EXEC
        .iter()
        .map(|(fields, expected)| (exec(fields), expected));
    for (file, expected) in plain.chain(execs) {
        let text = error(&file);
        assert!(text.starts_with("/etc/k/config:"), "{text}");
        assert!(text.contains(expected), "{text}, not {expected}");
        assert!(!text.contains("123"), "a secret is repeated: {text}");
    }
}

#[test]
fn what_is_missing_is_named_too() {
    let good = config("", "");
    for (from, to, expected) in [
        (
            "current-context: here\n",
            "",
            ":1: current-context: missing",
        ),
        (
            "current-context: here",
            "current-context: there",
            ":3: current-context: \"there\" is not in contexts",
        ),
        (
            "    cluster: c\n",
            "",
            "contexts[0].context.cluster: missing",
        ),
        (
            "    cluster: c\n",
            "    cluster: d\n",
            ":7: contexts[0].context.cluster: \"d\" is not in clusters",
        ),
        ("    user: u\n", "", "contexts[0].context.user: missing"),
        (
            "- name: u\n",
            "- name: v\n",
            "contexts[0].context.user: \"u\" is not in users",
        ),
        (
            "    server: https://k:6443\n",
            "    tls-server-name: x\n",
            "clusters[0].cluster.server: missing",
        ),
        (
            "https://k:6443",
            "k:6443",
            "clusters[0].cluster.server: must begin with https:// or http://",
        ),
        (
            "https://k:6443",
            "https://me:pw@k",
            "clusters[0].cluster.server: must not hold a user",
        ),
        ("kind: Config", "kind: Pod", ":2: kind: must be Config"),
        (
            "users:\n",
            "users:\n- {name: u, user: {}}\n",
            "users[1].name: \"u\" is there twice",
        ),
        ("apiVersion: v1\n", "apiVersion: [v1\n", "/etc/k/config:"),
    ] {
        assert!(good.contains(from), "{from}");
        let text = error(&good.replacen(from, to, 1));
        assert!(text.contains(expected), "{text}, not {expected}");
    }
    assert_eq!(error("- a\n"), "/etc/k/config:1: not a mapping of fields");
}

#[test]
fn a_field_that_nobody_knows_is_a_warning() {
    let (_, warnings) = read(&config(
        "    sever: x\n    disable-compression: true\n",
        "    tokn: x\n",
    ))
    .expect("good");
    assert_eq!(
        warnings,
        [
            "/etc/k/config:13: clusters[0].cluster.sever: unknown field, not used",
            "/etc/k/config:19: users[0].user.tokn: unknown field, not used"
        ]
    );
}

#[test]
fn a_node_that_got_its_certificate_goes_to_the_same_cluster_as_itself() {
    let bootstrap = config(
        "    certificate-authority: ca.crt\n    tls-server-name: k\n",
        "    token: secret\n",
    );
    let current = Path::new("/root/pki/kubelet-client-current.pem");
    let text = with_certificate(Path::new("/etc/k/bootstrap"), &bootstrap, current).expect("made");
    assert!(!text.contains("secret"));
    let (settings, warnings) = parse(Path::new("/var/k/config"), &text, &[]).expect("good");
    assert_eq!(warnings, [""; 0]);
    assert_eq!(settings.servers, ["https://k:6443".parse::<Uri>().unwrap()]);
    assert_eq!(
        settings.authority,
        Some(Content::File("/etc/k/ca.crt".into()))
    );
    assert_eq!(settings.server_name.as_deref(), Some("k"));
    let file = || Content::File(current.into());
    assert_eq!(settings.certificate, Some((file(), file())));
    assert!(settings.login == Login::Nothing);
}
