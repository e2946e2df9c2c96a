//! From settings to a running server: the one place that knows every room.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use stoa_core::{Database, DatabaseSettings, Mirror, Policy, Route, Settings};
use stoa_module::ProxyList;
use stoa_store::Store;
use stoa_sumdb::GoSumDb;
use stoa_upstream::{Chain, Client, Credential, ProxyEnvironment, Secret};
use tokio::net::TcpListener;
use tracing::{error, info, warn};

use crate::command_socket;
use crate::config::{self, Config, ListenAddress};
use crate::http::{App, router};
use crate::server::{Bounds, Listener, serve};

/// A server that is bound and has not yet answered anything.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    bounds: Bounds,
    store: Store,
}

impl Server {
    /// Opens the store, binds, and wires the rooms together.
    ///
    /// # Errors
    /// One line for a person: an address in use, a directory that cannot be written, is held by another server or has
    /// a newer layout.
    pub async fn start(config: &Config) -> anyhow::Result<Self> {
        let store = open_store(config).await?;
        let listener = bind(&config.server.listen).await?;
        let listening_on =
            listener.local_addr().context("the listener has no address")?.to_string();
        let upstream = upstream_settings(config);
        let instance_id = upstream.instance_id.clone();
        let client = Client::new(upstream).context("upstream settings")?;
        let mirror = mirror(config, store.clone(), client).await?;
        let app = Arc::new(App {
            mirror,
            instance_id,
            max_request_line: usize::try_from(config.server.max_request_line).unwrap_or(usize::MAX),
            listening_on,
            offline: config.server.offline,
            started: jiff::Timestamp::now(),
            metrics: Arc::default(),
        });
        let bounds = Bounds {
            header_timeout: config.server.header_timeout,
            write_timeout: config.server.write_timeout,
            max_connections: config.server.max_connections,
            drain_timeout: config.server.drain_timeout,
        };
        Ok(Self { app, listener, bounds, store })
    }

    /// `host:port`, with the port that was picked.
    pub fn listening_on(&self) -> &str {
        &self.app.listening_on
    }

    /// The decisions, for tests that look behind HTTP.
    pub fn mirror(&self) -> &Mirror {
        &self.app.mirror
    }

    /// Serves until `stop` completes and what was being sent is finished, or the drain's time is over. Answers whether
    /// everything was finished.
    pub async fn run(self, stop: impl Future<Output = ()>) -> bool {
        let Self { app, listener, bounds, store } = self;
        let commands = command_server(&app, &store, bounds);
        info!(
            version = env!("CARGO_PKG_VERSION"),
            url = format!("http://{}", app.listening_on),
            data_dir = %store.dir().display(),
            offline = app.offline,
            "stoa is listening"
        );
        let listener = Listener::Tcp(listener);
        let finished = serve(listener, router(Arc::clone(&app)), bounds, stop).await;
        if let Some(commands) = commands {
            commands.abort();
        }
        if let Err(error) = fs_err::remove_file(store.socket_path())
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, "the command socket cannot be removed");
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
) -> Option<tokio::task::JoinHandle<()>> {
    let path = store.socket_path();
    match command_socket::bind(&path) {
        Ok(listener) => {
            let router = command_socket::router(Arc::clone(app));
            Some(tokio::spawn(async move {
                serve(Listener::Unix(listener), router, bounds, std::future::pending()).await;
            }))
        }
        // Serving modules does not depend on it; some file systems have no sockets, and paths may be too long.
        Err(error) => {
            warn!(%error, "there is no command socket: other stoa commands cannot speak to this server");
            None
        }
    }
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let options = stoa_store::Options {
        dir: config.store.dir.clone(),
        memory_bytes: config.store.memory,
        quarantine_bytes: config.store.quarantine_size,
    };
    match Store::open(options).await {
        Ok(store) => Ok(store),
        Err(error @ stoa_store::Error::Locked { .. }) => {
            let socket = config.store.dir.join("stoa.sock");
            Err(match command_socket::ask_status(&socket).await {
                Ok(status) => anyhow!(
                    "{error}: stoa {} listens there on http://{}",
                    status.version,
                    status.listening_on
                ),
                Err(_) => anyhow!(error),
            })
        }
        Err(error) => Err(anyhow!(error)),
    }
}

async fn bind(listen: &ListenAddress) -> anyhow::Result<TcpListener> {
    let mut last = None;
    for (host, port) in listen.candidates() {
        match TcpListener::bind((host, port)).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    Err(match last {
        Some(error) if error.kind() == io::ErrorKind::AddrInUse => anyhow!(
            "cannot listen on {listen}: the address is in use; choose another with --listen"
        ),
        Some(error) => anyhow!("cannot listen on {listen}: {error}"),
        None => anyhow!("cannot listen on {listen}: it is no address"),
    })
}

fn upstream_settings(config: &Config) -> stoa_upstream::Settings {
    let upstream = &config.upstream;
    stoa_upstream::Settings {
        connect_timeout: upstream.connect_timeout,
        stall_timeout: upstream.stall_timeout,
        retries: upstream.tries,
        max_redirects: upstream.max_redirects,
        ca_files: upstream.ca_files.clone(),
        credentials: config.credentials.iter().map(credential).collect(),
        netrc: upstream.netrc.clone(),
        proxy: ProxyEnvironment::from_env(),
        ..stoa_upstream::Settings::default()
    }
}

fn credential(from: &config::Credential) -> Credential {
    let secret = match &from.secret {
        config::Secret::Basic { username, password } => {
            Secret::Basic { username: username.clone(), password: password.clone() }
        }
        config::Secret::Bearer(token) => Secret::Bearer(token.clone()),
    };
    Credential { prefix: from.prefix.clone(), secret }
}

async fn mirror(config: &Config, store: Store, client: Client) -> anyhow::Result<Mirror> {
    let upstream = &config.upstream;
    let chain = |list: &ProxyList| Chain::new(list).context("GOPROXY");
    let mut routes = Vec::new();
    for route in &config.routes {
        routes.push(Route { pattern: route.pattern.clone(), chain: chain(&route.goproxy)? });
    }
    let policy = Policy {
        default: chain(&upstream.goproxy)?,
        routes,
        direct: chain(&ProxyList::parse("direct")?)?,
        goprivate: upstream.goprivate.clone(),
        gonoproxy: upstream.gonoproxy.clone(),
        gonosumdb: config.sumdb.gonosumdb.clone(),
    };
    let gosumdb = &config.sumdb.gosumdb;
    let database = match gosumdb {
        GoSumDb::Off => None,
        GoSumDb::Database { key, url } => {
            let settings = DatabaseSettings {
                key: key.clone(),
                direct: gosumdb.direct_url().context("GOSUMDB names no host")?,
                bypass_proxies: url.is_some(),
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
        max_mod_bytes: config.limits.mod_size,
        max_info_bytes: config.limits.info_size,
        max_list_bytes: config.limits.list_size,
        max_concurrent: upstream.max_concurrent,
        verify_concurrency: config.limits.verify_concurrency,
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
