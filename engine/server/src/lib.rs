//! Placet's pipeline: requests in, durable signed decisions out.
//!
//! [`serve`] is the whole server; [`Admission`] is the decision point without its gRPC edge. The
//! life of a request is told in `engine/docs/architecture.md`.
#![forbid(unsafe_code)]

mod activation;
mod admission;
mod clock;
mod erase;
mod error;
mod grpc;
mod http;
mod log;
mod metrics;
mod name;
mod offline;
pub mod quota;
pub mod sequencer;
mod serve;
mod settings;
pub mod signer;
pub mod store;
mod watch;
mod workers;

pub use activation::{ActivateError, ActiveSource, Attempt, RefuseError, Source};
pub use admission::{Admission, Explained, OpenError, Prepared};
pub use clock::{Clock, MAX_FORWARD_SECONDS};
pub use erase::{EraseError, Erased, Person, erase_personal};
pub use error::AdmitError;
pub use grpc::convert;
pub use log::SnapshotError;
pub use offline::{
    BackupError, ExportError, Exported, LogExpect, LogSource, LogVerifyError, SnapshotFound,
    SourceError, Verified, VerifyError, backup, default_threads, export_log, verify, verify_log,
};
pub use serve::{Ready, ServeError, serve};
pub use settings::{CHECKPOINT_EVERY_SECONDS, MAX_WORKERS, Settings, SettingsError, TlsSettings};
