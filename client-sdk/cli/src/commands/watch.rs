//! `zkinfer watch`.

use serde_json::{Value, json};
use zkinfer_client::proto::{Progress, TaskNote};
use zkinfer_client::{Client, ClientError};

use super::{connect, cost};
use crate::arguments::WatchArguments;
use crate::output::Output;
use crate::progress::{ProgressView, notes};

pub(super) async fn run(arguments: &WatchArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let mut view = ProgressView::new(output);
    let result = if arguments.name.contains("/models/") {
        model(&client, &arguments.name, &mut view, output).await
    } else {
        job(&client, &arguments.name, &mut view, output).await
    };
    view.finish();
    output.say(result?);
    Ok(())
}

async fn model(client: &Client, name: &str, view: &mut ProgressView, output: &Output) -> Result<String, ClientError> {
    let on_event = |event: &zkinfer_client::proto::ModelEvent| {
        view.update(event.progress.as_ref());
        output.json(&event_json(event.sequence, event.state().as_str_name(), event.progress.as_ref()));
    };
    client
        .finish_model(name, on_event)
        .await
        .map(|registered| format!("{name} is ready, commitment {}", hex::encode(registered.model_commitment)))
}

async fn job(client: &Client, name: &str, view: &mut ProgressView, output: &Output) -> Result<String, ClientError> {
    let on_event = |event: &zkinfer_client::proto::JobEvent| {
        view.job(event);
        let mut line = event_json(event.sequence, event.state().as_str_name(), event.progress.as_ref());
        let note =
            |note: &TaskNote| json!({ "task": note.task, "attempt": note.attempt, "outcome": note.outcome, "message": note.message });
        line["notes"] = notes(event).iter().map(note).collect();
        output.json(&line);
    };
    let job = client.finish_job(name, on_event).await?;
    output.json(&json!({ "job": job.name, "state": job.state().as_str_name(), "cost": cost::view(&job) }));
    Ok(format!("{name} succeeded: {}", cost::line(&job)))
}

fn event_json(sequence: i64, state: &str, progress: Option<&Progress>) -> Value {
    let stages: Vec<Value> = progress
        .map(|progress| {
            progress.stages.iter().map(|stage| json!({ "name": stage.name, "done": stage.done, "total": stage.total })).collect()
        })
        .unwrap_or_default();
    let fraction = progress.map_or(0.0, |progress| progress.fraction);
    json!({ "sequence": sequence, "state": state, "fraction": fraction, "stages": stages })
}
