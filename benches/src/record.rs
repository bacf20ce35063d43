//! One run of a benchmark, as committed in `benches/results/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::machine::{Machine, output_of};
use crate::samples::Summary;

/// A run: who, where, with what, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the benchmark; the file is called so too.
    pub benchmark: String,
    /// The command that takes the measurement again.
    pub command: String,
    /// Commit that was measured; `-dirty` if files differed from it.
    pub commit: String,
    /// When, in seconds since 1970.
    pub unix_time_s: u64,
    /// Where.
    pub machine: Machine,
    /// What was measured: sizes, profile, backend.
    pub settings: BTreeMap<String, String>,
    /// Results by name; units are in the names.
    pub measures: BTreeMap<String, Summary>,
}

/// The commit that is checked out; `-dirty` if a file other than a result differs from it.
fn commit() -> String {
    let head = output_of("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = output_of("git", &["status", "--porcelain", "--", ":/", ":(exclude,top)benches/results"]);
    if changed.is_empty() { head } else { format!("{head}-dirty") }
}

impl Record {
    /// An empty record of a command run here and now.
    pub fn new(benchmark: &str, binary: &str) -> Self {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("cargo run --release -p zkinfer-benches --bin {binary} -- {}", arguments.join(" "));
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            benchmark: benchmark.to_owned(),
            command: command.trim_end_matches(" -- ").trim_end().to_owned(),
            commit: commit(),
            unix_time_s: now.map_or(0, |since| since.as_secs()),
            machine: Machine::here(),
            settings: BTreeMap::new(),
            measures: BTreeMap::new(),
        }
    }

    /// Notes a setting.
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Notes a quantity measured several times.
    pub fn add(&mut self, name: &str, values: &[f64]) {
        self.measures.insert(name.to_owned(), Summary::of(values));
    }

    /// Notes a quantity measured once.
    pub fn add_single(&mut self, name: &str, value: f64) {
        self.measures.insert(name.to_owned(), Summary::single(value));
    }

    /// The middle value of a measure.
    pub fn median(&self, name: &str) -> Option<f64> {
        self.measures.get(name).map(|summary| summary.median)
    }

    /// Writes the record to `folder/BENCHMARK.json`.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join(format!("{}.json", self.benchmark));
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Reads a record.
    ///
    /// # Errors
    /// No such file, or no record in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not a record", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_through_its_file() {
        let mut record = Record::new("sample", "zkinfer-sample");
        record.set("profile", "default");
        record.add("wall_s", &[0.5, 0.25, 1.0]);
        record.add_single("bytes", 1024.0);
        let folder = tempfile::tempdir().expect("a folder");
        let path = record.write(folder.path()).expect("written");
        assert_eq!(Record::read(&path).expect("read"), record);
        assert_eq!(record.median("wall_s"), Some(0.5));
        assert_eq!(record.median("absent"), None);
    }
}
