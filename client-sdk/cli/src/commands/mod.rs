//! The commands, and what they share.

mod cost;
mod estimate;
mod list;
mod model;
mod network;
mod prove;
mod verify;
mod watch;

use std::path::Path;

use anyhow::Context as _;
use zeroize::Zeroizing;
use zkinfer_client::encoding::parse_digest;
use zkinfer_client::name::ModelName;
use zkinfer_client::{Client, ClientCertificate, ClientOptions, ContextNonce, Documents, Secret, TlsOptions, Verified};

use crate::arguments::{Command, ExpectedModel, ModelCommand, NonceArguments, ServerArguments};
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
        Command::Model(ModelCommand::List(arguments)) => list::models(&arguments, output).await,
        Command::Model(ModelCommand::Delete(arguments)) => model::delete(&arguments, output).await,
        Command::Prove(arguments) => prove::run(&arguments, output).await,
        Command::Jobs(arguments) => list::jobs(&arguments, output).await,
        Command::Watch(arguments) => watch::run(&arguments, output).await,
        Command::Verify(arguments) => verify::run(&arguments, output),
        Command::Estimate(arguments) => estimate::run(&arguments, output).await,
    }
}

/// Connects with the credentials that the arguments, or else the environment, give.
async fn connect(arguments: &ServerArguments) -> anyhow::Result<Client> {
    let options = ClientOptions { api_key: credentials(arguments)?, tls: tls(arguments)?, ..ClientOptions::default() };
    Ok(Client::connect_with(&arguments.server, options).await?)
}

/// A token or an API key; what the arguments give comes before what the environment gives.
fn credentials(arguments: &ServerArguments) -> anyhow::Result<Option<Secret>> {
    if let Some(token) = &arguments.token {
        return Ok(Some(token.clone()));
    }
    let text = match &arguments.api_key_file {
        Some(path) => Some(String::from_utf8(read(path)?).context("the API key file is not text")?),
        None => ["ZKINFER_TOKEN", "ZKINFER_API_KEY"].into_iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty())),
    };
    let text = text.map(Zeroizing::new);
    Ok(text.as_ref().map(|text| text.trim()).filter(|text| !text.is_empty()).map(Secret::new))
}

fn tls(arguments: &ServerArguments) -> anyhow::Result<TlsOptions> {
    let authorities = arguments.ca.as_deref().map(read).transpose()?;
    let certificate = match (&arguments.client_cert, &arguments.client_key) {
        (Some(certificate), Some(key)) => {
            let text = Zeroizing::new(read(key)?);
            let key = Secret::new(std::str::from_utf8(&text).with_context(|| format!("{} is not PEM", key.display()))?);
            Some(ClientCertificate { certificate: read(certificate)?, key })
        }
        _ => None,
    };
    Ok(TlsOptions { authorities, certificate })
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

/// The model is the expected one, if one is expected.
fn check_model(verified: &Verified, expected: &ExpectedModel) -> anyhow::Result<()> {
    let Some(digits) = &expected.model_commitment else { return Ok(()) };
    Ok(verified.check_model(&words(digits).context("--model-commitment")?)?)
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
