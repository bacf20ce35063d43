//! `zkinfer estimate`.

use std::time::Duration;

use serde_json::json;
use zkinfer_client::proto::CostEstimate;
use zkinfer_client::{MediaType, UploadSource};

use super::{connect, model_name};
use crate::arguments::EstimateArguments;
use crate::output::Output;
use crate::table;

pub(super) async fn run(arguments: &EstimateArguments, output: &Output) -> anyhow::Result<()> {
    let client = connect(&arguments.server).await?;
    let estimate = match (&arguments.model, &arguments.file) {
        (Some(model), _) => client.estimate_model(&model_name(&client, model).await?).await?,
        (None, Some(file)) => {
            let source = client.upload(&UploadSource::from(file.as_path()), MediaType::Onnx).await?;
            client.estimate_source(&source.name).await?
        }
        (None, None) => anyhow::bail!("give --model or a file"),
    };
    show(&estimate, output);
    Ok(())
}

/// A number that is not known is 0.
fn known(value: i64, text: impl Fn(u64) -> String) -> String {
    match u64::try_from(value) {
        Ok(value) if value > 0 => text(value),
        Ok(_) | Err(_) => "not known".to_owned(),
    }
}

fn show(estimate: &CostEstimate, output: &Output) {
    let wall_time = estimate.wall_time.and_then(|time| Duration::try_from(time).ok());
    output.say(table::list(&[
        ("time", wall_time.map_or_else(|| "not known".to_owned(), table::time)),
        ("memory", known(estimate.peak_host_bytes, table::bytes)),
        ("device memory", known(estimate.peak_device_bytes, table::bytes)),
        ("proof", known(estimate.proof_bytes, table::bytes)),
        ("proof steps", estimate.task_count.to_string()),
        ("layers", estimate.layer_count.to_string()),
        ("multiply-accumulates", known(estimate.multiply_accumulates, |value| value.to_string())),
    ]));
    output.json(&json!({
        "ok": true,
        "wall_time_seconds": wall_time.map(|time| time.as_secs_f64()),
        "peak_host_bytes": estimate.peak_host_bytes,
        "peak_device_bytes": estimate.peak_device_bytes,
        "proof_bytes": estimate.proof_bytes,
        "task_count": estimate.task_count,
        "layer_count": estimate.layer_count,
        "multiply_accumulates": estimate.multiply_accumulates,
    }));
}
