//! What the writer tells of its ledger: a page at a time, of what is durable.

use super::writer::Writer;
use super::{Command, Reply, SequencerError};
use crate::quota::{AccountUse, Due, Reservation};
use placet_core::AccountPath;

/// A page of accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageReport {
    /// Position of the last leaf of the log that is included.
    pub position: u64,
    /// The ledger's time, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// The page: at most [`crate::quota::MAX_USAGE_PAGE`], unless the accounts were named.
    pub accounts: Vec<AccountUse>,
    /// Where the next page begins, if there may be one.
    pub next: Option<AccountPath>,
    /// How many accounts the ledger has.
    pub total: usize,
    /// How many reservations it holds.
    pub live: usize,
}

/// A page of reservations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReservationsReport {
    /// Position of the last leaf of the log that is included.
    pub position: u64,
    /// The ledger's time, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// The page: at most [`crate::quota::MAX_RESERVATIONS_PAGE`].
    pub reservations: Vec<Reservation>,
    /// Where the next page begins, if there may be one.
    pub next: Option<Due>,
}

impl Command {
    /// Whether it only looks at the ledger.
    pub(super) fn looks(&self) -> bool {
        matches!(self, Self::Usage(..) | Self::Reservations(..))
    }
}

impl Writer {
    /// The answer to a command that only looks. To be worked out when the batch is durable.
    pub(super) fn report(&self, command: &Command) -> Result<Reply, SequencerError> {
        match command {
            Command::Usage(accounts, at_least) => {
                let (position, time) = self.place(*at_least)?;
                let (accounts, next) = self.names.page(&self.ledger, accounts);
                let (total, live) = (self.ledger.account_count(), self.ledger.live());
                let report = UsageReport { position, time, accounts, next, total, live };
                Ok(Reply::Usage(Box::new(report)))
            }
            Command::Reservations(filter, after, most, at_least) => {
                let (position, time) = self.place(*at_least)?;
                let (reservations, next) = self.ledger.reservations(filter, after.as_ref(), *most);
                let report = ReservationsReport { position, time, reservations, next };
                Ok(Reply::Reservations(Box::new(report)))
            }
            // INVARIANT: no other command is answered with a report; see `Stage::command`.
            _ => Err(SequencerError::Stopped),
        }
    }

    /// What the ledger stands for: the last position of the log, and the time.
    fn place(&self, at_least: Option<u64>) -> Result<(u64, u64), SequencerError> {
        let size = self.tree.size();
        match at_least.filter(|at_least| *at_least >= size) {
            Some(at_least) => Err(SequencerError::PositionAhead { at_least, size }),
            // A log has its genesis from the first moment on.
            None => Ok((size.saturating_sub(1), self.ledger.now())),
        }
    }
}
