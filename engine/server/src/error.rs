//! Why a request was not decided or settled: never a denial, which is a decision.

use std::collections::HashMap;
use std::error::Error;

use placet_core::CosignatureError;
use placet_policy::waiver::Refusal;
use placet_proto::{ERROR_DOMAIN, FieldError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::log::CosignError;
use crate::quota::{FreezeError, SettleError};
use crate::sequencer::SequencerError;
use crate::store::ReadError;
use crate::workers::WorkError;

/// Code of a freeze or a thaw that is none: everything else about it is a matter of permission.
const UNREADABLE: &str = "FREEZE_UNREADABLE";

/// A cause that only the log may name.
type Cause = Box<dyn Error + Send + Sync>;

/// What a caller is told instead of a decision. Nothing was stored, except where an error says that
/// it is not known.
///
/// `Display` is the message for the outside; causes, which may name internals, are reached by
/// `source` alone.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// The request breaks a rule of the contract.
    #[error(transparent)]
    Invalid(FieldError),
    /// The request id was used before, with another content.
    #[error(
        "`request_id` was used before, for another request\n\
         hint: repeat a request unchanged, or give a new attempt a new request id"
    )]
    RequestIdReused,
    /// What the request names is not held or remembered.
    #[error(transparent)]
    NotFound(FieldError),
    /// The caller or tenant has no say over what the request names.
    #[error(transparent)]
    PermissionDenied(FieldError),
    /// What the request names is in another state.
    #[error(transparent)]
    FailedPrecondition(FieldError),
    /// Too many requests wait.
    #[error("too many requests are waiting\nhint: repeat the request after a moment")]
    QueueFull,
    /// Too many watch the log.
    #[error(
        "as many as may watch already do\n\
         hint: end one that is no longer needed, or try again after a moment"
    )]
    TooManyWatchers,
    /// Not now; the same request may be decided later.
    #[error("{message}")]
    Unavailable {
        /// Stable code, such as `STOPPING`.
        code: &'static str,
        /// For the outside, with the remedy.
        message: &'static str,
        /// For the log.
        source: Option<Cause>,
    },
    /// A bug, or a machine that fails.
    #[error("the server failed; its log has the cause")]
    Internal(#[source] Cause),
}

impl AdmitError {
    /// A time was given to a server that has its own.
    #[must_use]
    pub fn time_not_taken() -> Self {
        let hint = "leave it out, or run the server with `--clock events`";
        let error = FieldError::new("TIME_NOT_TAKEN", "is given, but the server has a clock", hint);
        Self::Invalid(error.inside("time"))
    }

    /// The server is shutting down.
    #[must_use]
    pub fn stopping() -> Self {
        let message =
            "the server is stopping\nhint: repeat the request unchanged, here or elsewhere";
        Self::Unavailable { code: "STOPPING", message, source: None }
    }

    /// Policies hit the wall-clock backstop: no decision, so that a hiccup never becomes a denial.
    pub fn too_slow(source: impl Error + Send + Sync + 'static) -> Self {
        let message = "the policies could not be evaluated in time\n\
                       hint: repeat the request unchanged after a moment";
        Self::Unavailable { code: "TOO_SLOW", message, source: Some(Box::new(source)) }
    }

    /// What is in the log cannot be told now.
    pub(crate) fn log_not_read(source: ReadError) -> Self {
        let message = "the log cannot be read now\nhint: ask again after a moment";
        Self::Unavailable { code: "STORE_FAILED", message, source: Some(Box::new(source)) }
    }

    /// Values may be left of those that were to be erased.
    pub(crate) fn not_erased(source: SequencerError) -> Self {
        let message = "not everything may be erased\nhint: call again after a moment";
        match source {
            SequencerError::Stopped => Self::stopping(),
            error => {
                let source: Option<Cause> = Some(Box::new(error));
                Self::Unavailable { code: "STORE_FAILED", message, source }
            }
        }
    }

    /// A bug, or a machine that fails.
    pub fn internal(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Internal(Box::new(source))
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error)
            | Self::NotFound(error)
            | Self::PermissionDenied(error)
            | Self::FailedPrecondition(error) => error.code,
            Self::RequestIdReused => "REQUEST_ID_REUSED",
            Self::QueueFull => "QUEUE_FULL",
            Self::TooManyWatchers => "TOO_MANY_WATCHERS",
            Self::Unavailable { code, .. } => code,
            Self::Internal(_) => "INTERNAL",
        }
    }

    /// Path of the offending field; empty if no one field is at fault.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Invalid(error)
            | Self::NotFound(error)
            | Self::PermissionDenied(error)
            | Self::FailedPrecondition(error) => &error.field,
            Self::RequestIdReused => "request_id",
            Self::QueueFull
            | Self::TooManyWatchers
            | Self::Unavailable { .. }
            | Self::Internal(_) => "",
        }
    }

    /// The gRPC status code: this is the one place that maps errors to it.
    #[must_use]
    pub fn status_code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::RequestIdReused => Code::AlreadyExists,
            Self::NotFound(_) => Code::NotFound,
            Self::PermissionDenied(_) => Code::PermissionDenied,
            Self::FailedPrecondition(_) => Code::FailedPrecondition,
            Self::QueueFull | Self::TooManyWatchers => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::Internal(_) => Code::Internal,
        }
    }

    /// The gRPC status of a unary call, with `google.rpc.ErrorInfo` and, if a field is at fault,
    /// `BadRequest`.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let message = self.to_string();
        let mut details = ErrorDetails::new();
        details.set_error_info(self.code(), ERROR_DOMAIN, HashMap::new());
        if !self.field().is_empty() {
            details.add_bad_request_violation(self.field(), &message);
        }
        Status::with_error_details(self.status_code(), message, details)
    }

    /// Writes the whole chain to the log, once: called at the edge, within the request's span.
    pub(crate) fn log(&self) {
        let mut chain = self.to_string().replace('\n', "; ");
        let mut cause = self.source();
        while let Some(error) = cause {
            chain.push_str(": ");
            chain.push_str(&error.to_string().replace('\n', "; "));
            cause = error.source();
        }
        match self {
            Self::Internal(_) => tracing::error!(code = self.code(), error = %chain, "failed"),
            Self::Unavailable { .. } | Self::QueueFull | Self::TooManyWatchers => {
                tracing::warn!(code = self.code(), error = %chain, "not decided");
            }
            _ => tracing::debug!(code = self.code(), error = %chain, "refused"),
        }
    }
}

impl From<FieldError> for AdmitError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(error)
    }
}

impl From<WorkError> for AdmitError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Evaluate(_) => Self::too_slow(error),
            WorkError::Randomness | WorkError::Canonical(_) | WorkError::Panicked => {
                Self::internal(error)
            }
            WorkError::Stopped => Self::stopping(),
        }
    }
}

impl From<SequencerError> for AdmitError {
    fn from(error: SequencerError) -> Self {
        let about_time =
            |code, message: String, hint| FieldError::new(code, message, hint).inside("time");
        match error {
            SequencerError::RequestIdReused { .. } => Self::RequestIdReused,
            SequencerError::ClockWentBack { time, high_water } => {
                Self::FailedPrecondition(about_time(
                    "CLOCK_WENT_BACK",
                    format!("is {time}, before {high_water}, up to which everything is decided"),
                    "set the server's clock, or send events in the order of their times",
                ))
            }
            SequencerError::ClockJumped { time, expected } => Self::FailedPrecondition(about_time(
                "CLOCK_JUMPED",
                format!("is {time}, far ahead of {expected}, which it should be"),
                "set the server's clock; if it is right, restart the server",
            )),
            SequencerError::PositionAhead { at_least, size } => Self::FailedPrecondition(
                FieldError::new(
                    "POSITION_AHEAD",
                    format!("is {at_least}, but this log has {size} leaves"),
                    "ask the server that gave the position; a store that was restored from a copy \
                     may have lost it",
                )
                .inside("at_least"),
            ),
            SequencerError::TimeOutOfRange { time } => Self::Invalid(about_time(
                "OUT_OF_BOUNDS",
                format!("is {time}, after the year 9999"),
                "give seconds since 1970-01-01 UTC",
            )),
            SequencerError::TooLong => Self::FailedPrecondition(FieldError::new(
                "DECISION_TOO_LONG",
                "leads to a decision of more than 65,535 bytes",
                "policies should give fewer or shorter reasons, warnings and obligations",
            )),
            SequencerError::Settle(error) => error.into(),
            SequencerError::Freeze(error) => error.into(),
            SequencerError::FreezeOverBroad { name } => Self::PermissionDenied(freeze_error(
                "FREEZE_OVER_BROAD",
                format!("the freeze `{name}` covers more than its approver may lift"),
                "have who may freeze as much sign the thaw",
            )),
            SequencerError::Cosign(error) => CosignError::Cosignature(error).into(),
            SequencerError::Overloaded => Self::QueueFull,
            SequencerError::Superseded => Self::Unavailable {
                code: "SUPERSEDED",
                message: "the policies or facts were replaced meanwhile\n\
                          hint: repeat the request unchanged",
                source: None,
            },
            SequencerError::Unavailable { .. } => Self::Unavailable {
                code: "STORE_FAILED",
                message: "the decision could not be stored, so there is none\n\
                          hint: repeat the request unchanged after a moment",
                source: Some(Box::new(error)),
            },
            SequencerError::OutcomeUnknown => Self::Unavailable {
                code: "OUTCOME_UNKNOWN",
                message: "it is not known whether the decision was stored\n\
                          hint: repeat the request unchanged: what was stored is answered again",
                source: Some(Box::new(error)),
            },
            SequencerError::Stopped => Self::stopping(),
            SequencerError::Malformed(_) => Self::internal(error),
        }
    }
}

fn freeze_error(code: &'static str, message: String, hint: &str) -> FieldError {
    FieldError::new(code, message, hint).inside("token")
}

impl From<FreezeError> for AdmitError {
    fn from(error: FreezeError) -> Self {
        let message = error.to_string();
        match error {
            FreezeError::Stale { .. } => Self::FailedPrecondition(freeze_error(
                "FREEZE_STALE",
                message,
                "sign it again and send it at once; if that does not help, set the clocks",
            )),
            FreezeError::Exists { .. } => Self::FailedPrecondition(freeze_error(
                "FREEZE_EXISTS",
                message,
                "give the freeze a name of its own",
            )),
            FreezeError::Unknown { .. } => Self::NotFound(freeze_error(
                "FREEZE_UNKNOWN",
                message,
                "`placet freeze --list` tells which ones stand",
            )),
            FreezeError::Full => Self::FailedPrecondition(freeze_error(
                "TOO_MANY_FREEZES",
                message,
                "lift some, or freeze more with one",
            )),
        }
    }
}

impl From<Refusal> for AdmitError {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, hint, .. } = refusal;
        let error = freeze_error(code, message, hint);
        if code == UNREADABLE { Self::Invalid(error) } else { Self::PermissionDenied(error) }
    }
}

impl From<CosignError> for AdmitError {
    fn from(error: CosignError) -> Self {
        let about =
            |code, hint| FieldError::new(code, first_line(&error.to_string()), hint).inside("note");
        let whole = "send the checkpoint as it was published, and below it what the witness said";
        match &error {
            CosignError::TooLarge(_) | CosignError::Lines(_) => {
                Self::Invalid(about("TOO_LARGE", "leave out lines of witnesses that nobody knows"))
            }
            CosignError::Note(_) => Self::Invalid(about("BAD_NOTE", whole)),
            CosignError::OtherLog(_) => {
                Self::Invalid(about("OTHER_LOG", "send it to the server whose log it is of"))
            }
            CosignError::NeverPublished(_) => Self::NotFound(about("NEVER_PUBLISHED", whole)),
            CosignError::Fork { .. } => Self::FailedPrecondition(about(
                "FORK",
                "keep this note: it proves it to anybody. Find out who used the key of \
                 checkpoints, and whether the store was restored from a copy",
            )),
            CosignError::Invented { .. } => Self::FailedPrecondition(about(
                "NEVER_SIGNED",
                "ask who runs the witness what it saw: it must cosign only what a key of the log \
                 signed",
            )),
            CosignError::Cosignature(CosignatureError::Full) => Self::FailedPrecondition(about(
                "FULL",
                "cosignatures of witnesses that are no longer known may fill it: take a newer one",
            )),
            CosignError::Cosignature(_) => Self::Invalid(about(
                "BAD_COSIGNATURE",
                "ask the witness again; its line was changed, or is of another checkpoint",
            )),
            CosignError::Unknown(_) => Self::Invalid(about(
                "UNKNOWN_WITNESS",
                "start the server with `--witness` and the verifier key of the witness",
            )),
            CosignError::Ahead { .. } => Self::FailedPrecondition(about(
                "TIME_AHEAD",
                "set the clock that is wrong, the witness's or this server's",
            )),
            CosignError::Read(_) => {
                let message = "the log cannot be read now\nhint: ask again after a moment";
                Self::Unavailable { code: "STORE_FAILED", message, source: Some(Box::new(error)) }
            }
        }
    }
}

/// Most characters of a message that a caller's own text may be part of: far below what gRPC takes
/// in its headers.
const MAX_MESSAGE: usize = 1_024;

/// What an error says, without its hint: another one takes its place.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(MAX_MESSAGE).collect()
}

impl From<SettleError> for AdmitError {
    fn from(error: SettleError) -> Self {
        let at = |code, field, message: String, hint| {
            FieldError::new(code, message, hint).inside(field).inside("reservation")
        };
        let held = |code, message: String, hint| {
            FieldError::new(code, message, hint).inside("reservation")
        };
        match error {
            SettleError::NotFound => Self::NotFound(held(
                "RESERVATION_NOT_FOUND",
                "names no reservation that is held or remembered".into(),
                "take the id from the decision; one that ended long ago is in the log",
            )),
            SettleError::NotYours => Self::PermissionDenied(held(
                "NOT_YOURS",
                "belongs to another tenant or caller".into(),
                "settle it as the caller and tenant that were admitted",
            )),
            SettleError::StaleEpoch { current } => Self::FailedPrecondition(at(
                "STALE_EPOCH",
                "epoch",
                format!("is not the current one, {current}"),
                "read the reservation's latest decision",
            )),
            SettleError::AlreadyEnded { state } => Self::FailedPrecondition(held(
                "RESERVATION_ENDED",
                format!("has ended: it is {}", state_name(state)),
                "ask again with a new request id",
            )),
            SettleError::ConfirmDeadlinePassed => Self::FailedPrecondition(held(
                "CONFIRM_DEADLINE_PASSED",
                "was not confirmed in time".into(),
                "ask again with a new request id",
            )),
            SettleError::Frozen { name, reason } => Self::FailedPrecondition(held(
                "FROZEN",
                format!("cannot begin: the freeze `{name}` stands ({reason})"),
                "confirm it again once the freeze is lifted, before its deadline; or release it",
            )),
            SettleError::Broken => Self::internal(error),
        }
    }
}

fn state_name(state: placet_core::ReservationState) -> &'static str {
    use placet_core::ReservationState as State;
    match state {
        State::Reserved => "RESERVED",
        State::Active => "ACTIVE",
        State::Released => "RELEASED",
        State::Expired => "EXPIRED",
        State::Revoked => "REVOKED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_names_code_and_field_and_hides_the_cause() {
        let error = AdmitError::from(SettleError::StaleEpoch { current: 3 });
        let status = error.to_status();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(error.field(), "reservation.epoch");
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|it| it.reason.as_str()), Some("STALE_EPOCH"));

        let reason = "disk /dev/sda1 at fault".to_owned();
        let error = AdmitError::from(SequencerError::Unavailable { reason });
        assert!(!error.to_status().message().contains("sda1"));
        assert!(error.source().is_some_and(|it| it.to_string().contains("sda1")));
    }

    #[test]
    fn a_bug_in_the_books_is_no_fault_of_the_caller() {
        assert_eq!(AdmitError::from(SettleError::Broken).status_code(), Code::Internal);
        assert_eq!(AdmitError::time_not_taken().field(), "time");
    }
}
