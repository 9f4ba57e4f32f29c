//! Settings of a server: flag before environment before file before default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Deserialize;

use placet_server::CHECKPOINT_EVERY_SECONDS;
use placet_server::store::SNAPSHOT_EVERY;

use crate::exit::Failure;
use crate::witnesses;

/// Largest settings file in bytes: a hundred times what all settings take.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// Port of the gRPC service on this machine.
const DEFAULT_LISTEN: &str = "127.0.0.1:7443";
/// Port of metrics, health and keys on this machine.
const DEFAULT_HTTP: &str = "127.0.0.1:7480";
/// `iss` of decisions when nobody names one.
const DEFAULT_ISSUER: &str = "placet";
/// `aud` of decisions when nobody names one: the two kinds of PEP.
const DEFAULT_AUDIENCE: [&str; 2] = ["scheduler", "provisioner"];
/// Seconds to confirm: several provisioning attempts, yet no quota held for work that never comes.
const DEFAULT_CONFIRM_WITHIN: u64 = 300;
/// Name of the store where none is given.
const DEFAULT_STORE: &str = "placet.db";
/// Name of the directory of keys, beside the store.
const KEYS_DIRECTORY: &str = "keys";

/// Name of the directory of compiled components, beside the store.
const CACHE_DIRECTORY: &str = "compiled";
/// Seconds between looks at bundle and facts: soon after a change, and cheap.
const DEFAULT_WATCH: u64 = 1;
/// Who may activate where nobody is named: callers from this machine, where there is no TLS.
const DEFAULT_OPERATOR: &str = "loopback";

/// Where the server takes its time from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ClockSource {
    /// The system's clock
    System,
    /// The events themselves: for development and for running traces
    Events,
}

impl From<ClockSource> for placet_server::Clock {
    fn from(source: ClockSource) -> Self {
        match source {
            ClockSource::System => Self::System,
            ClockSource::Events => Self::Events,
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogFormat {
    /// For a person
    Text,
    /// One JSON object a line
    Json,
}

/// Most detailed log lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    /// Only what went wrong
    Error,
    /// And what may go wrong
    Warn,
    /// And what the server does
    Info,
    /// And every request
    Debug,
    /// And every stage of every request
    Trace,
}

impl LogLevel {
    /// As the log filter spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// One source of settings: the command line with the environment, or a file.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Given {
    /// The policy bundle: a directory, or an archive of one
    #[arg(long, env = "PLACET_BUNDLE", value_name = "PATH")]
    pub(crate) bundle: Option<PathBuf>,
    /// JWK set of the keys that a bundle must be signed with [default: it need not be]
    #[arg(long, env = "PLACET_BUNDLE_KEYS", value_name = "FILE")]
    pub(crate) bundle_keys: Option<PathBuf>,
    /// File of the facts: tenants, clusters, datasets, models, quotas
    #[arg(long, env = "PLACET_FACTS", value_name = "FILE")]
    pub(crate) facts: Option<PathBuf>,
    /// File of who may waive denials and freeze [default: nobody may]
    #[arg(long, env = "PLACET_APPROVERS", value_name = "FILE")]
    pub(crate) approvers: Option<PathBuf>,
    /// File of the store; created if absent [default: placet.db]
    #[arg(long, env = "PLACET_STORE", value_name = "FILE")]
    pub(crate) store: Option<PathBuf>,
    /// Directory of the signing keys; one is made if it has none [default: keys, beside the store]
    #[arg(long, env = "PLACET_KEYS", value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
    /// Directory of compiled components [default: compiled, beside the store]
    #[arg(long, env = "PLACET_CACHE", value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
    /// Address of the gRPC service [default: 127.0.0.1:7443]
    #[arg(long, env = "PLACET_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Address of metrics, health and keys over HTTP [default: 127.0.0.1:7480]
    #[arg(long, env = "PLACET_HTTP", value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// Issuer (`iss`) of every decision [default: placet]
    #[arg(long, env = "PLACET_ISSUER", value_name = "NAME")]
    pub(crate) issuer: Option<String>,
    /// Audience (`aud`) of every decision; repeat for several [default: scheduler, provisioner]
    #[arg(long, env = "PLACET_AUDIENCE", value_name = "NAME", value_delimiter = ',')]
    pub(crate) audience: Option<Vec<String>>,
    /// Where time comes from [default: system]
    #[arg(long, env = "PLACET_CLOCK", value_name = "SOURCE")]
    pub(crate) clock: Option<ClockSource>,
    /// Threads that evaluate policies, 1 to 128 [default: one a core]
    #[arg(long, env = "PLACET_WORKERS", value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// Seconds within which a reservation must be confirmed, 1 to 86400 [default: 300]
    #[arg(long, env = "PLACET_CONFIRM_WITHIN", value_name = "SECONDS")]
    pub(crate) confirm_within: Option<u64>,
    /// Leaves of the log behind a snapshot of the ledger when the next is made, 0 for no snapshots
    /// [default: 100000]
    #[arg(long, env = "PLACET_SNAPSHOT_EVERY", value_name = "LEAVES")]
    pub(crate) snapshot_every: Option<u64>,
    /// Seconds between checkpoints of the log while it grows, 1 to 3600, 0 for none [default: 10]
    #[arg(long, env = "PLACET_CHECKPOINT_EVERY", value_name = "SECONDS")]
    pub(crate) checkpoint_every: Option<u64>,
    /// How long personal values are kept, such as 90d; from 1h [default: until they are erased]
    #[arg(long, env = "PLACET_PERSONAL_FOR", value_name = "DURATION")]
    pub(crate) personal_for: Option<String>,
    /// Verifier key of a witness whose cosignatures checkpoints are given; repeat for several
    #[arg(long, env = "PLACET_WITNESS", value_name = "KEY", value_delimiter = ',')]
    pub(crate) witness: Option<Vec<String>>,
    /// Seconds between looks at bundle and facts for changes, 0 for never [default: 1]
    #[arg(long, env = "PLACET_WATCH", value_name = "SECONDS")]
    pub(crate) watch: Option<u64>,
    /// Caller that may have bundle and facts read again; repeat for several [default: loopback]
    #[arg(long, env = "PLACET_OPERATOR", value_name = "NAME", value_delimiter = ',')]
    pub(crate) operator: Option<Vec<String>>,
    /// PEM file of the server's certificate chain; needed off loopback
    #[arg(long, env = "PLACET_TLS_CERT", value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// PEM file of the server's private key
    #[arg(long, env = "PLACET_TLS_KEY", value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// PEM file of the authorities that vouch for callers
    #[arg(long, env = "PLACET_TLS_CLIENT_CA", value_name = "FILE")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How log lines are written [default: text]
    #[arg(long, env = "PLACET_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Most detailed log lines that are written [default: info]
    #[arg(long, env = "PLACET_LOG_LEVEL", value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
}

/// The names that a settings file may hold: those of the flags.
const NAMES: [&str; 25] = [
    "approvers",
    "audience",
    "bundle",
    "bundle-keys",
    "cache",
    "checkpoint-every",
    "clock",
    "confirm-within",
    "facts",
    "http",
    "issuer",
    "keys",
    "listen",
    "log-format",
    "log-level",
    "operator",
    "personal-for",
    "snapshot-every",
    "store",
    "tls-cert",
    "tls-client-ca",
    "tls-key",
    "watch",
    "witness",
    "workers",
];

/// All that `serve` needs.
#[derive(Debug)]
pub(crate) struct Merged {
    /// For the server.
    pub(crate) server: placet_server::Settings,
    /// How log lines are written.
    pub(crate) log_format: LogFormat,
    /// Which log lines are written.
    pub(crate) log_level: LogLevel,
}

impl Given {
    /// Reads a settings file. Relative paths in it are relative to its own directory.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has an unknown name or a value of the wrong type.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let failed =
            |error: std::io::Error| Failure::new(format!("cannot read `{shown}`: {error}"));
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        if bytes > MAX_FILE_BYTES {
            return Err(Failure::new(format!(
                "`{shown}` has {bytes} bytes, settings take at most {MAX_FILE_BYTES}"
            )));
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mut given = Self::parse(&text).map_err(|failure| failure.context(shown))?;
        if let Some(directory) = path.parent() {
            given.paths().into_iter().flatten().for_each(|path| *path = directory.join(&*path));
        }
        Ok(given)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        if let Ok(names) = toml::de::DeTable::parse(text) {
            for name in names.get_ref().keys() {
                let known: &str = name.get_ref();
                if !NAMES.contains(&known) {
                    return Err(unknown(known, line_of(text, name.span().start)));
                }
            }
        }
        toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(text, span.start));
            Failure::usage(format!("line {line}: {}", error.message()))
        })
    }

    fn paths(&mut self) -> [Option<&mut PathBuf>; 10] {
        [
            self.approvers.as_mut(),
            self.bundle.as_mut(),
            self.bundle_keys.as_mut(),
            self.cache.as_mut(),
            self.facts.as_mut(),
            self.store.as_mut(),
            self.keys.as_mut(),
            self.tls_cert.as_mut(),
            self.tls_key.as_mut(),
            self.tls_client_ca.as_mut(),
        ]
    }

    /// Fills what is absent from `file`.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            bundle: self.bundle.or(file.bundle),
            bundle_keys: self.bundle_keys.or(file.bundle_keys),
            cache: self.cache.or(file.cache),
            facts: self.facts.or(file.facts),
            approvers: self.approvers.or(file.approvers),
            store: self.store.or(file.store),
            keys: self.keys.or(file.keys),
            listen: self.listen.or(file.listen),
            http: self.http.or(file.http),
            issuer: self.issuer.or(file.issuer),
            audience: self.audience.or(file.audience),
            clock: self.clock.or(file.clock),
            workers: self.workers.or(file.workers),
            confirm_within: self.confirm_within.or(file.confirm_within),
            snapshot_every: self.snapshot_every.or(file.snapshot_every),
            checkpoint_every: self.checkpoint_every.or(file.checkpoint_every),
            personal_for: self.personal_for.or(file.personal_for),
            witness: self.witness.or(file.witness),
            watch: self.watch.or(file.watch),
            operator: self.operator.or(file.operator),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            log_format: self.log_format.or(file.log_format),
            log_level: self.log_level.or(file.log_level),
        }
    }

    /// Fills what is still absent with defaults.
    ///
    /// # Errors
    /// The bundle or the facts are not named, or only a part of the TLS files is.
    pub(crate) fn merged(self) -> Result<Merged, Failure> {
        let bundle = self.bundle.ok_or_else(|| absent("bundle", "BUNDLE", "PATH"))?;
        let facts = self.facts.ok_or_else(|| absent("facts", "FACTS", "FILE"))?;
        let store = self.store.unwrap_or_else(|| PathBuf::from(DEFAULT_STORE));
        let keys = self.keys.unwrap_or_else(|| store.with_file_name(KEYS_DIRECTORY));
        let tls = match (self.tls_cert, self.tls_key, self.tls_client_ca) {
            (None, None, None) => None,
            (Some(certificate), Some(key), Some(client_authority)) => {
                Some(placet_server::TlsSettings { certificate, key, client_authority })
            }
            _ => {
                return Err(Failure::usage("only a part of the TLS files is given")
                    .hint("give `--tls-cert`, `--tls-key` and `--tls-client-ca`, or none"));
            }
        };
        let cache = self.cache.unwrap_or_else(|| store.with_file_name(CACHE_DIRECTORY));
        let operators = self.operator.unwrap_or_else(|| vec![DEFAULT_OPERATOR.to_owned()]);
        let operators = operators.into_iter().map(operator).collect::<Result<_, _>>()?;
        let personal_for_seconds = self.personal_for.as_deref().map(kept_for).transpose()?;
        let watch = Some(self.watch.unwrap_or(DEFAULT_WATCH)).filter(|seconds| *seconds > 0);
        let server = placet_server::Settings {
            bundle,
            bundle_keys: self.bundle_keys,
            approvers: self.approvers,
            cache: Some(cache),
            facts,
            store,
            keys,
            listen: self.listen.map_or_else(|| address(DEFAULT_LISTEN), Ok)?,
            http: self.http.map_or_else(|| address(DEFAULT_HTTP), Ok)?,
            issuer: self.issuer.unwrap_or_else(|| DEFAULT_ISSUER.to_owned()),
            audience: self.audience.unwrap_or_else(|| DEFAULT_AUDIENCE.map(str::to_owned).to_vec()),
            clock: self.clock.unwrap_or(ClockSource::System).into(),
            workers: self.workers.unwrap_or_else(default_workers),
            confirm_within_seconds: self.confirm_within.unwrap_or(DEFAULT_CONFIRM_WITHIN),
            operators,
            snapshot_every: self.snapshot_every.unwrap_or(SNAPSHOT_EVERY),
            checkpoint_every_seconds: self.checkpoint_every.unwrap_or(CHECKPOINT_EVERY_SECONDS),
            personal_for_seconds,
            witnesses: witnesses::read(&self.witness.unwrap_or_default())?,
            watch: watch.map(std::time::Duration::from_secs),
            tls,
        };
        server
            .check()
            .map_err(|error| Failure::from_error(&error).with_exit(crate::exit::Exit::Usage))?;
        Ok(Merged {
            server,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            log_level: self.log_level.unwrap_or(LogLevel::Info),
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    text.parse().map_err(|error| Failure::new(format!("`{text}` is no address: {error}")))
}

fn operator(name: String) -> Result<placet_core::Id, Failure> {
    placet_core::Id::new(name.clone()).map_err(|error| {
        let name = crate::print::plain(&name);
        Failure::usage(format!("`{name}` is no caller's name: it {error}"))
            .hint("give the name as decisions show it in `caller`, such as `loopback`")
    })
}

/// A time to keep something, as people write it.
fn kept_for(text: &str) -> Result<u64, Failure> {
    let wrong = |what: String| {
        Failure::usage(format!("`personal-for` is no time: {what}"))
            .hint("give hours or days, such as 72h or 90d")
    };
    let kept = humantime::parse_duration(text).map_err(|error| wrong(error.to_string()))?;
    if kept.subsec_nanos() != 0 {
        return Err(wrong("it is no whole number of seconds".to_owned()));
    }
    Ok(kept.as_secs())
}

fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    cores.min(placet_server::MAX_WORKERS)
}

fn absent(name: &str, variable: &str, value: &str) -> Failure {
    Failure::usage(format!("`--{name}` is not given")).hint(format!(
        "give `--{name} {value}`, set PLACET_{variable}, \
         or write `{name} = \"...\"` in the file of `--config`"
    ))
}

fn unknown(name: &str, line: usize) -> Failure {
    let failure =
        Failure::usage(format!("line {line}: `{}` is no setting", crate::print::plain(name)));
    match nearest(name) {
        Some(known) => failure.hint(format!("did you mean `{known}`?")),
        None => failure.hint(format!("settings are {}", NAMES.join(", "))),
    }
}

/// Line of a byte position, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The known name closest to what was written, if it is close enough to be a slip of the pen.
fn nearest(name: &str) -> Option<&'static str> {
    let written = name.to_lowercase().replace('_', "-");
    NAMES
        .into_iter()
        .map(|known| (distance(&written, known), known))
        .min()
        .filter(|(distance, known)| *distance * 2 <= known.len())
        .map(|(_, known)| known)
}

/// Insertions, deletions and replacements between two names (Levenshtein's distance).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = i;
        let mut previous = i + 1;
        let mut next = vec![previous];
        for (b, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = *above;
            previous = replaced.min(above + 1).min(previous + 1);
            next.push(previous);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_refused_with_its_line_and_the_nearest_known_one() {
        let failure = Given::parse("bundle = \"b\"\n\nconfirm_withn = 3\n").unwrap_err();
        assert_eq!(
            failure.message(),
            "line 3: `confirm_withn` is no setting\nhint: did you mean `confirm-within`?"
        );
        let failure = Given::parse("zzz = 1").unwrap_err();
        assert!(failure.message().contains("settings are approvers, audience"));
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_line() {
        let failure = Given::parse("bundle = \"b\"\nworkers = \"two\"").unwrap_err();
        assert!(failure.message().starts_with("line 2: "), "{}", failure.message());
        let failure = Given::parse("bundle = ").unwrap_err();
        assert!(failure.message().starts_with("line 1: "), "{}", failure.message());
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
        let flags = Given { bundle: Some("flag".into()), workers: Some(3), ..Given::default() };
        let file = Given::parse("bundle = \"file\"\nfacts = \"f\"\nissuer = \"me\"").unwrap();
        let merged = flags.or(file).merged().unwrap();
        assert_eq!(merged.server.bundle, PathBuf::from("flag"));
        assert_eq!(merged.server.facts, PathBuf::from("f"));
        assert_eq!(merged.server.issuer, "me");
        assert_eq!(merged.server.workers, 3);
        assert_eq!(merged.server.keys, PathBuf::from("keys"));
        assert_eq!(merged.log_level, LogLevel::Info);
    }

    #[test]
    fn paths_of_a_file_are_relative_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("placet.toml");
        std::fs::write(&path, "bundle = \"b\"\nfacts = \"/f\"\n").unwrap();
        let given = Given::read(&path).unwrap();
        assert_eq!(given.bundle, Some(directory.path().join("b")));
        assert_eq!(given.facts, Some(PathBuf::from("/f")));
    }

    #[test]
    fn every_field_has_its_name_in_the_list() {
        let empty = Given::parse("").unwrap().merged().unwrap_err();
        assert!(empty.message().contains("`--bundle` is not given"), "{}", empty.message());
        let command = Given::augment_args(clap::Command::new("x"));
        let mut names: Vec<_> =
            command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned).collect();
        names.sort();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn a_part_of_the_tls_files_is_not_enough() {
        let given = Given {
            bundle: Some("b".into()),
            facts: Some("f".into()),
            tls_cert: Some("c".into()),
            ..Given::default()
        };
        let failure = given.merged().unwrap_err();
        assert!(failure.message().contains("only a part"), "{}", failure.message());
    }
}
