//! From settings to a running server: the one place that knows every room.

pub(crate) mod upstream;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use stoa_core::{Database, DatabaseSettings, Hedge, Mirror, Policy, Route, Settings};
use stoa_module::ProxyList;
use stoa_store::{Places, Store};
use stoa_sumdb::GoSumDb;
use stoa_upstream::{Chain, Client};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::command_socket;
use crate::config::{self, Config, Listen, OnUnreachable};
use crate::http::door::Door;
use crate::http::ready::ReadyAnswers;
use crate::http::{App, Site, admin_door, cleartext_door, door};
use crate::server::tls::Tls;
use crate::server::{Bounds, Listener, Secured, serve};
use crate::systemd::{self, Socket, Sockets};

/// A server that is bound and has not yet answered anything.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    /// For the protocol; at least one.
    listeners: Vec<Listener>,
    /// For everything else, where that is apart.
    admin: Vec<Listener>,
    tls: Option<Tls>,
    bounds: Bounds,
    store: Store,
}

/// Connections at once at `server.admin-listen` and at the command socket, each with their own: they are for a few
/// people, scrapers and health checks, and are there when the protocol's listeners are full.
const ADMIN_CONNECTIONS: usize = 64;

impl Server {
    /// Opens the store, binds what was not passed, and wires the rooms together.
    ///
    /// # Errors
    /// One line for a person: an address in use, a directory that cannot be written, is held by another server or has
    /// a newer layout.
    pub async fn start(config: &Config, sockets: Sockets) -> anyhow::Result<Self> {
        let server = &config.server;
        let tls = match (&server.tls_cert, &server.tls_key) {
            (Some(cert), Some(key)) => Some(Tls::open(cert, key).map_err(|error| anyhow!(error))?),
            _ => None,
        };
        let store = open_store(config).await?;
        let (mut listeners, mut admin) = (passed(sockets.protocol)?, passed(sockets.admin)?);
        if listeners.is_empty() {
            listeners.push(bind(&server.listen, server.unix_mode, "--listen").await?);
        }
        if let Some(listen) = &server.admin_listen
            && admin.is_empty()
        {
            admin.push(bind(listen, server.unix_mode, "server.admin-listen").await?);
        }
        upstream::say_whether_git_is_missing(config, std::env::var_os("PATH").as_deref());
        let git_dir = (!config.server.offline).then(|| store.git_dir());
        let upstream = upstream::settings(config, git_dir);
        let instance_id = upstream.instance_id.clone();
        let client = Client::new(upstream).context("upstream settings")?;
        let mirror = mirror(config, store.clone(), client).await?;
        let max_request_line =
            usize::try_from(config.server.max_request_line).unwrap_or(usize::MAX);
        let app = Arc::new(App {
            mirror,
            instance_id,
            max_request_line,
            site: site(config, &listeners, tls.is_some(), !admin.is_empty()),
            offline: config.server.offline,
            config: Arc::new(config.clone()),
            started: jiff::Timestamp::now(),
            metrics: Arc::default(),
            ready: ReadyAnswers::new(ready_memory(config)),
        });
        let bounds = Bounds {
            header_timeout: config.server.header_timeout,
            write_timeout: config.server.write_timeout,
            max_connections: config.server.max_connections,
            max_request_line,
            drain_timeout: config.server.drain_timeout,
        };
        Ok(Self { app, listeners, admin, tls, bounds, store })
    }

    /// The protocol's URL, with the port that was picked; `unix:/path` for a unix socket.
    pub fn url(&self) -> &str {
        &self.app.site.url
    }

    /// The decisions, for tests that look behind HTTP.
    pub fn mirror(&self) -> &Mirror {
        &self.app.mirror
    }

    /// Serves until `stop` completes and what was being sent is finished, or the drain's time is over. Answers whether
    /// everything was finished. Each change of `hangup` has the certificate read again.
    pub async fn run(self, stop: impl Future<Output = ()>, hangup: watch::Receiver<()>) -> bool {
        let Self { app, listeners, admin, tls, bounds, store } = self;
        let addresses = |listeners: &[Listener]| -> Option<String> {
            let addresses: Vec<String> = listeners.iter().map(Listener::address).collect();
            (!addresses.is_empty()).then(|| addresses.join(" "))
        };
        let (also, admin_at) = (addresses(&listeners[1..]), addresses(&admin));
        let few = Bounds { max_connections: ADMIN_CONNECTIONS, ..bounds };
        let commands = command_server(&app, &store, few);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            url = app.site.url,
            also,
            admin = admin_at,
            data_dir = %store.dir().display(),
            offline = app.offline,
            "stoa is listening"
        );
        let later = {
            let mirror = app.mirror.clone();
            tokio::spawn(async move { mirror.verify_later().await })
        };
        // The pages stay until everything else has ended: a drain is when somebody looks.
        let pages = (!admin.is_empty()).then(|| {
            let door = admin_door(Arc::clone(&app));
            tokio::spawn(serve(admin, door, None, few, std::future::pending()))
        });
        let alive = tokio::spawn(systemd::keep_alive());
        systemd::ready(&app.site.url).await;
        let stop = async {
            stop.await;
            // At once: the drain does not wait for systemd.
            tokio::spawn(systemd::stopping());
        };
        let secured = tls.as_ref().map(|tls| Secured {
            config: tls.config(),
            cleartext: cleartext_door(Arc::clone(&app)),
        });
        let certificate = tls.map(|tls| tokio::spawn(tls.keep_current(hangup)));
        let finished = serve(listeners, door(Arc::clone(&app)), secured, bounds, stop).await;
        for task in certificate.into_iter().chain([alive]) {
            task.abort();
        }
        later.abort();
        for task in commands.into_iter().chain(pages) {
            task.abort();
            // Until it is dropped with its listener, whose file goes with it.
            let _ = task.await;
        }
        drop(app);
        store.close().await;
        finished
    }
}

fn command_server(
    app: &Arc<App>,
    store: &Store,
    bounds: Bounds,
) -> Option<tokio::task::JoinHandle<bool>> {
    match command_socket::bind(&store.socket_path()) {
        Ok(listener) => {
            let door = Door::unlogged(command_socket::router(Arc::clone(app)));
            Some(tokio::spawn(serve(vec![listener], door, None, bounds, std::future::pending())))
        }
        // Serving modules does not depend on it; some file systems have no sockets, and paths may be too long.
        Err(error) => {
            warn!(%error, "there is no command socket: other stoa commands cannot speak to this server");
            None
        }
    }
}

/// Of `store.memory`, what answers take that are ready to be sent: half, since they hold the bodies too.
fn ready_memory(config: &Config) -> u64 {
    config.store.memory / 2
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let options = stoa_store::Options {
        dir: config.store.dir.clone(),
        memory_bytes: config.store.memory - ready_memory(config),
        quarantine_bytes: config.store.quarantine_size,
        spool_file_bytes: config.store.spool_file_size,
        spool_bytes: config.store.spool_size,
        flush_interval: config.store.flush_interval,
        reads_only: config.server.offline,
    };
    match Store::open(options).await {
        Ok(store) => Ok(store),
        Err(error @ stoa_store::Error::Locked { .. }) => {
            let socket = Places::of(&config.store.dir).socket();
            Err(match command_socket::ask_status(&socket).await {
                Ok(status) => anyhow!(
                    "{error}: stoa {} listens there on {}",
                    status.version,
                    status.listening_on
                ),
                Err(_) => anyhow!(error),
            })
        }
        Err(error) => Err(anyhow!(error)),
    }
}

async fn bind(listen: &Listen, unix_mode: u32, setting: &str) -> anyhow::Result<Listener> {
    let bound = match listen {
        Listen::Tcp(address) => Listener::bind_tcp(&address.candidates()).await,
        Listen::Unix(path) => Listener::bind_unix(path, unix_mode).await,
    };
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => anyhow!(
            "cannot listen on {listen}: the address is in use; choose another with {setting}"
        ),
        _ => anyhow!("cannot listen on {listen}: {error}"),
    })
}

fn passed(sockets: Vec<Socket>) -> anyhow::Result<Vec<Listener>> {
    let listeners = sockets.into_iter().map(Socket::listener).collect::<io::Result<Vec<_>>>();
    listeners.context("a socket that systemd passed")
}

fn site(config: &Config, listeners: &[Listener], tls: bool, admin_apart: bool) -> Site {
    let path_prefix = config.server.path_prefix.clone();
    let address = listeners.iter().find_map(Listener::tcp_address);
    let url = match (address, listeners.first()) {
        (Some(address), _) if tls => format!("https://{address}{path_prefix}"),
        (Some(address), _) => format!("http://{address}{path_prefix}"),
        (None, Some(listener)) => listener.address(),
        (None, None) => String::new(),
    };
    let trusted_proxies = config.server.trusted_proxies.clone();
    Site { url, address, tls, admin_apart, path_prefix, trusted_proxies }
}

/// Which modules come from where.
///
/// # Errors
/// A source that cannot be one.
pub(crate) fn policy(config: &Config) -> anyhow::Result<Policy> {
    let upstream = &config.upstream;
    let chain = |list: &ProxyList| Chain::new(list).context("GOPROXY");
    let mut routes = Vec::new();
    for route in &config.routes {
        routes.push(Route { pattern: route.pattern.clone(), chain: chain(&route.goproxy)? });
    }
    Ok(Policy {
        default: chain(&upstream.goproxy)?,
        routes,
        direct: chain(&ProxyList::parse("direct")?)?,
        goprivate: upstream.goprivate.clone(),
        gonoproxy: upstream.gonoproxy.clone(),
        gonosumdb: config.sumdb.gonosumdb.clone(),
    })
}

async fn mirror(config: &Config, store: Store, client: Client) -> anyhow::Result<Mirror> {
    let upstream = &config.upstream;
    let policy = policy(config)?;
    let gosumdb = &config.sumdb.gosumdb;
    let database = match gosumdb {
        GoSumDb::Off => None,
        GoSumDb::Database { key, url } => {
            let settings = DatabaseSettings {
                key: key.clone(),
                direct: gosumdb.direct_url().context("GOSUMDB names no host")?,
                direct_first: url.is_some(),
                timeout: config.sumdb.timeout,
                alternative_timeout: upstream.alternative_timeout,
                offline: config.server.offline,
            };
            Some(Database::open(settings, store.clone(), client.clone()).await?)
        }
    };
    let settings = Settings {
        offline: config.server.offline,
        list_ttl: config.cache.list_ttl,
        negative_ttl: config.cache.negative_ttl,
        negative_version_ttl: config.cache.negative_version_ttl,
        negative_bytes: config.cache.negative_memory,
        list_timeout: upstream.list_timeout,
        file_timeout: upstream.file_timeout,
        alternative_timeout: upstream.alternative_timeout,
        max_zip_bytes: config.limits.zip_size,
        hold_bytes: config.limits.hold_size,
        hedge: match upstream.hedge {
            config::Hedge::Off => Hedge::Never,
            config::Hedge::Auto => Hedge::Usual,
            config::Hedge::After(after) => Hedge::After(after),
        },
        max_mod_bytes: config.limits.mod_size,
        max_info_bytes: config.limits.info_size,
        max_list_bytes: config.limits.list_size,
        max_concurrent: upstream.max_concurrent,
        misses_per_client: config.server.misses_per_client,
        verify_concurrency: config.limits.verify_concurrency,
        serve_unverified_after: (config.sumdb.on_unreachable == OnUnreachable::Serve)
            .then_some(config.sumdb.serve_after),
    };
    let mirror = Mirror::new(settings, policy, store, client, database);
    mirror.context("the threads that inspect zips cannot be started")
}

/// Completes with the first SIGTERM or SIGINT. A second one ends the process at once: somebody is in a hurry.
///
/// # Errors
/// The signal handlers cannot be installed.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};

    /// What a shell reports for a process that SIGINT ended.
    const INTERRUPTED: i32 = 130;
    const HURRY: Duration = Duration::from_millis(50);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        info!(signal = name, "what is being sent is finished, then stoa ends");
        tokio::spawn(async move {
            // A terminal may deliver one key press to a whole group in short succession.
            tokio::time::sleep(HURRY).await;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            error!("a second signal: stoa ends at once");
            std::process::exit(INTERRUPTED);
        });
    })
}

/// Changes with each SIGHUP, which then ends nothing.
///
/// # Errors
/// The signal handler cannot be installed.
pub fn hangup_signal() -> io::Result<watch::Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut hangup = signal(SignalKind::hangup())?;
    let (sender, receiver) = watch::channel(());
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            info!("SIGHUP: the certificate is read again; other settings are read at a start");
            let _ = sender.send(());
        }
    });
    Ok(receiver)
}
