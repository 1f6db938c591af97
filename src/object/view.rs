//! Typed views of JSON. Beside what serde_json's own reading of a value does, this one knows where
//! it is: it names the place of the value that does not fit, and the fields that the type does not
//! have, without the type being written as JSON again.

use std::fmt::{Arguments, Write};
use std::iter::Enumerate;
use std::slice;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value, map};

/// A value as a type, and the paths (`spec.containers[0].imgae`) of fields that the type does not
/// have; a null is as good as no field. Errors: the path of the first value that does not fit, and
/// the types that it has and should have.
pub fn view<'de, T: Deserialize<'de>>(
    value: &'de Value,
) -> Result<(T, Vec<String>), (String, Error)> {
    let mut walk = Walk::default();
    let reader = Reader {
        value,
        walk: &mut walk,
    };
    match T::deserialize(reader) {
        Ok(typed) => Ok((typed, walk.unknown)),
        Err(error) => Err((walk.path, error)),
    }
}

#[derive(Default)]
struct Walk {
    /// Of the value that is read, or of the last one that was: a type may refuse what it has read.
    path: String,
    unknown: Vec<String>,
}

impl Walk {
    /// Reads a value that is one step below a path of `above` bytes.
    fn within<'de, S: DeserializeSeed<'de>>(
        &mut self,
        above: usize,
        step: Arguments<'_>,
        value: &'de Value,
        seed: S,
    ) -> Result<S::Value, Error> {
        self.path.truncate(above);
        self.path
            .write_fmt(step)
            .expect("a String takes everything");
        seed.deserialize(Reader { value, walk: self })
    }
}

struct Reader<'de, 'w> {
    value: &'de Value,
    walk: &'w mut Walk,
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items {
                items: items.iter().enumerate(),
                above: self.walk.path.len(),
                walk: self.walk,
            }),
            Value::Object(fields) => visitor.visit_map(Fields {
                fields: fields.iter(),
                above: self.walk.path.len(),
                field: None,
                walk: self.walk,
            }),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// How types read the fields that they do not know.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if !self.value.is_null() {
            self.walk.unknown.push(self.walk.path.clone());
        }
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier
    }
}

struct Items<'de, 'w> {
    items: Enumerate<slice::Iter<'de, Value>>,
    above: usize,
    walk: &'w mut Walk,
}

impl<'de> SeqAccess<'de> for Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((n, value)) = self.items.next() else {
            self.walk.path.truncate(self.above);
            return Ok(None);
        };
        let step = format_args!("[{n}]");
        let read = self.walk.within(self.above, step, value, seed);
        read.map(Some)
    }
}

struct Fields<'de, 'w> {
    fields: map::Iter<'de>,
    above: usize,
    /// The one whose name has been read.
    field: Option<(&'de str, &'de Value)>,
    walk: &'w mut Walk,
}

impl<'de> MapAccess<'de> for Fields<'de, '_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        let Some((name, value)) = self.fields.next() else {
            self.walk.path.truncate(self.above);
            return Ok(None);
        };
        self.field = Some((name, value));
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let (name, value) = self.field.expect("serde asks for a name first");
        let dot = if self.above == 0 { "" } else { "." };
        let step = format_args!("{dot}{name}");
        self.walk.within(self.above, step, value, seed)
    }
}
