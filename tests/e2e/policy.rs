//! Who may be asked about a module, whose word counts, and who is never told its name: chains, routes, private names,
//! exemptions.

use std::time::{Duration, Instant};

use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Modules};

use crate::fixtures::{BASE, World, bounded, brief, modules};
use crate::stoa::Setup;

#[tokio::test]
async fn a_source_that_lies_is_passed_over_on_a_pipe_and_not_on_a_comma() {
    let world = World::new();
    let liar = FakeUpstream::start(modules()).with_sumdb(&world.sumdb);
    liar.fault("*.mod", Fault::flip_byte(25));
    let path = format!("{BASE}.mod");
    let comma = world.setup().goproxy(format!("{},{}", liar.url(), world.upstream.url())).start();
    comma.get(&path).await.refused(403, "checksum mismatch");
    assert_eq!(world.upstream.count("*.mod"), 0);
    let pipe = world.setup().goproxy(format!("{}|{}", liar.url(), world.upstream.url())).start();
    pipe.get(&path).await.ok();
}

#[tokio::test]
async fn commas_and_pipes_are_the_go_commands() {
    let world = World::new();
    let first = FakeUpstream::start(modules()).with_sumdb(&world.sumdb);
    let path = format!("{BASE}.mod");
    for (status, separator, passes) in [
        (404, ",", true),
        (410, ",", true),
        (404, "|", true),
        (403, ",", false),
        (500, ",", false),
        (403, "|", true),
        (500, "|", true),
    ] {
        first.clear_faults();
        first.fault("/ex.com/*", Fault::status(status).text("no"));
        world.upstream.forget_requests();
        let list = format!("{}{separator}{}", first.url(), world.upstream.url());
        let stoa = world.setup().env("STOA_UPSTREAM_TRIES", "1").goproxy(list).start();
        let reply = bounded(stoa.get(&path)).await;
        assert_eq!(reply.status == 200, passes, "{status} and {separator:?}: {}", reply.text());
        assert_eq!(world.upstream.count(format!("/{path}")), usize::from(passes));
    }
}

#[tokio::test]
async fn a_route_to_off_refuses_what_is_stored_too() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    stoa.get(&format!("{BASE}.zip")).await.ok();
    stoa.stop();
    let toml = "[[route]]\npattern = \"ex.com/lib\"\ngoproxy = \"off\"\n";
    fs_err::write(setup.scratch().join("stoa.toml"), toml).unwrap();
    let stoa = setup.start();
    for file in ["@v/list", "@latest", "@v/main.info", "@v/v1.0.0.zip", "@v/v1.1.0.mod"] {
        stoa.get(&format!("ex.com/lib/{file}"))
            .await
            .refused(403, "refused by this server's route");
    }
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.mod").await.ok();
}

#[tokio::test]
async fn a_route_names_the_chain_of_some_modules() {
    let world = World::new();
    let corp = FakeUpstream::start(modules());
    let setup = world.setup().env("STOA_GOPRIVATE", "ex.com/private");
    let toml = format!("[[route]]\npattern = \"ex.com/private\"\ngoproxy = \"{}\"\n", corp.url());
    fs_err::write(setup.scratch().join("stoa.toml"), toml).unwrap();
    let stoa = setup.start();
    let zip = stoa.get("ex.com/private/@v/v1.0.0.zip").await;
    assert_eq!(zip.header("cache-control"), "private, max-age=31536000, immutable");
    zip.ok();
    stoa.get("ex.com/private/@v/list").await.ok();
    stoa.get(&format!("{BASE}.mod")).await.ok();
    assert_eq!(corp.count("/ex.com/lib/*"), 0);
    let told = world.upstream.request_lines();
    assert!(!told.iter().any(|line| line.contains("private")), "{told:?}");
    // A redirect must not carry the name to another host either.
    corp.fault(
        "/ex.com/private/@latest",
        Fault::redirect(format!("{}/ex.com/private/@latest", world.upstream.url())),
    );
    let refused = stoa.get("ex.com/private/@v/other.info").await;
    assert_ne!(refused.status, 200);
    stoa.get("ex.com/private/@latest").await;
    let told = world.upstream.request_lines();
    assert!(!told.iter().any(|line| line.contains("private")), "{told:?}");
}

#[tokio::test]
async fn a_chain_that_leads_back_is_noticed() {
    // A free port, so that the server can be told of itself.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let itself = format!("http://127.0.0.1:{port}");
    let stoa = brief(Setup::new())
        .env("STOA_LISTEN", format!("127.0.0.1:{port}"))
        .goproxy(&itself)
        .start();
    let reply = bounded(stoa.get(&format!("{BASE}.mod"))).await;
    reply.refused(403, "loop");
    // Through another stoa.
    let far = brief(Setup::new()).goproxy(&itself).start();
    drop(stoa);
    let near = brief(Setup::new())
        .env("STOA_LISTEN", format!("127.0.0.1:{port}"))
        .goproxy(&far.url)
        .start();
    let reply = bounded(near.get(&format!("{BASE}.mod"))).await;
    reply.refused(403, "loop");
}

#[tokio::test]
async fn what_was_exempt_is_verified_before_it_is_handed_out_again() {
    let world = World::new();
    let open = world.setup().env("STOA_GONOSUMDB", "ex.com/lib");
    let stoa = open.start();
    let zip = format!("{BASE}.zip");
    stoa.get(&zip).await.ok();
    assert_eq!(world.upstream.count("*/lookup/*"), 0);
    stoa.stop();
    // The same store, now covered: one lookup, then a plain hit.
    let covered = open.clone().env("STOA_GONOSUMDB", "none").start();
    covered.get(&zip).await.ok();
    covered.get(&zip).await.ok();
    assert_eq!(world.upstream.count("*/lookup/ex.com/lib@v1.0.0"), 1);
    covered.stop();
    // Verified now: offline it needs no database.
    open.clone().env("STOA_GONOSUMDB", "none").offline().start().get(&zip).await.ok();

    // What the database contradicts is not handed out, however long it was stored; it makes room for what is right.
    let world = World::new();
    let forged = stoa_testkit::zip_of([("ex.com/lib@v1.0.0/lib.go", "package evil\n")]);
    world.upstream.fault(format!("/{zip}"), Fault::replace(forged.clone()));
    let open = world.setup().env("STOA_GONOSUMDB", "ex.com/lib");
    let stoa = open.start();
    assert!(stoa.get(&zip).await.ok() == forged);
    stoa.stop();
    let covered = open.clone().env("STOA_GONOSUMDB", "none");
    let stoa = covered.start();
    stoa.get(&zip).await.refused(403, "checksum mismatch");
    let (_, log) = stoa.stop();
    assert!(log.contains("it goes to quarantine"), "{log}");
    world.upstream.clear_faults();
    assert!(covered.start().get(&zip).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
}

#[tokio::test]
async fn another_databases_word_is_not_ours() {
    let world = World::new();
    let zip = format!("{BASE}.zip");
    // A database of somebody else's that vouches for a forged module.
    let forged = Modules::default().with(
        "ex.com/lib@v1.0.0",
        [("go.mod", "module ex.com/lib\n\ngo 1.21\n"), ("lib.go", "package evil\n")],
    );
    let theirs = FakeSumdb::new("sum.theirs.example", &forged);
    let upstream = FakeUpstream::start(forged).with_sumdb(&theirs);
    let setup = world.setup().goproxy(upstream.url()).gosumdb(theirs.verifier_key());
    let stoa = setup.start();
    stoa.get(&zip).await.ok();
    stoa.stop();
    let ours = setup.goproxy(world.upstream.url()).gosumdb(world.sumdb.verifier_key());
    assert!(ours.start().get(&zip).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
}

#[tokio::test]
async fn what_nobody_vouched_for_gives_way_once_it_is_lost() {
    let world = World::new();
    let zip = format!("{BASE}.zip");
    let forged = stoa_testkit::zip_of([("ex.com/lib@v1.0.0/lib.go", "package evil\n")]);
    world.upstream.fault(format!("/{zip}"), Fault::replace(forged));
    let open = world.setup().env("STOA_GONOSUMDB", "ex.com/lib");
    let stoa = open.start();
    stoa.get(&zip).await.ok();
    stoa.stop();
    world.upstream.clear_faults();
    fs_err::write(open.data_dir().join("cache/download").join(&zip), "torn").unwrap();
    let covered = open.env("STOA_GONOSUMDB", "none").start();
    assert!(covered.get(&zip).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
}

#[tokio::test]
async fn two_stoas_that_name_each_other_do_not_wait_for_each_other() {
    let world = World::new();
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (one, two) = (port(), port());
    let serve = |own: u16, other: u16| {
        let list = format!("http://127.0.0.1:{other}|{}", world.upstream.url());
        let setup = world.setup().env("STOA_UPSTREAM_ALTERNATIVE_TIMEOUT", "10s").goproxy(list);
        setup.env("STOA_LISTEN", format!("127.0.0.1:{own}")).start()
    };
    let (one, two) = (serve(one, two), serve(two, one));
    for module in ["ex.com/lib/@v/v1.0.0.mod", "ex.com/lib/@v/v1.1.0.zip", "ex.com/old/@v/list"] {
        let started = Instant::now();
        let (a, b) = tokio::join!(one.get(module), two.get(module));
        assert!(a.ok() == b.ok());
        assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_toolchain_is_never_exempt() {
    let toolchain = stoa_testkit::Modules::default().with(
        "golang.org/toolchain@v0.0.1-go1.99.0.linux-amd64",
        [("go.mod", "module golang.org/toolchain\n"), ("bin/go", "a go command")],
    );
    let sumdb = FakeSumdb::new("sum.test.example", &toolchain);
    let upstream = FakeUpstream::start(toolchain).with_sumdb(&sumdb);
    let zip = "golang.org/toolchain/@v/v0.0.1-go1.99.0.linux-amd64.zip";
    let setup = brief(Setup::new()).goproxy(upstream.url());
    setup.start().get(zip).await.refused(403, "GOSUMDB is off");
    let setup = setup.gosumdb(sumdb.verifier_key()).env("STOA_GONOSUMDB", "golang.org/toolchain");
    setup.start().get(zip).await.ok();
    assert_eq!(upstream.count("*/lookup/golang.org/toolchain@*"), 1);
}
