//! Keys, metrics, health and the log over plain HTTP/1.1: what tools read that do not speak gRPC.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use placet_core::tile::TilePath;

use crate::activation::chain;
use crate::admission::Admission;
use crate::log::{FileError, Files};

/// Media type of a JWK set (RFC 7517 section 8.5.2).
const JWKS_TYPE: &str = "application/jwk-set+json";
/// How long a key set may be kept: short against the overlap in which an old and a new key are both
/// published.
const JWKS_CACHE: &str = "public, max-age=300";
/// Media type of the OpenMetrics text format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the log's own paths begin (C2SP tlog-tiles, "prefix").
const LOG_PREFIX: &str = "/log/";
/// How long a checkpoint may be kept: there is a newer one within seconds (C2SP tlog-tiles,
/// "Checkpoints").
const CHECKPOINT_CACHE: &str = "public, max-age=2";
/// How long a tile may be kept: what one path names never changes, partial or not.
const TILE_CACHE: &str = "public, max-age=31536000, immutable";
/// That something is not there says nothing about later.
const NO_CACHE: &str = "no-store";
/// Media types of C2SP tlog-tiles.
const CHECKPOINT_TYPE: &str = "text/plain; charset=utf-8";
const TILE_TYPE: &str = "application/octet-stream";

/// The routes: `/.well-known/jwks.json`, `/metrics`, `/healthz` (the process lives), `/readyz`
/// (it decides), and the log under `/log/`.
pub(crate) fn router(admission: &Admission) -> Router {
    let (keys, metrics, ready) = (admission.clone(), admission.clone(), admission.clone());
    let router = routes(
        move || published(keys.clone()),
        move || scrape(metrics.clone()),
        move || ready.is_ready(),
    );
    router.merge(log_routes(&admission.files()))
}

/// The routes of the log: its checkpoint and its tiles.
fn log_routes(files: &Files) -> Router {
    let (newest, tiles) = (files.clone(), files.clone());
    Router::new()
        .route("/log/checkpoint", get(move || async move { checkpoint(&newest) }))
        .route("/log/tile/{*path}", get(move |uri: Uri| async move { tile(&tiles, &uri).await }))
}

fn checkpoint(files: &Files) -> Response {
    match files.checkpoint() {
        Some(published) => {
            let headers = [(CONTENT_TYPE, CHECKPOINT_TYPE), (CACHE_CONTROL, CHECKPOINT_CACHE)];
            (headers, published.note.clone()).into_response()
        }
        None => refusal(StatusCode::NOT_FOUND, "no checkpoint is published"),
    }
}

/// Serves a tile. Its path is taken as it was sent: nothing in it can be percent-encoded.
async fn tile(files: &Files, uri: &Uri) -> Response {
    let path = uri.path().strip_prefix(LOG_PREFIX).unwrap_or_default();
    let path = match path.parse::<TilePath>() {
        Ok(path) => path,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    match files.tile(path).await {
        Ok(bytes) => {
            let headers = [(CONTENT_TYPE, TILE_TYPE), (CACHE_CONTROL, TILE_CACHE)];
            (headers, bytes).into_response()
        }
        Err(error @ FileError::Absent) => refusal(StatusCode::NOT_FOUND, &error.to_string()),
        Err(error) => {
            tracing::error!(error = %chain(&error), %path, "a tile of the log cannot be served");
            refusal(StatusCode::SERVICE_UNAVAILABLE, "the log cannot be read now")
        }
    }
}

fn refusal(status: StatusCode, reason: &str) -> Response {
    let cache = [(CACHE_CONTROL, HeaderValue::from_static(NO_CACHE))];
    (status, cache, format!("{reason}\n")).into_response()
}

async fn scrape(admission: Admission) -> String {
    admission.metrics_text().await
}

/// The public keys as they are now. Whoever asks may be the one who reads the manifest again.
async fn published(admission: Admission) -> Option<String> {
    tokio::task::spawn_blocking(move || admission.jwks()).await.ok()
}

fn routes<K, F>(
    jwks: impl Fn() -> K + Clone + Send + Sync + 'static,
    metrics: impl Fn() -> F + Clone + Send + Sync + 'static,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) -> Router
where
    K: Future<Output = Option<String>> + Send + 'static,
    F: Future<Output = String> + Send + 'static,
{
    let jwks = move || async move {
        match jwks().await {
            Some(jwks) => {
                ([(CONTENT_TYPE, JWKS_TYPE), (CACHE_CONTROL, JWKS_CACHE)], jwks).into_response()
            }
            None => refusal(StatusCode::SERVICE_UNAVAILABLE, "the keys cannot be read now"),
        }
    };
    let metrics = move || async move { ([(CONTENT_TYPE, METRICS_TYPE)], metrics().await) };
    let ready = move || async move {
        if ready() {
            (StatusCode::OK, "ready\n")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the decision log takes nothing\n")
        }
    };
    Router::new()
        .route("/.well-known/jwks.json", get(jwks))
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tonic::codegen::Service as _;

    use super::*;

    async fn fetch(router: &mut Router, path: &str) -> (StatusCode, String, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.call(request).await.unwrap();
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1_024).await.unwrap();
        (status, kind, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_path_answers_what_it_promises() {
        let keys = || async { Some("{\"keys\":[]}".to_owned()) };
        let mut router = routes(keys, || async { "# EOF\n".to_owned() }, || false);
        let jwks = fetch(&mut router, "/.well-known/jwks.json").await;
        assert_eq!(jwks, (StatusCode::OK, JWKS_TYPE.into(), "{\"keys\":[]}".into()));
        let metrics = fetch(&mut router, "/metrics").await;
        assert_eq!(metrics, (StatusCode::OK, METRICS_TYPE.into(), "# EOF\n".into()));
        assert_eq!(fetch(&mut router, "/healthz").await.0, StatusCode::OK);
        assert_eq!(fetch(&mut router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(fetch(&mut router, "/keys").await.0, StatusCode::NOT_FOUND);
        let mut ready = routes(|| async { None }, || async { String::new() }, || true);
        let keys = fetch(&mut ready, "/.well-known/jwks.json").await;
        assert_eq!(keys.0, StatusCode::SERVICE_UNAVAILABLE, "no empty set in its place");
        assert_eq!(fetch(&mut ready, "/readyz").await.0, StatusCode::OK);
    }
}
