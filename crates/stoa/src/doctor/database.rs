//! The checksum database by every road to it: whether it is passed on, what it has on record, whether that is proven, and
//! whether its tree continues the one that this server knows.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use stoa_module::{ErrorClass, ModuleVersion};
use stoa_store::Places;
use stoa_sumdb::{
    Lookup, Plan, Proven, RecordHashes, SignedTreeHead, Tile, VerifierKey, lookup_path,
};
use stoa_upstream::{Failure, Source, Use};

use super::looked::{Looked, Means, Outcome, beginning};
use super::verdict::Verdict;

const TILES_AT_ONCE: usize = 8;
/// For a small file of ours; a disk that hangs is told of elsewhere.
const DISK: Duration = Duration::from_secs(5);

/// One way to read it.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) source: Source,
    /// `sumdb/NAME/` through a proxy or a directory, nothing directly.
    pub(crate) prefix: String,
}

impl Road {
    pub(crate) fn is_direct(&self) -> bool {
        self.prefix.is_empty()
    }
}

/// What is known of the database before it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) key: VerifierKey,
    /// The newest tree head in the data directory.
    pub(crate) head: Option<SignedTreeHead>,
}

/// What came by one road.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) looked: Looked,
    /// Of the version that was asked about.
    pub(crate) record: Option<RecordHashes>,
    /// It says here that there is no record.
    pub(crate) no_record: bool,
}

/// The newest tree head that the server of a data directory has proven.
pub(crate) async fn stored_head(dir: &Path, key: &VerifierKey) -> Option<SignedTreeHead> {
    let path = Places::of(dir).tree_head(key.name()).ok()?;
    let note = tokio::time::timeout(DISK, fs_err::tokio::read(path)).await.ok()?.ok()?;
    SignedTreeHead::open(&note, key).ok()
}

/// Reads the database's newest tree head by one road. No module's name is told.
pub(crate) async fn look(means: &Means, road: &Road, role: String, known: &Known) -> Read {
    let name = if road.is_direct() {
        road.source.name()
    } else {
        format!("{} through {}", known.key.name(), road.source.name())
    };
    let mut read = Read { looked: Looked::new(name, role), record: None, no_record: false };
    read.looked.outcome = match is_road(means, road, &mut read).await {
        Outcome::Has => ask(means, road, known, None, &mut read).await,
        other => other,
    };
    read
}

/// Asks for the record of a version by a road that works.
pub(crate) async fn look_up(
    means: &Means,
    road: &Road,
    known: &Known,
    module: &ModuleVersion,
    read: &mut Read,
) {
    read.looked.outcome = ask(means, road, known, Some(module), read).await;
}

/// Whether the database may be read there.
async fn is_road(means: &Means, road: &Road, read: &mut Read) -> Outcome {
    if road.is_direct() {
        let Source::Http(base) = &road.source else { return Outcome::Has };
        let examined = means.client.examine_source(base, "latest", &means.limits).await;
        return if read.looked.reached(examined) { Outcome::Has } else { Outcome::Failed };
    }
    let began = Instant::now();
    let path = format!("{}supported", road.prefix);
    match means.get(&road.source, Use::Database, &path).await {
        Ok(_) => {
            read.looked.ok("supported", "it passes the database on", began.elapsed());
            Outcome::Has
        }
        Err(failure) if failure.class == ErrorClass::NotFound => {
            read.looked.note("supported", "it does not pass the database on", began.elapsed());
            Outcome::Absent
        }
        Err(failure) => {
            read.looked.failed("supported", &failure, began.elapsed());
            Outcome::Failed
        }
    }
}

async fn ask(
    means: &Means,
    road: &Road,
    known: &Known,
    module: Option<&ModuleVersion>,
    read: &mut Read,
) -> Outcome {
    let began = Instant::now();
    let (step, file) = match module {
        Some(module) => ("lookup", lookup_path(module)),
        None => ("latest", "latest".to_owned()),
    };
    let body = match means.get(&road.source, Use::Database, &format!("{}{file}", road.prefix)).await
    {
        Ok(body) => body,
        Err(failure) => return absent_or_failed(read, step, module, &failure, began.elapsed()),
    };
    let took = began.elapsed();
    let (signed, lookup) = match opened(&body, &known.key, module) {
        Ok(opened) => opened,
        Err(error) => {
            let text = format!("{error}: {}", beginning(&body));
            read.looked.sign("signature", Verdict::DatabaseUnproven, text, took);
            return Outcome::Failed;
        }
    };
    let mut hashes = None;
    if let (Some(lookup), Some(module)) = (&lookup, module) {
        let found = match lookup.hashes(module) {
            Ok(found) => found,
            Err(error) => {
                read.looked.sign(step, Verdict::DatabaseUnproven, error.to_string(), took);
                return Outcome::Failed;
            }
        };
        let shown = found.zip.map_or("no hash of the zip".to_owned(), |h1| h1.to_string());
        read.looked.ok(step, format!("record {}: {shown}", lookup.id), took);
        hashes = Some(found);
    } else {
        read.looked.ok(step, format!("a tree of {} records", signed.head.size), took);
    }
    if module.is_none() {
        let text = format!("by the key of {}", known.key.name());
        read.looked.ok("signature", text, Duration::ZERO);
    }
    let outcome = prove(means, road, known, &signed, lookup.as_ref(), read).await;
    if outcome == Outcome::Has {
        read.record = hashes;
    }
    outcome
}

fn absent_or_failed(
    read: &mut Read,
    step: &str,
    module: Option<&ModuleVersion>,
    failure: &Failure,
    took: Duration,
) -> Outcome {
    if failure.class == ErrorClass::NotFound && module.is_some() {
        read.no_record = true;
        let words = failure.text.as_ref().map(|text| format!(": {text}")).unwrap_or_default();
        read.looked.note(step, format!("no record of it{words}"), took);
        return Outcome::Absent;
    }
    if failure.class == ErrorClass::NotFound {
        let text = "no tree head there: this is no checksum database".to_owned();
        read.looked.sign(step, Verdict::DatabaseUnproven, text, took);
    } else {
        read.looked.failed(step, failure, took);
    }
    Outcome::Failed
}

fn opened(
    body: &Bytes,
    key: &VerifierKey,
    module: Option<&ModuleVersion>,
) -> Result<(SignedTreeHead, Option<Lookup>), stoa_sumdb::Error> {
    if module.is_none() {
        return Ok((SignedTreeHead::open(body, key)?, None));
    }
    let lookup = Lookup::open(body, key)?;
    Ok((lookup.signed.clone(), Some(lookup)))
}

/// That the record is in the signed tree, and that this tree and the known one are one history.
async fn prove(
    means: &Means,
    road: &Road,
    known: &Known,
    signed: &SignedTreeHead,
    lookup: Option<&Lookup>,
    read: &mut Read,
) -> Outcome {
    let began = Instant::now();
    let (newer, older) = match &known.head {
        Some(head) if head.head.size >= signed.head.size => (head, Some(signed)),
        Some(head) => (signed, Some(head)),
        None => (signed, None),
    };
    let proven = match tiles(means, road, newer, older, lookup).await {
        Ok(proven) => proven,
        Err(Unproven::Failed(failure)) => {
            read.looked.failed("tile", &failure, began.elapsed());
            return Outcome::Failed;
        }
        Err(Unproven::Wrong(error)) => {
            let verdict = Verdict::DatabaseUnproven;
            read.looked.sign("tile", verdict, error.to_string(), began.elapsed());
            return Outcome::Failed;
        }
    };
    let took = began.elapsed();
    if let Some(lookup) = lookup
        && proven.record_hash(lookup.id) != Some(lookup.record_hash())
    {
        let text = format!("record {} is not the one in the signed tree", lookup.id);
        read.looked.sign("tile", Verdict::DatabaseUnproven, text, took);
        return Outcome::Failed;
    }
    if let Some(older) = older {
        let hash = if older.head.size == newer.head.size {
            Some(newer.head.hash)
        } else {
            proven.tree_hash(older.head.size)
        };
        if older.head.size > 0 && hash != Some(older.head.hash) {
            let text = format!(
                "the signed tree of {} records is not the beginning of the signed tree of {} records",
                older.head.size, newer.head.size,
            );
            read.looked.sign("tree", Verdict::TreeForked, text, took);
            // Both are the evidence.
            for (which, head) in [("newer", newer), ("older", older)] {
                let note = String::from_utf8_lossy(&head.note);
                let text = format!("the {which} head: {note:?}");
                read.looked.sign("tree", Verdict::TreeForked, text, took);
            }
            return Outcome::Failed;
        }
        read.looked.ok(
            "tile",
            "the tree is proven, and continues the one that is known here",
            took,
        );
    } else {
        read.looked.ok("tile", "the tree is proven; none is known here to compare it with", took);
    }
    Outcome::Has
}

enum Unproven {
    Failed(Failure),
    Wrong(stoa_sumdb::Error),
}

async fn tiles(
    means: &Means,
    road: &Road,
    newer: &SignedTreeHead,
    older: Option<&SignedTreeHead>,
    lookup: Option<&Lookup>,
) -> Result<Proven, Unproven> {
    let mut plan = Plan::new(newer.head);
    if let Some(older) = older.filter(|older| older.head.size < newer.head.size) {
        plan = plan.tree(older.head.size).map_err(Unproven::Wrong)?;
    }
    if let Some(lookup) = lookup {
        plan = plan.record(lookup.id).map_err(Unproven::Wrong)?;
    }
    let fetched: HashMap<Tile, Bytes> = futures_util::stream::iter(plan.tiles())
        .map(|tile| async move {
            let path = format!("{}{}", road.prefix, tile.path());
            let body = means.get(&road.source, Use::Database, &path).await;
            body.map(|body| (tile, body)).map_err(Unproven::Failed)
        })
        .buffer_unordered(TILES_AT_ONCE)
        .try_collect()
        .await?;
    plan.authenticate(fetched).map_err(Unproven::Wrong)
}
