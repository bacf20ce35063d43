//! Registering models.

use std::collections::HashMap;

use zkinfer_proto::v1::model::Visibility;
use zkinfer_proto::v1::{self, Model, ModelEvent, QuantizationOptions, RegisteredModel};

use crate::client::{Client, request_id};
use crate::status::ClientError;
use crate::watch::is_final_model;

/// A model to register.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// `[a-z]([a-z0-9-]{0,61}[a-z0-9])?`.
    pub model_id: String,
    /// Name of the ONNX artifact.
    pub source_artifact: String,
    /// Name of the artifact of calibration inputs; empty for a network that is quantized already.
    pub calibration_artifact: String,
    /// How a float network becomes integers.
    pub quantization: Option<QuantizationOptions>,
    /// Whether the commitment can be recomputed by whoever has the network.
    pub weights_visibility: Visibility,
    /// Name of the parameter set; empty: the service's default.
    pub parameter_set: String,
    /// For people; may be empty.
    pub display_name: String,
    /// For the caller's own use.
    pub labels: HashMap<String, String>,
}

impl ModelRequest {
    /// A network with private weights, quantized in the default way.
    pub fn new(model_id: impl Into<String>, source_artifact: impl Into<String>) -> Self {
        Self {
            model_id: model_id.into(),
            source_artifact: source_artifact.into(),
            calibration_artifact: String::new(),
            quantization: None,
            weights_visibility: Visibility::Private,
            parameter_set: String::new(),
            display_name: String::new(),
            labels: HashMap::new(),
        }
    }
}

impl Client {
    /// Starts a registration.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_model(&self, request: &ModelRequest) -> Result<Model, ClientError> {
        let model = Model {
            source_artifact: request.source_artifact.clone(),
            calibration_artifact: request.calibration_artifact.clone(),
            quantization: request.quantization,
            weights_visibility: request.weights_visibility.into(),
            parameter_set: request.parameter_set.clone(),
            display_name: request.display_name.clone(),
            labels: request.labels.clone().into_iter().collect(),
            ..Model::default()
        };
        let message = v1::CreateModelRequest {
            parent: String::new(),
            model_id: request.model_id.clone(),
            model: Some(model),
            request_id: request_id(),
        };
        self.repeat(async || Ok(self.model_service().create_model(self.request(message.clone())).await?.into_inner())).await
    }

    /// A model.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn model(&self, name: &str) -> Result<Model, ClientError> {
        let message = v1::GetModelRequest { name: name.to_owned() };
        self.repeat(async || Ok(self.model_service().get_model(self.request(message.clone())).await?.into_inner())).await
    }

    /// Deletes a model that takes no part in any job that is not over, and with it what the service holds of its weights; proofs that were made stay. No error if
    /// there is no such model.
    ///
    /// # Errors
    /// See [`ClientError`]; FAILED_PRECONDITION while it is being registered, and while one of its jobs is not over.
    pub async fn delete_model(&self, name: &str) -> Result<(), ClientError> {
        let message = v1::DeleteModelRequest { name: name.to_owned(), allow_missing: true };
        self.repeat(async || Ok(self.model_service().delete_model(self.request(message.clone())).await?.into_inner())).await?;
        Ok(())
    }

    /// Follows a registration to its end; `on_event` sees every event.
    ///
    /// # Errors
    /// [`ClientError::Ended`] if it failed.
    pub async fn finish_model(&self, name: &str, mut on_event: impl FnMut(&ModelEvent)) -> Result<RegisteredModel, ClientError> {
        let mut watch = self.watch_model(name);
        while let Some(event) = watch.next().await? {
            on_event(&event);
        }
        let model = self.model(name).await?;
        if !is_final_model(model.state()) {
            return Err(ClientError::Answer(format!("{name} is not final after its last event")));
        }
        let state = model.state().as_str_name();
        model.registered.ok_or_else(|| ClientError::Ended { name: name.to_owned(), state, failure: model.failure })
    }
}
