//! What the demo measured.

use std::time::Duration;

use serde::Serialize;
use zkinfer_client::proto::StageTime;

use super::digit::Digit;
use super::refusals::Refusal;
use super::{Proof, Registration};
use crate::table;

/// The measures, as `--json` shows them.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    ok: bool,
    image: usize,
    label: u8,
    predicted: usize,
    registration: Work,
    proof: Work,
    proof_bytes: usize,
    statement_bytes: usize,
    verifier_key_bytes: usize,
    verify_seconds: f64,
    /// Largest resident memory of this process, the service included.
    peak_resident_bytes: Option<i64>,
    refusals: Vec<Refusal>,
}

#[derive(Debug, Serialize)]
struct Work {
    /// From the first request to the last answer.
    wall_seconds: f64,
    stages: Vec<StageSeconds>,
}

#[derive(Debug, Serialize)]
struct StageSeconds {
    name: String,
    seconds: f64,
}

impl Work {
    fn new(elapsed: Duration, stages: &[StageTime]) -> Self {
        let stage = |stage: &StageTime| {
            let elapsed = stage.elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok()).unwrap_or_default();
            StageSeconds { name: stage.name.clone(), seconds: elapsed.as_secs_f64() }
        };
        Self { wall_seconds: elapsed.as_secs_f64(), stages: stages.iter().map(stage).collect() }
    }

    fn rows(&self, name: &str) -> Vec<Vec<String>> {
        let row = |name: String, seconds: f64| vec![name, table::time(Duration::from_secs_f64(seconds))];
        let mut rows: Vec<Vec<String>> = self.stages.iter().map(|stage| row(format!("  {}", stage.name), stage.seconds)).collect();
        rows.insert(0, row(format!("{name}, request to answer"), self.wall_seconds));
        rows
    }
}

impl Report {
    pub(super) fn new(
        digit: &Digit,
        predicted: usize,
        registration: &Registration,
        proof: &Proof,
        verify_time: Duration,
        refusals: Vec<Refusal>,
    ) -> Self {
        let stage_times = proof.job.result.as_ref().map(|result| result.stage_times.as_slice()).unwrap_or_default();
        Self {
            ok: true,
            image: digit.index,
            label: digit.label,
            predicted,
            registration: Work::new(registration.elapsed, &registration.registered.stage_times),
            proof: Work::new(proof.elapsed, stage_times),
            proof_bytes: proof.documents.proof.len(),
            statement_bytes: proof.documents.statement.len(),
            verifier_key_bytes: proof.documents.key.len(),
            verify_seconds: verify_time.as_secs_f64(),
            peak_resident_bytes: zkinfer_server::process::peak_resident_bytes(),
            refusals,
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut rows = self.registration.rows("registration");
        rows.extend(self.proof.rows("proof"));
        let mut add = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        add("verification", table::time(Duration::from_secs_f64(self.verify_seconds)));
        add("proof size", table::bytes(self.proof_bytes as u64));
        add("statement size", table::bytes(self.statement_bytes as u64));
        add("verifier key size", table::bytes(self.verifier_key_bytes as u64));
        let peak = self.peak_resident_bytes.and_then(|bytes| u64::try_from(bytes).ok());
        add("peak memory, service included", peak.map_or_else(|| "not known".to_owned(), table::bytes));
        table::align(&rows)
    }
}
