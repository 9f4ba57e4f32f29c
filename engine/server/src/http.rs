//! Keys, metrics and health over plain HTTP/1.1: what tools read that do not speak gRPC.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::routing::get;

use crate::admission::Admission;

/// Media type of a JWK set (RFC 7517 section 8.5.2).
const JWKS_TYPE: &str = "application/jwk-set+json";
/// How long a key set may be kept: short against the overlap in which an old and a new key are both
/// published.
const JWKS_CACHE: &str = "public, max-age=300";
/// Media type of the OpenMetrics text format.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes: `/.well-known/jwks.json`, `/metrics`, `/healthz` (the process lives) and `/readyz`
/// (it decides).
pub(crate) fn router(admission: &Admission) -> Router {
    let (metrics, ready) = (admission.clone(), admission.clone());
    routes(admission.jwks(), move || scrape(metrics.clone()), move || ready.is_ready())
}

async fn scrape(admission: Admission) -> String {
    admission.metrics_text().await
}

fn routes<F: Future<Output = String> + Send + 'static>(
    jwks: &str,
    metrics: impl Fn() -> F + Clone + Send + Sync + 'static,
    ready: impl Fn() -> bool + Clone + Send + Sync + 'static,
) -> Router {
    let jwks = jwks.to_owned();
    let jwks =
        move || async move { ([(CONTENT_TYPE, JWKS_TYPE), (CACHE_CONTROL, JWKS_CACHE)], jwks) };
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
        let mut router = routes("{\"keys\":[]}", || async { "# EOF\n".to_owned() }, || false);
        let jwks = fetch(&mut router, "/.well-known/jwks.json").await;
        assert_eq!(jwks, (StatusCode::OK, JWKS_TYPE.into(), "{\"keys\":[]}".into()));
        let metrics = fetch(&mut router, "/metrics").await;
        assert_eq!(metrics, (StatusCode::OK, METRICS_TYPE.into(), "# EOF\n".into()));
        assert_eq!(fetch(&mut router, "/healthz").await.0, StatusCode::OK);
        assert_eq!(fetch(&mut router, "/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(fetch(&mut router, "/keys").await.0, StatusCode::NOT_FOUND);
        let mut ready = routes("", || async { String::new() }, || true);
        assert_eq!(fetch(&mut ready, "/readyz").await.0, StatusCode::OK);
    }
}
