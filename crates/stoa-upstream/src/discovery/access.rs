//! What a remote operation of the `git` command gets besides its arguments: whom it may speak to, and who it is there.
//!
//! git resolves names by itself, so the address filter is applied before it runs, to the address that the user's
//! `insteadOf` leaves, and what was found is pinned. Secrets travel in the environment, which only this user can read;
//! never in an argument and never on the disk.

use std::ffi::OsString;
use std::net::IpAddr;
use std::sync::Arc;

use reqwest::dns::Resolve;
use stoa_module::ErrorClass;
use url::{Host, Url};

use crate::credentials::Credentials;
use crate::discovery::Rules;
use crate::discovery::address::{NotPublic, is_public};
use crate::failure::{Fault, Stage};
use crate::source::Base;

/// Environment variables and `-c` options of one remote operation.
#[derive(Clone, Default)]
pub struct RemoteEnv {
    /// May hold secrets.
    pub envs: Vec<(OsString, OsString)>,
    /// `name=value` for `git -c`; never a secret.
    pub options: Vec<String>,
}

impl std::fmt::Debug for RemoteEnv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.envs.iter().map(|(name, _)| name).collect();
        f.debug_struct("RemoteEnv").field("envs", &names).field("options", &self.options).finish()
    }
}

/// Where an address, as `git ls-remote --get-url` prints it, leads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Remote {
    Http(Url),
    /// `ssh://…`, `git+ssh://…`, or `user@host:path`.
    Ssh {
        host: String,
    },
    /// A directory of this machine: only by the user's own `insteadOf`, and only when GIT_ALLOW_PROTOCOL says so.
    Local,
    /// `git://…` and what else there is.
    Other {
        scheme: String,
        host: String,
    },
}

impl Remote {
    pub(crate) fn parse(address: &str) -> Result<Self, Fault> {
        let invalid = |why: String| Fault::new(ErrorClass::NotFound, Stage::Git, why);
        if let Some((scheme, _)) = address.split_once("://") {
            let url = Url::parse(address)
                .map_err(|error| invalid(format!("not the address of a repository: {error}")))?;
            let host = url.host_str().unwrap_or_default().to_owned();
            return Ok(match scheme {
                "https" | "http" => Self::Http(url),
                "ssh" | "git+ssh" | "ssh+git" => Self::Ssh { host },
                "file" => Self::Local,
                _ => Self::Other { scheme: scheme.to_owned(), host },
            });
        }
        // As git reads it: a colon before the first slash makes it a host.
        match address.split_once(':') {
            Some((host, _)) if !host.contains('/') && !host.is_empty() => {
                let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
                Ok(Self::Ssh { host: host.trim_matches(['[', ']']).to_owned() })
            }
            _ => Ok(Self::Local),
        }
    }

    fn host(&self) -> Option<(&str, u16)> {
        match self {
            Self::Http(url) => Some((url.host_str()?, url.port_or_known_default()?)),
            Self::Ssh { host } => Some((host, 22)),
            Self::Other { host, .. } => Some((host, 9418)),
            Self::Local => None,
        }
    }
}

/// Decides what git may do on the network.
#[derive(Debug)]
pub(crate) struct Access {
    rules: Arc<Rules>,
    credentials: Arc<Credentials>,
    resolver: ResolverBox,
    /// Variables of the server that the decision depends on.
    allow_protocol: Option<OsString>,
    ssh_command_is_set: bool,
    config_count: usize,
}

struct ResolverBox(Arc<dyn Resolve>);

impl std::fmt::Debug for ResolverBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl Access {
    /// `variable` reads the server's environment.
    pub(crate) fn new(
        rules: Arc<Rules>,
        credentials: Arc<Credentials>,
        resolver: Arc<dyn Resolve>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let count = set("GIT_CONFIG_COUNT").and_then(|count| count.to_str()?.parse().ok());
        Self {
            rules,
            credentials,
            resolver: ResolverBox(resolver),
            allow_protocol: set("GIT_ALLOW_PROTOCOL"),
            ssh_command_is_set: set("GIT_SSH_COMMAND").is_some() || set("GIT_SSH").is_some(),
            config_count: count.unwrap_or(0),
        }
    }

    /// What the operation on `address` (as `insteadOf` leaves it) gets. `insecure`: GOINSECURE names the module.
    pub(crate) async fn prepare(&self, address: &str, insecure: bool) -> Result<RemoteEnv, Fault> {
        let remote = Remote::parse(address)?;
        let mut env = RemoteEnv::default();
        let mut set = |name: &str, value: &str| env.envs.push((name.into(), value.into()));
        // Nobody is there to answer.
        for (name, value) in [
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GCM_INTERACTIVE", "never"),
            ("GIT_ASKPASS", "true"),
            ("SSH_ASKPASS", "true"),
            ("SSH_ASKPASS_REQUIRE", "never"),
            ("LC_ALL", "C"),
        ] {
            set(name, value);
        }
        if !self.ssh_command_is_set {
            set("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oControlMaster=no -oConnectTimeout=10");
        }
        if self.allow_protocol.is_none() {
            set("GIT_ALLOW_PROTOCOL", if insecure { "https:ssh:http" } else { "https:ssh" });
        }
        self.filter(&remote, &mut env.options).await?;
        if let Remote::Http(url) = &remote {
            // A redirect of the first request is followed, as a renamed repository needs; none of a later one.
            env.options.push("http.followRedirects=initial".to_owned());
            if let Ok(base) = Base::new(url)
                && let Some(secret) = self.credentials.find(&base, url).await
                && let Ok(secret) = secret.to_str()
            {
                let mut prefix = url.clone();
                // The name of a setting is no place for one.
                let _ = prefix.set_username("");
                let _ = prefix.set_password(None);
                prefix.set_query(None);
                let n = self.config_count;
                let mut set =
                    |name: String, value: String| env.envs.push((name.into(), value.into()));
                set("GIT_CONFIG_COUNT".to_owned(), (n + 1).to_string());
                set(format!("GIT_CONFIG_KEY_{n}"), format!("http.{prefix}.extraHeader"));
                set(format!("GIT_CONFIG_VALUE_{n}"), format!("Authorization: {secret}"));
            }
        }
        Ok(env)
    }

    /// The address filter. A host that no setting names must be a public one, and stays the one that was looked at.
    async fn filter(&self, remote: &Remote, options: &mut Vec<String>) -> Result<(), Fault> {
        let Some((host, port)) = remote.host() else { return Ok(()) };
        if self.rules.names_host(host) {
            return Ok(());
        }
        let denied = |address| {
            let detail = format!("{host}: {}", NotPublic(address));
            Err(Fault::new(ErrorClass::Denied, Stage::Dns, detail))
        };
        let literal = match Host::parse(host) {
            Ok(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Ok(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => host.trim_matches(['[', ']']).parse().ok(),
        };
        if let Some(address) = literal {
            return if is_public(address) { Ok(()) } else { denied(address) };
        }
        let unresolved = |error: &dyn std::fmt::Display| {
            Fault::new(ErrorClass::Unavailable, Stage::Dns, format!("{host}: dns: {error}"))
        };
        let name = host.parse().map_err(|error| unresolved(&error))?;
        let found = self.resolver.0.resolve(name).await.map_err(|error| unresolved(&error))?;
        let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        // One address of its own network among public ones is a trick, or a host that should have been named.
        if let Some(&address) = found.iter().find(|&&address| !is_public(address)) {
            return denied(address);
        }
        if found.is_empty() {
            return Err(unresolved(&"no address"));
        }
        if matches!(remote, Remote::Http(_)) {
            let text = |address: &IpAddr| match address {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(address) => format!("[{address}]"),
            };
            let found: Vec<String> = found.iter().map(text).collect();
            options.push(format!("http.curloptResolve={host}:{port}:{}", found.join(",")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use reqwest::dns::{Addrs, Name, Resolving};
    use secrecy::SecretString;
    use stoa_module::Patterns;

    use super::*;
    use crate::netrc::Netrc;
    use crate::settings::{Credential, Secret};

    #[test]
    fn remotes() {
        let check = |address: &str, expected: Remote| {
            assert_eq!(Remote::parse(address).unwrap(), expected, "{address}");
        };
        let ssh = |host: &str| Remote::Ssh { host: host.into() };
        check("https://git.ex.com/r", Remote::Http(Url::parse("https://git.ex.com/r").unwrap()));
        check("ssh://git@git.ex.com:2222/r", ssh("git.ex.com"));
        check("git+ssh://git.ex.com/r", ssh("git.ex.com"));
        check("git@git.ex.com:r.git", ssh("git.ex.com"));
        check("git.ex.com:r.git", ssh("git.ex.com"));
        check("/srv/git/r", Remote::Local);
        check("./a:b", Remote::Local);
        check("file:///srv/git/r", Remote::Local);
        check(
            "git://git.ex.com/r",
            Remote::Other { scheme: "git".into(), host: "git.ex.com".into() },
        );
        assert!(Remote::parse("https://").is_err());
    }

    #[derive(Debug)]
    struct Names;

    impl Resolve for Names {
        fn resolve(&self, name: Name) -> Resolving {
            let found: &[&str] = match name.as_str() {
                "public.test" => &["8.8.8.8", "2606:4700::1"],
                "mixed.test" => &["8.8.8.8", "10.0.0.1"],
                "metadata.test" => &["169.254.169.254"],
                _ => &[],
            };
            let found: Vec<_> =
                found.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect();
            Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
        }
    }

    fn access(variables: &'static [(&str, &str)]) -> Access {
        let rules = Rules { goprivate: Patterns::parse("named.test").unwrap(), ..Rules::default() };
        let credential = Credential {
            prefix: Url::parse("https://named.test/team").unwrap(),
            secret: Secret::Basic {
                username: "me".into(),
                password: SecretString::from("hunter2"),
            },
        };
        let credentials = Credentials::new(vec![credential], Netrc::open(None).unwrap()).unwrap();
        Access::new(Arc::new(rules), Arc::new(credentials), Arc::new(Names), |name| {
            variables.iter().find(|(one, _)| *one == name).map(|(_, value)| value.into())
        })
    }

    #[tokio::test]
    async fn the_address_filter() {
        let access = access(&[]);
        let check = async |address: &str, expected: Result<&[&str], &str>| {
            let outcome = access.prepare(address, false).await;
            match (outcome, expected) {
                (Ok(env), Ok(expected)) => assert_eq!(env.options, expected, "{address}"),
                (Err(fault), Err(expected)) => {
                    assert!(fault.detail.contains(expected), "{address}: {}", fault.detail);
                }
                (outcome, _) => panic!("{address}: {outcome:?}"),
            }
        };
        let redirects = "http.followRedirects=initial";
        check(
            "https://public.test/r",
            Ok(&["http.curloptResolve=public.test:443:8.8.8.8,[2606:4700::1]", redirects]),
        )
        .await;
        check(
            "https://public.test:8443/r",
            Ok(&["http.curloptResolve=public.test:8443:8.8.8.8,[2606:4700::1]", redirects]),
        )
        .await;
        check("ssh://git@public.test/r", Ok(&[])).await;
        check("https://named.test/r", Ok(&[redirects])).await;
        check("git@named.test:r", Ok(&[])).await;
        check("/srv/git/r", Ok(&[])).await;
        check("https://mixed.test/r", Err("10.0.0.1 is not a public one")).await;
        check("git@metadata.test:r", Err("169.254.169.254 is not a public one")).await;
        check("https://127.0.0.1/r", Err("127.0.0.1 is not a public one")).await;
        check("https://2130706433/r", Err("127.0.0.1 is not a public one")).await;
        check("https://[::1]/r", Err("::1 is not a public one")).await;
        check("ssh://[fe80::1]/r", Err("not a public one")).await;
        check("https://8.8.8.8/r", Ok(&[redirects])).await;
        check("https://nowhere.test/r", Err("no address")).await;
    }

    #[tokio::test]
    async fn secrets_are_in_the_environment_alone() {
        let value = |env: &RemoteEnv, name: &str| {
            let found = env.envs.iter().find(|(one, _)| one == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned())
        };
        let plain = access(&[]);
        let env = plain.prepare("https://named.test/team/r", false).await.unwrap();
        assert_eq!(value(&env, "GIT_CONFIG_COUNT").as_deref(), Some("1"));
        assert_eq!(
            value(&env, "GIT_CONFIG_KEY_0").as_deref(),
            Some("http.https://named.test/team/r.extraHeader")
        );
        assert_eq!(
            value(&env, "GIT_CONFIG_VALUE_0").as_deref(),
            Some("Authorization: Basic bWU6aHVudGVyMg==")
        );
        assert!(!format!("{env:?}").contains("bWU6aHVudGVyMg"), "{env:?}");
        assert!(!env.options.iter().any(|option| option.contains("Basic")));
        assert_eq!(value(&env, "GIT_TERMINAL_PROMPT").as_deref(), Some("0"));
        assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL").as_deref(), Some("https:ssh"));
        assert!(value(&env, "GIT_SSH_COMMAND").unwrap().contains("BatchMode=yes"));
        // Not for another path, host or scheme.
        for other in [
            "https://named.test/other/r",
            "http://named.test/team/r",
            "https://named.test:444/team/r",
        ] {
            let env = plain.prepare(other, false).await.unwrap();
            assert_eq!(value(&env, "GIT_CONFIG_COUNT"), None, "{other}");
        }
        let own = access(&[
            ("GIT_ALLOW_PROTOCOL", "file:https"),
            ("GIT_SSH_COMMAND", "ssh -v"),
            ("GIT_CONFIG_COUNT", "2"),
        ]);
        let env = own.prepare("https://named.test/team/r", true).await.unwrap();
        assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL"), None);
        assert_eq!(value(&env, "GIT_SSH_COMMAND"), None);
        assert_eq!(value(&env, "GIT_CONFIG_COUNT").as_deref(), Some("3"));
        assert!(value(&env, "GIT_CONFIG_VALUE_2").is_some());
        let env = plain.prepare("http://named.test/r", true).await.unwrap();
        assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL").as_deref(), Some("https:ssh:http"));
    }
}
