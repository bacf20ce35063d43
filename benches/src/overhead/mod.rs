//! What the service adds to the prover's own time: by turns the same model and input are proved by a call in this process, and by a job that travels
//! over gRPC through queue, worker and stores of the same process.

mod timed_prover;

use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use timed_prover::{KeptModel, TimedProver};
use zkinfer_client::proto::job_event::Detail;
use zkinfer_client::{Client, JobRequest};
use zkinfer_server::prover::{
    InputEncoding, ModelMaterial as _, Privacy, ProgressSink, ProveRequest, Prover as _, StageEvent, StagePlan, Stopped,
};

use crate::record::Record;
use crate::service::{Computing, Service};
use crate::workload::{Workload, to_npy};

/// Takes progress and drops it.
struct Nobody;

impl ProgressSink for Nobody {
    fn plan(&self, _stages: &[StagePlan]) {}

    fn report(&self, _event: StageEvent) -> Result<(), Stopped> {
        Ok(())
    }

    fn check(&self) -> Result<(), Stopped> {
        Ok(())
    }
}

/// One job, in seconds.
struct Served {
    submit_to_succeeded_s: f64,
    prove_s: f64,
    verify_s: f64,
}

/// Measures `n_pairs` pairs after one that is not counted.
///
/// # Errors
/// Whatever fails on the way.
pub async fn run(workload: &Workload, n_pairs: usize, record: &mut Record) -> anyhow::Result<()> {
    ensure!(workload.inputs.len() > n_pairs, "there are only {} inputs", workload.inputs.len());
    let folder = tempfile::tempdir()?;
    let prover = Arc::new(TimedProver::new(Computing::Auto.prover(&folder.path().join("cache"))?));
    let service = Service::start_with(prover.clone(), &folder.path().join("data")).await?;
    record.set("backend", service.backend());
    record.set("network", workload.description);
    let client = service.connect().await?;
    let model = workload.register(&client).await?;
    let kept = prover.model()?;
    let (mut direct, mut served) = (Vec::new(), Vec::new());
    for input in &workload.inputs[..=n_pairs] {
        let input = to_npy(std::slice::from_ref(input));
        direct.push(tokio::task::block_in_place(|| prove(&prover, &kept, &input))?);
        served.push(submit(&client, &prover, &model, input).await?);
    }
    service.stop().await?;
    note(&direct[1..], &served[1..], record);
    Ok(())
}

/// A proof by a call, verified as a worker verifies what it made.
fn prove(prover: &TimedProver, model: &KeptModel, input: &[u8]) -> anyhow::Result<f64> {
    let request = ProveRequest {
        input,
        encoding: InputEncoding::Npy,
        privacy: Privacy::InputCommitted,
        input_salt: &[1; 32],
        nonce: &[0; 32],
        seed: &[2; 32],
    };
    let began = Instant::now();
    let proved = prover.prove(model, &request, &Nobody)?;
    let verified = prover.verify(&model.verifier_key()?, &proved.statement, &proved.proof);
    verified.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    Ok(began.elapsed().as_secs_f64())
}

/// A proof by a job, until the client sees its result.
async fn submit(client: &Client, prover: &TimedProver, model: &str, input: Vec<u8>) -> anyhow::Result<Served> {
    let began = Instant::now();
    let job = client.create_job(&JobRequest::npy(model, input).with_private_input()).await?;
    let mut watch = client.watch_job(&job.name);
    let mut has_result = false;
    while let Some(event) = watch.next().await? {
        has_result |= matches!(event.detail, Some(Detail::Result(_)));
    }
    let submit_to_succeeded_s = began.elapsed().as_secs_f64();
    ensure!(has_result, "{} has no result", job.name);
    let (prove, verify) = prover.take_times()?;
    Ok(Served { submit_to_succeeded_s, prove_s: prove.as_secs_f64(), verify_s: verify.as_secs_f64() })
}

fn note(direct: &[f64], served: &[Served], record: &mut Record) {
    let column = |figure: fn(&Served) -> f64| served.iter().map(figure).collect::<Vec<f64>>();
    record.add("direct_prove_wall_s", direct);
    record.add("submit_to_succeeded_wall_s", &column(|job| job.submit_to_succeeded_s));
    record.add("prove_in_service_wall_s", &column(|job| job.prove_s));
    record.add("verify_own_output_wall_s", &column(|job| job.verify_s));
    record.add("service_wall_s", &column(|job| job.submit_to_succeeded_s - job.prove_s - job.verify_s));
    let percent = |job: &Served| (job.submit_to_succeeded_s / (job.prove_s + job.verify_s) - 1.0) * 100.0;
    record.add("service_percent_of_prove", &column(percent));
    // Each draws other randomness, so that other nonces are ground: of single pairs this tells more of chance than of the service.
    let pairs = served.iter().zip(direct).map(|(job, direct)| (job.submit_to_succeeded_s / direct - 1.0) * 100.0);
    record.add("job_percent_over_call", &pairs.collect::<Vec<f64>>());
}
