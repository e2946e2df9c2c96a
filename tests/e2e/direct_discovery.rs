//! Where a module is said to be: pages and what they may claim, repositories that have moved, and the addresses that
//! nobody outside may have asked.

use stoa_testkit::{
    Answer, Certificate, FakeUpstream, Fault, Modules, SshServer, require_git, require_sshd,
};

use crate::direct_net::{CORP, Net};
use crate::fixtures::{Reply, bounded, brief};
use crate::stoa::{Setup, Stoa};

/// A host of modules that no setting names.
pub const PUBLIC: &str = "go.public.example";
const OTHER: &str = "code.public.example";

/// A page with these entries.
pub fn page(entries: &[&str]) -> Answer {
    let entry = |content: &&str| format!("<META Content='{content}' name=\"go-import\" />\n");
    let head: String = entries.iter().map(entry).collect();
    Answer::new(200, "text/html", format!("<!doctype html><html><head>\n{head}</head><body>"))
}

/// The status of an answer, and the text of one that is none.
#[track_caller]
pub fn check(what: &str, reply: &Reply, status: u16, words: &str) {
    assert_eq!(reply.status.as_u16(), status, "{what}: {}", reply.text());
    assert!(reply.text().contains(words), "{what}: {words:?} is not in: {}", reply.text());
}

/// A server that has nothing but `direct`, and no checksum database.
pub fn direct(net: &Net) -> Setup {
    net.setup().goproxy("direct").gosumdb("off")
}

pub async fn latest(stoa: &Stoa, module: &str) -> Reply {
    bounded(stoa.get(&format!("{module}/@latest"))).await
}

/// A page at a path of [`PUBLIC`], which module is asked for, and what comes of it.
type Case = (&'static str, &'static [&'static str], &'static str, u16, &'static str);

const PAGES: &[Case] = &[
    (
        "three",
        &["go.public.example/three git https://code.public.example/r/lib"],
        "three",
        200,
        "v1.0.0",
    ),
    (
        "four",
        &["go.public.example/four git https://code.public.example/r/nested go/mod"],
        "four",
        200,
        "v0.3.0",
    ),
    (
        "five",
        &["go.public.example/five git https://code.public.example/r/lib go x"],
        "five",
        404,
        "no go-import in the page",
    ),
    (
        "of-another",
        &["go.public.example/other git https://code.public.example/r/lib"],
        "of-another",
        404,
        "no go-import for go.public.example/of-another, only for go.public.example/other",
    ),
    (
        "two",
        &[
            "go.public.example/two git https://code.public.example/r/lib",
            "go.public.example/two git https://code.public.example/r/nested",
        ],
        "two",
        404,
        "several go-imports match",
    ),
    ("hg", &["go.public.example/hg hg https://code.public.example/hg"], "hg", 404, "kept in hg"),
    (
        "svn",
        &["go.public.example/svn svn https://code.public.example/svn"],
        "svn",
        403,
        "GOVCS disallows using svn",
    ),
    ("cvs", &["go.public.example/cvs cvs https://code.public.example/c"], "cvs", 404, "cvs"),
    ("file", &["go.public.example/file git file:///etc"], "file", 404, "file: address"),
    (
        "up",
        &["go.public.example/up git https://code.public.example/r/lib a/../.."],
        "up",
        404,
        "invalid subdirectory",
    ),
    (
        "plain",
        &["go.public.example/plain git http://code.public.example/r/lib"],
        "plain",
        403,
        "this transport is not allowed",
    ),
    // A proxy of its own, which takes the place of its repository.
    (
        "proxied",
        &[
            "go.public.example/proxied git https://code.public.example/r/lib",
            "go.public.example/proxied mod https://goproxy.public.example",
        ],
        "proxied",
        200,
        "v1.7.0",
    ),
    (
        "proxied-plain",
        &["go.public.example/proxied-plain mod http://goproxy.public.example"],
        "proxied-plain",
        404,
        "not at an https: address",
    ),
    // The root must say the same.
    (
        "root/sub",
        &["go.public.example/root git https://code.public.example/r/lib"],
        "root/sub",
        404,
        "disagree about the go-import",
    ),
    (
        "agreed",
        &["go.public.example/agreed git https://code.public.example/r/lib"],
        "agreed",
        200,
        "v1.0.0",
    ),
    // Nobody claims a whole host from below.
    (
        "whole",
        &["go.public.example git https://code.public.example/r/lib"],
        "whole",
        404,
        "disagree",
    ),
    // What nobody outside may have asked: by name, and by address in all its dresses.
    (
        "name",
        &["go.public.example/name git https://localhost:9/x"],
        "name",
        403,
        "not a public one",
    ),
    ("v4", &["go.public.example/v4 git https://127.0.0.1/x"], "v4", 403, "not a public one"),
    ("short", &["go.public.example/short git https://127.1/x"], "short", 403, "not a public one"),
    ("v6", &["go.public.example/v6 git https://[::1]/x"], "v6", 403, "not a public one"),
    (
        "mapped",
        &["go.public.example/mapped git https://[::ffff:10.0.0.1]/x"],
        "mapped",
        403,
        "not a public one",
    ),
    (
        "meta",
        &["go.public.example/meta git https://169.254.169.254/latest"],
        "meta",
        403,
        "name it in the server's GOPRIVATE, GONOPROXY or a route",
    ),
    ("ssh", &["go.public.example/ssh git ssh://git@localhost:9/x"], "ssh", 403, "not a public one"),
    (
        "mod-name",
        &["go.public.example/mod-name mod https://localhost:9"],
        "mod-name",
        403,
        "not a public one",
    ),
    (
        "mod-v4",
        &["go.public.example/mod-v4 mod https://10.1.2.3"],
        "mod-v4",
        403,
        "not a public one",
    ),
];

#[tokio::test]
async fn what_pages_may_say() {
    if !require_git() {
        return;
    }
    let net = Net::new();
    net.module("lib", "go.public.example/three");
    net.repository(
        "nested",
        &[
            ("v0.9.0", &[("go.mod", "module go.public.example/nested\n")]),
            ("go/mod/v0.3.0", &[("go/mod/go.mod", "module go.public.example/four\n")]),
        ],
    );
    net.host(OTHER);
    let own = Modules::default().with(
        "go.public.example/proxied@v1.7.0",
        [("go.mod", "module go.public.example/proxied\n")],
    );
    let proxy = FakeUpstream::start(own);
    net.internet.host("goproxy.public.example").upstream(&proxy);
    for (path, entries, ..) in PAGES {
        net.internet.host(PUBLIC).page(&format!("/{path}"), page(entries));
    }
    let stoa = direct(&net).start();
    for (path, _, module, status, words) in PAGES {
        let reply = latest(&stoa, &format!("{PUBLIC}/{module}")).await;
        check(path, &reply, *status, words);
    }
    for host in ["localhost:9", "127.0.0.1:443", "10.1.2.3:443", "169.254.169.254:443"] {
        assert!(!net.internet.hosts_asked().contains(&host.to_owned()), "{host}");
    }
}

#[tokio::test]
async fn addresses_for_names() {
    // Without an outgoing proxy, as a server inside a network is.
    for (module, address) in [
        ("127.0.0.1/lib", "127.0.0.1"),
        ("127.0.0.1/lib.git", "127.0.0.1"),
        ("127.1/lib", "127.0.0.1"),
        ("0x7f.1/lib", "127.0.0.1"),
        ("0177.0.0.1/lib", "127.0.0.1"),
        ("0.0.0.0/lib", "0.0.0.0"),
        ("169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("10.0.0.1/lib", "10.0.0.1"),
        ("192.168.1.1/lib.git", "192.168.1.1"),
    ] {
        let path = std::env::var("PATH").unwrap();
        let setup = brief(Setup::in_memory()).goproxy("direct").env("PATH", path);
        let reply = latest(&setup.start(), module).await;
        let words = format!(
            "its address {address} is not a public one\nhint: if the host is one of yours, name it"
        );
        check(module, &reply, 403, &words);
        // A person may name it. Nothing listens at the ports of this machine that are asked.
        if address == "127.0.0.1" && module.starts_with(address) {
            for (key, value) in [("STOA_GOPRIVATE", "127.0.0.1"), ("STOA_GONOPROXY", "127.0.0.1/*")]
            {
                let reply = latest(&setup.clone().env(key, value).start(), module).await;
                assert_ne!(reply.status, 403, "{module}: {}", reply.text());
            }
        }
    }
}

#[tokio::test]
async fn goinsecure() {
    if !require_git() {
        return;
    }
    let net = Net::new();
    net.module("lib", "old.public.example/lib");
    let old = net.internet.host("old.public.example:80").git("/r", &net.remotes);
    let entry = "old.public.example/lib git http://old.public.example/r/lib";
    old.page("/lib", page(&[entry]));
    let reply = latest(&direct(&net).start(), "old.public.example/lib").await;
    check("secure", &reply, 502, "connect");
    let insecure = direct(&net).env("STOA_GOINSECURE", "old.public.example").start();
    check("insecure", &latest(&insecure, "old.public.example/lib").await, 200, "v1.0.0");
    insecure.get("old.public.example/lib/@v/v1.0.0.zip").await.ok();
    // A page may show any certificate.
    let odd = net.internet.host("odd.public.example").certificate(Certificate::SelfSigned);
    odd.page("/lib", page(&["odd.public.example/lib git http://old.public.example/r/lib"]));
    let both = "odd.public.example,old.public.example";
    let secure = direct(&net).env("STOA_GOINSECURE", "old.public.example").start();
    check("odd", &latest(&secure, "odd.public.example/lib").await, 502, "certificate");
    let insecure = direct(&net).env("STOA_GOINSECURE", both).start();
    check("odd, insecure", &latest(&insecure, "odd.public.example/lib").await, 200, "v1.0.0");
    check("by suffix", &latest(&insecure, "old.public.example/r/lib.git").await, 200, "v1.0.0");
}

#[tokio::test]
async fn paths_that_name_a_repository() {
    if !require_git() {
        return;
    }
    let net = Net::new();
    net.module("lib", "code.public.example/r/lib.git");
    net.repository("lib", &[("sub/v0.2.0", &[("sub/go.mod", "module x\n")])]);
    let asked = net.host(OTHER);
    let stoa = direct(&net).start();
    for (module, status, words) in [
        ("r/lib.git", 200, "v1.0.0"),
        ("r/lib.git/sub", 200, "v0.2.0"),
        ("r/none.git", 404, "git: no such repository"),
        ("r/lib.hg", 404, "kept in hg, and this server fetches from git only"),
        ("r/lib.svn", 403, "GOVCS disallows using svn for public code.public.example/r/lib.svn"),
        ("r/lib.fossil/sub", 403, "GOVCS disallows using fossil"),
    ] {
        check(module, &latest(&stoa, &format!("{OTHER}/{module}")).await, status, words);
    }
    // Nobody was asked for a page.
    let pages = net.internet.requests(asked.name());
    assert!(!pages.iter().any(|request| request.target.contains("go-get")), "{pages:#?}");
    // Who is private is kept in what it likes, but fetched from git only.
    let private = direct(&net).env("STOA_GOPRIVATE", OTHER).start();
    check("svn", &latest(&private, "code.public.example/r/lib.svn").await, 404, "kept in svn");

    for (govcs, status) in [("public:off", 403), ("public:hg,*:git", 403), ("*:git", 200)] {
        net.internet.forget_requests();
        let stoa = direct(&net).env("STOA_GOVCS", govcs).start();
        let reply = latest(&stoa, "code.public.example/r/lib.git").await;
        check(
            govcs,
            &reply,
            status,
            if status == 200 { "v1.0.0" } else { "GOVCS disallows using git" },
        );
        assert_eq!(net.internet.ls_remotes() > 0, status == 200, "{govcs}");
    }
}

#[tokio::test]
async fn a_path_that_names_a_repository_over_ssh() {
    if !require_sshd() {
        return;
    }
    let net = Net::new();
    net.module("lib", "x.corp.example.com/lib.git");
    let sshd = SshServer::start(&net.remotes);
    // Upper-case letters are written with `!` in requests.
    let mut path = String::new();
    for c in net.remotes.path("lib").to_str().unwrap().chars() {
        path.extend(c.is_ascii_uppercase().then_some('!'));
        path.push(c.to_ascii_lowercase());
    }
    let ssh = format!("ssh -F {}", sshd.config_file().display());
    // The name is one of ssh's own configuration. Over https there is no such host.
    let setup =
        direct(&net).env("STOA_GOPRIVATE", "x.corp.example.com").env("GIT_SSH_COMMAND", ssh);
    let reply = latest(&setup.start(), &format!("x.corp.example.com{path}.git")).await;
    check("ssh", &reply, 200, "v1.0.0");
    assert!(net.internet.hosts_asked().contains(&"x.corp.example.com:443".to_owned()));
    assert!(sshd.connections() > 0);
}

#[tokio::test]
async fn proxies_that_pages_name() {
    let net = Net::new();
    let go_mod = [("go.mod", "module x\n")];
    let modules = Modules::default();
    let modules = modules.with("go.public.example/lib@v1.0.0", go_mod);
    let proxy = FakeUpstream::start(modules.with("git.corp.example.com/lib@v1.0.0", go_mod));
    net.internet.host("goproxy.public.example").upstream(&proxy);
    let entry = |host: &str, at: &str| format!("{host}/lib mod https://{at}");
    for host in [PUBLIC, CORP] {
        let entry = entry(host, "goproxy.public.example");
        net.internet.host(host).page("/lib", page(&[&*entry]));
    }
    let stoa = direct(&net).env("STOA_GOPRIVATE", CORP).start();
    check("public", &latest(&stoa, "go.public.example/lib").await, 200, "v1.0.0");
    // A private module's proxy must be named, too.
    proxy.forget_requests();
    check(
        "private",
        &latest(&stoa, "git.corp.example.com/lib").await,
        403,
        "redirect of a private module to another host",
    );
    assert_eq!(proxy.request_lines(), Vec::<String>::new());
    let both = "git.corp.example.com,goproxy.public.example";
    let stoa = direct(&net).env("STOA_GOPRIVATE", both).start();
    check("named", &latest(&stoa, "git.corp.example.com/lib").await, 200, "v1.0.0");
    // It redirects no further than others.
    for to in ["https://127.0.0.1/x", "https://localhost:9/x"] {
        proxy.clear_faults();
        proxy.fault("/go.public.example/*", Fault::redirect(to));
        let reply = latest(&direct(&net).start(), "go.public.example/lib").await;
        check(to, &reply, 403, "not a public one");
    }
}
