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
    Material(prover.register(&request, peaks).unwrap())
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
