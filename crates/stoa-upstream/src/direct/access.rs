//! What a remote operation of the `git` command gets besides its arguments: whom it may speak to, and who it is there.
//!
//! git resolves names by itself, so the address filter is applied before it runs, to the address that the user's
//! `insteadOf` leaves, and what was found is pinned. git would follow a redirect past that filter, so it follows none;
//! where one leads is found out here, hop by hop, and git is sent there. Secrets travel in the environment, which only
//! this user can read; never in an argument and never on the disk.

mod authorities;
mod remote;
mod ssh;

use std::collections::HashMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::dns::Resolve;
use stoa_module::ErrorClass;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use crate::client::names::Names;
use crate::credentials::Credentials;
pub(super) use crate::direct::access::remote::Remote;
use crate::direct::access::remote::over_ssh;
use crate::direct::access::ssh::ssh_command;
use crate::direct::repositories::{RemoteAccess, Repositories};
use crate::direct::words;
use crate::discovery::{About, NotPublic, Pages, Rules, is_public, literal_address};
use crate::error::Error;
use crate::failure::{Fault, Stage, span};
use crate::proxy::Proxies;
use crate::settings::{Settings, SshKey};
use crate::source::{Base, without_credentials};

/// How long git is sent where a redirect led, before it is asked again at the address that the module's host names.
const REDIRECT_TTL: Duration = Duration::from_mins(10);
/// Such addresses that are remembered; past this the memory starts anew.
const REDIRECTS: usize = 10_000;
/// What git asks first of a repository over http.
const FIRST_QUESTION: &str = "/info/refs?service=git-upload-pack";

/// Before the next address of a host is tried, too, as happy eyeballs do.
const HEAD_START: Duration = Duration::from_millis(250);

/// Environment variables and `-c` options of one remote operation.
#[derive(Clone, Default)]
pub(crate) struct RemoteEnv {
    /// May hold secrets.
    pub(crate) envs: Vec<(OsString, OsString)>,
    /// `name=value` for `git -c`; never a secret.
    pub(crate) options: Vec<String>,
    /// Another address than the repository's own.
    pub(crate) address: Option<String>,
    /// `host:port`, where it is one host's and no directory.
    pub(crate) host: Option<String>,
    /// A person has named the module.
    pub(crate) is_named: bool,
}

impl std::fmt::Debug for RemoteEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.envs.iter().map(|(name, _)| name).collect();
        let Self { options, address, host, is_named, .. } = self;
        f.debug_struct("RemoteEnv")
            .field("envs", &names)
            .field("options", options)
            .field("address", address)
            .field("host", host)
            .field("is_named", is_named)
            .finish()
    }
}

/// Decides what git may do on the network.
pub(crate) struct Access {
    rules: Arc<Rules>,
    credentials: Arc<Credentials>,
    proxies: Arc<Proxies>,
    names: Arc<Names>,
    pages: Arc<Pages>,
    repositories: Repositories,
    ssh_keys: Vec<SshKey>,
    connect_timeout: Duration,
    /// The system's authorities and those of the settings, where there are some.
    authorities: Option<PathBuf>,
    /// Variables of the server that the decision depends on.
    allow_protocol_is_set: bool,
    ssh_command_is_set: bool,
    all_proxy_is_set: bool,
    config_count: usize,
    redirects: Mutex<HashMap<String, (Instant, String)>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Where git is sent.
#[derive(Debug)]
pub(super) struct Located<'k> {
    pub(super) remote: Remote,
    /// The settings' key for it.
    pub(super) key: Option<&'k SshKey>,
    /// Another address than the repository's own.
    pub(super) address: Option<String>,
}

/// What the user's configuration of git says about an address.
#[derive(Debug, Default)]
struct OwnSettings {
    has_proxy: bool,
    has_authorities: bool,
    has_ssh_command: bool,
}

impl Access {
    pub(crate) fn new(
        settings: &Settings,
        rules: Arc<Rules>,
        credentials: Arc<Credentials>,
        proxies: Arc<Proxies>,
        names: Arc<Names>,
        pages: Arc<Pages>,
        repositories: Repositories,
    ) -> Result<Self, Error> {
        let set = |name: &str| settings.environment.get(name);
        let count = set("GIT_CONFIG_COUNT").and_then(|count| count.to_str()?.parse().ok());
        let own_authorities = set("GIT_SSL_CAINFO").or_else(|| set("GIT_SSL_CAPATH")).is_some();
        let authorities = if settings.ca_files.is_empty() || own_authorities {
            None
        } else {
            Some(authorities::bundle(&settings.ca_files, repositories.directory())?)
        };
        Ok(Self {
            rules,
            credentials,
            proxies,
            names,
            pages,
            repositories,
            ssh_keys: settings.ssh_keys.clone(),
            connect_timeout: settings.connect_timeout,
            authorities,
            allow_protocol_is_set: set("GIT_ALLOW_PROTOCOL").is_some(),
            ssh_command_is_set: set("GIT_SSH_COMMAND").or_else(|| set("GIT_SSH")).is_some(),
            all_proxy_is_set: set("all_proxy").or_else(|| set("ALL_PROXY")).is_some(),
            config_count: count.unwrap_or(0),
            redirects: Mutex::default(),
        })
    }

    /// Where git is sent for an address: by a redirect, by the user's `insteadOf`, by a key of ours.
    pub(super) async fn locate(&self, url: &str, about: About) -> Result<Located<'_>, Fault> {
        let mut address = self.redirect(url);
        let asked = address.as_deref().unwrap_or(url);
        let mut remote = Remote::parse(&self.repositories.address(asked).await?)?;
        let keys = if about.is_named { &self.ssh_keys[..] } else { &[] };
        let key = remote.ssh_key(keys);
        if let (Remote::Http(http), Some(key)) = (&remote, key) {
            let over_ssh = over_ssh(http, key);
            remote = Remote::parse(&self.repositories.address(&over_ssh).await?)?;
            address = Some(over_ssh);
        }
        Ok(Located { remote, key, address })
    }

    /// Whether the host may be wherever it is.
    pub(super) fn is_ours(&self, remote: &Remote, about: About) -> bool {
        about.is_named && remote.host().is_some_and(|(host, _)| self.rules.names_host(host))
    }

    /// Where the credential for a repository is from.
    pub(super) async fn credential_origin(&self, url: &Url) -> Option<String> {
        self.credentials.origin(&Base::new(url).ok()?, url, true).await
    }

    async fn prepare(&self, url: &str, about: About) -> Result<RemoteEnv, Fault> {
        let Located { remote, key, address } = self.locate(url, about).await?;
        let mut env = RemoteEnv { address, is_named: about.is_named, ..RemoteEnv::default() };
        if matches!(remote, Remote::Other { .. }) && !self.allow_protocol_is_set {
            // git would say so itself, but only after its host was looked up here.
            return Err(words::transport_not_allowed());
        }
        env.host = remote.host().map(|(host, port)| format!("{host}:{port}"));
        self.repositories.hosts().refuse(&env)?;
        let own = self.own_settings(&remote).await?;
        if about.insecure && !self.allow_protocol_is_set {
            env.envs.push(("GIT_ALLOW_PROTOCOL".into(), "https:ssh:http".into()));
        }
        match &remote {
            Remote::Http(http) => self.for_http(http, &own, &mut env).await,
            Remote::Ssh { .. } => {
                let user_has = self.ssh_command_is_set || own.has_ssh_command;
                if let Some(command) = ssh_command(key, user_has)? {
                    env.envs.push(("GIT_SSH_COMMAND".into(), command.into()));
                }
            }
            Remote::Local | Remote::Other { .. } => {}
        }
        let is_ours = self.is_ours(&remote, about);
        self.agree_on_proxy(&remote, is_ours, &own, &mut env);
        let addresses = self.filter(&remote, is_ours, &own, &mut env.options).await?;
        if let (Remote::Http(_), Some((host, port)), false) =
            (&remote, remote.host(), addresses.is_empty())
            && let Err(fault) = self.connect(host, port, &addresses).await
        {
            self.names.doubt(host);
            self.repositories.hosts().is_silent(&env, &fault);
            return Err(fault);
        }
        Ok(env)
    }

    async fn own_settings(&self, remote: &Remote) -> Result<OwnSettings, Fault> {
        Ok(match remote {
            Remote::Http(url) => {
                let url = without_credentials(url);
                let asked = ["--get-urlmatch", "http", url.as_str()];
                let text = self.repositories.configured(&asked).await?;
                let has = |name: &str| {
                    text.lines().any(|line| {
                        line.split_once(' ')
                            .is_some_and(|(key, value)| key == name && !value.is_empty())
                    })
                };
                OwnSettings {
                    has_proxy: has("http.proxy"),
                    has_authorities: has("http.sslcainfo") || has("http.sslcapath"),
                    has_ssh_command: false,
                }
            }
            Remote::Ssh { .. } if !self.ssh_command_is_set => {
                let text = self.repositories.configured(&["--get", "core.sshCommand"]).await?;
                OwnSettings { has_ssh_command: !text.trim().is_empty(), ..OwnSettings::default() }
            }
            _ => OwnSettings::default(),
        })
    }

    async fn for_http(&self, url: &Url, own: &OwnSettings, env: &mut RemoteEnv) {
        env.options.push("http.followRedirects=false".to_owned());
        if let Some(authorities) = &self.authorities
            && !own.has_authorities
        {
            env.options.push(format!("http.sslCAInfo={}", authorities.display()));
        }
        if let Ok(base) = Base::new(url)
            && env.is_named
            && let Some(secret) = self.credentials.find_for_git(&base, url).await
            && let Ok(secret) = secret.to_str()
        {
            // The name of a setting is no place for one.
            let mut prefix = without_credentials(url);
            prefix.set_query(None);
            let n = self.config_count;
            let mut set = |name: String, value: String| env.envs.push((name.into(), value.into()));
            set("GIT_CONFIG_COUNT".to_owned(), (n + 1).to_string());
            set(format!("GIT_CONFIG_KEY_{n}"), format!("http.{prefix}.extraHeader"));
            set(format!("GIT_CONFIG_VALUE_{n}"), format!("Authorization: {secret}"));
        }
    }

    /// The address filter. A host that is not `is_ours` must be a public one, and stays the one that was looked at.
    /// Answers where it is, if git connects to it directly and by this very name.
    async fn filter(
        &self,
        remote: &Remote,
        is_ours: bool,
        own: &OwnSettings,
        options: &mut Vec<String>,
    ) -> Result<Vec<IpAddr>, Fault> {
        let Some((host, port)) = remote.host() else { return Ok(Vec::new()) };
        let through_proxy = self.goes_through_proxy(remote, own);
        let denied = |address| Err(NotPublic(address).fault().at_host(host));
        let literal = literal_address(host);
        if let Some(address) = literal.filter(|&address| !is_ours && !is_public(address)) {
            return denied(address);
        }
        // A proxy looks names up itself, and this network may well be unable to. What ssh calls a host may be a name of
        // its own configuration.
        let is_http = matches!(remote, Remote::Http(_));
        if through_proxy || (is_ours && !is_http) {
            return Ok(Vec::new());
        }
        let found = match literal {
            Some(address) => vec![address],
            None => self.resolve(host).await?,
        };
        // One address of its own network among public ones is a trick, or a host that should have been named.
        if let Some(&address) = found.iter().find(|&&address| !is_ours && !is_public(address)) {
            return denied(address);
        }
        if is_http && !is_ours && literal.is_none() {
            let text = |address: &IpAddr| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let found: Vec<String> = found.iter().map(text).collect();
            options.push(format!("http.curloptResolve={host}:{port}:{}", found.join(",")));
        }
        Ok(found)
    }

    fn goes_through_proxy(&self, remote: &Remote, own: &OwnSettings) -> bool {
        let Remote::Http(url) = remote else { return false };
        own.has_proxy || self.all_proxy_is_set || self.proxies.find(url).is_some()
    }

    /// What the filter takes for the way of the request must be git's, whichever variables it reads first.
    fn agree_on_proxy(
        &self,
        remote: &Remote,
        is_ours: bool,
        own: &OwnSettings,
        env: &mut RemoteEnv,
    ) {
        let Remote::Http(url) = remote else { return };
        let mut set = |names: [&str; 2], value: &str| {
            env.envs.extend(names.map(|name| (name.into(), value.into())));
        };
        let no_proxy = ["no_proxy", "NO_PROXY"];
        match self.proxies.find(url) {
            Some(proxy) => {
                set(["http_proxy", "https_proxy"], proxy.as_str());
                set(no_proxy, "");
            }
            None if !self.goes_through_proxy(remote, own) => set(no_proxy, "*"),
            // By git's own settings. A host of ours may be excepted from them.
            None if !is_ours => set(no_proxy, ""),
            None => {}
        }
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Fault> {
        let unresolved = |error: &dyn std::fmt::Display| {
            let detail = format!("the name of {host} cannot be resolved: {error}");
            Fault::new(ErrorClass::Unavailable, Stage::Dns, detail).hint(words::LOOK_AT_DNS)
        };
        let name = host.parse().map_err(|error| unresolved(&error))?;
        let resolving = tokio::time::timeout(self.connect_timeout, self.names.resolve(name));
        let found = resolving.await.map_err(|_| unresolved(&"timeout"))?;
        let found: Vec<IpAddr> =
            found.map_err(|error| unresolved(&error))?.map(|address| address.ip()).collect();
        if found.is_empty() { Err(unresolved(&"no address")) } else { Ok(found) }
    }

    /// A host that cannot be reached is told from others at once: git itself would try for minutes.
    async fn connect(&self, host: &str, port: u16, found: &[IpAddr]) -> Result<(), Fault> {
        let unreachable = |error: String| {
            let detail = format!("{host} cannot be reached at port {port}: {error}");
            let fault = Fault::new(ErrorClass::Unavailable, Stage::Connect, detail);
            fault.hint(words::LOOK_AT_NETWORK)
        };
        let connecting = tokio::time::timeout(self.connect_timeout, any_of(found, port)).await;
        match connecting {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable(format!("timeout after {}", span(self.connect_timeout)))),
        }
    }

    fn redirect(&self, url: &str) -> Option<String> {
        let redirects = self.redirects.lock().unwrap_or_else(PoisonError::into_inner);
        let (when, to) = redirects.get(url)?;
        (when.elapsed() < REDIRECT_TTL).then(|| to.clone())
    }

    /// Finds out where the redirect leads that git was answered with.
    async fn follow(&self, url: &str, about: About) -> Result<(), Fault> {
        let from = self.repositories.address(url).await?;
        let elsewhere = |detail: String| Fault::new(ErrorClass::NotFound, Stage::Git, detail);
        let first = Url::parse(&format!("{}{FIRST_QUESTION}", from.trim_end_matches('/')));
        let first = first.map_err(|error| elsewhere(format!("{from}: {error}")))?;
        let end = self.pages.end_of_redirects(first, about).await?;
        let Some(to) = end.as_str().strip_suffix(FIRST_QUESTION) else {
            return Err(elsewhere(format!("git: {url} redirects to what is no repository")));
        };
        let mut redirects = self.redirects.lock().unwrap_or_else(PoisonError::into_inner);
        if redirects.len() >= REDIRECTS {
            redirects.clear();
        }
        redirects.insert(url.to_owned(), (Instant::now(), to.to_owned()));
        Ok(())
    }
}

/// Connects to the first of the addresses that takes a connection. Each is tried a moment after the one before it: a
/// network may swallow what goes to one kind of address.
async fn any_of(addresses: &[IpAddr], port: u16) -> std::io::Result<()> {
    let mut tries = JoinSet::new();
    for (place, &address) in (0_u32..).zip(addresses) {
        tries.spawn(async move {
            tokio::time::sleep(HEAD_START * place).await;
            TcpStream::connect(SocketAddr::new(address, port)).await.map(drop)
        });
    }
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    while let Some(tried) = tries.join_next().await {
        match tried {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => last = error,
            Err(error) => last = std::io::Error::other(error),
        }
    }
    Err(last)
}

/// One module's access.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) access: Arc<Access>,
    pub(crate) about: About,
}

impl RemoteAccess for Grant {
    fn is_named(&self) -> bool {
        self.about.is_named
    }

    fn prepare<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<RemoteEnv, Fault>> + Send + 'a>> {
        Box::pin(self.access.prepare(url, self.about))
    }

    fn follow<'a>(
        &'a self,
        url: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>> {
        Box::pin(self.access.follow(url, self.about))
    }
}

#[cfg(test)]
mod tests;
