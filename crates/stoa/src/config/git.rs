//! `[git]`: modules that come straight from repositories, and the one credential that needs no settings file.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::credential::{Credential, Secret};
use super::mistakes::{Mistake, Origin};
use super::{Config, show};

/// The user that every host takes together with a token.
const TOKEN_USER: &str = "x-access-token";

/// Repositories, fetched with the `git` command.
#[derive(Debug, Clone)]
pub struct Git {
    /// `host` or `host:port`, in lower case.
    pub host: Option<String>,
    pub user: Option<String>,
    pub token: Option<SecretString>,
    pub token_file: Option<SecretFile>,
    /// For a remote to list its branches and tags.
    pub list_timeout: Duration,
    /// Without any progress of a fetch.
    pub stall_timeout: Duration,
    /// For a whole fetch.
    pub fetch_timeout: Duration,
    /// For a place among those at once.
    pub queue_timeout: Duration,
    /// Commands at once that speak to remotes.
    pub max_concurrent: usize,
    pub refs_ttl: Duration,
    /// Branches and tags of one repository.
    pub max_refs: usize,
    /// Bytes, of one repository.
    pub repository_size: u64,
    /// Bytes, of all of them.
    pub size: u64,
}

/// A file and the secret that was read from it.
#[derive(Debug, Clone)]
pub struct SecretFile {
    pub path: PathBuf,
    pub content: SecretString,
}

impl Git {
    pub(super) fn blank() -> Self {
        Self {
            host: None,
            user: None,
            token: None,
            token_file: None,
            list_timeout: Duration::ZERO,
            stall_timeout: Duration::ZERO,
            fetch_timeout: Duration::ZERO,
            queue_timeout: Duration::ZERO,
            max_concurrent: 0,
            refs_ttl: Duration::ZERO,
            max_refs: 0,
            repository_size: 0,
            size: 0,
        }
    }
}

/// `git.example.com`, perhaps with a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let wrong = || {
        // Not repeated where it may hold a password.
        let what = if text.contains('@') { "this".to_owned() } else { format!("{text:?}") };
        format!("{what} is no host: write git.example.com or git.example.com:8443")
    };
    let url = Url::parse(&format!("https://{text}/")).map_err(|_| wrong())?;
    let plain = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    // `git.example.com:` would be a host with an empty port, and `git.example.com/` a host.
    let Some(host) = url.host_str().filter(|_| plain && !text.ends_with([':', '/'])) else {
        return Err(wrong());
    };
    Ok(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// Makes one credential of `git.host`, `git.user` and the token, among those of the settings file. The host may follow
/// from GOPRIVATE, where it is shown then.
pub(super) fn resolve(config: &mut Config) -> Vec<Mistake> {
    let git = config.git.clone();
    let origin_of = |key: &str| config.origin(key);
    let mut found = Vec::new();
    let mut mistake = |key: &str, problem: String| {
        found.push(Mistake { origin: origin_of(key), key: key.to_owned(), problem });
    };
    let (key, token) = match (git.token, git.token_file) {
        (Some(_), Some(_)) => {
            mistake("git.token-file", "git.token is set, too: keep one of both".to_owned());
            return found;
        }
        (Some(token), None) => ("git.token", token),
        (None, Some(file)) => ("git.token-file", file.content),
        (None, None) => {
            for (key, is_set) in
                [("git.host", git.host.is_some()), ("git.user", git.user.is_some())]
            {
                if is_set {
                    mistake(key, "needs git.token or git.token-file too".to_owned());
                }
            }
            return found;
        }
    };
    let named = match git.host {
        Some(host) => Ok((host, None)),
        None => follow(config).map(|(host, key)| (host, Some(key))),
    };
    let (host, followed) = match named {
        Ok(named) => named,
        Err(problem) => {
            mistake(key, problem);
            return found;
        }
    };
    let prefix = match Url::parse(&format!("https://{host}/")) {
        Ok(prefix) => prefix,
        Err(error) => {
            mistake(key, format!("{host:?} is no host ({error}): set git.host (STOA_GIT_HOST)"));
            return found;
        }
    };
    if let Some(first) = config.credentials.iter().find(|first| first.prefix == prefix) {
        let problem = format!("{prefix} has a credential already ({})", first.origin);
        mistake(key, problem);
        return found;
    }
    let origin = config.origin(key);
    if let Some(followed) = followed {
        for effective in config.effective.iter_mut().filter(|e| e.key == "git.host") {
            effective.value = show::quote(&host);
            effective.origin = Origin::Setting(followed);
        }
    }
    let username = git.user.unwrap_or_else(|| TOKEN_USER.to_owned());
    let secret = Secret::Basic { username, password: token };
    config.git_credential = Some(Credential::new(prefix, secret, origin));
    found
}

/// The one host that GOPRIVATE spells out, else GONOPROXY, and which of them it was.
fn follow(config: &Config) -> Result<(String, &'static str), String> {
    let upstream = &config.upstream;
    for (key, patterns) in
        [("upstream.goprivate", &upstream.goprivate), ("upstream.gonoproxy", &upstream.gonoproxy)]
    {
        let mut hosts: Vec<String> =
            patterns.literal_hosts().map(str::to_ascii_lowercase).collect();
        hosts.sort();
        hosts.dedup();
        match &hosts[..] {
            [] => {}
            [host] => return Ok((host.clone(), key)),
            several => {
                return Err(format!(
                    "for which host? {key} names {}: set git.host (STOA_GIT_HOST)",
                    several.join(" and ")
                ));
            }
        }
    }
    Err("for which host? Neither upstream.goprivate nor upstream.gonoproxy spells one out: set git.host (STOA_GIT_HOST)"
        .to_owned())
}

#[cfg(test)]
mod tests;
