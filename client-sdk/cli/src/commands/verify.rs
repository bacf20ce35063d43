//! `zkinfer verify`: needs no service.

use std::time::Instant;

use serde::Serialize;
use serde_json::json;
use zkinfer_client::encoding::digest_hex;
use zkinfer_client::{ALL_PROFILES, Acceptance, SecurityFloor, StatementInput, Verified, verify_accepting};

use super::{check_model, nonce, read};
use crate::arguments::VerifyArguments;
use crate::output::Output;
use crate::table;

/// Outputs shown in one line.
const SHOWN_OUTPUTS: usize = 16;

/// What was proved, for `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct VerifiedView {
    parameters_id: String,
    program_digest: String,
    model_commitment: String,
    input: InputView,
    outputs: Vec<i64>,
    context_nonce: String,
    layers: usize,
    multiply_accumulates: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum InputView {
    /// The bytes, in hexadecimal.
    Public(String),
    /// The commitment.
    Committed(String),
}

impl VerifiedView {
    pub(crate) fn new(verified: &Verified) -> Self {
        let Verified { statement, key } = verified;
        Self {
            parameters_id: digest_hex(statement.parameters_id),
            program_digest: digest_hex(statement.program_digest),
            model_commitment: digest_hex(statement.model_commitment),
            input: match &statement.input {
                StatementInput::Public(bytes) => InputView::Public(hex::encode(bytes)),
                StatementInput::Committed(digest) => InputView::Committed(digest_hex(*digest)),
            },
            outputs: statement.outputs.clone(),
            context_nonce: hex::encode(statement.context_nonce.to_bytes()),
            layers: key.program.layers.len(),
            multiply_accumulates: key.program.n_macs(),
        }
    }
}

/// Tells people what was proved.
pub(crate) fn show(verified: &Verified, output: &Output) {
    let Verified { statement, key } = verified;
    let input = match &statement.input {
        StatementInput::Public(bytes) => format!("{} bytes, in the statement", bytes.len()),
        StatementInput::Committed(digest) => format!("hidden, commitment {}", digest_hex(*digest)),
    };
    let mut outputs: Vec<String> = statement.outputs.iter().take(SHOWN_OUTPUTS).map(i64::to_string).collect();
    if statement.outputs.len() > SHOWN_OUTPUTS {
        outputs.push(format!("... {} in all", statement.outputs.len()));
    }
    output.say(table::list(&[
        ("model", format!("commitment {}", digest_hex(statement.model_commitment))),
        ("program", format!("{} layers, {} multiply-accumulates", key.program.layers.len(), key.program.n_macs())),
        ("input", input),
        ("output", outputs.join(" ")),
        ("made for", hex::encode(statement.context_nonce.to_bytes())),
    ]));
}

pub(super) fn run(arguments: &VerifyArguments, output: &Output) -> anyhow::Result<()> {
    let context_nonce = nonce(&arguments.nonce)?;
    let (proof, statement, key) = (read(&arguments.proof)?, read(&arguments.statement)?, read(&arguments.key)?);
    let start = Instant::now();
    let profiles = arguments.profile.map_or_else(|| ALL_PROFILES.to_vec(), |profile| vec![profile.name()]);
    let least = SecurityFloor::default();
    let min_security = SecurityFloor {
        heuristic_bits: arguments.min_heuristic_bits.unwrap_or(least.heuristic_bits),
        proven_bits: arguments.min_proven_bits.unwrap_or(least.proven_bits),
    };
    let verified = verify_accepting(&key, &statement, &proof, &Acceptance { profiles, min_security, context_nonce })?;
    check_model(&verified, &arguments.expected)?;
    let elapsed = start.elapsed();
    output.say(format!("accepted in {}", table::time(elapsed)));
    show(&verified, output);
    output.json(&json!({
        "ok": true,
        "verify_seconds": elapsed.as_secs_f64(),
        "proof_bytes": proof.len(),
        "verified": VerifiedView::new(&verified),
    }));
    Ok(())
}
