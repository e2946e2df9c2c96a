//! When the disk does not take what is written: full, read-only, failing. What then happens is the same for all of them.
//!
//! A failed write begins the *trouble*. While it lasts, downloads do not even try the disk: what is small enough goes
//! through memory (see `spool`), verified as ever and handed to those who wait for it, but not kept. Hits go on. A check
//! writes, syncs and removes a file every second, and when the disk was full one as large as what did not fit, so that
//! trouble which ended is over within a second, and trouble which did not is not taken for over because a small file fits.
//!
//! The log says once when it begins, once a minute while it lasts, and once when it is over.

use std::{
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};
use tracing::{info, warn};

use crate::{
    durable::Durable,
    error::Error,
    files::{Files, remove_if_there},
};

/// Between two checks; tests wait for them.
pub(crate) const CHECK: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1000 });
/// Between two lines in the log.
pub(crate) const REPEAT: Duration = Duration::from_mins(1);
/// A full disk is not called usable before this much more than what did not fit is free.
const SLACK: u64 = 64 << 10;
/// The check needs no more room than this; otherwise one huge file would keep all small ones away.
const MOST: u64 = 16 << 20;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No space, no quota, or a file larger than the file system takes.
    Full,
    ReadOnly,
    /// Anything else that keeps it from writing: an I/O error, missing rights.
    Failing,
}

impl Fault {
    /// Says of an error of the system that the disk is at fault, and not the name that was asked for or this process.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => Some(Self::Full),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
            io::ErrorKind::StaleNetworkFileHandle | io::ErrorKind::TimedOut => Some(Self::Failing),
            _ => {
                const FAILING: [Errno; 5] =
                    [Errno::IO, Errno::NXIO, Errno::NODEV, Errno::UCLEAN, Errno::REMOTEIO];
                errno(error).is_some_and(|errno| FAILING.contains(&errno)).then_some(Self::Failing)
            }
        }
    }

    /// The same of an error that met a new file in a directory of our own, where nobody's name can be at fault.
    pub(crate) fn of_temporary(error: &io::Error) -> Option<Self> {
        const PROCESS: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        if errno(error).is_some_and(|errno| PROCESS.contains(&errno)) {
            return None;
        }
        Some(Self::of(error).unwrap_or(Self::Failing))
    }
}

/// `fs_err` and `tempfile` name the path and hide the system's number, which the standard library writes at the end.
fn errno(error: &io::Error) -> Option<Errno> {
    let number = error.raw_os_error().or_else(|| {
        let text = error.to_string();
        let (_, number) = text.rsplit_once("(os error ")?;
        number.split_once(')')?.0.parse().ok()
    });
    number.map(Errno::from_raw_os_error)
}

/// Why the disk cannot be written, and since when.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub fault: Fault,
    /// The error of the system in words, with the path.
    pub reason: String,
    pub since: Timestamp,
}

/// Whether the disk can be written, as far as is known.
#[derive(Debug, Default)]
pub(crate) struct Health {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    trouble: Option<Trouble>,
    /// Bytes that must fit before a full disk counts as usable.
    need: u64,
    /// The log knows of this trouble.
    told: bool,
    last_told: Option<Instant>,
}

impl Health {
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.locked().trouble.clone()
    }

    /// Whether this is the beginning; then somebody must check from now on. `bytes`: how much was written when it failed.
    pub(crate) fn begin(&self, fault: Fault, reason: &str, bytes: u64) -> bool {
        let mut state = self.locked();
        state.need = state.need.max((bytes + SLACK).min(MOST));
        if state.trouble.is_some() {
            return false;
        }
        let reason = reason.to_owned();
        state.trouble = Some(Trouble { fault, reason, since: Timestamp::now() });
        state.tell();
        true
    }

    /// After a check that failed. `repeat`: say it again every minute.
    pub(crate) fn lasts(&self, fault: Fault, reason: &str, repeat: bool) {
        let mut state = self.locked();
        if let Some(trouble) = &mut state.trouble {
            trouble.fault = fault;
            reason.clone_into(&mut trouble.reason);
        }
        if repeat || !state.told {
            state.tell();
        }
    }

    pub(crate) fn heal(&self) {
        let mut state = self.locked();
        state.need = 0;
        let Some(trouble) = state.trouble.take() else { return };
        if std::mem::take(&mut state.told) {
            info!(since = %trouble.since, "the disk can be written again");
        }
    }

    pub(crate) fn need(&self) -> u64 {
        self.locked().need
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Not more often than once a minute, also when the trouble comes and goes.
    fn tell(&mut self) {
        let Some(trouble) = &self.trouble else { return };
        if self.last_told.is_some_and(|told| told.elapsed() < REPEAT) {
            return;
        }
        self.last_told = Some(Instant::now());
        self.told = true;
        warn!(
            since = %trouble.since, error = trouble.reason,
            "the disk cannot be written: what is stored is served, and what is small enough is passed through unstored"
        );
    }
}

impl Files {
    /// Whether a new file can be written and synced, and `need` bytes have room.
    pub(crate) fn check_disk(&self, need: u64) -> Result<(), Error> {
        // Somebody may have cleaned up too well.
        fs_err::create_dir_all(self.layout.temporary())?;
        let dir = self.layout.temporary();
        try_write(&self.durable, &dir, need).map_err(|error| {
            let text = format!("a check in {}: {error}", dir.display());
            io::Error::new(error.kind(), text)
        })?;
        // An open that could not take the mark of a clean stop away left it; it must not outlive the next write.
        remove_if_there(&self.layout.clean_mark())?;
        Ok(())
    }
}

fn try_write(durable: &Durable, dir: &Path, need: u64) -> io::Result<()> {
    let (mut file, path) = durable.new_temporary()?;
    file.write_all(b"can this be written?\n")?;
    if need > 0 {
        match fallocate(file.file(), FallocateFlags::empty(), 0, need) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let free = free_bytes(dir)?;
                if free < need {
                    return Err(Errno::NOSPC.into());
                }
            }
            Err(errno) => return Err(errno.into()),
            Ok(()) => {}
        }
    }
    file.sync_all()?;
    drop(file);
    path.close()
}

/// What an ordinary user may still write in the file system of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> io::Result<u64> {
    let found = statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_disks() {
        let check = |errno: Errno, expected: Option<Fault>| {
            assert_eq!(Fault::of(&errno.into()), expected, "{errno:?}");
            // As `fs_err` gives it: kind and text, without the number.
            let plain = io::Error::from(errno);
            let wrapped = io::Error::new(plain.kind(), format!("cannot write `/x`: {plain}"));
            assert_eq!(Fault::of(&wrapped), expected, "{wrapped}");
        };
        check(Errno::NOSPC, Some(Fault::Full));
        check(Errno::DQUOT, Some(Fault::Full));
        check(Errno::FBIG, Some(Fault::Full));
        check(Errno::ROFS, Some(Fault::ReadOnly));
        check(Errno::IO, Some(Fault::Failing));
        check(Errno::STALE, Some(Fault::Failing));
        check(Errno::UCLEAN, Some(Fault::Failing));
        check(Errno::NOTDIR, None);
        check(Errno::ACCESS, None);
        check(Errno::NAMETOOLONG, None);
        check(Errno::MFILE, None);
        assert_eq!(Fault::of(&io::Error::other("(os error 5")), None);
    }

    #[test]
    fn a_new_file_fails_by_the_disk_or_by_this_process() {
        let check = |errno: Errno, expected| {
            assert_eq!(Fault::of_temporary(&errno.into()), expected, "{errno:?}");
        };
        check(Errno::NOSPC, Some(Fault::Full));
        check(Errno::ACCESS, Some(Fault::Failing));
        check(Errno::NOENT, Some(Fault::Failing));
        check(Errno::MFILE, None);
        check(Errno::NFILE, None);
    }

    #[test]
    fn it_begins_once_and_needs_the_room_of_the_largest() {
        let health = Health::default();
        assert!(health.begin(Fault::Full, "full", 1000));
        assert!(!health.begin(Fault::Full, "again", 5000));
        assert!(!health.begin(Fault::Failing, "and again", 0));
        assert_eq!(health.need(), 5000 + SLACK);
        assert_eq!(health.trouble().unwrap().reason, "full");
        health.begin(Fault::Full, "huge", 1 << 40);
        assert_eq!(health.need(), MOST);
        health.lasts(Fault::ReadOnly, "read-only", true);
        assert_eq!(health.trouble().unwrap().fault, Fault::ReadOnly);
        health.heal();
        assert!(health.trouble().is_none());
        assert_eq!(health.need(), 0);
        assert!(health.begin(Fault::Full, "full", 0));
    }

    #[test]
    fn what_does_not_fit_is_no_usable_disk() {
        let dir = tempfile::tempdir().unwrap();
        let durable = Durable::of_temporaries(dir.path().to_owned());
        try_write(&durable, dir.path(), 0).unwrap();
        try_write(&durable, dir.path(), 100_000).unwrap();
        try_write(&durable, dir.path(), 1 << 60).unwrap_err();
        assert_eq!(fs_err::read_dir(dir.path()).unwrap().count(), 0);
        fs_err::remove_dir(dir.path()).unwrap();
        try_write(&durable, dir.path(), 0).unwrap_err();
    }
}
