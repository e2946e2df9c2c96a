//! Paths, pages and repositories that strangers choose: nothing of theirs is run, nobody is asked whom they point at, and
//! the server answers in bounded time and lives.

use std::net::TcpListener;

use stoa_testkit::{Fault, require_git};

use crate::direct_world::{Corp, GIT, is_unharmed};
use crate::fixtures::{bounded, noise, raw};
use crate::stoa::Setup;

/// A host that nobody has named.
const EVIL: &str = "evil.example.org";

/// A server that fetches public modules from their repositories.
fn public(corp: &Corp) -> Setup {
    corp.setup().goproxy("direct").env("STOA_GIT_LIST_TIMEOUT", "5s")
}

#[tokio::test]
async fn paths_and_revisions_that_would_be_options() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    corp.host(GIT, "lib", "lib");
    let setup = corp.setup();
    let stoa = setup.start();
    for path in [
        "-git.corp.example.com/lib/@v/v1.0.0.info",
        "--upload-pack=touch%20pwned/@v/list",
        "git.corp.example.com/-oProxyCommand=touch/@v/list",
        "git.corp.example.com/lib/--upload-pack=touch/@v/v1.0.0.info",
        "git.corp.example.com/lib%0a/@v/list",
        "git.corp.example.com/li%00b/@v/v1.0.0.zip",
        "git.corp.example.com/lib/%1b[31m/@latest",
        "git.corp.example.com/lib/@v/-v1.0.0.info",
        "git.corp.example.com/lib/@v/--upload-pack=touch%20pwned.info",
        "git.corp.example.com/lib/@v/--output=pwned.info",
        "git.corp.example.com/lib/@v/-opwned.mod",
        "git.corp.example.com/lib/@v/-.zip",
        "git.corp.example.com/lib/@v/main%0a.info",
        "git.corp.example.com/lib/@v/main%00.info",
        "git.corp.example.com/lib/@v/main%0d%0aX-Evil:%20y.info",
        "git.corp.example.com/lib/@v/HEAD%5e%7btree%7d.info",
        "git.corp.example.com/lib/@v/main@%7b0%7d.info",
        "git.corp.example.com/lib/@v/:lib.go.info",
        "git.corp.example.com/lib/@v/refs%2fheads%2fmain.info",
        "git.corp.example.com/lib/@v/main..HEAD.info",
        "git.corp.example.com/lib/@v/v1.0.0-0.20231114221320-%2d-pwned0000.info",
    ] {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = raw(&stoa, request.as_bytes()).await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "404" | "400"), "{path}: {answer}");
        assert!(!answer.to_lowercase().contains("\r\nx-evil"), "{path}: {answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(!body.is_empty() && body.len() <= 600, "{path}: {answer}");
        assert!(body.chars().all(|c| c == '\n' || !c.is_control()), "{path}: {answer:?}");
    }
    // No other name of it may stand beside what it is.
    bounded(stoa.get("git.corp.example.com/lib/@v/main.info")).await.ok();
    is_unharmed(&corp, &setup, &stoa).await;
}

/// A page, how it is misled, and what comes of it: 200, or a status and words.
struct Page {
    name: &'static str,
    world: fn(&Corp, u16),
    status: u16,
    words: &'static str,
}

const fn page(name: &'static str, world: fn(&Corp, u16), status: u16, words: &'static str) -> Page {
    Page { name, world, status, words }
}

fn meta(prefix: &str, url: &str) -> String {
    format!("<meta name=\"go-import\" content=\"{prefix} git {url}\">\n")
}

/// The page of [`EVIL`] redirects there.
fn redirect(corp: &Corp, to: &str) {
    corp.internet.host(EVIL).fault("/lib", Fault::redirect(to));
}

const PAGES: &[Page] = &[
    page(
        "huge, and nothing in it",
        |corp, _| {
            let body =
                format!("{}{}", " ".repeat(3 << 20), meta("evil.example.org/lib", "https://x"));
            corp.page(EVIL, "/lib", body);
        },
        404,
        "names no repository",
    ),
    page(
        "huge, and good at its beginning",
        |corp, _| {
            let url = "https://evil.example.org/r/lib";
            let body = format!("{}{}", meta("evil.example.org/lib", url), " ".repeat(3 << 20));
            corp.page(EVIL, "/lib", body).git("/r", &corp.remotes);
        },
        200,
        "",
    ),
    page(
        "endless",
        |corp, _| {
            corp.page(EVIL, "/lib", "<html>").fault("/lib", Fault::endless());
        },
        404,
        "names no repository",
    ),
    page(
        "a bomb",
        |corp, _| {
            corp.internet.host(EVIL).fault("/lib", Fault::gzip_bomb(1 << 30));
        },
        404,
        "names no repository",
    ),
    page("noise", |corp, _| drop(corp.page(EVIL, "/lib", noise(100_000))), 404, "names no"),
    page(
        "two fields",
        |corp, _| {
            let body = "<meta name=go-import content=\"evil.example.org/lib git\">";
            corp.page(EVIL, "/lib", body);
        },
        404,
        "names no repository",
    ),
    page(
        "to the metadata of a cloud",
        |corp, _| redirect(corp, "https://169.254.169.254/latest/meta-data/"),
        403,
        "is not a public one",
    ),
    page(
        "to loopback",
        |corp, port| redirect(corp, &format!("https://127.0.0.1:{port}/lib?go-get=1")),
        403,
        "is not a public one",
    ),
    page(
        "to a name of loopback",
        |corp, port| redirect(corp, &format!("https://localhost:{port}/lib?go-get=1")),
        403,
        "is not a public one",
    ),
    page(
        "to http",
        |corp, _| redirect(corp, "http://evil.example.org/other"),
        502,
        "a redirect from https to http",
    ),
    page("to itself", |corp, _| redirect(corp, "/lib?go-get=1"), 502, "too many redirects"),
    page("to a file", |corp, _| redirect(corp, "file:///etc/passwd"), 502, "a redirect to nowhere"),
    page(
        "claims what is another's",
        |corp, _| drop(corp.page(EVIL, "/lib", meta("git.corp.example.com/lib", "https://x/y"))),
        404,
        "no go-import for evil.example.org/lib, only for git.corp.example.com/lib",
    ),
    page(
        "claims the whole host, which knows nothing of it",
        |corp, _| {
            drop(corp.page(EVIL, "/lib", meta("evil.example.org", "https://x.example.org/y")));
        },
        404,
        "disagree about the go-import of evil.example.org",
    ),
    page(
        "two at once",
        |corp, _| {
            let one = meta("evil.example.org/lib", "https://a.example.org/x");
            let other = meta("evil.example.org/lib", "https://b.example.org/x");
            corp.page(EVIL, "/lib", one + &other);
        },
        404,
        "several go-imports match",
    ),
];

/// What a page says of a repository, and what comes of it. `PORT` is one of loopback.
const ADDRESSES: &[(&str, u16, &str)] = &[
    ("file:///etc", 404, "cannot be at a file: address"),
    ("ext::sh -c touch% pwned", 404, "names no repository"),
    ("ext::touch${IFS}pwned", 404, "invalid address"),
    ("ext://touch${IFS}pwned", 404, "invalid address"),
    ("fd::17", 404, "invalid address"),
    ("git://evil.example.org/r/lib", 403, "not allowed"),
    ("-oProxyCommand=touch${IFS}pwned", 404, "invalid address"),
    ("--upload-pack=touch${IFS}pwned", 404, "invalid address"),
    ("ssh://-oProxyCommand=touch${IFS}pwned/x", 404, "invalid address"),
    ("ssh://evil.example.org:-oProxyCommand=x/y", 404, "invalid address"),
    ("ssh://git@127.0.0.1:PORT/x", 403, "is not a public one"),
    ("https://127.0.0.1:PORT/x", 403, "is not a public one"),
    ("https://2130706433:PORT/x", 403, "is not a public one"),
    ("https://[::ffff:127.0.0.1]:PORT/x", 403, "is not a public one"),
    ("https://localhost:PORT/x", 403, "is not a public one"),
    ("https://169.254.169.254/latest", 403, "is not a public one"),
    ("ssh://git@169.254.169.254/latest", 403, "is not a public one"),
    // What git and a browser read as different hosts.
    (r"https://evil.example.org\@127.0.0.1:PORT/x", 404, "invalid address"),
    ("https://a@evil.example.org@127.0.0.1:PORT/x", 404, "invalid address"),
    ("ssh://127.0.0.1%2fx.evil.example.org/x", 404, "invalid address"),
    ("https://me:pwned@evil.example.org/r/lib", 404, "holds a password"),
];

#[tokio::test]
async fn pages_that_mislead() {
    if !require_git() {
        return;
    }
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    loopback.set_nonblocking(true).unwrap();
    let port = loopback.local_addr().unwrap().port();
    for page in PAGES {
        eprintln!("{}", page.name);
        let corp = Corp::new();
        (page.world)(&corp, port);
        let setup = public(&corp);
        let stoa = setup.start();
        let reply = bounded(stoa.get("evil.example.org/lib/@v/v1.0.0.info")).await;
        if page.status == 200 {
            reply.ok();
        } else {
            reply.refused(page.status, page.words);
        }
        is_unharmed(&corp, &setup, &stoa).await;
    }
    assert!(loopback.accept().is_err(), "somebody was sent to loopback");
}

#[tokio::test]
async fn addresses_that_mislead() {
    if !require_git() {
        return;
    }
    let loopback = TcpListener::bind("127.0.0.1:0").unwrap();
    loopback.set_nonblocking(true).unwrap();
    let port = loopback.local_addr().unwrap().port().to_string();
    let corp = Corp::new();
    let setup = public(&corp);
    let stoa = setup.start();
    for (at, &(url, status, words)) in ADDRESSES.iter().enumerate() {
        eprintln!("{url}");
        let module = format!("lib{at}");
        corp.import(EVIL, &module, &url.replace("PORT", &port));
        let path = format!("{EVIL}/{module}/@v/v1.0.0.info");
        bounded(stoa.get(&path)).await.refused(status, words);
        is_unharmed(&corp, &setup, &stoa).await;
    }
    assert!(loopback.accept().is_err(), "somebody was sent to loopback");
}
