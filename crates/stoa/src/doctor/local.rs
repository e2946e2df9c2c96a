//! What this machine itself may be short of.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};
use stoa_store::Places;
use stoa_upstream::ProxyEnvironment;

use super::mask::mask;
use super::report::{State, Step};
use super::verdict::Verdict;
use crate::config::Config;
use crate::wiring::{self, upstream::NeedOfGit};

/// What a write is tried with: enough to tell a slow disk, and gone at once.
const TRIAL: usize = 8 << 20;
const SLOW_DISK: Duration = Duration::from_secs(2);
/// Less room than this is none: a module alone may need it.
const LEAST_ROOM: u64 = 16 << 20;

/// A step and what it points to.
pub(crate) type Seen = (Step, Option<Verdict>);

fn seen(step: Step, verdict: Option<Verdict>) -> Seen {
    let step = match verdict {
        Some(verdict) => step.of(verdict),
        None => step,
    };
    (step, verdict)
}

/// The data directory: room, and whether and how fast it is written. Waits no longer than `patience`.
pub(crate) async fn disk(dir: &Path, patience: Duration) -> Vec<Seen> {
    let dir = dir.to_owned();
    let shown = dir.display().to_string();
    let looked = tokio::task::spawn_blocking(move || look_at_disk(&dir));
    if let Ok(Ok(seen)) = tokio::time::timeout(patience, looked).await {
        return seen;
    }
    let text = format!("{shown}: not written within {} s", patience.as_secs());
    let step = Step::new("disk", State::Bad, text).took(patience);
    vec![seen(step, Some(Verdict::DiskSlow))]
}

fn look_at_disk(dir: &Path) -> Vec<Seen> {
    let shown = dir.display();
    let Some(place) = existing(dir) else {
        let step = Step::new("disk", State::Bad, format!("{shown}: no such directory"));
        return vec![seen(step, Some(Verdict::DiskReadOnly))];
    };
    let mut all = Vec::new();
    let room = rustix::fs::statvfs(&place).ok().map(|found| found.f_bavail * found.f_frsize);
    if let Some(room) = room {
        let text = format!("{shown}: {} free", size(room));
        let verdict = (room < LEAST_ROOM).then_some(Verdict::DiskFull);
        let state = if verdict.is_some() { State::Bad } else { State::Ok };
        all.push(seen(Step::new("room", state, text), verdict));
    }
    let began = Instant::now();
    let (state, text, verdict) = match write_to(&place) {
        Ok(()) => {
            let took = began.elapsed();
            let rate = per_second(TRIAL as u64, took);
            let text = format!("{} written and synced at {}/s", size(TRIAL as u64), size(rate));
            if took > SLOW_DISK {
                (State::Note, text, Some(Verdict::DiskSlow))
            } else {
                (State::Ok, text, None)
            }
        }
        Err(error) => {
            let verdict = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Verdict::DiskFull,
                _ if is_out_of_files(&error) => Verdict::FilesExhausted,
                _ => Verdict::DiskReadOnly,
            };
            (State::Bad, error.to_string(), Some(verdict))
        }
    };
    all.push(seen(Step::new("disk", state, text).took(began.elapsed()), verdict));
    all
}

fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// The directory for temporary files in it, itself, or what it would be made in.
fn existing(dir: &Path) -> Option<PathBuf> {
    let temporary = Places::of(dir).temporary();
    let above = dir.ancestors().map(Path::to_owned);
    std::iter::once(temporary).chain(above).find(|place| place.is_dir())
}

/// Where a file of the size of a module may lie for a moment: on the disk of the data directory if that is there, since
/// what is for temporary files is often memory.
pub(crate) async fn scratch(dir: &Path) -> PathBuf {
    let own = Places::of(dir).temporary();
    let soon = Duration::from_secs(2);
    match tokio::time::timeout(soon, fs_err::tokio::metadata(&own)).await {
        Ok(Ok(found)) if found.is_dir() => own,
        _ => std::env::temp_dir(),
    }
}

fn write_to(dir: &Path) -> io::Result<()> {
    // Not all zeros, which some file systems store in no room.
    let piece: Vec<u8> =
        (0..64 << 10).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = tempfile::tempfile_in(dir)?;
    for _ in 0..TRIAL / piece.len() {
        file.write_all(&piece)?;
    }
    file.sync_all()
}

/// Open files of this process, and how many there may be.
pub(crate) fn files() -> Seen {
    let limit = getrlimit(Resource::Nofile).current;
    // The look itself takes one.
    let open = fs_err::read_dir("/proc/self/fd").map(|entries| entries.count().saturating_sub(1));
    let (state, text, verdict) = match (open, limit) {
        (Err(error), _) if is_out_of_files(&error) => {
            (State::Bad, "none is left".to_owned(), Some(Verdict::FilesExhausted))
        }
        (Err(error), _) => (State::Skipped, error.to_string(), None),
        (Ok(open), None) => (State::Ok, format!("{open} of this process, and no limit"), None),
        (Ok(open), Some(limit)) => {
            let text = format!("{open} of at most {limit} of this process");
            if open as u64 >= limit.saturating_sub(limit / 10) {
                (State::Bad, text, Some(Verdict::FilesExhausted))
            } else {
                (State::Ok, text, None)
            }
        }
    };
    seen(Step::new("open-files", state, text), verdict)
}

/// The variables that send requests through an outgoing proxy, without passwords.
pub(crate) fn proxies(environment: &ProxyEnvironment) -> Seen {
    let shown = [
        ("http_proxy", &environment.http),
        ("https_proxy", &environment.https),
        ("no_proxy", &environment.no),
    ];
    let set: Vec<String> = shown
        .into_iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", mask(value.as_ref()?))))
        .collect();
    let text = if set.is_empty() { "no variable is set".to_owned() } else { set.join(" ") };
    seen(Step::new("outgoing-proxy", State::Ok, text), None)
}

/// Whether there is a git command. Of a module that needs one it is told by its own source.
pub(crate) fn git(config: &Config, is_about_module: bool) -> Seen {
    if wiring::upstream::is_installed("git", std::env::var_os("PATH").as_deref()) {
        return seen(Step::new("git", State::Ok, "there"), None);
    }
    let text = "none in PATH: modules that go direct cannot be fetched";
    match wiring::upstream::need_of_git(config) {
        NeedOfGit::Named if !is_about_module => {
            seen(Step::new("git", State::Bad, text), Some(Verdict::GitMissing))
        }
        NeedOfGit::None => {
            let text = "none in PATH; nothing here goes direct";
            seen(Step::new("git", State::Skipped, text), None)
        }
        NeedOfGit::Named | NeedOfGit::Default => seen(Step::new("git", State::Note, text), None),
    }
}

/// Bytes in a second.
pub(crate) fn per_second(bytes: u64, took: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000 / took.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// `12 MiB`, `3.4 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 10.0 {
        format!("{value:.1} {}", UNITS[unit])
    } else {
        format!("{value:.0} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0, "0.0 KiB");
        check(20 << 10, "20 KiB");
        check(8 << 20, "8.0 MiB");
        check(3 << 40, "3.0 TiB");
        check(u64::MAX, "16777216 TiB");
    }

    #[test]
    fn passwords_of_outgoing_proxies_are_not_shown() {
        let check = |value, expected: &str| assert_eq!(mask(value), expected);
        check("http://proxy:3128", "http://proxy:3128");
        check("http://user:p@ss@proxy:3128", "http://***@proxy:3128");
        check("user:pass@proxy:3128", "***@proxy:3128");
        check("localhost,10.0.0.0/8", "localhost,10.0.0.0/8");
    }

    #[test]
    fn a_disk_that_takes_writes() {
        let dir = tempfile::tempdir().unwrap();
        let seen = look_at_disk(&dir.path().join("not/made/yet"));
        assert!(
            seen.iter().all(|(_, verdict)| verdict.is_none_or(|it| it == Verdict::DiskSlow)),
            "{seen:?}"
        );
        assert_eq!(seen.len(), 2);
        assert!(fs_err::read_dir(dir.path()).unwrap().next().is_none(), "nothing stays behind");
    }

    #[test]
    fn a_process_has_files_left() {
        let (step, verdict) = files();
        assert_eq!((step.state, verdict), (State::Ok, None), "{step:?}");
    }
}
