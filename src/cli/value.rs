//! Flag values as texts to plain data: Go durations, byte quantities, lists, addresses. Pure.
//!
//! Errors say what is legal; the caller names the flag or the field.

use std::net::IpAddr;
use std::time::Duration;

use crate::runtime::network::Subnet;

/// A taint that the node registers with: `key[=value]:effect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    pub key: String,
    pub value: String,
    pub effect: String,
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    pub address: IpAddr,
    pub prefix_bits: u8,
}

/// Go's `time.ParseDuration`, without signs: `10s`, `1m30s`, `1.5h`, `300ms`, `0`.
/// Source: pkg.go.dev/time#ParseDuration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let legal = || format!("{text:?} is not a duration such as 20s, 1m30s or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(legal());
    }
    let (mut rest, mut total_s) = (text, 0.0f64);
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(legal)?;
        let number: f64 = rest[..digits].parse().map_err(|_| legal())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| digits + end);
        let unit_s = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(legal()),
        };
        total_s += number * unit_s;
        rest = &rest[unit_end..];
    }
    // Beyond 292 years Go's nanoseconds overflow as well.
    match Duration::try_from_secs_f64(total_s) {
        Ok(span) if span.as_secs() < 292 * 365 * 86_400 => Ok(span),
        _ => Err(legal()),
    }
}

/// A duration that a loop can run at.
pub fn period(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        span if span < Duration::from_millis(100) => {
            Err(format!("{text:?} is too short: at least 100ms"))
        }
        span => Ok(span),
    }
}

/// A Kubernetes quantity of bytes: `10Mi`, `500k`, `1048576`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let legal = || format!("{text:?} is not a size such as 10Mi, 500k or 1048576");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| legal())?;
    let factor: u64 = match &text[digits..] {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        _ => return Err(legal()),
    };
    number.checked_mul(factor).ok_or_else(legal)
}

/// Go's `strconv.ParseBool`.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("{text:?} is not true or false")),
    }
}

/// A whole number within bounds, both legal.
pub fn integer(text: &str, least: i64, most: i64) -> Result<i64, String> {
    text.parse()
        .ok()
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{text:?} is not a whole number from {least} to {most}"))
}

/// One of a closed set of words.
pub fn one_of(text: &str, legal: &[&str]) -> Result<String, String> {
    if legal.contains(&text) {
        return Ok(text.to_owned());
    }
    let legal: Vec<String> = legal.iter().map(|word| format!("{word:?}")).collect();
    Err(format!("{text:?} is not one of {}", legal.join(", ")))
}

pub fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address"))
}

/// One that others may find a node at, or the unspecified one of a family.
/// Source: Kubernetes pkg/kubelet/kubelet_node_status.go (validateNodeIP).
pub fn node_ip(text: &str) -> Result<IpAddr, String> {
    let ip = ip(text)?;
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let kind = match () {
        () if ip.is_loopback() => "loopback",
        () if ip.is_multicast() => "multicast",
        () if local => "link-local",
        () => return Ok(ip),
    };
    Err(format!("{ip} is a {kind} address, which leads to no node"))
}

pub fn cidr(text: &str) -> Result<Cidr, String> {
    let legal = || format!("{text:?} is not a network such as 10.88.0.0/24");
    let (address, bits) = text.split_once('/').ok_or_else(legal)?;
    let address: IpAddr = address.parse().map_err(|_| legal())?;
    if address.is_ipv6() {
        return Err(format!(
            "{text:?}: the pod network has no IPv6, give an IPv4 network such as 10.88.0.0/24"
        ));
    }
    let prefix_bits = bits.parse().ok().filter(|bits| *bits <= 32);
    let prefix_bits = prefix_bits.ok_or_else(legal)?;
    // What the network itself asks of its range.
    Subnet::parse(text)?;
    Ok(Cidr {
        address,
        prefix_bits,
    })
}

/// `name=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not a label such as zone=north"))?;
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let bare = name.rsplit_once('/').map_or(name, |(_, bare)| bare);
    let fits = |part: &str| {
        part.len() <= 63
            && part.chars().all(legal)
            && !part.starts_with(['-', '_', '.'])
            && !part.ends_with(['-', '_', '.'])
    };
    if bare.is_empty() || !fits(bare) || !fits(value) {
        return Err(format!("{text:?} is not a label such as zone=north"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// `key[=value]:effect`.
pub fn taint(text: &str) -> Result<Taint, String> {
    let legal = || format!("{text:?} is not a taint such as edge=true:NoSchedule");
    let (selector, effect) = text.rsplit_once(':').ok_or_else(legal)?;
    one_of(effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"])?;
    let (key, value) = selector.split_once('=').unwrap_or((selector, ""));
    if key.is_empty() {
        return Err(legal());
    }
    Ok(Taint {
        key: key.to_owned(),
        value: value.to_owned(),
        effect: effect.to_owned(),
    })
}

/// `name:value`, as an HTTP header.
pub fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| format!("{text:?} is not a header such as Authorization:token"))?;
    let (name, value) = (name.trim(), value.trim());
    let name =
        http::HeaderName::try_from(name).map_err(|_| format!("{name:?} is not a header name"))?;
    http::HeaderValue::try_from(value)
        // Not repeated: it may be a secret.
        .map_err(|_| format!("value of header {name} has characters that no header may have"))?;
    Ok((name.to_string(), value.to_owned()))
}

/// The items of a comma-separated list; empty ones are dropped.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration};

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [
            ("0", Some(0)),
            ("20s", Some(20_000)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            (".5s", Some(500)),
            ("2500us", Some(2)),
            ("", None),
            ("20", None),
            ("s", None),
            ("1d", None),
            ("-1s", None),
            ("1s ", None),
            ("1..5s", None),
            ("99999999999h", None),
        ] {
            let found = duration(text).ok().map(|span| span.as_millis());
            assert_eq!(found, ms, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_quantities() {
        for (text, count) in [
            ("10Mi", Some(10 << 20)),
            ("500k", Some(500_000)),
            ("7", Some(7)),
            ("1Gi", Some(1 << 30)),
            ("10MB", None),
            ("1.5Mi", None),
            ("-1", None),
            ("", None),
            ("99999999999999Gi", None),
        ] {
            assert_eq!(bytes(text).ok(), count, "{text:?}");
        }
    }
}
