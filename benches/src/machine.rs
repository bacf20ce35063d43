//! The machine that a measurement was taken on.

use std::process::Command;

use serde::{Deserialize, Serialize};

/// What determines speed, as far as the system tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Threads that may run at a time.
    pub n_cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Vector instructions of the processor that plonky2 could use.
    pub vector_units: Vec<String>,
    /// Vector instructions that this program was compiled for.
    pub compiled_for: Vec<String>,
    /// Kernel.
    pub system: String,
    /// Compiler.
    pub compiler: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let processor = read("/proc/cpuinfo");
        let flags = field(&processor, "flags");
        let vector_units = ["avx2", "avx512f", "neon"].iter().filter(|unit| flags.split(' ').any(|flag| flag == **unit));
        Self {
            processor: field(&processor, "model name"),
            n_cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kibibytes(&field(&read("/proc/meminfo"), "MemTotal")),
            vector_units: vector_units.map(|unit| (*unit).to_owned()).collect(),
            compiled_for: compiled_for(),
            // Without what a distributor or an operator adds to it.
            system: read("/proc/sys/kernel/osrelease").trim().split('-').next().unwrap_or_default().to_owned(),
            compiler: output_of("rustc", &["--version"]),
        }
    }
}

fn compiled_for() -> Vec<String> {
    let units = [("avx2", cfg!(target_feature = "avx2")), ("avx512f", cfg!(target_feature = "avx512f"))];
    units.iter().filter(|(_, is_on)| *is_on).map(|(name, _)| (*name).to_owned()).collect()
}

/// The text of a file of the system; empty where there is none.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value on the first line `name : value`; empty if there is none.
pub(crate) fn field(text: &str, name: &str) -> String {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value).unwrap_or_default()
}

/// Bytes of a value like `1234 kB`.
pub(crate) fn kibibytes(value: &str) -> u64 {
    value.trim_end_matches("kB").trim().parse::<u64>().map_or(0, |kibibytes| kibibytes * 1024)
}

/// What a command prints, without the last line end; empty if it cannot be run.
pub(crate) fn output_of(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_the_system() {
        let text = "model name\t: Some CPU\nVmHWM:\t  2048 kB\n";
        assert_eq!(field(text, "model name"), "Some CPU");
        assert_eq!(kibibytes(&field(text, "VmHWM")), 2048 * 1024);
        assert_eq!(field(text, "absent"), "");
        assert_eq!(kibibytes(""), 0);
    }
}
