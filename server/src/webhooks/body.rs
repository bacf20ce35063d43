//! What a webhook is told.

use serde_json::json;
use zkinfer_proto::v1;

/// The end of a job, as JSON. Neither input nor output is in it: the receiver asks for them with its own credentials.
pub(super) fn json(job: &v1::Job) -> String {
    let state = job.state().as_str_name();
    let result = job.result.as_ref();
    json!({
        "type": "job.ended",
        "timestamp": job.end_time.as_ref().map(ToString::to_string),
        "data": {
            "name": job.name,
            "state": state.strip_prefix("STATE_").unwrap_or(state),
            "batch": job.batch,
            "reason": job.failure.as_ref().map(|failure| failure.reason.as_str()),
            "proof_artifact": result.map(|result| result.proof_artifact.as_str()),
            "statement_artifact": result.map(|result| result.statement_artifact.as_str()),
        },
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_job_is_told_without_its_data() {
        let result = v1::JobResult { proof_artifact: "tenants/a/artifacts/00".into(), ..Default::default() };
        let job = v1::Job {
            name: "tenants/a/jobs/1".into(),
            state: v1::job::State::Succeeded as i32,
            end_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            result: Some(result),
            ..Default::default()
        };
        let value: serde_json::Value = serde_json::from_str(&json(&job)).unwrap();
        assert_eq!(value["type"], "job.ended");
        assert_eq!(value["timestamp"], "2023-11-14T22:13:20Z");
        assert_eq!(value["data"]["state"], "SUCCEEDED");
        assert_eq!(value["data"]["proof_artifact"], "tenants/a/artifacts/00");
        assert!(value["data"]["reason"].is_null());
    }
}
