//! Why a request of the dashboard is not answered, and how that is told.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::engine::EngineError;

/// Why there is no answer. What it says is for operators; causes inside of the service go to the log only.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Nobody with the scope.
    #[error("this needs an API key or a token with the scope admin, as bearer credentials")]
    NoOperator,
    /// Nobody could be told from anybody.
    #[error("the service has no authentication and its HTTP port is open to the network; give zkinferd --keys, or listen on 127.0.0.1")]
    Exposed,
    /// A page of another site may have had its name pointed here.
    #[error("without authentication the dashboard answers only to localhost, 127.0.0.1 and [::1] in the address bar")]
    ForeignHost,
    /// A field of the request.
    #[error("{field} {problem}")]
    Invalid {
        /// Which one.
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// It does not exist.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Others are answered.
    #[error("too many look at a time; try again")]
    TooMany,
    /// The database takes too long.
    #[error("the database does not answer in time; try again")]
    Slow,
    /// The service stops.
    #[error("the service is ending")]
    Ending,
    /// The engine.
    #[error("the database cannot be read; the service's log says why")]
    Engine(#[source] EngineError),
    /// A bug.
    #[error("the answer cannot be written")]
    Unwritable(#[from] serde_json::Error),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Text(_) => Self::Invalid { field: "the address", problem: "must have no NUL character".into() },
            other => Self::Engine(other),
        }
    }
}

impl Failure {
    fn code(&self) -> StatusCode {
        match self {
            Self::NoOperator | Self::Exposed => StatusCode::UNAUTHORIZED,
            Self::ForeignHost => StatusCode::FORBIDDEN,
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::TooMany | Self::Ending => StatusCode::SERVICE_UNAVAILABLE,
            Self::Slow => StatusCode::GATEWAY_TIMEOUT,
            Self::Engine(_) | Self::Unwritable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        if let Self::Engine(error) = &self {
            tracing::warn!(error = error as &dyn std::error::Error, "the dashboard cannot read the database");
        }
        let body = serde_json::json!({ "error": self.to_string() }).to_string();
        let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut response = (self.code(), [json], body).into_response();
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
