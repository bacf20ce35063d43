//! `zkinferd keys`: the file of API keys.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use secrecy::ExposeSecret as _;
use serde_json::json;
use zkinfer_server::auth::{KeyFile, ListedKey, Scopes};

use super::print;

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Makes an API key: prints it once, and adds its hash to the key file.
    Create(CreateArguments),
    /// Lists the keys of a key file, those that have expired or were revoked too.
    List(ListArguments),
    /// Revokes a key. A running service notices within seconds; calls that it admitted before go on.
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
struct FileArgument {
    /// The key file, as `serve --keys` takes it.
    #[arg(long, env = "ZKINFER_KEYS", value_name = "FILE")]
    keys: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct CreateArguments {
    #[command(flatten)]
    file: FileArgument,
    /// Who owns what is made with the key.
    #[arg(long, default_value = zkinfer_server::auth::DEFAULT_TENANT)]
    tenant: String,
    /// One word to tell the key by, for example the machine that uses it.
    #[arg(long)]
    name: String,
    /// What the key may be used for, with commas between: models.write, models.read, jobs.create, jobs.read, artifacts.write, artifacts.read,
    /// verify, admin; default: all but admin.
    #[arg(long, value_parser = Scopes::parse)]
    scopes: Option<Scopes>,
    /// The key's time is over after so many days; default: never.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u64).range(1..=36_500))]
    expires_days: Option<u64>,
    /// Prints a JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    #[command(flatten)]
    file: FileArgument,
    /// Prints a JSON array.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArguments {
    #[command(flatten)]
    file: FileArgument,
    /// The key's first digits as `list` shows them, or TENANT/NAME.
    key: String,
}

pub(super) fn keys(command: KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Create(arguments) => create(&arguments),
        KeysCommand::List(arguments) => list(&arguments),
        KeysCommand::Revoke(arguments) => {
            KeyFile::at(&arguments.file.keys).revoke(&arguments.key)?;
            print(&format!("revoked {}", arguments.key))
        }
    }
}

fn create(arguments: &CreateArguments) -> anyhow::Result<ExitCode> {
    let scopes = arguments.scopes.unwrap_or_else(Scopes::of_tenant);
    let expires = arguments.expires_days.map(|days| SystemTime::now() + Duration::from_secs(days * SECONDS_A_DAY));
    let key = KeyFile::at(&arguments.file.keys).create(&arguments.tenant, &arguments.name, scopes, expires)?;
    let secret = key.secret.expose_secret();
    if arguments.json {
        return print(&json!({ "key": secret, "prefix": key.prefix }).to_string());
    }
    print(&format!("key, for the client (it is not kept anywhere):\n{secret}"))
}

fn list(arguments: &ListArguments) -> anyhow::Result<ExitCode> {
    let keys = KeyFile::at(&arguments.file.keys).list()?;
    if arguments.json {
        let objects: Vec<_> = keys.iter().map(object).collect();
        return print(&serde_json::to_string_pretty(&objects)?);
    }
    let header = ["PREFIX", "KEY", "STATE", "CREATED", "EXPIRES", "SCOPES"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(header).chain(keys.iter().map(row)).collect();
    let widths: [usize; 6] = std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or_default());
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    print(&rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn row(key: &ListedKey) -> [String; 6] {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    [
        or_dash(&key.prefix),
        format!("{}/{}", key.tenant, key.name),
        key.state.name().to_owned(),
        or_dash(&key.created),
        or_dash(&key.expires),
        key.scopes.to_string(),
    ]
}

fn object(key: &ListedKey) -> serde_json::Value {
    json!({
        "prefix": key.prefix,
        "tenant": key.tenant,
        "name": key.name,
        "state": key.state.name(),
        "created": key.created,
        "expires": key.expires,
        "scopes": key.scopes.to_string().split(',').filter(|name| !name.is_empty()).collect::<Vec<_>>(),
    })
}
