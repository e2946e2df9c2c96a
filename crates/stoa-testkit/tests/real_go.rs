//! The fakes are only worth something when the real `go` command takes them for real.

use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Go, Misbehaviour, Modules, require_go};

const MODULES: &str = r#"
-- ex.com/hello@v1.0.0/go.mod --
module ex.com/hello

go 1.20

require ex.com/Upper/world/v2 v2.1.0
-- ex.com/hello@v1.0.0/hello.go --
package hello

import world "ex.com/Upper/world/v2"

func Hello() string { return "hello, " + world.Name }
-- ex.com/hello@v1.1.0-RC1/go.mod --
module ex.com/hello
-- ex.com/Upper/world/v2@v2.1.0/go.mod --
module ex.com/Upper/world/v2
-- ex.com/Upper/world/v2@v2.1.0/world.go --
package world

const Name = "world"
-- ex.com/old@v2.0.0+incompatible/old.go --
package old
-- ex.com/hello@main.info --
{"Version":"v1.0.1-0.20240102030405-0123456789ab","Time":"2024-01-02T03:04:05Z"}
-- ex.com/hello@v1.0.1-0.20240102030405-0123456789ab/go.mod --
module ex.com/hello
"#;

const PROJECT: &str = r#"
-- go.mod --
module ex.com/project

go 1.20

require ex.com/hello v1.0.0
-- main.go --
package main

import "ex.com/hello"

func main() { println(hello.Hello()) }
"#;

fn modules() -> Modules {
    Modules::parse(MODULES)
}

struct World {
    sumdb: FakeSumdb,
    upstream: FakeUpstream,
    go: Go,
}

/// The database's tree has more than one tile.
fn world() -> World {
    let sumdb = FakeSumdb::new("sum.test.example", &modules());
    sumdb.append_filler(700);
    let upstream = FakeUpstream::start(modules()).with_sumdb(&sumdb);
    let go = Go::new().goproxy(upstream.url()).gosumdb(sumdb.verifier_key());
    World { sumdb, upstream, go }
}

#[tokio::test]
async fn go_builds_from_the_fakes() {
    if !require_go() {
        return;
    }
    let World { sumdb, upstream, go } = world();
    let go = go.project(PROJECT);
    go.ok(["mod", "tidy"]).await;
    let sums = go.read("go.sum");
    let zip = modules().zip_h1("ex.com/Upper/world/v2@v2.1.0");
    assert!(sums.contains(&format!("ex.com/Upper/world/v2 v2.1.0 {zip}\n")), "{sums}");
    assert_eq!(go.run(["run", "."]).await.stderr, "hello, world\n");
    assert_eq!(upstream.count("/sumdb/sum.test.example/supported"), 1);
    assert_eq!(upstream.count(sumdb.lookup_path("ex.com/hello@v1.0.0")), 1);
    assert!(upstream.count("/sumdb/sum.test.example/tile/*") >= 3);
    assert_eq!(upstream.count("/ex.com/!upper/world/v2/@v/v2.1.0.zip"), 1);

    // A grown tree is consistent with the one that the go command has kept.
    sumdb.append_filler(300);
    go.clear_modcache();
    go.write("go.sum", "");
    go.ok(["mod", "tidy"]).await;
    assert_eq!(go.read("go.sum"), sums);
}

#[tokio::test]
async fn go_resolves_queries() {
    if !require_go() {
        return;
    }
    let world = world();
    let check = async |args: &[&str], expected: &str| {
        let output = world.go.ok(args).await;
        assert!(output.contains(expected), "{args:?}: {output}");
    };
    check(&["list", "-m", "-versions", "ex.com/hello"], "ex.com/hello v1.0.0 v1.1.0-RC1\n").await;
    check(&["list", "-m", "ex.com/hello@latest"], "ex.com/hello v1.0.0\n").await;
    check(
        &["list", "-m", "ex.com/hello@main"],
        "ex.com/hello v1.0.1-0.20240102030405-0123456789ab\n",
    )
    .await;
    check(&["mod", "download", "-json", "ex.com/hello@v1.1.0-RC1"], "\"Sum\"").await;
    check(&["mod", "download", "-json", "ex.com/old@v2.0.0+incompatible"], "\"Sum\"").await;
    check(
        &["mod", "download", "-json", "ex.com/hello@v1.0.1-0.20240102030405-0123456789ab"],
        "\"Sum\"",
    )
    .await;
    let missing = world.go.fails(["list", "-m", "ex.com/nothing@latest"]).await;
    assert!(missing.contains("server response: not found: /ex.com/nothing/@v/list"), "{missing}");
}

#[tokio::test]
async fn go_refuses_what_the_database_lies_about() {
    if !require_go() {
        return;
    }
    let refused = async |lie: &dyn Fn(&World), expected: &str| {
        let world = world();
        lie(&world);
        let stderr = world.go.fails(["mod", "download", "ex.com/hello@v1.0.0"]).await;
        assert!(stderr.contains(expected), "{stderr}");
    };
    refused(
        &|it| it.sumdb.misbehave(Misbehaviour::AlteredRecords),
        "cannot authenticate record data in server response",
    )
    .await;
    refused(&|it| it.sumdb.misbehave(Misbehaviour::BadSignature), "invalid signature").await;
    refused(
        &|it| it.upstream.fault("/sumdb/*/tile/8/0/000", Fault::flip_byte(8)),
        "downloaded inconsistent tile",
    )
    .await;
    refused(
        &|it| {
            let h1 = modules().go_mod_h1("ex.com/hello@v1.0.0");
            it.sumdb.append_record("ex.com/hello@v1.0.0", h1, h1);
        },
        "SECURITY ERROR",
    )
    .await;
    refused(
        &|it| it.upstream.set_sumdb(&FakeSumdb::new("sum.test.example", &Modules::default())),
        "no record",
    )
    .await;
    refused(&|it| it.upstream.fault("*.zip", Fault::truncate(100)), "unexpected EOF").await;
    let tampered = "-- ex.com/hello@v1.0.0/go.mod --\nmodule ex.com/hello\n";
    refused(&|it| it.upstream.publish(Modules::parse(tampered)), "SECURITY ERROR").await;
}

#[tokio::test]
async fn go_sees_a_fork_and_accepts_an_old_head() {
    if !require_go() {
        return;
    }
    let World { sumdb, upstream, go } = world();
    sumdb.serve_lookups_at(600);
    go.ok(["mod", "download", "ex.com/hello@v1.0.0"]).await;
    sumdb.serve_lookups_at(400);
    go.ok(["mod", "download", "ex.com/Upper/world/v2@v2.1.0"]).await;
    // Not before the last tile: the go command would stumble over the tiles in its cache.
    upstream.set_sumdb(&sumdb.fork(520));
    let stderr = go.fails(["mod", "download", "ex.com/hello@v1.1.0-RC1"]).await;
    assert!(stderr.contains("go.sum database server misbehavior detected"), "{stderr}");
}

#[tokio::test]
async fn go_reaches_the_database_as_it_is_told() {
    if !require_go() {
        return;
    }
    let lookups = "/sumdb/sum.test.example/lookup/*";

    // At a URL of its own, which bypasses the proxy.
    let World { sumdb, upstream, go } = world();
    let direct = FakeUpstream::start(Modules::default()).with_sumdb(&sumdb);
    let go = go.gosumdb(format!("{} {}", sumdb.verifier_key(), direct.sumdb_url(&sumdb)));
    go.ok(["mod", "download", "ex.com/hello@v1.0.0"]).await;
    assert_eq!((upstream.count(lookups), direct.count(lookups)), (0, 1));

    // Not at all.
    let World { sumdb: _sumdb, upstream, go } = world();
    let go = go.gonosumdb("ex.com");
    go.ok(["mod", "download", "ex.com/hello@v1.0.0"]).await;
    assert_eq!(upstream.count("/sumdb/*"), 0);
}
