//! The real prover on a device that fails in the middle of a job: the attempt fails, and the next one runs on the CPU, whatever lay on the device.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use zeroize::Zeroizing;
use zkinfer_kernels::faulty::{Fault, FaultSwitch, FaultyBackend};
use zkinfer_kernels::{CpuBackend, FallbackBackend};
use zkinfer_server::prover::local::{LocalProver, PARAMETER_SETS};
use zkinfer_server::prover::{
    DigestBytes, InputEncoding, ModelMaterial, Privacy, ProgressSink, ProveRequest, ProvedJob, Prover as _, ProverError, Quantization,
    RegisterRequest, RegisteredModel, StageEvent, StagePlan, Stopped,
};

type Backend = FallbackBackend<FaultyBackend<CpuBackend>, CpuBackend>;

/// The device memory that each call tells.
#[derive(Default)]
struct Peaks(Mutex<Vec<u64>>);

impl ProgressSink for Peaks {
    fn plan(&self, _: &[StagePlan]) {}

    fn report(&self, _: StageEvent) -> Result<(), Stopped> {
        Ok(())
    }

    fn check(&self) -> Result<(), Stopped> {
        Ok(())
    }

    fn ran_on(&self, _: &str, _: &str, peak_device_bytes: u64) {
        self.0.lock().unwrap().push(peak_device_bytes);
    }
}

struct Material(RegisteredModel);

impl ModelMaterial for Material {
    fn id(&self) -> DigestBytes {
        *blake3::hash(&self.0.private).as_bytes()
    }

    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError> {
        Ok(self.0.private.clone())
    }

    fn verifier_key(&self) -> Result<Vec<u8>, ProverError> {
        Ok(self.0.verifier_key.clone())
    }
}

fn register(prover: &LocalProver<Backend>, peaks: &Peaks) -> Material {
    try_register(prover, peaks).unwrap()
}

fn try_register(prover: &LocalProver<Backend>, peaks: &Peaks) -> Result<Material, ProverError> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mlp-breast-cancer/model_uint8_per_channel_qdq.onnx");
    let source = fs::read(file).unwrap();
    let request = RegisterRequest {
        source: &source,
        calibration: None,
        quantization: Quantization { per_channel: true, percentile: None },
        parameter_set: PARAMETER_SETS[0].0,
        salt: &[0; 32],
        seed: &[1; 32],
    };
    prover.register(&request, peaks).map(Material)
}

fn prove(prover: &LocalProver<Backend>, model: &Material, peaks: &Peaks) -> Result<ProvedJob, ProverError> {
    let request = ProveRequest {
        input: &[7; 30],
        encoding: InputEncoding::Uint8,
        privacy: Privacy::InputPublic,
        input_salt: &[0; 32],
        nonce: &[0; 32],
        seed: &[2; 32],
    };
    prover.prove(model, &request, peaks)
}

#[test]
fn a_job_that_loses_its_device_is_proved_on_the_cpu_by_the_next_attempt() {
    let switch = FaultSwitch::default();
    let device = FaultyBackend::new(CpuBackend::new(), switch.clone());
    let backend = FallbackBackend::new(Some(device), CpuBackend::new());
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits");
    let prover = LocalProver::new(backend, "a test".to_owned(), &cache).unwrap();
    let peaks = Peaks::default();
    switch.take_memory(5000);
    let model = register(&prover, &peaks);
    assert!(prover.backend().name.starts_with("faulty "));

    switch.fail_at("fold", Fault::Lost);
    // The committed weights, kept in memory, lie on the device as well.
    let error = prove(&prover, &model, &peaks).map(drop).unwrap_err();
    assert!(matches!(error, ProverError::DeviceLost(_)), "{error}");
    assert_eq!(prover.backend().name, zkinfer_circuits::backend::Backend::name(&CpuBackend::new()));
    let job = prove(&prover, &model, &peaks).unwrap();
    prover.verify(&model.0.verifier_key, &job.statement, &job.proof).unwrap();
    assert_eq!(*peaks.0.lock().unwrap(), [5000, 5000, 0], "the CPU has no memory of its own");
}

#[test]
fn a_job_without_device_memory_tells_so_and_is_proved_on_the_cpu_by_the_next_attempt() {
    let switch = FaultSwitch::default();
    let device = FaultyBackend::new(CpuBackend::new(), switch.clone());
    let backend = FallbackBackend::new(Some(device), CpuBackend::new());
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits");
    let prover = LocalProver::new(backend, "a test".to_owned(), &cache).unwrap();
    let peaks = Peaks::default();
    let model = register(&prover, &peaks);

    // Weights can be moved, so the first of these costs no attempt.
    switch.fail_at("sums", Fault::OutOfMemory);
    prove(&prover, &model, &peaks).unwrap();
    switch.fail_at("fold_commit", Fault::OutOfMemory);
    let error = prove(&prover, &model, &peaks).map(drop).unwrap_err();
    assert!(matches!(error, ProverError::DeviceMemory(_)), "{error}");
    prove(&prover, &model, &peaks).unwrap();
}

/// Every value of the extensions of a saved oracle changed, under a right checksum: what commitments and openings at a point do not show.
fn with_another_extension(oracle: &[u8]) -> Vec<u8> {
    let word = |index: usize| u64::from_le_bytes(oracle[8 * index..8 * index + 8].try_into().unwrap()) as usize;
    let (n_rows, n_columns) = (1 << word(1), word(4));
    let coefficients_end = 5 + n_rows * n_columns;
    let extension_end = coefficients_end + (n_rows << word(2)) * n_columns;
    let mut content = oracle[..oracle.len() - blake3::OUT_LEN].to_vec();
    (coefficients_end..extension_end).for_each(|index| content[8 * index + 4] ^= 1);
    let mut hasher = blake3::Hasher::new();
    for chunk in content.chunks(1 << 17) {
        hasher.update(blake3::hash(chunk).as_bytes());
    }
    [&content[..], hasher.finalize().as_bytes()].concat()
}

/// Spoils what is cached of weights, and forgets what was proved of them.
fn spoil_cache(cache: &Path) {
    let mut n_spoilt = 0;
    for path in fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("registration-") {
            fs::remove_file(&path).unwrap();
        } else if name.starts_with("weights-") {
            fs::write(&path, with_another_extension(&fs::read(&path).unwrap())).unwrap();
            n_spoilt += 1;
        }
    }
    assert!(n_spoilt > 0);
}

#[test]
fn a_cache_whose_oracles_give_no_proofs_costs_one_attempt() {
    let cache = tempfile::tempdir().unwrap();
    let prover = || LocalProver::new(FallbackBackend::new(None, CpuBackend::new()), "a test".to_owned(), cache.path()).unwrap();
    let peaks = Peaks::default();
    register(&prover(), &peaks);
    spoil_cache(cache.path());
    let prover_of_spoilt = prover();
    let refused = try_register(&prover_of_spoilt, &peaks).map(drop);
    assert!(matches!(refused, Err(ProverError::ProofInvalid(_))), "{refused:?}");
    let model = register(&prover_of_spoilt, &peaks);

    spoil_cache(cache.path());
    let prover = prover();
    let refused = prove(&prover, &model, &peaks).map(drop);
    assert!(matches!(refused, Err(ProverError::ProofInvalid(_))), "{refused:?}");
    // As workers do.
    prover.doubt(model.id());
    let job = prove(&prover, &model, &peaks).unwrap();
    prover.verify(&model.0.verifier_key, &job.statement, &job.proof).unwrap();
}
