//! The real `go` command against the real server.

use stoa_testkit::{Fault, Go, require_go};

use crate::fixtures::World;
use crate::stoa::Stoa;

const APP: &str = r#"
-- go.mod --
module ex.com/app

go 1.21

require (
	ex.com/Upper/Case v1.0.0
	ex.com/lib v1.1.0
)
-- main.go --
package main

import (
	"fmt"

	upper "ex.com/Upper/Case"
	"ex.com/lib"
)

func main() { fmt.Println(lib.Name(), "and", upper.Name()) }
"#;

pub fn go(world: &World, url: &str) -> Go {
    Go::new()
        .goproxy(url)
        .gosumdb(world.sumdb.verifier_key())
        .env("GOFLAGS", "-modcacherw -mod=mod")
        .project(APP)
}

#[tokio::test]
async fn a_project_is_built_then_built_again_without_a_network() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let client = go(&world, &stoa.url);
    client.ok(["mod", "download", "all"]).await;
    assert_eq!(client.ok(["run", "."]).await, "lib v1.1.0 and Case and old\n");
    let sums = client.read("go.sum");
    assert!(sums.contains("ex.com/old v2.0.0+incompatible h1:"), "{sums}");
    stoa.stop();

    // An empty GOMODCACHE, an empty go.sum, a fresh GOPATH, and no network.
    world.upstream.forget_requests();
    world.upstream.fault("*", Fault::status(500));
    let offline = setup.clone().offline().start();
    let fresh = go(&world, &offline.url);
    fresh.ok(["mod", "download", "all"]).await;
    assert_eq!(fresh.ok(["run", "."]).await, "lib v1.1.0 and Case and old\n");
    assert_eq!(fresh.read("go.sum"), sums);
    assert_eq!(fresh.ok(["list", "-m", "-versions", "ex.com/lib"]).await, "ex.com/lib v1.1.0\n");
    assert_eq!(fresh.ok(["list", "-m", "ex.com/lib@latest"]).await, "ex.com/lib v1.1.0\n");
    let missing = fresh.fails(["get", "ex.com/lib@v1.0.0"]).await;
    assert!(missing.contains("offline, not stored"), "{missing}");
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
    offline.stop();

    // The store is a file proxy too.
    let files = format!("file://{}", setup.data_dir().join("cache/download").display());
    let from_files = go(&world, &files);
    from_files.ok(["mod", "download", "all"]).await;
    assert_eq!(from_files.ok(["run", "."]).await, "lib v1.1.0 and Case and old\n");
    assert_eq!(from_files.read("go.sum"), sums);
}

#[tokio::test]
async fn an_offline_client_that_knows_another_tree() {
    if !require_go() {
        return;
    }
    let world = World::new();
    // Large enough for tiles that no proof of ours needs.
    world.sumdb.append_filler(2000);
    let setup = world.setup();
    let stoa = setup.start();
    go(&world, &stoa.url).ok(["mod", "download", "all"]).await;
    stoa.stop();
    let name = world.sumdb.name();

    // A client whose tree head comes from elsewhere, and is newer than the store's.
    let client = {
        let offline = setup.clone().offline().start();
        let client = go(&world, &offline.url);
        world.sumdb.append_filler(10_000);
        let head = world.sumdb.signed_head(world.sumdb.size());
        let dir = client.gopath().join("pkg/sumdb").join(name);
        fs_err::create_dir_all(&dir).unwrap();
        fs_err::write(dir.join("latest"), head).unwrap();
        let refused = client.fails(["mod", "download", "all"]).await;
        assert!(
            refused.contains("offline, not stored")
                && refused.contains(&format!("pkg/sumdb/{name}")),
            "it names the cure: {refused}"
        );
        // The cure works.
        client.clear_gopath();
        client.ok(["mod", "download", "all"]).await;
        client
    };
    drop(client);

    // Older heads: one whose right edge the store has proven works, one that it has never met is told the cure.
    let offline = setup.offline().start();
    for (size, works) in [(5, true), (700, false)] {
        let client = go(&world, &offline.url);
        let dir = client.gopath().join("pkg/sumdb").join(name);
        fs_err::create_dir_all(&dir).unwrap();
        fs_err::write(dir.join("latest"), world.sumdb.signed_head(size)).unwrap();
        let output = client.run(["mod", "download", "all"]).await;
        assert_eq!(output.status.success(), works, "{size}: {output}");
        if !works {
            assert!(output.stderr.contains(&format!("pkg/sumdb/{name}")), "{output}");
        }
    }
}

#[tokio::test]
async fn versions_queries_and_latest() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let stoa = world.setup().start();
    let client = go(&world, &stoa.url);
    let versions = client.ok(["list", "-m", "-versions", "ex.com/lib"]).await;
    assert_eq!(versions, "ex.com/lib v1.0.0 v1.1.0 v1.2.0-rc.1\n");
    for (query, version) in [
        ("ex.com/lib@latest", "v1.1.0"),
        ("ex.com/lib@v1.0", "v1.0.0"),
        ("ex.com/lib@<v1.1.0", "v1.0.0"),
        ("ex.com/lib@main", "v1.1.1-0.20240102030405-0123456789ab"),
        ("ex.com/lib@v1.1.1-0.20240102030405-0123456789ab", "v1.1.1-0.20240102030405-0123456789ab"),
        ("ex.com/pseudo@latest", "v0.0.0-20230102030405-abcdefabcdef"),
        ("ex.com/Upper/Case@latest", "v1.0.0"),
        ("ex.com/old@latest", "v2.0.0+incompatible"),
    ] {
        let module = query.split('@').next().unwrap();
        let got = client.ok(["list", "-m", query]).await;
        assert_eq!(got, format!("{module} {version}\n"), "{query}");
        client.ok(["mod", "download", &format!("{module}@{version}")]).await;
    }
    // go get probes every prefix of the package's path; what is no module must not be one.
    client.ok(["get", "ex.com/lib@v1.0.0"]).await;
    let unknown = client.fails(["get", "ex.com/lib@v9.9.9"]).await;
    assert!(unknown.contains("request id"), "the server's words reach the terminal: {unknown}");
}

const TOOLS: &str = r#"
-- ex.com/x/tools@v1.0.0/go.mod --
module ex.com/x/tools

go 1.21
-- ex.com/x/tools@v1.0.0/tools.go --
package tools
-- ex.com/x/tools@v1.0.0/cmd/foo/foo.go --
package foo

func Name() string { return "foo" }
-- ex.com/x/tools@main.info --
{"Version":"v1.0.0"}
"#;

const USES_TOOLS: &str = r#"
-- go.mod --
module ex.org/app

go 1.21
-- main.go --
package main

import (
	"fmt"

	"ex.com/x/tools/cmd/foo"
)

func main() { fmt.Println(foo.Name()) }
"#;

#[tokio::test]
async fn packages_of_stored_modules_are_found_while_the_upstream_is_dead() {
    if !require_go() {
        return;
    }
    let mut world = World::new();
    let tools = stoa_testkit::Modules::parse(TOOLS);
    world.sumdb.append(&tools);
    world.upstream.publish(tools);
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1");
    let stoa = setup.start();
    let client = |stoa: &Stoa| go(&world, &stoa.url).project(USES_TOOLS);
    client(&stoa).ok(["get", "ex.com/x/tools/cmd/foo@main"]).await;
    stoa.stop();
    // Another server, which remembers no absence of a prefix.
    world.upstream.stop();
    let stoa = setup.start();
    let client = |stoa: &Stoa| go(&world, &stoa.url).project(USES_TOOLS);
    for args in [
        &["mod", "tidy"][..],
        &["get", "ex.com/x/tools/cmd/foo"],
        &["get", "ex.com/x/tools/cmd/foo@latest"],
        &["get", "ex.com/x/tools/cmd/foo@v1.0.0"],
        &["get", "ex.com/x/tools/cmd/foo@v1"],
        &["get", "ex.com/x/tools/cmd/foo@main"],
    ] {
        let client = client(&stoa);
        client.ok(args).await;
        assert_eq!(client.ok(["run", "."]).await, "foo\n", "{args:?}");
    }
    // Of a module that may be one, it is said that nobody was there to ask.
    let missing = client(&stoa).fails(["get", "ex.com/x/other@v1.0.0"]).await;
    assert!(missing.contains("no source could serve it"), "{missing}");
}

#[tokio::test]
async fn a_tampered_module_is_refused_with_words_that_go_prints() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let forged = stoa_testkit::zip_of([
        ("ex.com/lib@v1.1.0/go.mod", "module ex.com/lib\n\ngo 1.21\n"),
        ("ex.com/lib@v1.1.0/lib.go", "package lib\n\nfunc Name() string { return \"evil\" }\n"),
    ]);
    world.upstream.fault("/ex.com/lib/@v/v1.1.0.zip", Fault::replace(forged));
    let stoa = world.setup().start();
    // Even a client that verifies nothing is not handed it.
    let careless = go(&world, &stoa.url).gosumdb("off");
    let refused = careless.fails(["mod", "download", "ex.com/lib@v1.1.0"]).await;
    for words in ["checksum mismatch", "h1:", world.sumdb.name(), "request id"] {
        assert!(refused.contains(words), "{words} is not in: {refused}");
    }
}

#[tokio::test]
async fn private_modules_and_a_client_that_names_them() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let corp = stoa_testkit::FakeUpstream::start(crate::fixtures::modules());
    let setup = world.setup().env("STOA_GOPRIVATE", "ex.com/private");
    let toml = format!("[[route]]\npattern = \"ex.com/private\"\ngoproxy = \"{}\"\n", corp.url());
    fs_err::write(setup.scratch().join("stoa.toml"), toml).unwrap();
    let stoa = setup.start();
    let client = go(&world, &stoa.url).gonosumdb("ex.com/private");
    client.ok(["mod", "download", "ex.com/private@v1.0.0"]).await;
    // Without it the client is told what to set.
    let told = go(&world, &stoa.url).fails(["mod", "download", "ex.com/private@v1.0.0"]).await;
    assert!(told.contains("GONOSUMDB=ex.com/private"), "{told}");
}
