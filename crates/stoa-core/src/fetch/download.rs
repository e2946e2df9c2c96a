//! The body of an artifact, from one source into a file: on disk, or in memory while the disk cannot be written.

use std::os::fd::AsFd as _;
use std::sync::Arc;

use stoa_module::{Artifact, ErrorClass};
use stoa_store::{OpenFile, Temporary};
use stoa_upstream::journey::{self, Leg};
use stoa_upstream::{Bounds, Destination, Downloaded, Failure, Source, Stage, Use, Watch};
use tokio::time::timeout;

use super::Stop;
use super::course::Course;
use crate::error::Error;
use crate::mirror::Mirror;

/// What is asked of a source.
pub(super) struct Wanted<'r> {
    /// Relative and escaped.
    pub path: &'r str,
    pub artifact: Artifact,
    pub bounds: Bounds,
    pub via: &'r str,
    /// For texts.
    pub asked: &'r str,
}

impl Mirror {
    pub(super) async fn download(
        &self,
        source: &Source,
        wanted: &Wanted<'_>,
        course: &Arc<Course>,
    ) -> Result<(Downloaded, Temporary), Stop> {
        let store = &self.inner.store;
        let (most, patience) = (wanted.bounds.max_bytes, wanted.bounds.header);
        let no_file = |error: stoa_store::Error| Stop::All(Error::store(wanted.asked, &error));
        journey::enter(Leg::Disk);
        let mut temporary = store.temporary(most, patience).await.map_err(no_file)?;
        loop {
            course.goes_into(readable(&mut temporary));
            let failure = match self.download_into(source, wanted, &mut temporary, course).await {
                Ok(downloaded) => return Ok((downloaded, temporary)),
                Err(failure) => failure,
            };
            // Of these classes are only the faults of our own file.
            if !matches!(failure.class, ErrorClass::Full | ErrorClass::Internal) {
                return Err(Stop::Source(failure));
            }
            if temporary.is_on_disk() {
                // Once more, into memory; what was given of it cannot be followed up.
                course.break_off(failure.class);
                let instead = store.temporary_instead(temporary, &failure.detail, most, patience);
                temporary = instead.await.map_err(no_file)?;
            } else if failure.class == ErrorClass::Full {
                return Err(no_file(store.outgrown().await));
            } else {
                let text = format!("{}: cannot be passed through", wanted.asked);
                return Err(Stop::All(Error::new(failure.class, text).because(vec![failure])));
            }
        }
    }

    async fn download_into(
        &self,
        source: &Source,
        wanted: &Wanted<'_>,
        temporary: &mut Temporary,
        course: &Arc<Course>,
    ) -> Result<Downloaded, Failure> {
        let Wanted { path, artifact, bounds, via, .. } = wanted;
        let room = temporary.room();
        let client = &self.inner.client;
        // What comes `direct` is made here.
        let watch = match source {
            Source::Http(_) => Some(Arc::clone(course) as Arc<dyn Watch>),
            _ => None,
        };
        let into = Destination { file: temporary.file(), room, watch };
        let download = client.download(source, Use::Modules, path, bounds, via, into);
        // A large body takes what it takes while it moves, and so does a clone; a small body has no excuse.
        if *artifact == Artifact::Zip || matches!(source, Source::Direct) {
            return download.await;
        }
        let whole = bounds.header * 2;
        timeout(whole, download).await.unwrap_or_else(|_| {
            let detail = format!("body: not all of it was here after {whole:?}");
            Err(Failure::new(ErrorClass::Timeout, Stage::Body, source, detail))
        })
    }
}

/// A second handle of what is being written, on the disk.
fn readable(temporary: &mut Temporary) -> Option<Arc<OpenFile>> {
    if !temporary.is_on_disk() {
        return None;
    }
    let file = temporary.file().file().as_fd().try_clone_to_owned().ok()?;
    Some(Arc::new(std::fs::File::from(file).into()))
}
