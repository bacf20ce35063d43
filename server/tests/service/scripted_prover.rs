//! A prover for tests of the service: its sources and inputs are scripts that say what shall happen.
//!
//! A script is words: `steps=N` (reports so many steps of the stage `layer`), `ms=N` (each takes so long), `panic`,
//! `eat=N` (takes N MiB of memory), `abort` (writes some last words and ends the process), `reject`, `device` (a lost device, every time), `device-once`, `wrong` (a proof that does not verify), `deaf` (does not look
//! at the sink while it sleeps), `device-memory=N` (it runs on a device, of whose memory it takes so many bytes). A source with `layers=N` gives a model whose
//! jobs have a task for each step: `witness`, N of `commit` and of `layer`, `bind`, `outer`; the layers do what the input says. A proof `ms=N` takes so long to
//! be verified. Its proofs are hashes: enough to tell whether the service mixes anything up.

use std::collections::HashSet;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use zeroize::Zeroizing;
use zkinfer_circuits::backend::{Condition, DeviceMemory};
use zkinfer_server::observe::DeviceReport;
use zkinfer_server::prover::{
    BackendInfo, Cost, DigestBytes, InputEncoding, ModelFacts, ModelMaterial, Privacy, ProgressSink, ProveRequest, ProvedJob, Prover,
    ProverError, RegisterRequest, RegisteredModel, Rejection, StageEdge, StageEvent, StagePlan, StatementFields, StepOutput, StepPlan,
    StepResults, TensorFacts, VerifyFailure,
};

/// What a process writes before it aborts.
pub(crate) const LAST_WORDS: &str = "scripted: unspecified launch failure";

pub(crate) const PRIVATE_MARK: &[u8] = b"private material of the model";

#[derive(Default)]
pub(crate) struct ScriptedProver {
    seen: Mutex<HashSet<Vec<u8>>>,
    /// Whole proofs and steps that were begun.
    pub(crate) n_begun: AtomicUsize,
    /// How often it was told that what it made of a model does not verify.
    pub(crate) n_doubted: AtomicUsize,
    running: AtomicUsize,
}

/// Counts a call until it ends, also by a panic.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Script<'a>(&'a str);

impl<'a> Script<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        Self(std::str::from_utf8(bytes).unwrap_or("reject"))
    }

    fn has(&self, word: &str) -> bool {
        self.0.split_whitespace().any(|w| w == word)
    }

    fn number(&self, key: &str) -> u32 {
        let value = self.0.split_whitespace().find_map(|w| w.strip_prefix(key)?.strip_prefix('='));
        value.map_or(0, |v| v.parse().unwrap())
    }
}

/// The steps of a job of a model with so many layers.
fn steps(n_layers: u32) -> Vec<StepPlan> {
    if n_layers == 0 {
        return Vec::new();
    }
    let step = |name: String, kind, needs: Vec<u32>| StepPlan { name, kind, needs, estimated_ms: 30_000, device_bytes: 0, load_ms: 0 };
    let mut steps = vec![step("witness".into(), "witness", vec![])];
    steps.extend((0..n_layers).map(|k| step(format!("commit-{k:04}"), "commit", vec![0])));
    steps.push(step("bind".into(), "bind", (0..=n_layers).collect()));
    steps.extend((0..n_layers).map(|k| step(format!("layer-{k:04}"), "layer", vec![0, n_layers + 1])));
    steps.push(step("outer".into(), "outer", (n_layers + 2..2 * n_layers + 2).collect()));
    steps
}

impl ScriptedProver {
    fn act(&self, script: &[u8], progress: &dyn ProgressSink) -> Result<(), ProverError> {
        self.running.fetch_add(1, Ordering::Relaxed);
        let _running = Running(&self.running);
        let text = Script::parse(script);
        let total = text.number("steps");
        if let memory @ 1.. = text.number("device-memory") {
            progress.ran_on("cuda:0", "", memory.into());
        }
        let pause = Duration::from_millis(u64::from(text.number("ms")));
        progress.plan(&[StagePlan { name: "layer", total, cost_ms: u64::from(total) * 10 }]);
        for index in 0..total {
            let event = |edge| StageEvent { name: "layer", index, total, edge };
            progress.report(event(StageEdge::Begin))?;
            std::thread::sleep(pause);
            if !text.has("deaf") {
                progress.check()?;
            }
            progress.report(event(StageEdge::End))?;
        }
        if let mebibytes @ 1.. = text.number("eat") {
            // One after another, as a proof takes memory; each byte is written.
            let eaten: Vec<Vec<u8>> = (0..mebibytes).map(|_| vec![1; 1 << 20]).collect();
            std::hint::black_box(eaten);
        }
        if text.has("abort") {
            // As a driver does that ends its process.
            let _ = writeln!(std::io::stderr(), "{LAST_WORDS}");
            std::process::abort();
        }
        if text.has("panic") {
            panic!("scripted");
        }
        if text.has("reject") {
            let message = "scripted: operator `Frob` is not supported".into();
            return Err(ProverError::Rejected { rejection: Rejection::UnsupportedOp, message });
        }
        let is_first = self.seen.lock().unwrap().insert(script.to_vec());
        if text.has("device") || (text.has("device-once") && is_first) {
            return Err(ProverError::DeviceLost("scripted".into()));
        }
        Ok(())
    }
}

fn words(label: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(label);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut words = *hasher.finalize().as_bytes();
    for word in words.chunks_exact_mut(8) {
        word[7] &= 0x7f;
    }
    words
}

impl ScriptedProver {
    pub(crate) fn proved(&self, model: &dyn ModelMaterial, request: &ProveRequest<'_>) -> Result<ProvedJob, ProverError> {
        let key = model.verifier_key()?;
        let input = self.input_commitment(&key, request.input, request.encoding, request.input_salt)?;
        let statement = [&key[..], &input, request.nonce].concat();
        let mut proof = words("proof", &[&key, &statement]).to_vec();
        if Script::parse(request.input).has("wrong") {
            proof[0] ^= 1;
        }
        let fields = self.decode_statement(&statement).map_err(|f| ProverError::Internal(f.message))?;
        Ok(ProvedJob { proof, statement, fields })
    }
}

impl Prover for ScriptedProver {
    fn backend(&self) -> BackendInfo {
        BackendInfo { name: "scripted".into(), reason: "a test of the service".into() }
    }

    fn devices(&self) -> Vec<DeviceReport> {
        let memory = DeviceMemory { used_bytes: 10, peak_bytes: 100, limit_bytes: 1000 };
        let condition = Condition { memory: Some(memory), n_fallbacks_memory: 3, n_fallbacks_device: 0 };
        vec![DeviceReport { jobs: self.running.load(Ordering::Relaxed), is_degraded: false, condition }]
    }

    fn doubt(&self, _: DigestBytes) {
        self.n_doubted.fetch_add(1, Ordering::Relaxed);
    }

    fn parameter_sets(&self) -> Vec<String> {
        vec!["scripted-v1/default".into(), "scripted-v1/strict".into()]
    }

    fn register(&self, request: &RegisterRequest<'_>, progress: &dyn ProgressSink) -> Result<RegisteredModel, ProverError> {
        self.act(request.source, progress)?;
        let commitment = words("model", &[request.source, request.salt]);
        let tensor = TensorFacts { name: "input".into(), dtype: "uint8", shape: vec![4], scales: vec![0.5], zero_point: 128 };
        Ok(RegisteredModel {
            private: Zeroizing::new([PRIVATE_MARK, request.source, request.salt].concat()),
            verifier_key: commitment.to_vec(),
            report_json: b"{\"layers\":[]}".to_vec(),
            facts: ModelFacts {
                model_commitment: commitment,
                program_digest: words("program", &[request.source]),
                parameters_id: words("parameters", &[request.parameter_set.as_bytes()]),
                inputs: vec![tensor.clone()],
                outputs: vec![tensor],
                layer_count: 2,
                parameter_count: 12,
                unit_cost: Cost { layer_count: 2, task_count: 4, ..Cost::default() },
            },
            steps: steps(Script::parse(request.source).number("layers")),
        })
    }

    fn prove(&self, model: &dyn ModelMaterial, request: &ProveRequest<'_>, progress: &dyn ProgressSink) -> Result<ProvedJob, ProverError> {
        self.n_begun.fetch_add(1, Ordering::Relaxed);
        assert!(model.private()?.starts_with(PRIVATE_MARK));
        if request.privacy == Privacy::InputPublic {
            assert_eq!(request.input_salt, &[0; 32]);
        } else {
            assert_ne!(request.input_salt, &[0; 32]);
        }
        self.act(request.input, progress)?;
        self.proved(model, request)
    }

    fn prove_step(
        &self,
        model: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        step: &str,
        results: &dyn StepResults,
        progress: &dyn ProgressSink,
    ) -> Result<StepOutput, ProverError> {
        self.n_begun.fetch_add(1, Ordering::Relaxed);
        assert!(model.private()?.starts_with(PRIVATE_MARK));
        // What a step gives tells what it read.
        let digest = |step: &str| words("step", &[step.as_bytes(), request.seed, request.input]).to_vec();
        let needs: &[&str] = match step.split('-').next() {
            Some("commit" | "bind") => &["witness"],
            Some("layer") => &["witness", "bind"],
            _ => &[],
        };
        for need in needs {
            assert_eq!(results.result(need), Some(&digest(need)[..]), "{step} reads {need}");
        }
        match step {
            "outer" => {
                assert_eq!(results.result("layer-0000"), Some(&digest("layer-0000")[..]));
                return self.proved(model, request).map(|proved| StepOutput::Proved(Box::new(proved)));
            }
            layer if layer.starts_with("layer") => self.act(request.input, progress)?,
            _ => progress.check()?,
        }
        Ok(StepOutput::Internal(Zeroizing::new(digest(step))))
    }

    fn verify(&self, key: &[u8], statement: &[u8], proof: &[u8]) -> Result<(), VerifyFailure> {
        self.decode_statement(statement)?;
        std::thread::sleep(Duration::from_millis(Script::parse(proof).number("ms").into()));
        if statement[..32] != *key {
            let message = "the statement is about another model".into();
            return Err(VerifyFailure { reason: "OTHER_MODEL", message });
        }
        if proof != words("proof", &[key, statement]) {
            let message = "the proof does not fit the statement".into();
            return Err(VerifyFailure { reason: "PROOF_INVALID", message });
        }
        Ok(())
    }

    fn decode_statement(&self, statement: &[u8]) -> Result<StatementFields, VerifyFailure> {
        let Ok(bytes) = <&[u8; 96]>::try_from(statement) else {
            let message = "not 96 bytes".into();
            return Err(VerifyFailure { reason: "STATEMENT_MALFORMED", message });
        };
        let part = |i: usize| <[u8; 32]>::try_from(&bytes[32 * i..32 * (i + 1)]).unwrap();
        Ok(StatementFields {
            version: 1,
            parameters_id: [0; 32],
            program_digest: [0; 32],
            model_commitment: part(0),
            input_commitment: part(1),
            output_values: vec![-3, 7],
            predicate: [0; 32],
            context_nonce: part(2),
        })
    }

    fn input_commitment(&self, _: &[u8], input: &[u8], _: InputEncoding, salt: &DigestBytes) -> Result<DigestBytes, ProverError> {
        Ok(words("input", &[input, salt]))
    }

    fn estimate(&self, source: &[u8], _parameter_set: &str) -> Result<Cost, ProverError> {
        if Script::parse(source).has("reject") {
            let message = "scripted: operator `Frob` is not supported".into();
            return Err(ProverError::Rejected { rejection: Rejection::UnsupportedOp, message });
        }
        Ok(Cost { layer_count: 2, proof_bytes: 32, ..Cost::default() })
    }
}
