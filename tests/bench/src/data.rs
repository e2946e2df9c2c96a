//! What is served and asked for: a directory with `store/PATH` for every answer of the upstream, the
//! paths to ask for in `paths.txt`, and what the server's GOSUMDB is in `gosumdb`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use percent_encoding::percent_decode_str;

#[derive(Debug)]
pub(crate) struct Data {
    dir: PathBuf,
    name: &'static str,
    gosumdb: String,
    pub(crate) paths: Vec<String>,
    /// Of a few large modules, which no pass asks for. Only made data has them.
    pub(crate) large: Vec<String>,
}

impl Data {
    /// Made by [`synthetic`](crate::synthetic).
    pub(crate) fn made(dir: &Path) -> anyhow::Result<Data> {
        Data::read(dir, "made modules", fs_err::read_to_string(dir.join("gosumdb"))?)
    }

    /// Recorded from a public proxy.
    pub(crate) fn recorded(dir: &Path) -> anyhow::Result<Data> {
        Data::read(dir, "recorded modules", "sum.golang.org".to_owned())
    }

    fn read(dir: &Path, name: &'static str, gosumdb: String) -> anyhow::Result<Data> {
        let lines = |text: &str| -> Vec<String> {
            text.lines().map(str::trim).filter(|it| !it.is_empty()).map(str::to_owned).collect()
        };
        let paths = lines(&fs_err::read_to_string(dir.join("paths.txt"))?);
        let large = lines(&fs_err::read_to_string(dir.join("large.txt")).unwrap_or_default());
        let data = Data { dir: std::path::absolute(dir)?, name, gosumdb, paths, large };
        if data.zips().next().is_none() {
            bail!("no .zip among the paths of {}", dir.display());
        }
        Ok(data)
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    pub(crate) fn gosumdb(&self) -> &str {
        &self.gosumdb
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// Where the upstream's answer to a path is.
    pub(crate) fn file(&self, path: &str) -> anyhow::Result<PathBuf> {
        file_of(&self.store_dir(), path).with_context(|| format!("{path} is not a path"))
    }

    pub(crate) fn zips(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().filter(|path| is_zip(path))
    }

    /// Everything but zips.
    pub(crate) fn small(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().filter(|path| !is_zip(path))
    }

    pub(crate) fn go_mods(&self) -> impl Iterator<Item = &String> {
        self.paths.iter().filter(|path| !path.starts_with("/sumdb/") && extension(path) == "mod")
    }

    pub(crate) fn largest_zip(&self) -> anyhow::Result<&String> {
        let size = |path: &str| -> u64 {
            let file = self.file(path).ok();
            file.and_then(|file| fs_err::metadata(file).ok()).map_or(0, |it| it.len())
        };
        self.zips().max_by_key(|path| size(path)).context("no .zip")
    }

    /// The zip among the large ones that is at least so many bytes, and the least of those.
    pub(crate) fn large_zip(&self, bytes: u64) -> anyhow::Result<&String> {
        let size = |path: &str| -> Option<u64> {
            Some(fs_err::metadata(self.file(path).ok()?).ok()?.len()).filter(|&it| it >= bytes)
        };
        let zips = self.large.iter().filter(|path| is_zip(path));
        let fitting = zips.filter_map(|path| Some((size(path)?, path)));
        fitting.min().map(|(_, path)| path).context("no zip is so large")
    }

    pub(crate) fn summary(&self) -> String {
        let bytes: u64 = self
            .zips()
            .filter_map(|path| fs_err::metadata(self.file(path).ok()?).ok())
            .map(|metadata| metadata.len())
            .sum();
        let zips = self.zips().count();
        format!("{} paths, {zips} of them zips of {} MB", self.paths.len(), bytes / 1_000_000)
    }
}

pub(crate) fn is_zip(path: &str) -> bool {
    extension(path) == "zip"
}

/// Whether every server must hand this out as the upstream does. Lists and the like are made by a
/// server from what it can serve.
pub(crate) fn is_immutable(path: &str) -> bool {
    match path.strip_prefix("/sumdb/") {
        Some(rest) => rest.contains("/lookup/") || rest.contains("/tile/"),
        None => matches!(extension(path), "info" | "mod" | "zip"),
    }
}

fn extension(path: &str) -> &str {
    path.rsplit_once(['.', '/']).map_or("", |(_, extension)| extension)
}

/// The file of a URL's path below a directory; `None` for a path that leads out of it.
pub(crate) fn file_of(dir: &Path, path: &str) -> Option<PathBuf> {
    let path = percent_decode_str(path.strip_prefix('/')?).decode_utf8().ok()?;
    let inside = path.split('/').all(|element| !matches!(element, "" | "." | ".."));
    inside.then(|| dir.join(&*path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_does_not_lead_out_of_its_directory() {
        #[track_caller]
        fn check(path: &str, expected: Option<&str>) {
            assert_eq!(file_of(Path::new("d"), path), expected.map(PathBuf::from), "{path}");
        }
        check("/a.b/!c/@v/v1.0.0+incompatible.zip", Some("d/a.b/!c/@v/v1.0.0+incompatible.zip"));
        check("/a.b/%21c/@v/list", Some("d/a.b/!c/@v/list"));
        check("/a/../../x", None);
        check("/a/%2e%2e/x", None);
        check("//etc/passwd", None);
        check("a", None);
        check("/", None);
    }

    #[test]
    fn what_a_server_may_make_itself_is_not_compared() {
        #[track_caller]
        fn check(path: &str, expected: bool) {
            assert_eq!(is_immutable(path), expected, "{path}");
        }
        check("/a.b/c/@v/v1.0.0.info", true);
        check("/a.b/c/@v/v1.0.0.zip", true);
        check("/sumdb/sum.golang.org/lookup/a.b/c@v1.0.0", true);
        check("/sumdb/sum.golang.org/tile/8/0/001.p/7", true);
        check("/sumdb/sum.golang.org/latest", false);
        check("/sumdb/sum.golang.org/supported", false);
        check("/a.b/c/@v/list", false);
        check("/a.b/c/@latest", false);
    }
}
