//! NumPy's `.npy` array files: header, then the elements in C order, little-endian.
//!
//! Files come from outside: every length is checked before anything is allocated.

use thiserror::Error;

/// Bounds on an array file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NpyLimits {
    /// Elements of the array.
    pub max_elements: usize,
    /// Number of dimensions.
    pub max_dimensions: usize,
    /// Bytes of the header.
    pub max_header_bytes: usize,
}

impl Default for NpyLimits {
    /// 2^28 elements, 8 dimensions, 4 KiB of header.
    fn default() -> Self {
        Self { max_elements: 1 << 28, max_dimensions: 8, max_header_bytes: 4096 }
    }
}

/// An array.
#[derive(Clone, Debug, PartialEq)]
pub struct NpyArray {
    /// Its shape; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements in C order.
    pub data: NpyData,
}

/// Elements of an array, by type.
#[derive(Clone, Debug, PartialEq)]
pub enum NpyData {
    /// `<f4`.
    F32(Vec<f32>),
    /// `<f8`.
    F64(Vec<f64>),
    /// `|u1`.
    U8(Vec<u8>),
    /// `|i1`.
    I8(Vec<i8>),
    /// `<i4`.
    I32(Vec<i32>),
    /// `<i8`.
    I64(Vec<i64>),
}

/// Why bytes are not an array that can be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NpyError {
    /// The file does not start like one.
    #[error("not an .npy file: the magic bytes are missing")]
    Magic,
    /// A format version this reader does not know.
    #[error("unknown .npy version {major}.{minor}; versions 1.0, 2.0 and 3.0 are supported")]
    Version {
        /// Major version.
        major: u8,
        /// Minor version.
        minor: u8,
    },
    /// The file ends inside its header.
    #[error("the .npy file ends inside its header")]
    Truncated,
    /// The header is longer than the limit.
    #[error("the .npy header has {got} bytes; the limit is {limit}")]
    HeaderTooLong {
        /// Bytes it says it has.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The header is not the dictionary it should be.
    #[error("the .npy header is malformed: {reason}")]
    Header {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An element type that is not read.
    #[error("unsupported .npy element type {descr:?}; save the array as <f4, <f8, |u1, |i1, <i4 or <i8")]
    ElementType {
        /// The type.
        descr: String,
    },
    /// Columns first.
    #[error("the .npy array is in Fortran order; save it with numpy.ascontiguousarray")]
    FortranOrder,
    /// Too many dimensions.
    #[error("the .npy array has {got} dimensions; the limit is {limit}")]
    TooManyDimensions {
        /// Dimensions it has.
        got: usize,
        /// Dimensions allowed.
        limit: usize,
    },
    /// Too many elements.
    #[error("the .npy array of shape {shape:?} has more than {limit} elements")]
    TooManyElements {
        /// Its shape.
        shape: Vec<usize>,
        /// Elements allowed.
        limit: usize,
    },
    /// The data does not have the length that the shape says.
    #[error("the .npy array should have {expected} bytes of data but has {got}")]
    DataLength {
        /// Bytes the shape says.
        expected: usize,
        /// Bytes there are.
        got: usize,
    },
}

/// Reads an array.
///
/// Allocates at most the file's own size for the elements, plus the header.
///
/// # Errors
/// The first thing that is wrong with the file.
pub fn read_npy(bytes: &[u8], limits: &NpyLimits) -> Result<NpyArray, NpyError> {
    let (header, data) = split_header(bytes, limits)?;
    let header = parse_header(header, limits)?;
    if header.is_fortran_order {
        return Err(NpyError::FortranOrder);
    }
    let product = header.shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let Some(n_elements) = product.filter(|&product| product <= limits.max_elements) else {
        return Err(NpyError::TooManyElements { shape: header.shape, limit: limits.max_elements });
    };
    let data = parse_elements(&header.descr, data, n_elements)?;
    Ok(NpyArray { shape: header.shape, data })
}

impl NpyArray {
    /// Number of elements.
    pub fn n_elements(&self) -> usize {
        match &self.data {
            NpyData::F32(values) => values.len(),
            NpyData::F64(values) => values.len(),
            NpyData::U8(values) => values.len(),
            NpyData::I8(values) => values.len(),
            NpyData::I32(values) => values.len(),
            NpyData::I64(values) => values.len(),
        }
    }

    /// All elements as f32 (rounded where f32 cannot hold them).
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            NpyData::F32(values) => values.clone(),
            NpyData::F64(values) => values.iter().map(|&value| value as f32).collect(),
            NpyData::U8(values) => values.iter().map(|&value| f32::from(value)).collect(),
            NpyData::I8(values) => values.iter().map(|&value| f32::from(value)).collect(),
            NpyData::I32(values) => values.iter().map(|&value| value as f32).collect(),
            NpyData::I64(values) => values.iter().map(|&value| value as f32).collect(),
        }
    }

    /// The samples of a batch: the array cut along its first dimension into rows of `row_elements`.
    /// `None` if it does not divide so; an array of exactly `row_elements` elements is one sample.
    pub fn to_samples(&self, row_elements: usize) -> Option<Vec<Vec<f32>>> {
        let is_batch = self.shape.first().is_some_and(|&rows| rows.checked_mul(row_elements) == Some(self.n_elements()));
        if row_elements == 0 || !(is_batch || self.n_elements() == row_elements) {
            return None;
        }
        Some(self.to_f32().chunks_exact(row_elements).map(<[f32]>::to_vec).collect())
    }
}

/// Header text and data.
fn split_header<'a>(bytes: &'a [u8], limits: &NpyLimits) -> Result<(&'a [u8], &'a [u8]), NpyError> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or(NpyError::Magic)?;
    let (&[major, minor], rest) = rest.split_first_chunk::<2>().ok_or(NpyError::Truncated)?;
    let (length, rest) = match (major, minor) {
        (1, 0) => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or(NpyError::Truncated)?;
            (u32::from(u16::from_le_bytes(*length)), rest)
        }
        (2 | 3, 0) => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or(NpyError::Truncated)?;
            (u32::from_le_bytes(*length), rest)
        }
        _ => return Err(NpyError::Version { major, minor }),
    };
    let length = length as usize;
    if length > limits.max_header_bytes {
        return Err(NpyError::HeaderTooLong { got: length, limit: limits.max_header_bytes });
    }
    rest.split_at_checked(length).ok_or(NpyError::Truncated)
}

struct Header {
    descr: String,
    is_fortran_order: bool,
    shape: Vec<usize>,
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (4, 784), }`, keys in any order.
fn parse_header(bytes: &[u8], limits: &NpyLimits) -> Result<Header, NpyError> {
    let malformed = |reason| NpyError::Header { reason };
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not text"))?;
    let body = text.trim_matches([' ', '\n', '\0']).strip_prefix('{').and_then(|text| text.strip_suffix('}'));
    let mut rest = body.ok_or(malformed("it is not a dictionary"))?.trim();
    let (mut descr, mut is_fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after_key) = parse_string(rest).ok_or(malformed("a key is not a string"))?;
        let value = after_key.trim_start().strip_prefix(':').ok_or(malformed("a key has no value"))?.trim_start();
        rest = match key {
            "descr" => parse_string(value).map(|(text, rest)| (descr.replace(text.to_owned()).is_none(), rest)),
            "fortran_order" => parse_bool(value).map(|(flag, rest)| (is_fortran_order.replace(flag).is_none(), rest)),
            "shape" => parse_shape(value, limits)?.map(|(dims, rest)| (shape.replace(dims).is_none(), rest)),
            _ => return Err(malformed("it has an unknown key")),
        }
        .ok_or(malformed("a value has the wrong form"))
        .and_then(|(is_first, rest)| if is_first { Ok(rest) } else { Err(malformed("a key occurs twice")) })?
        .trim_start();
        rest = match rest.strip_prefix(',') {
            Some(after_comma) => after_comma.trim_start(),
            None if rest.is_empty() => rest,
            None => return Err(malformed("entries are not separated by commas")),
        };
    }
    match (descr, is_fortran_order, shape) {
        (Some(descr), Some(is_fortran_order), Some(shape)) => Ok(Header { descr, is_fortran_order, shape }),
        _ => Err(malformed("a key is missing")),
    }
}

fn parse_string(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

fn parse_bool(text: &str) -> Option<(bool, &str)> {
    let is_true = text.strip_prefix("True").map(|rest| (true, rest));
    is_true.or_else(|| text.strip_prefix("False").map(|rest| (false, rest)))
}

/// A tuple of non-negative integers; `Ok(None)` if the text is none.
fn parse_shape<'a>(text: &'a str, limits: &NpyLimits) -> Result<Option<(Vec<usize>, &'a str)>, NpyError> {
    let Some((inside, rest)) = text.strip_prefix('(').and_then(|text| text.split_once(')')) else { return Ok(None) };
    let inside = inside.trim();
    let inside = inside.strip_suffix(',').unwrap_or(inside);
    if inside.is_empty() {
        return Ok(Some((Vec::new(), rest)));
    }
    let n_dimensions = inside.split(',').count();
    if n_dimensions > limits.max_dimensions {
        return Err(NpyError::TooManyDimensions { got: n_dimensions, limit: limits.max_dimensions });
    }
    let dims = inside.split(',').map(|dim| dim.trim().parse::<usize>()).collect::<Result<Vec<usize>, _>>();
    Ok(dims.ok().map(|dims| (dims, rest)))
}

fn parse_elements(descr: &str, data: &[u8], n_elements: usize) -> Result<NpyData, NpyError> {
    let check = |element_bytes: usize| match n_elements.checked_mul(element_bytes) {
        Some(expected) if expected == data.len() => Ok(()),
        expected => Err(NpyError::DataLength { expected: expected.unwrap_or(usize::MAX), got: data.len() }),
    };
    match descr {
        "<f4" => check(4).map(|()| NpyData::F32(chunks(data).map(f32::from_le_bytes).collect())),
        "<f8" => check(8).map(|()| NpyData::F64(chunks(data).map(f64::from_le_bytes).collect())),
        "|u1" => check(1).map(|()| NpyData::U8(data.to_vec())),
        "|i1" => check(1).map(|()| NpyData::I8(chunks(data).map(i8::from_le_bytes).collect())),
        "<i4" => check(4).map(|()| NpyData::I32(chunks(data).map(i32::from_le_bytes).collect())),
        "<i8" => check(8).map(|()| NpyData::I64(chunks(data).map(i64::from_le_bytes).collect())),
        _ => Err(NpyError::ElementType { descr: descr.to_owned() }),
    }
}

/// The data in arrays of N bytes.
fn chunks<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    fn read(header: &str, data: &[u8]) -> Result<NpyArray, NpyError> {
        read_npy(&file(header, data), &NpyLimits::default())
    }

    #[test]
    fn reads_every_type() {
        let typed = |descr: &str, data: &[u8]| {
            read(&format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (2,), }}     \n"), data).unwrap().data
        };
        assert_eq!(typed("<f4", &[0, 0, 128, 63, 0, 0, 0, 192]), NpyData::F32(vec![1.0, -2.0]));
        assert_eq!(typed("<f8", &[0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192]), NpyData::F64(vec![1.0, -2.0]));
        assert_eq!(typed("|u1", &[1, 254]), NpyData::U8(vec![1, 254]));
        assert_eq!(typed("|i1", &[1, 254]), NpyData::I8(vec![1, -2]));
        assert_eq!(typed("<i4", &[1, 0, 0, 0, 254, 255, 255, 255]), NpyData::I32(vec![1, -2]));
        assert_eq!(typed("<i8", &[1, 0, 0, 0, 0, 0, 0, 0, 254, 255, 255, 255, 255, 255, 255, 255]), NpyData::I64(vec![1, -2]));
    }

    #[test]
    fn reads_every_shape_and_version() {
        let shape = |shape: &str, n: usize| {
            read(&format!("{{\"shape\":{shape},\"fortran_order\":False,\"descr\":\"|u1\"}}"), &vec![0; n]).unwrap().shape
        };
        assert_eq!(shape("()", 1), Vec::<usize>::new());
        assert_eq!(shape("(3,)", 3), [3]);
        assert_eq!(shape("(2, 3)", 6), [2, 3]);
        assert_eq!(shape("(0, 9)", 0), [0, 9]);
        let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (1,)}";
        let mut bytes = b"\x93NUMPY\x03\x00".to_vec();
        bytes.extend((header.len() as u32).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.push(7);
        assert_eq!(read_npy(&bytes, &NpyLimits::default()).unwrap().data, NpyData::U8(vec![7]));
    }

    #[test]
    fn refuses_files_that_lie_about_their_size() {
        let limit = NpyLimits::default().max_elements;
        let u8s = |shape: &str, data: &[u8]| read(&format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}"), data);
        assert_eq!(u8s("(4,)", &[0; 3]), Err(NpyError::DataLength { expected: 4, got: 3 }));
        assert_eq!(u8s("(4,)", &[0; 5]), Err(NpyError::DataLength { expected: 4, got: 5 }));
        let huge = vec![1 << 40, 1 << 40];
        assert_eq!(u8s("(1099511627776, 1099511627776)", &[]), Err(NpyError::TooManyElements { shape: huge, limit }));
        let large = vec![1 << 29];
        assert_eq!(u8s("(536870912,)", &[]), Err(NpyError::TooManyElements { shape: large, limit }));
        let wrong_form = Err(NpyError::Header { reason: "a value has the wrong form" });
        assert_eq!(u8s("(99999999999999999999999,)", &[]), wrong_form);
        assert_eq!(u8s("(-1,)", &[]), wrong_form);
        assert_eq!(u8s("(1,1,1,1,1,1,1,1,1)", &[0]), Err(NpyError::TooManyDimensions { got: 9, limit: 8 }));
    }

    #[test]
    fn refuses_files_that_are_no_arrays() {
        let limits = NpyLimits::default();
        assert_eq!(read_npy(b"", &limits), Err(NpyError::Magic));
        assert_eq!(read_npy(b"\x93NUMPY\x01", &limits), Err(NpyError::Truncated));
        assert_eq!(read_npy(b"\x93NUMPY\x01\x00\x05\x00abcd", &limits), Err(NpyError::Truncated));
        assert_eq!(read_npy(b"\x93NUMPY\x04\x00", &limits), Err(NpyError::Version { major: 4, minor: 0 }));
        let too_long = NpyError::HeaderTooLong { got: 0xffff_ffff, limit: 4096 };
        assert_eq!(read_npy(b"\x93NUMPY\x02\x00\xff\xff\xff\xff", &limits), Err(too_long));
        let malformed = |header: &str| match read(header, &[]) {
            Err(NpyError::Header { reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(malformed("list"), "it is not a dictionary");
        assert_eq!(malformed("{descr}"), "a key is not a string");
        assert_eq!(malformed("{'descr"), "it is not a dictionary");
        assert_eq!(malformed("{'descr' 5}"), "a key has no value");
        assert_eq!(malformed("{'descr': 5}"), "a value has the wrong form");
        assert_eq!(malformed("{'colour': 5}"), "it has an unknown key");
        assert_eq!(malformed("{'descr': 'a' 'shape': ()}"), "entries are not separated by commas");
        assert_eq!(malformed("{'descr': 'a', 'descr': 'b'}"), "a key occurs twice");
        assert_eq!(malformed("{}"), "a key is missing");
        let fortran = read("{'descr': '|u1', 'fortran_order': True, 'shape': ()}", &[0]);
        assert_eq!(fortran, Err(NpyError::FortranOrder));
        let objects = read("{'descr': '|O', 'fortran_order': False, 'shape': ()}", &[0]);
        assert_eq!(objects, Err(NpyError::ElementType { descr: "|O".into() }));
    }

    #[test]
    fn cuts_batches_into_samples() {
        let array = NpyArray { shape: vec![2, 3], data: NpyData::U8(vec![1, 2, 3, 4, 5, 6]) };
        assert_eq!(array.to_samples(3), Some(vec![vec![1.0, 2.0, 3.0], vec![4.0, 5.0, 6.0]]));
        assert_eq!(array.to_samples(6), Some(vec![vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]));
        assert_eq!((array.to_samples(2), array.to_samples(0)), (None, None));
    }
}
