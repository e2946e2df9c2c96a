use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::dns::{Addrs, Name, Resolving};
use secrecy::SecretString;
use stoa_module::Patterns;
use stoa_testkit::require_git;

use super::ssh::SSH;
use super::*;
use crate::client::requests::Builder;
use crate::discovery::Guard;
use crate::netrc::Netrc;
use crate::proxy::ProxyEnvironment;
use crate::settings::{Credential, Secret};

#[derive(Debug)]
struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let found: &[&str] = match name.as_str() {
            "public.test" => &["8.8.8.8", "2606:4700::1"],
            "named.test" => &["10.0.0.2"],
            "mixed.test" => &["8.8.8.8", "10.0.0.1"],
            "metadata.test" => &["169.254.169.254"],
            _ => &[],
        };
        let found: Vec<_> = found.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect();
        Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
    }
}

struct Fixture {
    access: Access,
    _directory: tempfile::TempDir,
}

/// `through` is the outgoing proxy, if there is one.
fn access(variables: &[(&str, &str)], through: Option<&str>) -> Fixture {
    let rules = Rules { goprivate: Patterns::parse("named.test").unwrap(), ..Rules::default() };
    let credential =
        |prefix: &str, secret| Credential { prefix: Url::parse(prefix).unwrap(), secret };
    let password = SecretString::from("hunter2");
    let secret = Secret::Basic { username: "me".into(), password };
    let key = |prefix: &str, known_hosts_file: Option<&str>| SshKey {
        prefix: Url::parse(prefix).unwrap(),
        key_file: "/keys/it's".into(),
        known_hosts_file: known_hosts_file.map(PathBuf::from),
    };
    let proxy =
        ProxyEnvironment { https: through.map(str::to_owned), ..ProxyEnvironment::default() };
    let directory = tempfile::tempdir().unwrap();
    let path = ("PATH", std::env::var("PATH").unwrap());
    let none = ("GIT_CONFIG_GLOBAL", "/dev/null".to_owned());
    let given = variables.iter().map(|&(name, value)| (name, value.to_owned()));
    let environment = [path, none].into_iter().chain(given);
    let settings = Settings {
        rules,
        credentials: vec![
            credential("https://named.test/team", secret),
            credential("https://token.test", Secret::Bearer(SecretString::from("t"))),
        ],
        ssh_keys: vec![
            key("ssh://keyed.test/team", None),
            key("ssh://me@keyed.test:2222/other", Some("/keys/known")),
        ],
        proxy,
        environment: environment.map(|(name, value)| (name.into(), value.into())).collect(),
        ..Settings::default()
    };
    let netrc = Netrc::open(None).unwrap();
    let credentials = Arc::new(Credentials::new(settings.credentials.clone(), netrc).unwrap());
    let proxies = Arc::new(Proxies::new(&settings.proxy).unwrap());
    let builder = |resolver| Builder::new(&settings, Arc::clone(&proxies), resolver).unwrap();
    let rules = Arc::new(settings.rules.clone());
    let guard = Guard::new(
        Arc::clone(&rules),
        Arc::clone(&proxies),
        builder(Arc::new(Names)),
        builder(Guard::resolver(Arc::new(Names))),
    );
    let pages = Arc::new(Pages::new(&settings, Arc::new(guard), Arc::clone(&credentials)));
    let environment = settings.environment.iter().cloned();
    let repositories =
        Repositories::new(directory.path(), settings.git.clone(), environment).unwrap();
    let names = Arc::new(crate::client::names::Names::new(Arc::new(Names), Duration::ZERO));
    let access = Access::new(&settings, rules, credentials, proxies, names, pages, repositories);
    Fixture { access: access.unwrap(), _directory: directory }
}

const PLAIN: About = About { is_private: false, is_named: true, insecure: false };
const INSECURE: About = About { insecure: true, ..PLAIN };
const STRANGE: About = About { is_named: false, ..PLAIN };

#[tokio::test]
async fn the_address_filter() {
    let Fixture { access, _directory } = access(&[], None);
    let check = async |address: &str, expected: Result<&[&str], &str>| {
        let (remote, own) = (Remote::parse(address).unwrap(), OwnSettings::default());
        let mut options = Vec::new();
        let is_ours = address.contains("named.test");
        let outcome = access.filter(&remote, is_ours, &own, &mut options).await;
        match (outcome, expected) {
            (Ok(_), Ok(expected)) => assert_eq!(options, expected, "{address}"),
            (Err(fault), Err(expected)) => {
                assert!(fault.detail.contains(expected), "{address}: {}", fault.detail);
            }
            (outcome, _) => panic!("{address}: {outcome:?}"),
        }
    };
    let pinned = "http.curloptResolve=public.test:443:8.8.8.8,[2606:4700::1]";
    check("https://public.test/r", Ok(&[pinned])).await;
    let pinned = "http.curloptResolve=public.test:8443:8.8.8.8,[2606:4700::1]";
    check("https://public.test:8443/r", Ok(&[pinned])).await;
    check("ssh://git@public.test/r", Ok(&[])).await;
    check("https://named.test/r", Ok(&[])).await;
    check("git@named.test:r", Ok(&[])).await;
    check("/srv/git/r", Ok(&[])).await;
    check("https://mixed.test/r", Err("10.0.0.1 is not a public one")).await;
    check("git@metadata.test:r", Err("169.254.169.254 is not a public one")).await;
    check("https://127.0.0.1/r", Err("127.0.0.1 is not a public one")).await;
    check("https://2130706433/r", Err("127.0.0.1 is not a public one")).await;
    check("https://[::1]/r", Err("::1 is not a public one")).await;
    check("ssh://[fe80::1]/r", Err("not a public one")).await;
    check("git://127.0.0.1/r", Err("127.0.0.1 is not a public one")).await;
    check("https://8.8.8.8/r", Ok(&[])).await;
    check("https://nowhere.test/r", Err("no address")).await;
}

#[tokio::test]
async fn through_a_proxy_names_are_the_proxys() {
    if !require_git() {
        return;
    }
    let Fixture { access, _directory } = access(&[], Some("http://127.0.0.1:9"));
    let env = access.prepare("https://nowhere.test/r", PLAIN).await.unwrap();
    assert_eq!(env.options, ["http.followRedirects=false"]);
    // Wherever the environment of git says something else.
    assert_eq!(value(&env, "https_proxy").as_deref(), Some("http://127.0.0.1:9/"));
    assert_eq!(value(&env, "no_proxy").as_deref(), Some(""));
    let fault = access.prepare("https://10.0.0.1/r", PLAIN).await.unwrap_err();
    assert_eq!(fault.class, ErrorClass::Denied);
}

fn value(env: &RemoteEnv, name: &str) -> Option<String> {
    let found = env.envs.iter().find(|(one, _)| one == name);
    found.map(|(_, value)| value.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn secrets_are_in_the_environment_alone() {
    if !require_git() {
        return;
    }
    let proxy = Some("http://127.0.0.1:9");
    let Fixture { access: plain, _directory } = access(&[], proxy);
    let env = plain.prepare("https://named.test/team/r", PLAIN).await.unwrap();
    assert_eq!(value(&env, "GIT_CONFIG_COUNT").as_deref(), Some("1"));
    assert_eq!(
        value(&env, "GIT_CONFIG_KEY_0").as_deref(),
        Some("http.https://named.test/team/r.extraHeader")
    );
    let header = |user_and_password: &str| {
        Some(format!("Authorization: Basic {}", STANDARD.encode(user_and_password)))
    };
    assert_eq!(value(&env, "GIT_CONFIG_VALUE_0"), header("me:hunter2"));
    assert!(!format!("{env:?}").contains(&STANDARD.encode("me:hunter2")), "{env:?}");
    assert!(!env.options.iter().any(|option| option.contains("Basic")));
    // A token alone is a password, too.
    let env = plain.prepare("https://token.test/r", PLAIN).await.unwrap();
    assert_eq!(value(&env, "GIT_CONFIG_VALUE_0"), header("x-access-token:t"));
    // Not for another path or port.
    for other in ["https://named.test/other/r", "https://named.test:444/team/r"] {
        let env = plain.prepare(other, PLAIN).await.unwrap();
        assert_eq!(value(&env, "GIT_CONFIG_COUNT"), None, "{other}");
    }
    // Not for a module that nobody here has named, wherever its page leads.
    let env = plain.prepare("https://named.test/team/r", STRANGE).await.unwrap();
    assert_eq!(value(&env, "GIT_CONFIG_COUNT"), None);
    assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL"), None);
    let env = plain.prepare("https://named.test/r", INSECURE).await.unwrap();
    assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL").as_deref(), Some("https:ssh:http"));
    let variables = [("GIT_ALLOW_PROTOCOL", "file:https"), ("GIT_CONFIG_COUNT", "0")];
    let Fixture { access: own, _directory } = access(&variables, proxy);
    let env = own.prepare("https://named.test/team/r", INSECURE).await.unwrap();
    assert_eq!(value(&env, "GIT_ALLOW_PROTOCOL"), None);
    assert_eq!(value(&env, "GIT_CONFIG_COUNT").as_deref(), Some("1"));
}

#[tokio::test]
async fn the_command_for_ssh() {
    if !require_git() {
        return;
    }
    let Fixture { access: plain, _directory } = access(&[], None);
    let plainly = SSH;
    let env = plain.prepare("ssh://git@named.test/r", PLAIN).await.unwrap();
    assert_eq!(value(&env, "GIT_SSH_COMMAND").as_deref(), Some(plainly));
    assert_eq!((env.address, env.host.as_deref()), (None, Some("named.test:22")));
    // What the settings have a key for goes over ssh.
    let env = plain.prepare("https://keyed.test/team/r", PLAIN).await;
    let detail = env.unwrap_err().detail;
    assert!(detail.contains("keyed.test cannot be resolved"), "{detail}");
    let env = plain.prepare("https://keyed.test/team/r", STRANGE).await;
    assert_eq!(env.unwrap_err().stage, Stage::Dns);
    let own = [("GIT_SSH_COMMAND", "ssh -v")];
    let Fixture { access: own, _directory } = access(&own, None);
    let env = own.prepare("ssh://git@named.test/r", PLAIN).await.unwrap();
    assert_eq!(value(&env, "GIT_SSH_COMMAND"), None);
}

#[test]
fn keys_are_named_so_that_a_shell_leaves_them_whole() {
    let key = |file: &str, known: Option<&str>| SshKey {
        prefix: Url::parse("ssh://a.test").unwrap(),
        key_file: file.into(),
        known_hosts_file: known.map(PathBuf::from),
    };
    let plain = key("/keys/it's mine", Some("/known hosts"));
    let command = ssh_command(Some(&plain), true).unwrap().unwrap();
    assert!(command.contains(r#"-oIdentityFile='"/keys/it'\''s mine"'"#), "{command}");
    assert!(command.contains(r#"-oUserKnownHostsFile='"/known hosts"'"#), "{command}");
    assert!(command.contains("-oStrictHostKeyChecking=yes"), "{command}");
    assert!(!ssh_command(Some(&key("/k", None)), false).unwrap().unwrap().contains("KnownHosts"));
    assert!(ssh_command(Some(&key("/k\"", None)), false).is_err());
    assert_eq!(ssh_command(None, true).unwrap(), None);
}
