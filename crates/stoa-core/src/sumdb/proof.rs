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
    /// two our newest.
    pub(super) async fn prove(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        signed: &SignedTreeHead,
        record: Option<&Lookup>,
    ) -> Result<(), Refusal> {
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
            let (proven, fetched) = self.authenticated(road, roads, &plan).await?;
            if let Some(older) = older {
                let hash = if older.head.size == newer.head.size {
                    Some(newer.head.hash)
                } else {
                    proven.tree_hash(older.head.size)
                };
                if hash != Some(older.head.hash) {
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
            self.keep_tiles(&proven, fetched).await;
            self.keep_edge(signed, newer, &proven).await;
            if known.as_ref().is_some_and(|known| known.head.size >= signed.head.size)
                || self.advance(known.as_ref(), signed).await
            {
                return Ok(());
            }
            // Somebody else's head became the newest meanwhile: prove against that one.
        }
        Err(Refusal::Failed(road.failure(
            ErrorClass::Unavailable,
            "the tree head changed too often during one proof".to_owned(),
        )))
    }

    /// Compare-and-swap of the newest tree head, in memory and on disk.
    async fn advance(&self, known: Option<&SignedTreeHead>, signed: &SignedTreeHead) -> bool {
        let _alone = self.inner.advancing.lock().await;
        if self.head().as_ref().map(|head| head.head) != known.map(|head| head.head) {
            return false;
        }
        self.keep("latest", signed.note.clone()).await;
        *self.inner.head.lock().unwrap_or_else(PoisonError::into_inner) = Some(signed.clone());
        true
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
                return Err(road.failure(error.class(), error.to_string()).into());
            }
            warn!(sumdb = self.name(), %error, "a stored tile does not fit and is fetched anew");
            data.extend(self.fetch_tiles(road, roads, &suspects).await?);
            fetched.extend(suspects);
        }
    }
}
