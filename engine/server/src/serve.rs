//! The process: opens everything, listens, and stops in order.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::admission::{Admission, OpenError};
use crate::settings::{Settings, SettingsError, TlsSettings};
use crate::watch::Watch;
use crate::{grpc, http};

/// How long a stopping server waits for its clients: ample for what is under way, which takes
/// milliseconds, and less than the 30 seconds after which service managers kill. A client may watch
/// health for ever.
const DRAIN: Duration = Duration::from_secs(10);

/// Most calls under way on one connection: far above what one client keeps in flight, and a bound
/// on what one connection can make the server hold.
const MAX_STREAMS: u32 = 1_024;

/// How long a connection may be silent before its client is asked for a sign of life: without it, a
/// client that has vanished would hold its place as a watcher until the system gives it up, which
/// can take hours.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long that sign may take: far above any round trip.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Where a started server can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// gRPC.
    pub grpc: SocketAddr,
    /// Metrics, health and keys.
    pub http: SocketAddr,
}

/// Why a server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting cannot be served.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Policies, facts, keys or store cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}{}", port_hint(source))]
    Listen {
        /// Which address.
        address: SocketAddr,
        /// For what.
        purpose: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate or key file cannot be read.
    #[error("cannot read the TLS file `{path}`")]
    TlsFile {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates do not make a TLS server, or the server failed.
    #[error("the gRPC server failed")]
    Grpc(#[source] tonic::transport::Error),
    /// The HTTP server failed.
    #[error("the HTTP server failed")]
    Http(#[source] std::io::Error),
    /// A task of the server died.
    #[error("a part of the server died")]
    Died(#[source] tokio::task::JoinError),
}

fn port_hint(error: &std::io::Error) -> &'static str {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        "\nhint: another process listens there; stop it, or choose another port"
    } else {
        ""
    }
}

/// Serves until `shutdown` completes; then refuses new requests, answers those under way, and
/// closes the store.
///
/// `on_ready` is called once, when both addresses answer; not at all if `shutdown` completes while
/// bundle and store are still being opened, which then goes on in the background until it is done
/// or the runtime is shut down.
///
/// # Errors
/// If it cannot start, or stops by itself.
pub async fn serve(
    settings: Settings,
    shutdown: impl Future<Output = ()> + Send + 'static,
    on_ready: impl FnOnce(Ready) + Send,
) -> Result<(), ServeError> {
    settings.check()?;
    let tls = settings.tls.as_ref().map(tls_config).transpose()?;
    // Listen first: a taken port is found before a store is created.
    let (grpc_listener, grpc_address) = listen(settings.listen, "gRPC").await?;
    let (http_listener, http_address) = listen(settings.http, "HTTP").await?;
    let operators = settings.operators.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    let opened = tokio::task::spawn_blocking(move || {
        let watch = Watch::new(&settings);
        Admission::open(&settings).map(|admission| (admission, watch))
    });
    let (admission, watched) = tokio::select! {
        opened = opened => opened.map_err(ServeError::Died)??,
        () = &mut shutdown => {
            tracing::info!("stopping before everything was loaded");
            return Ok(());
        }
    };

    let (stop, stopped) = watch::channel(false);
    let wait = |mut stopped: watch::Receiver<bool>| async move {
        // A sender that is gone means the same as a sender that says stop.
        drop(stopped.wait_for(|stop| *stop).await);
    };
    let mut server = Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER));
    if let Some(tls) = tls {
        server = server.tls_config(tls).map_err(ServeError::Grpc)?;
    }
    let incoming = TcpIncoming::from(grpc_listener).with_nodelay(Some(true));
    let routes = grpc::routes(admission.clone(), &operators, stopped.clone()).await;
    let grpc = tokio::spawn(
        server.add_routes(routes).serve_with_incoming_shutdown(incoming, wait(stopped.clone())),
    );
    let watching =
        watched.map(|watched| tokio::spawn(watched.run(admission.clone(), stopped.clone())));
    let router = http::router(&admission);
    let http = tokio::spawn(
        axum::serve(http_listener, router).with_graceful_shutdown(wait(stopped)).into_future(),
    );
    on_ready(Ready { grpc: grpc_address, http: http_address });

    let result = run(grpc, http, shutdown, stop).await;
    if let Some(watching) = watching {
        // What it may be reading is no longer wanted.
        watching.abort();
    }
    admission.close().await;
    result
}

async fn run(
    mut grpc: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    mut http: tokio::task::JoinHandle<std::io::Result<()>>,
    shutdown: impl Future<Output = ()>,
    stop: watch::Sender<bool>,
) -> Result<(), ServeError> {
    tokio::select! {
        () = shutdown => {}
        ended = &mut grpc => return ended.map_err(ServeError::Died)?.map_err(ServeError::Grpc),
        ended = &mut http => return ended.map_err(ServeError::Died)?.map_err(ServeError::Http),
    }
    tracing::info!("stopping: answering what is under way");
    stop.send_replace(true);
    drained(grpc).await?.transpose().map_err(ServeError::Grpc)?;
    drained(http).await?.transpose().map_err(ServeError::Http)?;
    Ok(())
}

/// Waits until a server has answered what is under way; none if its clients hold it open too long.
async fn drained<E>(
    mut server: tokio::task::JoinHandle<Result<(), E>>,
) -> Result<Option<Result<(), E>>, ServeError> {
    let Ok(ended) = tokio::time::timeout(DRAIN, &mut server).await else {
        tracing::warn!("stopping without the clients that still hold a connection open");
        server.abort();
        return Ok(None);
    };
    ended.map(Some).map_err(ServeError::Died)
}

async fn listen(
    address: SocketAddr,
    purpose: &'static str,
) -> Result<(TcpListener, SocketAddr), ServeError> {
    let refused = |source| ServeError::Listen { address, purpose, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

fn tls_config(tls: &TlsSettings) -> Result<ServerTlsConfig, ServeError> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|source| ServeError::TlsFile { path: path.display().to_string(), source })
    };
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?))
        .client_ca_root(Certificate::from_pem(read(&tls.client_authority)?)))
}
