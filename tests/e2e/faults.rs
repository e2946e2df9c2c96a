//! What an upstream or a checksum database can do wrong: the class of the answer, its bound in time, and what is in the
//! store afterwards.

use std::time::{Duration, Instant};

use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Gate, Misbehaviour};

use crate::fixtures::{BASE, BOUNDED, World, bounded, client, modules};

/// Asks once under the fault, then offline for what was kept of it, then again without the fault.
async fn check(file: &str, fault: Fault, status: u16, words: &str) {
    let world = World::new();
    let path = format!("{BASE}.{file}");
    world.upstream.fault(format!("/{path}"), fault);
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "2");
    let stoa = setup.start();
    let reply = bounded(stoa.get(&path)).await;
    reply.refused(status, words);
    assert_eq!(reply.header("cache-control") == "no-store", status != 404, "{path} {status}");
    stoa.stop();
    let offline = setup.clone().offline().start();
    offline.get(&path).await.refused(404, "offline, not stored");
    offline.stop();
    world.upstream.clear_faults();
    setup.start().get(&path).await.ok();
}

#[tokio::test]
async fn an_upstreams_statuses() {
    check(
        "zip",
        Fault::status(404).text("not found: unknown revision v1.0.0"),
        404,
        "unknown revision",
    )
    .await;
    check("mod", Fault::status(410).text("gone"), 404, "gone").await;
    check("zip", Fault::status(403).text("this module is blocked"), 403, "this module is blocked")
        .await;
    check("info", Fault::status(401).text("who are you?"), 403, "who are you?").await;
    check("mod", Fault::status(500).text("boom"), 502, "boom").await;
    check("zip", Fault::status(204), 502, "204").await;
}

#[tokio::test]
async fn a_busy_upstream_says_when_to_come_back() {
    let world = World::new();
    world.upstream.fault("*.zip", Fault::status(429).retry_after(77));
    let stoa = world.setup().start();
    let reply = bounded(stoa.get(&format!("{BASE}.zip"))).await;
    reply.refused(503, "429");
    assert_eq!(reply.header("retry-after"), "77");
}

#[tokio::test]
async fn an_upstream_that_hangs() {
    check("zip", Fault::hang(), 504, "timeout").await;
    check("mod", Fault::hang(), 504, "timeout").await;
    check("zip", Fault::hang_after(50), 504, "stalled").await;
}

#[tokio::test]
async fn bodies_that_break_off_or_lie() {
    check("zip", Fault::truncate(100), 502, "").await;
    check("zip", Fault::reset_after(100), 502, "").await;
    check("zip", Fault::reset(), 502, "").await;
    check("zip", Fault::close(), 502, "").await;
    check("zip", Fault::cut_chunked(100), 502, "").await;
    check("zip", Fault::raw(&b"SSH-2.0-OpenSSH_9.2\r\n"[..]), 502, "").await;
    check("zip", Fault::replace("<html>welcome to our hotel</html>"), 502, "not a module zip")
        .await;
    check("mod", Fault::replace("<html>welcome to our hotel</html>"), 502, "not a go.mod").await;
    check("info", Fault::replace("<html>welcome to our hotel</html>"), 502, "").await;
    check("info", Fault::version("v1.0.9"), 502, "v1.0.9").await;
}

#[tokio::test]
async fn a_flipped_byte_is_refused_with_both_hashes() {
    let honest = modules();
    check("mod", Fault::flip_byte(25), 403, &honest.go_mod_h1("ex.com/lib@v1.0.0").to_string())
        .await;
    // A byte of a zip's data breaks its CRC before any hash is compared.
    check("zip", Fault::flip_byte(70), 502, "not a module zip").await;
    let other = honest.zip("ex.com/lib@v1.1.0").to_vec();
    check("zip", Fault::replace(other), 502, "not a module zip").await;
    let forged = stoa_testkit::zip_of([
        ("ex.com/lib@v1.0.0/go.mod", "module ex.com/lib\n\ngo 1.21\n"),
        ("ex.com/lib@v1.0.0/lib.go", "package lib\n\nfunc Name() string { return \"evil\" }\n"),
    ]);
    check(
        "zip",
        Fault::replace(forged.clone()),
        403,
        &honest.zip_h1("ex.com/lib@v1.0.0").to_string(),
    )
    .await;

    // The evidence is kept apart, bounded, and never under a cache name; the log cries.
    let world = World::new();
    world.upstream.fault("*.zip", Fault::replace(forged.clone()));
    let setup = world.setup();
    let stoa = setup.start();
    let zip = format!("{BASE}.zip");
    stoa.get(&zip).await.refused(403, "checksum mismatch");
    // The verdict is remembered: an https client asks twice.
    stoa.get(&zip).await.refused(403, "checksum mismatch");
    assert_eq!(world.upstream.count(format!("/{zip}")), 1);
    let (_, log) = stoa.stop();
    assert!(log.contains("SECURITY: checksum mismatch"), "{log}");
    let kept: Vec<_> =
        fs_err::read_dir(setup.data_dir().join("quarantine")).unwrap().flatten().collect();
    let holds =
        |entry: &fs_err::DirEntry| fs_err::read(entry.path()).is_ok_and(|body| body == forged);
    assert!(kept.iter().any(holds), "{kept:?}");
}

/// A server over an upstream whose database misbehaves.
async fn under(sumdb: &FakeSumdb, misbehave: impl FnOnce(&FakeUpstream), status: u16, words: &str) {
    let world = World::new();
    let upstream = FakeUpstream::start(modules()).with_sumdb(sumdb);
    misbehave(&upstream);
    let setup = world.setup().goproxy(upstream.url());
    let stoa = setup.start();
    bounded(stoa.get(&format!("{BASE}.mod"))).await.refused(status, words);
    // The database's own host has no address, which is known by now, and when it will be looked for again.
    let again = if status == 502 { 503 } else { status };
    bounded(stoa.get(&format!("{BASE}.zip"))).await.refused(again, words);
    // What is not covered is not held back, and nothing that is was kept.
    stoa.get(&format!("{BASE}.info")).await.ok();
    stoa.stop();
    let offline = setup.offline().start();
    offline.get(&format!("{BASE}.mod")).await.refused(404, "offline, not stored");
}

#[tokio::test]
async fn a_database_that_fails_vouches_for_nothing() {
    let sumdb = || World::new().sumdb;
    let empty = FakeSumdb::new("sum.test.example", &stoa_testkit::Modules::default());
    empty.append_filler(5);
    under(&empty, |_| {}, 404, "GOPRIVATE").await;
    // The proxy passes the database on and fails; the database itself (a name that does not resolve) does too.
    under(&sumdb(), |up| up.fault("*/lookup/*", Fault::status(500)), 502, "cannot be reached")
        .await;
    under(&sumdb(), |up| up.fault("*/lookup/*", Fault::status(403)), 502, "cannot be reached")
        .await;
    under(&sumdb(), |up| up.fault("*/supported", Fault::status(404)), 502, "cannot be reached")
        .await;
    let slow = |up: &FakeUpstream| up.fault("*/lookup/*", Fault::hang());
    let world = World::new();
    slow(&world.upstream);
    let stoa = world.setup().start();
    let reply = bounded(stoa.get(&format!("{BASE}.mod"))).await;
    assert!(matches!(reply.status.as_u16(), 502 | 504), "{}", reply.text());
}

#[tokio::test]
async fn a_database_that_lies_is_not_believed() {
    let lying = World::new().sumdb;
    lying.misbehave(Misbehaviour::BadSignature);
    under(&lying, |_| {}, 502, "").await;
    let lying = World::new().sumdb;
    lying.misbehave(Misbehaviour::AlteredRecords);
    under(&lying, |_| {}, 502, "").await;
    let honest = World::new().sumdb;
    under(&honest, |up| up.fault("*/tile/*", Fault::flip_byte(3)), 502, "").await;
    under(&honest, |up| up.fault("*/tile/*", Fault::truncate(16)), 502, "").await;
    under(&honest, |up| up.fault("*/lookup/*", Fault::replace("hello")), 502, "").await;
}

#[tokio::test]
async fn a_forked_tree_is_a_security_error_and_is_not_retried_into_success() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    // Now the server knows the honest tree.
    stoa.get("ex.com/lib/@v/v1.1.0.mod").await.ok();
    let tile = format!("sumdb/{}/tile/8/0/000", world.sumdb.name());
    let honest_tile = stoa.get(&tile).await.ok();
    let fork = world.sumdb.fork(40);
    fork.append_filler(500);
    world.upstream.set_sumdb(&fork);
    world.upstream.forget_requests();
    let path = format!("{BASE}.mod");
    let reply = bounded(stoa.get(&path)).await;
    reply.refused(403, "SECURITY ERROR");
    assert_eq!(
        world.upstream.count("*/lookup/ex.com/lib@v1.0.0"),
        1,
        "a fork was asked about again"
    );
    let latest = stoa.get(&format!("sumdb/{}/latest", world.sumdb.name())).await;
    latest.refused(403, "SECURITY ERROR");
    // Nothing of the fork was kept, and asking again does not help while the evidence is fresh.
    assert_eq!(stoa.get(&tile).await.ok(), honest_tile);
    world.upstream.set_sumdb(&world.sumdb);
    let lookup = format!("sumdb/{}/lookup/ex.com/lib@v1.0.0", world.sumdb.name());
    stoa.get(&lookup).await.refused(403, "SECURITY ERROR");
    world.upstream.set_sumdb(&fork);
    let (_, log) = stoa.stop();
    assert!(log.contains("SECURITY: the checksum database has signed two trees"), "{log}");
    // The head survives a restart: the fork is still none of ours.
    let again = setup.start();
    again.get(&path).await.refused(403, "SECURITY ERROR");
}

#[tokio::test]
async fn an_older_head_is_no_fork_and_no_rollback() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get("ex.com/lib/@v/v1.1.0.mod").await.ok();
    let name = world.sumdb.name();
    let head = stoa.get(&format!("sumdb/{name}/latest")).await.ok();
    // A proxy that lags behind: consistent, so it is believed, but our head stays.
    world.sumdb.serve_lookups_at(20);
    world.sumdb.serve_latest_at(20);
    stoa.get(&format!("{BASE}.mod")).await.ok();
    assert_eq!(stoa.get(&format!("sumdb/{name}/latest")).await.ok(), head);
}

#[tokio::test]
async fn a_lost_info_may_come_back_with_more_in_it() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let info = format!("{BASE}.info");
    stoa.get(&info).await.ok();
    stoa.stop();
    fs_err::remove_file(setup.data_dir().join("cache/download").join(&info)).unwrap();
    let richer = r#"{"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z","Origin":{"VCS":"git"}}"#;
    world.upstream.fault(format!("/{info}"), Fault::replace(richer));
    assert_eq!(setup.start().get(&info).await.text(), richer);
}

#[tokio::test]
async fn one_dead_source_takes_only_its_own_places() {
    let world = World::new();
    let dead = FakeUpstream::start(modules());
    dead.fault("*", Fault::hang());
    let setup = world.setup().env("STOA_UPSTREAM_MAX_CONCURRENT", "2");
    let setup = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "15s");
    let toml = format!("[[route]]\npattern = \"ex.com/dead\"\ngoproxy = \"{}\"\n", dead.url());
    fs_err::write(setup.scratch().join("stoa.toml"), toml).unwrap();
    let stoa = setup.start();
    let mut waiting = tokio::task::JoinSet::new();
    for n in 0..20 {
        waiting.spawn(client().get(format!("{}/ex.com/dead/m{n}/@v/list", stoa.url)).send());
    }
    dead.wait_for_requests("*", 2).await;
    let started = Instant::now();
    stoa.get(&format!("{BASE}.zip")).await.ok();
    stoa.get("ex.com/lib/@v/list").await.ok();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_source_is_asked_for_so_many_files_at_once_and_no_more() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.info", Fault::gate(&gate));
    let setup = world.setup().env("STOA_UPSTREAM_MAX_CONCURRENT", "2");
    let stoa = setup.env("STOA_UPSTREAM_FILE_TIMEOUT", "20s").start();
    let mut waiting = tokio::task::JoinSet::new();
    let versions = ["v1.0.0", "v1.1.0", "v1.2.0-rc.1", "v1.1.1-0.20240102030405-0123456789ab"];
    for version in versions {
        waiting.spawn(client().get(format!("{}/ex.com/lib/@v/{version}.info", stoa.url)).send());
    }
    gate.wait_for_held(2).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.upstream.count("*.info"), 2);
    gate.open();
    while let Some(reply) = waiting.join_next().await {
        assert_eq!(reply.unwrap().unwrap().status(), 200);
    }
    assert_eq!(world.upstream.count("*.info"), versions.len());
}

#[tokio::test]
async fn an_outage_does_not_break_a_build_of_what_is_stored() {
    let mut world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1").env("STOA_CACHE_LIST_TTL", "0s");
    let stoa = setup.start();
    for file in ["v1.0.0.zip", "v1.0.0.mod", "v1.0.0.info", "v1.1.0.mod"] {
        stoa.get(&format!("ex.com/lib/@v/{file}")).await.ok();
    }
    world.upstream.stop();
    // The go command probes every prefix of a package's path; only a 404 lets it go on.
    stoa.get("ex.com/lib/sub/@v/list").await.refused(404, "which has ex.com/lib");
    stoa.get("ex.com/lib/sub/@latest").await.refused(404, "which has ex.com/lib");
    stoa.get("ex.com/lib/sub/@v/main.info").await.refused(404, "which has ex.com/lib");
    stoa.get("ex.com/other/@v/list").await.refused(503, "not asked: connect: connection refused");
    assert_eq!(stoa.get("ex.com/lib/@v/list").await.text(), "v1.0.0\n");
    let latest = stoa.get("ex.com/lib/@latest").await;
    assert_eq!(latest.header("cache-control"), "no-cache");
    assert!(latest.header("warning").starts_with("110"));
    assert!(latest.text().contains("v1.0.0"), "{}", latest.text());
    let made = stoa.get("ex.com/lib/@v/v1.1.0.info").await;
    assert_eq!(made.text(), r#"{"Version":"v1.1.0"}"#);
}

#[tokio::test]
async fn a_zip_without_its_small_files_gets_them_at_the_next_chance() {
    let world = World::new();
    world.upstream.fault("*.info", Fault::status(403));
    world.upstream.fault("*.mod", Fault::status(403));
    let setup = world.setup();
    let stoa = setup.start();
    let zip = format!("{BASE}.zip");
    stoa.get(&zip).await.ok();
    world.upstream.wait_for_request(format!("/{BASE}.mod")).await;
    world.upstream.wait_for_request(format!("/{BASE}.info")).await;
    world.upstream.clear_faults();
    world.upstream.forget_requests();
    // A hit is another chance, a few seconds after the last.
    let fetched = async {
        while world.upstream.count("*.mod") == 0 || world.upstream.count("*.info") == 0 {
            stoa.get(&zip).await.ok();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(BOUNDED * 2, fetched).await.expect("they are fetched");
}

#[tokio::test]
async fn a_login_page_does_not_replace_a_list() {
    let world = World::new();
    let setup = world.setup().env("STOA_CACHE_LIST_TTL", "0s");
    let stoa = setup.start();
    let list = stoa.get("ex.com/lib/@v/list").await.ok();
    world.upstream.fault("*/list", Fault::replace("<html>\nplease log in\n</html>\n"));
    let kept = stoa.get("ex.com/lib/@v/list").await;
    assert!(kept.header("warning").starts_with("110"));
    assert_eq!(kept.ok(), list);
    stoa.get("ex.com/none/@v/list").await.refused(502, "something else than a list");
}

#[tokio::test]
async fn a_small_body_that_drips_is_given_up() {
    let world = World::new();
    let long = "v1.0.0\n".repeat(20_000);
    world
        .upstream
        .fault("*/list", Fault::replace(long).with(Fault::drip(4_200, Duration::from_millis(500))));
    let stoa = world.setup().env("STOA_UPSTREAM_TRIES", "1").start();
    bounded(stoa.get("ex.com/lib/@v/list")).await.refused(504, "timeout");
}

#[tokio::test]
async fn a_query_that_reads_like_a_file_does_not_hide_it() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get("ex.com/lib/@v/v1.0.0%20.zip.info").await.refused(404, "not found");
    stoa.get(&format!("{BASE}.zip")).await.ok();
}

/// What an upstream sends beyond the length it has announced is a whole answer in itself; it must not become the one to
/// whatever is asked next over the same connection.
#[tokio::test]
async fn what_is_too_much_is_not_the_next_answer() {
    let world = World::new();
    let list = "v1.0.0\nv1.1.0\n";
    let evil = r#"{"Version":"v1.0.0","Time":"1999-01-01T00:00:00Z"}"#;
    let poison = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{evil}", evil.len());
    let lie =
        Fault::replace(format!("{list}{poison}")).header("Content-Length", list.len().to_string());
    world.upstream.fault("*/list", lie);
    let setup = world.setup().env("STOA_CACHE_LIST_TTL", "0s");
    let stoa = setup.start();
    for version in ["v1.0.0", "v1.1.0", "v1.2.0-rc.1"] {
        assert!(stoa.get("ex.com/lib/@v/list").await.text().starts_with(list));
        let info = stoa.get(&format!("ex.com/lib/@v/{version}.info")).await;
        assert_eq!(info.text(), modules().info(&format!("ex.com/lib@{version}")));
    }
}
