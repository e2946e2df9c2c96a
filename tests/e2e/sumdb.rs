//! `/sumdb/…` as clients see it.

use stoa_testkit::{FakeUpstream, Fault, Modules};

use crate::fixtures::{World, brief, modules};
use crate::stoa::Setup;

#[tokio::test]
async fn the_database_is_passed_on_and_kept() {
    let world = World::new();
    let stoa = world.setup().start();
    let name = world.sumdb.name();
    // Supported is configuration: no upstream is asked, and another name is not ours.
    assert_eq!(stoa.get(&format!("sumdb/{name}/supported")).await.ok(), b"");
    stoa.get("sumdb/sum.other.example/supported").await.refused(404, name);
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());

    let lookup = stoa.get(&format!("sumdb/{name}/lookup/ex.com/!upper/!case@v1.0.0")).await;
    assert_eq!(lookup.header("cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(lookup.text(), world.sumdb.lookup("ex.com/Upper/Case@v1.0.0").unwrap());
    stoa.get(&format!("sumdb/{name}/lookup/ex.com/%21upper/%21case@v1.0.0")).await.ok();
    assert_eq!(world.upstream.count("*/lookup/*"), 1);

    let latest = stoa.get(&format!("sumdb/{name}/latest")).await;
    assert_eq!(latest.text(), world.sumdb.signed_head(world.sumdb.size()));
    assert_eq!(latest.header("cache-control"), "public, max-age=60");
    stoa.get(&format!("sumdb/{name}/latest")).await.ok();
    assert_eq!(world.upstream.count("*/latest"), 1);

    // 307 records: one full tile and a partial one. Asking for either twice asks the upstream at most once, and
    // narrower ones are cut from wider ones.
    world.upstream.forget_requests();
    let size = world.sumdb.size();
    let last = size % 256;
    for tile in [
        "tile/8/0/000",
        &format!("tile/8/0/001.p/{last}"),
        "tile/8/0/001.p/7",
        "tile/8/0/000.p/9",
        "tile/8/1/000.p/1",
    ] {
        let expected = world.sumdb.tile(tile.parse_tile()).unwrap();
        let reply = stoa.get(&format!("sumdb/{name}/{tile}")).await;
        assert_eq!(reply.header("content-type"), "application/octet-stream");
        assert!(reply.ok() == expected, "{tile}");
        stoa.get(&format!("sumdb/{name}/{tile}")).await.ok();
    }
    let tiles = world.upstream.request_lines();
    assert!(tiles.len() <= 3, "narrow tiles are cut from wide ones: {tiles:?}");
    assert!(
        !tiles.iter().any(|line| line.contains("000.p/9") || line.contains("001.p/7")),
        "{tiles:?}"
    );

    for impossible in [
        "tile/8/0/1",
        "tile/8/0/000.p/0",
        "tile/8/0/000.p/256",
        "tile/9/0/000",
        "tile/8/0/../000",
        "lookup/nonsense",
        "lookup/ex.com/lib",
        "lookup/ex.com/lib@v1",
        "secret",
    ] {
        stoa.get(&format!("sumdb/{name}/{impossible}")).await.refused(404, "");
    }
}

trait ParseTile {
    fn parse_tile(&self) -> stoa_sumdb::Tile;
}

impl ParseTile for str {
    fn parse_tile(&self) -> stoa_sumdb::Tile {
        stoa_sumdb::Tile::parse(self).expect("a tile")
    }
}

#[tokio::test]
async fn the_newest_head_is_answered_stale_when_nobody_answers() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let latest = format!("sumdb/{}/latest", world.sumdb.name());
    let head = stoa.get(&latest).await.ok();
    stoa.stop();
    world.upstream.fault("*", Fault::status(500));
    let again = setup.start();
    let stale = again.get(&latest).await;
    assert_eq!(stale.header("cache-control"), "no-cache");
    assert_eq!(stale.ok(), head);
}

#[tokio::test]
async fn a_proxy_that_does_not_pass_it_on_is_passed_over() {
    let world = World::new();
    let without = FakeUpstream::start(modules());
    let list = format!("{},{}", without.url(), world.upstream.url());
    let stoa = world.setup().goproxy(list).start();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    assert_eq!(without.count("*/lookup/*"), 0);
    assert_eq!(world.upstream.count("*/lookup/*"), 1);
}

#[tokio::test]
async fn an_explicit_url_is_asked_before_the_proxies() {
    let world = World::new();
    let database = FakeUpstream::start(stoa_testkit::Modules::default()).with_sumdb(&world.sumdb);
    let gosumdb = format!("{} {}", world.sumdb.verifier_key(), database.sumdb_url(&world.sumdb));
    let setup = world.setup().gosumdb(gosumdb);
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.ok();
    // Its word that there is no record is the last one.
    database.fault("*/lookup/ex.com/lib@v1.1.0", Fault::status(404));
    stoa.get("ex.com/lib/@v/v1.1.0.zip").await.refused(404, "has no record");
    assert_eq!(world.upstream.count("/sumdb/*"), 0);
    assert_eq!(database.count("*/lookup/*"), 2);
    // A proxy is the way around it when it fails.
    database.fault("*", Fault::status(500));
    stoa.get("ex.com/!upper/!case/@v/v1.0.0.zip").await.ok();
    assert_eq!(world.upstream.count("*/lookup/*"), 1);
}

#[tokio::test]
async fn a_road_with_a_bad_tile_is_left_for_the_next() {
    let world = World::new();
    let liar = FakeUpstream::start(modules()).with_sumdb(&world.sumdb);
    liar.fault("*/tile/*", Fault::flip_byte(1));
    let list = format!("{},{}", liar.url(), world.upstream.url());
    let stoa = world.setup().goproxy(list).start();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    assert!(world.upstream.count("*/tile/*") > 0);
}

#[tokio::test]
async fn damaged_files_of_the_database_are_fetched_anew() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    stoa.stop();
    let root = setup.data_dir().join("cache/download/sumdb").join(world.sumdb.name());
    let mut damaged = 0;
    let mut dirs = vec![root.join("tile"), root.join("lookup")];
    while let Some(dir) = dirs.pop() {
        for entry in fs_err::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else {
                let mut bytes = fs_err::read(entry.path()).unwrap();
                bytes[0] ^= 1;
                fs_err::write(entry.path(), bytes).unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged > 2);
    let stoa = setup.start();
    stoa.get("ex.com/lib/@v/v1.1.0.mod").await.ok();
    let lookup = format!("sumdb/{}/lookup/ex.com/lib@v1.0.0", world.sumdb.name());
    let record = stoa.get(&lookup).await;
    assert_eq!(record.text(), world.sumdb.lookup("ex.com/lib@v1.0.0").unwrap());
}

#[tokio::test]
async fn a_growing_tree_stays_provable_offline() {
    use stoa_sumdb::{Lookup, Plan, Tile};

    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let (name, key) = (world.sumdb.name().to_owned(), world.sumdb.key().clone());
    // Records proven in trees of several sizes, each lookup with the head of its day.
    let versions = [
        "ex.com/lib@v1.0.0",
        "ex.com/lib@v1.1.0",
        "ex.com/old@v2.0.0+incompatible",
        "ex.com/Upper/Case@v1.0.0",
    ];
    let mut lookups = Vec::new();
    for (module, growth) in versions.iter().zip([0, 170, 300, 70_000]) {
        world.sumdb.append_filler(growth);
        let path = world.sumdb.lookup_path(module);
        let body = stoa.get(path.trim_start_matches('/')).await.ok();
        lookups.push(Lookup::open(&body, &key).unwrap());
    }
    stoa.stop();
    let offline = setup.clone().offline().start();
    // A client may meet them in any order: each tree it may stand in must prove every smaller one and every record.
    for standing in &lookups {
        for other in &lookups {
            let (head, older) = (standing.signed.head, other.signed.head);
            if older.size > head.size {
                continue;
            }
            let mut plan = Plan::new(head).record(other.id).unwrap();
            if older.size < head.size {
                plan = plan.tree(older.size).unwrap();
            }
            let mut data = std::collections::HashMap::<Tile, bytes::Bytes>::new();
            for tile in plan.tiles() {
                let body = offline.get(&format!("sumdb/{name}/{}", tile.path())).await.ok();
                // As `GOPROXY=file://` on the store has it: the very file, without a server that cuts tiles.
                let file =
                    setup.data_dir().join("cache/download/sumdb").join(&name).join(tile.path());
                let full = setup
                    .data_dir()
                    .join("cache/download/sumdb")
                    .join(&name)
                    .join(tile.full().path());
                assert!(file.exists() || full.exists(), "{}", tile.path());
                data.insert(tile, body.into());
            }
            let proven = plan.authenticate(data).unwrap();
            assert_eq!(proven.record_hash(other.id), Some(other.record_hash()));
        }
    }
}

#[tokio::test]
async fn a_cache_without_the_record_is_not_the_databases_word() {
    let world = World::new();
    // The directory of another stoa: it says `supported`, and has one record.
    let other = world.setup();
    let stoa = other.start();
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.mod").await.ok();
    stoa.stop();
    let files = format!("file://{}", other.data_dir().join("cache/download").display());
    let list = format!("{files},{}", world.upstream.url());
    let stoa = world.setup().goproxy(list).start();
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.mod").await.ok();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    // Another stoa without a network says 404 to what it lacks.
    let offline = other.offline().start();
    let list = format!("{},{}", offline.url, world.upstream.url());
    let stoa = world.setup().goproxy(list).start();
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
}

#[tokio::test]
async fn a_lookup_may_take_its_time() {
    let world = World::new();
    let gate = stoa_testkit::Gate::new();
    world.upstream.fault("*/lookup/*", Fault::gate(&gate));
    // Over a comma the short bound, which is for sources with an alternative, is not the lookup's.
    let setup = world.setup().env("STOA_SUMDB_TIMEOUT", "20s");
    let setup = setup.env("STOA_UPSTREAM_ALTERNATIVE_TIMEOUT", "300ms");
    let stoa = setup.goproxy(format!("{},direct", world.upstream.url())).start();
    let waiting = tokio::spawn(
        crate::fixtures::client().get(format!("{}/ex.com/lib/@v/v1.0.0.mod", stoa.url)).send(),
    );
    gate.wait_for_held(1).await;
    tokio::time::sleep(std::time::Duration::from_millis(900)).await;
    gate.open();
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn absences_are_remembered_and_unproven_tiles_are_not_kept() {
    let world = World::new();
    let stoa = world.setup().start();
    let name = world.sumdb.name();
    for _ in 0..5 {
        stoa.get(&format!("sumdb/{name}/lookup/ex.com/absent@v1.0.0"))
            .await
            .refused(404, "no record");
    }
    assert_eq!(world.upstream.count("*/lookup/*"), 1);
    // A tile of a tree that is newer than any head we can learn of.
    let old = world.sumdb.size();
    stoa.get(&format!("sumdb/{name}/latest")).await.ok();
    world.sumdb.append_filler(400);
    world.sumdb.serve_latest_at(old);
    let beyond = format!("sumdb/{name}/tile/8/0/002.p/10");
    for _ in 0..2 {
        let reply = stoa.get(&beyond).await;
        assert_eq!(reply.header("cache-control"), "no-cache");
        reply.ok();
    }
    assert_eq!(world.upstream.count("*/tile/8/0/002.p/10"), 2);
    // A head that is learnt because a client knows more than we do.
    world.sumdb.serve_latest_at(None);
    let now = stoa.get(&beyond).await;
    assert_eq!(now.header("cache-control"), "public, max-age=31536000, immutable");
}

#[tokio::test]
async fn without_a_database_none_is_passed_on() {
    let world = World::new();
    let stoa = brief(Setup::new()).goproxy(world.upstream.url()).start();
    stoa.get("sumdb/sum.golang.org/supported").await.refused(404, "GOSUMDB=off");
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.ok();
}

#[tokio::test]
async fn many_who_need_a_cold_database_ask_each_file_once() {
    let world = World::new();
    // Records apart from each other, so that proofs share some of their tiles and not all.
    let versions: Vec<_> = (0..40).map(|minor| format!("v1.{minor}.0")).collect();
    let mut many = Modules::default();
    for version in &versions {
        let (module, files) =
            (format!("ex.com/many@{version}"), [("go.mod", "module ex.com/many\n")]);
        world.sumdb.append(&Modules::default().with(&module, files));
        world.sumdb.append_filler(100);
        many = many.with(&module, files);
    }
    world.upstream.publish(many);
    let stoa = world.setup().start();
    let asked = versions.iter().flat_map(|version| {
        ["mod", "zip"].map(|extension| format!("ex.com/many/@v/{version}.{extension}"))
    });
    futures_util::future::join_all(asked.map(|path| {
        let stoa = &stoa;
        async move { stoa.get(&path).await.ok() }
    }))
    .await;
    let mut lines: Vec<_> = world
        .upstream
        .request_lines()
        .into_iter()
        .filter(|line| line.contains("/sumdb/"))
        .collect();
    lines.sort();
    let all = lines.len();
    let tiles = lines.iter().filter(|line| line.contains("/tile/8/0/")).count();
    assert!(tiles > 10, "{lines:?}");
    lines.dedup();
    assert_eq!(all, lines.len(), "{lines:?}");
}
