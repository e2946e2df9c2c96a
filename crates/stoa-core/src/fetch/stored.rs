//! What is stored and was not vouched for, or not under today's settings: compared with the checksum database before it is
//! handed out again, or behind those who get it unverified.

use std::sync::Arc;

use stoa_module::{Artifact, ErrorClass, ModuleVersion, Sha256};
use stoa_store::{QuarantineNote, State};
use stoa_upstream::journey::{self, Leg};
use tracing::{error, warn};

use crate::error::Error;
use crate::fetch::{contradiction, without_database};
use crate::mirror::{Landed, Mirror, asked_artifact};
use crate::unverified::count;

impl Mirror {
    /// [`Mirror::verify_stored`], once for all who want it.
    pub(crate) async fn verify_once(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        via: &str,
    ) -> Landed<Option<Sha256>> {
        let work = {
            let (mirror, module, via) = (self.clone(), module.clone(), via.to_owned());
            move || async move { mirror.verify_stored(&module, artifact, &via).await }
        };
        let landed = self.inner.verifications.join((module.clone(), artifact), work).await;
        landed.unwrap_or_else(|grounded| {
            Err(Error::grounded(&asked_artifact(module, artifact), grounded))
        })
    }

    /// Stored when the checksum database was not or could not be asked about it, or by the word of another one, and
    /// covered now: it is looked up before it is handed out again. Gives the digest of what may be. None if the database
    /// contradicts it; it is no longer stored then, and may be fetched anew. Nor is what was never verified and has no
    /// record.
    pub(crate) async fn verify_stored(
        &self,
        module: &ModuleVersion,
        artifact: Artifact,
        via: &str,
    ) -> Result<Option<Sha256>, Arc<Error>> {
        let asked = asked_artifact(module, artifact);
        let failed = |error: stoa_store::Error| Arc::new(Error::store(&asked, &error));
        // Another flight may have done it since the request looked.
        let sidecar = self.inner.store.sidecar(module).await.map_err(failed)?;
        let record = match sidecar.as_ref().and_then(|sidecar| sidecar.of(artifact)) {
            None => return Ok(None),
            Some(record) if record.state == State::Unverified => record,
            Some(record) if self.may_hand_out(module, artifact, record) => {
                return Ok(Some(record.sha256));
            }
            Some(record) => record,
        };
        let was_unverified = record.state == State::Unverified;
        let store = &self.inner.store;
        if was_unverified && let Some(pattern) = self.exemption(module.path()) {
            // Its name is not for the database any more.
            store.restate(module, artifact, State::Exempt { pattern }).await.map_err(failed)?;
            return Ok(Some(record.sha256));
        }
        let Some(database) = &self.inner.database else {
            return Err(Arc::new(without_database(module)));
        };
        let chain = self.inner.policy.careful_chain(module.path());
        journey::enter(Leg::Lookup);
        let looked_up = database.lookup(module, &chain, via).await;
        journey::enter(Leg::Disk);
        self.inner.later.heard(&looked_up);
        let counts = &self.inner.later.counts;
        let offline = self.inner.settings.offline;
        let (reason, refusal) = match looked_up {
            Ok(found) => match contradiction(database.name(), artifact, record.h1, &found.hashes) {
                None => {
                    let state = State::Verified { database: database.name().to_owned() };
                    store.restate(module, artifact, state).await.map_err(failed)?;
                    count(if was_unverified { &counts.later_verified } else { &counts.verified });
                    return Ok(Some(record.sha256));
                }
                Some(reason) => (reason, None),
            },
            Err(error) if error.class == ErrorClass::NotFound && offline && was_unverified => {
                return Err(Arc::new(Error::unverified_offline(&asked)));
            }
            Err(error) if error.class == ErrorClass::NotFound && !offline && was_unverified => {
                (format!("{} has no record of it", database.name()), Some(error))
            }
            Err(error) => return Err(error),
        };
        count(if was_unverified { &counts.later_rejected } else { &counts.mismatch });
        error!(module.path = %module.path(), module.version = %module.version(), reason,
            "SECURITY: what was stored while it was not verified is not what the checksum database vouches for; \
             it goes to quarantine");
        let note = QuarantineNote {
            module: module.to_string(),
            artifact,
            reason: reason.clone(),
            source: record.source.clone(),
        };
        if let Err(error) = store.reject(module, artifact, note).await {
            warn!(%error, "what was rejected cannot be kept in quarantine");
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if offline {
            // Nobody can bring what is right; a 404 would send the client elsewhere.
            let text =
                format!("{asked}: refused, what was stored is not what was vouched for: {reason}");
            return Err(Arc::new(Error::new(ErrorClass::Mismatch, text)));
        }
        Ok(None)
    }
}
