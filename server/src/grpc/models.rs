//! `ModelService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use zkinfer_proto::name::{ArtifactName, ModelName, is_resource_id};
use zkinfer_proto::v1;
use zkinfer_proto::v1::model_service_server::ModelService;

use super::caller::{App, Caller, caller};
use super::error::ApiError;
use super::fields::Fields;
use super::idempotency::{create_error, request_key};
use super::watch::{ModelWatch, WatchStream, watch};
use super::{admission, page};
use crate::engine::{ModelDeletion, NewModel, Subject, SubjectKind};
use crate::observe;
use crate::secret::Secret;

/// The service.
pub(crate) struct Models(pub(crate) Arc<App>);

#[tonic::async_trait]
impl ModelService for Models {
    async fn create_model(&self, request: Request<v1::CreateModelRequest>) -> Result<Response<v1::Model>, Status> {
        self.0.unary(request, |caller, message| create(&self.0, caller, message)).await
    }

    async fn get_model(&self, request: Request<v1::GetModelRequest>) -> Result<Response<v1::Model>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::GetModelRequest| find(app, &caller, "name", &message.name).await).await
    }

    async fn list_models(&self, request: Request<v1::ListModelsRequest>) -> Result<Response<v1::ListModelsResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::ListModelsRequest| {
            caller.check_parent(&message.parent)?;
            let page = page::parse(message.page_size, &message.page_token, &app.limits)?;
            let found = app.engine.list_models(&caller.tenant, page).await?;
            let next_page_token = page::token(found.next);
            Ok(v1::ListModelsResponse { models: found.items, next_page_token })
        })
        .await
    }

    async fn delete_model(&self, request: Request<v1::DeleteModelRequest>) -> Result<Response<v1::DeleteModelResponse>, Status> {
        self.0.unary(request, |caller, message| delete(&self.0, caller, message)).await
    }

    type WatchModelStream = WatchStream<v1::ModelEvent>;

    async fn watch_model(&self, request: Request<v1::WatchModelRequest>) -> Result<Response<Self::WatchModelStream>, Status> {
        let caller = caller(request.extensions())?;
        let message = request.into_inner();
        let name = parse_name(&caller, "name", &message.name)?;
        let stream = watch::<ModelWatch>(&self.0, name.tenant, name.model_id, message.from_sequence).await?;
        Ok(Response::new(stream))
    }
}

/// A model name of the caller's.
pub(crate) fn parse_name(caller: &Caller, field: &str, name: &str) -> Result<ModelName, ApiError> {
    let mut fields = Fields::default();
    let parsed = fields.parse(field, ModelName::parse(name));
    fields.finish()?;
    parsed.filter(|parsed| caller.owns(&parsed.tenant)).ok_or_else(|| ApiError::NotFound { kind: "model", name: name.into() })
}

/// A model of the caller's.
pub(crate) async fn find(app: &App, caller: &Caller, field: &str, name: &str) -> Result<v1::Model, ApiError> {
    let parsed = parse_name(caller, field, name)?;
    let model = app.engine.model(&parsed.tenant, &parsed.model_id).await?;
    model.ok_or_else(|| ApiError::NotFound { kind: "model", name: name.into() })
}

async fn create(app: &App, caller: Caller, mut request: v1::CreateModelRequest) -> Result<v1::Model, ApiError> {
    app.check_creation(&caller)?;
    caller.check_parent(&request.parent)?;
    request.parent = format!("tenants/{}", caller.tenant);
    let request_id = std::mem::take(&mut request.request_id);
    let parameter_set = check(app, &request, &request_id)?;
    let key = request_key(&request_id, &request);
    let Some(asked) = request.model else {
        return Err(ApiError::invalid("model", "is required"));
    };
    let source_bytes = check_artifact(app, &caller, "model.source_artifact", &asked.source_artifact, app.limits.model_bytes).await?;
    if !asked.calibration_artifact.is_empty() {
        let name = &asked.calibration_artifact;
        check_artifact(app, &caller, "model.calibration_artifact", name, app.limits.input_bytes).await?;
    }
    let is_public = asked.weights_visibility() == v1::model::Visibility::Public;
    let model = new_model(&caller, &request.model_id, asked, parameter_set);
    let name = model.name.clone();
    let salt = if is_public { Secret::zero() } else { admission::random_words()? };
    let new = NewModel { model, source_bytes, salt, seed: admission::random_words()?, key };
    let created = app.engine.create_model(new).await.map_err(|error| create_error(error, &request_id, "model", &name))?;
    app.hub.task_ready();
    Ok(created)
}

async fn delete(app: &App, caller: Caller, request: v1::DeleteModelRequest) -> Result<v1::DeleteModelResponse, ApiError> {
    let name = parse_name(&caller, "name", &request.name)?;
    let refused = |reason, message| ApiError::Precondition { reason, subject: name.to_string(), message };
    match app.engine.delete_model(&name.tenant, &name.model_id).await? {
        ModelDeletion::Deleted => {
            app.hub.changed(&Subject { kind: SubjectKind::Model, tenant: name.tenant, id: name.model_id });
        }
        ModelDeletion::Absent if request.allow_missing => {}
        ModelDeletion::Absent => return Err(ApiError::NotFound { kind: "model", name: request.name }),
        ModelDeletion::NotFinal => {
            let message = "the model is being registered: wait until it is READY or FAILED before it is deleted".to_owned();
            return Err(refused("MODEL_NOT_FINAL", message));
        }
        ModelDeletion::HasJobs(n_jobs) => {
            let jobs = if n_jobs == 1 { "1 job of the model is".to_owned() } else { format!("{n_jobs} jobs of the model are") };
            let message = format!("{jobs} not over: cancel them, or wait for their ends, before the model is deleted");
            return Err(refused("MODEL_HAS_JOBS", message));
        }
    }
    Ok(v1::DeleteModelResponse {})
}

/// Checks all that can be checked without looking anything up; answers the full name of the parameter set.
fn check(app: &App, request: &v1::CreateModelRequest, request_id: &str) -> Result<String, ApiError> {
    let mut fields = Fields::default();
    fields.request_id(request_id);
    fields.require("model_id", is_resource_id(&request.model_id), "must be of the form [a-z]([a-z0-9-]{0,61}[a-z0-9])?");
    let asked = request.model.clone().unwrap_or_default();
    fields.text("model.display_name", &asked.display_name, &app.limits);
    fields.labels("model.labels", &asked.labels, &app.limits);
    fields.parse("model.source_artifact", ArtifactName::parse(&asked.source_artifact));
    if !asked.calibration_artifact.is_empty() {
        fields.parse("model.calibration_artifact", ArtifactName::parse(&asked.calibration_artifact));
    }
    fields.known::<v1::model::Visibility>("model.weights_visibility", asked.weights_visibility);
    check_quantization(&mut fields, asked.quantization.unwrap_or_default());
    let parameter_set = resolve_parameter_set(app, &asked.parameter_set);
    let parameter_set = fields.parse("model.parameter_set", parameter_set);
    fields.finish()?;
    Ok(parameter_set.unwrap_or_default())
}

fn check_quantization(fields: &mut Fields, options: v1::QuantizationOptions) {
    use v1::quantization_options::{Calibration, Granularity};
    fields.known::<Granularity>("model.quantization.granularity", options.granularity);
    fields.known::<Calibration>("model.quantization.calibration", options.calibration);
    let percentile = options.percentile;
    fields.require(
        "model.quantization.percentile",
        percentile == 0.0 || (percentile > 50.0 && percentile <= 100.0),
        "must be above 50 and at most 100, or 0 for the default",
    );
}

/// The full name of a parameter set that the client named in full, by its last part, or not at all.
pub(crate) fn resolve_parameter_set(app: &App, asked: &str) -> Result<String, String> {
    let offered = app.prover.parameter_sets();
    let found = match asked {
        "" => offered.first(),
        asked => offered.iter().find(|name| *name == asked || name.rsplit('/').next() == Some(asked)),
    };
    found.cloned().ok_or_else(|| format!("is not offered; there are {}", offered.join(", ")))
}

/// Answers its size.
async fn check_artifact(app: &App, caller: &Caller, field: &str, name: &str, max_bytes: u64) -> Result<u64, ApiError> {
    let mut fields = Fields::default();
    let parsed = fields.parse(field, ArtifactName::parse(name));
    fields.finish()?;
    let Some(parsed) = parsed else { return Ok(0) };
    Ok(app.artifact(caller, field, &parsed, max_bytes).await?.size_bytes)
}

fn new_model(caller: &Caller, model_id: &str, asked: v1::Model, parameter_set: String) -> v1::Model {
    let name = ModelName { tenant: caller.tenant.clone(), model_id: model_id.to_owned() };
    let visibility = match asked.weights_visibility() {
        v1::model::Visibility::Unspecified => v1::model::Visibility::Private,
        given => given,
    };
    v1::Model {
        name: name.to_string(),
        display_name: asked.display_name,
        labels: asked.labels,
        source_artifact: asked.source_artifact,
        calibration_artifact: asked.calibration_artifact,
        quantization: asked.quantization,
        weights_visibility: visibility as i32,
        parameter_set,
        state: v1::model::State::Compiling as i32,
        trace_parent: observe::current().map(|trace| trace.to_string()).unwrap_or_default(),
        ..Default::default()
    }
}
