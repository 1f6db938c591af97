//! JSON read with what serde_json's own `Value` does not tell: duplicate keys, and deep nesting; and
//! values told apart.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Duplicate keys that are named one by one.
const DUPLICATES_MAX: usize = 16;

/// What tells one value from another in memory. Not seeded: the same in each process, so that
/// simulations repeat; not for what strangers could make collide.
pub fn fingerprint(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Parses one JSON document; a duplicate key is an error. Errors carry the line, from 1.
pub fn parse(text: &str, depth_max: usize) -> Result<Value, (usize, String)> {
    read(text, depth_max, None)
}

/// The same, but of duplicate keys the last one counts, as with Go's decoder; they come back as
/// paths: `spec.containers[0].image`.
pub fn parse_lenient(
    text: &str,
    depth_max: usize,
) -> Result<(Value, Vec<String>), (usize, String)> {
    let duplicates = RefCell::default();
    let value = read(text, depth_max, Some(&duplicates))?;
    Ok((value, duplicates.into_inner()))
}

fn read(
    text: &str,
    depth_max: usize,
    duplicates: Option<&RefCell<Vec<String>>>,
) -> Result<Value, (usize, String)> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let strict = Strict {
        depth: &Cell::new(depth_max),
        duplicates,
        place: None,
    };
    strict
        .deserialize(&mut reader)
        .and_then(|value| reader.end().map(|()| value))
        .map_err(|error| (error.line(), error.to_string()))
}

/// A step of the way down to a value.
#[derive(Clone, Copy)]
struct Place<'a> {
    step: Step<'a>,
    outer: Option<&'a Place<'a>>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl Place<'_> {
    fn path(&self) -> String {
        let outer = self.outer.map(Place::path).unwrap_or_default();
        match self.step {
            Step::Field(name) if outer.is_empty() => name.to_owned(),
            Step::Field(name) => format!("{outer}.{name}"),
            Step::Item(index) => format!("{outer}[{index}]"),
        }
    }
}

#[derive(Clone, Copy)]
struct Strict<'a> {
    /// Levels that may still be opened.
    depth: &'a Cell<usize>,
    /// Where duplicate keys are noted; without it they are errors.
    duplicates: Option<&'a RefCell<Vec<String>>>,
    place: Option<&'a Place<'a>>,
}

impl<'a> Strict<'a> {
    fn at(self, place: &'a Place<'a>) -> Strict<'a> {
        Strict {
            place: Some(place),
            ..self
        }
    }

    fn duplicate<E: Error>(self, place: &Place<'_>, name: &str) -> Result<(), E> {
        let Some(duplicates) = self.duplicates else {
            return Err(E::custom(format!("duplicate key {name:?}")));
        };
        let mut duplicates = duplicates.borrow_mut();
        if duplicates.len() < DUPLICATES_MAX {
            duplicates.push(place.path());
        }
        Ok(())
    }

    fn descend<E: Error>(self) -> Result<(), E> {
        match self.depth.get().checked_sub(1) {
            Some(left) => {
                self.depth.set(left);
                Ok(())
            }
            None => Err(E::custom("nested too deeply")),
        }
    }

    fn ascend(self) {
        self.depth.set(self.depth.get() + 1);
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut items = Vec::new();
        loop {
            let place = Place {
                step: Step::Item(items.len()),
                outer: self.place,
            };
            match access.next_element_seed(self.at(&place))? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        self.ascend();
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        self.descend()?;
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let place = Place {
                step: Step::Field(&name),
                outer: self.place,
            };
            if fields.contains_key(&name) {
                self.duplicate(&place, &name)?;
            }
            let value = access.next_value_seed(self.at(&place))?;
            fields.insert(name, value);
        }
        self.ascend();
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_named_by_their_path_and_the_last_one_counts() {
        let text = r#"{"a":1,"spec":{"list":[{"x":1},{"x":2,"x":3}],"b":{"c":1}},"a":4}"#;
        let (value, duplicates) = parse_lenient(text, 8).expect("parse");
        assert_eq!(duplicates, ["spec.list[1].x", "a"]);
        assert_eq!(value["spec"]["list"][1]["x"], 3);
        assert_eq!(value["a"], 4);
        assert!(parse(text, 8).is_err());
        assert!(parse_lenient(text, 3).is_err(), "too deep");
    }
}
