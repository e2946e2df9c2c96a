//! The table of settings. A new setting is one row here and one field in `Config`; its
//! environment variable, its place in the file, `config show`, `config reference` and
//! `config/stoa.toml` follow from the row.

use super::kind::{GIB, KIB, Kind, MIB, TIB};
use crate::cli;

/// One setting.
pub(super) struct Setting {
    /// `section.name`, as in the file.
    pub(super) key: &'static str,
    /// What stands for it when no layer sets it; a valid value that means just that.
    pub(super) default: &'static str,
    pub(super) kind: Kind,
    /// One line for people, without a full stop.
    pub(super) doc: &'static str,
    pub(super) short: Option<Short>,
}

/// The contract's short names of a setting.
pub(super) struct Short {
    pub(super) env: &'static str,
    pub(super) flag: &'static str,
    /// Reads the flag.
    pub(super) given: fn(&cli::Settings) -> Option<&str>,
}

impl Setting {
    const fn new(key: &'static str, default: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { key, default, kind, doc, short: None }
    }

    const fn short(
        mut self,
        flag: &'static str,
        env: &'static str,
        given: fn(&cli::Settings) -> Option<&str>,
    ) -> Self {
        self.short = Some(Short { env, flag, given });
        self
    }

    /// The variable every key has: `server.listen` is `STOA_SERVER_LISTEN`.
    pub(super) fn env(&self) -> String {
        format!("STOA_{}", self.key.replace(['.', '-'], "_").to_ascii_uppercase())
    }

    pub(super) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}

/// The setting with this key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The sections in the order of the file, each with a line about it.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("server", "The server towards its clients"),
    ("store", "What is kept on disk"),
    ("upstream", "Where modules come from, and how long that may take"),
    (
        "git",
        "Repositories from which modules come `direct`, and who the server is there; docs/private-modules.md says more",
    ),
    ("sumdb", "The checksum database that every module is compared with"),
    (
        "cache",
        "How long answers that can change stay fresh; when an upstream is down, older ones serve",
    ),
    ("limits", "What is too large, and how much is done at once"),
    ("log", "The log, on standard error"),
];

/// Every setting, section by section.
pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "server.listen",
        "127.0.0.1:3000",
        Kind::Listen(|c, v| c.server.listen = v),
        "Where to listen: :3000 is every address, port 0 picks a free one and logs it, unix:/run/stoa/stoa.sock is a unix socket; sockets that systemd passes come instead of it",
    )
    .short("--listen", "STOA_LISTEN", |s| s.listen.as_deref()),
    Setting::new(
        "server.admin-listen",
        "",
        Kind::OptionalListen(|c, v| c.server.admin_listen = v),
        "Where to listen for everything that is not the protocol, which the other address then does not answer; empty is the same address for both",
    ),
    Setting::new(
        "server.unix-mode",
        "0660",
        Kind::UnixMode(|c, v| c.server.unix_mode = v),
        "The permissions of a unix socket: who may write to it may connect",
    ),
    Setting::new(
        "server.path-prefix",
        "",
        Kind::PathPrefix(|c, v| c.server.path_prefix = v),
        "The path below which everything is, like /goproxy, when a proxy before this server passes it on",
    ),
    Setting::new(
        "server.trusted-proxies",
        "",
        Kind::TrustedProxies(|c, v| c.server.trusted_proxies = v),
        "Proxies before this server whose X-Forwarded-For, -Proto, -Host and -Prefix are believed; unix is whoever comes over a unix socket",
    ),
    Setting::new(
        "server.tls-cert",
        "",
        Kind::OptionalFile(|c, v| c.server.tls_cert = v),
        "A PEM file with the server's certificate and those between it and its authority: server.listen then speaks TLS; read again when it changes",
    ),
    Setting::new(
        "server.tls-key",
        "",
        Kind::OptionalFile(|c, v| c.server.tls_key = v),
        "A PEM file with the certificate's private key",
    ),
    Setting::new(
        "server.offline",
        "false",
        Kind::Bool(|c, v| c.server.offline = v),
        "Serve what is stored and ask nobody else for anything",
    )
    .short("--offline", "STOA_OFFLINE", |s| s.offline.as_deref()),
    Setting::new(
        "server.header-timeout",
        "10s",
        Kind::Timeout(|c, v| c.server.header_timeout = v),
        "How long a client may take to send a request's head",
    ),
    Setting::new(
        "server.write-timeout",
        "60s",
        Kind::Timeout(|c, v| c.server.write_timeout = v),
        "How long a client may take nothing of its answer; a slow one that goes on reading is waited for",
    ),
    Setting::new(
        "server.max-connections",
        "4096",
        Kind::Count { least: 1, most: 1_000_000, set: |c, v| c.server.max_connections = v as usize },
        "Connections open at once; more wait until one closes",
    ),
    Setting::new(
        "server.max-request-line",
        "8KiB",
        // hyper takes no longer request target than 65,534 bytes.
        Kind::Size { least: KIB, most: 63 * KIB, set: |c, v| c.server.max_request_line = v },
        "The longest request line; a longer one is answered 414",
    ),
    Setting::new(
        "server.misses-per-client",
        "0",
        Kind::Count { least: 0, most: 100_000, set: |c, v| c.server.misses_per_client = v as u32 },
        "How many requests a second of one client (an address, or a /64 of IPv6) may be for what is not here; ten times as many at once; more are answered 429; 0 is no limit",
    ),
    Setting::new(
        "server.drain-timeout",
        "30s",
        Kind::Timeout(|c, v| c.server.drain_timeout = v),
        "How long a stop waits for what is being sent",
    ),
    Setting::new(
        "store.dir",
        "~/.local/share/stoa",
        Kind::DataDirectory(|c, v| c.store.dir = v),
        "The data directory; the default is $XDG_DATA_HOME/stoa where that is set",
    )
    .short("--data-dir", "STOA_DATA_DIR", |s| s.data_dir.as_deref()),
    Setting::new(
        "store.quarantine-size",
        "256MiB",
        Kind::Size { least: 0, most: TIB, set: |c, v| c.store.quarantine_size = v },
        "Room for rejected downloads, kept for people to look at; the oldest go first",
    ),
    Setting::new(
        "store.memory",
        "24MiB",
        Kind::Size { least: 0, most: 64 * GIB, set: |c, v| c.store.memory = v },
        "Memory for what is asked for often: the records of versions, small files, lists; they are served without the disk",
    ),
    Setting::new(
        "store.flush-interval",
        "5s",
        Kind::Age(|c, v| c.store.flush_interval = v),
        "How long what was fetched may wait until a power cut cannot lose it; 0 has everybody wait for the disk. What is served is whole either way",
    ),
    Setting::new(
        "store.spool-file-size",
        "8MiB",
        Kind::Size { least: 0, most: GIB, set: |c, v| c.store.spool_file_size = v },
        "While the disk cannot be written, the largest file that is passed through in memory; a larger one is answered 507",
    ),
    Setting::new(
        "store.spool-size",
        "32MiB",
        Kind::Size { least: 0, most: 64 * GIB, set: |c, v| c.store.spool_size = v },
        "Memory for such files together; none is taken while the disk is well",
    ),
    Setting::new(
        "upstream.goproxy",
        "https://proxy.golang.org,direct",
        Kind::ProxyList(|c, v| c.upstream.goproxy = v),
        "Where modules come from, as in GOPROXY: after a comma the next is asked when one has not got it, after | on any error",
    )
    .short("--goproxy", "STOA_GOPROXY", |s| s.goproxy.as_deref()),
    Setting::new(
        "upstream.goprivate",
        "",
        Kind::Patterns(|c, v| c.upstream.goprivate = v),
        "Modules whose names must not leave for a public host, like *.corp.example.com,github.com/org",
    )
    .short("--goprivate", "STOA_GOPRIVATE", |s| s.goprivate.as_deref()),
    Setting::new(
        "upstream.gonoproxy",
        "",
        Kind::Patterns(|c, v| c.upstream.gonoproxy = v),
        "Modules that are not asked of a proxy; empty is what goprivate says, none is no module",
    )
    .short("--gonoproxy", "STOA_GONOPROXY", |s| s.gonoproxy.as_deref()),
    Setting::new(
        "upstream.goinsecure",
        "",
        Kind::Patterns(|c, v| c.upstream.goinsecure = v),
        "Modules that may be fetched from their own hosts without TLS, when they come `direct`",
    )
    .short("--goinsecure", "STOA_GOINSECURE", |s| s.goinsecure.as_deref()),
    Setting::new(
        "upstream.govcs",
        "",
        Kind::GoVcs(|c, v| c.upstream.govcs = v),
        "Which version control systems may be used for which modules, as in GOVCS; of those that are allowed only git is fetched",
    )
    .short("--govcs", "STOA_GOVCS", |s| s.govcs.as_deref()),
    Setting::new(
        "upstream.connect-timeout",
        "5s",
        Kind::Timeout(|c, v| c.upstream.connect_timeout = v),
        "How long a connection to an upstream may take",
    ),
    Setting::new(
        "upstream.name-ttl",
        "30s",
        Kind::Age(|c, v| c.upstream.name_ttl = v),
        "How long the addresses of an upstream's name are used; in use they are looked up anew before, without a wait, after a failed connection at once; for a day while the resolver fails",
    ),
    Setting::new(
        "upstream.list-timeout",
        "15s",
        Kind::Timeout(|c, v| c.upstream.list_timeout = v),
        "How long the first byte of a list or of @latest may take, all tries together",
    ),
    Setting::new(
        "upstream.file-timeout",
        "60s",
        Kind::Timeout(|c, v| c.upstream.file_timeout = v),
        "How long the first byte of an .info, .mod or .zip may take: a public proxy may have to fetch it first",
    ),
    Setting::new(
        "upstream.alternative-timeout",
        "15s",
        Kind::Timeout(|c, v| c.upstream.alternative_timeout = v),
        "The same for a source that has another behind it over |",
    ),
    Setting::new(
        "upstream.stall-timeout",
        "20s",
        Kind::Timeout(|c, v| c.upstream.stall_timeout = v),
        "How long a download may stand still; a whole download has no bound",
    ),
    Setting::new(
        "upstream.hedge",
        "off",
        Kind::Hedge(|c, v| c.upstream.hedge = v),
        "When a file of a version is asked of the proxy behind | too, because the one before it has not begun to answer: after a time, or with auto when that takes longer than it usually does; the first answer wins",
    ),
    Setting::new(
        "upstream.tries",
        "3",
        Kind::Count { least: 1, most: 10, set: |c, v| c.upstream.tries = v as u32 },
        "How often a source is asked at most when it fails, within those times",
    ),
    Setting::new(
        "upstream.breaker",
        "true",
        Kind::Bool(|c, v| c.upstream.breaker = v),
        "Leave an upstream alone that answers nothing or only 5xx, until a probe finds it again; requests for it fail at once",
    ),
    Setting::new(
        "upstream.probe-pause",
        "10s",
        Kind::Timeout(|c, v| c.upstream.probe_pause = v),
        "The longest pause between two probes of such an upstream; the first comes after a second",
    ),
    Setting::new(
        "upstream.max-redirects",
        "10",
        Kind::Count { least: 0, most: 20, set: |c, v| c.upstream.max_redirects = v as usize },
        "Redirects that are followed",
    ),
    Setting::new(
        "upstream.max-concurrent",
        "64",
        Kind::Count { least: 1, most: 10_000, set: |c, v| c.upstream.max_concurrent = v as usize },
        "Fetches at once from one source; more wait",
    ),
    Setting::new(
        "upstream.ca-files",
        "",
        Kind::Files(|c, v| c.upstream.ca_files = v),
        "PEM files with certificate authorities to trust besides the system's",
    ),
    Setting::new(
        "upstream.netrc",
        "auto",
        Kind::Netrc(|c, v| c.upstream.netrc = v),
        "The netrc file with passwords for upstreams; auto is $NETRC, or ~/.netrc if it is there",
    ),
    Setting::new(
        "git.host",
        "",
        Kind::Host(|c, v| c.git.host = v),
        "The host that git.token is for, perhaps with a port; empty is the one host that goprivate spells out",
    ),
    Setting::new(
        "git.user",
        "",
        Kind::Username(|c, v| c.git.user = v),
        "The user whose token it is; empty is x-access-token, which GitHub, GitLab and Gitea take with a token",
    ),
    Setting::new(
        "git.token",
        "",
        Kind::Secret(|c, v| c.git.token = v),
        "A token or password with which the server reads over https from that host: one credential that needs no [[upstream.credential]]",
    ),
    Setting::new(
        "git.token-file",
        "",
        Kind::SecretFile(|c, v| c.git.token_file = v),
        "A file that holds it, like /run/secrets/git-token; one newline at its end is not part of it",
    ),
    Setting::new(
        "git.list-timeout",
        "30s",
        Kind::Timeout(|c, v| c.git.list_timeout = v),
        "How long a remote may take to list its branches and tags",
    ),
    Setting::new(
        "git.stall-timeout",
        "60s",
        Kind::Timeout(|c, v| c.git.stall_timeout = v),
        "How long a fetch may make no progress",
    ),
    Setting::new(
        "git.fetch-timeout",
        "1h",
        Kind::Timeout(|c, v| c.git.fetch_timeout = v),
        "How long a whole fetch may take, however well it goes on",
    ),
    Setting::new(
        "git.queue-timeout",
        "60s",
        Kind::Timeout(|c, v| c.git.queue_timeout = v),
        "How long a git command waits for its place among those at once",
    ),
    Setting::new(
        "git.max-concurrent",
        "8",
        Kind::Count { least: 1, most: 1000, set: |c, v| c.git.max_concurrent = v as usize },
        "Git commands at once that speak to remotes; more wait",
    ),
    Setting::new(
        "git.refs-ttl",
        "60s",
        Kind::Age(|c, v| c.git.refs_ttl = v),
        "How long a list of a repository's branches and tags is used for all its modules",
    ),
    Setting::new(
        "git.max-refs",
        "500000",
        Kind::Count { least: 1, most: 10_000_000, set: |c, v| c.git.max_refs = v as usize },
        "Branches and tags that a repository may have",
    ),
    Setting::new(
        "git.repository-size",
        "16GiB",
        Kind::Size { least: KIB, most: TIB, set: |c, v| c.git.repository_size = v },
        "The largest a repository may become in the data directory; a fetch that goes beyond is ended",
    ),
    Setting::new(
        "git.size",
        "100GiB",
        Kind::Size { least: 0, most: 1024 * TIB, set: |c, v| c.git.size = v },
        "Room for all repositories; beyond it those that nobody used for the longest time are removed, and fetched again when they are wanted",
    ),
    Setting::new(
        "sumdb.gosumdb",
        "sum.golang.org",
        Kind::SumDb(|c, v| c.sumdb.gosumdb = v),
        "The checksum database, as in GOSUMDB: a name or key, then perhaps a URL; or off",
    )
    .short("--gosumdb", "STOA_GOSUMDB", |s| s.gosumdb.as_deref()),
    Setting::new(
        "sumdb.gonosumdb",
        "",
        Kind::Patterns(|c, v| c.sumdb.gonosumdb = v),
        "Modules that are not compared with it; empty is what goprivate says, none is no module",
    )
    .short("--gonosumdb", "STOA_GONOSUMDB", |s| s.gonosumdb.as_deref()),
    Setting::new(
        "sumdb.timeout",
        "60s",
        Kind::Timeout(|c, v| c.sumdb.timeout = v),
        "How long a look-up may take: the database may have to fetch the module first",
    ),
    Setting::new(
        "sumdb.on-unreachable",
        "refuse",
        Kind::OnUnreachable(|c, v| c.sumdb.on_unreachable = v),
        "What to do with a module while the database cannot be asked: refuse it, or serve it unverified and verify it later",
    ),
    Setting::new(
        "sumdb.serve-after",
        "5s",
        Kind::Timeout(|c, v| c.sumdb.serve_after = v),
        "With serve, how long a module that is here waits for its look-up",
    ),
    Setting::new(
        "cache.list-ttl",
        "60s",
        Kind::Age(|c, v| c.cache.list_ttl = v),
        "How long lists, @latest, branches and tags are fresh; those in use are renewed in the background before",
    ),
    Setting::new(
        "cache.negative-ttl",
        "60s",
        Kind::Age(|c, v| c.cache.negative_ttl = v),
        "How long it is remembered that a module is not there; a day while no source answers",
    ),
    Setting::new(
        "cache.negative-version-ttl",
        "10s",
        Kind::Age(|c, v| c.cache.negative_version_ttl = v),
        "How long at most it is remembered that a version is not there; asked for again it is found before, since tags are pushed",
    ),
    Setting::new(
        "cache.negative-memory",
        "8MiB",
        Kind::Size { least: 0, most: GIB, set: |c, v| c.cache.negative_memory = v },
        "Memory for such absences; the least asked for are forgotten first",
    ),
    Setting::new(
        "limits.zip-size",
        "500MiB",
        Kind::Size { least: KIB, most: 500 * MIB, set: |c, v| c.limits.zip_size = v },
        "The largest .zip; the go command takes none above 500MiB",
    ),
    Setting::new(
        "limits.hold-size",
        "4MiB",
        Kind::Size { least: 0, most: 500 * MIB, set: |c, v| c.limits.hold_size = v },
        "The largest .zip that is sent only once it is verified as a whole; of larger ones all but the last 256KiB is sent while they are downloaded",
    ),
    Setting::new(
        "limits.mod-size",
        "16MiB",
        Kind::Size { least: KIB, most: 16 * MIB, set: |c, v| c.limits.mod_size = v },
        "The largest .mod; the go command takes none above 16MiB",
    ),
    Setting::new(
        "limits.info-size",
        "1MiB",
        Kind::Size { least: KIB, most: 16 * MIB, set: |c, v| c.limits.info_size = v },
        "The largest .info",
    ),
    Setting::new(
        "limits.list-size",
        "16MiB",
        Kind::Size { least: KIB, most: 256 * MIB, set: |c, v| c.limits.list_size = v },
        "The largest list",
    ),
    Setting::new(
        "limits.verify-concurrency",
        "0",
        Kind::Cores(|c, v| c.limits.verify_concurrency = v),
        "Zips checked at once; 0 is one for each core",
    ),
    Setting::new(
        "log.format",
        "text",
        Kind::LogFormat(|c, v| c.log.format = v),
        "text for people, json for machines",
    ),
    Setting::new(
        "log.level",
        "info",
        Kind::LogLevel(|c, v| c.log.level = v),
        "off, error, warn, info, debug or trace; also by part, like info,stoa_core=debug",
    ),
];
