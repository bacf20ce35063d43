//! What the command writes: text for people, or with `--json` one JSON object (or one per line) on standard output.

use std::io::Write as _;

use serde::Serialize;
use serde_json::json;

use crate::exit;

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON or text.
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// A line for people; nothing with `--json`.
    pub(crate) fn say(self, line: impl AsRef<str>) {
        if !self.json {
            write_line(line.as_ref());
        }
    }

    /// A result: one line of JSON with `--json`, else nothing.
    pub(crate) fn json(self, value: &impl Serialize) {
        if self.json {
            match serde_json::to_string(value) {
                Ok(line) => write_line(&line),
                Err(error) => write_line(&json!({ "ok": false, "message": error.to_string() }).to_string()),
            }
        }
    }

    /// An error: text on standard error, or JSON on standard output.
    pub(crate) fn failure(self, error: &anyhow::Error) {
        if self.json {
            self.json(&json!({
                "ok": false,
                "exit_code": exit::code(error),
                "reason": exit::reason(error),
                "message": format!("{error:#}"),
            }));
        } else {
            // If standard error is closed, nobody listens.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
        }
    }
}

/// A closed standard output (`| head`) is no error.
fn write_line(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
