//! Golden files: compared in every run, rewritten only when `ZKINFER_UPDATE_GOLDEN=1` is set.

use std::path::PathBuf;

/// Compares `text` with `tests/golden/<name>`.
pub fn check(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("ZKINFER_UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("the folder of golden files");
        std::fs::write(&path, text).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (got, expected)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, expected, "line {} of {name} changed; if this is meant, rerun with ZKINFER_UPDATE_GOLDEN=1", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name} has another number of lines");
}
