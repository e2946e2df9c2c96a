//! The settings: from flags, the `STOA_` environment, a TOML file and defaults, in this order of
//! strength; every mistake at once; each value with its origin.
//!
//! `table` lists the settings; everything else follows from it. The environment and the
//! arguments come in as values. What is read besides: the settings file, and files that it names.

mod credential;
mod environment;
mod file;
mod git;
mod kind;
mod listen;
mod mistakes;
mod places;
mod route;
mod show;
mod suggest;
mod table;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stoa_module::{Patterns, ProxyList, ProxySource};
use stoa_sumdb::GoSumDb;
use stoa_upstream::GoVcs;

pub use self::credential::{Credential, Secret};
pub use self::git::{Git, SecretFile};
pub use self::listen::{Listen, TrustedProxies};
use self::mistakes::Collector;
pub use self::mistakes::{Mistake, Mistakes, Origin};
use self::places::Places;
pub use self::route::Route;
#[cfg(test)]
pub(crate) use self::show::flags;
pub use self::show::{reference, template};
use self::table::{SETTINGS, Setting};
use self::value::Raw;
pub use self::value::{Hedge, ListenAddress, LogFormat, OnUnreachable};
use crate::cli;

/// The system's settings file, read when the working directory has none.
const SYSTEM_FILE: &str = "/etc/stoa/stoa.toml";

/// Every setting as it is in effect. Paths are absolute when the working directory is.
#[derive(Debug, Clone)]
pub struct Config {
    pub server: Server,
    pub store: StoreSettings,
    pub upstream: Upstream,
    pub git: Git,
    pub sumdb: Sumdb,
    pub cache: Cache,
    pub limits: Limits,
    pub log: Log,
    /// In the order of the file: the first whose pattern matches wins.
    pub routes: Vec<Route>,
    pub credentials: Vec<Credential>,
    /// What `git.token` makes.
    pub git_credential: Option<Credential>,
    /// The settings file that was read, as it was named.
    pub file: Option<PathBuf>,
    /// What is allowed and probably not meant, a sentence each, for the log.
    pub warnings: Vec<String>,
    /// Every setting as it is shown, in the table's order.
    pub effective: Vec<Effective>,
}

/// One setting as `config show` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub key: &'static str,
    /// A TOML value, secrets masked.
    pub value: String,
    pub origin: Origin,
}

/// The server towards its clients.
#[derive(Debug, Clone)]
pub struct Server {
    pub listen: Listen,
    /// For what is not the protocol; none: it is where the protocol is.
    pub admin_listen: Option<Listen>,
    /// The permissions of unix sockets.
    pub unix_mode: u32,
    /// Empty, or `/` and segments without a slash at the end.
    pub path_prefix: String,
    pub trusted_proxies: TrustedProxies,
    /// PEM, the server's own certificate first. Set if and only if the key is.
    pub tls_cert: Option<PathBuf>,
    /// PEM.
    pub tls_key: Option<PathBuf>,
    /// Nothing leaves this machine.
    pub offline: bool,
    /// From the connection's or the last answer's end to the end of a request's head.
    pub header_timeout: Duration,
    /// Without the client taking anything of an answer.
    pub write_timeout: Duration,
    pub max_connections: usize,
    /// Bytes.
    pub max_request_line: u64,
    /// Requests a second of one client for what is not here; 0 is no limit.
    pub misses_per_client: u32,
    pub drain_timeout: Duration,
}

/// What is kept on disk.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    pub dir: PathBuf,
    /// Bytes.
    pub quarantine_size: u64,
    /// Bytes, of one download that the disk does not take.
    pub spool_file_size: u64,
    /// Bytes, of all of those together.
    pub spool_size: u64,
    /// Bytes, for what is asked for often.
    pub memory: u64,
    /// Nothing is "at once".
    pub flush_interval: Duration,
}

/// Where modules come from. Timeouts are to the first byte of an answer, all tries together.
#[derive(Debug, Clone)]
pub struct Upstream {
    pub goproxy: ProxyList,
    pub goprivate: Patterns,
    /// GOPRIVATE's value where it was not set.
    pub gonoproxy: Patterns,
    pub goinsecure: Patterns,
    pub govcs: GoVcs,
    pub connect_timeout: Duration,
    pub name_ttl: Duration,
    pub list_timeout: Duration,
    pub file_timeout: Duration,
    /// For a source that has another behind it over `|`.
    pub alternative_timeout: Duration,
    /// Between two reads of a body.
    pub stall_timeout: Duration,
    pub hedge: Hedge,
    /// At least 1.
    pub tries: u32,
    /// Whether a dead upstream is left alone.
    pub breaker: bool,
    /// The longest between two probes of one.
    pub probe_pause: Duration,
    pub max_redirects: usize,
    /// Fetches at once.
    pub max_concurrent: usize,
    pub ca_files: Vec<PathBuf>,
    pub netrc: Option<PathBuf>,
}

/// The checksum database.
#[derive(Clone)]
pub struct Sumdb {
    pub gosumdb: GoSumDb,
    /// GOPRIVATE's value where it was not set.
    pub gonosumdb: Patterns,
    pub timeout: Duration,
    pub on_unreachable: OnUnreachable,
    /// With [`OnUnreachable::Serve`].
    pub serve_after: Duration,
}

/// How long answers that can change are fresh; nothing is "ask every time".
#[derive(Debug, Clone)]
pub struct Cache {
    pub list_ttl: Duration,
    pub negative_ttl: Duration,
    pub negative_version_ttl: Duration,
    /// Bytes.
    pub negative_memory: u64,
}

/// Sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    pub zip_size: u64,
    /// Up to which a zip is held back until it is verified.
    pub hold_size: u64,
    pub mod_size: u64,
    pub info_size: u64,
    pub list_size: u64,
    /// At least 1.
    pub verify_concurrency: usize,
}

#[derive(Debug, Clone)]
pub struct Log {
    pub format: LogFormat,
    /// A filter that `tracing_subscriber::EnvFilter` takes.
    pub level: String,
}

impl fmt::Debug for Sumdb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL of a database may hold a password.
        let gosumdb = match &self.gosumdb {
            GoSumDb::Off => "off".to_owned(),
            GoSumDb::Database { key, url: None } => key.to_string(),
            GoSumDb::Database { key, url: Some(url) } => {
                format!("{key} {}", show::redact(url.as_str()))
            }
        };
        f.debug_struct("Sumdb")
            .field("gosumdb", &gosumdb)
            .field("gonosumdb", &self.gonosumdb)
            .field("timeout", &self.timeout)
            .field("on_unreachable", &self.on_unreachable)
            .field("serve_after", &self.serve_after)
            .finish()
    }
}

impl Config {
    /// Reads all settings. `env` is the whole environment, `cwd` what relative paths start from.
    ///
    /// # Errors
    /// Everything that is wrong, at once; what is wrong with several settings together once each of them is right.
    pub fn load(
        args: &cli::Settings,
        env: &BTreeMap<String, String>,
        cwd: &Path,
    ) -> Result<Self, Mistakes> {
        Self::load_with(args, env, cwd, Path::new(SYSTEM_FILE))?.together()
    }

    /// What follows from several settings, each of which is right by itself.
    fn together(mut self) -> Result<Self, Mistakes> {
        let mut mistakes = listen::mistakes(&self);
        mistakes.append(&mut git::resolve(&mut self));
        if mistakes.is_empty() { Ok(self) } else { Err(Mistakes::new(mistakes)) }
    }

    fn load_with(
        args: &cli::Settings,
        env: &BTreeMap<String, String>,
        cwd: &Path,
        system: &Path,
    ) -> Result<Self, Mistakes> {
        let mut out = Collector::default();
        let mut places = Places::new(env, cwd);
        let mut config = Self::blank();

        let file = file::read(args, &places, system, &mut out);
        let mut document =
            file.as_ref().map(|(path, text)| file::parse(path, text, &mut out)).unwrap_or_default();
        let spoken_for = credential::variables(&document.credentials);
        let mut variables = environment::read(env, &spoken_for, &mut out);

        for setting in SETTINGS {
            let flag = setting.short.as_ref().and_then(|short| {
                let text = (short.given)(args)?.to_owned();
                Some((Raw::Text(text), Origin::Flag(short.flag)))
            });
            // Weakest first: each is checked, also where a stronger one wins.
            let layers = [document.values.remove(setting.key), variables.remove(setting.key), flag];
            config.set(setting, layers, &mut places, &mut out);
        }
        config.follow_goprivate();
        config.routes = route::read(&document.routes, &mut out);
        config.credentials = credential::read(&document.credentials, &mut places, &mut out);
        config.file = file.map(|(path, _)| path);

        if !out.mistakes.is_empty() {
            return Err(Mistakes::new(out.mistakes));
        }
        config.warnings = out.warnings;
        config.warnings.append(&mut places.warnings);
        config.warn();
        Ok(config)
    }

    fn set(
        &mut self,
        setting: &'static Setting,
        layers: [Option<(Raw, Origin)>; 3],
        places: &mut Places<'_>,
        out: &mut Collector,
    ) {
        let mut layers: Vec<(Raw, Origin)> = layers.into_iter().flatten().collect();
        if layers.is_empty() {
            let default = if setting.key == "store.dir" {
                places.data_directory()
            } else {
                Ok(setting.default.to_owned())
            };
            match default {
                Ok(text) => layers.push((Raw::Text(text), Origin::Default)),
                Err(problem) => out.mistake(Origin::Default, setting.key, problem),
            }
        }
        let mut effective = None;
        for (raw, origin) in layers {
            match setting.kind.apply(&raw, places, self) {
                Ok(value) => effective = Some(Effective { key: setting.key, value, origin }),
                Err(problem) => out.mistake(origin, setting.key, problem),
            }
        }
        self.effective.extend(effective);
    }

    /// GONOPROXY and GONOSUMDB are GOPRIVATE where they are empty, as in Go.
    fn follow_goprivate(&mut self) {
        const KEY: &str = "upstream.goprivate";
        let private = self.upstream.goprivate.clone();
        let Some(shown) = self.effective.iter().find(|e| e.key == KEY).cloned() else { return };
        for (key, patterns) in [
            ("upstream.gonoproxy", &mut self.upstream.gonoproxy),
            ("sumdb.gonosumdb", &mut self.sumdb.gonosumdb),
        ] {
            if patterns.is_empty() && !private.is_empty() {
                patterns.clone_from(&private);
                for effective in self.effective.iter_mut().filter(|e| e.key == key) {
                    effective.value.clone_from(&shown.value);
                    effective.origin = Origin::Setting(KEY);
                }
            }
        }
    }

    fn origin(&self, key: &str) -> Origin {
        let found = self.effective.iter().find(|effective| effective.key == key);
        found.map_or(Origin::Default, |effective| effective.origin.clone())
    }

    /// What is allowed and probably not meant.
    fn warn(&mut self) {
        let mut warnings = Vec::new();
        let goproxy = ("upstream.goproxy", &self.upstream.goproxy, self.origin("upstream.goproxy"));
        let routes = self.routes.iter().map(|r| ("route.goproxy", &r.goproxy, r.origin.clone()));
        for (key, list, origin) in std::iter::once(goproxy.clone()).chain(routes) {
            for item in &list.items {
                if let ProxySource::Url(url) = &item.source
                    && url.scheme() == "http"
                    && (!url.username().is_empty() || url.password().is_some())
                {
                    let host = url.host_str().unwrap_or_default();
                    warnings.push(format!(
                        "{origin}: {key}: over http the password for {host} can be read on its \
                         way; use https"
                    ));
                }
            }
        }
        let (key, list, origin_of_list) = goproxy;
        let off = list.items.iter().all(|item| matches!(item.source, ProxySource::Off));
        if off && !self.server.offline {
            warnings.push(format!(
                "{origin_of_list}: {key}: off fetches nothing; for a machine without a network \
                 set server.offline, which also answers lists from the store"
            ));
        }
        if matches!(self.sumdb.gosumdb, GoSumDb::Off) {
            warnings.push(format!(
                "{}: sumdb.gosumdb: off compares nothing with the checksum database: a changed \
                 module is handed out like any other",
                self.origin("sumdb.gosumdb")
            ));
        }
        if self.sumdb.on_unreachable == OnUnreachable::Serve {
            warnings.push(format!(
                "{}: sumdb.on-unreachable: serve hands out modules that nobody has verified while the \
                 checksum database cannot be reached",
                self.origin("sumdb.on-unreachable")
            ));
        }
        self.warnings.append(&mut warnings);
    }

    /// Every setting as it is in effect, as TOML, each with its origin; secrets are masked.
    pub fn show(&self) -> String {
        show::show(self)
    }

    /// Where the table's settings are put; each is set before anyone sees it.
    fn blank() -> Self {
        let no_time = Duration::ZERO;
        Self {
            server: Server {
                listen: Listen::Tcp(ListenAddress { host: String::new(), port: 0 }),
                admin_listen: None,
                unix_mode: 0,
                path_prefix: String::new(),
                trusted_proxies: TrustedProxies::default(),
                tls_cert: None,
                tls_key: None,
                offline: false,
                header_timeout: no_time,
                write_timeout: no_time,
                max_connections: 0,
                max_request_line: 0,
                misses_per_client: 0,
                drain_timeout: no_time,
            },
            store: StoreSettings {
                dir: PathBuf::new(),
                quarantine_size: 0,
                spool_file_size: 0,
                spool_size: 0,
                memory: 0,
                flush_interval: no_time,
            },
            upstream: Upstream {
                goproxy: ProxyList { items: Vec::new() },
                goprivate: Patterns::default(),
                gonoproxy: Patterns::default(),
                goinsecure: Patterns::default(),
                govcs: GoVcs::default(),
                connect_timeout: no_time,
                name_ttl: no_time,
                list_timeout: no_time,
                file_timeout: no_time,
                alternative_timeout: no_time,
                stall_timeout: no_time,
                hedge: Hedge::Off,
                tries: 0,
                breaker: false,
                probe_pause: no_time,
                max_redirects: 0,
                max_concurrent: 0,
                ca_files: Vec::new(),
                netrc: None,
            },
            git: Git::blank(),
            sumdb: Sumdb {
                gosumdb: GoSumDb::Off,
                gonosumdb: Patterns::default(),
                timeout: no_time,
                on_unreachable: OnUnreachable::Refuse,
                serve_after: no_time,
            },
            cache: Cache {
                list_ttl: no_time,
                negative_ttl: no_time,
                negative_version_ttl: no_time,
                negative_memory: 0,
            },
            limits: Limits {
                zip_size: 0,
                hold_size: 0,
                mod_size: 0,
                info_size: 0,
                list_size: 0,
                verify_concurrency: 0,
            },
            log: Log { format: LogFormat::Text, level: String::new() },
            routes: Vec::new(),
            credentials: Vec::new(),
            git_credential: None,
            file: None,
            warnings: Vec::new(),
            effective: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
