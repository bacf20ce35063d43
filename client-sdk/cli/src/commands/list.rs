//! `zkinfer jobs` and `zkinfer model list`.

use serde_json::{Value, json};
use zkinfer_client::proto::{Job, Model};
use zkinfer_client::{ClientError, JobFilter, Listed, Listing, WireTimestamp};

use super::{connect, model_name};
use crate::arguments::{JobsArguments, ListArguments};
use crate::output::Output;
use crate::table;

pub(super) async fn jobs(arguments: &JobsArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.list.server).await?;
    let model = match &arguments.model {
        Some(given) => model_name(&client, given).await?,
        None => String::new(),
    };
    let filter = JobFilter {
        model,
        states: arguments.state.iter().map(|state| state.state()).collect(),
        labels: arguments.label.iter().cloned().collect(),
        batch: arguments.batch.clone().unwrap_or_default(),
    };
    let newest = Newest::fetch(client.jobs(&filter), arguments.list.limit).await?;
    newest.show(&["job", "state", "model", "priority", "created"], job_row, output);
    output.json(&json!({ "ok": true, "jobs": newest.views(job_view), "more": newest.has_more }));
    Ok(())
}

pub(super) async fn models(arguments: &ListArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let newest = Newest::fetch(client.models(), arguments.limit).await?;
    newest.show(&["model", "state", "layers", "created"], model_row, output);
    output.json(&json!({ "ok": true, "models": newest.views(model_view), "more": newest.has_more }));
    Ok(())
}

/// The first items of a list.
struct Newest<T> {
    items: Vec<T>,
    has_more: bool,
}

impl<T: Listed> Newest<T> {
    /// At most so many.
    async fn fetch(listing: Listing<T>, limit: u32) -> Result<Self, ClientError> {
        let mut listing = listing.with_page_size(limit.saturating_add(1));
        let mut items = Vec::new();
        while let Some(item) = listing.next().await? {
            if items.len() >= limit as usize {
                return Ok(Self { items, has_more: true });
            }
            items.push(item);
        }
        Ok(Self { items, has_more: false })
    }

    fn show(&self, head: &[&str], row: impl Fn(&T) -> Vec<String>, output: &Output) {
        let mut rows: Vec<Vec<String>> = vec![head.iter().map(|&cell| cell.to_owned()).collect()];
        rows.extend(self.items.iter().map(row));
        output.say(table::align(&rows));
        if self.has_more {
            output.say("there are more: see --limit");
        }
    }

    fn views(&self, view: impl Fn(&T) -> Value) -> Vec<Value> {
        self.items.iter().map(view).collect()
    }
}

/// Without fractions of a second.
fn time(wire: Option<WireTimestamp>) -> Option<String> {
    wire.map(|time| WireTimestamp { nanos: 0, ..time }.to_string())
}

fn short(state: &str) -> String {
    state.trim_start_matches("STATE_").to_owned()
}

fn job_row(job: &Job) -> Vec<String> {
    let model = job.model.rsplit('/').next().unwrap_or_default().to_owned();
    vec![job.name.clone(), short(job.state().as_str_name()), model, job.priority.to_string(), time(job.create_time).unwrap_or_default()]
}

fn job_view(job: &Job) -> Value {
    json!({
        "job": job.name,
        "model": job.model,
        "state": job.state().as_str_name(),
        "priority": job.priority,
        "labels": job.labels,
        "batch": job.batch,
        "reason": job.failure.as_ref().map(|failure| &failure.reason),
        "create_time": time(job.create_time),
        "deadline": time(job.deadline),
        "end_time": time(job.end_time),
    })
}

fn model_row(model: &Model) -> Vec<String> {
    let layers = model.registered.as_ref().map(|registered| registered.layer_count.to_string());
    vec![model.name.clone(), short(model.state().as_str_name()), layers.unwrap_or_default(), time(model.create_time).unwrap_or_default()]
}

fn model_view(model: &Model) -> Value {
    let registered = model.registered.as_ref();
    json!({
        "model": model.name,
        "state": model.state().as_str_name(),
        "display_name": model.display_name,
        "labels": model.labels,
        "reason": model.failure.as_ref().map(|failure| &failure.reason),
        "model_commitment": registered.map(|registered| hex::encode(&registered.model_commitment)),
        "layers": registered.map(|registered| registered.layer_count),
        "parameter_set": model.parameter_set,
        "create_time": time(model.create_time),
    })
}

#[cfg(test)]
mod tests {
    use zkinfer_client::proto::job::State;

    use super::*;

    #[test]
    fn a_job_is_a_row_for_people_and_an_object_for_scripts() {
        let seconds = |seconds| Some(WireTimestamp { seconds, nanos: 5 });
        let job = Job {
            name: "tenants/t/jobs/j".into(),
            model: "tenants/t/models/m".into(),
            state: State::Queued.into(),
            priority: -3,
            create_time: seconds(1_896_091_200),
            deadline: seconds(1_896_091_201),
            ..Job::default()
        };
        assert_eq!(job_row(&job), ["tenants/t/jobs/j", "QUEUED", "m", "-3", "2030-01-31T12:00:00Z"]);
        let view = job_view(&job);
        assert_eq!((view["state"].as_str(), view["priority"].as_i64()), (Some("STATE_QUEUED"), Some(-3)));
        assert_eq!((view["deadline"].as_str(), &view["end_time"]), (Some("2030-01-31T12:00:01Z"), &Value::Null));
    }
}
