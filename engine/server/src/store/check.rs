//! What folding the log does not read, checked: pages and indices, and what is stored beside the
//! leaves.

use placet_core::{Checkpoint, Decision, Digest, Event, Id, Leaf, merkle};

use super::reader::{self, ReadError};
use super::{Store, open};
use crate::log::read_claims;
use crate::name::decision_id;

/// Problems of pages that are told: the first ones say where the damage is.
const TOLD_PROBLEMS: i64 = 5;

/// What is wrong with a store whose log is whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckError {
    /// It cannot be read.
    #[error("the store cannot be read")]
    Read(#[from] ReadError),
    /// Pages of the file contradict one another.
    #[error("the database file is damaged: {}\n{restore}", .0.join("; "), restore = open::RESTORE)]
    Pages(Vec<String>),
    /// What is stored of a decision beside its leaf is not what was decided.
    #[error(
        "what is stored of the decision at position {position} is damaged: {what}\n{}",
        open::RESTORE
    )]
    Decision {
        /// Position of its leaf, from 0.
        position: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A checkpoint that was published is not one of this log.
    #[error(
        "the checkpoint number {number}, of {size} leaves, is damaged or of another log: \
         {what}\n{}",
        open::RESTORE
    )]
    Checkpoint {
        /// How many were made before it.
        number: u64,
        /// Leaves that it names.
        size: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// There is more than there are decisions.
    #[error("`{table}` has {found} rows for {decisions} decisions\n{}", open::RESTORE)]
    Rows {
        /// Which table.
        table: &'static str,
        /// How many rows it has.
        found: u64,
        /// How many it should have.
        decisions: u64,
    },
}

impl Store {
    /// Checks the pages of the file, and that each decision of the log is found by its request,
    /// with the evidence that it names, and no others are. Reads everything.
    ///
    /// Personal values may have been erased; that there are fewer of them is no fault.
    ///
    /// # Errors
    /// [`CheckError`]: the first that is wrong. Otherwise how many decisions there are.
    pub fn check(&self) -> Result<u64, CheckError> {
        self.check_pages()?;
        // A log whose first leaf is no genesis has no decision that could be found.
        let name = self.name()?.unwrap_or_default();
        let (mut position, mut decisions) = (0_u64, 0_u64);
        self.for_each_leaf(0, |bytes| {
            self.check_leaf(position, bytes, &name, &mut decisions)?;
            position = position.saturating_add(1);
            Ok::<(), CheckError>(())
        })?;
        let by_request = match self.version {
            1 => ("requests", "SELECT count(*) FROM requests"),
            _ => ("decisions", "SELECT count(*) FROM decisions"),
        };
        for (table, count) in [by_request, ("evidence", "SELECT count(*) FROM evidence")] {
            let found = self.count(count)?;
            if found != decisions {
                return Err(CheckError::Rows { table, found, decisions });
            }
        }
        self.check_checkpoints()?;
        Ok(decisions)
    }

    /// Holds every checkpoint that was ever published against the log. Their signatures are not
    /// looked at: keys may have been retired since.
    fn check_checkpoints(&self) -> Result<(), CheckError> {
        let connection = self.connection()?;
        // A store that no later version has opened has none.
        let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'checkpoints'";
        if self.count(table)? == 0 {
            return Ok(());
        }
        let made = reader::checkpoint_count(connection)?;
        let Some(origin) = self.origin()?.filter(|_| made > 0) else { return Ok(()) };
        let (leaves, mut before) = (self.size()?, 0);
        for number in 0..made {
            let stored = reader::checkpoint(connection, number)?;
            let size = stored.size;
            let wrong = |what| Err(CheckError::Checkpoint { number, size, what });
            // INVARIANT: checkpoints only grow, and each is of the log as it was then.
            if size > leaves {
                return wrong("the log is shorter");
            }
            if size < before {
                return wrong("one before it has more");
            }
            before = size;
            let read = |numbers: &[u64]| reader::hashes(connection, numbers);
            let Ok(root) = merkle::root(size, read) else {
                return wrong("its root cannot be worked out");
            };
            let expected = Checkpoint { origin: origin.clone(), root, size };
            if !is_of(&stored.note, &expected) {
                return wrong("the log has another root there");
            }
        }
        Ok(())
    }

    fn check_pages(&self) -> Result<(), CheckError> {
        let connection = self.connection()?;
        let problems: Vec<String> = connection
            .prepare(&format!("PRAGMA integrity_check({TOLD_PROBLEMS})"))
            .and_then(|mut check| check.query_map([], |row| row.get(0))?.collect())
            .map_err(ReadError::of)?;
        if problems.iter().any(|line| line != "ok") {
            let lines = problems.iter().flat_map(|text| text.lines());
            return Err(CheckError::Pages(lines.map(str::to_owned).collect()));
        }
        Ok(())
    }

    fn check_leaf(
        &self,
        position: u64,
        bytes: &[u8],
        name: &str,
        decisions: &mut u64,
    ) -> Result<(), CheckError> {
        let wrong = |what| CheckError::Decision { position, what };
        let leaf: Leaf =
            serde_json::from_slice(bytes).map_err(|_malformed| wrong("its leaf is no leaf"))?;
        let Event::Decision { caller, token } = leaf.event else { return Ok(()) };
        let decision =
            read_claims(&token).map_err(|_malformed| wrong("its claims cannot be read"))?;
        *decisions = decisions.saturating_add(1);
        self.check_decision(position, name, &caller, &decision)
    }

    fn check_decision(
        &self,
        position: u64,
        name: &str,
        caller: &Id,
        decision: &Decision,
    ) -> Result<(), CheckError> {
        let wrong = |what| Err(CheckError::Decision { position, what });
        if decision_id(name, caller, &decision.request_id) != decision.jti {
            return wrong("its name is not that of its request");
        }
        // INVARIANT: a request that was decided is found by its id: a retry is never decided anew.
        match self.decision(name, caller, &decision.request_id)? {
            Some(stored) if stored.position != position => {
                return wrong("its request leads to another decision");
            }
            Some(stored) if stored.request_digest != decision.request_digest => {
                return wrong("its request is another one");
            }
            Some(_) => {}
            None => return wrong("its request is missing"),
        }
        let Some((input, evaluation)) = reader::evidence(self.connection()?, position)? else {
            return wrong("its evidence is missing");
        };
        if input.as_deref().map(Digest::of) != decision.input_digest {
            return wrong("its input is another one");
        }
        if Digest::of(&evaluation) != decision.evaluation_digest {
            return wrong("its evaluation is another one");
        }
        Ok(())
    }

    fn count(&self, query: &str) -> Result<u64, ReadError> {
        let count = self.connection()?.query_row(query, [], |row| row.get::<_, i64>(0));
        count.map_err(ReadError::of).and_then(reader::from_sql)
    }
}

/// Whether a signed note says what a checkpoint does; its signature is another matter.
pub(crate) fn is_of(note: &str, checkpoint: &Checkpoint) -> bool {
    note.strip_prefix(&checkpoint.text()).is_some_and(|rest| rest.starts_with('\n'))
}
