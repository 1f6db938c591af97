//! Protobuf's wire format: numbered items out of bytes. Pure.
//!
//! Source: protobuf.dev/programming-guides/encoding.

use super::table::Type;

/// The items of a message, in order; ends after the first error.
pub struct Message<'a>(pub &'a [u8]);

/// One value as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A varint, or a number of four or eight bytes.
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Iterator for Message<'a> {
    type Item = Result<(u64, Item<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.item();
        if item.is_none() {
            self.0 = &[];
        }
        Some(item.ok_or_else(|| "a broken protobuf message".to_owned()))
    }
}

impl<'a> Message<'a> {
    fn item(&mut self) -> Option<(u64, Item<'a>)> {
        let tag = self.varint()?;
        let item = match tag & 7 {
            0 => Item::Number(self.varint()?),
            1 => Item::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Item::Bytes(self.take(length)?)
            }
            5 => {
                let number = u32::from_le_bytes(self.take(4)?.try_into().ok()?);
                Item::Number(u64::from(number))
            }
            _ => return None,
        };
        Some((tag >> 3, item))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, lowest first; at most ten bytes.
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

/// The elements that one item of a list holds: numbers may stand packed in one.
pub fn unpacked<'a>(
    of: &Type,
    item: Item<'a>,
) -> impl Iterator<Item = Result<Item<'a>, String>> + use<'a> {
    let packed = match (of, item) {
        (Type::Bool | Type::Integer, Item::Bytes(bytes)) => bytes,
        _ => &[],
    };
    let whole = packed.is_empty().then_some(Ok(item));
    let mut rest = Message(packed);
    let numbers = std::iter::from_fn(move || {
        (!rest.0.is_empty()).then(|| {
            let number = rest.varint();
            if number.is_none() {
                rest.0 = &[];
            }
            number
                .map(Item::Number)
                .ok_or_else(|| "a broken list of numbers".to_owned())
        })
    });
    whole.into_iter().chain(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_and_broken_ones_end_the_message() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'o', b'k', 0x1d, 1, 0, 0, 0];
        let items: Vec<_> = Message(&bytes).collect();
        let expected = [
            Ok((1, Item::Number(150))),
            Ok((2, Item::Bytes(b"ok"))),
            Ok((3, Item::Number(1))),
        ];
        assert_eq!(items, expected);
        for broken in [&[0x08][..], &[0x12, 5, 1], &[0x0b], &[0xff; 11]] {
            let items: Vec<_> = Message(broken).collect();
            assert!(items.len() == 1 && items[0].is_err(), "{broken:?}");
        }
    }

    #[test]
    fn numbers_may_stand_packed() {
        let items: Vec<_> = unpacked(&Type::Integer, Item::Bytes(&[1, 0x96, 1])).collect();
        assert_eq!(items, [Ok(Item::Number(1)), Ok(Item::Number(150))]);
        let text: Vec<_> = unpacked(&Type::Text, Item::Bytes(b"a")).collect();
        assert_eq!(text, [Ok(Item::Bytes(b"a"))]);
    }
}
