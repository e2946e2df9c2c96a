//! The record of the checksum database, looked up while the download runs.

use std::future::{pending, ready};
use std::sync::Arc;

use stoa_module::{Artifact, ModuleVersion};
use stoa_sumdb::RecordHashes;
use stoa_upstream::Chain;
use stoa_upstream::journey::{self, Journey, Leg};
use tokio::task::JoinHandle;

use crate::error::Error;
use crate::mirror::{Landed, Mirror};
use crate::sumdb::{Database, LookedUp};
use crate::unverified::Word;

pub(super) enum Record {
    /// The `GONOSUMDB` pattern, or what else exempts the module.
    Exempt(String),
    /// `.info` is covered by nobody.
    Uncovered,
    /// To be looked up as soon as there is a source that may have the module, or has brought it.
    Wanted(Database),
    Pending(LookingUp),
    /// What came of it, not yet judged.
    Landed(Landed<LookedUp>),
    Known(RecordHashes),
    /// Nobody could be asked, and by the settings it goes out all the same.
    Unreachable,
}

/// A look-up under way.
pub(super) struct LookingUp {
    task: JoinHandle<Landed<LookedUp>>,
    journey: Arc<Journey>,
}

impl Record {
    /// Begins to look it up, if that is wanted and has not begun yet.
    pub(super) fn look_up(&mut self, module: &ModuleVersion, chain: &Chain, via: &str) {
        if let Self::Wanted(database) = self {
            let (database, module, chain, via) =
                (database.clone(), module.clone(), chain.clone(), via.to_owned());
            let journey = Journey::begin();
            let looking_up = async move { database.lookup(&module, &chain, &via).await };
            let task = tokio::spawn(journey.scope(looking_up));
            *self = Self::Pending(LookingUp { task, journey });
        }
    }

    /// Completes when a look-up that is under way has ended.
    pub(super) async fn lands(&mut self) {
        match self {
            Self::Pending(looking_up) => *self = Self::Landed(landing(looking_up).await),
            _ => pending().await,
        }
    }

    /// Whether there is a hash to compare the file with, or none is needed: only then may a part of it be given away. An
    /// outage in which files go out unverified is no word about this one.
    pub(super) fn can_judge(&self, artifact: Artifact) -> bool {
        let has_hash = |hashes: &RecordHashes| match artifact {
            Artifact::Info => false,
            Artifact::Mod => hashes.go_mod.is_some(),
            Artifact::Zip => hashes.zip.is_some(),
        };
        match self {
            Self::Exempt(_) => true,
            Self::Known(hashes) => has_hash(hashes),
            Self::Landed(Ok(found)) => has_hash(&found.hashes),
            _ => false,
        }
    }

    /// What the look-up means for a file that is here; none where there is no look-up to be judged.
    pub(super) async fn word(
        &mut self,
        mirror: &Mirror,
        module: &ModuleVersion,
    ) -> Option<Result<Word, Error>> {
        match self {
            Self::Pending(looking_up) => {
                journey::enter(Leg::Lookup);
                let _following = looking_up.journey.follow();
                Some(mirror.word(module, landing(looking_up)).await)
            }
            Self::Landed(landed) => Some(mirror.word(module, ready(landed.clone())).await),
            _ => None,
        }
    }
}

async fn landing(looking_up: &mut LookingUp) -> Landed<LookedUp> {
    let lost = || Err(Arc::new(Error::lost("checksum database record")));
    (&mut looking_up.task).await.unwrap_or_else(|_| lost())
}
