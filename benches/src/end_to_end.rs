//! From an ONNX file and images to verified proofs, through service and client.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use zkinfer_client::proto::{Job, StageTime};
use zkinfer_client::{Client, Documents, JobRequest, ProfileName, verify_locally};

use crate::record::Record;
use crate::service::{Computing, Service};
use crate::usage::{Meter, Usage, reset_peak};
use crate::workload::{Workload, nonce, to_npy};

/// Calls of the verifier a proof, to time it.
const VERIFICATIONS: usize = 5;

/// One proof.
struct Proved {
    job: Job,
    documents: Documents,
    usage: Usage,
}

/// Measures two registrations of a network, the first without caches, the second by a new service over the caches of the
/// first; then one proof that is reported as the first, and `n_proofs` more. Every proof is verified.
///
/// # Errors
/// Whatever fails on the way, a proof that does not verify included.
pub async fn run(workload: &Workload, computing: Computing, n_proofs: usize, record: &mut Record) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let inputs = &workload.inputs;
    ensure!(inputs.len() > n_proofs, "there are only {} inputs", inputs.len());

    let service = Service::start(computing, &folder.path().join("first"), &cache).await?;
    record.set("backend", service.backend());
    record.set("network", workload.description);
    let (_, first) = register(&service.connect().await?, workload).await?;
    service.stop().await?;
    record.add_single("registration_first_wall_s", first.wall_s);
    record.add_single("registration_first_cpu_s", first.cpu_s);
    record.add_single("registration_peak_bytes", first.peak_bytes as f64);

    let service = Service::start(computing, &folder.path().join("second"), &cache).await?;
    let client = service.connect().await?;
    let (model, again) = register(&client, workload).await?;
    record.add_single("registration_cached_wall_s", again.wall_s);
    record.add_single("registration_cached_cpu_s", again.cpu_s);

    let mut proofs = Vec::with_capacity(n_proofs + 1);
    for input in &inputs[..=n_proofs] {
        proofs.push(prove(&client, &model, input).await?);
    }
    service.stop().await?;
    record.add_single("first_proof_wall_s", proofs[0].usage.wall_s);
    note_proofs(&proofs[1..], record)
}

/// Registers the network; what it took from the first byte sent to the model being ready.
async fn register(client: &Client, workload: &Workload) -> anyhow::Result<(String, Usage)> {
    reset_peak();
    let meter = Meter::start();
    let model = workload.register(client).await?;
    Ok((model, meter.stop()))
}

/// One proof, from the request to the client's own verdict.
async fn prove(client: &Client, model: &str, input: &[f32]) -> anyhow::Result<Proved> {
    let request = JobRequest::npy(model, to_npy(&[input.to_vec()])).with_nonce(nonce()).with_private_input();
    reset_peak();
    let meter = Meter::start();
    let job = client.create_job(&request).await?;
    let job = client.finish_job(&job.name, |_| {}).await?;
    let documents = client.documents(&job).await?;
    verify_locally(&documents.key, &documents.statement, &documents.proof, &[ProfileName::Default], nonce())?;
    let usage = meter.stop();
    Ok(Proved { job, documents, usage })
}

fn note_proofs(proofs: &[Proved], record: &mut Record) -> anyhow::Result<()> {
    let column = |figure: fn(&Proved) -> f64| proofs.iter().map(figure).collect::<Vec<f64>>();
    record.add("submit_to_verified_wall_s", &column(|proof| proof.usage.wall_s));
    record.add("submit_to_verified_cpu_s", &column(|proof| proof.usage.cpu_s));
    record.add("peak_bytes", &column(|proof| proof.usage.peak_bytes as f64));
    record.add("proof_bytes", &column(|proof| proof.documents.proof.len() as f64));
    record.add("statement_bytes", &column(|proof| proof.documents.statement.len() as f64));
    record.add("key_bytes", &column(|proof| proof.documents.key.len() as f64));
    let mut verify_s = Vec::new();
    for Proved { documents, .. } in proofs {
        for _ in 0..VERIFICATIONS {
            let meter = Meter::start();
            verify_locally(&documents.key, &documents.statement, &documents.proof, &[ProfileName::Default], nonce())?;
            verify_s.push(meter.stop().wall_s);
        }
    }
    record.add("verify_wall_s", &verify_s);
    note_stages(proofs, record)
}

fn note_stages(proofs: &[Proved], record: &mut Record) -> anyhow::Result<()> {
    let mut stages: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for result in proofs.iter().filter_map(|proof| proof.job.result.as_ref()) {
        // A stage may occur twice in one proof.
        let mut of_proof: BTreeMap<&str, f64> = BTreeMap::new();
        for stage in &result.stage_times {
            *of_proof.entry(&stage.name).or_default() += seconds(stage)?;
        }
        for (name, time) in of_proof {
            stages.entry(name).or_default().push(time);
        }
    }
    for (name, times) in stages {
        record.add(&format!("stage_{name}_wall_s"), &times);
    }
    Ok(())
}

fn seconds(stage: &StageTime) -> anyhow::Result<f64> {
    let elapsed = stage.elapsed.context("a stage has no time")?;
    Ok(Duration::try_from(elapsed)?.as_secs_f64())
}
