//! Images of a registry that asks who pulls: credentials of a Secret, named by the pod and by its
//! account.

use std::fs;
use std::process::Command;

use crate::image::Recipe;
use crate::isolation::{isolated, run};
use crate::registry::Real;
use crate::support::{FOREVER, IMAGE, Node, pod};
use crate::tls::missing;

#[test]
fn a_private_image_is_pulled_with_the_pods_secret_or_its_accounts() {
    isolated(|place| {
        if missing(&["docker-registry", "htpasswd", "skopeo"]) {
            return;
        }
        let htpasswd = place.join("htpasswd");
        fs::write(&htpasswd, run("htpasswd", &["-Bbn", "tide", "low"])).unwrap();
        let auth = format!(
            "auth: {{htpasswd: {{realm: r, path: {}}}}}\n",
            htpasswd.display()
        );
        let Some(registry) = Real::start(place, &auth, "") else {
            return;
        };
        let image = |tag: u32| format!("{}/private:{tag}", registry.address);
        for tag in [1, 2] {
            let name = format!("private:{tag}");
            registry.push(place, &Recipe::busybox(), &name, &["--dest-creds=tide:low"]);
        }
        let config = place.join("registries.yaml");
        let host = &registry.address;
        let mirrors = format!("mirrors: {{\"{host}\": {{endpoint: [\"http://{host}\"]}}}}\n");
        fs::write(&config, mirrors).unwrap();
        let mut node = Node::new(place).flag(&format!("--registry-config={}", config.display()));
        node.start();

        // Who brings nothing is refused.
        let of = |name: &str, tag: u32, more: &str| {
            pod(name, FOREVER, "", more).replace(IMAGE, &image(tag))
        };
        node.manifest("alone.yaml", &of("alone", 1, ""));
        node.event("alone", "authorization failed (HTTP status 401)");

        let login = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\n\
             type: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: |\n    \
             {{\"auths\": {{\"{host}\": {{\"username\": \"tide\", \"password\": \"low\"}}}}}}\n---\n\
             apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: puller}}\n\
             imagePullSecrets: [{{name: login}}]\n"
        );
        node.manifest("login.yaml", &login);
        node.manifest(
            "named.yaml",
            &of("named", 1, "  imagePullSecrets: [{name: login}]"),
        );
        node.up("named");
        // Pods of manifests get nothing from an account; those of the API do.
        let file = place.join("through.yaml");
        let text = of("through-n", 2, "  serviceAccountName: puller");
        fs::write(&file, text).unwrap();
        node.ok(&["apply", "-f", &file.to_string_lossy()]);
        let through = node.up("through");
        let named = &through["spec"]["imagePullSecrets"];
        assert_eq!(*named, serde_json::json!([{"name": "login"}]));
        let log = node.log();
        assert!(
            !log.contains("tide:low") && !log.contains("dGlkZTpsb3c"),
            "{log}"
        );
        node.finish();
        drop(registry);
        let left = Command::new("pgrep")
            .args(["-x", "docker-registry"])
            .output();
        assert!(left.is_ok_and(|found| found.stdout.is_empty()));
    });
}
