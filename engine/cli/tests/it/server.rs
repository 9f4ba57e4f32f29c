//! Starts the binary as a server, talks to it, and ends it kindly or not.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use base64::Engine as _;
use placet_core::Decision;
use placet_proto::admission::v1::admission_service_client::AdmissionServiceClient;
use tonic::transport::Channel;

/// Environment variables that would change what the binary does.
pub(crate) const VARIABLES: [&str; 7] = [
    "PLACET_APPROVERS",
    "PLACET_BUNDLE",
    "PLACET_FACTS",
    "PLACET_FORMAT",
    "PLACET_ISSUER",
    "PLACET_KEYS",
    "PLACET_SERVER",
];

/// How the line begins in which a server says where it answers.
pub(crate) const READY: &str = "placet answers on ";

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The binary, to be run in the root of the repository.
pub(crate) fn placet() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_placet"));
    command.current_dir(root());
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    command
}

/// The claims of a token, unverified.
pub(crate) fn claims(token: &str) -> Decision {
    let payload = token.split('.').nth(1).unwrap();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    serde_json::from_slice(&json).unwrap()
}

/// A server that was started and has not said yet where it answers; killed when dropped.
#[derive(Debug)]
pub(crate) struct Starting {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Starting {
    /// With a bundle, its state in a folder, and the folder's own facts if it has any.
    pub(crate) fn new(folder: &Path, bundle: &Path, more: &[&str]) -> Self {
        Self::launch(placet(), folder, bundle, more)
    }

    fn launch(mut command: Command, folder: &Path, bundle: &Path, more: &[&str]) -> Self {
        let own = folder.join("facts.yaml");
        let facts = if own.exists() { own } else { root().join("policies/reference/facts.yaml") };
        command.args(["serve", "--log-level", "warn", "--bundle"]).arg(bundle);
        command.args(["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command.arg("--facts").arg(facts);
        command.arg("--store").arg(folder.join("placet.db"));
        command.arg("--keys").arg(folder.join("keys")).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it answers.
    pub(crate) fn ready(mut self) -> Server {
        let (mut line, mut heard) = (String::new(), String::new());
        while !line.starts_with(READY) {
            line.clear();
            assert!(self.stderr.read_line(&mut line).unwrap() > 0, "it did not start:\n{heard}");
            heard.push_str(&line);
        }
        let mut ports = line
            .split_whitespace()
            .filter_map(|word| word.rsplit_once(':').and_then(|(_, port)| port.parse().ok()));
        let (grpc, http) = (ports.next().unwrap(), ports.next().unwrap());
        Server { process: self, grpc, http }
    }

    /// Ends it as a power cut would; everything that it has said and nobody has read.
    pub(crate) fn kill(&mut self) -> String {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // Gone already if it was stopped.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server on free ports, killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    process: Starting,
    pub(crate) grpc: u16,
    pub(crate) http: u16,
}

impl Server {
    /// Starts one with the reference policies and its state in a folder, and the folder's own
    /// facts if it has any.
    pub(crate) fn start(folder: &Path, more: &[&str]) -> Self {
        Self::start_with(folder, Path::new("policies/reference"), more)
    }

    /// The same with another bundle.
    pub(crate) fn start_with(folder: &Path, bundle: &Path, more: &[&str]) -> Self {
        Starting::new(folder, bundle, more).ready()
    }

    /// One that is told of files which may not grow by an error, as of a full disk, instead of
    /// being killed by a signal.
    pub(crate) fn start_unkillable_by_limits(folder: &Path) -> Self {
        let inner = placet();
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(inner.get_program());
        command.current_dir(root());
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        Starting::launch(command, folder, Path::new("policies/reference"), &[]).ready()
    }

    /// Where it answers gRPC.
    pub(crate) fn grpc_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.grpc)
    }

    /// Where it answers HTTP.
    pub(crate) fn http_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.http)
    }

    /// A client of its own.
    pub(crate) async fn client(&self) -> AdmissionServiceClient<Channel> {
        AdmissionServiceClient::connect(self.grpc_url()).await.unwrap()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it as a power cut would; its last words.
    pub(crate) fn kill(&mut self) -> String {
        self.process.kill()
    }

    /// Asks it to stop, and tells its exit code and last words.
    pub(crate) fn stop(mut self) -> (i32, String) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let code = self.process.child.wait().unwrap().code().unwrap_or(-1);
        let mut rest = String::new();
        self.process.stderr.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}
