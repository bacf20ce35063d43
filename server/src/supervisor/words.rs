//! What a child says to its supervisor: lines of text.

use std::fmt;
use std::str::FromStr;

use super::report::WorkReport;

/// Longest name of a session that is believed.
const MAX_SESSION_BYTES: usize = 128;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// It opened this session; an earlier one is over.
    Session(String),
    /// It lives.
    Beat,
    /// What it has done so far.
    Work(WorkReport),
}

/// Not a [`Word`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a line of the child says nothing")]
pub struct NoWord;

impl fmt::Display for Word {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => write!(formatter, "session {session}"),
            Self::Beat => formatter.write_str("beat"),
            Self::Work(report) => write!(formatter, "work {report}"),
        }
    }
}

impl FromStr for Word {
    type Err = NoWord;

    fn from_str(line: &str) -> Result<Self, NoWord> {
        match line.split_once(' ') {
            None if line == "beat" => Ok(Self::Beat),
            Some(("session", session)) if !session.is_empty() && session.len() <= MAX_SESSION_BYTES => {
                Ok(Self::Session(session.to_owned()))
            }
            Some(("work", report)) => report.parse().map(Self::Work),
            _ => Err(NoWord),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_and_other_lines_do_not() {
        for word in [Word::Beat, Word::Session("0190-abc".into()), Word::Work(WorkReport::default())] {
            assert_eq!(word.to_string().parse(), Ok(word));
        }
        for other in ["", "beats", "beat 1", "session", "session ", "work", "work 1"] {
            assert_eq!(other.parse::<Word>(), Err(NoWord), "{other}");
        }
    }
}
