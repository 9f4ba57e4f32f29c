//! Gives the refusal of a message that is too large the form of every other refusal of a bad
//! request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use placet_proto::FieldError;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::MAX_MESSAGE_BYTES;

/// A service whose answer to a message that is too large is `INVALID_ARGUMENT`.
///
/// The gRPC library refuses such a message before it is decoded, with `OUT_OF_RANGE`, a code for
/// offsets beyond the end of a file; the service itself never uses it.
#[derive(Debug, Clone)]
pub(super) struct Bounded<S>(S);

impl<S> Bounded<S> {
    pub(super) fn new(service: S) -> Self {
        Self(service)
    }
}

/// A status, or in its place the refusal of a message that is too large.
pub(super) fn explained(status: Status) -> Status {
    if status.code() != Code::OutOfRange {
        return status;
    }
    let message = format!("is larger than {MAX_MESSAGE_BYTES} bytes");
    FieldError::new("TOO_LARGE", message, "keep to the contract's bounds").to_status()
}

impl<S: NamedService> NamedService for Bounded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, R> Service<http::Request<R>> for Bounded<S>
where
    S: Service<http::Request<R>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<R>) -> Self::Future {
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            Ok(match Status::from_header_map(response.headers()) {
                Some(status) if status.code() == Code::OutOfRange => explained(status).into_http(),
                _ => response,
            })
        })
    }
}
