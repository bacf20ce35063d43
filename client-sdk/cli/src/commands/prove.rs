//! `zkinfer prove`.

use serde_json::json;
use zkinfer_client::{ALL_PROFILES, JobInput, JobRequest, verify_locally};

use super::{check_model, connect, cost, model_name, nonce, read, save, show};
use crate::arguments::ProveArguments;
use crate::commands::VerifiedView;
use crate::output::Output;
use crate::progress::ProgressView;

pub(super) async fn run(arguments: &ProveArguments, output: &Output) -> anyhow::Result<()> {
    let context_nonce = nonce(&arguments.nonce)?;
    let input = JobInput::Npy(read(&arguments.input)?);
    let client = connect(&arguments.server).await?;
    let model = model_name(&client, &arguments.model).await?;
    let mut request = JobRequest::new(model, input).with_nonce(context_nonce).with_priority(arguments.priority);
    if arguments.private_input {
        request = request.with_private_input();
    }
    if let Some(deadline) = arguments.deadline {
        request = request.with_deadline(deadline);
    }
    let job = client.create_job(&request).await?;
    output.say(&job.name);
    let mut view = ProgressView::new(output);
    let job = client.finish_job(&job.name, |event| view.job(event)).await;
    view.finish();
    let job = job?;
    let documents = client.documents(&job).await?;
    let verified = verify_locally(&documents.key, &documents.statement, &documents.proof, &ALL_PROFILES, context_nonce)?;
    verified.check_answers(&request)?;
    check_model(&verified, &arguments.expected)?;
    let [proof, statement, key] = save(&documents, &arguments.out)?;
    show(&verified, output);
    output.say(cost::line(&job));
    output.say(format!("verified here, and saved: {proof}, {statement}, {key}"));
    let files = json!({ "proof": proof, "statement": statement, "key": key });
    output
        .json(&json!({ "ok": true, "job": job.name, "files": files, "cost": cost::view(&job), "verified": VerifiedView::new(&verified) }));
    Ok(())
}
