//! The wire format: what of a message is where in its bytes.

use prost_reflect::Kind;

/// Bytes that are not what they are taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer that {0}")]
pub struct Malformed(pub &'static str);

/// A value as it is encoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw<'b> {
    /// A varint, or four or eight bytes.
    Number(u64),
    /// What says its length.
    Bytes(&'b [u8]),
}

impl<'b> Raw<'b> {
    /// As bytes.
    pub fn bytes(self) -> Result<&'b [u8], Malformed> {
        match self {
            Raw::Bytes(bytes) => Ok(bytes),
            Raw::Number(_) => Err(Malformed("has a number where there should be bytes")),
        }
    }

    /// As a number.
    pub fn number(self) -> Result<u64, Malformed> {
        match self {
            Raw::Number(number) => Ok(number),
            Raw::Bytes(_) => Err(Malformed("has bytes where there should be a number")),
        }
    }
}

/// What is yet to be read.
pub struct Reader<'b>(pub &'b [u8]);

impl<'b> Reader<'b> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0_u64;
        for (at, byte) in self.0.iter().enumerate().take(10) {
            number |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                self.0 = &self.0[at + 1..];
                return Ok(number);
            }
        }
        Err(Malformed("breaks off"))
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed("breaks off"))?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("breaks off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed(&mut self, length: usize) -> Result<u64, Malformed> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(self.take(length as u64)?);
        Ok(u64::from_le_bytes(bytes))
    }

    /// A field: its number, and its value.
    fn field(&mut self) -> Result<(usize, Raw<'b>), Malformed> {
        let tag = self.varint()?;
        let raw = match tag & 7 {
            0 => Raw::Number(self.varint()?),
            1 => Raw::Number(self.fixed(8)?),
            2 => {
                let length = self.varint()?;
                Raw::Bytes(self.take(length)?)
            }
            5 => Raw::Number(self.fixed(4)?),
            _ => return Err(Malformed("has a field of no known way of encoding")),
        };
        Ok(((tag >> 3) as usize, raw))
    }

    /// One of many numbers of a kind.
    pub fn packed(&mut self, kind: &Kind) -> Result<Raw<'b>, Malformed> {
        Ok(Raw::Number(match kind {
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => self.fixed(4)?,
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => self.fixed(8)?,
            _ => self.varint()?,
        }))
    }
}

/// The values of a message by the place of their field.
pub struct Found<'b> {
    /// Of each field, its first and its last value, plus one; 0 where it has none.
    ends: Vec<(u32, u32)>,
    /// Every value, and the one of the same field that comes next, plus one.
    values: Vec<(Raw<'b>, u32)>,
}

impl<'b> Found<'b> {
    /// Reads a message of so many fields; `place` tells a field's place by its number. Fields that nobody knows are passed over.
    pub fn read(
        bytes: &'b [u8],
        fields: usize,
        place: impl Fn(usize) -> Option<usize>,
    ) -> Result<Found<'b>, Malformed> {
        let mut found = Found { ends: vec![(0, 0); fields], values: Vec::new() };
        let mut reader = Reader(bytes);
        while !reader.0.is_empty() {
            let (number, raw) = reader.field()?;
            let Some(at) = place(number) else { continue };
            found.values.push((raw, 0));
            let this = u32::try_from(found.values.len()).map_err(|_| Malformed("is too long"))?;
            let (first, last) = &mut found.ends[at];
            match *last {
                0 => *first = this,
                before => found.values[before as usize - 1].1 = this,
            }
            *last = this;
        }
        Ok(found)
    }

    /// The last value of a field.
    pub fn last(&self, at: usize) -> Option<Raw<'b>> {
        self.value(self.ends[at].1).map(|(raw, _)| raw)
    }

    /// Every value of a field.
    pub fn all(&self, at: usize) -> impl Iterator<Item = Raw<'b>> + '_ {
        let first = self.value(self.ends[at].0);
        std::iter::successors(first, |(_, next)| self.value(*next)).map(|(raw, _)| raw)
    }

    fn value(&self, this: u32) -> Option<(Raw<'b>, u32)> {
        (this as usize).checked_sub(1).map(|at| self.values[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_off_or_is_of_no_way_of_encoding_is_told() {
        fn read(bytes: &[u8]) -> Result<Option<Raw<'_>>, Malformed> {
            Found::read(bytes, 1, |number| (number == 1).then_some(0)).map(|f| f.last(0))
        }
        assert_eq!(read(&[0x08, 0x96, 0x01]), Ok(Some(Raw::Number(150))));
        assert_eq!(read(&[0x0a, 2, 7, 8, 0x0a, 1, 9]), Ok(Some(Raw::Bytes(&[9]))));
        assert_eq!(read(&[0x10, 1]), Ok(None), "a field that nobody knows");
        for bytes in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x0a, 5, 1],
            &[0x0d, 0, 0],
            &[0x0b],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }
}
