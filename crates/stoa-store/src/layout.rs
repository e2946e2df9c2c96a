//! Where everything lies. `cache/download` is laid out as the go command lays out `GOMODCACHE/cache/download`, so that
//! `GOPROXY=file://…/cache/download` works on it (protocol.md 16).

use std::path::{Path, PathBuf};

use stoa_module::{Artifact, ModulePath, ModuleVersion, Sha256, Version};

use crate::{answers::AnswerKey, error::Error, record::State};

/// The longest name that the usual file systems hold, in bytes.
const MAX_NAME: usize = 255;
/// Room is left below Linux's 4096 for the names of temporary files and the ending NUL.
const MAX_PATH: usize = 4000;
/// The longest suffix a version gets.
const LONGEST_SUFFIX: usize = ".mod.unverified".len();
/// Every sidecar ends so.
pub(crate) const SIDECAR_SUFFIX: &str = ".stoa";
const UNVERIFIED_SUFFIX: &str = ".unverified";

/// The data directory.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

/// The files of one version: `STEM.info`, `STEM.stoa`, … in `dir`.
#[derive(Debug)]
pub(crate) struct VersionFiles {
    pub(crate) dir: PathBuf,
    stem: String,
}

impl VersionFiles {
    pub(crate) fn artifact(&self, artifact: Artifact) -> PathBuf {
        self.dir.join(format!("{}.{}", self.stem, artifact.extension()))
    }

    /// Where the file of an artifact belongs. What nobody has vouched for yet has a name that the go command asks for
    /// nowhere: a `file://` client and a copy of the directory go without it.
    pub(crate) fn body(&self, artifact: Artifact, state: &State) -> PathBuf {
        match state {
            State::Unverified => {
                let extension = artifact.extension();
                self.dir.join(format!("{}.{extension}{UNVERIFIED_SUFFIX}", self.stem))
            }
            State::Verified { .. } | State::Exempt { .. } | State::Uncovered => {
                self.artifact(artifact)
            }
        }
    }

    /// The same, and where it may lie besides: a process that was killed in the middle of a change of state has left it
    /// at the new place already.
    pub(crate) fn bodies(&self, artifact: Artifact, state: &State) -> Vec<PathBuf> {
        let mut places = vec![self.body(artifact, state)];
        if *state == State::Unverified {
            places.push(self.artifact(artifact));
        }
        places
    }

    pub(crate) fn sidecar(&self) -> PathBuf {
        self.dir.join(format!("{}{SIDECAR_SUFFIX}", self.stem))
    }

    pub(crate) fn zip_hash(&self) -> PathBuf {
        self.dir.join(format!("{}.ziphash", self.stem))
    }
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn download(&self) -> PathBuf {
        self.root.join("cache/download")
    }

    /// Temporary files: in the file system of the blobs, so that a rename can publish them.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join("cache/tmp")
    }

    pub(crate) fn answers(&self) -> PathBuf {
        self.root.join("cache/answers")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }

    /// Bare repositories; not this room's, which only keeps the place free.
    pub(crate) fn git(&self) -> PathBuf {
        self.root.join("git")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("stoa.lock")
    }

    pub(crate) fn version_file(&self) -> PathBuf {
        self.root.join("VERSION")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("stoa.sock")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("stoa.db")
    }

    /// There between a clean close and the next open; see `index`.
    pub(crate) fn clean_mark(&self) -> PathBuf {
        self.root.join("stoa.db.clean")
    }

    /// Which writes are on disk; see `batches`.
    pub(crate) fn flushed_mark(&self) -> PathBuf {
        self.root.join("stoa.flushed")
    }

    /// Of which version a file is, and which artifact; no artifact is its sidecar. `None` for any other file.
    pub(crate) fn owner(&self, file: &Path) -> Option<(ModuleVersion, Option<Artifact>)> {
        let below = file.strip_prefix(self.download()).ok()?;
        let path = below.parent()?.to_str()?.strip_suffix("/@v")?;
        let name = below.file_name()?.to_str()?;
        let (stem, artifact) = if let Some(stem) = name.strip_suffix(SIDECAR_SUFFIX) {
            (stem, None)
        } else {
            let name = name.strip_suffix(UNVERIFIED_SUFFIX).unwrap_or(name);
            let (stem, extension) = name.rsplit_once('.')?;
            (stem, Some(Artifact::from_extension(extension)?))
        };
        let (path, version) =
            (ModulePath::parse_escaped(path).ok()?, Version::parse_escaped(stem).ok()?);
        Some((ModuleVersion::new(path, version).ok()?, artifact))
    }

    /// The `@v` directory of a module.
    pub(crate) fn module_dir(&self, path: &ModulePath) -> Result<PathBuf, Error> {
        Ok(module_below(&self.download(), path)?.join("@v"))
    }

    pub(crate) fn list(&self, path: &ModulePath) -> Result<PathBuf, Error> {
        Ok(self.module_dir(path)?.join("list"))
    }

    /// The files of a version. A version or a path element that no file name can hold is [`Error::TooLong`].
    pub(crate) fn version(&self, module: &ModuleVersion) -> Result<VersionFiles, Error> {
        let stem = module.version().escaped();
        if stem.len() + LONGEST_SUFFIX > MAX_NAME {
            return Err(too_long(&stem));
        }
        let dir = self.module_dir(module.path())?;
        if dir.as_os_str().len() + 1 + stem.len() + LONGEST_SUFFIX > MAX_PATH {
            return Err(too_long(module.path().as_str()));
        }
        Ok(VersionFiles { dir, stem })
    }

    /// Where an upstream's mutable answer is kept.
    pub(crate) fn answer(&self, key: &AnswerKey) -> Result<PathBuf, Error> {
        let below = |path| module_below(&self.answers(), path);
        match key {
            AnswerKey::List(path) => Ok(below(path)?.join("@v/list")),
            AnswerKey::Latest(path) => Ok(below(path)?.join("@latest")),
            AnswerKey::Query(path, query) => {
                let name = format!("{}.info", query.escaped());
                Ok(below(path)?.join("@v").join(fitting(&name)))
            }
        }
    }

    /// Of all checksum databases.
    pub(crate) fn sumdb_root(&self) -> PathBuf {
        self.download().join("sumdb")
    }

    /// A file of a checksum database, at the go command's own place. Both parts may contain slashes; neither may leave
    /// the directory: an element that is empty, `.`, `..` or holds a control character or backslash is
    /// [`Error::UnsafeName`].
    pub(crate) fn sumdb(&self, name: &str, file: &str) -> Result<PathBuf, Error> {
        let mut path = self.sumdb_root();
        for part in [name, file] {
            for element in part.split('/') {
                let odd = element.is_empty()
                    || matches!(element, "." | "..")
                    || element.contains(|c: char| c.is_control() || c == '\\');
                if odd {
                    return Err(Error::UnsafeName(part.chars().take(200).collect()));
                }
                path.push(fitting(element));
            }
        }
        if path.as_os_str().len() > MAX_PATH {
            return Err(too_long(file));
        }
        Ok(path)
    }
}

fn module_below(base: &Path, path: &ModulePath) -> Result<PathBuf, Error> {
    let escaped = path.escaped();
    if let Some(element) = escaped.split('/').find(|element| element.len() > MAX_NAME) {
        return Err(too_long(element));
    }
    let dir = base.join(&escaped);
    if dir.as_os_str().len() + MAX_NAME > MAX_PATH {
        return Err(too_long(&escaped));
    }
    Ok(dir)
}
fn too_long(name: &str) -> Error {
    Error::TooLong(name.chars().take(60).collect())
}

/// The name itself, or its digest where it is too long for a file system. `!!` can begin no escaped name, since there a
/// letter follows each `!`.
fn fitting(name: &str) -> String {
    if name.len() <= MAX_NAME && !name.contains(['/', '\0']) {
        name.to_owned()
    } else {
        format!("!!{}", Sha256::of(name.as_bytes()))
    }
}
