//! Command-line arguments.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zkinfer_client::Secret;
use zkinfer_client::proto::job::State;

use crate::deadline::parse_deadline;
use crate::exit::EXIT_CODES;

/// Proves that a committed neural network, on this input, gave this output.
#[derive(Debug, Parser)]
#[command(name = "zkinfer", version, after_help = EXIT_CODES)]
pub(crate) struct Arguments {
    /// Results as JSON on standard output, without progress.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows everything once: a service inside, a handwritten digit, a proof, its verification, three refusals.
    Demo(DemoArguments),
    /// Looks at networks and registers them.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Has an inference proved, follows the work, verifies the proof and saves it.
    Prove(ProveArguments),
    /// Lists jobs, newest first.
    Jobs(JobsArguments),
    /// Follows a job or a registration.
    Watch(WatchArguments),
    /// Verifies a proof. Needs no service.
    Verify(VerifyArguments),
    /// Tells what one proof costs.
    Estimate(EstimateArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Imports and quantizes a network here, and reports on each layer.
    Import(NetworkArguments),
    /// Shows the public program of a network, or what a verifier key says.
    Inspect(NetworkArguments),
    /// Computes program digest and commitment of a network here.
    Commit(CommitArguments),
    /// Registers a network with the service and saves its verifier key.
    Register(RegisterArguments),
    /// Lists registered models, newest first.
    List(ListArguments),
    /// Deletes a registered model, and with it what the service holds of its weights; proofs that were made stay, and verify with their key.
    Delete(DeleteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct DemoArguments {
    /// Which of the bundled test images, 0 to 999.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..1000))]
    pub(crate) image: u16,
    /// Circuits and committed weights that can be rebuilt; default: `zkinfer` in the user's cache directory.
    #[arg(long, env = "ZKINFER_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Saves proof, statement and key here.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

/// How to reach the service.
#[derive(Debug, Args)]
pub(crate) struct ServerArguments {
    /// Address of the service: http://HOST:PORT, or https://HOST:PORT for TLS.
    #[arg(long, env = "ZKINFER_SERVER", default_value = "http://127.0.0.1:50061")]
    pub(crate) server: String,
    /// File that holds the API key; the environment variable ZKINFER_API_KEY may hold the key itself.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// A signed token (JWT) instead of an API key. Other users of this machine may see arguments: the environment variable ZKINFER_TOKEN may
    /// hold it instead.
    #[arg(long, value_parser = token)]
    pub(crate) token: Option<Secret>,
    /// TLS: authorities as PEM, one of which must have signed the service's certificate; default: those that this system trusts.
    #[arg(long, env = "ZKINFER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// TLS: a certificate of this client, as PEM, for services that ask for one.
    #[arg(long, env = "ZKINFER_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// TLS: the private key of --client-cert, as PEM.
    #[arg(long, env = "ZKINFER_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
}

fn token(text: &str) -> Result<Secret, Infallible> {
    Ok(Secret::new(text))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Granularity {
    /// One scale for each output of a layer.
    PerChannel,
    /// One scale for each layer.
    PerTensor,
}

/// Parameter sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Smaller and faster; 89 heuristic bits of security, 57 proven.
    Default,
    /// 99 heuristic bits, at least 85 proven.
    Strict,
}

impl Profile {
    pub(crate) fn name(self) -> zkinfer_client::ProfileName {
        match self {
            Self::Default => zkinfer_client::ProfileName::Default,
            Self::Strict => zkinfer_client::ProfileName::Strict,
        }
    }

    /// Name that the service knows.
    pub(crate) fn parameter_set(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Strict => "strict",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct NetworkArguments {
    /// The ONNX file (`inspect`: or a verifier key).
    pub(crate) file: PathBuf,
    /// Calibration inputs, .npy, first axis the sample; needed for a float network.
    #[arg(long)]
    pub(crate) calibration: Option<PathBuf>,
    /// Scales of the weights of a float network.
    #[arg(long, value_enum, default_value = "per-channel")]
    pub(crate) granularity: Granularity,
}

#[derive(Debug, Args)]
pub(crate) struct CommitArguments {
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// Salt of the commitment: 64 hexadecimal digits; without it the salt is zero, as for a model with public weights.
    #[arg(long)]
    pub(crate) salt: Option<String>,
    /// Parameter set that the model is registered under.
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) profile: Profile,
}

#[derive(Debug, Args)]
pub(crate) struct RegisterArguments {
    #[command(flatten)]
    pub(crate) network: NetworkArguments,
    /// Id of the model: lower-case letters, digits, hyphens.
    #[arg(long)]
    pub(crate) id: String,
    /// Commits without salt: whoever has the network can recompute the commitment.
    #[arg(long)]
    pub(crate) public_weights: bool,
    /// Parameter set that the model is registered under.
    #[arg(long, value_enum, default_value = "default")]
    pub(crate) profile: Profile,
    /// Where the verifier key is saved.
    #[arg(long, default_value = "model.zkvk")]
    pub(crate) key: PathBuf,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArguments {
    /// Id or full name of the model. All its jobs must be over.
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// The use that a proof is made for. Without either option it is bound to none: anybody who has the proof can show it again.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct NonceArguments {
    /// The use that the proof is bound to: 64 hexadecimal digits, four little-endian words below 2^64 - 2^32 + 1. Without --nonce and
    /// --context it is all zero, and anybody who has the proof can show it again.
    #[arg(long)]
    pub(crate) nonce: Option<String>,
    /// The use that the proof is bound to, as a text, such as the verifier's own order number: its hash is the nonce.
    #[arg(long)]
    pub(crate) context: Option<String>,
}

/// Which model a proof is to be of.
#[derive(Debug, Args)]
pub(crate) struct ExpectedModel {
    /// Refuses proofs of a model with another commitment: 64 hexadecimal digits, from a source that you trust. Without it a proof of any model is accepted.
    #[arg(long, value_name = "HEX")]
    pub(crate) model_commitment: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ProveArguments {
    /// Id or full name of a registered model.
    #[arg(long)]
    pub(crate) model: String,
    /// The input: a .npy file of float32 in the network's units, or of uint8 as the model's bytes.
    #[arg(long)]
    pub(crate) input: PathBuf,
    /// The statement shows a salted commitment instead of the input.
    #[arg(long)]
    pub(crate) private_input: bool,
    /// Goes before jobs of lower priority: -100 to 100.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-100..=100))]
    pub(crate) priority: i32,
    /// The job expires if it has not succeeded by then: a time, such as 2030-01-31T12:00:00Z, or how long from now on by this machine's clock, such as 90s, 15m, 2h or 1d.
    #[arg(long, value_name = "WHEN", value_parser = parse_deadline)]
    pub(crate) deadline: Option<SystemTime>,
    /// Directory for proof.zkp, statement.zks and key.zkvk.
    #[arg(long, default_value = ".")]
    pub(crate) out: PathBuf,
    #[command(flatten)]
    pub(crate) expected: ExpectedModel,
    #[command(flatten)]
    pub(crate) nonce: NonceArguments,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Lists so many at most, the newest.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArguments {
    /// Only jobs of this model: its id or full name.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Only jobs in this state, or in one of those of several such options.
    #[arg(long, value_enum)]
    pub(crate) state: Vec<JobState>,
    /// Only jobs with this label, or with all those of several such options.
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// Only jobs of the batch of this full name.
    #[arg(long)]
    pub(crate) batch: Option<String>,
    #[command(flatten)]
    pub(crate) list: ListArguments,
}

fn label(text: &str) -> Result<(String, String), &'static str> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// States of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum JobState {
    Queued,
    Running,
    Cancelling,
    Succeeded,
    Failed,
    Cancelled,
    Expired,
}

impl JobState {
    /// As the service knows it.
    pub(crate) fn state(self) -> State {
        match self {
            Self::Queued => State::Queued,
            Self::Running => State::Running,
            Self::Cancelling => State::Cancelling,
            Self::Succeeded => State::Succeeded,
            Self::Failed => State::Failed,
            Self::Cancelled => State::Cancelled,
            Self::Expired => State::Expired,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Full name of a job or a model.
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// The proof.
    #[arg(long)]
    pub(crate) proof: PathBuf,
    /// The statement.
    #[arg(long)]
    pub(crate) statement: PathBuf,
    /// The verifier key of the model.
    #[arg(long)]
    pub(crate) key: PathBuf,
    /// Accepts proofs of this parameter set only; without it, of any set.
    #[arg(long, value_enum)]
    pub(crate) profile: Option<Profile>,
    /// Refuses proofs whose parameters give fewer heuristic bits of security (default: 89, what every set gives).
    #[arg(long, value_name = "BITS")]
    pub(crate) min_heuristic_bits: Option<f64>,
    /// Refuses proofs whose parameters give fewer proven bits of security (default: 57, what every set gives).
    #[arg(long, value_name = "BITS")]
    pub(crate) min_proven_bits: Option<f64>,
    #[command(flatten)]
    pub(crate) expected: ExpectedModel,
    #[command(flatten)]
    pub(crate) nonce: NonceArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EstimateArguments {
    /// Id or full name of a registered model.
    #[arg(long, required_unless_present = "file", conflicts_with = "file")]
    pub(crate) model: Option<String>,
    /// An ONNX file that is not registered.
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_documented_commands_parse() {
        for line in [
            "zkinfer demo --json",
            "zkinfer verify --proof P --statement S --key K",
            "zkinfer verify --proof P --statement S --key K --context order-7 --profile strict",
            "zkinfer verify --proof P --statement S --key K --min-heuristic-bits 99 --min-proven-bits 85.5",
            "zkinfer prove --model digits --input i.npy --private-input",
            "zkinfer prove --model digits --input i.npy --priority -7 --deadline 15m",
            "zkinfer prove --model digits --input i.npy --deadline 2030-01-31T12:00:00Z",
            "zkinfer jobs",
            "zkinfer jobs --model digits --state queued --state running --label run=7 --batch tenants/default/batches/x --limit 5 --json",
            "zkinfer model list --limit 5 --server https://h:1",
            "zkinfer model import m.onnx --calibration c.npy --granularity per-tensor",
            "zkinfer model register m.onnx --id digits --public-weights --profile strict",
            "zkinfer model delete digits --server https://h:1",
            "zkinfer watch tenants/default/jobs/x",
            "zkinfer estimate m.onnx",
            "zkinfer estimate --model digits --json",
            "zkinfer estimate --model digits --server https://h:1 --token t --ca c --client-cert c --client-key k",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        for line in [
            "zkinfer",
            "zkinfer estimate",
            "zkinfer model delete",
            "zkinfer demo --image 1000",
            "zkinfer prove --model digits --input i.npy --priority 101",
            "zkinfer prove --model digits --input i.npy --deadline tomorrow",
            "zkinfer jobs --state ready",
            "zkinfer jobs --label run",
            "zkinfer model list --limit 0",
            "zkinfer estimate --model digits --client-cert c",
            "zkinfer estimate --model digits --token t --api-key-file f",
            "zkinfer verify --proof P --statement S --key K --nonce 0 --context x",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }
}
