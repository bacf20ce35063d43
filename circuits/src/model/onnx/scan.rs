//! A first walk over the protobuf bytes that allocates nothing and bounds what decoding them will.
//!
//! An empty message takes two bytes in a file and some hundred in memory, so the size of a file alone bounds nothing useful.

use super::error::ImportError;
use super::limits::ImportLimits;

/// The messages that are decoded.
#[derive(Clone, Copy)]
enum Message {
    Model,
    OperatorSet,
    Graph,
    Node,
    Attribute,
    Tensor,
    ExternalData,
    ValueInfo,
    Type,
    TensorType,
    Shape,
    Dimension,
}

/// What a field of a decoded message holds.
enum Field {
    /// A message that is decoded.
    Message(Message),
    /// A name.
    Text,
    /// Raw bytes: as large in memory as in the file.
    Bytes,
    /// Numbers of variable length, packed or one by one.
    Varints,
    /// Numbers of fixed length: as large in memory as in the file.
    Fixed,
    /// Skipped by the decoder, or a single number.
    Other,
}

impl Message {
    /// What field `number` holds; mirrors `messages.rs`.
    fn field(self, number: u64) -> Field {
        match (self, number) {
            (Self::Model, 7) => Field::Message(Self::Graph),
            (Self::Model, 8) => Field::Message(Self::OperatorSet),
            (Self::Graph, 1) => Field::Message(Self::Node),
            (Self::Graph, 5) | (Self::Attribute, 5) => Field::Message(Self::Tensor),
            (Self::Graph, 11 | 12) => Field::Message(Self::ValueInfo),
            (Self::Node, 5) => Field::Message(Self::Attribute),
            (Self::Tensor, 13) => Field::Message(Self::ExternalData),
            (Self::ValueInfo, 2) => Field::Message(Self::Type),
            (Self::Type, 1) => Field::Message(Self::TensorType),
            (Self::TensorType, 2) => Field::Message(Self::Shape),
            (Self::Shape, 1) => Field::Message(Self::Dimension),
            (Self::OperatorSet | Self::ValueInfo, 1) | (Self::Tensor, 8) => Field::Text,
            (Self::Node, 1..=4 | 7) | (Self::Attribute, 1 | 21) => Field::Text,
            (Self::Tensor, 9) => Field::Bytes,
            (Self::Tensor, 1 | 5 | 7) | (Self::Attribute, 8) => Field::Varints,
            (Self::Tensor, 4 | 10) | (Self::Attribute, 7) => Field::Fixed,
            _ => Field::Other,
        }
    }
}

struct Scan<'a> {
    limits: &'a ImportLimits,
    items: usize,
    numbers: usize,
    nodes: usize,
}

/// Walks the file and counts what decoding will allocate.
///
/// # Errors
/// Malformed bytes, or more of something than the limits allow.
pub(super) fn check_structure(bytes: &[u8], limits: &ImportLimits) -> Result<(), ImportError> {
    if bytes.len() > limits.max_file_bytes {
        return Err(ImportError::FileTooLarge { got: bytes.len(), limit: limits.max_file_bytes });
    }
    Scan { limits, items: 0, numbers: 0, nodes: 0 }.message(Message::Model, Reader { bytes, position: 0, offset: 0 })
}

impl Scan<'_> {
    /// Recursion is as deep as the schema: seven messages.
    fn message(&mut self, message: Message, mut reader: Reader<'_>) -> Result<(), ImportError> {
        while !reader.is_at_end() {
            let start = reader.file_offset();
            let key = reader.varint()?;
            let (number, wire_type) = (key >> 3, key & 7);
            if number == 0 {
                return Err(ImportError::Malformed { offset: start });
            }
            match wire_type {
                0 => {
                    reader.varint()?;
                    self.single(message, number)?;
                }
                1 => {
                    reader.take(8)?;
                    self.single(message, number)?;
                }
                2 => {
                    let length = reader.varint()?;
                    let content = reader.take(length)?;
                    self.delimited(message.field(number), content)?;
                }
                5 => {
                    reader.take(4)?;
                    self.single(message, number)?;
                }
                // 3 and 4, groups, are not part of ONNX's schema; 6 and 7 do not exist.
                _ => return Err(ImportError::Malformed { offset: start }),
            }
        }
        Ok(())
    }

    /// A number that is not packed.
    fn single(&mut self, message: Message, number: u64) -> Result<(), ImportError> {
        match message.field(number) {
            Field::Varints | Field::Fixed => self.count_numbers(1),
            Field::Message(_) | Field::Text | Field::Bytes | Field::Other => Ok(()),
        }
    }

    fn delimited(&mut self, field: Field, content: Reader<'_>) -> Result<(), ImportError> {
        match field {
            Field::Message(message) => {
                self.count_item()?;
                if matches!(message, Message::Node) {
                    self.nodes += 1;
                    check_count("nodes", self.nodes, self.limits.max_nodes)?;
                }
                self.message(message, content)
            }
            Field::Text => {
                self.count_item()?;
                let (offset, got, limit) = (content.offset, content.bytes.len(), self.limits.max_name_bytes);
                if got > limit {
                    return Err(ImportError::NameTooLong { offset, got, limit });
                }
                Ok(())
            }
            Field::Varints => {
                let n_numbers = content.bytes.iter().filter(|&&byte| byte < 0x80).count();
                self.count_numbers(n_numbers)
            }
            Field::Fixed => self.count_numbers(content.bytes.len() / 4),
            Field::Bytes | Field::Other => Ok(()),
        }
    }

    fn count_item(&mut self) -> Result<(), ImportError> {
        self.items += 1;
        check_count("messages and names", self.items, self.limits.max_items)
    }

    fn count_numbers(&mut self, more: usize) -> Result<(), ImportError> {
        self.numbers = self.numbers.saturating_add(more);
        check_count("numbers in lists", self.numbers, self.limits.max_tensor_elements)
    }
}

fn check_count(what: &'static str, got: usize, limit: usize) -> Result<(), ImportError> {
    if got > limit { Err(ImportError::TooMany { what, limit }) } else { Ok(()) }
}

/// The bytes of one message.
struct Reader<'a> {
    bytes: &'a [u8],
    /// Next byte to read.
    position: usize,
    /// Where `bytes` starts in the file.
    offset: usize,
}

impl<'a> Reader<'a> {
    fn is_at_end(&self) -> bool {
        self.position >= self.bytes.len()
    }

    fn file_offset(&self) -> usize {
        self.offset + self.position
    }

    fn varint(&mut self) -> Result<u64, ImportError> {
        let start = self.file_offset();
        let mut value = 0u64;
        for byte_idx in 0..10 {
            let &byte = self.bytes.get(self.position).ok_or(ImportError::Truncated { offset: start })?;
            self.position += 1;
            // The tenth byte holds the last bit.
            if byte_idx == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * byte_idx);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(ImportError::Malformed { offset: start })
    }

    fn take(&mut self, length: u64) -> Result<Reader<'a>, ImportError> {
        let offset = self.file_offset();
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        let bytes = end.and_then(|end| self.bytes.get(self.position..end)).ok_or(ImportError::Truncated { offset })?;
        self.position += bytes.len();
        Ok(Reader { bytes, position: 0, offset })
    }
}
