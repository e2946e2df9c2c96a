//! What the room of upstreams is told of the settings.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use stoa_module::{Patterns, ProxyList, ProxySource};
use stoa_upstream::{Credential, GitSettings, ProxyEnvironment, Rules, Secret, Settings, SshKey};
use tracing::{info, warn};

use crate::config::{self, Config};

/// `git_dir`: where bare repositories are kept, if anything may be fetched from repositories.
pub(crate) fn settings(config: &Config, git_dir: Option<PathBuf>) -> Settings {
    let (upstream, git) = (&config.upstream, &config.git);
    let (mut credentials, mut ssh_keys) = (Vec::new(), Vec::new());
    for from in config.credentials.iter().chain(&config.git_credential) {
        let prefix = from.prefix.clone();
        let secret = match &from.secret {
            config::Secret::Basic { username, password } => {
                Secret::Basic { username: username.clone(), password: password.clone() }
            }
            config::Secret::Bearer(token) => Secret::Bearer(token.clone()),
            config::Secret::SshKey { key_file, known_hosts_file } => {
                let (key_file, known_hosts_file) = (key_file.clone(), known_hosts_file.clone());
                ssh_keys.push(SshKey { prefix, key_file, known_hosts_file });
                continue;
            }
        };
        credentials.push(Credential { prefix, secret });
    }
    Settings {
        connect_timeout: upstream.connect_timeout,
        name_ttl: upstream.name_ttl,
        stall_timeout: upstream.stall_timeout,
        retries: upstream.tries,
        breakers: upstream.breaker,
        probe_pause: upstream.probe_pause,
        max_redirects: upstream.max_redirects,
        ca_files: upstream.ca_files.clone(),
        credentials,
        netrc: upstream.netrc.clone(),
        proxy: ProxyEnvironment::from_env(),
        rules: Rules {
            goprivate: upstream.goprivate.clone(),
            gonoproxy: upstream.gonoproxy.clone(),
            gonosumdb: config.sumdb.gonosumdb.clone(),
            goinsecure: upstream.goinsecure.clone(),
            govcs: upstream.govcs.clone(),
            routed: routed_directly(config),
        },
        ssh_keys,
        git_dir,
        environment: std::env::vars_os().collect(),
        git: GitSettings {
            max_remote_commands: git.max_concurrent,
            queue_timeout: git.queue_timeout,
            stall_timeout: git.stall_timeout,
            fetch_timeout: git.fetch_timeout,
            list_timeout: git.list_timeout,
            refs_ttl: git.refs_ttl,
            max_refs: git.max_refs,
            max_repository_bytes: git.repository_size,
            max_total_bytes: git.size,
            ..GitSettings::default()
        },
        ..Settings::default()
    }
}

/// A route that refuses modules, or names a proxy for them, says nothing about their own hosts.
fn routed_directly(config: &Config) -> Vec<Patterns> {
    let direct = config.routes.iter().filter(|route| goes_direct(&route.goproxy));
    direct.map(|route| route.pattern.clone()).collect()
}

fn goes_direct(list: &ProxyList) -> bool {
    list.items.iter().any(|item| item.source == ProxySource::Direct)
}

/// Which modules may have to come from repositories.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum NeedOfGit {
    /// Some that somebody named.
    Named,
    /// Those of the default chain, of which most are found before it comes to `direct`.
    Default,
    None,
}

pub(crate) fn need_of_git(config: &Config) -> NeedOfGit {
    let upstream = &config.upstream;
    if !upstream.gonoproxy.is_empty()
        || !upstream.goprivate.is_empty()
        || config.routes.iter().any(|route| goes_direct(&route.goproxy))
    {
        NeedOfGit::Named
    } else if goes_direct(&upstream.goproxy) {
        NeedOfGit::Default
    } else {
        NeedOfGit::None
    }
}

/// One line in the log when modules may have to come from repositories and there is nothing to fetch them with.
pub(super) fn say_whether_git_is_missing(config: &Config, path: Option<&OsStr>) {
    const TEXT: &str = "no git command: modules that go direct cannot be fetched; install git";
    if config.server.offline || is_installed("git", path) {
        return;
    }
    match need_of_git(config) {
        NeedOfGit::Named => warn!("{TEXT}"),
        NeedOfGit::Default => info!("{TEXT}"),
        NeedOfGit::None => {}
    }
}

/// Whether a directory of `PATH` has an executable file of this name.
pub(crate) fn is_installed(name: &str, path: Option<&OsStr>) -> bool {
    let Some(path) = path else { return false };
    std::env::split_paths(path).any(|dir| {
        fs_err::metadata(dir.join(name))
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests;
