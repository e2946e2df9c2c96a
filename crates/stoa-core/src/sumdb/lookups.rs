//! Records: from the disk, where the tiles beside them prove them, and by the roads to the database.

use std::sync::Arc;

use bytes::Bytes;
use stoa_module::{ErrorClass, ModuleVersion};
use stoa_sumdb::{Lookup, Plan, RecordHashes, lookup_path};
use stoa_upstream::Chain;
use tracing::warn;

use crate::error::Error;
use crate::sumdb::roads::{Road, Roads};
use crate::sumdb::{Database, LookedUp, Refusal};

impl Database {
    pub(super) async fn stored_lookup(
        &self,
        module: &ModuleVersion,
    ) -> Result<Option<LookedUp>, Arc<Error>> {
        let file = lookup_path(module);
        let failed = |error: stoa_store::Error| Arc::new(Error::store(&file, &error));
        let Some(body) = self.inner.store.sumdb_read(self.name(), &file).await.map_err(failed)?
        else {
            return Ok(None);
        };
        match self.proven_from_disk(module, &body).await {
            Ok(hashes) => Ok(Some(LookedUp { body, hashes, stored: true })),
            Err(error) => {
                warn!(module = %module, %error, "a stored checksum record is damaged and is fetched anew");
                Ok(None)
            }
        }
    }

    /// The signature covers the tree and not the record: also a record of our own disk counts only when the tiles
    /// beside it prove it.
    async fn proven_from_disk(
        &self,
        module: &ModuleVersion,
        body: &Bytes,
    ) -> Result<RecordHashes, stoa_sumdb::Error> {
        let lookup = Lookup::open(body, &self.inner.settings.key)?;
        let hashes = lookup.hashes(module)?;
        let plan = Plan::new(lookup.signed.head).record(lookup.id)?;
        let proven = plan.authenticate(self.stored_tiles(&plan.tiles()).await)?;
        if proven.record_hash(lookup.id) == Some(lookup.record_hash()) {
            Ok(hashes)
        } else {
            Err(stoa_sumdb::Error::MalformedLookup("its record is not the one in the tree"))
        }
    }

    pub(super) async fn remote_lookup(
        &self,
        module: &ModuleVersion,
        chain: &Chain,
        via: &str,
    ) -> Result<LookedUp, Error> {
        let file = lookup_path(module);
        let mut roads = Roads::new(self, chain, via);
        let mut failures = Vec::new();
        // A cache that lacks a record says nothing about the database, so the next road is asked all the same; it is
        // believed when nobody contradicts it.
        let mut absent = false;
        while let Some(road) = roads.next(&mut failures).await {
            let visit = road.visit(self.name());
            match visit.during(self.lookup_through(&road, &mut roads, module, &file)).await {
                Ok(found) => return Ok(found),
                Err(Refusal::Security(error)) => return Err(error),
                Err(Refusal::Failed(failure)) => {
                    absent |=
                        failure.class == ErrorClass::NotFound && road.speaks_for_the_database();
                    failures.push(failure);
                }
            }
        }
        let name = self.name();
        let class = if absent {
            ErrorClass::NotFound
        } else {
            stoa_upstream::deciding(&failures)
                .map_or(ErrorClass::Unavailable, |failure| failure.class)
        };
        Err(match class {
            ErrorClass::NotFound => Error::new(
                class,
                format!("{module}: the checksum database {name} has no record of it, so it is not handed out"),
            )
            .hint("if the module is private, name it in GOPRIVATE (on this server and in the client)"),
            // That a road is closed, or is a directory without the record, says nothing about the module.
            ErrorClass::Denied | ErrorClass::Unavailable => Error::new(
                ErrorClass::Unavailable,
                format!("{module}: the checksum database {name} cannot be reached, so it is not handed out"),
            )
            .hint("set GOSUMDB to a URL that can be reached from the server, as in `sum.golang.org https://sum.golang.google.cn`"),
            ErrorClass::Timeout => Error::new(
                class,
                format!("{module}: the checksum database {name} did not answer in time, so it is not handed out"),
            ),
            class => Error::new(
                class,
                format!("{module}: what arrived from the checksum database {name} does not prove anything"),
            ),
        }
        .because(failures))
    }

    async fn lookup_through(
        &self,
        road: &Road,
        roads: &mut Roads<'_>,
        module: &ModuleVersion,
        file: &str,
    ) -> Result<LookedUp, Refusal> {
        let body = self.get(road, file, roads.bound(), roads.via).await?;
        let corrupt = |error: stoa_sumdb::Error| road.failure(error.class(), error.to_string());
        let lookup = Lookup::open(&body, &self.inner.settings.key).map_err(corrupt)?;
        let hashes = lookup.hashes(module).map_err(corrupt)?;
        // After its proof: whoever finds the lookup finds the tiles.
        if self.prove(road, roads, &lookup.signed, Some(&lookup)).await?
            && self.keep(file, body.clone()).await
        {
            // What the disk did not take is to be looked up again, until it does.
            let kept = LookedUp { body: body.clone(), hashes, stored: true };
            self.inner.known.insert(module.clone(), kept);
        }
        Ok(LookedUp { body, hashes, stored: false })
    }
}
