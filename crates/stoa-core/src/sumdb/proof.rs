//! Proofs: that a record is in the tree, that two signed trees are one history, and which of them is the newest.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use stoa_module::ErrorClass;
use stoa_sumdb::{Lookup, Plan, Proven, SignedTreeHead, Tile};
use tracing::{error, warn};

use crate::error::Error;
use crate::sumdb::roads::{Road, Roads};
use crate::sumdb::{Database, Refusal};

/// A tree that grows under a proof makes it begin again; more often than this is not growth.
const MAX_RACES: usize = 16;

impl Database {
    /// Proves that `signed` and our newest tree are one history, that `record` is in it, and makes the larger of the
    /// two our newest. Answers whether everything that proves it is on disk.
    pub(super) async fn prove(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        signed: &SignedTreeHead,
        record: Option<&Lookup>,
    ) -> Result<bool, Refusal> {
        let corrupt = |error: stoa_sumdb::Error| road.failure(error.class(), error.to_string());
        for _ in 0..MAX_RACES {
            let known = self.head();
            let (newer, older) = match &known {
                Some(known) if known.head.size >= signed.head.size => (known, Some(signed)),
                Some(known) => (signed, Some(known)),
                None => (signed, None),
            };
            let older = older.filter(|older| older.head.size > 0);
            let mut plan = Plan::new(newer.head);
            if let Some(older) = older
                && older.head.size < newer.head.size
            {
                plan = plan.tree(older.head.size).map_err(corrupt)?;
            }
            if let Some(record) = record {
                plan = plan.record(record.id).map_err(corrupt)?;
            }
            // While the disk could not be written our head went on without it. The tiles that were partial when the disk
            // stood still are read again, wider, as they would have been then.
            let written = self.written_size();
            let catches_up = written.filter(|&size| {
                let since = older.map_or(0, |older| older.head.size);
                size > 0 && size < newer.head.size && size != since
            });
            if let Some(size) = catches_up {
                plan = plan.tree(size).map_err(corrupt)?;
            }
            let (proven, fetched) = self.authenticated(road, roads, &plan).await?;
            if let Some(older) = older {
                let hash = if older.head.size == newer.head.size {
                    Some(newer.head.hash)
                } else {
                    proven.tree_hash(older.head.size)
                };
                if hash != Some(older.head.hash) {
                    self.forget_tiles(road, roads, &fetched);
                    return Err(Refusal::Security(self.fork(road, older, newer)));
                }
            }
            if let Some(record) = record
                && proven.record_hash(record.id) != Some(record.record_hash())
            {
                return Err(Refusal::Failed(road.failure(
                    ErrorClass::Corrupt,
                    format!("record {} is not the one in the tree", record.id),
                )));
            }
            let kept = self.keep_tiles(&proven, fetched).await
                && self.keep_edge(signed, newer, &proven).await;
            let advances = known.as_ref().is_none_or(|known| known.head.size < signed.head.size);
            if self.advance(known.as_ref(), newer, kept, written).await || !advances {
                return Ok(kept);
            }
            // Somebody else's head became the newest meanwhile: prove against that one.
        }
        Err(Refusal::Failed(road.failure(
            ErrorClass::Unavailable,
            "the tree head changed too often during one proof".to_owned(),
        )))
    }

    /// Compare-and-swap of the newest tree head, in memory, and on disk if the tiles that prove it are there. Without them
    /// the disk would know a tree that it cannot prove; and a head that is only in memory is minded all the same. `written`
    /// is what the disk had to catch up with when the tiles were planned.
    async fn advance(
        &self,
        known: Option<&SignedTreeHead>,
        newer: &SignedTreeHead,
        kept: bool,
        written: Option<u64>,
    ) -> bool {
        if known.is_some_and(|known| known.head == newer.head) && self.written_size().is_none() {
            return true;
        }
        let _alone = self.inner.advancing.lock().await;
        if self.head().as_ref().map(|head| head.head) != known.map(|head| head.head) {
            return false;
        }
        let head = || self.inner.head.lock().unwrap_or_else(PoisonError::into_inner);
        let caught_up = kept && head().written == written;
        let on_disk = caught_up && self.keep("latest", newer.note.clone()).await;
        let mut head = head();
        let had = head.signed.replace(newer.clone());
        if on_disk {
            head.written = None;
        } else if head.written.is_none() {
            head.written = Some(had.map_or(0, |had| had.head.size));
        }
        true
    }

    /// The size of the tree on disk where that is not our newest, and the disk can be written again.
    fn written_size(&self) -> Option<u64> {
        let written = self.inner.head.lock().unwrap_or_else(PoisonError::into_inner).written;
        written.filter(|_| self.inner.store.trouble().is_none())
    }

    fn fork(&self, road: &Road, older: &SignedTreeHead, newer: &SignedTreeHead) -> Error {
        self.inner.security_errors.fetch_add(1, Ordering::Relaxed);
        let name = self.name();
        // Both signed notes are the evidence: together they prove what the database's operator did.
        error!(
            sumdb = name,
            source = %road.source,
            older = %String::from_utf8_lossy(&older.note),
            newer = %String::from_utf8_lossy(&newer.note),
            "SECURITY: the checksum database has signed two trees that contradict each other"
        );
        Error::new(
            ErrorClass::Mismatch,
            format!(
                "SECURITY ERROR: the checksum database {name} contradicts itself: its tree of {} records is not the \
                 beginning of its tree of {} records",
                older.head.size, newer.head.size
            ),
        )
        .hint("nothing is handed out on this evidence; the server's log holds both signed tree heads")
        .because(vec![road.failure(ErrorClass::Mismatch, "forked tree".to_owned())])
    }

    /// Reads the plan's tiles and authenticates them against the plan's head. Answers which of them came from afar; they
    /// may be kept once that head is known to be one with ours.
    pub(super) async fn authenticated(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        plan: &Plan,
    ) -> Result<(Proven, Vec<Tile>), Refusal> {
        let tiles = plan.tiles();
        let mut data = self.stored_tiles(&tiles).await;
        let mut fetched: Vec<Tile> =
            tiles.iter().copied().filter(|tile| !data.contains_key(tile)).collect();
        data.extend(self.fetch_tiles(road, roads, &fetched).await?);
        loop {
            let error = match plan.authenticate(data.clone()) {
                Ok(proven) => return Ok((proven, fetched)),
                Err(error) => error,
            };
            // A tile of our own disk may be the bad one: it is fetched anew, once.
            let suspects: Vec<Tile> =
                error.suspects().iter().copied().filter(|tile| !fetched.contains(tile)).collect();
            if suspects.is_empty() {
                self.forget_tiles(road, roads, &fetched);
                return Err(road.failure(error.class(), error.to_string()).into());
            }
            warn!(sumdb = self.name(), %error, "a stored tile does not fit and is fetched anew");
            self.forget_tiles(road, roads, &suspects);
            data.extend(self.fetch_tiles(road, roads, &suspects).await?);
            fetched.extend(suspects);
        }
    }
}
