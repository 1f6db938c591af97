//! Which proxy a request goes through, by the environment's variables. Pure.
//!
//! `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or the same in lower case, as Go's programs read
//! them. Source: golang.org/x/net/http/httpproxy. Proxies are spoken to in plain HTTP: TLS to the
//! proxy itself and SOCKS are refused by name.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, Uri};

/// The environment's answer for every request; by default there is no proxy.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    https: Option<Result<Proxy, String>>,
    http: Option<Result<Proxy, String>>,
    except: Vec<Exception>,
    /// Before all others, this machine and exceptions too.
    only: Option<Proxy>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub host: String,
    pub port: u16,
    /// `Basic …`
    pub authorization: Option<HeaderValue>,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    All,
    Network {
        base: IpAddr,
        bits: u32,
        port: Option<u16>,
    },
    Domain {
        name: String,
        itself: bool,
        port: Option<u16>,
    },
}

impl Proxies {
    /// `variable` looks a name up, as the environment would.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Proxies {
        let either = |name: &str| {
            let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
            set(name).or_else(|| set(&name.to_lowercase()))
        };
        let proxy = |name: &str| {
            let text = either(name)?;
            Some(Proxy::parse(text.trim()).map_err(|why| format!("{name}: {why}")))
        };
        let except = either("NO_PROXY").unwrap_or_default();
        Proxies {
            https: proxy("HTTPS_PROXY"),
            http: proxy("HTTP_PROXY"),
            except: except.split(',').filter_map(Exception::parse).collect(),
            only: None,
        }
    }

    /// Everything through this one (`http://user:password@host:port`), whatever the environment
    /// says. Errors do not repeat the text: it may hold a password.
    pub fn only(text: &str) -> Result<Proxies, String> {
        Ok(Proxies {
            only: Some(Proxy::parse(text)?),
            ..Proxies::default()
        })
    }

    /// Of this process.
    pub fn of_environment() -> Proxies {
        Proxies::read(|name| std::env::var(name).ok())
    }

    /// The proxy for `url`; `None`: go there directly. Errors: the variable that says where it is
    /// cannot be used.
    pub fn for_url(&self, url: &Uri) -> Result<Option<&Proxy>, String> {
        if self.only.is_some() {
            return Ok(self.only.as_ref());
        }
        let (proxy, port) = match url.scheme_str() {
            Some("https") => (&self.https, 443),
            _ => (&self.http, 80),
        };
        let host = bare(url.host().unwrap_or_default()).to_lowercase();
        let port = url.port_u16().unwrap_or(port);
        match proxy {
            None => Ok(None),
            Some(_) if is_own(&host) => Ok(None),
            Some(_) if self.except.iter().any(|one| one.matches(&host, port)) => Ok(None),
            Some(proxy) => proxy.as_ref().map(Some).map_err(String::clone),
        }
    }
}

impl Proxy {
    /// `http://user:password@host:port`, or less of it. Errors do not repeat the text: it may hold
    /// a password.
    fn parse(text: &str) -> Result<Proxy, String> {
        let whole = match text.contains("://") {
            true => text.to_owned(),
            false => format!("http://{text}"),
        };
        let url: Uri = whole.parse().map_err(|_| "not a URL".to_owned())?;
        if url.scheme_str() != Some("http") {
            let scheme = url.scheme_str().unwrap_or_default();
            return Err(format!("a proxy by {scheme} cannot be used, only by http"));
        }
        let host = url.host().filter(|host| !host.is_empty());
        let user = url
            .authority()
            .and_then(|all| all.as_str().rsplit_once('@'));
        let authorization = user.and_then(|(user, _)| {
            let packed = STANDARD.encode(percent_decoded(user));
            let mut value = HeaderValue::from_str(&format!("Basic {packed}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Ok(Proxy {
            host: host.ok_or("it names no host")?.to_owned(),
            port: url.port_u16().unwrap_or(80),
            authorization,
        })
    }
}

impl Exception {
    fn parse(text: &str) -> Option<Exception> {
        let text = text.trim().to_lowercase();
        if text.is_empty() {
            return None;
        }
        if text == "*" {
            return Some(Exception::All);
        }
        if let Some((base, bits)) = text.split_once('/') {
            let (base, bits) = (base.parse().ok()?, bits.parse().ok()?);
            return Some(Exception::Network {
                base,
                bits,
                port: None,
            });
        }
        let (host, port) = match text.parse::<IpAddr>() {
            Ok(_) => (text.as_str(), None),
            Err(_) => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port.parse().ok()?)),
                None => (text.as_str(), None),
            },
        };
        if let Ok(base) = bare(host).parse::<IpAddr>() {
            let bits = if base.is_ipv4() { 32 } else { 128 };
            return Some(Exception::Network { base, bits, port });
        }
        let name = host.trim_start_matches('*');
        Some(Exception::Domain {
            itself: !name.starts_with('.'),
            name: name.trim_start_matches('.').to_owned(),
            port,
        })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let fits = |wanted: &Option<u16>| wanted.is_none_or(|wanted| wanted == port);
        match self {
            Exception::All => true,
            Exception::Network { base, bits, port } => {
                let address = host.parse();
                fits(port) && address.is_ok_and(|address| within(address, *base, *bits))
            }
            Exception::Domain { name, itself, port } => {
                let below = host.strip_suffix(name.as_str());
                let below = below.is_some_and(|rest| rest.ends_with('.'));
                fits(port) && (below || (*itself && host == name))
            }
        }
    }
}

/// This machine needs no proxy to reach itself.
fn is_own(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn within(address: IpAddr, base: IpAddr, bits: u32) -> bool {
    let same = |address: u128, base: u128, width: u32| {
        let shift = width.saturating_sub(bits);
        bits <= width && address.checked_shr(shift) == base.checked_shr(shift)
    };
    match (address, base) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(u32::from(a).into(), u32::from(b).into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(u128::from(a), u128::from(b), 128),
        _ => false,
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// `%40` is `@`; what is no such pair stays.
fn percent_decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let (byte, left) = match (first, byte) {
            (b'%', Some(byte)) => (byte, &after[2..]),
            _ => (*first, after),
        };
        bytes.push(byte);
        rest = left;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(set: &[(&str, &str)]) -> Proxies {
        let find = |name: &str| set.iter().find(|(known, _)| *known == name);
        Proxies::read(|name| find(name).map(|(_, text)| (*text).to_owned()))
    }

    fn asked(proxies: &Proxies, url: &str) -> Option<String> {
        let proxy = proxies.for_url(&url.parse().unwrap()).unwrap();
        proxy.map(|proxy| format!("{}:{}", proxy.host, proxy.port))
    }

    #[test]
    fn the_variables_say_which_proxy() {
        let both = proxies(&[("HTTPS_PROXY", "http://s:3128"), ("http_proxy", "plain")]);
        for (url, proxy) in [
            ("https://a.b/c", Some("s:3128")),
            ("http://a.b:5000/c", Some("plain:80")),
            // One's own machine.
            ("https://localhost:5000", None),
            ("http://127.0.0.9", None),
            ("http://[::1]:80", None),
        ] {
            assert_eq!(asked(&both, url).as_deref(), proxy, "{url}");
        }
        assert_eq!(asked(&proxies(&[("HTTPS_PROXY", " ")]), "https://a"), None);
        assert_eq!(asked(&Proxies::default(), "https://a"), None);
    }

    #[test]
    fn exceptions_go_directly() {
        let except =
            "example.com, .sub.org,*.star.net,10.0.0.0/8,192.0.2.7,ported.io:5000,fd00::/16";
        let set = [("HTTPS_PROXY", "p"), ("NO_PROXY", except)];
        for (host, direct) in [
            ("example.com", true),
            ("Registry.Example.com", true),
            ("notexample.com", false),
            ("sub.org", false),
            ("a.sub.org", true),
            ("star.net", false),
            ("a.star.net", true),
            ("10.1.2.3", true),
            ("11.1.2.3", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("ported.io:5000", true),
            ("ported.io", false),
            ("[fd00:1::2]", true),
            ("[fe00::2]", false),
        ] {
            let url = format!("https://{host}/");
            assert_eq!(asked(&proxies(&set), &url).is_none(), direct, "{host}");
        }
        let all = proxies(&[("HTTPS_PROXY", "p"), ("NO_PROXY", "*")]);
        assert_eq!(asked(&all, "https://a"), None);
    }

    #[test]
    fn what_cannot_be_used_is_named_without_its_password() {
        let url = "https://a".parse().unwrap();
        for text in [
            "socks5://u:geheim@h",
            "https://u:geheim@h",
            "http://u:geheim@",
        ] {
            let error = proxies(&[("HTTPS_PROXY", text)]);
            let error = error.for_url(&url).expect_err(text);
            assert!(error.starts_with("HTTPS_PROXY: "), "{error}");
            assert!(!error.contains("geheim"), "{error}");
        }
        let set = [("HTTPS_PROXY", "http://user:p%40ss@h")];
        let known = proxies(&set);
        let proxy = known.for_url(&url).unwrap().unwrap();
        let expected = format!("Basic {}", STANDARD.encode("user:p@ss"));
        assert_eq!(proxy.authorization.as_ref().unwrap(), expected.as_str());
    }
}
