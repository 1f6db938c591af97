//! Registries behind a proxy. Their names resolve nowhere: only the proxy knows the way.

use std::rc::Rc;

use lowtide::net::proxy::Proxies;
use lowtide::runtime::images::Options;

use crate::image::Recipe;
use crate::proxy::TinyProxy;
use crate::pull::{certificate, configured, plain, pull, request};
use crate::registry::{Fake, Real, honest};
use crate::world::temporary;

fn through(mut options: Options, set: &[(&str, &str)]) -> Options {
    let find = |name: &str| set.iter().find(|(known, _)| *known == name);
    options.proxies = Rc::new(Proxies::read(|name| {
        find(name).map(|(_, text)| (*text).to_owned())
    }));
    options
}

#[test]
fn a_tls_registry_is_reached_by_connect() {
    let directory = temporary();
    let tls = certificate(directory.path(), "DNS:registry.test");
    let Some(real) = Real::start(directory.path(), "", &tls) else {
        return;
    };
    real.push(directory.path(), &Recipe::small("x"), "x:1", &[]);
    let proxy = TinyProxy::start(&real.address);
    let ca = directory.path().join("ca.pem");
    let text = format!(
        "configs: {{registry.test: {{tls: {{ca_file: {}}}}}}}",
        ca.display()
    );
    let options = || configured(directory.path(), &text);
    let url = format!("http://tide:water@{}", proxy.address);
    let image = request("registry.test/x:1");
    let direct = pull(
        through(options(), &[("HTTPS_PROXY", &url), ("NO_PROXY", ".test")]),
        image.clone(),
    );
    assert!(direct.is_err() && proxy.asked().is_empty(), "{direct:?}");
    let socks = [("HTTPS_PROXY", "socks5://tide:water@h:1")];
    let error = pull(through(options(), &socks), image.clone())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("HTTPS_PROXY") && error.contains("socks5"),
        "{error}"
    );
    pull(through(options(), &[("HTTPS_PROXY", &url)]), image).unwrap();
    let asked = proxy.asked();
    assert!(!asked.is_empty());
    for (line, login) in asked {
        assert_eq!(line, "CONNECT registry.test:443 HTTP/1.1");
        assert_eq!(login, "Basic dGlkZTp3YXRlcg==");
    }
}

#[test]
fn a_plain_registry_is_asked_for_by_its_whole_url() {
    let directory = temporary();
    // The registry itself plays the proxy: it sees what one would.
    let fake = Fake::start(honest(&Recipe::small("x")));
    let options = through(
        plain(directory.path(), "registry.test:5000"),
        &[
            ("http_proxy", &fake.address),
            ("HTTPS_PROXY", "nowhere.test"),
        ],
    );
    pull(options, request("registry.test:5000/x:1")).unwrap();
    let seen = fake.seen("http://registry.test:5000/v2/x/manifests/1");
    assert_eq!(seen[0].headers["host"], "registry.test:5000");
}
