//! What a server is told at its start; read once, never global.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use placet_core::{Id, Witnesses};

use crate::clock::Clock;
use crate::store::SNAPSHOT_EVERY;

/// Everything that `placet serve` can be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Directory or archive of the policy bundle.
    pub bundle: PathBuf,
    /// File of the JWK set that holds the keys by which a bundle must be signed; absent if none
    /// need be.
    pub bundle_keys: Option<PathBuf>,
    /// File of who may waive denials and freeze; nobody may if absent.
    pub approvers: Option<PathBuf>,
    /// Directory in which compiled components are kept; absent if they are not.
    pub cache: Option<PathBuf>,
    /// File of the facts.
    pub facts: PathBuf,
    /// The store's file; created if absent.
    pub store: PathBuf,
    /// Directory of the signing keys; a key is made there if it has none.
    pub keys: PathBuf,
    /// Address of the gRPC service; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of metrics, health and keys over HTTP; port 0 takes a free one.
    pub http: SocketAddr,
    /// `iss` of every decision, and the origin of the log.
    pub issuer: String,
    /// `aud` of every decision: who may rely on it; at least one.
    pub audience: Vec<String>,
    /// Where time comes from.
    pub clock: Clock,
    /// Threads that evaluate policies: 1..=128.
    pub workers: usize,
    /// Seconds from its start within which a reservation must be confirmed: 1..=86,400.
    pub confirm_within_seconds: u64,
    /// Callers who may make another bundle or other facts active.
    pub operators: Vec<Id>,
    /// Leaves of the log behind a snapshot of the ledger when the next one is made: 0 if none are
    /// made and none are used, else 1,000..=1,000,000,000.
    pub snapshot_every: u64,
    /// Seconds between two checkpoints of the log while it grows: 1..=3,600; 0 if none are made and
    /// the log is not served.
    pub checkpoint_every_seconds: u64,
    /// Seconds for which personal values are kept: an hour to 100 years; absent if until somebody
    /// has them erased.
    pub personal_for_seconds: Option<u64>,
    /// Whose cosignatures checkpoints are given: none are, if there are none.
    pub witnesses: Witnesses,
    /// Time between two looks at the files of bundle and facts: at most an hour; absent if only
    /// operators say when they are read.
    pub watch: Option<Duration>,
    /// Certificates; required unless both addresses are loopback.
    pub tls: Option<TlsSettings>,
}

/// Mutual TLS: the server shows a certificate and demands one from every caller.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    /// PEM file of the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file of its private key.
    pub key: PathBuf,
    /// PEM file of the authorities that vouch for callers.
    pub client_authority: PathBuf,
}

/// Most threads that evaluate, those of expensive tenants apart: more than most machines have
/// cores, and with the others, half as many, few enough for the instances that the engine has room
/// for.
pub const MAX_WORKERS: usize = 128;
/// Longest time to confirm: a day. Quota that nobody uses is quota that others are denied.
pub(crate) const MAX_CONFIRM_WITHIN_SECONDS: u64 = 86_400;

/// Longest time between two looks at the files of bundle and facts: an hour.
pub(crate) const MAX_WATCH: Duration = Duration::from_secs(3_600);

/// Seconds between two checkpoints, unless somebody says otherwise: auditors wait no longer for
/// what was decided, and a year of them takes less than a gigabyte.
pub const CHECKPOINT_EVERY_SECONDS: u64 = 10;
/// Most seconds between two checkpoints: an hour. What is not in one can still be taken back unseen
/// by who has the store and the key of decisions.
const MAX_CHECKPOINT_EVERY_SECONDS: u64 = 3_600;

/// Fewest and most leaves behind a snapshot when the next one is made. Folding a thousand takes
/// milliseconds, and a snapshot of even an empty ledger two syncs of the disk; a thousand million
/// take hours to fold.
const SNAPSHOT_RANGE: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000;

/// Shortest and longest time for which personal values are kept: an hour, since they go at most a
/// quarter of one late, and 100 years.
const PERSONAL_RANGE: std::ops::RangeInclusive<u64> = 3_600..=3_155_760_000;

/// A setting that cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A number is out of its range.
    #[error("`{name}` is {value}, but must be {range}")]
    Range {
        /// Name of the setting.
        name: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
    /// A text or list that must not be empty is.
    #[error("`{name}` is empty")]
    Empty {
        /// Name of the setting.
        name: &'static str,
    },
    /// Witnesses without anything that they could cosign.
    #[error(
        "`witness` is given, but no checkpoints are made\n\
         hint: leave it out, or give `checkpoint-every` another number than 0"
    )]
    Witnesses,
    /// Plain text beyond this machine.
    #[error(
        "`{name}` is {address}, which other machines can reach, but no certificates are given\n\
         hint: listen on 127.0.0.1, or give `tls-cert`, `tls-key` and `tls-client-ca`"
    )]
    PlainText {
        /// Name of the setting.
        name: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

impl Settings {
    /// Those of a server on free ports of this machine that keeps its state in a directory: what a
    /// test or a benchmark starts from.
    #[must_use]
    pub fn local(bundle: PathBuf, facts: PathBuf, state: &Path) -> Self {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            bundle,
            bundle_keys: None,
            approvers: None,
            cache: None,
            facts,
            store: state.join("placet.db"),
            keys: state.join("keys"),
            listen: free,
            http: free,
            issuer: "placet".to_owned(),
            audience: vec!["scheduler".to_owned()],
            clock: Clock::System,
            workers: 2,
            confirm_within_seconds: 300,
            operators: Vec::new(),
            snapshot_every: SNAPSHOT_EVERY,
            checkpoint_every_seconds: CHECKPOINT_EVERY_SECONDS,
            personal_for_seconds: None,
            witnesses: Witnesses::default(),
            watch: None,
            tls: None,
        }
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The first setting that cannot be served.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            let value = u64::try_from(self.workers).unwrap_or(u64::MAX);
            return Err(SettingsError::Range { name: "workers", value, range: "1..=128" });
        }
        if !(1..=MAX_CONFIRM_WITHIN_SECONDS).contains(&self.confirm_within_seconds) {
            return Err(SettingsError::Range {
                name: "confirm-within",
                value: self.confirm_within_seconds,
                range: "1..=86400 seconds",
            });
        }
        if let Some(watch) = self.watch.filter(|watch| watch.is_zero() || *watch > MAX_WATCH) {
            let (value, range) = (watch.as_secs(), "1..=3600 seconds");
            return Err(SettingsError::Range { name: "watch", value, range });
        }
        if self.checkpoint_every_seconds > MAX_CHECKPOINT_EVERY_SECONDS {
            return Err(SettingsError::Range {
                name: "checkpoint-every",
                value: self.checkpoint_every_seconds,
                range: "0..=3600 seconds",
            });
        }
        let kept = self.personal_for_seconds;
        if let Some(value) = kept.filter(|kept| !PERSONAL_RANGE.contains(kept)) {
            let range = "3600..=3155760000 seconds";
            return Err(SettingsError::Range { name: "personal-for", value, range });
        }
        if self.checkpoint_every_seconds == 0 && !self.witnesses.as_slice().is_empty() {
            return Err(SettingsError::Witnesses);
        }
        let every = Some(self.snapshot_every).filter(|every| *every > 0);
        if let Some(value) = every.filter(|every| !SNAPSHOT_RANGE.contains(every)) {
            let range = "0 or 1000..=1000000000 leaves";
            return Err(SettingsError::Range { name: "snapshot-every", value, range });
        }
        if self.issuer.is_empty() {
            return Err(SettingsError::Empty { name: "issuer" });
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return Err(SettingsError::Empty { name: "audience" });
        }
        if self.tls.is_none() && !self.listen.ip().is_loopback() {
            return Err(SettingsError::PlainText { name: "listen", address: self.listen });
        }
        // Metrics, health and public keys have no TLS of their own: a scraper runs beside the
        // server.
        if !self.http.ip().is_loopback() {
            return Err(SettingsError::PlainText { name: "http", address: self.http });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Settings {
        Settings::local("b".into(), "f".into(), Path::new("s"))
    }

    #[test]
    fn plain_text_is_served_on_loopback_only() {
        assert!(good().check().is_ok());
        let open = Settings { listen: "0.0.0.0:7443".parse().unwrap(), ..good() };
        let error = open.check().unwrap_err().to_string();
        assert!(error.contains("`listen`") && error.contains("tls-cert"), "{error}");
        let http = Settings { http: "10.0.0.1:80".parse().unwrap(), ..good() };
        assert!(http.check().is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused_by_name() {
        for (settings, name) in [
            (Settings { workers: 0, ..good() }, "workers"),
            (Settings { workers: 129, ..good() }, "workers"),
            (Settings { confirm_within_seconds: 0, ..good() }, "confirm-within"),
            (Settings { watch: Some(MAX_WATCH * 2), ..good() }, "watch"),
            (Settings { watch: Some(Duration::ZERO), ..good() }, "`watch` is 0, but must be 1..="),
            (Settings { snapshot_every: 999, ..good() }, "`snapshot-every` is 999"),
            (Settings { personal_for_seconds: Some(3_599), ..good() }, "`personal-for` is 3599"),
            (Settings { checkpoint_every_seconds: 3_601, ..good() }, "`checkpoint-every` is 3601"),
            (Settings { audience: vec![], ..good() }, "audience"),
            (Settings { issuer: String::new(), ..good() }, "issuer"),
        ] {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
