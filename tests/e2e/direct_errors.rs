//! What a person reads when a module cannot be had from its repository: the class, one line that says why, and advice; from
//! the server, and where the real `go` runs.

use std::net::TcpListener;

use stoa_testkit::{Access, Certificate, Go, Reach, require_git, require_go};

use crate::direct_world::{Corp, GIT, TOKEN, is_well, known_to_git};
use crate::fixtures::{Reply, bounded};
use crate::stoa::Setup;

/// What is wrong, what is asked then, and what is answered.
struct Case {
    name: &'static str,
    world: fn(&Corp) -> Setup,
    ask: &'static str,
    status: u16,
    words: &'static str,
    /// What can be done about it, where anything can.
    hint: &'static str,
}

const fn case(
    name: &'static str,
    world: fn(&Corp) -> Setup,
    ask: &'static str,
    status: u16,
    words: &'static str,
    hint: &'static str,
) -> Case {
    Case { name, world, ask, status, words, hint }
}

const LIB: &str = "git.corp.example.com/lib/@v/v1.0.0.info";

/// Its page is good, and its repository is somewhere else.
fn at(corp: &Corp, url: &str) -> Setup {
    corp.import(GIT, "lib", url);
    corp.setup().env("STOA_GOPRIVATE", "*.corp.example.com,127.0.0.1,gone.corp.invalid")
}

/// A port at which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The repository's host shows such a certificate.
fn certificate(corp: &Corp, certificate: Certificate) -> Setup {
    corp.host("tls.corp.example.com", "none", "lib").certificate(certificate);
    at(corp, "https://tls.corp.example.com/r/lib")
}

const UNTRUSTED: &str = "the host's certificate is not trusted";
const AUTHORITY: &str = "name its authority in upstream.ca-files";

const CASES: &[Case] = &[
    case(
        "authentication failed",
        |corp| {
            corp.host(GIT, "lib", "lib").access("/r", known_to_git());
            corp.setup().env("STOA_GIT_HOST", GIT).env("STOA_GIT_TOKEN", "other")
        },
        LIB,
        403,
        "git: authentication failed",
        "look at the server's credential for this host",
    ),
    case(
        "authentication failed, by a path that says where the repository is",
        |corp| {
            corp.host(GIT, "lib", "lib").access("/r", known_to_git());
            corp.setup().env("STOA_GIT_HOST", GIT).env("STOA_GIT_TOKEN", "other")
        },
        "git.corp.example.com/r/lib.git/@v/v1.0.0.info",
        403,
        "git: authentication failed",
        "look at the server's credential for this host",
    ),
    case(
        "no such host behind the proxy",
        |corp| at(corp, "https://gone.corp.example.com/r/lib"),
        LIB,
        502,
        "the outgoing proxy does not connect to the host",
        "look at the module's path, and at what the proxy lets through",
    ),
    case("no such host of pages behind the proxy", Corp::setup, LIB, 502, "outgoing proxy", ""),
    case(
        "no such name",
        |corp| {
            let setup = at(corp, "https://gone.corp.invalid/r/lib");
            setup.env("no_proxy", "gone.corp.invalid").env("NO_PROXY", "gone.corp.invalid")
        },
        LIB,
        502,
        "cannot be resolved",
        "look at the server's dns",
    ),
    case(
        "no such name, over ssh",
        |corp| at(corp, "ssh://git@gone.corp.invalid/r/lib"),
        LIB,
        502,
        "the host's name cannot be resolved",
        "look at the server's dns",
    ),
    case(
        "self-signed",
        |corp| certificate(corp, Certificate::SelfSigned),
        LIB,
        502,
        UNTRUSTED,
        AUTHORITY,
    ),
    case("expired", |corp| certificate(corp, Certificate::Expired), LIB, 502, UNTRUSTED, AUTHORITY),
    case(
        "other name",
        |corp| certificate(corp, Certificate::OtherName),
        LIB,
        502,
        "the host's certificate is for another name",
        "tell those who run that host",
    ),
    case(
        "other authority",
        |corp| certificate(corp, Certificate::OtherAuthority),
        LIB,
        502,
        UNTRUSTED,
        AUTHORITY,
    ),
    case(
        "page of another authority",
        |corp| {
            corp.host(GIT, "lib", "lib").certificate(Certificate::OtherAuthority);
            corp.setup()
        },
        LIB,
        502,
        "the certificate is from an unknown authority",
        "name the host's authority in upstream.ca-files",
    ),
    case(
        "no such repository",
        |corp| at(corp, "https://git.corp.example.com/r/none"),
        LIB,
        404,
        "no such repository, or the server's credential may not see it",
        "look at the path, and at the server's credential",
    ),
    case(
        "no such page",
        |corp| corp.setup_with(GIT),
        LIB,
        404,
        "may not see it",
        "look at the module's path, and at the server's credential",
    ),
    case(
        "no such revision",
        Corp::serving,
        "git.corp.example.com/lib/@v/v9.9.9.info",
        404,
        "unknown revision v9.9.9",
        "look whether the tag or branch was pushed",
    ),
    case(
        "no such branch",
        Corp::serving,
        "git.corp.example.com/lib/@v/nowhere.info",
        404,
        "unknown revision nowhere",
        "look whether the tag or branch was pushed",
    ),
    case(
        "no tag for the subdirectory",
        Corp::serving,
        "git.corp.example.com/lib/sub/@v/v1.0.0.info",
        404,
        "unknown revision sub/v1.0.0: versions of a module in the directory sub are tagged",
        "tag the version with the directory before it",
    ),
    case(
        "connection refused",
        |corp| at(corp, &format!("https://127.0.0.1:{}/r/lib", closed_port())),
        LIB,
        502,
        "127.0.0.1 cannot be reached at port",
        "look at the server's network",
    ),
    case(
        "connection refused, over ssh",
        |corp| at(corp, &format!("ssh://git@127.0.0.1:{}/r/lib", closed_port())),
        LIB,
        502,
        "the host cannot be reached",
        "look at the server's network",
    ),
    case(
        "silence",
        |corp| {
            corp.host("silent.corp.example.com", "lib", "lib").reach(Reach::Silent);
            at(corp, "https://silent.corp.example.com/r/lib").env("STOA_GIT_LIST_TIMEOUT", "1s")
        },
        LIB,
        504,
        "git: timeout after 1 s",
        "git.list-timeout can be longer",
    ),
    case(
        "silence instead of a page",
        |corp| {
            corp.host(GIT, "lib", "lib").reach(Reach::Silent);
            corp.setup().env("STOA_UPSTREAM_FILE_TIMEOUT", "1s")
        },
        LIB,
        504,
        "timeout",
        "",
    ),
    case(
        "no git",
        |corp| corp.serving().env("PATH", "/nonexistent"),
        LIB,
        502,
        "there is no git command on the server",
        "install git where the server runs",
    ),
    case(
        "http",
        |corp| at(corp, "http://git.corp.example.com/r/lib"),
        LIB,
        403,
        "this transport is not allowed",
        "http where GOINSECURE names the module",
    ),
    case(
        "git:",
        |corp| at(corp, "git://git.corp.example.com/r/lib"),
        LIB,
        403,
        "this transport is not allowed",
        "https and ssh are",
    ),
    case(
        "GIT_ALLOW_PROTOCOL",
        |corp| corp.serving().env("GIT_ALLOW_PROTOCOL", "ssh"),
        LIB,
        403,
        "this transport is not allowed",
        "https and ssh are",
    ),
    case(
        "GOVCS",
        |corp| corp.serving().env("STOA_GOVCS", "private:off"),
        LIB,
        403,
        "GOVCS disallows using git for private git.corp.example.com/lib",
        "the server's upstream.govcs decides",
    ),
];

#[tokio::test]
async fn each_error_says_what_to_do() {
    if !require_git() {
        return;
    }
    for case in CASES {
        eprintln!("{}", case.name);
        let corp = Corp::new();
        let setup = (case.world)(&corp).env("STOA_UPSTREAM_TRIES", "1");
        let stoa = setup.start();
        let reply = bounded(stoa.get(case.ask)).await;
        reply.refused(case.status, case.words);
        let hint = reply.text().lines().find_map(|line| line.strip_prefix("hint: "));
        assert!(hint.unwrap_or_default().contains(case.hint), "{}", reply.text());
        is_well(&setup, &stoa).await;
    }
}

#[tokio::test]
async fn authorities_of_the_settings_are_trusted() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib");
    let setup = corp.setup_without(&["SSL_CERT_FILE", "GIT_SSL_CAINFO"]);
    let stranger = setup.start();
    bounded(stranger.get(LIB)).await.refused(502, "unknown authority");
    drop(stranger);
    let stoa = setup.env("STOA_UPSTREAM_CA_FILES", corp.internet.ca_file().display()).start();
    bounded(stoa.get("git.corp.example.com/lib/@v/v1.0.0.zip")).await.ok();
}

#[tokio::test]
async fn the_go_command_shows_them() {
    if !require_git() || !require_go() {
        return;
    }
    for name in ["authentication failed", "no such repository", "no tag for the subdirectory"] {
        let case = CASES.iter().find(|case| case.name == name).unwrap();
        let corp = Corp::new();
        let stoa = (case.world)(&corp).start();
        let (module, _) = case.ask.split_once("/@v/").unwrap();
        let asked = format!("{module}@v1.0.0");
        let go = Go::new().goproxy(&stoa.url);
        let go = go.project("-- go.mod --\nmodule ex.com/app\n\ngo 1.21\n");
        let said = go.fails(["mod", "download", &asked]).await;
        assert!(said.contains(case.words) && said.contains(case.hint), "{said}");
        // This one goes on with the module at the root, and complains about that.
        if case.name != "no tag for the subdirectory" {
            let said = go.fails(["get", &asked]).await;
            assert!(said.contains(case.words) && said.contains(case.hint), "{said}");
        }
    }
}

/// Status, headers that tell something, and body, but for the module's name and the request's number.
fn shown(reply: &Reply, name: &str) -> (u16, String, String) {
    let lines = reply.text().lines().filter(|line| !line.starts_with("request id:"));
    let text = lines.collect::<Vec<_>>().join("\n").replace(name, "NAME");
    (reply.status.as_u16(), reply.header("cache-control").to_owned(), text)
}

#[tokio::test]
async fn what_is_hidden_looks_like_what_is_not_there() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    let sees = || Access::token(TOKEN);
    for (host, below) in [("git.corp.example.com", "/r"), ("pages.corp.example.com", "")] {
        let mut access = sees();
        for (name, status) in [("hidden404", 404), ("hidden403", 403)] {
            corp.remotes.init(name);
            access = access.hiding(&format!("{below}/{name}"), status);
        }
        for name in ["hidden404", "hidden403"] {
            corp.host(host, name, name);
        }
        if below == "/r" {
            corp.host(host, "not-there", "not-there");
        }
        corp.internet.host(host).access("/", access);
        let setup = corp.setup().env("STOA_GIT_HOST", host).env("STOA_GIT_TOKEN", TOKEN);
        let stoa = setup.start();
        for file in ["@v/v1.0.0.info", "@v/v1.0.0.zip", "@v/list", "@latest", "@v/main.info"] {
            let mut answers = Vec::new();
            for name in ["hidden404", "hidden403", "not-there"] {
                let reply = bounded(stoa.get(&format!("{host}/{name}/{file}"))).await;
                reply.refused(404, "may not see it");
                answers.push(shown(&reply, name));
            }
            assert_eq!(answers[0], answers[2], "{file}");
            assert_eq!(answers[1], answers[2], "{file}");
        }
        let (_, log) = stoa.stop();
        if below == "/r" {
            assert!(log.contains("returned error: 403"), "the host's own words: {log}");
        }
    }
}
