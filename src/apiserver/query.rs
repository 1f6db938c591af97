//! Query strings: percent-decoded pairs, in order. Pure.

use super::status::Refusal;

/// Most parameters of one query: a command has one for each argument.
const PARAMETERS_MAX: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// `a=1&b=x%20y+z`. Errors: a broken escape, what is not UTF-8, or too many of them: none is
    /// left out, since it might be the one that makes a request harmless.
    pub fn parse(text: &str) -> Result<Query, Refusal> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        if pairs.clone().count() > PARAMETERS_MAX {
            let text = format!("the URL has more than {PARAMETERS_MAX} parameters");
            return Err(Refusal::bad_request(text));
        }
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            Ok((decode(&name.replace('+', " "))?, decode(&value)?))
        });
        pairs.collect::<Result<_, _>>().map(Query)
    }

    /// One parameter.
    pub fn of(name: &str, value: &str) -> Query {
        Query(vec![(name.to_owned(), value.to_owned())])
    }

    /// Puts one value in the place of all of `name`, or none.
    pub fn set(&mut self, name: &str, value: Option<&str>) {
        self.0.retain(|(own, _)| own != name);
        self.0
            .extend(value.map(|value| (name.to_owned(), value.to_owned())));
    }

    /// The first value of `name`; an empty one counts as absent, as upstream has it.
    pub fn get<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = move |(n, _): &&(String, String)| n == name;
        self.0.iter().filter(named).map(|(_, value)| value.as_str())
    }

    /// Go's reading of booleans in queries: present means true unless `false` or `0`.
    pub fn is_set(&self, name: &str) -> bool {
        self.all(name)
            .next()
            .is_some_and(|value| !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }

    /// A number of at least 0. Errors name the parameter.
    pub fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                Refusal::bad_request(format!("invalid {name} {text:?}: must be a number from 0"))
            })
        };
        self.get(name).map(parse).transpose()
    }
}

/// Undoes percent-encoding.
pub fn decode(text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                rest = after;
                hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low)
            }
            (b'%', _) => None,
            (plain, _) => Some(*plain),
        };
        bytes.push(byte.ok_or_else(|| Refusal::bad_request("invalid URL escape"))?);
    }
    String::from_utf8(bytes).map_err(|_| Refusal::bad_request("URL is not UTF-8"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Percent-encodes everything but unreserved characters (RFC 3986, 2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded_in_order() {
        let query =
            Query::parse("command=sh&command=-c&command=a%20b+c%2Bd&tty&x=").expect("parse");
        let command: Vec<_> = query.all("command").collect();
        assert_eq!(command, ["sh", "-c", "a b c+d"]);
        assert!(query.is_set("tty") && query.is_set("x") && !query.is_set("y"));
        assert_eq!(query.get("x"), None);
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["a=%", "a=%2", "a=%zz", "a=%ff"] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn encoding_is_undone_by_decoding() {
        let text = "a/b?c=d&é %+";
        assert_eq!(decode(&encode(text)).as_deref(), Ok(text));
    }

    #[test]
    fn numbers_are_checked() {
        let query = Query::parse("a=5&b=-1&c=x&d=").expect("parse");
        assert_eq!(query.number("a"), Ok(Some(5)));
        assert_eq!(query.number("d"), Ok(None));
        assert!(query.number("b").is_err() && query.number("c").is_err());
    }
}
