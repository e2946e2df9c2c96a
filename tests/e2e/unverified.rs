//! What goes out while the checksum database cannot be asked: nothing, or what is verified later.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Go, Modules, require_go};

use crate::fixtures::{BASE, Reply, World, bounded, modules};
use crate::stoa::{Setup, Stoa};

const MOD: &str = "ex.com/lib/@v/v1.0.0.mod";
const ZIP: &str = "ex.com/lib/@v/v1.0.0.zip";
const OTHER: &str = "ex.com/lib/@v/v1.1.0.mod";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";

fn serve(setup: Setup) -> Setup {
    setup.env("STOA_SUMDB_ON_UNREACHABLE", "serve").env("STOA_SUMDB_SERVE_AFTER", "300ms")
}

fn world() -> (World, Setup) {
    let world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_PROBE_PAUSE", "100ms");
    (world, setup)
}

fn down(world: &World) {
    world.upstream.fault("/sumdb/*", Fault::status(503));
}

/// Waits until the answer is one that is told to be.
async fn until(stoa: &Stoa, path: &str, expected: impl Fn(&Reply) -> bool) -> Reply {
    let began = Instant::now();
    loop {
        let reply = stoa.get(path).await;
        if expected(&reply) {
            return reply;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{path}: {reply:?}\n{}", stoa.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_verified(reply: &Reply) -> bool {
    reply.header("cache-control") == IMMUTABLE
}

#[track_caller]
fn is_unverified(reply: &Reply) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.header("warning").contains("not yet compared"), "{reply:?}");
}

/// What a `file://` client finds of the version.
fn exported(setup: &Setup) -> Vec<&'static str> {
    let dir = setup.data_dir().join("cache/download/ex.com/lib/@v");
    let is_listed = |name: &&str| match *name {
        "list" => fs_err::read_to_string(dir.join("list")).is_ok_and(|it| it.contains("v1.0.0\n")),
        extension => dir.join(format!("v1.0.0.{extension}")).exists(),
    };
    ["mod", "zip", "ziphash", "list"].into_iter().filter(is_listed).collect()
}

fn quarantined(setup: &Setup) -> Vec<PathBuf> {
    let entries = fs_err::read_dir(setup.data_dir().join("quarantine")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|it| it != "json")).collect()
}

async fn waiting(setup: &Setup) -> serde_json::Value {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let socket = setup.data_dir().join("stoa.sock");
    let mut stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let request = b"GET /-/status HTTP/1.1\r\nhost: stoa\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<serde_json::Value>(body).unwrap()["unverified"].clone()
}

#[tokio::test]
async fn by_default_it_is_refused() {
    let (world, setup) = world();
    down(&world);
    let stoa = setup.start();
    for path in [ZIP, MOD] {
        let refused = stoa.get(path).await;
        assert!(refused.status.is_server_error(), "{}", refused.text());
        assert!(refused.text().contains("cannot be reached, so it is not handed out"));
    }
    assert_eq!(stoa.get(&format!("{BASE}.info")).await.status, 200);
    assert_eq!(exported(&setup), Vec::<&str>::new());
    world.upstream.clear_faults();
    until(&stoa, ZIP, is_verified).await;
}

#[tokio::test]
async fn a_silent_database_is_waited_for_within_bounds_and_named() {
    let (world, setup) = world();
    world.upstream.fault("*/lookup/*", Fault::hang());
    let setup = setup.goproxy(format!("{},direct", world.upstream.url()));
    let stoa = setup.start();
    let began = Instant::now();
    let refused = bounded(stoa.get(ZIP)).await;
    // One road with the whole of sumdb.timeout, and then a name that does not resolve.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(refused.status.is_server_error(), "{}", refused.text());
    let text = refused.text();
    let host = world.upstream.url().trim_start_matches("http://").to_owned();
    let line = text.lines().find(|line| line.contains(&host)).expect("the source is named");
    assert!(line.contains("timeout after"), "{text}");
    assert!(text.contains("sum.test.example"), "{text}");
}

#[tokio::test]
async fn it_goes_out_unverified_and_is_verified_after_a_restart() {
    let (world, setup) = world();
    down(&world);
    let setup = serve(setup);
    let stoa = setup.start();
    let zip = stoa.get(ZIP).await;
    is_unverified(&zip);
    let zip = zip.ok();
    assert!(zip == modules().zip("ex.com/lib@v1.0.0"));
    is_unverified(&stoa.get(MOD).await);
    assert!(is_verified(&stoa.get(&format!("{BASE}.info")).await));
    assert_eq!(exported(&setup), Vec::<&str>::new());
    let log = stoa.log();
    assert_eq!(log.matches("this version is handed out unverified").count(), 1, "{log}");

    // A hit is one: it waits for nobody and asks nobody for the module.
    world.upstream.forget_requests();
    let hit = stoa.get_with(ZIP, &[("range", "bytes=0-3")]).await;
    assert_eq!((hit.status.as_u16(), hit.header("cache-control")), (206, "no-store"));
    assert!(hit.body == zip[..4]);
    is_unverified(&stoa.head(MOD).await);
    assert_eq!(world.upstream.count("/ex.com/*"), 0);
    assert_eq!(waiting(&setup).await, 2);
    stoa.stop();

    // Still unreachable, and after a stop that was not clean.
    let mut stoa = setup.start();
    is_unverified(&stoa.get(ZIP).await);
    stoa.kill();
    world.upstream.clear_faults();
    world.upstream.forget_requests();
    let stoa = setup.start();
    // Nobody asks for it, and it is verified.
    world.upstream.wait_for_request("*/lookup/ex.com/lib@v1.0.0").await;
    let verified = until(&stoa, ZIP, is_verified).await;
    assert_eq!(verified.header("warning"), "");
    assert!(verified.ok() == zip);
    until(&stoa, MOD, is_verified).await;
    assert_eq!(exported(&setup), ["mod", "zip", "ziphash", "list"]);
    assert_eq!(world.upstream.count("/ex.com/*"), 0);
    assert_eq!(waiting(&setup).await, 0);
}

#[tokio::test]
async fn an_answer_to_somebody_else_has_the_others_verified() {
    let (world, setup) = world();
    down(&world);
    let stoa = serve(setup).start();
    is_unverified(&stoa.get(MOD).await);
    world.upstream.clear_faults();
    // The breaker may still be open for a moment.
    until(&stoa, OTHER, |reply| reply.status == 200).await;
    until(&stoa, "ex.com/old/@v/v2.0.0+incompatible.mod", is_verified).await;
    until(&stoa, MOD, is_verified).await;
    until(&stoa, OTHER, is_verified).await;
}

#[tokio::test]
async fn a_silent_database_costs_a_moment() {
    let (world, setup) = world();
    world.upstream.fault("*/lookup/*", Fault::hang());
    let stoa = serve(setup.env("STOA_SUMDB_TIMEOUT", "60s")).start();
    for path in [MOD, ZIP, OTHER, "ex.com/old/@v/v2.0.0+incompatible.zip"] {
        let began = Instant::now();
        is_unverified(&stoa.get(path).await);
        assert!(began.elapsed() < Duration::from_secs(2), "{path}: {:?}", began.elapsed());
    }
    // Hits do not even wait that long.
    for path in [MOD, ZIP, OTHER] {
        let began = Instant::now();
        is_unverified(&stoa.get(path).await);
        assert!(began.elapsed() < Duration::from_millis(200), "{path}: {:?}", began.elapsed());
    }
}

/// A database with a record of other content than the upstream has.
fn liar() -> (World, Setup) {
    let (world, setup) = world();
    let other = "-- ex.com/lib@v1.0.0/go.mod --\nmodule ex.com/lib\n\ngo 1.21\n\
                 -- ex.com/lib@v1.0.0/lib.go --\npackage lib\n\nfunc Name() string { return \"evil\" }\n";
    world.upstream.publish(Modules::parse(other));
    (world, setup)
}

#[tokio::test]
async fn what_is_contradicted_later_goes_to_quarantine_at_once() {
    let (world, setup) = liar();
    down(&world);
    let setup = serve(setup);
    let stoa = setup.start();
    for path in [ZIP, MOD] {
        is_unverified(&stoa.get(path).await);
    }
    stoa.stop();
    world.upstream.clear_faults();
    let stoa = setup.start();
    // The upstream goes on lying, and now it is noticed before anything goes out.
    until(&stoa, ZIP, |reply| reply.status == 403).await.refused(403, "checksum mismatch");
    let log = stoa.log();
    let line = log.lines().find(|line| line.contains("SECURITY") && line.contains("quarantine"));
    let line = line.unwrap_or_else(|| panic!("no alarm in {log}"));
    assert_eq!(line.matches("h1:").count(), 2, "{line}");
    // Its .mod was right all the time.
    until(&stoa, MOD, is_verified).await;
    assert_eq!(exported(&setup), ["mod", "list"]);
    assert!(!quarantined(&setup).is_empty());
    // The right one may come.
    let right = modules();
    world.upstream.publish(right.clone());
    let honest = until(&stoa_anew(stoa, &setup), ZIP, is_verified).await;
    assert!(honest.ok() == right.zip("ex.com/lib@v1.0.0"));
}

fn stoa_anew(stoa: Stoa, setup: &Setup) -> Stoa {
    stoa.stop();
    setup.start()
}

#[tokio::test]
async fn what_has_no_record_goes_to_quarantine() {
    let sumdb = FakeSumdb::new("sum.test.example", &Modules::default());
    sumdb.append_filler(10);
    let upstream = FakeUpstream::start(modules()).with_sumdb(&sumdb);
    let world = World { upstream, sumdb };
    let setup = serve(world.setup().env("STOA_UPSTREAM_PROBE_PAUSE", "100ms"));
    down(&world);
    let stoa = setup.start();
    is_unverified(&stoa.get(ZIP).await);
    stoa.stop();
    world.upstream.clear_faults();
    let stoa = setup.start();
    until(&stoa, ZIP, |reply| reply.status == 404).await.refused(404, "no record");
    let began = Instant::now();
    while quarantined(&setup).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", stoa.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn only_an_outage_opens_the_door() {
    // No record.
    let (world, setup) = world();
    world.upstream.fault("*/lookup/*", Fault::status(404));
    let stoa = serve(setup).start();
    stoa.get(MOD).await.refused(404, "no record");
    // Other content.
    let (_world, setup) = liar();
    let stoa = serve(setup).start();
    stoa.get(ZIP).await.refused(403, "checksum mismatch");
    // What proves nothing.
    let (world, setup) = self::world();
    world.upstream.fault("*/tile/*", Fault::flip_byte(1));
    let stoa = serve(setup.goproxy(world.upstream.url())).start();
    let refused = stoa.get(MOD).await;
    assert!(refused.status.is_server_error(), "{}", refused.text());
    // A history that is not the one known.
    let (world, setup) = self::world();
    let stoa = serve(setup).start();
    stoa.get(MOD).await.ok();
    world.upstream.set_sumdb(&world.sumdb.fork(100));
    stoa.get(OTHER).await.refused(403, "SECURITY ERROR");
}

#[tokio::test]
async fn a_toolchain_is_never_unverified() {
    let toolchain = "-- golang.org/toolchain@v0.0.1-go1.21.0.linux-amd64/go.mod --\n\
                     module golang.org/toolchain\n";
    let toolchain = Modules::parse(toolchain);
    let sumdb = FakeSumdb::new("sum.test.example", &toolchain);
    let upstream = FakeUpstream::start(toolchain).with_sumdb(&sumdb);
    let world = World { upstream, sumdb };
    down(&world);
    let stoa = serve(world.setup()).start();
    for file in ["mod", "zip"] {
        let path = format!("golang.org/toolchain/@v/v0.0.1-go1.21.0.linux-amd64.{file}");
        let refused = stoa.get(&path).await;
        assert!(refused.status.is_server_error(), "{path}: {}", refused.text());
    }
}

#[tokio::test]
async fn back_to_refuse_it_is_looked_up_before_it_goes_out() {
    let (world, setup) = world();
    down(&world);
    let stoa = serve(setup.clone()).start();
    is_unverified(&stoa.get(MOD).await);
    stoa.stop();
    let stoa = setup.start();
    let refused = stoa.get(MOD).await;
    assert!(refused.status.is_server_error(), "{}", refused.text());
    world.upstream.clear_faults();
    world.upstream.forget_requests();
    until(&stoa, MOD, is_verified).await;
    assert_eq!(world.upstream.count("/ex.com/*"), 0);
}

/// Nothing can be written into the data directory from now on.
fn unwritable(setup: &Setup) {
    let dir = setup.data_dir().join("cache/tmp");
    fs_err::remove_dir_all(&dir).unwrap();
    fs_err::write(dir, "no directory").unwrap();
}

#[tokio::test]
async fn what_is_verified_goes_out_though_the_disk_does_not_take_the_word() {
    let (world, setup) = world();
    down(&world);
    let stoa = serve(setup.clone()).start();
    is_unverified(&stoa.get(ZIP).await);
    stoa.stop();
    world.upstream.clear_faults();
    let stoa = setup.start();
    unwritable(&setup);
    let reply = until(&stoa, ZIP, |reply| reply.status != 502).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn a_disk_that_does_not_take_the_word_is_no_reason_to_ask_all_the_time() {
    let (world, setup) = world();
    down(&world);
    let stoa = serve(setup.clone()).start();
    is_unverified(&stoa.get(MOD).await);
    unwritable(&setup);
    world.upstream.clear_faults();
    world.upstream.forget_requests();
    // An answer to somebody else has it compared.
    let compared = "/sumdb/*/lookup/ex.com/lib@v1.0.0";
    let began = Instant::now();
    while world.upstream.count(compared) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "{}", stoa.log());
        stoa.get(OTHER).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // That answer was heard twice at most, a second apart. After it there is a pause, although it is asked for.
    for window in [2, 2] {
        world.upstream.forget_requests();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(window) {
            is_unverified(&stoa.get(MOD).await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(world.upstream.count(compared), 0, "{}", stoa.log());
}

#[tokio::test]
async fn offline_it_goes_out_by_the_same_setting() {
    let (world, setup) = world();
    down(&world);
    let serving = serve(setup.clone());
    let stoa = serving.start();
    is_unverified(&stoa.get(MOD).await);
    stoa.stop();
    let stoa = serving.offline().start();
    is_unverified(&stoa.get(MOD).await);
    assert_eq!(stoa.get("ex.com/lib/@v/list").await.text(), "v1.0.0\n");
    stoa.stop();
    let stoa = setup.clone().offline().start();
    stoa.get(MOD).await.refused(404, "never compared");
    stoa.get("ex.com/lib/@v/list").await.refused(404, "offline");
    assert!(quarantined(&setup).is_empty());
}

#[tokio::test]
async fn what_is_exempt_by_now_is_asked_of_nobody() {
    let (world, setup) = world();
    down(&world);
    let setup = serve(setup);
    let stoa = setup.start();
    is_unverified(&stoa.get(MOD).await);
    stoa.stop();
    world.upstream.clear_faults();
    world.upstream.forget_requests();
    let stoa = setup.clone().env("STOA_GONOSUMDB", "ex.com/*").start();
    let exempt = stoa.get(MOD).await;
    assert_eq!(exempt.header("cache-control"), "private, max-age=31536000, immutable");
    let began = Instant::now();
    while exported(&setup).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", stoa.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.upstream.count("*/lookup/*"), 0);
}

#[tokio::test]
async fn a_build_with_a_full_go_sum_goes_on_and_a_file_client_goes_without() {
    if !require_go() {
        return;
    }
    let (world, setup) = world();
    let client = |url: &str| {
        let go = Go::new().goproxy(url).gosumdb(world.sumdb.verifier_key());
        go.project("-- go.mod --\nmodule ex.com/app\n\ngo 1.21\n\nrequire ex.com/lib v1.0.0\n")
    };
    let first = setup.start();
    let online = client(&first.url);
    online.ok(["mod", "download", "all"]).await;
    let sums = online.read("go.sum");
    first.stop();

    let setup = serve(World::setup(&world).env("STOA_UPSTREAM_PROBE_PAUSE", "100ms"));
    down(&world);
    let stoa = setup.start();
    let complete = client(&stoa.url);
    complete.write("go.sum", &sums);
    complete.ok(["mod", "download", "ex.com/lib"]).await;
    // Who has no go.sum yet verifies for himself, and cannot.
    let missing = client(&stoa.url).fails(["mod", "download", "ex.com/lib"]).await;
    assert!(missing.contains("sum.test.example"), "{missing}");

    // A client that verifies nothing gets nothing of it by the directory.
    let files = format!("file://{}", setup.data_dir().join("cache/download").display());
    let trusting = client(&files).gosumdb("off");
    trusting.fails(["mod", "download", "ex.com/lib"]).await;
    stoa.stop();
    world.upstream.clear_faults();
    let stoa = setup.start();
    until(&stoa, MOD, is_verified).await;
    until(&stoa, ZIP, is_verified).await;
    trusting.ok(["mod", "download", "ex.com/lib"]).await;
}
