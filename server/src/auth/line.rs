//! The form of the files that say who is who: one entry a line, some words, then attributes `NAME=VALUE`; empty lines and lines that start
//! with `#` are skipped.

use std::collections::BTreeMap;
use std::time::SystemTime;

use zkinfer_proto::name::is_resource_id;

use super::scope::Scopes;

/// A line that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}; write {form}")]
pub struct LineError {
    /// From 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub form: &'static str,
}

/// An entry: `N` words and the attributes after them.
pub(super) struct Line<'a, const N: usize> {
    pub(super) words: [&'a str; N],
    attributes: BTreeMap<&'a str, &'a str>,
}

impl<'a, const N: usize> Line<'a, N> {
    /// Parses one line; `None`: there is no entry on it.
    pub(super) fn parse(text: &'a str, known: &[&str]) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let mut rest = text.split_whitespace();
        let mut words = [""; N];
        for word in &mut words {
            *word = rest.next().ok_or_else(|| format!("fewer than {N} words"))?;
        }
        let mut attributes = BTreeMap::new();
        for attribute in rest {
            let (name, value) = attribute.split_once('=').ok_or_else(|| format!("{attribute:?} is not NAME=VALUE"))?;
            if !known.contains(&name) {
                return Err(format!("{name:?} is not one of {}", known.join(", ")));
            }
            if attributes.insert(name, value).is_some() {
                return Err(format!("{name} is given twice"));
            }
        }
        Ok(Some(Self { words, attributes }))
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&'a str> {
        self.attributes.get(name).copied()
    }

    /// The attribute `scopes`; without it, all that concern the tenant.
    pub(super) fn scopes(&self) -> Result<Scopes, String> {
        self.attribute("scopes").map_or_else(|| Ok(Scopes::of_tenant()), |list| Scopes::parse(list).map_err(|error| error.to_string()))
    }

    /// An attribute that is a time as RFC 3339 writes it.
    pub(super) fn time(&self, name: &str) -> Result<Option<SystemTime>, String> {
        self.attribute(name).map(|text| parse_time(text).ok_or_else(|| format!("{name}={text} is no time"))).transpose()
    }
}

/// Parses all lines of a file.
pub(super) fn parse_lines<T>(
    text: &str,
    form: &'static str,
    mut parse: impl FnMut(&str) -> Result<Option<T>, String>,
) -> Result<Vec<T>, LineError> {
    let entries = text.lines().enumerate().map(|(i, line)| parse(line).map_err(|problem| LineError { line: i + 1, problem, form }));
    entries.filter_map(Result::transpose).collect()
}

/// Checks the name of a tenant.
pub(super) fn check_tenant(tenant: &str) -> Result<(), String> {
    if is_resource_id(tenant) { Ok(()) } else { Err(format!("{tenant:?} is no tenant: they are of the form [a-z]([a-z0-9-]*[a-z0-9])?")) }
}

/// Checks the name of a key.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_word = !name.is_empty() && !name.contains(char::is_whitespace) && !name.contains(char::is_control);
    if is_word { Ok(()) } else { Err("the name must be one word".to_owned()) }
}

/// A time to the second, as RFC 3339 writes it.
pub(super) fn time_text(time: SystemTime) -> String {
    let mut time = prost_types::Timestamp::from(time);
    time.nanos = 0;
    time.to_string()
}

fn parse_time(text: &str) -> Option<SystemTime> {
    text.parse::<prost_types::Timestamp>().ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn words_and_attributes_are_told_apart() {
        let line = Line::<2>::parse("  a=b c scopes=verify made=x ", &["scopes", "made"]).unwrap().unwrap();
        assert_eq!((line.words, line.attribute("made")), (["a=b", "c"], Some("x")));
        assert_eq!(line.scopes().unwrap().to_string(), "verify");
        assert!(Line::<2>::parse("# a b", &[]).unwrap().is_none() && Line::<2>::parse("", &[]).unwrap().is_none());
        for (wrong, problem) in [("a", "fewer"), ("a b c", "NAME=VALUE"), ("a b x=1", "not one of"), ("a b made=1 made=1", "twice")] {
            let error = Line::<2>::parse(wrong, &["made"]).map(|_| ()).unwrap_err();
            assert!(error.contains(problem), "{wrong}: {error}");
        }
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(time_text(time + Duration::from_nanos(5)), "2027-01-15T08:00:00Z");
        assert_eq!(parse_time(&time_text(time)), Some(time));
        assert_eq!(parse_time("tomorrow"), None);
    }
}
