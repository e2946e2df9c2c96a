//! Keeping a repository in order after a fetch: few packs, few files of refs, nothing of killed commands.

use std::fs::File;
use std::path::Path;

use super::{Writer, of_io};
use crate::direct::command::Run;
use crate::direct::files::files_below;
use crate::direct::repositories::{Repository, lost_task};
use crate::direct::words;
use crate::failure::Fault;

/// Files of refs, one for each, before they are made one file.
const MAX_LOOSE: usize = 1_000;

impl Repository {
    /// Joins packs when there are many, and makes many refs one file. What nothing reaches any more goes with the time
    /// that git gives it.
    pub(super) async fn tidy(&self, writer: &mut Writer, held: &File) -> Result<(), Fault> {
        let (directory, settings) = (&self.remote.directory, &self.inner.settings);
        let run = || {
            let held = held.try_clone().map_err(|error| of_io(&error))?;
            Ok(Run::local(directory, settings).holding(held))
        };
        let loose = directory.join("refs");
        let loose = tokio::task::spawn_blocking(move || has_files(&loose, MAX_LOOSE)).await;
        if loose.map_err(|_| lost_task())? {
            self.must_end_well(run()?.args(["pack-refs", "--all"])).await?;
        }
        // Those that are large already are not joined, however many they are.
        let most = settings.max_packs;
        if packs(directory) <= most.max(writer.joined + most / 2) {
            return Ok(());
        }
        let Some(_place) = self.inner.git.place_to_tidy() else { return Ok(()) };
        let gc = run()?
            .within(settings.fetch_timeout)
            .silent()
            // Packs that are large already are left as they are.
            .args(["-c", "gc.auto=6700", "-c", "gc.bigPackThreshold=256m"])
            .args(["-c", "gc.autoDetach=false", "-c"])
            .args([format!("gc.autoPackLimit={most}")])
            .args(["gc", "--auto", "--quiet"]);
        let outcome = self.must_end_well(gc).await;
        // If it failed, it is not tried again after the very next fetch.
        writer.joined = packs(directory);
        outcome
    }

    /// Removes what a killed command left.
    pub(super) async fn sweep(&self, writer: &mut Writer) -> Result<(), Fault> {
        if !writer.is_swept {
            let directory = self.remote.directory.clone();
            let sweeping = tokio::task::spawn_blocking(move || sweep(&directory)).await;
            sweeping.map_err(|_| lost_task())?;
            writer.is_swept = true;
        }
        Ok(())
    }

    async fn must_end_well(&self, run: Run<'_>) -> Result<(), Fault> {
        let (ended, _) = self.inner.git.output(run).await?;
        if ended.is_success() { Ok(()) } else { Err(words::fault(&ended.words)) }
    }
}

pub(super) fn packs(directory: &Path) -> usize {
    let Ok(entries) = fs_err::read_dir(directory.join("objects/pack")) else { return 0 };
    let is_pack = |entry: &fs_err::DirEntry| {
        Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "pack")
    };
    entries.filter_map(Result::ok).filter(is_pack).count()
}

/// Whether there are more files than this in a directory and all below it.
fn has_files(directory: &Path, most: usize) -> bool {
    files_below(directory).nth(most).is_some()
}

/// Removes what a killed command leaves: its locks, and packs that were never finished. Nobody else writes here.
fn sweep(directory: &Path) {
    let is_left = |name: &str| {
        let is_lock = Path::new(name).extension().is_some_and(|extension| extension == "lock");
        is_lock
            || name == "gc.pid"
            || ["tmp_pack_", "tmp_idx_", "tmp_obj_", "tmp_rev_", ".tmp-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    for entry in files_below(directory) {
        if is_left(&entry.file_name().to_string_lossy()) {
            // It may be in the way of the next command, which then says so.
            let _ = fs_err::remove_file(entry.path());
        }
    }
}
