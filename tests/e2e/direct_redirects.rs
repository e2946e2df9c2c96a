//! Repositories and pages that are elsewhere: which redirects are followed, and which are not.

use stoa_testkit::{Answer, Fault, require_git};

use crate::direct_discovery::{PUBLIC, check, direct, latest, page};
use crate::direct_net::{CORP, Net};

/// Where a redirect leads, for a public and for a private module, and whether the module comes from there.
type Redirect = (&'static str, &'static str, (u16, &'static str), (u16, &'static str));

/// What comes of it.
const ANSWERED: (u16, &str) = (200, "v1.0.0");
const LOCAL: (u16, &str) = (403, "not a public one");
const AWAY: (u16, &str) = (403, "redirect of a private module to another host");

/// Of repositories.
const MOVED: &[Redirect] = &[
    ("a new path", "/r/lib/info/refs?service=git-upload-pack", ANSWERED, ANSWERED),
    (
        "another host",
        "https://moved.public.example/r/lib/info/refs?service=git-upload-pack",
        ANSWERED,
        AWAY,
    ),
    (
        "without tls",
        "http://moved.public.example/r/lib/info/refs?service=git-upload-pack",
        (502, "a redirect from https to http"),
        (502, "a redirect from https to http"),
    ),
    ("this machine", "https://127.0.0.1/r/lib/info/refs?service=git-upload-pack", LOCAL, AWAY),
    ("its name", "https://localhost:9/r/lib/info/refs?service=git-upload-pack", LOCAL, AWAY),
    ("metadata", "https://169.254.169.254/info/refs?service=git-upload-pack", LOCAL, AWAY),
    ("a page", "/login", (404, "what is no repository"), (404, "what is no repository")),
    ("files", "file:///etc/passwd", (502, "a redirect to nowhere"), (502, "a redirect to nowhere")),
    (
        "itself",
        "/old/lib/info/refs?service=git-upload-pack",
        (502, "too many redirects"),
        (502, "too many redirects"),
    ),
    ("ever on", "/on/1", (502, "too many redirects"), (502, "too many redirects")),
];

/// Redirects that never end, and never come by the same place twice.
fn ever_on(request: &stoa_testkit::Request) -> Option<Answer> {
    let n: u64 = request.path.strip_prefix("/on/")?.parse().ok()?;
    Some(Answer::text(302, "").with_header("Location", &format!("/on/{}", n + 1)))
}

#[tokio::test]
async fn repositories_that_have_moved() {
    if !require_git() {
        return;
    }
    for (what, to, public, private) in MOVED {
        let net = Net::new();
        net.module("lib", "go.public.example/lib");
        net.host("moved.public.example");
        for host in [PUBLIC, CORP] {
            let own = net.host(host).go_import("lib", "git", &format!("https://{host}/old/lib"));
            own.pages(ever_on).fault("/old/*", Fault::status(301).header("Location", *to));
        }
        let stoa = direct(&net).env("STOA_GOPRIVATE", CORP).start();
        for (host, (status, words)) in [(PUBLIC, public), (CORP, private)] {
            let reply = latest(&stoa, &format!("{host}/lib")).await;
            check(&format!("{what}, {host}"), &reply, *status, words);
            if *status == 200 {
                // The objects come from there, too.
                stoa.get(&format!("{host}/lib/@v/v1.0.0.zip")).await.ok();
            }
        }
        assert!(net.internet.requests(PUBLIC).len() < 30, "{what}");
    }
}

/// Of pages.
const ELSEWHERE: &[Redirect] = &[
    ("another host", "https://moved.public.example/lib?go-get=1", ANSWERED, AWAY),
    (
        "without tls",
        "http://moved.public.example/lib?go-get=1",
        (502, "from https to http"),
        (502, "from https to http"),
    ),
    ("this machine", "https://127.0.0.1/?go-get=1", LOCAL, AWAY),
    ("its name", "https://localhost:9/?go-get=1", LOCAL, AWAY),
    ("this network", "https://10.0.0.1/?go-get=1", LOCAL, AWAY),
    ("metadata", "https://[fd00:ec2::254]/latest/meta-data", LOCAL, AWAY),
    ("ever on", "/on/1", (502, "too many redirects"), (502, "too many redirects")),
];

#[tokio::test]
async fn pages_that_are_elsewhere() {
    if !require_git() {
        return;
    }
    for (what, to, public, private) in ELSEWHERE {
        let net = Net::new();
        net.module("lib", "go.public.example/lib");
        net.host("moved.public.example").pages(|request| {
            let entry = |host: &str| format!("{host}/lib git https://{host}/r/lib");
            let both = [entry(PUBLIC), entry(CORP)];
            request.target.ends_with("?go-get=1").then(|| page(&[&*both[0], &*both[1]]))
        });
        for host in [PUBLIC, CORP] {
            net.host(host).pages(ever_on).fault("/lib", Fault::redirect(*to));
        }
        let stoa = direct(&net).env("STOA_GOPRIVATE", CORP).start();
        for (host, (status, words)) in [(PUBLIC, public), (CORP, private)] {
            let reply = latest(&stoa, &format!("{host}/lib")).await;
            check(&format!("{what}, {host}"), &reply, *status, words);
        }
    }
}
