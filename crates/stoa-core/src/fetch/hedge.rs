//! Two sources asked for one file, where the settings want that: when the first takes longer to answer than it usually does,
//! the one behind it over `|` is asked too, and whoever begins its answer first brings it. The other is not waited for.
//!
//! Only for files of versions, which are the same wherever they come from; a list of another source might be another one.
//! And only between proxies: a clone costs its host more than an answer, and goes on when nobody waits for it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa_store::Temporary;
use stoa_upstream::journey::{Journey, Visit};
use stoa_upstream::{Downloaded, Failure, Source, Step, Walk};
use tokio::time::sleep;
use tracing::debug;

use super::course::Course;
use super::{Asking, Stop};
use crate::mirror::Mirror;
use crate::settings::Hedge;

/// A file, and what is in it.
pub(super) type Obtained = Result<(Downloaded, Temporary), Stop>;

/// A download that was begun or is about to.
pub(super) struct Obtaining<'a> {
    pub course: Arc<Course>,
    pub visit: Visit,
    pub work: Pin<Box<dyn Future<Output = Obtained> + Send + 'a>>,
}

/// Whose answer is taken.
pub(super) enum Raced<'a> {
    /// The present source's; and why the one behind it failed, if it has.
    Present(Obtaining<'a>, Option<Failure>),
    /// That of the one behind; and why the present one failed, if it has.
    Behind(Obtaining<'a>, Option<Failure>),
}

impl Mirror {
    /// Who may be asked beside the present step, and when.
    pub(super) fn beside<'c>(
        &self,
        walk: &Walk<'c>,
        present: Step<'c>,
    ) -> Option<(Step<'c>, Duration)> {
        let after = match self.inner.settings.hedge {
            Hedge::Never => return None,
            Hedge::After(after) => after,
            Hedge::Usual => self.inner.latencies.usual(present.source.host()),
        };
        let behind = walk.beside()?;
        let is_proxy = |source: &Source| matches!(source, Source::Http(_));
        let is_other = present.source.host() != behind.source.host();
        (is_proxy(present.source) && is_proxy(behind.source) && is_other).then_some((behind, after))
    }

    pub(super) fn obtaining<'a>(&'a self, step: Step<'a>, asking: Asking<'a>) -> Obtaining<'a> {
        let settings = &self.inner.settings;
        let header = settings.bound(settings.file_timeout, step.has_alternative);
        let streaming = self.streaming(asking.module, asking.artifact, asking.announcer);
        let course = Course::new(streaming, step.source.to_string());
        let visit = Journey::visit(step.source.name());
        let work = self.obtain(step.source, header, asking, Arc::clone(&course));
        let work = Box::pin(visit.journey().scope(work));
        Obtaining { course, visit, work }
    }

    /// Waits for the present source's answer to begin, and after a while for either's.
    pub(super) async fn race<'a>(
        &'a self,
        mut present: Obtaining<'a>,
        (source, (behind, after)): (&Source, (Step<'a>, Duration)),
        asking: Asking<'a>,
    ) -> Raced<'a> {
        let began = Instant::now();
        let course = Arc::clone(&present.course);
        tokio::select! {
            biased;
            done = &mut present.work => return Raced::Present(present.having(done), None),
            () = course.begun() => return Raced::Present(present, None),
            () = sleep(after) => {}
        }
        debug!(module.path = %asking.module.path(), module.version = %asking.module.version(),
            upstream.host = %source, beside = %behind.source, "the next source is asked too");
        let mut other = self.obtaining(behind, asking);
        let other_course = Arc::clone(&other.course);
        tokio::select! {
            biased;
            done = &mut present.work => match done {
                // It had not begun to answer: nothing of it is with anybody.
                Err(Stop::Source(failure)) => {
                    present.visit.ended(&Err::<(), _>(&failure));
                    Raced::Behind(other, Some(failure))
                }
                done => Raced::Present(present.having(done), None),
            },
            () = course.begun() => Raced::Present(present, None),
            done = &mut other.work => match done {
                Ok(_) => {
                    self.passed_over(source, began);
                    Raced::Behind(other.having(done), None)
                }
                Err(Stop::Source(failure)) => {
                    other.visit.ended(&Err::<(), _>(&failure));
                    Raced::Present(present, Some(failure))
                }
                // A fault of our own says nothing about that source.
                Err(Stop::All(_)) => Raced::Present(present, None),
            },
            () = other_course.begun() => {
                self.passed_over(source, began);
                Raced::Behind(other, None)
            }
        }
    }

    /// It takes so long at least, which is known of it from now on.
    fn passed_over(&self, source: &Source, began: Instant) {
        self.inner.latencies.note(source.host(), began.elapsed());
    }
}

impl Obtaining<'_> {
    fn having(self, done: Obtained) -> Self {
        Self { work: Box::pin(std::future::ready(done)), ..self }
    }
}
