//! Proofs about the published log.

use std::sync::Arc;
use std::time::Duration;

use placet_core::merkle::{ConsistencyProof, InclusionProof, TreeError};
use placet_core::{Digest, Receipt, ReceiptError};

use super::files::{FileError, Files};
use crate::sequencer::{Published, Shown};
use crate::store::ReadError;

impl Files {
    /// The newest checkpoint that at least so many witnesses cosigned, as soon as it reaches so
    /// many leaves, or what there is after so long.
    pub(crate) async fn reaching(
        &self,
        size: u64,
        witnesses: usize,
        within: Duration,
    ) -> Option<Arc<Published>> {
        let reaches = |shown: &Shown| {
            shown.at_least(witnesses).is_some_and(|published| published.head.size >= size)
        };
        let mut published = self.published.clone();
        // When the time is over, or nobody makes checkpoints any more, what there is is the answer.
        drop(tokio::time::timeout(within, published.wait_for(reaches)).await);
        self.checkpoint_with(witnesses)
    }

    /// The receipt of a leaf that a published log has.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) async fn receipt(
        &self,
        position: u64,
        published: Arc<Published>,
    ) -> Result<Receipt, FileError> {
        let (size, note) = (published.head.size, published.note.clone());
        self.read(move |reader| {
            let leaf = reader.leaves(position, position.saturating_add(1))?.pop();
            let leaf = leaf.ok_or(ReadError::Damaged("a leaf is missing"))?;
            let proof = InclusionProof::new(position, size, |numbers| reader.hashes(numbers));
            let proof = proof.map_err(not_proved)?;
            Receipt::new(leaf, position, proof, note).map_err(|_impossible: ReceiptError| {
                ReadError::Damaged("what is stored makes no receipt")
            })
        })
        .await
    }

    /// The proof that a published log of `new` leaves begins with that of `old` leaves, 1 or more.
    ///
    /// # Errors
    /// [`FileError`].
    pub(crate) async fn consistency(&self, old: u64, new: u64) -> Result<Vec<Digest>, FileError> {
        self.read(move |reader| {
            let proof = ConsistencyProof::new(old, new, |numbers| reader.hashes(numbers));
            Ok(proof.map_err(not_proved)?.hashes)
        })
        .await
    }
}

fn not_proved(error: TreeError<ReadError>) -> ReadError {
    match error {
        TreeError::Store(error) => error,
        _ => ReadError::Damaged("the hashes of the tree are not those of its size"),
    }
}
