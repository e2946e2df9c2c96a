//! The checksum database as this server uses it, and as it passes it on to clients.
//!
//! The mathematics is `stoa-sumdb`'s; here is the road to the data and what is kept of it. A database is read through
//! the proxies of a module's own chain that say `/sumdb/NAME/supported`, else directly; through its explicit URL alone
//! when `GOSUMDB` gives one. What arrives authenticates itself, so any road will do, and a road that failed is simply
//! tried again later. A *fork* (two signed trees of which neither continues the other) is never tried again within a
//! request: asking until somebody gives a pleasing answer is what the attacker hopes for.
//!
//! # What is on disk
//!
//! Under `cache/download/sumdb/NAME/`, at the go command's own paths: `latest` (the newest tree head proven so far),
//! `lookup/M@V` (a record whose inclusion is proven), `tile/8/…` (authenticated tiles). A lookup is written after the
//! tiles that prove it, so that whatever is there can be proven offline:
//!
//! * each lookup's tree head is proven to be a prefix of ours (or ours of it, and then it becomes ours), which reads
//!   every tile on its right edge; the partial ones are also written at the widths of *that* tree, because a client
//!   without a network asks for exactly these;
//! * when our head advances, the same proof reads again, wider, every tile that was partial in the old tree. So for
//!   every record once proven all its tiles in the newest tree are here, and narrower ones follow from wider ones.

mod lookups;
mod passed_on;
mod proof;
mod roads;
mod tiles;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use stoa_module::{ErrorClass, ModuleVersion};
use stoa_store::Store;
use stoa_sumdb::{RecordHashes, SignedTreeHead, Tile, VerifierKey, lookup_path};
use stoa_upstream::journey::Said;
use stoa_upstream::{Bounds, Chain, Client, Failure, Source, Use};
use tokio::sync::OnceCell;
use tracing::{debug, error, warn};
use url::Url;

use crate::absent::{Asked, ECHO, Verdict, Verdicts};
use crate::error::Error;
use crate::flight::{Flights, MOST_FLIGHTS};
use crate::heard::Heard;
use crate::mirror::{Landed, Routed, stoas_of};
use crate::sumdb::roads::{Road, Roads};
use crate::waits::Aloft;

/// How long the newest tree head counts as new.
const LATEST_TTL: Duration = Duration::from_mins(1);
/// How long a proxy's word about `/supported` is believed.
const SUPPORTED_TTL: Duration = Duration::from_mins(10);
const UNSUPPORTED_TTL: Duration = Duration::from_mins(1);
/// A tile has 8 KiB, a lookup and a tree head some hundred bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Tiles asked for at once; a cold proof needs about eight.
const TILES_AT_ONCE: usize = 16;
/// How long an absent record is remembered: its version may have been tagged just now.
const ABSENT_TTL: Duration = ECHO;
/// How long a contradiction is.
const SECURITY_TTL: Duration = Duration::from_mins(1);
const VERDICT_BYTES: u64 = 1 << 20;
const HEARD_BYTES: u64 = 256 << 10;
/// How long a tile that was read or written is remembered: longer than it takes to prove it and to write it. Proofs that run at
/// the same time need the same ones, and whoever looked at the disk before they were there comes when the flight is over.
const TILES_TTL: Duration = Duration::from_secs(10);
const TILES_READ_BYTES: u64 = 1 << 20;
const TILES_WRITTEN: u64 = 1024;
/// How long a proven record is in memory, and what all of them take; a build asks for thousands within a minute. What one
/// costs besides its text.
const KNOWN_TTL: Duration = Duration::from_mins(1);
const KNOWN_BYTES: u64 = 1 << 20;
const KNOWN_COST: u32 = 400;

#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    pub key: VerifierKey,
    /// Where it is reached without a proxy.
    pub direct: Url,
    /// `GOSUMDB` names that URL, which is then asked before the proxies.
    pub direct_first: bool,
    /// Bound on one lookup over one road.
    pub timeout: Duration,
    /// Bound on a road that has another behind it.
    pub alternative_timeout: Duration,
    /// Answer from the disk alone.
    pub offline: bool,
}

/// A checksum database: cheap to clone.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
}

struct Inner {
    settings: DatabaseSettings,
    store: Store,
    client: Client,
    direct: Source,
    /// The newest tree head that everything seen so far is consistent with.
    head: Mutex<Head>,
    /// Held while the head on disk is replaced.
    advancing: tokio::sync::Mutex<()>,
    latest_seen: Mutex<Option<Instant>>,
    supported: Mutex<HashMap<String, (bool, Instant)>>,
    asks: Arc<SupportAsks>,
    lookups: Arc<Flights<Routed<ModuleVersion>, Landed<LookedUp>>>,
    latest: Arc<Flights<Routed<()>, Landed<()>>>,
    tiles: Arc<Flights<Routed<Tile>, Landed<FoundTile>>>,
    /// Tiles on their way from one source, for proofs; and those that came a moment ago, as they came.
    reads: Arc<TileReads>,
    read_lately: Cache<TileRead, Bytes>,
    /// Proven tiles that are being written, or were a moment ago.
    written_lately: Cache<Tile, Arc<OnceCell<()>>>,
    verdicts: Verdicts,
    /// What was said when a record was looked up.
    heard: Heard,
    /// Records proven a moment ago, which are on the disk: the `.zip` of a version is asked for behind its `.mod`, and by the client's own look-up.
    known: Cache<ModuleVersion, LookedUp>,
    security_errors: AtomicU64,
}

#[derive(Debug, Default)]
struct Head {
    signed: Option<SignedTreeHead>,
    /// The size of the tree on disk, where that is an older one because the disk could not be written.
    written: Option<u64>,
}

/// By the source's address, and how long it may take.
type SupportAsks = Flights<Routed<(String, Duration)>, Result<bool, Failure>>;

/// By the source's address.
type TileRead = Routed<(String, Tile)>;
type TileReads = Flights<TileRead, Result<Bytes, Failure>>;

/// A proven record.
#[derive(Clone, Debug)]
pub(crate) struct LookedUp {
    /// As the database sent it.
    pub body: Bytes,
    pub hashes: RecordHashes,
    pub stored: bool,
}

/// A tile as it is handed to a client.
#[derive(Clone, Debug)]
pub(crate) struct FoundTile {
    pub body: Bytes,
    /// It was on the disk, or a wider one was.
    pub stored: bool,
    /// It is part of the newest tree that this server knows; others are passed on and not vouched for.
    pub proven: bool,
}

/// What is known of a record without asking anybody.
pub(crate) struct KnownRecord {
    pub stored: Option<RecordHashes>,
    /// Relative to the data directory.
    pub file: String,
    pub verdict: Option<Verdict>,
    pub said: Option<Arc<[Said]>>,
}

enum Refusal {
    /// This road failed; another may do.
    Failed(Failure),
    /// The database contradicts itself: no other road is asked.
    Security(Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Security(error) => error.fmt(f),
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Database {
    /// Reads the newest tree head from the store.
    pub async fn open(
        settings: DatabaseSettings,
        store: Store,
        client: Client,
    ) -> Result<Self, Error> {
        let name = settings.key.name().to_owned();
        let direct = Source::from_url(&settings.direct).map_err(|error| {
            Error::new(ErrorClass::Invalid, format!("checksum database {name}: {error}"))
        })?;
        let failed = |error: stoa_store::Error| Error::store(&format!("sumdb/{name}"), &error);
        let head = match store.sumdb_read(&name, "latest").await.map_err(failed)? {
            None => None,
            Some(note) => match SignedTreeHead::open(&note, &settings.key) {
                Ok(head) => Some(head),
                Err(error) => {
                    error!(sumdb = name, %error, "SECURITY: the stored tree head is damaged; a rollback since then cannot be noticed");
                    None
                }
            },
        };
        // A client with GOPROXY=file://…/cache/download asks for this file, and would dial the database without it.
        if store.sumdb_read(&name, "supported").await.map_err(failed)?.is_none()
            && let Err(error) = store.sumdb_write(&name, "supported", Bytes::new()).await
        {
            warn!(sumdb = name, %error, "cannot write the database's `supported` file");
        }
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                store,
                client,
                direct,
                head: Mutex::new(Head { signed: head, written: None }),
                advancing: tokio::sync::Mutex::new(()),
                latest_seen: Mutex::new(None),
                supported: Mutex::new(HashMap::new()),
                asks: Flights::new(MOST_FLIGHTS),
                lookups: Flights::new(MOST_FLIGHTS),
                latest: Flights::new(MOST_FLIGHTS),
                tiles: Flights::new(MOST_FLIGHTS),
                reads: Flights::new(MOST_FLIGHTS),
                read_lately: Cache::builder()
                    .max_capacity(TILES_READ_BYTES)
                    .eviction_policy(EvictionPolicy::lru())
                    .weigher(|_, body: &Bytes| u32::try_from(body.len()).unwrap_or(u32::MAX))
                    .time_to_live(TILES_TTL)
                    .build(),
                written_lately: Cache::builder()
                    .max_capacity(TILES_WRITTEN)
                    .eviction_policy(EvictionPolicy::lru())
                    .time_to_live(TILES_TTL)
                    .build(),
                verdicts: Verdicts::new(VERDICT_BYTES),
                heard: Heard::new(HEARD_BYTES),
                known: Cache::builder()
                    .max_capacity(KNOWN_BYTES)
                    .weigher(|_, found: &LookedUp| {
                        u32::try_from(found.body.len())
                            .unwrap_or(u32::MAX)
                            .saturating_add(KNOWN_COST)
                    })
                    .time_to_live(KNOWN_TTL)
                    .build(),
                security_errors: AtomicU64::new(0),
            }),
        })
    }

    pub fn name(&self) -> &str {
        self.inner.settings.key.name()
    }

    /// The record on the disk, whose proof is looked at; the file it is in; the verdict that stands; and what was said when
    /// it was last looked up.
    pub(crate) async fn known_of(&self, module: &ModuleVersion) -> KnownRecord {
        let about = Asked::Record(module.clone());
        KnownRecord {
            stored: self.stored_lookup(module).await.ok().flatten().map(|found| found.hashes),
            file: format!("cache/download/sumdb/{}/{}", self.name(), lookup_path(module)),
            verdict: self.inner.verdicts.recall(&about),
            said: self.inner.heard.of(&about),
        }
    }

    /// What is in the air for it.
    pub(crate) fn aloft(&self) -> Vec<Arc<Aloft>> {
        let inner = &self.inner;
        let mut aloft = inner.lookups.aloft();
        aloft.extend(inner.latest.aloft());
        aloft.extend(inner.tiles.aloft());
        aloft.extend(inner.reads.aloft());
        aloft.extend(inner.asks.aloft());
        aloft
    }

    /// Forks seen since the start.
    pub fn security_errors(&self) -> u64 {
        self.inner.security_errors.load(Ordering::Relaxed)
    }

    /// The record of `module`, proven to be in the tree.
    pub(crate) async fn lookup(
        &self,
        module: &ModuleVersion,
        chain: &Chain,
        via: &str,
    ) -> Result<LookedUp, Arc<Error>> {
        if let Some(known) = self.inner.known.get(module) {
            return Ok(known);
        }
        if let Some(stored) = self.stored_lookup(module).await? {
            self.inner.known.insert(module.clone(), stored.clone());
            return Ok(stored);
        }
        let asked = format!("checksum database record of {module}");
        if self.inner.settings.offline {
            return Err(Arc::new(Error::offline(&asked)));
        }
        let about = Asked::Record(module.clone());
        if let Some(verdict) = self.inner.verdicts.recall(&about) {
            return Err(verdict.error);
        }
        let work = {
            let (database, module, chain, via) =
                (self.clone(), module.clone(), chain.clone(), via.to_owned());
            move || async move {
                // The flight before this one may have ended since the disk was looked at.
                if let Some(known) = database.inner.known.get(&module) {
                    return Ok(known);
                }
                let looked_up = database.remote_lookup(&module, &chain, &via).await;
                database.inner.heard.note(&about);
                looked_up.map_err(|error| {
                    let error = Arc::new(error);
                    let keep = match error.class {
                        ErrorClass::NotFound => ABSENT_TTL,
                        ErrorClass::Mismatch => SECURITY_TTL,
                        _ => return error,
                    };
                    database.inner.verdicts.remember(&about, &error, keep);
                    error
                })
            }
        };
        let key = (module.clone(), stoas_of(via));
        let landed = self.inner.lookups.join(key, work).await;
        landed.unwrap_or_else(|grounded| Err(Error::grounded(&asked, grounded)))
    }

    /// The newest signed tree head, and whether it is known to be less than a minute old.
    pub(crate) async fn latest(
        &self,
        chain: &Chain,
        via: &str,
    ) -> Result<(Bytes, bool), Arc<Error>> {
        let fresh = {
            let seen = self.inner.latest_seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.is_some_and(|seen| seen.elapsed() < LATEST_TTL)
        };
        let refreshed = if fresh {
            Ok(())
        } else if self.inner.settings.offline {
            Err(Arc::new(Error::offline(&format!("sumdb/{}/latest", self.name()))))
        } else {
            self.refresh_latest(chain, via).await
        };
        match (refreshed, self.head()) {
            (Ok(()), Some(head)) => Ok((head.note, true)),
            (Err(error), Some(head)) if error.class != ErrorClass::Mismatch => {
                debug!(%error, "the stored tree head is answered");
                Ok((head.note, false))
            }
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(Arc::new(Error::lost(&format!("sumdb/{}/latest", self.name())))),
        }
    }

    /// A tile, from the disk (also cut from a wider one) or authenticated against the newest tree.
    pub(crate) async fn tile(
        &self,
        tile: Tile,
        chain: &Chain,
        via: &str,
    ) -> Result<FoundTile, Arc<Error>> {
        if let Some(body) = self.stored_tile(tile).await? {
            return Ok(FoundTile { body, stored: true, proven: true });
        }
        let asked = format!("sumdb/{}/{}", self.name(), tile.path());
        if self.inner.settings.offline {
            return Err(Arc::new(Error::offline(&asked).hint(format!(
                "the checksum database's tree that this client knows is not the one stored here; remove its \
                 pkg/sumdb/{} directory under GOPATH, or ask again while the server is online",
                self.name()
            ))));
        }
        let work = {
            let (database, chain, via, asked) =
                (self.clone(), chain.clone(), via.to_owned(), asked.clone());
            move || async move { database.remote_tile(tile, &asked, &chain, &via).await }
        };
        let landed = self.inner.tiles.join((tile, stoas_of(via)), work).await;
        landed.unwrap_or_else(|grounded| Err(Error::grounded(&asked, grounded)))
    }

    fn head(&self) -> Option<SignedTreeHead> {
        self.inner.head.lock().unwrap_or_else(PoisonError::into_inner).signed.clone()
    }

    async fn refresh_latest(&self, chain: &Chain, via: &str) -> Result<(), Arc<Error>> {
        let work = {
            let (database, chain, via) = (self.clone(), chain.clone(), via.to_owned());
            move || async move { database.remote_latest(&chain, &via).await.map_err(Arc::new) }
        };
        let landed = self.inner.latest.join(((), stoas_of(via)), work).await;
        landed.unwrap_or_else(|grounded| {
            Err(Error::grounded(&format!("sumdb/{}/latest", self.name()), grounded))
        })
    }

    async fn remote_latest(&self, chain: &Chain, via: &str) -> Result<(), Error> {
        let mut roads = Roads::new(self, chain, via);
        let mut failures = Vec::new();
        while let Some(road) = roads.next(&mut failures).await {
            let asking = async {
                let note = self.get(&road, "latest", roads.bound(), via).await?;
                let signed = SignedTreeHead::open(&note, &self.inner.settings.key)
                    .map_err(|error| road.failure(error.class(), error.to_string()))?;
                self.prove(&road, &roads, &signed, None).await.map(|_| ())
            };
            match road.visit(self.name()).during(asking).await {
                Ok(()) => {
                    let mut seen =
                        self.inner.latest_seen.lock().unwrap_or_else(PoisonError::into_inner);
                    *seen = Some(Instant::now());
                    return Ok(());
                }
                Err(Refusal::Security(error)) => return Err(error),
                Err(Refusal::Failed(failure)) => failures.push(failure),
            }
        }
        Err(Error::exhausted(&format!("sumdb/{}/latest", self.name()), failures))
    }

    /// What cannot be kept is still good to use: a full disk must not make the database unreachable. Answers whether it was
    /// kept.
    async fn keep(&self, file: &str, body: Bytes) -> bool {
        match self.inner.store.sumdb_write(self.name(), file, body).await {
            Ok(()) => true,
            // The log knows what is wrong with the disk.
            Err(stoa_store::Error::NotWritten(_)) => false,
            Err(error) => {
                warn!(sumdb = self.name(), file, %error, "cannot keep a checksum database file");
                false
            }
        }
    }

    async fn get(
        &self,
        road: &Road,
        path: &str,
        header: Duration,
        via: &str,
    ) -> Result<Bytes, Failure> {
        let path = format!("{}{path}", road.prefix);
        let bounds = Bounds { header, max_bytes: MAX_BYTES };
        self.inner.client.get(&road.source, Use::Database, &path, &bounds, via).await
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("name", &self.name()).finish_non_exhaustive()
    }
}
