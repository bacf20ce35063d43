//! Writes the generated tables of README.md, SECURITY.md, docs/GPU.md and docs/RELIABILITY.md; with `--check` compares them.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use zkinfer_benches::tables::{Block, blocks};

/// Writes the tables of README.md, SECURITY.md, docs/GPU.md and docs/RELIABILITY.md from benches/results and from the code.
#[derive(Debug, Parser)]
struct Arguments {
    /// Root of the workspace.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Writes nothing; fails if a table is not what the results and the code say.
    #[arg(long)]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut stale = Vec::new();
    for block in blocks(&arguments.root.join("benches/results"))? {
        // A document may have several tables.
        if update(&arguments.root, &block, arguments.check)? && !stale.contains(&block.file) {
            stale.push(block.file);
        }
    }
    if arguments.check && !stale.is_empty() {
        bail!("{} differ from the results or the code; run zkinfer-tables", stale.join(" and "));
    }
    println!("{}", if stale.is_empty() { "the tables are up to date".to_owned() } else { format!("wrote {}", stale.join(" and ")) });
    Ok(())
}

/// Whether the document differed; it is rewritten unless this is a check.
fn update(root: &Path, block: &Block, is_check: bool) -> anyhow::Result<bool> {
    let path = root.join(block.file);
    let document = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}; give --root", path.display()))?;
    let placed = block.place(&document)?;
    if placed == document {
        return Ok(false);
    }
    if !is_check {
        std::fs::write(&path, placed).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(true)
}
