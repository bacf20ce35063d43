//! `zkinferd cache`: what can be rebuilt, on disk.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use zkinfer_server::prover::{CacheContents, CacheFolder, Files};

use super::print;

/// How large a cache may be.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct CacheLimit {
    /// MiB that the entries of the cache take at most: those that were used longest ago make room. Default: no bound.
    #[arg(long, env = "ZKINFER_CACHE_MIB", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) cache_mib: Option<u32>,
}

impl CacheLimit {
    pub(super) fn bytes(self) -> Option<u64> {
        self.cache_mib.map(|mebibytes| u64::from(mebibytes) << 20)
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Shows what lies in the cache, and whether a running process uses it.
    Show(CacheArguments),
    /// Empties the cache: built circuits, committed weights, registered nodes. All of it is rebuilt when it is needed. Refused while a running process uses it.
    Clear(CacheArguments),
}

#[derive(Debug, Args)]
pub(super) struct CacheArguments {
    /// The cache, as for `serve` and `worker`; default: `cache` in the data directory.
    #[arg(long, env = "ZKINFER_CACHE_DIR", value_name = "FOLDER")]
    cache_dir: Option<PathBuf>,
    /// The data directory, as for `serve`.
    #[arg(long, env = "ZKINFER_DATA_DIR", value_name = "FOLDER", default_value = "zkinfer-data")]
    data_dir: PathBuf,
    /// Prints a JSON object.
    #[arg(long)]
    json: bool,
}

impl CacheArguments {
    fn folder(&self) -> PathBuf {
        self.cache_dir.clone().unwrap_or_else(|| self.data_dir.join("cache"))
    }
}

pub(super) fn cache(command: &CacheCommand) -> anyhow::Result<ExitCode> {
    match command {
        CacheCommand::Show(arguments) => show(arguments),
        CacheCommand::Clear(arguments) => clear(arguments),
    }
}

fn show(arguments: &CacheArguments) -> anyhow::Result<ExitCode> {
    let folder = arguments.folder();
    let cache = CacheFolder::at(folder.clone());
    let (contents, is_used) = (cache.contents()?, cache.is_used()?);
    if arguments.json {
        let kinds: Map<String, Value> = contents.kinds.iter().map(|(kind, files)| ((*kind).to_owned(), object(*files))).collect();
        return print(&json!({ "folder": folder, "used": is_used, "entries": kinds, "others": object(contents.others) }).to_string());
    }
    let use_of_it = if is_used { "used by a running process" } else { "not used" };
    print(&format!("{}, {use_of_it}: {}", folder.display(), told(&contents)))
}

fn clear(arguments: &CacheArguments) -> anyhow::Result<ExitCode> {
    let folder = arguments.folder();
    let freed = CacheFolder::at(folder.clone()).clear()?;
    if arguments.json {
        return print(&json!({ "folder": folder, "freed": object(freed.entries()), "others": object(freed.others) }).to_string());
    }
    print(&format!("{}, freed: {}", folder.display(), told(&freed)))
}

fn object(files: Files) -> Value {
    json!({ "files": files.n_files, "bytes": files.n_bytes })
}

/// All entries, then those of each kind, then what is none.
fn told(contents: &CacheContents) -> String {
    let line = |what: &str, files: &Files| format!("{what} {} files, {} bytes", files.n_files, files.n_bytes);
    let kinds = contents.kinds.iter().map(|(kind, files)| line(&format!("  {kind}:"), files));
    let others = (contents.others.n_files > 0).then(|| line("  left alone, since the cache did not make it:", &contents.others));
    let all = contents.entries();
    std::iter::once(format!("{} files, {} bytes", all.n_files, all.n_bytes)).chain(kinds).chain(others).collect::<Vec<_>>().join("\n")
}
