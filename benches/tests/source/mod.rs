//! Source files of the workspace, and their code without comments, literals or unit tests.

use std::path::{Path, PathBuf};

/// A file under test.
pub(crate) struct Source {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// The text with comments, string and character literals blanked; lines stay where they are.
    pub(crate) fn code(&self) -> String {
        blank_literals(&self.text)
    }

    /// `code` up to the unit tests, which end the file.
    pub(crate) fn product_code(&self) -> String {
        let code = self.code();
        let end = code.find("#[cfg(test)]\nmod tests").unwrap_or(code.len());
        code[..end].to_owned()
    }

    /// Whether the file is a test or a build script.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.ends_with("/build.rs")
    }

    /// Whether the file belongs to a command.
    pub(crate) fn is_command(&self) -> bool {
        self.path.contains("/src/bin/") || self.path.ends_with("/main.rs") || self.path.starts_with("client-sdk/cli/src/")
    }
}

/// All text files with one of these extensions, in order of path; build outputs and hidden folders are left out.
pub(crate) fn files(extensions: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("benches lies in the workspace");
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the workspace is readable") {
            let path = entry.expect("an entry is readable").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if extensions.iter().any(|extension| name.ends_with(extension)) {
                found.push(read(root, path));
            }
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    assert!(!found.is_empty(), "the workspace has files of {extensions:?}");
    found
}

fn read(root: &Path, path: PathBuf) -> Source {
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let relative = path.strip_prefix(root).expect("found below the root");
    Source { path: relative.to_string_lossy().replace('\\', "/"), text }
}

/// Replaces every byte of comments and literals, line ends excepted, by a space.
fn blank_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal_length(&bytes[at..], code.last().copied());
        if end == at {
            code.push(bytes[at]);
            at += 1;
        } else {
            code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8_lossy(&code).into_owned()
}

/// Length of the comment or literal that `rest` starts with; 0 if it starts with code. `before` is the byte before it.
fn literal_length(rest: &[u8], before: Option<u8>) -> usize {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => until(rest, 2, b"*/"),
        [b'"', ..] => quoted(rest),
        [b'r', b'"' | b'#', ..] if !in_word => raw_string(rest),
        // A character literal; anything else after a quote is a lifetime.
        [b'\'', b'\\', ..] => until(rest, 3, b"'"),
        [b'\'', first, b'\'', ..] if *first != b'\'' => 3,
        _ => 0,
    }
}

fn until(rest: &[u8], from: usize, end: &[u8]) -> usize {
    let tail = rest.get(from..).unwrap_or_default();
    tail.windows(end.len()).position(|window| window == end).map_or(rest.len(), |position| from + position + end.len())
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0;
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    until(rest, hashes + 2, &end)
}
