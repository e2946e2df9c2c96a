//! Tiles: from the disk, also cut from wider ones; from a road, each once however many proofs wait for it; and back to
//! the disk when they are proven.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use stoa_module::ErrorClass;
use stoa_sumdb::{Plan, Proven, SignedTreeHead, Tile, TileLevel, right_edge};
use stoa_upstream::{Chain, Failure};

use crate::error::Error;
use crate::mirror::stoas_of;
use crate::sumdb::roads::{Road, Roads};
use crate::sumdb::{Database, FoundTile, Refusal, TILES_AT_ONCE, TileRead};

impl Database {
    pub(super) async fn remote_tile(
        &self,
        tile: Tile,
        asked: &str,
        chain: &Chain,
        via: &str,
    ) -> Result<FoundTile, Arc<Error>> {
        let known = |head: &SignedTreeHead| tile.exists_in(head.head.size);
        if !self.head().as_ref().is_some_and(known) {
            // The client knows a newer tree than we do, however young ours is.
            self.refresh_latest(chain, via).await?;
        }
        let mut roads = Roads::new(self, chain, via);
        let mut failures = Vec::new();
        while let Some(road) = roads.next(&mut failures).await {
            let visit = road.visit(self.name());
            match visit.during(self.tile_through(&road, &roads, tile)).await {
                Ok(found) => return Ok(found),
                Err(Refusal::Security(error)) => return Err(Arc::new(error)),
                Err(Refusal::Failed(failure)) => failures.push(failure),
            }
        }
        Err(Arc::new(Error::exhausted(asked, failures)))
    }

    async fn tile_through(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        tile: Tile,
    ) -> Result<FoundTile, Refusal> {
        let wanted = self.head().and_then(|head| {
            // The widest there is answers every narrower request that will come.
            let widest = match tile.level {
                TileLevel::Data => Some(tile).filter(|tile| tile.exists_in(head.head.size)),
                TileLevel::Hashes(_) => tile.widest_in(head.head.size),
            };
            Some((head.head, widest.filter(|widest| widest.width >= tile.width)?))
        });
        let Some((head, widest)) = wanted else {
            // Beyond the tree we know: the client authenticates it, and nothing is kept.
            let body = self.get(road, &tile.path(), roads.bound(), roads.via).await?;
            return match tile.bytes() {
                Some(bytes) if bytes != body.len() => Err(Refusal::Failed(road.failure(
                    ErrorClass::Corrupt,
                    format!("a tile of {} bytes instead of {bytes}", body.len()),
                ))),
                _ => Ok(FoundTile { body, stored: false, proven: false }),
            };
        };
        let plan = Plan::new(head)
            .tile(widest)
            .map_err(|error| road.failure(error.class(), error.to_string()))?;
        let (proven, fetched) = self.authenticated(road, roads, &plan).await?;
        self.keep_tiles(&proven, fetched).await;
        let body = proven.tile(&widest).and_then(|body| cut(body, tile));
        body.map(|body| FoundTile { body, stored: false, proven: true }).ok_or_else(|| {
            Refusal::Failed(road.failure(
                ErrorClass::Internal,
                format!("{} was planned and not proven", widest.path()),
            ))
        })
    }

    /// Answers whether all of them are kept.
    pub(super) async fn keep_tiles(&self, proven: &Proven, fetched: Vec<Tile>) -> bool {
        futures_util::stream::iter(fetched)
            .map(|tile| {
                let body = proven.tile(&tile).cloned();
                async move {
                    match body {
                        Some(body) => self.keep_tile(tile, body).await,
                        None => true,
                    }
                }
            })
            .buffer_unordered(TILES_AT_ONCE)
            .fold(true, |all, kept| async move { all && kept })
            .await
    }

    /// Many proofs at once hold the same tiles: each is written once. What could not be is tried again.
    async fn keep_tile(&self, tile: Tile, body: Bytes) -> bool {
        let written = self.inner.written_lately.get_with(tile, Arc::default);
        let write = || async { self.keep(&tile.path(), body).await.then_some(()).ok_or(()) };
        written.get_or_try_init(write).await.is_ok()
    }

    /// What was remembered of tiles that prove nothing, or another history.
    pub(super) fn forget_tiles(&self, road: &Road, roads: &Roads<'_>, tiles: &[Tile]) {
        for &tile in tiles {
            self.inner.read_lately.invalidate(&key_of(road, roads, tile));
            self.inner.written_lately.invalidate(&tile);
        }
    }

    pub(super) async fn fetch_tiles(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        tiles: &[Tile],
    ) -> Result<HashMap<Tile, Bytes>, Failure> {
        futures_util::stream::iter(tiles.iter().copied())
            .map(|tile| async move {
                let body = self.fetch_tile(road, roads, tile).await?;
                Ok((tile, body))
            })
            .buffer_unordered(TILES_AT_ONCE)
            .try_collect()
            .await
    }

    /// Many proofs at once need the same tiles at the tree's edge: each is read once.
    async fn fetch_tile(
        &self,
        road: &Road,
        roads: &Roads<'_>,
        tile: Tile,
    ) -> Result<Bytes, Failure> {
        let key = key_of(road, roads, tile);
        let work = {
            let (database, road, via) = (self.clone(), road.clone(), roads.via.to_owned());
            let key = key.clone();
            // A bound of its own: whoever began it may have little time left, and the others more.
            let bound = self.inner.settings.timeout / 2;
            move || async move {
                if let Some(body) = database.inner.read_lately.get(&key) {
                    return Ok(body);
                }
                let body = database.read_tile(&road, bound, &via, tile).await?;
                database.inner.read_lately.insert(key, body.clone());
                Ok(body)
            }
        };
        let landing = self.inner.reads.join(key, work);
        match tokio::time::timeout(roads.bound(), landing).await {
            Ok(Ok(landed)) => landed,
            Ok(Err(_)) => {
                Err(road
                    .failure(ErrorClass::Unavailable, format!("{} could not be read", tile.path())))
            }
            Err(_) => Err(road
                .failure(ErrorClass::Timeout, format!("timeout while {} was read", tile.path()))),
        }
    }

    async fn read_tile(
        &self,
        road: &Road,
        bound: Duration,
        via: &str,
        tile: Tile,
    ) -> Result<Bytes, Failure> {
        let mut read = self.get(road, &tile.path(), bound, via).await;
        // A database may drop a partial tile once the full one exists.
        if !tile.is_full() && tile.level != TileLevel::Data && is_absent(&read) {
            let full = tile.full();
            read = self.get(road, &full.path(), bound, via).await.and_then(|body| {
                cut(&body, tile).ok_or_else(|| {
                    road.failure(ErrorClass::Corrupt, format!("{} is too short", full.path()))
                })
            });
        }
        read.map_err(|mut failure| {
            // Only the absence of a record may look like "no record".
            if failure.class == ErrorClass::NotFound {
                failure.class = ErrorClass::Corrupt;
            }
            failure
        })
    }

    pub(super) async fn stored_tiles(&self, tiles: &[Tile]) -> HashMap<Tile, Bytes> {
        let mut data = HashMap::with_capacity(tiles.len());
        for &tile in tiles {
            if let Ok(Some(body)) = self.stored_tile(tile).await {
                data.insert(tile, body);
            }
        }
        data
    }

    /// From the disk: the very tile, or cut from a wider one.
    pub(super) async fn stored_tile(&self, tile: Tile) -> Result<Option<Bytes>, Arc<Error>> {
        let path = tile.path();
        let failed = |error: stoa_store::Error| Arc::new(Error::store(&path, &error));
        let store = &self.inner.store;
        // Of record data nobody knows the length; it was whole when it was written.
        let fits = |body: &Bytes, tile: Tile| tile.bytes().is_none_or(|bytes| bytes == body.len());
        if let Some(body) = store.sumdb_read(self.name(), &path).await.map_err(failed)?
            && fits(&body, tile)
        {
            return Ok(Some(body));
        }
        if tile.is_full() || tile.level == TileLevel::Data {
            return Ok(None);
        }
        let full = tile.full();
        let widths = store.sumdb_partial_widths(self.name(), &full.path()).await.map_err(failed)?;
        let wider = widths.into_iter().filter(|&width| width > tile.width).max();
        for wider in [Some(full.width), wider].into_iter().flatten() {
            let wider = Tile { width: wider, ..tile };
            let body = store.sumdb_read(self.name(), &wider.path()).await.map_err(failed)?;
            if let Some(body) = body.filter(|body| fits(body, wider)) {
                return Ok(cut(&body, tile));
            }
        }
        Ok(None)
    }

    /// Writes the partial tiles of `signed`'s own tree, cut from those of the newer tree. Answers whether they are kept.
    pub(super) async fn keep_edge(
        &self,
        signed: &SignedTreeHead,
        newer: &SignedTreeHead,
        proven: &Proven,
    ) -> bool {
        let mut kept = true;
        for tile in right_edge(signed.head.size) {
            let Some(widest) = tile.widest_in(newer.head.size) else { continue };
            if widest == tile {
                continue;
            }
            if let Some(body) = proven.tile(&widest).and_then(|body| cut(body, tile)) {
                kept &= self.keep_tile(tile, body).await;
            }
        }
        kept
    }
}

fn key_of(road: &Road, roads: &Roads<'_>, tile: Tile) -> TileRead {
    ((road.source.to_string(), tile), stoas_of(roads.via))
}

fn is_absent(read: &Result<Bytes, Failure>) -> bool {
    matches!(read, Err(failure) if failure.class == ErrorClass::NotFound)
}

/// The first `tile.width` hashes of a wider tile; record data as it is.
pub(super) fn cut(wider: &Bytes, tile: Tile) -> Option<Bytes> {
    let Some(bytes) = tile.bytes() else { return Some(wider.clone()) };
    (wider.len() >= bytes).then(|| wider.slice(..bytes))
}
