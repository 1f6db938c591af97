//! The messages and their fields, read out of `table.txt` as they are asked for. It is in the program
//! compressed; who is asked for a message first keeps it unpacked, 27 kB.

use std::collections::BTreeMap;
use std::io::Read;
use std::rc::Rc;
use std::sync::LazyLock;

use flate2::read::GzDecoder;

const PACKED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/protobuf.gz"));

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut text = String::new();
    let unpacked = GzDecoder::new(PACKED).read_to_string(&mut text);
    unpacked.expect("what the build has packed is unpacked");
    text
});

#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    pub number: u64,
    /// Empty: the fields of its type stand in the message itself.
    pub name: &'static str,
    pub repeat: Repeat,
    pub of: Type,
    pub presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    No,
    List,
    /// From texts.
    Map,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// As it is on the wire.
    Always,
    /// Only with a value that is not zero.
    IfSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Text,
    Bool,
    Integer,
    Bytes,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// A message that holds nothing but texts.
    Texts,
    /// JSON as bytes.
    Raw,
    Message(&'static str),
}

/// The messages that were asked for.
#[derive(Default)]
pub struct Table(BTreeMap<&'static str, Rc<[Field]>>);

impl Table {
    pub fn message(&mut self, name: &str) -> Option<Rc<[Field]>> {
        if let Some(known) = self.0.get(name) {
            return Some(known.clone());
        }
        let (name, fields) = lines().find(|(known, _)| *known == name)?;
        let fields: Rc<[Field]> = fields.split(' ').filter_map(field).collect();
        self.0.insert(name, fields.clone());
        Some(fields)
    }
}

/// Names of messages, with their fields as text.
pub fn lines() -> impl Iterator<Item = (&'static str, &'static str)> {
    TEXT.lines().filter_map(|line| line.split_once(' '))
}

/// `2:data:{}y`
fn field(text: &'static str) -> Option<Field> {
    let mut parts = text.split(':');
    let (number, name, of) = (parts.next()?, parts.next()?, parts.next()?);
    let (repeat, of) = match (of.strip_prefix("[]"), of.strip_prefix("{}")) {
        (Some(of), _) => (Repeat::List, of),
        (_, Some(of)) => (Repeat::Map, of),
        _ => (Repeat::No, of),
    };
    let bare = of.trim_end_matches(['*', '!']);
    let presence = match bare.len() == of.len() {
        true => Presence::IfSet,
        false => Presence::Always,
    };
    let of = match bare {
        "s" => Type::Text,
        "b" => Type::Bool,
        "i" => Type::Integer,
        "y" => Type::Bytes,
        "quantity" => Type::Quantity,
        "time" => Type::Time,
        "micro" => Type::MicroTime,
        "intstr" => Type::IntOrString,
        "items" => Type::Texts,
        "raw" => Type::Raw,
        message => Type::Message(message),
    };
    Some(Field {
        number: number.parse().ok()?,
        name,
        repeat,
        of,
        presence,
    })
}
