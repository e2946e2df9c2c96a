//! The places where a test kills the process, or lets the disk fail. Nothing in a real build.

/// The steps of a commit and of a flush, each named by what has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    BlobWritten,
    DirectoriesMade,
    SidecarWritten,
    BlobRenamed,
    SidecarRenamed,
    ZipHashRenamed,
    ListRenamed,
    Settled,
    BatchClosed,
    FilesFlushed,
    DirectoriesFlushed,
    Marked,
}

#[cfg(not(test))]
#[inline]
pub(crate) fn reached(_: Step) {}

#[cfg(test)]
pub(crate) use armed::{arm, arm_later, reached};
#[cfg(test)]
pub(crate) use watched::Watched;

/// What the disk was asked to keep, for tests that cut its power.
#[cfg(not(test))]
#[derive(Debug)]
pub(crate) struct Watched;

#[cfg(not(test))]
impl Watched {
    pub(crate) fn new() -> Self {
        Self
    }

    #[inline]
    #[expect(clippy::unused_self, reason = "only a test looks")]
    pub(crate) fn file(&self, _: &std::fs::File) {}

    #[inline]
    #[expect(clippy::unused_self, reason = "only a test looks")]
    pub(crate) fn directory(&self, _: &std::path::Path) {}
}

#[cfg(test)]
pub(crate) mod watched;

/// What is asked of the disk where it may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    MakeTemporary,
    /// Also of what follows from others.
    SyncBlob,
    SyncSidecar,
    SyncDirectory,
    RemoveBlob,
    RenameBlob,
    RenameSidecar,
    ReadSidecar,
    ReadBlob,
}

/// The failures that a test has asked for, of one store.
#[derive(Debug, Default)]
pub(crate) struct Faults(#[cfg(test)] std::sync::Mutex<Vec<(Act, rustix::io::Errno)>>);

impl Faults {
    #[cfg(not(test))]
    #[inline]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "only a test lets it fail")]
    pub(crate) fn at(&self, _: Act) -> std::io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn at(&self, act: Act) -> std::io::Result<()> {
        match self.0.lock().unwrap().iter().find(|(one, _)| *one == act) {
            Some((_, errno)) => Err((*errno).into()),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(crate) fn set(&self, faults: &[(Act, rustix::io::Errno)]) {
        *self.0.lock().unwrap() = faults.to_vec();
    }
}

#[cfg(test)]
mod armed {
    use std::sync::Mutex;

    use super::Step;

    impl Step {
        pub(crate) const FLUSH: [Self; 4] =
            [Self::BatchClosed, Self::FilesFlushed, Self::DirectoriesFlushed, Self::Marked];
        pub(crate) const ALL: [Self; 8] = [
            Self::BlobWritten,
            Self::DirectoriesMade,
            Self::SidecarWritten,
            Self::BlobRenamed,
            Self::SidecarRenamed,
            Self::ZipHashRenamed,
            Self::ListRenamed,
            Self::Settled,
        ];
    }

    /// Set in a child process only, which dies of it, when it passes by for so many times.
    static ARMED: Mutex<Option<(Step, usize)>> = Mutex::new(None);

    pub(crate) fn arm(step: Option<Step>) {
        *ARMED.lock().unwrap() = step.map(|step| (step, 1));
    }

    pub(crate) fn arm_later(step: Step, times: usize) {
        *ARMED.lock().unwrap() = Some((step, times));
    }

    pub(crate) fn reached(step: Step) {
        let mut armed = ARMED.lock().unwrap();
        let Some((_, times)) = armed.as_mut().filter(|(at, _)| *at == step) else { return };
        *times -= 1;
        if *times == 0 {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }
}
