//! The go command's settings on this machine, and what else decides how it fetches.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use serde::Serialize;
use tokio::process::Command;

/// The go command answers in some ten milliseconds; longer only where something is wrong with it.
const GO_PATIENCE: Duration = Duration::from_secs(10);

/// A file of settings that is larger is none.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The defaults that are in no file.
const DEFAULTS: [(&str, &str); 4] = [
    ("GOPROXY", "https://proxy.golang.org,direct"),
    ("GOSUMDB", "sum.golang.org"),
    ("GOTOOLCHAIN", "auto"),
    ("GOAUTH", "netrc"),
];

/// Where a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Origin {
    #[serde(rename = "environment")]
    Environment,
    /// The file that `go env -w` writes.
    #[serde(rename = "go env -w")]
    GoEnv,
    /// GONOPROXY and GONOSUMDB are as GOPRIVATE, where nobody sets them.
    #[serde(rename = "GOPRIVATE")]
    Goprivate,
    #[serde(rename = "default")]
    Default,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Environment => "environment",
            Self::GoEnv => "go env -w",
            Self::Goprivate => "GOPRIVATE",
            Self::Default => "default",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Setting {
    /// Empty if there is none.
    pub value: String,
    pub origin: Origin,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    /// The version of the go command.
    pub go: Option<String>,
    env: BTreeMap<String, String>,
    /// What `go env -w` stored.
    stored: BTreeMap<String, String>,
    /// `go.env` of GOROOT, where whoever packaged the go command puts defaults.
    packaged: BTreeMap<String, String>,
    /// Why nothing can be put into GOMODCACHE.
    pub modcache_trouble: Option<String>,
    /// The directory from which builds in the working directory take everything.
    pub vendor: Option<PathBuf>,
}

/// What `go env -json` tells, of which only this is used.
#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
struct Told {
    goversion: String,
    goenv: String,
    goroot: String,
    gomodcache: String,
    gomod: String,
    gowork: String,
}

impl Machine {
    pub(super) async fn read(env: &BTreeMap<String, String>, cwd: &Path) -> Self {
        let told = tell(env, cwd).await;
        let env = env.clone();
        let reading = move || Self::with(told, env);
        tokio::task::spawn_blocking(reading).await.unwrap_or_default()
    }

    /// These settings, on a machine without anything else.
    #[cfg(test)]
    pub(super) fn of(env: BTreeMap<String, String>, stored: BTreeMap<String, String>) -> Self {
        Self { env, stored, ..Self::default() }
    }

    fn with(told: Option<Told>, env: BTreeMap<String, String>) -> Self {
        let go = told.as_ref().map(|told| told.goversion.clone());
        let told = told.unwrap_or_default();
        let mut machine = Self { go, env, ..Self::default() };
        machine.stored = machine.stored_file(&told).map(|file| read(&file)).unwrap_or_default();
        if !told.goroot.is_empty() {
            machine.packaged = read(&Path::new(&told.goroot).join("go.env"));
        }
        machine.modcache_trouble = machine.modcache(&told).and_then(|dir| trouble(&dir));
        // A workspace has a vendor directory of its own.
        let project = [told.gowork, told.gomod].into_iter().find(|file| is_project(file));
        let vendor = project.and_then(|file| Some(Path::new(&file).parent()?.join("vendor")));
        machine.vendor = vendor.filter(|vendor| vendor.join("modules.txt").is_file());
        machine
    }

    /// By the go command's rules: what is empty is not set.
    pub(super) fn setting(&self, name: &str) -> Setting {
        let of = |settings: &BTreeMap<String, String>| {
            settings.get(name).filter(|value| !value.is_empty()).cloned()
        };
        let found = |value, origin| Setting { value, origin };
        if let Some(value) = of(&self.env) {
            return found(value, Origin::Environment);
        }
        if let Some(value) = of(&self.stored) {
            return found(value, Origin::GoEnv);
        }
        if let Some(value) = of(&self.packaged) {
            return found(value, Origin::Default);
        }
        if matches!(name, "GONOPROXY" | "GONOSUMDB") {
            let private = self.setting("GOPRIVATE").value;
            let origin = if private.is_empty() { Origin::Default } else { Origin::Goprivate };
            return found(private, origin);
        }
        let default = DEFAULTS.iter().find(|(known, _)| *known == name);
        found(default.map_or("", |(_, value)| value).to_owned(), Origin::Default)
    }

    /// A variable of the environment that is not one of the go command's own.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether the environment holds something that is stronger than what `go env -w` stores. GOENV is, if it says that
    /// nothing stored is read.
    pub(super) fn hides_stored(&self, name: &str) -> bool {
        let value = self.variable(name);
        if name == "GOENV" { value == Some("off") } else { value.is_some() }
    }

    /// The netrc file that the go command reads.
    pub(super) fn netrc(&self) -> Option<PathBuf> {
        let home = || self.variable("HOME").map(|home| Path::new(home).join(".netrc"));
        self.variable("NETRC").map(PathBuf::from).or_else(home)
    }

    /// The file that `go env -w` writes; none with GOENV=off.
    fn stored_file(&self, told: &Told) -> Option<PathBuf> {
        match self.variable("GOENV") {
            Some("off") => None,
            Some(file) => Some(PathBuf::from(file)),
            None if !told.goenv.is_empty() => Some(PathBuf::from(&told.goenv)),
            None => {
                let home = || self.variable("HOME").map(|home| Path::new(home).join(".config"));
                let config = self.variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
                Some(config.join("go/env"))
            }
        }
    }

    fn modcache(&self, told: &Told) -> Option<PathBuf> {
        if !told.gomodcache.is_empty() {
            return Some(PathBuf::from(&told.gomodcache));
        }
        let named = |name| Some(self.setting(name).value).filter(|value| !value.is_empty());
        if let Some(dir) = named("GOMODCACHE") {
            return Some(PathBuf::from(dir));
        }
        let home = || Some(format!("{}/go", self.variable("HOME")?));
        let path = named("GOPATH").or_else(home)?;
        Some(Path::new(path.split(':').next()?).join("pkg/mod"))
    }
}

/// Runs `go env -json`; nothing if there is no go command, or it fails or hangs.
async fn tell(env: &BTreeMap<String, String>, cwd: &Path) -> Option<Told> {
    let mut command = Command::new("go");
    command
        .args(["env", "-json"])
        .current_dir(cwd)
        .env_clear()
        .envs(env)
        // Else it would first download the toolchain that GOTOOLCHAIN or a go.mod wants.
        .env("GOTOOLCHAIN", "local")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(GO_PATIENCE, command.output()).await.ok()?.ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

fn is_project(file: &str) -> bool {
    !file.is_empty() && file != "off" && file != "/dev/null"
}

/// A file of `NAME=value` lines by the go command's rules: what it does not understand it passes over, and a file that
/// is not there is an empty one.
fn read(file: &Path) -> BTreeMap<String, String> {
    let is_sound = fs_err::metadata(file)
        .is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MAX_FILE_BYTES);
    if !is_sound {
        return BTreeMap::new();
    }
    let text = fs_err::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.split('\n').filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Why the go command could write nothing there.
fn trouble(dir: &Path) -> Option<String> {
    // It makes the directory, and those above it.
    let nearest = dir.ancestors().find(|dir| fs_err::symlink_metadata(dir).is_ok())?;
    match fs_err::metadata(nearest) {
        Err(error) => Some(error.to_string()),
        Ok(metadata) if !metadata.is_dir() => {
            Some(format!("{} is no directory", nearest.display()))
        }
        Ok(_) => {
            let error = access(nearest, Access::WRITE_OK | Access::EXEC_OK).err()?;
            Some(format!("{} cannot be written: {}", nearest.display(), error.kind()))
        }
    }
}
