//! Where the address of a repository leads, and how one that is fetched over ssh is written.

use stoa_module::ErrorClass;
use url::Url;

use crate::discovery::names_one_host;
use crate::failure::{Fault, Stage};
use crate::settings::SshKey;

/// Whom ssh is to log in as, where nobody says otherwise: every host of repositories has this one.
const USER: &str = "git";

/// Where an address, as `git ls-remote --get-url` prints it, leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::direct) enum Remote {
    Http(Url),
    /// `ssh://…`, `git+ssh://…`, or `user@host:path`.
    Ssh {
        host: String,
        port: u16,
        path: String,
    },
    /// A directory of this machine: only by the user's own `insteadOf`, and only when `GIT_ALLOW_PROTOCOL` says so.
    Local,
    /// `git://…` and what else there is.
    Other {
        host: String,
        port: u16,
    },
}

impl Remote {
    pub(super) fn parse(address: &str) -> Result<Self, Fault> {
        let invalid = |why: String| Fault::new(ErrorClass::NotFound, Stage::Git, why);
        if let Some((scheme, _)) = address.split_once("://") {
            let url = Url::parse(address).map_err(|error| {
                invalid(format!("git: not the address of a repository: {error}"))
            })?;
            if !names_one_host(address) {
                return Err(invalid("git: not the address of a repository".to_owned()));
            }
            let host = url.host_str().unwrap_or_default().to_owned();
            return Ok(match scheme {
                "https" | "http" => Self::Http(url),
                "ssh" | "git+ssh" | "ssh+git" => {
                    let (port, path) = (url.port().unwrap_or(22), url.path().to_owned());
                    Self::Ssh { host, port, path }
                }
                "file" => Self::Local,
                _ => Self::Other { host, port: url.port().unwrap_or(9418) },
            });
        }
        // As git reads it: a colon before the first slash makes it a host.
        match address.split_once(':') {
            Some((host, path)) if !host.contains('/') && !host.is_empty() => {
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                let host = host.trim_matches(['[', ']']).to_owned();
                Ok(Self::Ssh { host, port: 22, path: format!("/{}", path.trim_start_matches('/')) })
            }
            _ => Ok(Self::Local),
        }
    }

    pub(in crate::direct) fn host(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http(url) => Some((url.host_str()?, url.port_or_known_default()?)),
            Self::Ssh { host, port, .. } | Self::Other { host, port } => Some((host, *port)),
            Self::Local => None,
        }
    }

    /// The key for this repository, if the settings have one: of several, the one with the longest path.
    pub(super) fn ssh_key<'k>(&self, keys: &'k [SshKey]) -> Option<&'k SshKey> {
        let path = match self {
            Self::Http(url) => url.path(),
            Self::Ssh { path, .. } => path,
            Self::Local | Self::Other { .. } => return None,
        };
        let (host, port) = self.host()?;
        let covers = |key: &&SshKey| {
            let same_port = match self {
                // Over https the port is another one anyway.
                Self::Http(_) => true,
                _ => key.prefix.port().unwrap_or(22) == port,
            };
            let own = key.prefix.path().trim_end_matches('/');
            let below =
                path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            same_port && below && key.prefix.host_str() == Some(host)
        };
        keys.iter().filter(covers).max_by_key(|key| key.prefix.path().trim_end_matches('/').len())
    }
}

/// The address over ssh of a repository that a host names with https.
pub(super) fn over_ssh(url: &Url, key: &SshKey) -> String {
    let user = match key.prefix.username() {
        "" => USER,
        user => user,
    };
    let host = key.prefix.host_str().unwrap_or_default();
    let port = key.prefix.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("ssh://{user}@{host}{port}{}", url.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ssh(host: &str, port: u16, path: &str) -> Remote {
        Remote::Ssh { host: host.into(), port, path: path.into() }
    }

    #[test]
    fn remotes() {
        let check = |address: &str, expected: Remote| {
            assert_eq!(Remote::parse(address).unwrap(), expected, "{address}");
        };
        check("https://git.ex.com/r", Remote::Http(Url::parse("https://git.ex.com/r").unwrap()));
        check("ssh://git@git.ex.com:2222/r", ssh("git.ex.com", 2222, "/r"));
        check("git+ssh://git.ex.com/r", ssh("git.ex.com", 22, "/r"));
        check("git@git.ex.com:t/r.git", ssh("git.ex.com", 22, "/t/r.git"));
        check("git.ex.com:r.git", ssh("git.ex.com", 22, "/r.git"));
        check("/srv/git/r", Remote::Local);
        check("./a:b", Remote::Local);
        check("file:///srv/git/r", Remote::Local);
        check("git://git.ex.com/r", Remote::Other { host: "git.ex.com".into(), port: 9418 });
        assert!(Remote::parse("https://").is_err());
        assert!(Remote::parse("ssh://-oProxyCommand=x/r").is_err());
    }

    #[test]
    fn keys_are_for_what_is_below_their_prefix() {
        let key = |prefix: &str| SshKey {
            prefix: Url::parse(prefix).unwrap(),
            key_file: prefix.into(),
            known_hosts_file: None,
        };
        let keys = [
            key("ssh://git.ex.com"),
            key("ssh://deploy@git.ex.com/team"),
            key("ssh://git.ex.com:2222/team"),
        ];
        let check = |address: &str, expected: Option<&str>| {
            let remote = Remote::parse(address).unwrap();
            let found = remote.ssh_key(&keys).map(|key| key.prefix.as_str());
            assert_eq!(found, expected, "{address}");
        };
        check("ssh://git@git.ex.com/r", Some("ssh://git.ex.com"));
        check("git@git.ex.com:team/r", Some("ssh://deploy@git.ex.com/team"));
        check("git@git.ex.com:teams/r", Some("ssh://git.ex.com"));
        check("ssh://git.ex.com:2222/team/r", Some("ssh://git.ex.com:2222/team"));
        check("ssh://git.ex.com:2222/r", None);
        check("https://git.ex.com/r", Some("ssh://git.ex.com"));
        check("https://ex.com/r", None);
        check("/srv/git.ex.com/team", None);
        let url = Url::parse("https://git.ex.com/team/r").unwrap();
        assert_eq!(over_ssh(&url, &keys[0]), "ssh://git@git.ex.com/team/r");
        assert_eq!(over_ssh(&url, &keys[1]), "ssh://deploy@git.ex.com/team/r");
        assert_eq!(over_ssh(&url, &keys[2]), "ssh://git@git.ex.com:2222/team/r");
    }
}
