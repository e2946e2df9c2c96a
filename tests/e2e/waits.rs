//! Who waits for what: `/-/inflight` while something hangs at each stage, the line in the log, and `Server-Timing`.

use std::time::{Duration, Instant};

use stoa::command_socket::get_over;
use stoa::http::inflight::{InFlight, Waiting};
use stoa_testkit::{FakeUpstream, Fault, Gate, Modules, require_git};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::direct_world::{Corp, GIT};
use crate::fixtures::{BASE, Reply, World, bounded, client, modules, noise};
use crate::listen::{admin_url, logged};
use crate::stoa::{Setup, Stoa};

/// Nothing here ends because it takes too long.
fn patient(setup: Setup) -> Setup {
    let bounds = ["CONNECT", "LIST", "FILE", "ALTERNATIVE", "STALL"];
    let setup = bounds
        .iter()
        .fold(setup, |setup, bound| setup.env(&format!("STOA_UPSTREAM_{bound}_TIMEOUT"), "14s"));
    setup.env("STOA_SUMDB_TIMEOUT", "14s")
}

async fn inflight(stoa: &Stoa) -> InFlight {
    let reply = stoa.get("-/inflight?format=json").await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    serde_json::from_slice(&reply.ok()).unwrap()
}

/// Asks for these, and waits until somebody waits like this.
async fn waiting(
    stoa: &Stoa,
    paths: &[&str],
    is_meant: impl Fn(&Waiting) -> bool,
) -> (JoinSet<reqwest::Result<reqwest::Response>>, Waiting) {
    let mut asked = JoinSet::new();
    for path in paths {
        asked.spawn(client().get(format!("{}/{path}", stoa.url)).send());
    }
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let shown = inflight(stoa).await;
        if let Some(found) = shown.waits.iter().find(|wait| is_meant(wait)) {
            return (asked, found.clone());
        }
        assert!(Instant::now() < until, "{shown:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Of the first of its stages.
fn at<'w>(wait: &'w Waiting, stage: &str) -> Option<&'w str> {
    let found = wait.stages.iter().find(|found| found.stage == stage)?;
    Some(found.source.as_deref().unwrap_or(""))
}

#[tokio::test]
async fn requests_and_their_flight_wait_for_the_header_of_a_source() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*/list", Fault::gate(&gate));
    let stoa = patient(world.setup()).start();
    assert_eq!(stoa.get("-/inflight").await.text(), "nobody waits\n");
    let lists = ["ex.com/lib/@v/list"; 5];
    let source = world.upstream.address().to_string();
    let is_request = |wait: &Waiting| wait.kind == "request" && at(wait, "http").is_some();
    let (mut asked, request) = waiting(&stoa, &lists, is_request).await;
    assert_eq!(request.asked, "ex.com/lib (list of versions)");
    assert_eq!(at(&request, "http"), Some(&*source));
    assert_eq!(request.stages[0].text, format!("asks {source} (http)"));
    let until = Instant::now() + Duration::from_secs(10);
    let shown = loop {
        let shown = inflight(&stoa).await;
        if shown.requests == 5 {
            break shown;
        }
        assert!(Instant::now() < until, "{shown:#?}");
    };
    assert_eq!((shown.flights, shown.waits.len(), shown.left_out), (1, 6, 0));
    let ages: Vec<_> = shown.waits.iter().map(|wait| wait.since).collect();
    assert!(ages.is_sorted(), "the oldest first: {shown:#?}");
    let flight = shown.waits.iter().find(|wait| wait.kind == "answer").unwrap();
    assert!(flight.request_id.is_none() && flight.seconds < 14.0);
    let text = stoa.get("-/inflight").await;
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    let words = ["waiting requests: 5, flights: 1", "ex.com/lib (list of versions)", "(http)"];
    assert!(words.iter().all(|word| text.text().contains(word)), "{}", text.text());
    let id = request.request_id.unwrap();
    assert!(text.text().contains(&format!("(request {id})")), "{}", text.text());

    gate.open();
    while let Some(reply) = asked.join_next().await {
        assert_eq!(reply.unwrap().unwrap().status(), 200);
    }
    assert_eq!(inflight(&stoa).await.waits.len(), 0);
}

#[tokio::test]
async fn what_a_body_has_brought_is_told() {
    let big = Modules::default().with("ex.com/big@v1.0.0", [("noise", noise(3 << 20))]);
    let upstream = FakeUpstream::start(big);
    let gate = Gate::new();
    upstream.fault("*.zip", Fault::gate_after(&gate, 1 << 20));
    let setup = patient(Setup::new().goproxy(upstream.url()));
    let stoa = setup.start();
    let has_some = |wait: &Waiting| {
        wait.kind == "file"
            && wait.stages.iter().any(|stage| stage.received.is_some_and(|it| it == 1 << 20))
    };
    let (asked, wait) = waiting(&stoa, &["ex.com/big/@v/v1.0.0.zip"], has_some).await;
    let stage = &wait.stages[0];
    assert_eq!(stage.stage, "body");
    assert!(stage.length.is_some_and(|length| length > 3 << 20), "{stage:?}");
    gate.open();
    asked.join_all().await;
}

#[tokio::test]
async fn a_connection_that_is_not_made_and_places_that_are_taken() {
    // Accepts, and says nothing: the handshake is part of the connection.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let setup = patient(Setup::new().goproxy(format!("https://{address}")));
    let stoa = setup.env("STOA_UPSTREAM_MAX_CONCURRENT", "1").start();
    let files = ["ex.com/lib/@v/v1.0.0.info", "ex.com/lib/@v/v1.1.0.info"];
    let connects = |wait: &Waiting| at(wait, "connect").is_some();
    let (_asked, wait) = waiting(&stoa, &files, connects).await;
    assert_eq!(at(&wait, "connect"), Some(&*address.to_string()));
    let (_asked, wait) = waiting(&stoa, &[], |wait| at(wait, "place").is_some()).await;
    assert_eq!(wait.stages[0].text, format!("waits for a place at {address} (place)"));
}

#[tokio::test]
async fn a_record_is_looked_up_by_a_road() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*/lookup/*", Fault::gate(&gate));
    let stoa = patient(world.setup()).start();
    let looks_up = |wait: &Waiting| wait.kind == "request" && at(wait, "lookup").is_some();
    let (asked, wait) = waiting(&stoa, &[&format!("{BASE}.mod")], looks_up).await;
    let road = format!("sum.test.example through {}", world.upstream.address());
    assert_eq!(at(&wait, "lookup"), Some(&*road));
    assert_eq!(wait.stages[0].text, format!("looks the checksum up at {road} (lookup, http)"));
    let record = |wait: &Waiting| wait.kind == "record";
    let (_, record) = waiting(&stoa, &[], record).await;
    assert_eq!(record.asked, "checksum database record of ex.com/lib@v1.0.0");
    assert_eq!(at(&record, "http"), Some(&*road));
    gate.open();
    asked.join_all().await;
}

#[tokio::test]
async fn pauses_and_two_sources_at_once() {
    let world = World::new();
    let (one, other) = (Gate::new(), Gate::new());
    let behind = FakeUpstream::start(modules());
    world.upstream.fault("*.info", Fault::gate(&one));
    behind.fault("*.info", Fault::gate(&other));
    world.upstream.fault("*/list", Fault::status(503).retry_after(3));
    let setup = world.setup().goproxy(format!("{}|{}", world.upstream.url(), behind.url()));
    let stoa = patient(setup).env("STOA_UPSTREAM_HEDGE", "10ms").start();
    let pauses = |wait: &Waiting| at(wait, "pause").is_some();
    let (_list, _) = waiting(&stoa, &["ex.com/lib/@v/list"], pauses).await;
    let both = |wait: &Waiting| wait.kind == "file" && wait.stages.len() == 2;
    let (asked, wait) = waiting(&stoa, &[&format!("{BASE}.info")], both).await;
    let sources: Vec<_> = wait.stages.iter().map(|stage| stage.source.clone().unwrap()).collect();
    assert_eq!(sources, [world.upstream.address().to_string(), behind.address().to_string()]);
    one.open();
    asked.join_all().await;
}

#[tokio::test]
async fn a_command_of_git_that_waits_is_named() {
    if !require_git() {
        return;
    }
    let corp = Corp::new();
    let setup = corp.serving().env("STOA_SERVER_ADMIN_LISTEN", "127.0.0.1:0");
    corp.internet.host(GIT).fault("/r/*", Fault::hang());
    let stoa = setup.start();
    let admin = admin_url(&stoa);
    let asking = tokio::spawn(client().get(format!("{}/{GIT}/lib/@v/list", stoa.url)).send());
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = stoa.send(client().get(format!("{admin}/-/inflight"))).await;
        if text.text().contains("runs git ls-remote (git)") {
            break;
        }
        assert!(Instant::now() < until, "{}", text.text());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    asking.abort();
}

#[tokio::test]
async fn private_names_are_for_the_pages_own_listener_and_the_command_socket() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*/list", Fault::gate(&gate));
    let route = format!(
        "[[route]]\npattern = \"ex.com/private\"\ngoproxy = \"{}\"\n",
        world.upstream.url()
    );
    let setup = patient(world.setup()).env("STOA_GOPRIVATE", "ex.com/private");
    let setup = crate::direct_world::settings(setup, route);
    let stoa = setup.start();
    let private = |wait: &Waiting| wait.private && wait.stages.iter().any(|it| it.stage == "http");
    let (_asked, wait) = waiting(&stoa, &["ex.com/private/@v/list"], private).await;
    assert_eq!((wait.asked.as_str(), at(&wait, "http")), ("(private)", Some("(private)")));
    for page in ["-/inflight", "-/inflight?format=json"] {
        let text = stoa.get(page).await;
        assert!(!text.text().contains("ex.com"), "{}", text.text());
        assert!(!text.text().contains(&world.upstream.address().to_string()), "{}", text.text());
    }
    let socket = setup.data_dir().join("stoa.sock");
    let (code, body) = get_over(&socket, "/-/inflight?format=json").await.unwrap();
    let shown: InFlight = serde_json::from_str(&body).unwrap();
    assert_eq!((code, shown.waits[0].asked.as_str()), (200, "ex.com/private (list of versions)"));
    drop(stoa);

    let setup = setup.env("STOA_SERVER_ADMIN_LISTEN", "127.0.0.1:0");
    let stoa = setup.start();
    let admin = admin_url(&stoa);
    let asked = tokio::spawn(client().get(format!("{}/ex.com/private/@v/list", stoa.url)).send());
    gate.wait_for_held(1).await;
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let text = stoa.send(client().get(format!("{admin}/-/inflight"))).await;
        if text.text().contains("ex.com/private (list of versions)") {
            break;
        }
        assert!(Instant::now() < until, "{}", text.text());
    }
    stoa.get("-/inflight").await.refused(404, "this server's pages are at another address");
    asked.abort();
}

#[tokio::test]
async fn a_long_wait_is_logged_once_for_all_who_wait() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.info", Fault::gate(&gate));
    let stoa = patient(world.setup()).start();
    let info = format!("{BASE}.info");
    let is_request = |wait: &Waiting| wait.kind == "request";
    let (asked, _) = waiting(&stoa, &[&info, &info, &info], is_request).await;
    let source = world.upstream.address();
    let words = format!("still waiting after 5 s: asks {source} (http)");
    let line = logged(&stoa, &[&words]).await;
    assert!(line.contains(&format!("upstream.host=\"{source}\"")), "{line}");
    for field in [
        "INFO",
        "waiting=3",
        "stage=\"http\"",
        "request_id=",
        "module.path=\"ex.com/lib\"",
        "module.version=\"v1.0.0\"",
    ] {
        assert!(line.contains(field), "{field} is not in {line}");
    }
    // Whoever comes later, and waits as long, adds none.
    let (more, _) = waiting(&stoa, &[&info], is_request).await;
    tokio::time::sleep(Duration::from_millis(5500)).await;
    assert_eq!(stoa.log().matches("still waiting after").count(), 1, "{}", stoa.log());
    gate.open();
    for reply in asked.join_all().await.into_iter().chain(more.join_all().await) {
        assert_eq!(reply.unwrap().status(), 200);
    }
}

/// By name, in milliseconds.
fn timing(reply: &Reply) -> Vec<(String, f64)> {
    let value = reply.header("server-timing");
    assert!(value.len() <= 300, "{value}");
    let part = |part: &str| {
        let (name, duration) = part.split_once(";dur=").expect("a name and a duration");
        (name.to_owned(), duration.parse().expect("milliseconds"))
    };
    value.split(", ").filter(|value| !value.is_empty()).map(part).collect()
}

#[tokio::test]
async fn a_miss_says_what_it_has_spent_where_and_a_hit_does_not() {
    let world = World::new();
    let stoa = world.setup().start();
    for file in ["mod", "zip"] {
        let path = format!("{BASE}.{file}");
        let miss = stoa.get(&path).await;
        let told = timing(&miss);
        let of = |name: &str| told.iter().find(|(had, _)| had == name).map(|(_, time)| *time);
        let total = of("total").unwrap_or_else(|| panic!("{miss:?}"));
        let names = ["http", "verify", "commit"];
        assert!(names.iter().all(|name| of(name).is_some_and(|time| time <= total)), "{told:?}");
        assert_eq!(told.last().unwrap().0, "total");
        for _ in 0..3 {
            assert_eq!(timing(&stoa.get(&path).await), []);
        }
    }
    world.upstream.fault("*/list", Fault::hang());
    let refused = bounded(stoa.get("ex.com/old/@v/list")).await;
    refused.refused(504, &format!("{}: http: timeout after 2 s", world.upstream.address()));
    let told = timing(&refused);
    assert!(told.iter().any(|(name, time)| name == "http" && *time > 1900.0), "{told:?}");
    assert_eq!(timing(&stoa.get("healthz").await), []);
}
