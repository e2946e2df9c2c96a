//! One dead, silent or broken source costs its wait once, and is asked again when it is back.

use std::time::{Duration, Instant};

use stoa::command_socket::{Upstream, ask_status};
use stoa_testkit::{FakeUpstream, Fault};
use tokio::task::JoinSet;

use crate::fixtures::{BASE, World, bounded, client, modules};
use crate::stoa::{Setup, Stoa};

/// Less than any bound of these servers, and more than an answer from loopback takes on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(900);

/// Suspects a host after half of a second, and probes it when it is found dead.
fn keen(setup: Setup) -> Setup {
    setup
        .env("STOA_UPSTREAM_CONNECT_TIMEOUT", "400ms")
        .env("STOA_UPSTREAM_LIST_TIMEOUT", "1s")
        .env("STOA_UPSTREAM_PROBE_PAUSE", "100ms")
}

/// The first probe comes half a second or a second after the host was found dead.
fn patient(setup: Setup) -> Setup {
    keen(setup).env("STOA_UPSTREAM_PROBE_PAUSE", "1m")
}

async fn upstreams(setup: &Setup) -> Vec<Upstream> {
    ask_status(&setup.data_dir().join("stoa.sock")).await.expect("the command socket").upstreams
}

async fn breaker(setup: &Setup, of: &FakeUpstream, used_for: &str) -> Upstream {
    let host = of.address().to_string();
    let is_meant = |upstream: &Upstream| upstream.host == host && upstream.used_for == used_for;
    let all = upstreams(setup).await;
    all.iter().find(|upstream| is_meant(upstream)).cloned().unwrap_or_else(|| panic!("{all:?}"))
}

async fn closes(setup: &Setup, of: &FakeUpstream, used_for: &str) {
    let began = Instant::now();
    while breaker(setup, of, used_for).await.breaker != "closed" {
        assert!(began.elapsed() < Duration::from_secs(10), "it stays open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Asks for a list, and how long that took.
async fn list(stoa: &Stoa, module: &str) -> (u16, String, Duration) {
    let began = Instant::now();
    let reply = bounded(stoa.get(&format!("{module}/@v/list"))).await;
    (reply.status.as_u16(), reply.text().to_owned(), began.elapsed())
}

#[tokio::test]
async fn a_silent_first_upstream_costs_its_bound_once() {
    let world = World::new();
    let dead = FakeUpstream::start(modules()).with_sumdb(&world.sumdb);
    dead.fault("*", Fault::hang());
    let setup = world.setup().goproxy(format!("{}|{}", dead.url(), world.upstream.url()));
    let setup = keen(setup);
    let stoa = setup.start();
    let began = Instant::now();
    bounded(stoa.get(&format!("{BASE}.mod"))).await.ok();
    let once = began.elapsed();
    assert!(once < Duration::from_secs(1) + AT_ONCE, "{once:?}");
    let began = Instant::now();
    for path in ["ex.com/lib/@v/v1.1.0.zip", "ex.com/old/@v/list", "ex.com/other/@v/list"] {
        stoa.get(path).await;
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    // It was asked for the module, for the record, and what tells no name.
    let asked = dead.count("/") + dead.count("*/supported") + dead.count("*.mod");
    assert_eq!(dead.requests().len(), asked, "{:?}", dead.request_lines());
    assert_eq!(dead.count("*.mod"), 1);
    let Upstream { breaker: state, reason, since, .. } = breaker(&setup, &dead, "modules").await;
    assert_ne!(state, "closed");
    assert!(reason.is_some_and(|reason| reason.starts_with("no answer to anything")));
    assert!(since.is_some());
    assert_eq!(breaker(&setup, &world.upstream, "modules").await.breaker, "closed");

    dead.clear_faults();
    closes(&setup, &dead, "modules").await;
    closes(&setup, &dead, "database").await;
    dead.forget_requests();
    stoa.get("ex.com/lib/@v/v1.2.0-rc.1.mod").await.ok();
    assert_eq!(dead.count("*.mod"), 1, "the first is asked first again");
    let (_, log) = stoa.stop();
    let lines = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!(lines("WARN stoa_upstream::breaker: the upstream does not answer"), 2, "{log}");
    assert_eq!(lines("INFO stoa_upstream::breaker: the upstream answers again"), 2, "{log}");
}

#[tokio::test]
async fn a_refused_connection_fails_at_once_and_heals() {
    let mut world = World::new();
    // After a comma nobody is asked for an outage, known or not.
    let behind = FakeUpstream::start(modules());
    let chain = format!("{},{}", world.upstream.url(), behind.url());
    let setup = keen(world.setup().goproxy(chain));
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/list").await.ok();
    world.upstream.stop();
    assert_eq!(list(&stoa, "ex.com/old").await.0, 502);
    let reply = stoa.get("ex.com/pseudo/@v/list").await;
    // The probes may meet the same in other words.
    reply.refused(503, "not asked: ");
    assert_eq!(reply.header("retry-after"), "1");
    assert!(behind.requests().is_empty(), "{:?}", behind.request_lines());
    world.upstream.forget_requests();
    world.upstream.resume();
    closes(&setup, &world.upstream, "modules").await;
    assert_eq!(list(&stoa, "ex.com/pseudo").await.0, 200);
    assert_eq!(world.upstream.count("*/list"), 1);
}

#[tokio::test]
async fn one_slow_module_is_not_a_dead_host_and_three_are() {
    let world = World::new();
    for slow in ["/ex.com/lib/*", "/ex.com/old/*", "/ex.com/pseudo/*"] {
        world.upstream.fault(slow, Fault::hang());
    }
    let setup = patient(world.setup());
    let stoa = setup.start();
    for _ in 0..2 {
        assert_eq!(list(&stoa, "ex.com/lib").await.0, 504);
    }
    assert_eq!(list(&stoa, "ex.com/private").await.0, 200);
    assert_eq!(breaker(&setup, &world.upstream, "modules").await.breaker, "closed");
    let (one, two, three) = tokio::join!(
        list(&stoa, "ex.com/lib"),
        list(&stoa, "ex.com/old"),
        list(&stoa, "ex.com/pseudo")
    );
    for (status, text, took) in [one, two, three] {
        assert!(matches!(status, 503 | 504), "{text}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    let (status, text, took) = list(&stoa, "ex.com/other").await;
    assert_eq!(status, 503);
    assert!(text.contains("not asked: no answer for 3 different modules"), "{text}");
    assert!(took < AT_ONCE, "{took:?}");
}

#[tokio::test]
async fn a_dead_database_does_not_stop_modules_nor_the_other_way_round() {
    let world = World::new();
    world.upstream.fault("/sumdb/*", Fault::hang());
    let setup = patient(world.setup()).env("STOA_SUMDB_TIMEOUT", "1s");
    let stoa = setup.start();
    bounded(stoa.get(&format!("{BASE}.mod"))).await.refused(502, "cannot be reached");
    assert_ne!(breaker(&setup, &world.upstream, "database").await.breaker, "closed");
    assert_eq!(breaker(&setup, &world.upstream, "modules").await.breaker, "closed");
    stoa.get("ex.com/lib/@v/v1.1.0.info").await.ok();
    stoa.stop();

    world.upstream.clear_faults();
    world.upstream.fault("/ex.com/*", Fault::reset());
    world.upstream.fault("/", Fault::reset());
    let stoa = setup.start();
    let again = ["lib", "old", "pseudo", "lib", "old", "pseudo"];
    for module in again {
        stoa.get(&format!("ex.com/{module}/@v/v0.9.0.info")).await;
    }
    let modules = breaker(&setup, &world.upstream, "modules").await;
    assert_ne!(modules.breaker, "closed");
    let lookup = format!("sumdb/{}/lookup/ex.com/lib@v1.0.0", world.sumdb.name());
    stoa.get(&lookup).await.ok();
    assert_eq!(breaker(&setup, &world.upstream, "database").await.breaker, "closed");
}

#[tokio::test]
async fn a_run_of_5xx_is_waited_out() {
    let world = World::new();
    world.upstream.fault("/ex.com/*", Fault::status(500));
    let setup = keen(world.setup());
    let stoa = setup.start();
    // However often one module fails, the others are asked.
    for _ in 0..6 {
        assert_eq!(list(&stoa, "ex.com/lib").await.0, 502);
    }
    assert_eq!(list(&stoa, "ex.com/old").await.0, 502);
    assert_eq!(list(&stoa, "ex.com/pseudo").await.0, 502);
    let (status, text, _) = list(&stoa, "ex.com/private").await;
    assert_eq!(status, 503);
    assert!(text.contains("not asked: 8 failures in a row, the last: http 500"), "{text}");
    world.upstream.clear_faults();
    closes(&setup, &world.upstream, "modules").await;
    assert_eq!(list(&stoa, "ex.com/private").await.0, 200);
}

#[tokio::test]
async fn two_hundred_misses_on_a_silent_source_end_within_one_bound() {
    let world = World::new();
    let setup = patient(world.setup()).env("STOA_UPSTREAM_MAX_CONCURRENT", "16");
    let stoa = setup.start();
    let zip = format!("{BASE}.zip");
    for file in ["zip", "info", "mod"] {
        stoa.get(&format!("{BASE}.{file}")).await.ok();
    }
    world.upstream.fault("*", Fault::hang());
    let mut waiting = JoinSet::new();
    let client = client();
    let began = Instant::now();
    for n in 0..200 {
        waiting.spawn(client.get(format!("{}/ex.com/m{n}/@v/list", stoa.url)).send());
    }
    world.upstream.wait_for_requests("*/list", 16).await;
    let hit = Instant::now();
    stoa.get(&zip).await.ok();
    assert!(hit.elapsed() < AT_ONCE, "{:?}", hit.elapsed());
    while let Some(reply) = waiting.join_next().await {
        let status = reply.unwrap().unwrap().status().as_u16();
        assert!(matches!(status, 503 | 504), "{status}");
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(1) + AT_ONCE * 2, "{took:?}");
    // A place may become free a moment before the host is found dead, and not after.
    let asked = world.upstream.count("*/list");
    assert!(asked <= 32, "{asked}");
}
