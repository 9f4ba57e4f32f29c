//! What is wrong with a request, in the same words whether it came as protobuf, as JSON or too
//! large.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of the stable codes in `google.rpc.ErrorInfo`.
pub const ERROR_DOMAIN: &str = "placet";

/// One field, or the request as a whole, breaks a rule of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Stable code, such as `OUT_OF_BOUNDS`.
    pub code: &'static str,
    /// Path of the field, such as `lease.gpu_count`; empty if no one field is at fault.
    pub field: String,
    /// What is wrong, as a predicate of the field: "is 0".
    pub message: String,
    /// The remedy, as an imperative.
    pub hint: String,
}

impl FieldError {
    /// About no one field yet; [`FieldError::inside`] says where.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, field: String::new(), message: message.into(), hint: hint.into() }
    }

    /// The same error, seen from the message that holds the field.
    #[must_use]
    pub fn inside(mut self, field: &str) -> Self {
        match self.field.chars().next() {
            None => field.clone_into(&mut self.field),
            Some('[') => self.field.insert_str(0, field),
            Some(_) => self.field = format!("{field}.{}", self.field),
        }
        self
    }

    /// As `INVALID_ARGUMENT`, with `google.rpc.ErrorInfo` and `BadRequest` as details.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let message = self.to_string();
        let mut details = ErrorDetails::new();
        details.set_error_info(self.code, ERROR_DOMAIN, std::collections::HashMap::new());
        if !self.field.is_empty() {
            details.add_bad_request_violation(&self.field, &message);
        }
        Status::with_error_details(Code::InvalidArgument, message, details)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.as_str() {
            "" => write!(f, "the request {}", self.message)?,
            field => write!(f, "`{field}` {}", self.message)?,
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, "\nhint: {}", self.hint) }
    }
}

impl std::error::Error for FieldError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_grow_from_the_inside() {
        let error = FieldError::new("X", "is 0", "give 1").inside("[2]").inside("b").inside("a");
        assert_eq!(error.to_string(), "`a.b[2]` is 0\nhint: give 1");
        assert_eq!(FieldError::new("X", "is empty", "").to_string(), "the request is empty");
    }

    #[test]
    fn the_status_carries_code_and_field() {
        let status = FieldError::new("X", "is 0", "give 1").inside("a").to_status();
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|it| it.reason.as_str()), Some("X"));
        let fields = details.bad_request().map(|it| it.field_violations.clone());
        assert_eq!(fields.and_then(|it| it.first().map(|it| it.field.clone())), Some("a".into()));
    }
}
