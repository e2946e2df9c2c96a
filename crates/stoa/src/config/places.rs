//! Paths and files: where relative ones start, `~`, the XDG data directory, netrc, and reading
//! small files with a bound.
//!
//! A relative path starts from the working directory, in the settings file too, so that one value
//! means the same in every layer. `~/` is the home directory, which no shell expands in a file or
//! in a container's environment.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use fs_err as fs;

/// The largest settings or secret file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// What the meaning of a path depends on, and what was noticed about files.
pub(super) struct Places<'a> {
    env: &'a BTreeMap<String, String>,
    cwd: &'a Path,
    pub(super) warnings: Vec<String>,
}

impl<'a> Places<'a> {
    pub(super) fn new(env: &'a BTreeMap<String, String>, cwd: &'a Path) -> Self {
        Self { env, cwd, warnings: Vec::new() }
    }

    /// An environment variable; an empty one is not set.
    pub(super) fn env(&self, name: &str) -> Option<&'a str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn path(&self, text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("must be a path, not empty".to_owned());
        }
        let home = text.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(rest) = home else { return Ok(self.cwd.join(text)) };
        let home = self.env("HOME").ok_or_else(|| format!("{text:?}: HOME is not set"))?;
        Ok(self.cwd.join(home).join(rest.trim_start_matches('/')))
    }

    /// The data directory by the XDG rules.
    pub(super) fn data_directory(&self) -> Result<String, String> {
        // The rules say that a relative XDG_DATA_HOME is to be ignored.
        let xdg = self.env("XDG_DATA_HOME").filter(|path| path.starts_with('/'));
        if let Some(path) = xdg {
            return Ok(format!("{}/stoa", path.trim_end_matches('/')));
        }
        if self.env("HOME").is_some() {
            return Ok("~/.local/share/stoa".to_owned());
        }
        Err("neither XDG_DATA_HOME nor HOME is set: name the data directory with --data-dir, \
             STOA_DATA_DIR or store.dir"
            .to_owned())
    }

    pub(super) fn readable_file(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.path(text)?;
        let readable = fs::metadata(&path).and_then(|metadata| {
            if metadata.is_dir() {
                return Err(io::Error::other(format!("`{}` is a directory", path.display())));
            }
            fs::File::open(&path).map(drop)
        });
        readable.map_err(|err| err.to_string())?;
        Ok(path)
    }

    /// `off`, `auto`, or a file that must be there.
    pub(super) fn netrc(&mut self, text: &str) -> Result<Option<PathBuf>, String> {
        match text {
            "off" => Ok(None),
            "auto" => Ok(self.usual_netrc()),
            text => self.readable_file(text).map(Some),
        }
    }

    fn usual_netrc(&mut self) -> Option<PathBuf> {
        let named = self.env("NETRC");
        match self.readable_file(named.unwrap_or("~/.netrc")) {
            Ok(path) => Some(path),
            Err(err) => {
                if named.is_some() {
                    self.warnings.push(format!("NETRC: {err}; going on without it"));
                }
                None
            }
        }
    }

    /// A private key for ssh, which reads it itself.
    pub(super) fn ssh_key(&mut self, text: &str) -> Result<PathBuf, String> {
        let path = self.readable_file(text)?;
        let metadata = fs::metadata(&path).map_err(|err| err.to_string())?;
        let mode = metadata.permissions().mode();
        // ssh looks at the permissions of its own user's keys alone.
        let is_own = metadata.uid() == rustix::process::getuid().as_raw();
        if is_own && mode & 0o077 != 0 {
            self.warnings.push(format!(
                "{}: ssh refuses a key that others than its owner may read; chmod 600 makes it \
                 usable, in a Kubernetes volume defaultMode 0400",
                path.display()
            ));
        } else {
            self.warn_if_public(&path, mode);
        }
        Ok(path)
    }

    /// The text in a secret's file, without the newline that editors put at its end.
    pub(super) fn secret(&mut self, text: &str) -> Result<String, String> {
        let path = self.path(text)?;
        let secret = read_text(&path).map_err(|err| err.to_string())?;
        let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
        self.warn_if_public(&path, mode);
        let secret = secret.strip_suffix('\n').unwrap_or(&secret);
        Ok(secret.strip_suffix('\r').unwrap_or(secret).to_owned())
    }

    fn warn_if_public(&mut self, path: &Path, mode: u32) {
        if mode & 0o004 != 0 {
            self.warnings.push(format!(
                "{}: every user of this machine can read this secret; chmod o-r would stop that",
                path.display()
            ));
        }
    }
}

/// Reads a small text file; an error names its path.
pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
    let problem = match read {
        Ok(bytes) if bytes as u64 > MAX_FILE_BYTES => "is larger than 4 MiB".to_owned(),
        Ok(_) => return Ok(text),
        Err(err) if err.kind() == io::ErrorKind::InvalidData => "is not UTF-8 text".to_owned(),
        Err(err) => return Err(err),
    };
    Err(io::Error::other(format!("`{}` {problem}", path.display())))
}

#[cfg(test)]
mod tests;
