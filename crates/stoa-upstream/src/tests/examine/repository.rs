use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use stoa_module::{ModulePath, Patterns};
use stoa_testkit::{
    Access, Answer, Certificate, GitRemotes, Internet, Reach, SshServer, require_git, require_sshd,
};
use url::Url;

use super::{AMPLE, check, is_well_formed, limits};
use crate::examine::{Examined, Step};
use crate::tests::connecting::Names;
use crate::tests::settings;
use crate::{Client, Credential, Environment, ProxyEnvironment, Rules, Secret, Settings, SshKey};

const CORP: &str = "corp.example.com";
const GIT: &str = "git.corp.example.com";
const LIB: &str = "corp.example.com/lib";

/// A company's hosts behind an outgoing proxy: pages at one, repositories at another.
struct World {
    internet: Internet,
    remotes: GitRemotes,
}

impl World {
    fn new() -> Self {
        let (internet, remotes) = (Internet::start(), GitRemotes::of_fixtures());
        internet.host(CORP).go_import("lib", "git", &format!("https://{GIT}/r/r"));
        internet.host(GIT).git("/r", &remotes);
        Self { internet, remotes }
    }

    /// `private` is GOPRIVATE.
    fn settings(&self, private: &str) -> Settings {
        let path = (OsString::from("PATH"), std::env::var_os("PATH").unwrap());
        let config = ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"];
        let config = config.map(|name| (OsString::from(name), OsString::from("/dev/null")));
        let led = self.internet.environment();
        let led = led.into_iter().map(|(name, value)| (name.into(), value.into()));
        let environment: Environment = led.chain(config).chain([path]).collect();
        let url = Some(self.internet.proxy_url());
        Settings {
            proxy: ProxyEnvironment { http: url.clone(), https: url, no: None },
            ca_files: vec![self.internet.ca_file()],
            rules: Rules { goprivate: Patterns::parse(private).unwrap(), ..Rules::default() },
            environment,
            ..settings()
        }
    }

    async fn examine(&self, settings: Settings, path: &str) -> Examined {
        let client = Client::new(settings).unwrap();
        let path = ModulePath::parse(path).unwrap();
        let task = async move { client.examine_direct(&path, &limits(AMPLE)).await };
        let examined = tokio::spawn(task).await.unwrap();
        is_well_formed(&examined);
        examined
    }
}

const HEALTHY: &str =
    "name tcp outgoing-proxy tls http git name tcp outgoing-proxy tls credential git";

#[tokio::test]
async fn a_healthy_module() {
    if !require_git() {
        return;
    }
    let world = World::new();
    let examined = world.examine(world.settings(""), LIB).await;
    let words = [
        (
            Step::Http,
            "corp.example.com/lib is in git at https://git.corp.example.com/r/r (go-import)",
        ),
        (Step::Credential, "none: no setting names the module"),
        (Step::Git, "https://git.corp.example.com/r/r: "),
        (Step::Git, "refs"),
    ];
    check(&examined, HEALTHY, &words);
    assert!(examined.steps[5].seen.starts_with("git 2."), "{examined:?}");

    // No directory of ours was asked for, and with one it is the same.
    let directory = tempfile::tempdir().unwrap();
    let git_dir = Some(directory.path().join("git"));
    let settings = Settings { git_dir, ..world.settings("corp.example.com") };
    let examined = world.examine(settings, LIB).await;
    let words = [(Step::Credential, "none, but for git's own credential helpers")];
    check(&examined, HEALTHY, &words);
}

#[tokio::test]
async fn credentials_of_a_repository() {
    if !require_git() {
        return;
    }
    let world = World::new();
    world.internet.host(GIT).access("/", Access::basic("me", "hunter2"));
    let refused = HEALTHY.strip_suffix("git").unwrap().to_owned() + "git:unauthorized";
    let private = "*.corp.example.com,corp.example.com";
    let examined = world.examine(world.settings(private), LIB).await;
    let words = [(Step::Git, "needs a credential that the server does not have")];
    check(&examined, &refused, &words);
    let with = |password: &str| {
        let secret = Secret::Basic { username: "me".to_owned(), password: password.into() };
        let prefix = Url::parse(&format!("https://{GIT}/r")).unwrap();
        Settings { credentials: vec![Credential { prefix, secret }], ..world.settings(private) }
    };
    let words = [(
        Step::Credential,
        "a user and password, upstream.credential https://git.corp.example.com/r",
    )];
    let examined = world.examine(with("hunter2"), LIB).await;
    check(&examined, HEALTHY, &words);
    assert!(!format!("{examined:?}").contains("hunter2"), "{examined:?}");
    let examined = world.examine(with("wrong"), LIB).await;
    check(&examined, &refused, &words);
    assert!(!format!("{examined:?}").contains("wrong"), "{examined:?}");
    // Who is nobody's sends none.
    let examined =
        world.examine(Settings { rules: Rules::default(), ..with("hunter2") }, LIB).await;
    check(&examined, &refused, &[(Step::Credential, "none: no setting names the module")]);
}

#[tokio::test]
async fn what_a_modules_host_says() {
    if !require_git() {
        return;
    }
    let world = World::new();
    let page = "name tcp outgoing-proxy tls http";
    let check = async |path: &str, expected: &str, stage: Step, words: &str| {
        let examined = world.examine(world.settings(""), path).await;
        check(&examined, expected, &[(stage, words)]);
    };
    let absent = format!("{page}:not-found");
    check("corp.example.com/none", &absent, Step::Http, "no such page").await;
    world.internet.host(CORP).page("/empty", Answer::new(200, "text/html", "<html></html>"));
    check("corp.example.com/empty", &absent, Step::Http, "no go-import").await;
    world.internet.host(CORP).go_import("gone", "git", &format!("https://{GIT}/r/none"));
    let gone = HEALTHY.strip_suffix("git").unwrap().to_owned() + "git:not-found";
    check("corp.example.com/gone", &gone, Step::Git, "not found").await;
    world.internet.host(CORP).go_import("svn", "svn", &format!("https://{GIT}/r/r"));
    let svn = "name tcp outgoing-proxy tls git:git-refused";
    check("corp.example.com/svn", svn, Step::Git, "GOVCS disallows using svn").await;
}

#[tokio::test]
async fn hosts_that_nobody_may_ask() {
    if !require_git() {
        return;
    }
    let world = World::new();
    // By what its name leads to, and by a go-import.
    let proxy = ProxyEnvironment::default();
    let settings = Settings { proxy, ..world.settings("") };
    let client =
        Client::with_resolver(settings, Arc::new(Names(([10, 0, 0, 1], 0).into()))).unwrap();
    let path = ModulePath::parse("upstream.test/a").unwrap();
    let examined = client.examine_direct(&path, &limits(AMPLE)).await;
    check(&examined, "name:not-public", &[(Step::Name, "10.0.0.1 (a resolver of this program)")]);
    for url in ["https://127.0.0.1/r/r", "ssh://git@10.0.0.1/r"] {
        world.internet.host(CORP).go_import("inner", "git", url);
        let examined = world.examine(world.settings(""), "corp.example.com/inner").await;
        let expected = "name tcp outgoing-proxy tls http git name:not-public";
        check(&examined, expected, &[(Step::Name, "GOPRIVATE")]);
    }
}

#[tokio::test]
async fn a_module_known_by_its_form_and_a_host_that_keeps_silent() {
    if !require_git() {
        return;
    }
    let world = World::new();
    world.internet.host("github.com").git("/ex", &world.remotes);
    let examined = world.examine(world.settings(""), "github.com/ex/r/sub").await;
    // Whoever is in between has an authority of its own here, which is one of the settings.
    let words = [(Step::Tls, "intercepted, and trusted by upstream.ca-files")];
    let known = "git git name tcp outgoing-proxy tls credential git";
    check(&examined, known, &words);
    world.internet.host(GIT).certificate(Certificate::Expired);
    let examined = world.examine(world.settings(""), LIB).await;
    let expected = "name tcp outgoing-proxy tls http git name tcp outgoing-proxy \
                    tls:certificate-expired credential git:tls-failed";
    check(&examined, expected, &[(Step::Git, "certificate")]);
    world.internet.host(CORP).reach(Reach::Silent);
    let client = Client::new(world.settings("")).unwrap();
    let path = ModulePath::parse(LIB).unwrap();
    let examined = client.examine_direct(&path, &limits(Duration::from_secs(3))).await;
    check(&examined, "name tcp outgoing-proxy tls:tls-failed", &[]);
}

#[tokio::test]
async fn other_places_of_a_module() {
    if !require_git() {
        return;
    }
    let world = World::new();
    let examined = world.examine(world.settings(""), "git.corp.example.com/r/r.git").await;
    let words = [(Step::Git, "https://git.corp.example.com/r/r: 11 refs")];
    check(&examined, "git git name tcp outgoing-proxy tls credential git", &words);
    world.internet.host(CORP).go_import("p", "mod", "https://me:hunter2@goproxy.example.com/go");
    world.internet.host("goproxy.example.com");
    let examined = world.examine(world.settings(""), "corp.example.com/p").await;
    let words = [(Step::Http, "names a proxy for it: https://goproxy.example.com/go")];
    let expected = "name tcp outgoing-proxy tls http name tcp outgoing-proxy tls git";
    check(&examined, expected, &words);

    // It is private, and nobody has named its host.
    world.internet.forget_requests();
    let examined = world.examine(world.settings("*/lib"), LIB).await;
    check(&examined, "http:git-refused", &[(Step::Http, "private module")]);
    assert_eq!(world.internet.hosts_asked(), Vec::<String>::new());
}

#[tokio::test]
async fn no_git_here() {
    let world = World::new();
    let empty = tempfile::tempdir().unwrap();
    let path = (OsString::from("PATH"), empty.path().as_os_str().to_owned());
    let environment: Environment = [path].into_iter().collect();
    let examined = world.examine(Settings { environment, ..world.settings("") }, LIB).await;
    let expected = "name tcp outgoing-proxy tls http git:git-missing";
    check(&examined, expected, &[(Step::Git, "there is no git command on the server")]);
}

#[tokio::test]
async fn keys_over_ssh() {
    if !require_sshd() {
        return;
    }
    let world = World::new();
    let ssh = SshServer::start(&world.remotes);
    world.internet.host(CORP).go_import("lib", "git", &ssh.url("r"));
    let check = async |key, known, expected: &str, words: &str| {
        let prefix = format!("ssh://{}@127.0.0.1:{}/", ssh.user(), ssh.port());
        let prefix = Url::parse(&prefix).unwrap();
        let key = SshKey { prefix, key_file: key, known_hosts_file: Some(known) };
        let private = "corp.example.com,127.0.0.1";
        let settings = Settings { ssh_keys: vec![key], ..world.settings(private) };
        let examined = world.examine(settings, LIB).await;
        let expected =
            format!("name tcp outgoing-proxy tls http git name tcp credential git{expected}");
        let words =
            [(Step::Git, words), (Step::Credential, "ssh key /"), (Step::Credential, "127.0.0.1")];
        check(&examined, &expected, &words);
    };
    let (key, known) = (ssh.key_file(), ssh.known_hosts_file());
    check(key.clone(), known.clone(), "", "refs").await;
    check(ssh.other_key_file(), known, ":key-refused", "Permission denied (publickey)").await;
    check(key.clone(), "/dev/null".into(), ":host-key-unknown", "host key").await;
    check(key, ssh.other_known_hosts_file(), ":host-key-unknown", "host key").await;
}
