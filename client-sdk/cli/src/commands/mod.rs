//! The commands, and what they share.

mod estimate;
mod model;
mod network;
mod prove;
mod verify;
mod watch;

use std::path::Path;

use anyhow::Context as _;
use zkinfer_client::encoding::parse_digest;
use zkinfer_client::name::ModelName;
use zkinfer_client::{Client, ClientOptions, ContextNonce, Documents, Secret};

use crate::arguments::{Command, ModelCommand, NonceArguments, ServerArguments};
use crate::demo;
use crate::output::Output;

pub(crate) use verify::{VerifiedView, show};

/// Does what the arguments say.
pub(crate) async fn run(command: Command, output: &Output) -> anyhow::Result<()> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments, output).await,
        Command::Model(ModelCommand::Import(arguments)) => model::import(&arguments, output),
        Command::Model(ModelCommand::Inspect(arguments)) => model::inspect(&arguments, output),
        Command::Model(ModelCommand::Commit(arguments)) => model::commit(&arguments, output),
        Command::Model(ModelCommand::Register(arguments)) => model::register(&arguments, output).await,
        Command::Prove(arguments) => prove::run(&arguments, output).await,
        Command::Watch(arguments) => watch::run(&arguments, output).await,
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Estimate(arguments) => estimate::run(&arguments, output).await,
    }
}

/// Connects with the key that the arguments or the environment give.
async fn connect(arguments: &ServerArguments) -> anyhow::Result<Client> {
    let api_key = match &arguments.api_key_file {
        Some(path) => Some(String::from_utf8(read(path)?).context("the API key file is not text")?),
        None => std::env::var("ZKINFER_API_KEY").ok(),
    };
    let api_key = api_key.map(|key| Secret(key.trim().to_owned())).filter(|Secret(key)| !key.is_empty());
    Ok(Client::connect_with(&arguments.server, ClientOptions { api_key, ..ClientOptions::default() }).await?)
}

/// The full name of a model given by id or by full name.
async fn model_name(client: &Client, given: &str) -> anyhow::Result<String> {
    if ModelName::parse(given).is_ok() {
        return Ok(given.to_owned());
    }
    let tenant = client.server_info().await?.tenant;
    Ok(format!("{tenant}/models/{given}"))
}

fn nonce(arguments: &NonceArguments) -> anyhow::Result<ContextNonce> {
    match (&arguments.nonce, &arguments.context) {
        (Some(digits), _) => ContextNonce::from_bytes(&words(digits).context("--nonce")?).context("--nonce"),
        (None, Some(context)) => Ok(ContextNonce::of_context(context.as_bytes())),
        (None, None) => Ok(ContextNonce::ZERO),
    }
}

/// 64 hexadecimal digits that are four field elements.
fn words(digits: &str) -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digits, &mut bytes).context("expected 64 hexadecimal digits")?;
    parse_digest(&bytes).context("expected four words below the field's order")?;
    Ok(bytes)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Saves what a verifier needs; returns the three paths: proof, statement, key.
pub(crate) fn save(documents: &Documents, directory: &Path) -> anyhow::Result<[String; 3]> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let paths = ["proof.zkp", "statement.zks", "key.zkvk"].map(|name| directory.join(name));
    for (path, bytes) in paths.iter().zip([&documents.proof, &documents.statement, &documents.key]) {
        write(path, bytes)?;
    }
    Ok(paths.map(|path| path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonces_are_digits_or_contexts() {
        let given = |nonce: Option<&str>, context: Option<&str>| {
            nonce_of(NonceArguments { nonce: nonce.map(str::to_owned), context: context.map(str::to_owned) })
        };
        fn nonce_of(arguments: NonceArguments) -> Option<ContextNonce> {
            nonce(&arguments).ok()
        }
        assert_eq!(given(None, None), Some(ContextNonce::ZERO));
        assert_eq!(given(Some(&"00".repeat(32)), None), Some(ContextNonce::ZERO));
        assert_eq!(given(None, Some("order 7")), Some(ContextNonce::of_context(b"order 7")));
        assert_eq!(given(Some(&"ff".repeat(32)), None), None);
        assert_eq!(given(Some("12"), None), None);
    }
}
