//! Collects everything that is wrong with a request, to answer it at once.

use std::collections::BTreeMap;
use std::fmt::Display;

use zkinfer_proto::name::is_uuid;

use super::error::{ApiError, Violation};
use crate::prover::{DigestBytes, is_canonical};

/// Wrong fields that an answer names.
const MAX_VIOLATIONS: usize = 20;
/// Bytes of free text.
const TEXT_BYTES: usize = 255;
const LABEL_KEY_BYTES: usize = 63;
const LABEL_VALUE_BYTES: usize = 255;

/// Whether every database can store a text, and every log can show it: no NUL and no other control characters. All free text passes here.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// The wrong fields so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    violations: Vec<Violation>,
}

impl Fields {
    /// Answers an error if a field was wrong. An answer without a body travels in headers, which clients take up to a size: beyond so many fields, the
    /// rest is counted.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        let rest = self.violations.len().saturating_sub(MAX_VIOLATIONS);
        if rest > 0 {
            self.violations.truncate(MAX_VIOLATIONS);
            self.wrong("*", format!("{rest} more fields are wrong"));
        }
        if self.violations.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.violations)) }
    }

    /// The wrong fields of a part of the request.
    pub(crate) fn append(&mut self, place: &str, part: Self) {
        self.violations.extend(part.violations.into_iter().map(|violation| violation.within(place)));
    }

    pub(crate) fn wrong(&mut self, field: &str, description: impl Into<String>) {
        let description = description.into();
        self.violations.push(Violation { field: field.into(), description });
    }

    pub(crate) fn require(&mut self, field: &str, holds: bool, description: &str) {
        if !holds {
            self.wrong(field, description);
        }
    }

    /// The value, or a wrong field.
    pub(crate) fn parse<T>(&mut self, field: &str, result: Result<T, impl Display>) -> Option<T> {
        result.map_err(|error| self.wrong(field, error.to_string())).ok()
    }

    /// 32 bytes.
    pub(crate) fn hash(&mut self, field: &str, bytes: &[u8]) -> Option<[u8; 32]> {
        let length = bytes.len();
        self.parse(field, bytes.try_into().map_err(|_| format!("has {length} bytes, not 32")))
    }

    /// Four words below the field's order.
    pub(crate) fn field_words(&mut self, field: &str, bytes: &[u8]) -> Option<DigestBytes> {
        let words = self.hash(field, bytes)?;
        let holds = is_canonical(&words);
        self.require(
            field,
            holds,
            "each eight bytes must be below 2^64 - 2^32 + 1, little end first; clearing the top \
             bit of bytes 7, 15, 23 and 31 makes any 32 bytes so",
        );
        holds.then_some(words)
    }

    /// A known value of an enumeration.
    pub(crate) fn known<E: TryFrom<i32>>(&mut self, field: &str, value: i32) {
        if E::try_from(value).is_err() {
            self.wrong(field, format!("{value} is no value of this enumeration"));
        }
    }

    pub(crate) fn request_id(&mut self, request_id: &str) {
        self.require("request_id", request_id.is_empty() || is_uuid(request_id), "must be a UUID in lower case, or empty");
    }

    pub(crate) fn text(&mut self, field: &str, text: &str) {
        self.require(field, text.len() <= TEXT_BYTES && is_printable(text), "must have at most 255 bytes and no control characters");
    }

    pub(crate) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>, max_labels: usize) {
        if labels.len() > max_labels {
            self.wrong(field, format!("at most {max_labels} labels"));
        }
        for (key, value) in labels {
            let is_key_char = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let is_key = !key.is_empty() && key.len() <= LABEL_KEY_BYTES && key.chars().all(is_key_char);
            if !is_key {
                self.wrong(field, "keys must have 1 to 63 letters, digits, `-`, `_`, `.` or `/`");
            } else if value.len() > LABEL_VALUE_BYTES || !is_printable(value) {
                self.wrong(&format!("{field}[{key}]"), "values must have at most 255 bytes and no control characters");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_cannot_be_stored_are_refused_by_the_names_of_their_fields() {
        let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let mut fields = Fields::default();
        fields.text("reason", "no\0");
        fields.labels("labels", &labels("a", "\0"), 4);
        fields.labels("job.labels", &labels("a\0", "b"), 4);
        fields.request_id("\0");
        fields.text("display_name", "größer \u{1F600}");
        let Err(ApiError::Invalid(violations)) = fields.finish() else { panic!("they are wrong") };
        let named: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, ["reason", "labels[a]", "job.labels", "request_id"]);
    }
}
