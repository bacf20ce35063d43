//! The canonical encoding of everything that is published: statements, programs, verifier keys.
//!
//! Little end first, fixed widths, no padding, no optional parts: every value has one encoding. A count comes before what it counts and is
//! compared with its limit *and* with the bytes that are left before anything is allocated. [`Canonical::from_bytes`] refuses bytes that
//! do not re-encode to themselves. A field element is eight bytes below p; a digest is four of them.

use plonky2::field::types::{Field, PrimeField64};
use thiserror::Error;

use crate::field::{Digest, F, ORDER};

/// Bytes of a field element.
const ELEMENT_BYTES: usize = 8;
/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;
/// Bytes of the head of a document: magic (4) and format version (2).
pub const HEAD_BYTES: usize = 6;

/// Bytes that are not a canonical encoding.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("byte {offset}, field {field}: {problem}")]
pub struct DecodeError {
    /// Where the field starts.
    pub offset: usize,
    /// The field.
    pub field: &'static str,
    /// What is wrong.
    pub problem: DecodeProblem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeProblem {
    /// The bytes end inside the field.
    #[error("{needed} bytes are needed and {left} are left: the file is truncated")]
    Truncated {
        /// Bytes of the field.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// Something follows the last field.
    #[error("{extra} bytes follow the end")]
    Trailing {
        /// How many.
        extra: usize,
    },
    /// Longer than any document of this kind.
    #[error("{got} exceeds the limit of {limit}")]
    TooLong {
        /// Size or count found.
        got: usize,
        /// The largest allowed.
        limit: usize,
    },
    /// Another kind of document.
    #[error("the document does not start with {expected:?}: it is something else")]
    Magic {
        /// The magic of this kind.
        expected: &'static str,
    },
    /// Another format version.
    #[error("format version {got} is not supported, only {expected}")]
    Version {
        /// Version found.
        got: u16,
        /// Version supported.
        expected: u16,
    },
    /// A field element that is not below p.
    #[error("{got} is not below the field's order")]
    NotCanonical {
        /// The number found.
        got: u64,
    },
    /// A value that the field cannot have.
    #[error("the value {got} is not {expected}")]
    Value {
        /// Value found.
        got: u64,
        /// What it must be.
        expected: &'static str,
    },
    /// A string that is not UTF-8.
    #[error("the text is not UTF-8")]
    Text,
    /// The document has another, shorter or equal, encoding.
    #[error("the document is not in its canonical form")]
    NotReencoded,
}

/// A value with one encoding.
pub trait Canonical: Sized {
    /// Name of the whole, for errors.
    const NAME: &'static str;
    /// Longest encoding that is read.
    const MAX_BYTES: usize;

    /// Appends the encoding.
    fn write(&self, writer: &mut Writer);

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// The first field that is no such encoding.
    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// The encoding.
    fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.bytes
    }

    /// Reads a whole document.
    ///
    /// # Errors
    /// Anything but the one encoding of a value: longer than [`Self::MAX_BYTES`], truncated, out of range, trailing or not canonical.
    fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let whole = |problem| DecodeError { offset: 0, field: Self::NAME, problem };
        if bytes.len() > Self::MAX_BYTES {
            return Err(whole(DecodeProblem::TooLong { got: bytes.len(), limit: Self::MAX_BYTES }));
        }
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader)?;
        reader.finish(Self::NAME)?;
        if value.to_bytes() != bytes {
            return Err(whole(DecodeProblem::NotReencoded));
        }
        Ok(value)
    }
}

/// The 32 bytes of a digest.
pub fn digest_bytes(digest: Digest) -> [u8; DIGEST_BYTES] {
    let mut bytes = [0; DIGEST_BYTES];
    for (chunk, element) in bytes.chunks_exact_mut(ELEMENT_BYTES).zip(digest.elements) {
        chunk.copy_from_slice(&element.to_canonical_u64().to_le_bytes());
    }
    bytes
}

/// The digest of 32 bytes.
///
/// # Errors
/// A word that is not below p.
pub fn parse_digest(bytes: &[u8; DIGEST_BYTES]) -> Result<Digest, DecodeError> {
    Reader::new(bytes).digest("digest")
}

/// The lower-case hexadecimal form of [`digest_bytes`].
pub fn digest_hex(digest: Digest) -> String {
    hex::encode(digest_bytes(digest))
}

/// Appends fields.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Magic and format version.
    pub fn head(&mut self, magic: &'static str, version: u16) {
        self.bytes.extend_from_slice(magic.as_bytes());
        self.bytes.extend_from_slice(&version.to_le_bytes());
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A size or a count: eight bytes.
    pub fn size(&mut self, value: usize) {
        self.bytes.extend_from_slice(&(value as u64).to_le_bytes());
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// The eight bytes of an IEEE double.
    pub fn f64(&mut self, value: f64) {
        self.bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    }

    /// Eight bytes below p.
    pub fn element(&mut self, element: F) {
        self.bytes.extend_from_slice(&element.to_canonical_u64().to_le_bytes());
    }

    /// 32 bytes.
    pub fn digest(&mut self, digest: Digest) {
        self.bytes.extend_from_slice(&digest_bytes(digest));
    }

    /// A length and the bytes.
    pub fn blob(&mut self, bytes: &[u8]) {
        self.size(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }
}

/// Reads fields; holds no more than a position.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    /// From the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// An error at the present position.
    pub fn error(&self, field: &'static str, problem: DecodeProblem) -> DecodeError {
        DecodeError { offset: self.offset, field, problem }
    }

    fn take(&mut self, field: &'static str, n_bytes: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeProblem::Truncated { needed: n_bytes, left: self.rest.len() };
        let (head, rest) = self.rest.split_at_checked(n_bytes).ok_or_else(|| self.error(field, truncated))?;
        self.rest = rest;
        self.offset = self.offset.saturating_add(n_bytes);
        Ok(head)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        // `take` answers exactly N bytes.
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    /// Magic and format version.
    ///
    /// # Errors
    /// Another magic, another version.
    pub fn head(&mut self, magic: &'static str, version: u16) -> Result<(), DecodeError> {
        let start = self.offset;
        let at_start = |field, problem| DecodeError { offset: start, field, problem };
        if self.take("magic", magic.len())? != magic.as_bytes() {
            return Err(at_start("magic", DecodeProblem::Magic { expected: magic }));
        }
        let got = u16::from_le_bytes(self.array("version")?);
        if got != version {
            return Err(at_start("version", DecodeProblem::Version { got, expected: version }));
        }
        Ok(())
    }

    /// One byte.
    ///
    /// # Errors
    /// The end of the bytes.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array(field).map(|[byte]| byte)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// The end of the bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A size of at most `limit`.
    ///
    /// # Errors
    /// More, or the end of the bytes.
    pub fn size(&mut self, field: &'static str, limit: usize) -> Result<usize, DecodeError> {
        let start = self.offset;
        let value = u64::from_le_bytes(self.array(field)?);
        let got = usize::try_from(value).unwrap_or(usize::MAX);
        if got > limit {
            return Err(DecodeError { offset: start, field, problem: DecodeProblem::TooLong { got, limit } });
        }
        Ok(got)
    }

    /// Eight bytes, two's complement.
    ///
    /// # Errors
    /// The end of the bytes.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_le_bytes)
    }

    /// An IEEE double.
    ///
    /// # Errors
    /// The end of the bytes.
    pub fn f64(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        self.array(field).map(|bytes| f64::from_bits(u64::from_le_bytes(bytes)))
    }

    /// A field element.
    ///
    /// # Errors
    /// A word that is not below p, or the end of the bytes.
    pub fn element(&mut self, field: &'static str) -> Result<F, DecodeError> {
        let start = self.offset;
        let got = u64::from_le_bytes(self.array(field)?);
        if got >= ORDER {
            return Err(DecodeError { offset: start, field, problem: DecodeProblem::NotCanonical { got } });
        }
        Ok(F::from_canonical_u64(got))
    }

    /// A digest.
    ///
    /// # Errors
    /// A word that is not below p, or the end of the bytes.
    pub fn digest(&mut self, field: &'static str) -> Result<Digest, DecodeError> {
        let mut digest = Digest::ZERO;
        for element in &mut digest.elements {
            *element = self.element(field)?;
        }
        Ok(digest)
    }

    /// A length of at most `limit` and that many bytes; borrows them.
    ///
    /// # Errors
    /// A longer one, or the end of the bytes.
    pub fn blob(&mut self, field: &'static str, limit: usize) -> Result<&'a [u8], DecodeError> {
        let length = self.size(field, limit)?;
        self.take(field, length)
    }

    /// A text of at most `limit` bytes.
    ///
    /// # Errors
    /// A longer one, other bytes than UTF-8, or the end of the bytes.
    pub fn text(&mut self, field: &'static str, limit: usize) -> Result<String, DecodeError> {
        let start = self.offset;
        let bytes = self.blob(field, limit)?;
        let text = std::str::from_utf8(bytes);
        text.map(str::to_owned).map_err(|_| DecodeError { offset: start, field, problem: DecodeProblem::Text })
    }

    /// A count of at most `limit` and that many items, each of at least `min_bytes`.
    ///
    /// # Errors
    /// A larger count, one that the bytes left cannot hold, or an error of an item.
    pub fn list<T>(
        &mut self,
        field: &'static str,
        limit: usize,
        min_bytes: usize,
        read: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.size(field, limit)?;
        let needed = count.saturating_mul(min_bytes.max(1));
        if needed > self.rest.len() {
            return Err(self.error(field, DecodeProblem::Truncated { needed, left: self.rest.len() }));
        }
        (0..count).map(|_| read(self)).collect()
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Trailing bytes.
    pub fn finish(&self, name: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            extra => Err(self.error(name, DecodeProblem::Trailing { extra })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        digest: Digest,
        texts: Vec<String>,
    }

    impl Canonical for Sample {
        const NAME: &'static str = "sample";
        const MAX_BYTES: usize = 4096;

        fn write(&self, writer: &mut Writer) {
            writer.head("TEST", 1);
            writer.digest(self.digest);
            writer.size(self.texts.len());
            for text in &self.texts {
                writer.blob(text.as_bytes());
            }
        }

        fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
            reader.head("TEST", 1)?;
            Ok(Self { digest: reader.digest("digest")?, texts: reader.list("texts", 8, 8, |r| r.text("text", 16))? })
        }
    }

    fn sample() -> Sample {
        let digest = Digest { elements: [1, 2, ORDER - 1, 0].map(F::from_canonical_u64) };
        Sample { digest, texts: vec!["a".into(), String::new(), "ä".into()] }
    }

    fn problem(bytes: &[u8]) -> (usize, DecodeProblem) {
        let error = Sample::from_bytes(bytes).unwrap_err();
        (error.offset, error.problem)
    }

    #[test]
    fn round_trips() {
        assert_eq!(Sample::from_bytes(&sample().to_bytes()), Ok(sample()));
    }

    #[test]
    fn refuses_an_element_that_is_not_below_the_order() {
        let mut bytes = sample().to_bytes();
        bytes[6..14].copy_from_slice(&(ORDER + 1).to_le_bytes());
        assert_eq!(problem(&bytes), (6, DecodeProblem::NotCanonical { got: ORDER + 1 }));
    }

    #[test]
    fn refuses_a_count_that_the_bytes_cannot_hold_before_reading_items() {
        let mut bytes = sample().to_bytes();
        bytes[38] = 8;
        assert_eq!(problem(&bytes), (46, DecodeProblem::Truncated { needed: 64, left: bytes.len() - 46 }));
        bytes[45] = 0xff;
        assert_eq!(problem(&bytes), (38, DecodeProblem::TooLong { got: 0xff00_0000_0000_0008, limit: 8 }));
    }

    #[test]
    fn refuses_another_head_trailing_bytes_truncation_and_text_that_is_not_utf8() {
        let bytes = sample().to_bytes();
        assert_eq!(problem(&[b"Test", &bytes[4..]].concat()), (0, DecodeProblem::Magic { expected: "TEST" }));
        assert_eq!(problem(&[b"TEST\x02\0", &bytes[6..]].concat()), (0, DecodeProblem::Version { got: 2, expected: 1 }));
        assert_eq!(problem(&[&bytes[..], &[0]].concat()).1, DecodeProblem::Trailing { extra: 1 });
        assert_eq!(problem(&bytes[..4]).1, DecodeProblem::Truncated { needed: 2, left: 0 });
        let mut broken = bytes.clone();
        *broken.last_mut().unwrap() = 0xff;
        assert_eq!(problem(&broken).1, DecodeProblem::Text);
        assert_eq!(problem(&vec![0; 4097]).1, DecodeProblem::TooLong { got: 4097, limit: 4096 });
    }
}
