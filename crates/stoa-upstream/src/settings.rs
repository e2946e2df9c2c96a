//! What the client is told once, at its start.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use crate::direct::GitSettings;
use crate::discovery::Rules;
use crate::proxy::ProxyEnvironment;
use crate::source::redacted;

/// The settings of a [`Client`](crate::Client). The default is what architecture.md says under "Bounds and
/// budgets", with no credentials, no extra authorities, no proxy, and a fresh random instance id.
#[derive(Clone, Debug)]
pub struct Settings {
    /// To resolve a name, connect and finish the TLS handshake, together.
    pub connect_timeout: Duration,
    /// How long the addresses of a name are used before it is looked up anew.
    pub name_ttl: Duration,
    /// How long a body may bring less than 4 KiB before it counts as stalled.
    pub stall_timeout: Duration,
    /// How often one request is tried, the first time included. 0 counts as 1.
    pub retries: u32,
    /// The first pause between two tries; it doubles, with jitter, up to eight times this.
    pub backoff: Duration,
    /// Whether a host that answers nothing is left alone until a probe finds it again.
    pub breakers: bool,
    /// The longest pause between two probes of such a host. The first is a second, if that is shorter.
    pub probe_pause: Duration,
    /// How many redirects are followed for one request.
    pub max_redirects: usize,
    /// PEM files with certificates of authorities that are trusted besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Credentials by address; the longest matching prefix is used.
    pub credentials: Vec<Credential>,
    /// A netrc file, read as the go command reads it and read again when it changes. It need not exist.
    pub netrc: Option<PathBuf>,
    pub user_agent: String,
    /// What tells this server from every other one in a `Via` header: letters, digits, `-`, `.` and `_`.
    pub instance_id: String,
    /// The outgoing HTTP proxy, usually [`ProxyEnvironment::from_env`].
    pub proxy: ProxyEnvironment,
    /// Which modules are whose; decides what [`Source::Direct`](crate::Source::Direct) may ask where.
    pub rules: Rules,
    /// Keys for repositories over ssh; the longest matching prefix is used.
    pub ssh_keys: Vec<SshKey>,
    /// Where bare repositories are kept. None: nothing is fetched from repositories.
    pub git_dir: Option<PathBuf>,
    /// What the `git` command inherits.
    pub environment: Environment,
    pub git: GitSettings,
}

impl Default for Settings {
    fn default() -> Self {
        // The standard library's hasher keys are the system's randomness; that is enough to tell instances apart.
        let instance_id = format!("{:016x}", RandomState::new().build_hasher().finish());
        Self {
            connect_timeout: Duration::from_secs(5),
            name_ttl: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(20),
            retries: 3,
            backoff: Duration::from_millis(200),
            breakers: true,
            probe_pause: Duration::from_secs(10),
            max_redirects: 10,
            ca_files: Vec::new(),
            credentials: Vec::new(),
            netrc: None,
            user_agent: concat!("stoa/", env!("CARGO_PKG_VERSION")).to_owned(),
            instance_id,
            proxy: ProxyEnvironment::default(),
            rules: Rules::default(),
            ssh_keys: Vec::new(),
            git_dir: None,
            environment: Environment::default(),
            git: GitSettings::default(),
        }
    }
}

/// A credential for everything below an address.
#[derive(Clone)]
pub struct Credential {
    /// `scheme://host[:port][/path]`. Scheme, host and port must be the same, the path a prefix by whole elements. A
    /// prefix of scheme `http` is the only way, besides an upstream's own address, to have a secret sent unencrypted.
    pub prefix: Url,
    pub secret: Secret,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("prefix", &redacted(&self.prefix))
            .field("secret", &self.secret)
            .finish()
    }
}

/// Environment variables, usually [`std::env::vars_os`]. `Debug` shows no values: some are secrets.
#[derive(Clone, Default)]
pub struct Environment(Vec<(OsString, OsString)>);

impl Environment {
    /// The value of a variable, if it is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        let found = self.0.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(OsString, OsString)> {
        self.0.iter()
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// A key for repositories below an address, which are then fetched over ssh, also where a module's host names them with
/// https.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SshKey {
    /// `ssh://[user@]host[:port][/path]`; the user is `git` if there is none. Host must be the same, the path a prefix by
    /// whole elements.
    pub prefix: Url,
    /// The private key, which must not need a passphrase.
    pub key_file: PathBuf,
    /// The keys of hosts that are trusted, instead of those of the user and the system.
    pub known_hosts_file: Option<PathBuf>,
}

/// What is sent as `Authorization`. `Debug` shows neither password nor token.
#[derive(Clone, Debug)]
pub enum Secret {
    Basic { username: String, password: SecretString },
    Bearer(SecretString),
}

impl Secret {
    /// Not a user's name alone, of which somebody else knows the password.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Basic { password, .. } => !password.expose_secret().is_empty(),
            Self::Bearer(_) => true,
        }
    }
}

/// The netrc file the go command would read: `$NETRC`, else `.netrc` in `$HOME`.
pub fn netrc_from_env() -> Option<PathBuf> {
    netrc_from_variables(|name| std::env::var_os(name))
}

fn netrc_from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let named = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("NETRC").or_else(|| named("HOME").map(|home| home.join(".netrc")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_netrc_file() {
        let check = |netrc: Option<&str>, home: Option<&str>, expected: Option<&str>| {
            let found = netrc_from_variables(|name| {
                if name == "NETRC" { netrc } else { home }.map(OsString::from)
            });
            assert_eq!(found, expected.map(PathBuf::from));
        };
        check(Some("/etc/netrc"), Some("/root"), Some("/etc/netrc"));
        check(Some(""), Some("/root"), Some("/root/.netrc"));
        check(None, Some("/root"), Some("/root/.netrc"));
        check(None, None, None);
    }
}
