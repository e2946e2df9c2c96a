//! The places in a commit where a test kills the process. Nothing in a real build.

/// The steps of a commit, each named by what has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    BlobSynced,
    DirectoriesMade,
    SidecarSynced,
    BlobRenamed,
    SidecarRenamed,
    ZipHashRenamed,
    ListRenamed,
    DirectorySynced,
}

#[cfg(not(test))]
#[inline]
pub(crate) fn reached(_: Step) {}

#[cfg(test)]
pub(crate) use armed::{arm, reached};

#[cfg(test)]
mod armed {
    use std::sync::Mutex;

    use super::Step;

    impl Step {
        pub(crate) const ALL: [Self; 8] = [
            Self::BlobSynced,
            Self::DirectoriesMade,
            Self::SidecarSynced,
            Self::BlobRenamed,
            Self::SidecarRenamed,
            Self::ZipHashRenamed,
            Self::ListRenamed,
            Self::DirectorySynced,
        ];
    }

    /// Set in a child process only, which dies of it.
    static ARMED: Mutex<Option<Step>> = Mutex::new(None);

    pub(crate) fn arm(step: Option<Step>) {
        *ARMED.lock().unwrap() = step;
    }

    pub(crate) fn reached(step: Step) {
        if *ARMED.lock().unwrap() == Some(step) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap();
        }
    }
}
