//! The rules of CONTRIBUTING.md that a search can check: sizes, module docs, and words that have one place or none.

mod source;

use source::{Source, files};

/// Lines that a source file may have, tests included.
const MAX_LINES: usize = 500;

/// Names that say nothing about what a file holds.
const VAGUE_NAMES: &[&str] = &["utils", "util", "helpers", "common", "misc"];

/// Words that no code of ours holds, outside tests too.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];

/// Notes that promise work instead of doing it.
const PROMISES: &[&str] = &["FIXME", "XXX", "HACK", "for now", "not implemented yet"];

/// Ways to make a `tonic::Status`.
const STATUS_MAKERS: &[&str] = &[
    "new",
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
    "from_error",
    "with_details",
    "with_metadata",
    "with_details_and_metadata",
    "with_error_details",
    "with_error_details_vec",
];

/// What mathematics must not touch: files, network, clock, environment, processes.
const IMPURE: &[&str] = &["std::fs", "std::net", "std::time", "std::env", "std::process", "Instant::now", "SystemTime"];

fn rust() -> Vec<Source> {
    files(&[".rs"])
}

/// Lines of `code` holding `word` with no letter, digit or underscore right before or after it.
fn lines_with<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let joined = |character: Option<char>| character.is_some_and(|character| character.is_alphanumeric() || character == '_');
    let holds = move |line: &str| {
        line.match_indices(word).any(|(at, _)| !joined(line[..at].chars().next_back()) && !joined(line[at + word.len()..].chars().next()))
    };
    code.lines().enumerate().filter(move |(_, line)| holds(line)).map(|(index, _)| index + 1)
}

/// Fails with the list of places, one a line.
fn expect_none(rule: &str, places: Vec<String>) {
    assert!(places.is_empty(), "{rule}:\n{}", places.join("\n"));
}

/// Every place where the code of a file holds one of the words.
fn places(source: &Source, code: &str, words: &[&str]) -> Vec<String> {
    let find = |word: &&str| lines_with(code, word).map(|line| format!("{}:{line}: {word}", source.path)).collect::<Vec<_>>();
    words.iter().flat_map(find).collect()
}

#[test]
fn files_are_short() {
    let long = rust().into_iter().filter(|source| source.text.lines().count() > MAX_LINES);
    expect_none("files of more than 500 lines", long.map(|source| format!("{}: {}", source.path, source.text.lines().count())).collect());
}

#[test]
fn every_file_opens_with_its_purpose() {
    let silent = rust().into_iter().filter(|source| !source.text.starts_with("//! "));
    expect_none("files without a leading //!", silent.map(|source| source.path).collect());
}

#[test]
fn files_are_named_after_their_concept() {
    let stem = |path: &str| path.trim_end_matches(".rs").trim_end_matches("/mod").rsplit('/').next().unwrap_or_default().to_owned();
    let vague = rust().into_iter().filter(|source| VAGUE_NAMES.contains(&stem(&source.path).as_str()));
    expect_none("files with a vague name", vague.map(|source| source.path).collect());
}

#[test]
fn unsafe_stays_in_kernels() {
    let outside = rust().into_iter().filter(|source| !source.path.starts_with("kernels/src/"));
    let found = outside.flat_map(|source| places(&source, &source.code(), &["unsafe", "unsafe_code", "static mut"]));
    expect_none("unsafe code outside kernels", found.collect());
}

#[test]
fn a_status_is_made_in_one_file() {
    let makers: Vec<String> = STATUS_MAKERS.iter().map(|maker| format!("Status::{maker}")).collect();
    let makers: Vec<&str> = makers.iter().map(String::as_str).collect();
    let others = rust().into_iter().filter(|source| source.path != "server/src/grpc/status.rs" && !source.is_test());
    let found = others.flat_map(|source| places(&source, &source.product_code(), &makers));
    expect_none("a tonic::Status made outside server/src/grpc/status.rs", found.collect());
}

#[test]
fn nothing_is_left_unfinished() {
    let code = rust().into_iter().flat_map(|source| places(&source, &source.code(), UNFINISHED));
    expect_none("unfinished code", code.collect());
    let itself = |source: &Source| source.path == "benches/tests/tidy.rs";
    let prose = files(&[".rs", ".md", ".proto", ".toml", ".sql"]).into_iter().filter(|source| !itself(source));
    let promises = prose.flat_map(|source| places(&source, &source.text, PROMISES));
    expect_none("promises instead of work", promises.collect());
    let bare = |line: &str| line.contains("TODO") && !line.contains("TODO(#");
    let todos = rust().into_iter().filter(|source| !itself(source) && source.text.lines().any(bare));
    expect_none("TODO without an issue number", todos.map(|source| source.path).collect());
}

#[test]
fn only_commands_print() {
    let libraries = rust().into_iter().filter(|source| !source.is_command() && !source.is_test());
    let found = libraries.flat_map(|source| places(&source, &source.product_code(), &["println!", "print!", "eprintln!", "eprint!"]));
    expect_none("printing outside commands", found.collect());
}

#[test]
fn circuits_touch_no_file_no_network_and_no_clock() {
    let mathematics =
        rust().into_iter().filter(|source| source.path.starts_with("circuits/src/") && !source.is_command() && !source.is_test());
    let found = mathematics.flat_map(|source| places(&source, &source.product_code(), IMPURE));
    expect_none("input or output in circuits", found.collect());
}

#[test]
fn tests_name_the_exact_error() {
    let found = rust().into_iter().flat_map(|source| places(&source, &source.code(), &["should_panic", "#[ignore"]));
    expect_none("tests that panic on purpose, or do not run", found.collect());
}

#[test]
fn no_path_of_one_machine_is_written_down() {
    let folders = ["root", "home", "work", "Users"].map(|folder| format!("/{folder}/"));
    let everything = files(&[".rs", ".md", ".proto", ".toml", ".sql", ".json", ".yaml", ".yml", "Dockerfile"]);
    let found = everything.into_iter().flat_map(|source| {
        let holds = |line: &str| folders.iter().any(|folder| line.contains(folder.as_str()) && !line.contains(&format!("{folder}*")));
        source
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| holds(line))
            .map(|(index, _)| format!("{}:{}", source.path, index + 1))
            .collect::<Vec<_>>()
    });
    expect_none("paths of one machine", found.collect());
}
