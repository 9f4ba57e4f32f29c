//! The server that a command asks: one that runs, or one started in this process.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use placet_policy::LoadError;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_server::{OpenError, RefuseError, ServeError};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::exit::{Exit, Failure};
use crate::settings::{ClockSource, Given};

/// How long a server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was begun may go on when a command has ended.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes of answers that may be on their way: HTTP/2's 64 KiB hold only some twenty decisions.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// Address that `--local` listens on: this machine only, any free port.
const LOCAL_ADDRESS: &str = "127.0.0.1:0";

/// A client of the admission service.
pub(crate) type Client = AdmissionServiceClient<Channel>;

/// How a running server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct ServerArgs {
    /// URL of the server
    #[arg(
        long,
        env = "PLACET_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:7443"
    )]
    pub(crate) server: String,
    /// PEM file of the authorities that vouch for the server (https only)
    #[arg(long, env = "PLACET_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// PEM file of the certificate chain to show to the server
    #[arg(long, env = "PLACET_CERT", value_name = "FILE", requires = "cert_key")]
    pub(crate) cert: Option<PathBuf>,
    /// PEM file of the private key of `--cert`
    #[arg(long, env = "PLACET_CERT_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) cert_key: Option<PathBuf>,
}

/// What a server in this process works with.
#[derive(Debug, Args)]
#[command(next_help_heading = "In this process")]
pub(crate) struct LocalArgs {
    /// Decide in this process instead of asking a server
    #[arg(long)]
    pub(crate) local: bool,
    /// The policy bundle, a directory or an archive of one, with --local
    #[arg(long, env = "PLACET_BUNDLE", value_name = "PATH")]
    pub(crate) bundle: Option<PathBuf>,
    /// File of the facts, with --local
    #[arg(long, env = "PLACET_FACTS", value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// File of the store, with --local [default: a temporary one, removed at the end]
    #[arg(long, value_name = "FILE", requires = "local")]
    pub(crate) store: Option<PathBuf>,
    /// Directory of the signing keys, with --local [default: as the store]
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) keys: Option<PathBuf>,
    /// Where time comes from, with --local [default: system]
    #[arg(long, value_name = "SOURCE", requires = "local")]
    pub(crate) clock: Option<ClockSource>,
}

/// An open way to a server; close it when done.
#[derive(Debug)]
pub(crate) struct Connection {
    client: Client,
    local: Option<Local>,
}

/// A server in this process.
#[derive(Debug)]
struct Local {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
    // Removed when dropped, after the server has closed its store.
    temporary: Option<tempfile::TempDir>,
}

impl Connection {
    /// Connects to the server named, or starts one in this process.
    ///
    /// # Errors
    /// The server cannot be reached, or not be started.
    pub(crate) async fn open(server: &ServerArgs, local: &LocalArgs) -> Result<Self, Failure> {
        if local.local { Self::start(local).await } else { Self::connect(server).await }
    }

    /// Connects to the server named.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) async fn connect(server: &ServerArgs) -> Result<Self, Failure> {
        let client = AdmissionServiceClient::new(channel(server).await?);
        Ok(Self { client, local: None })
    }

    async fn start(local: &LocalArgs) -> Result<Self, Failure> {
        let temporary = match local.store {
            Some(_) => None,
            None => Some(tempfile::tempdir().map_err(|error| {
                Failure::new(format!("cannot make a directory for the store: {error}"))
            })?),
        };
        let beside = |name: &str| temporary.as_ref().map(|directory| directory.path().join(name));
        let address = LOCAL_ADDRESS.parse().ok();
        let settings = Given {
            bundle: local.bundle.clone(),
            facts: local.facts.clone(),
            store: local.store.clone().or_else(|| beside("placet.db")),
            keys: local.keys.clone().or_else(|| beside("keys")),
            listen: address,
            http: address,
            cache: beside("compiled"),
            watch: Some(0),
            clock: local.clock,
            ..Given::default()
        };
        let settings = settings.merged()?.server;
        let (stop, stopped) = oneshot::channel::<()>();
        let (say_ready, ready) = oneshot::channel();
        let task = tokio::spawn(placet_server::serve(
            settings,
            async move {
                // A sender that is gone means the same as one that says stop.
                drop(stopped.await);
            },
            move |addresses| {
                // Nobody waits for it only if this command is ending anyway.
                say_ready.send(addresses).ok();
            },
        ));
        let Ok(addresses) = ready.await else {
            return Err(ended(task.await));
        };
        let server = ServerArgs {
            server: format!("http://{}", addresses.grpc),
            ca: None,
            cert: None,
            cert_key: None,
        };
        let connection = Self::connect(&server).await?;
        Ok(Self { local: Some(Local { stop, task, temporary }), ..connection })
    }

    /// The client, cheap to clone.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Hangs up; a server in this process stops and its temporary store is removed.
    ///
    /// # Errors
    /// The server in this process had failed, or its store cannot be removed.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        drop(self.client);
        let Some(local) = self.local else { return Ok(()) };
        // A server that is already gone says so in its result.
        local.stop.send(()).ok();
        let result = local.task.await;
        if !matches!(result, Ok(Ok(()))) {
            return Err(ended(result));
        }
        match local.temporary {
            Some(directory) => directory.close().map_err(|error| {
                Failure::new(format!("cannot remove the temporary store: {error}"))
            }),
            None => Ok(()),
        }
    }
}

/// A channel to the server named.
///
/// # Errors
/// It cannot be reached.
pub(crate) async fn channel(server: &ServerArgs) -> Result<Channel, Failure> {
    let url = &server.server;
    let mut endpoint = Endpoint::from_shared(url.clone())
        .map_err(|error| bad_url(url, &error.to_string()))?
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .tcp_nodelay(true);
    match endpoint.uri().scheme_str() {
        Some("http") => {}
        Some("https") => {
            endpoint =
                endpoint.tls_config(tls(server)?).map_err(|error| Failure::from_error(&error))?;
        }
        _ => return Err(bad_url(url, "its scheme is neither http nor https")),
    }
    endpoint.connect().await.map_err(|error| {
        Failure::from_error(&error)
            .context(format!("cannot reach the server at `{url}`"))
            .hint("start one with `placet serve`, name another with --server, or use --local")
    })
}

fn ended(result: Result<Result<(), ServeError>, tokio::task::JoinError>) -> Failure {
    match result {
        Ok(Ok(())) => Failure::new("the server in this process stopped by itself"),
        Ok(Err(error)) => serve_failure(&error),
        Err(error) => Failure::from_error(&error),
    }
}

/// Why a server did not start or stopped; policies that cannot be served have their own exit code.
pub(crate) fn serve_failure(error: &ServeError) -> Failure {
    let exit = match error {
        ServeError::Settings(_) => Exit::Usage,
        ServeError::Open(OpenError::Bundle {
            source:
                RefuseError::Load(LoadError::Invalid(_))
                | RefuseError::Cases { .. }
                | RefuseError::Signature { .. },
            ..
        }) => Exit::PolicyInvalid,
        _ => Exit::Failed,
    };
    let failure = Failure::from_error(error).with_exit(exit);
    match error {
        ServeError::Open(OpenError::Bundle {
            source: RefuseError::Load(LoadError::Read { .. }),
            ..
        }) => failure.hint("name the directory or the archive of the bundle with --bundle"),
        ServeError::Open(OpenError::Facts {
            source: RefuseError::Load(LoadError::Read { .. }),
            ..
        }) => failure.hint("name the file of the facts with --facts"),
        _ => failure,
    }
}

fn bad_url(url: &str, why: &str) -> Failure {
    Failure::usage(format!("`{}` is no URL of a server: {why}", crate::print::plain(url)))
        .hint("write it as http://127.0.0.1:7443")
}

fn tls(server: &ServerArgs) -> Result<ClientTlsConfig, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read(path)
            .map_err(|error| Failure::new(format!("cannot read `{}`: {error}", path.display())))
    };
    let Some(ca) = &server.ca else {
        return Err(Failure::usage("an https server is named, but nobody who vouches for it")
            .hint("give the PEM file of its authority with --ca"));
    };
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let (Some(cert), Some(key)) = (&server.cert, &server.cert_key) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

/// What a gRPC error says, as one failure.
pub(crate) fn status_failure(status: &tonic::Status) -> Failure {
    let message = crate::print::plain(status.message());
    let text = if message.is_empty() { status.code().description().to_owned() } else { message };
    Failure::new(text)
}

/// Runs an asynchronous command to its end.
///
/// # Errors
/// Those of the command, or the system gives no threads.
pub(crate) fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(command);
    // A server that was told to stop may still be loading a bundle: nobody waits for that.
    runtime.shutdown_timeout(LINGER);
    result
}
