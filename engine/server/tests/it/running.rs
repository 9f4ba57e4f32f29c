//! A whole server in this process, as its clients see it.

use std::net::SocketAddr;
use std::path::Path;

use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use placet_proto::control::v1::control_service_client::ControlServiceClient;
use placet_server::{Settings, serve};
use tokio::sync::oneshot;
use tonic::transport::Channel;

/// A server on the shipped bundle and facts, in this process, with a store of its own.
pub(crate) struct Running {
    pub(crate) channel: Channel,
    pub(crate) http: SocketAddr,
    grpc: SocketAddr,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), placet_server::ServeError>>,
    pub(crate) directory: tempfile::TempDir,
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_settings, _directory| {}).await
    }

    /// One whose settings were changed, given the directory that will be its own.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings, &Path)) -> Self {
        let policies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies");
        let directory = tempfile::tempdir().unwrap();
        let bundle = policies.join("reference");
        let facts = bundle.join("facts.yaml");
        let mut settings = Settings::local(bundle, facts, directory.path());
        settings.issuer = "placet.test".to_owned();
        change(&mut settings, directory.path());
        let (stop, stopped) = oneshot::channel::<()>();
        let (say_ready, ready) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let served = tokio::spawn(serve(settings, stopped, |it| say_ready.send(it).unwrap()));
        let addresses = ready.await.expect("the server starts");
        let channel = connect(addresses.grpc).await;
        let (http, grpc) = (addresses.http, addresses.grpc);
        Self { channel, http, grpc, stop, served, directory }
    }

    /// A client with a connection of its own.
    pub(crate) async fn another_client(&self) -> AdmissionServiceClient<Channel> {
        AdmissionServiceClient::new(connect(self.grpc).await)
    }

    pub(crate) fn client(&self) -> AdmissionServiceClient<Channel> {
        AdmissionServiceClient::new(self.channel.clone())
    }

    /// A connection whose client takes no more than so many bytes of a stream before it reads on.
    pub(crate) async fn narrow_channel(&self, bytes: u32) -> Channel {
        let address = Channel::from_shared(format!("http://{}", self.grpc)).unwrap();
        address.initial_stream_window_size(bytes).connect().await.unwrap()
    }

    pub(crate) fn control(&self) -> ControlServiceClient<Channel> {
        ControlServiceClient::new(self.channel.clone())
    }

    /// Stops it in order; its directory is left to whoever wants to look.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        drop((self.channel, self.stop));
        self.served.await.unwrap().expect("the server stops in order");
        self.directory
    }
}

async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}
