//! From a refusal to an HTTP answer.
//!
//! Owns the one place where errors of the engine and of opening disks become a status and a kind. Invariant: every answer
//! that is no success, whoever made it, carries an [`ErrorBody`].

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use forestall_engine::CommandError;

use super::types::{ErrorBody, ErrorKind};
use crate::data::{DiskError, Stopped};
use crate::open::OpenError;

/// An answer that is no success.
#[derive(Debug)]
pub struct ApiError(pub ErrorBody);

impl ApiError {
    /// An error of `kind` with words for people.
    pub fn new(kind: ErrorKind, error: impl Into<String>) -> Self {
        Self(ErrorBody { error: error.into(), kind })
    }

    /// The HTTP status of this error.
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            ErrorKind::BadRequest => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Refused => StatusCode::CONFLICT,
            ErrorKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorKind::Starting | ErrorKind::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status(), Json(self.0)).into_response()
    }
}

impl From<CommandError> for ApiError {
    fn from(error: CommandError) -> Self {
        let kind = match &error {
            CommandError::NotFound(_) => ErrorKind::NotFound,
            CommandError::Refused(_) => ErrorKind::Refused,
            CommandError::Failed(_) => ErrorKind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// A disk that cannot be opened for use changes nothing, whatever the reason.
impl From<OpenError> for ApiError {
    fn from(error: OpenError) -> Self {
        Self::new(ErrorKind::Refused, error.to_string())
    }
}

impl From<DiskError> for ApiError {
    fn from(error: DiskError) -> Self {
        match error {
            DiskError::Open(error) => error.into(),
            DiskError::Command(error) => error.into(),
        }
    }
}

impl From<Stopped> for ApiError {
    fn from(_: Stopped) -> Self {
        Self::new(ErrorKind::Stopping, "the server is stopping")
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(ErrorKind::BadRequest, rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(ErrorKind::BadRequest, rejection.body_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_refusal_has_its_status_and_word() {
        let cases = [
            (CommandError::NotFound("no disk 9".into()), 404, "not-found"),
            (CommandError::Refused("disk 2 is in use".into()), 409, "refused"),
            (CommandError::Failed("disk 2 died".into()), 500, "failed"),
        ];
        for (error, status, word) in cases {
            let words = error.to_string();
            let error = ApiError::from(error);
            assert_eq!(error.status().as_u16(), status);
            let body = serde_json::to_value(&error.0).expect("serialisable");
            assert_eq!(body, serde_json::json!({ "error": words, "kind": word }));
        }
        assert_eq!(ApiError::from(Stopped).status().as_u16(), 503);
        assert_eq!(ApiError::new(ErrorKind::BadRequest, "x").status().as_u16(), 400);
    }
}
