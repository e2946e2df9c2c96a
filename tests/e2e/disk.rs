//! A disk that is full, read-only or well again, under a running server; and room that a person makes by hand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa_testkit::{FakeUpstream, Fault, Gate, Modules, require_go};

use crate::fixtures::{BASE, World, bounded, client, modules};
use crate::go::go;
use crate::listen::logged;
use crate::stoa::{Setup, Stoa};
use crate::tmpfs::Tmpfs;

const WARNING: &str = "the disk cannot be written";

/// A world whose server has its data on a disk of that size; none where that cannot be.
fn world_on(size: &str) -> Option<(World, Setup, Arc<Tmpfs>)> {
    let world = World::new();
    let setup = world.setup().on_tmpfs(size)?;
    let disk = setup.tmpfs();
    Some((world, setup, disk))
}

/// A module whose zip has so many bytes that do not compress, and a little more.
fn noisy(name: &str, bytes: usize) -> Modules {
    let mut state = bytes as u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    })
    .take(bytes)
    .collect();
    let go_mod = format!("module {name}\n").into_bytes();
    Modules::default().with(&format!("{name}@v1.0.0"), [("go.mod", go_mod), ("noise", noise)])
}

async fn ready(stoa: &Stoa, status: u16, words: &str) {
    let reply = stoa.get("readyz").await;
    assert_eq!(reply.status.as_u16(), status, "{}", reply.text());
    assert!(reply.text().contains(words), "{}", reply.text());
    assert_eq!(stoa.get("healthz").await.status, 200);
}

/// Waits until it finds out by itself that the disk is well.
async fn healed(stoa: &Stoa) {
    let until = Instant::now() + Duration::from_secs(10);
    while stoa.get("readyz").await.status != 200 {
        assert!(Instant::now() < until, "it does not heal; its log:\n{}", stoa.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(stoa.log().contains("the disk can be written again"), "{}", stoa.log());
}

#[tokio::test]
async fn a_full_disk_is_passed_by_and_heals() {
    let Some((world, setup, disk)) = world_on("4m") else { return };
    world.upstream.publish(noisy("ex.com/large", 100 << 10));
    let setup =
        setup.env("STOA_STORE_SPOOL_FILE_SIZE", "64KiB").env("STOA_GONOSUMDB", "ex.com/large");
    let stoa = setup.start();
    let stored = stoa.get(&format!("{BASE}.zip")).await.ok();
    stoa.get(&format!("{BASE}.mod")).await.ok();
    ready(&stoa, 200, "ready").await;
    disk.fill(0);

    // What is verified is handed out as if nothing were wrong; what nobody vouches for is not called final.
    let other = "ex.com/old/@v/v2.0.0+incompatible";
    for (file, cached) in [
        ("zip", "public, max-age=31536000, immutable"),
        ("mod", "public, max-age=31536000, immutable"),
        ("info", "no-cache"),
    ] {
        let reply = bounded(stoa.get(&format!("{other}.{file}"))).await;
        assert_eq!(reply.header("cache-control"), cached, "{file}");
        assert!(!reply.header("etag").is_empty());
        reply.ok();
    }
    let zip = stoa.get(&format!("{other}.zip")).await.ok();
    assert!(zip == modules().zip("ex.com/old@v2.0.0+incompatible"));
    let part = stoa.get_with(&format!("{other}.zip"), &[("range", "bytes=2-9")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (206, &zip[2..10]));
    // Lists, hits, and files of the checksum database go on.
    assert!(stoa.get("ex.com/old/@latest").await.ok().starts_with(b"{"));
    stoa.get("ex.com/lib/@v/list").await.ok();
    stoa.get(&format!("sumdb/{}/lookup/ex.com/old@v2.0.0+incompatible", world.sumdb.name()))
        .await
        .ok();
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == stored);
    // Too large for memory.
    let large = bounded(stoa.get("ex.com/large/@v/v1.0.0.zip")).await;
    large.refused(507, "no more than 64 KiB");
    large.refused(507, "is full");
    large.refused(507, setup.data_dir().to_str().unwrap());
    large.refused(507, "hint: free some space");
    stoa.get("ex.com/large/@v/v1.0.0.mod").await.ok();

    ready(&stoa, 503, "disk: ").await;
    assert_eq!(setup.run(&["healthcheck"]).status.code(), Some(0), "it is alive");
    assert_eq!(stoa.log().matches(WARNING).count(), 1, "{}", stoa.log());
    let metrics = stoa.get("metrics").await;
    for line in
        ["stoa_disk_writable 0", "stoa_spool_bytes 0", "stoa_passed_through_refused_total 1"]
    {
        assert!(metrics.text().contains(&format!("\n{line}\n")), "{line}: {}", metrics.text());
    }
    assert!(!disk.path("cache/download/ex.com/old").join("@v/v2.0.0+incompatible.zip").exists());

    disk.free();
    healed(&stoa).await;
    assert!(stoa.get(&format!("{other}.zip")).await.ok() == zip);
    stoa.get("ex.com/large/@v/v1.0.0.zip").await.ok();
    assert!(disk.path("cache/download/ex.com/old").join("@v/v2.0.0+incompatible.zip").exists());
    // What was learnt of the checksum database meanwhile is proven from the disk, too.
    stoa.get(&format!("{other}.mod")).await.ok();
    stoa.stop();
    let offline = setup.offline().start();
    offline.get(&format!("{other}.zip")).await.ok();
    let lookup = format!("sumdb/{}/lookup/ex.com/old@v2.0.0+incompatible", world.sumdb.name());
    offline.get(&lookup).await.ok();
}

#[tokio::test]
async fn a_disk_that_fills_up_in_the_middle() {
    let Some((world, setup, disk)) = world_on("4m") else { return };
    world.upstream.publish(noisy("ex.com/large", 300 << 10));
    world.upstream.publish(noisy("ex.com/huge", 900 << 10));
    let setup = setup.env("STOA_STORE_SPOOL_FILE_SIZE", "512KiB").gosumdb("off");
    let stoa = setup.start();
    disk.fill(200 << 10);
    let path = "ex.com/large/@v/v1.0.0.zip";
    let zip = bounded(stoa.get(path)).await.ok();
    assert!(zip == noisy("ex.com/large", 300 << 10).zip("ex.com/large@v1.0.0"));
    // It broke off on disk and came once more, into memory; the next one comes into memory at once.
    assert_eq!(world.upstream.count(format!("/{path}")), 2);
    ready(&stoa, 503, "disk: ").await;
    stoa.get(path).await.ok();
    assert_eq!(world.upstream.count(format!("/{path}")), 3);
    let huge = "ex.com/huge/@v/v1.0.0.zip";
    bounded(stoa.get(huge)).await.refused(507, "no more than 512 KiB");
    // A small file fits, and is no sign that the disk is well.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    ready(&stoa, 503, "disk: ").await;
    assert_eq!(
        fs_err::read_dir(disk.path("cache/tmp")).unwrap().count(),
        0,
        "what broke off is gone"
    );
    disk.free();
    healed(&stoa).await;
    stoa.get(path).await.ok();
    stoa.get(huge).await.ok();
    assert_eq!(stoa.get(path).await.ok(), zip);
    assert_eq!(world.upstream.count(format!("/{path}")), 4);
}

#[tokio::test]
async fn a_disk_that_fills_up_at_the_commit() {
    let Some((world, setup, disk)) = world_on("4m") else { return };
    world.upstream.publish(noisy("ex.com/large", 120 << 10));
    // Nothing but the body and its sidecar is written; the body may not come from memory.
    let setup = setup.env("STOA_STORE_SPOOL_SIZE", "0").gosumdb("off");
    // After a clean stop the index has nothing to write either.
    setup.start().stop();
    let stoa = setup.start();
    let zip = noisy("ex.com/large", 120 << 10).zip("ex.com/large@v1.0.0").to_vec();
    disk.fill(zip.len() as u64);
    let got = bounded(stoa.get("ex.com/large/@v/v1.0.0.zip")).await.ok();
    assert!(got == zip);
    logged(&stoa, &["cannot be stored; it is passed through"]).await;
    ready(&stoa, 503, "disk: ").await;
    stoa.get("ex.com/large/@v/v1.0.0.zip").await.refused(507, "is full");
    disk.free();
    healed(&stoa).await;
    stoa.get("ex.com/large/@v/v1.0.0.zip").await.ok();
}

#[tokio::test]
async fn memory_for_what_passes_is_bounded() {
    let Some((world, setup, disk)) = world_on("4m") else { return };
    let names = ["ex.com/one", "ex.com/two", "ex.com/three"];
    for name in names {
        world.upstream.publish(noisy(name, 40 << 10));
    }
    let setup = setup
        .env("STOA_STORE_SPOOL_FILE_SIZE", "64KiB")
        .env("STOA_STORE_SPOOL_SIZE", "128KiB")
        .env("STOA_UPSTREAM_FILE_TIMEOUT", "500ms")
        .env("STOA_UPSTREAM_STALL_TIMEOUT", "20s")
        .gosumdb("off");
    let stoa = setup.start();
    disk.fill(0);
    // An empty file can still be made there; this one is not empty.
    ready(&stoa, 503, "disk: ").await;
    let gate = Gate::new();
    for name in &names[..2] {
        world.upstream.fault(format!("/{name}/@v/v1.0.0.zip"), Fault::gate_after(&gate, 100));
    }
    let get = |name: &str| {
        let url = format!("{}/{name}/@v/v1.0.0.zip", stoa.url);
        tokio::spawn(async move { client().get(url).send().await.unwrap().bytes().await.unwrap() })
    };
    let held = [get(names[0]), get(names[1])];
    gate.wait_for_held(2).await;
    let third = format!("{}/@v/v1.0.0.zip", names[2]);
    stoa.get(&third).await.refused(507, "all taken");
    gate.open();
    for (one, name) in held.into_iter().zip(names) {
        let zip = one.await.unwrap();
        assert!(zip == noisy(name, 40 << 10).zip(&format!("{name}@v1.0.0")), "{name}");
    }
    // There is room again, also for many at once that wait for each other.
    let many: Vec<_> = (0..12).map(|n| get(names[n % 3])).collect();
    for (n, one) in many.into_iter().enumerate() {
        let name = names[n % 3];
        assert!(
            one.await.unwrap() == noisy(name, 40 << 10).zip(&format!("{name}@v1.0.0")),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_disk_that_becomes_read_only() {
    let Some((_world, setup, disk)) = world_on("8m") else { return };
    let stoa = setup.start();
    let stored = stoa.get(&format!("{BASE}.zip")).await.ok();
    disk.make_read_only();
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.zip").await.ok();
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == stored);
    ready(&stoa, 503, "Read-only").await;
    disk.make_writable();
    healed(&stoa).await;
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.zip").await.ok();
    assert!(disk.path("cache/download/ex.com/old/@v/v2.0.0+incompatible.zip").exists());
}

#[tokio::test]
async fn a_server_starts_on_a_disk_that_it_cannot_write() {
    let Some((_world, setup, disk)) = world_on("8m") else { return };
    let empty = setup.clone().offline();
    disk.make_read_only();
    let log = empty.try_start().expect_err("there is nothing to serve");
    assert!(log.contains("cannot use the data directory"), "{log}");
    disk.make_writable();
    let stoa = setup.start();
    let stored = stoa.get(&format!("{BASE}.zip")).await.ok();
    let list = stoa.get("ex.com/lib/@v/list").await.ok();
    for file in ["info", "mod"] {
        stoa.get(&format!("{BASE}.{file}")).await.ok();
    }
    stoa.stop();

    disk.fill(0);
    let stoa = setup.start();
    ready(&stoa, 503, "disk: ").await;
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == stored);
    assert!(stoa.get("ex.com/lib/@v/list").await.ok() == list);
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.zip").await.ok();
    // Killed, it leaves its socket behind.
    drop(stoa);
    disk.make_read_only();
    let stoa = setup.start();
    ready(&stoa, 503, "Read-only").await;
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == stored);
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.zip").await.ok();
    let second = setup.try_start().expect_err("one server has it");
    assert!(second.contains("in use by another stoa"), "{second}");
    let check = setup.clone().env("STOA_LISTEN", stoa.address()).run(&["healthcheck"]);
    assert_eq!(check.status.code(), Some(0), "{}", String::from_utf8_lossy(&check.stderr));
    drop(stoa);
    // An image without a network: it is all that it can be.
    let offline = setup.clone().offline().start();
    ready(&offline, 200, "ready: offline").await;
    assert!(offline.get(&format!("{BASE}.zip")).await.ok() == stored);
    assert_eq!(offline.get("ex.com/lib/@v/list").await.ok(), b"v1.0.0\n");
    drop(offline);

    disk.make_writable();
    disk.free();
    let stoa = setup.start();
    ready(&stoa, 200, "ready").await;
    assert!(stoa.get(&format!("{BASE}.zip")).await.ok() == stored);
}

/// The newest tree goes on in memory, and on disk only with the tiles that prove it, also those of what was proven before.
#[tokio::test]
async fn a_tree_that_grew_while_the_disk_was_full_is_proven_from_it_afterwards() {
    if !require_go() {
        return;
    }
    let Some((world, setup, disk)) = world_on("16m") else { return };
    // Its record is at the tree's edge, where tiles are not full yet.
    let late = noisy("ex.com/late", 100);
    world.sumdb.append(&late);
    world.upstream.publish(late);
    let stoa = setup.start();
    go(&world, &stoa.url).ok(["mod", "download", "ex.com/late@v1.0.0"]).await;
    let latest = disk.path("cache/download/sumdb").join(world.sumdb.name()).join("latest");
    let before = fs_err::read(&latest).unwrap();
    disk.fill(0);
    ready(&stoa, 503, "disk: ").await;
    world.sumdb.append_filler(2000);
    let lookup = format!("sumdb/{}/lookup/ex.com/lib@v1.0.0", world.sumdb.name());
    let record = stoa.get(&lookup).await.ok();
    assert!(fs_err::read(&latest).unwrap() == before, "the disk is as it was");
    let told = stoa.get(&format!("sumdb/{}/latest", world.sumdb.name())).await.ok();
    assert!(told == world.sumdb.signed_head(world.sumdb.size()).as_bytes(), "clients are told");

    disk.free();
    healed(&stoa).await;
    assert_eq!(stoa.get(&lookup).await.ok(), record);
    assert!(fs_err::read(&latest).unwrap() == told, "the disk has caught up");
    for file in ["info", "mod", "zip"] {
        stoa.get(&format!("{BASE}.{file}")).await.ok();
    }
    stoa.stop();
    world.upstream.fault("*", Fault::status(500));
    let offline = setup.offline().start();
    let client = go(&world, &offline.url);
    // With the record of the one it learns of the newest tree, in which it then wants the other proven.
    for module in ["ex.com/lib@v1.0.0", "ex.com/late@v1.0.0"] {
        client.ok(["mod", "download", module]).await;
    }
}

/// To make room by hand: the files go, their records stay and say what may come back.
#[tokio::test]
async fn what_was_deleted_by_hand_comes_back_as_it_was_or_not_at_all() {
    let world = World::new();
    // Nobody else vouches for it: what counts is what was seen first.
    let setup = world.setup().env("STOA_GONOSUMDB", "ex.com/lib");
    let stoa = setup.start();
    let lib = setup.data_dir().join("cache/download/ex.com/lib/@v");
    let mut honest = Vec::new();
    for file in ["info", "mod", "zip"] {
        honest.push((file, stoa.get(&format!("{BASE}.{file}")).await.ok()));
    }
    let (_, log) = stoa.stop();
    assert!(!log.contains("SECURITY"), "{log}");
    let sidecar = fs_err::read(lib.join("v1.0.0.stoa")).unwrap();
    for file in ["info", "mod", "zip"] {
        fs_err::remove_file(lib.join(format!("v1.0.0.{file}"))).unwrap();
    }

    let other = Modules::parse(
        "-- ex.com/lib@v1.0.0/go.mod --\nmodule ex.com/lib\n\ngo 1.22\n-- ex.com/lib@v1.0.0/x.go --\npackage lib\n",
    );
    let changed = FakeUpstream::start(other.clone());
    let stoa = setup.clone().goproxy(changed.url()).start();
    for (file, first, sent) in [
        ("mod", modules().go_mod_h1("ex.com/lib@v1.0.0"), other.go_mod_h1("ex.com/lib@v1.0.0")),
        ("zip", modules().zip_h1("ex.com/lib@v1.0.0"), other.zip_h1("ex.com/lib@v1.0.0")),
    ] {
        let path = format!("{BASE}.{file}");
        let reply = stoa.get(&path).await;
        reply.refused(403, &first.to_string());
        reply.refused(403, &sent.to_string());
        // The verdict is remembered: an https client asks twice.
        stoa.get(&path).await.refused(403, "first seen");
        assert_eq!(changed.count(format!("/{path}")), 1, "{file}");
    }
    let told = stoa.log().matches("SECURITY: the content of a version has changed").count();
    assert_eq!(told, 2, "{}", stoa.log());
    let metrics = stoa.get("metrics").await;
    assert!(metrics.text().contains("\nstoa_content_conflicts_total 2\n"), "{}", metrics.text());
    stoa.stop();
    assert!(
        fs_err::read(lib.join("v1.0.0.stoa")).unwrap() == sidecar,
        "the records are as they were"
    );

    // The same content is welcome.
    let stoa = setup.start();
    for (file, bytes) in honest {
        assert!(stoa.get(&format!("{BASE}.{file}")).await.ok() == bytes, "{file}");
    }
    stoa.stop();
    let offline = setup.offline().start();
    offline.get(&format!("{BASE}.zip")).await.ok();
}
