//! Collects everything that is wrong with a request, to answer it at once.

use std::collections::BTreeMap;
use std::fmt::Display;

use zkinfer_proto::name::is_uuid;

use super::error::{ApiError, Violation};
use crate::limits::Limits;
use crate::prover::{DigestBytes, is_canonical};

/// Wrong fields that an answer names, and that are kept.
const MAX_VIOLATIONS: usize = 20;

/// Whether every database can store a text, and every log can show it: no NUL and no other control characters. All free text passes here.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// The wrong fields so far.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    violations: Vec<Violation>,
    /// Wrong fields beyond those: a request may hold millions.
    n_more: usize,
}

impl Fields {
    /// Answers an error if a field was wrong. An answer without a body travels in headers, which clients take up to a size: beyond so many fields, the
    /// rest is counted.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        if self.n_more > 0 {
            self.violations.push(Violation { field: "*".to_owned(), description: format!("{} more fields are wrong", self.n_more) });
        }
        if self.violations.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.violations)) }
    }

    /// The wrong fields of a part of the request.
    pub(crate) fn append(&mut self, place: &str, part: Self) {
        part.violations.into_iter().for_each(|violation| self.keep(|| violation.within(place)));
        self.n_more += part.n_more;
    }

    fn keep(&mut self, violation: impl FnOnce() -> Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation());
        } else {
            self.n_more += 1;
        }
    }

    pub(crate) fn wrong(&mut self, field: &str, description: impl Into<String>) {
        self.keep(|| Violation { field: field.into(), description: description.into() });
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

    pub(crate) fn text(&mut self, field: &str, text: &str, limits: &Limits) {
        let max_bytes = limits.text_bytes;
        if text.len() > max_bytes || !is_printable(text) {
            self.wrong(field, format!("must have at most {max_bytes} bytes and no control characters"));
        }
    }

    pub(crate) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>, limits: &Limits) {
        let Limits { labels: max_labels, label_key_bytes: max_key, label_value_bytes: max_value, .. } = *limits;
        if labels.len() > max_labels {
            self.wrong(field, format!("at most {max_labels} labels"));
            return;
        }
        for (key, value) in labels {
            let is_key_char = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
            let is_key = !key.is_empty() && key.len() <= max_key && key.chars().all(is_key_char);
            if !is_key {
                self.wrong(field, format!("keys must have 1 to {max_key} letters, digits, `-`, `_`, `.` or `/`"));
            } else if value.len() > max_value || !is_printable(value) {
                self.wrong(&format!("{field}[{key}]"), format!("values must have at most {max_value} bytes and no control characters"));
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
        let (mut fields, limits) = (Fields::default(), Limits::default());
        fields.text("reason", "no\0", &limits);
        fields.labels("labels", &labels("a", "\0"), &limits);
        fields.labels("job.labels", &labels("a\0", "b"), &limits);
        fields.request_id("\0");
        fields.text("display_name", "größer \u{1F600}", &limits);
        let Err(ApiError::Invalid(violations)) = fields.finish() else { panic!("they are wrong") };
        let named: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, ["reason", "labels[a]", "job.labels", "request_id"]);
    }

    #[test]
    fn of_wrong_fields_without_number_few_are_kept_and_all_are_counted() {
        let mut fields = Fields::default();
        for value in 0..1_000_000 {
            fields.known::<zkinfer_proto::v1::job::State>("states", value);
        }
        assert_eq!(fields.violations.len(), MAX_VIOLATIONS);
        let mut part = Fields::default();
        (0..MAX_VIOLATIONS + 3).for_each(|_| part.wrong("job", "is required"));
        fields.append("requests[7]", part);
        let Err(ApiError::Invalid(violations)) = fields.finish() else { panic!("they are wrong") };
        let n_states = (0..1_000_000).filter(|value| zkinfer_proto::v1::job::State::try_from(*value).is_ok()).count();
        let expected = format!("{} more fields are wrong", 1_000_000 - n_states + 3);
        assert_eq!((violations.len(), violations[MAX_VIOLATIONS].description.as_str()), (MAX_VIOLATIONS + 1, expected.as_str()));
    }
}
