//! What the real `go` command makes of each class of error: which of them send it to its next proxy, that it ends, and
//! that our words are what its user reads.

use stoa_testkit::{FakeUpstream, Fault, Go, require_go};
use tokio::task::JoinSet;

use crate::fixtures::modules;
use crate::stoa::{Setup, Stoa};

const MODULE: &str = "ex.com/lib@v1.0.0";

/// A class: what an upstream does to have the server answer so, the status, and what the user must read.
struct Class {
    status: u16,
    fault: fn() -> Fault,
    words: &'static [&'static str],
}

const CLASSES: [Class; 5] = [
    Class {
        status: 404,
        fault: || Fault::status(404).text("not found: unknown revision v1.0.0"),
        words: &["404 Not Found", "server response", "unknown revision v1.0.0", "request id"],
    },
    Class {
        status: 403,
        fault: || Fault::status(403).text("this module is blocked by the office"),
        words: &["403 Forbidden", "a source denies it", "blocked by the office", "request id"],
    },
    Class {
        status: 502,
        fault: || Fault::replace("<html>please log in</html>"),
        words: &["502 Bad Gateway", "damaged or malformed", "request id"],
    },
    Class {
        status: 503,
        fault: || Fault::status(429).retry_after(77),
        words: &["503 Service Unavailable", "http 429", "request id"],
    },
    Class {
        status: 504,
        fault: Fault::hang,
        words: &["504 Gateway Timeout", "no source answered in time", "timeout", "request id"],
    },
];

/// A server that answers `ex.com/lib` by that class, and another proxy that has the module.
struct World {
    _upstream: FakeUpstream,
    other: FakeUpstream,
    stoa: Stoa,
}

impl World {
    fn new(class: &Class) -> Self {
        let upstream = FakeUpstream::start(modules());
        upstream.fault("/ex.com/lib/*", (class.fault)());
        let setup = Setup::in_memory().goproxy(upstream.url());
        let stoa = setup
            .env("STOA_UPSTREAM_LIST_TIMEOUT", "500ms")
            .env("STOA_UPSTREAM_FILE_TIMEOUT", "500ms")
            .start();
        Self { _upstream: upstream, other: FakeUpstream::start(modules()), stoa }
    }

    fn go(&self, separator: &str) -> Go {
        let goproxy = match separator {
            "" => self.stoa.url.clone(),
            separator => format!("{}{separator}{}", self.stoa.url, self.other.url()),
        };
        Go::new().goproxy(goproxy).project("-- go.mod --\nmodule ex.com/app\n\ngo 1.21\n")
    }
}

/// What is wrong with what came of it.
async fn check(class: &'static Class, separator: &'static str, command: &[&str]) -> Option<String> {
    let world = World::new(class);
    let output = world.go(separator).run(command).await;
    // By the go command's own rule: an absence goes on over a comma, anything over `|`.
    let goes_on = match separator {
        "" => false,
        "," => class.status == 404,
        _ => true,
    };
    let problem = |words: String| {
        Some(format!("{} {separator:?} {command:?}: {words}: {output}", class.status))
    };
    if output.status.success() != goes_on {
        return problem(format!("success: {}", output.status.success()));
    }
    if (world.other.count("/ex.com/lib/*") > 0) != goes_on {
        return problem(format!("the other proxy was asked {:?}", world.other.request_lines()));
    }
    if !goes_on {
        let said = format!("{}{}", output.stdout, output.stderr);
        if let Some(missing) = class.words.iter().find(|words| !said.contains(**words)) {
            return problem(format!("{missing:?} is not said"));
        }
    }
    None
}

#[tokio::test]
async fn each_class_means_to_go_what_it_should() {
    if !require_go() {
        return;
    }
    let download: &[&str] = &["mod", "download", MODULE];
    let mut cases: Vec<(&Class, &str, &[&str])> = Vec::new();
    for class in &CLASSES {
        for separator in ["", ",", "|"] {
            cases.push((class, separator, download));
        }
    }
    // The other ways to ask, where a class makes a difference.
    for class in [&CLASSES[0], &CLASSES[1]] {
        cases.push((class, ",", &["list", "-m", "-versions", "ex.com/lib"]));
        cases.push((class, ",", &["get", MODULE]));
    }
    let mut running = JoinSet::new();
    let mut wrong = Vec::new();
    for (class, separator, command) in cases {
        if running.len() == 4 {
            wrong.extend(running.join_next().await.map(Result::unwrap));
        }
        running.spawn(check(class, separator, command));
    }
    while let Some(problem) = running.join_next().await {
        wrong.push(problem.unwrap());
    }
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Full disks are the store's own tests; what `go` makes of the answer is the same wherever it comes from.
#[tokio::test]
async fn a_full_server_is_not_passed_over_on_a_comma() {
    if !require_go() {
        return;
    }
    let full = FakeUpstream::start(modules());
    full.fault("*.zip", Fault::status(507).text("no room to store it\n"));
    let other = FakeUpstream::start(modules());
    let go =
        |separator: &str| Go::new().goproxy(format!("{}{separator}{}", full.url(), other.url()));
    let refused = go(",").fails(["mod", "download", MODULE]).await;
    assert!(refused.contains("507") && refused.contains("no room to store it"), "{refused}");
    assert_eq!(other.count("*"), 0);
    go("|").ok(["mod", "download", MODULE]).await;
}
