//! `/-/explain/…`: why a module is answered as it is.

use serde_json::Value;
use stoa::command_socket::get_over;
use stoa_core::explain::{Explained, File};
use stoa_testkit::{Fault, Modules};

use crate::direct_world::settings;
use crate::fixtures::{BASE, World, client, modules};
use crate::listen::admin_url;
use crate::stoa::Stoa;

const LIB: &str = "ex.com/lib@v1.0.0";

async fn explained(stoa: &Stoa, subject: &str) -> Explained {
    let reply = stoa.get(&format!("-/explain/{subject}?format=json")).await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    serde_json::from_slice(&reply.ok()).unwrap()
}

/// As a person reads it.
async fn text(stoa: &Stoa, subject: &str) -> String {
    let reply = stoa.get(&format!("-/explain/{subject}")).await;
    assert_eq!(reply.header("content-type"), "text/plain; charset=utf-8");
    let text = String::from_utf8(reply.ok()).unwrap();
    assert!(text.starts_with(subject), "{text}");
    text
}

fn file<'e>(explained: &'e Explained, name: &str) -> &'e File {
    explained.files.iter().find(|file| file.file == name).unwrap()
}

#[track_caller]
fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in:\n{text}");
    }
}

#[tokio::test]
async fn what_is_stored_is_shown_with_its_hashes_and_where_it_came_from() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    for extension in ["mod", "zip", "info"] {
        stoa.get(&format!("{BASE}.{extension}")).await.ok();
    }
    let asked = world.upstream.requests().len();
    let shown = explained(&stoa, LIB).await;
    let zip = file(&shown, "zip");
    let stored = zip.stored.as_ref().unwrap();
    let on_disk = setup.data_dir().join(&stored.path);
    assert_eq!(fs_err::read(on_disk).unwrap(), modules().zip(LIB));
    assert_eq!(stored.path, "cache/download/ex.com/lib/@v/v1.0.0.zip");
    assert_eq!(stored.h1.as_deref(), Some(&*modules().zip_h1(LIB).to_string()));
    assert_eq!(
        (stored.state.as_str(), stored.by.as_deref()),
        ("verified", Some("sum.test.example"))
    );
    assert_eq!(stored.source, world.upstream.url());
    assert!(stored.there && stored.handed_out);
    let said = &zip.said[0];
    assert_eq!((said.source.clone(), said.ok), (world.upstream.address().to_string(), true));
    assert!(said.stages.iter().any(|stage| stage.stage == "http"), "{said:?}");
    assert_eq!(file(&shown, "info").stored.as_ref().unwrap().state, "uncovered");
    let record = shown.checksums.record.as_ref().unwrap();
    assert_eq!(record.zip, Some(modules().zip_h1(LIB).to_string()));
    assert_eq!(record.go_mod, Some(modules().go_mod_h1(LIB).to_string()));
    assert!(setup.data_dir().join(&record.path).exists());
    assert!(shown.checksums.said.iter().all(|said| said.ok), "{:?}", shown.checksums.said);
    assert_eq!(shown.routing.rule, "default");
    assert_eq!(shown.routing.chain[0].breaker.as_ref().unwrap().state, "closed");
    assert!(shown.refused.is_empty(), "{:?}", shown.refused);

    let text = text(&stoa, LIB).await;
    has(
        &text,
        &[
            "route      no route or pattern names it: upstream.goproxy\n",
            &format!("source     1. {}", world.upstream.url()),
            "checksums  sum.test.example vouches for it\n",
            ".zip       stored: verified by sum.test.example, ",
            "           cache/download/ex.com/lib/@v/v1.0.0.zip\n",
            &modules().zip_h1(LIB).to_string(),
            "next       asked for .zip: nobody, it is served from the store\n",
        ],
    );
    let escaped = stoa.get("-/explain/ex.com%2Flib@v1.0.0").await;
    assert_eq!(escaped.status, 200);
    assert_eq!(world.upstream.requests().len(), asked, "nobody is asked for this");

    // To make room: the record stays.
    fs_err::remove_file(setup.data_dir().join(&stored.path)).unwrap();
    let shown = explained(&stoa, LIB).await;
    let lost = file(&shown, "zip").stored.as_ref().unwrap();
    assert!(!lost.there && !lost.handed_out && lost.sha256 == stored.sha256);
    has(&shown.refused.join("\n"), &[".zip: its file is gone, and only the same content"]);
    has(&shown.next.join("\n"), &[&format!(".zip: {}", world.upstream.url())]);
}

/// What others may rely on.
#[tokio::test]
async fn the_fields_of_the_json_are_these() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get(&format!("{BASE}.mod")).await.ok();
    stoa.get("ex.com/lib/@v/list").await.ok();
    let asks = |accept: &'static str, subject: &str| {
        let request = client().get(format!("{}/-/explain/{subject}", stoa.url));
        stoa.send(request.header("accept", accept))
    };
    let version: Value = serde_json::from_slice(&asks("application/json", LIB).await.ok()).unwrap();
    let module = asks("text/html, application/json;q=0.9", "ex.com/lib").await.ok();
    let module: Value = serde_json::from_slice(&module).unwrap();
    for pointer in [
        "/subject",
        "/at",
        "/private",
        "/offline",
        "/refused",
        "/next/0",
        "/rejected",
        "/routing/rule",
        "/routing/route",
        "/routing/pattern",
        "/routing/chain/0/source",
        "/routing/chain/0/separator",
        "/routing/chain/0/breaker/state",
        "/checksums/database",
        "/checksums/exempt",
        "/checksums/roads/0/source",
        "/checksums/roads/0/through_proxy",
        "/checksums/roads/0/passes_on",
        "/checksums/record/path",
        "/checksums/record/mod",
        "/checksums/record/zip",
        "/checksums/said/0/outcome",
        "/files/1/file",
        "/files/1/verdict",
        "/files/1/stored/path",
        "/files/1/stored/sha256",
        "/files/1/stored/h1",
        "/files/1/stored/state",
        "/files/1/stored/by",
        "/files/1/stored/source",
        "/files/1/stored/first_seen",
        "/files/1/stored/handed_out",
        "/files/1/said/0/source",
        "/files/1/said/0/outcome",
        "/files/1/said/0/at",
        "/files/1/said/0/took",
        "/files/1/said/0/stages/0/stage",
        "/files/1/said/0/stages/0/seconds",
    ] {
        assert!(version.pointer(pointer).is_some(), "{pointer} is not in {version:#}");
    }
    for pointer in [
        "/answers/0/asked",
        "/answers/0/kept/says",
        "/answers/0/kept/age",
        "/answers/0/kept/ttl",
        "/answers/0/kept/state",
        "/answers/1/kept",
        "/versions/count",
        "/versions/newest/0/version",
        "/versions/newest/0/files/0",
        "/versions/newest/0/unverified",
    ] {
        assert!(module.pointer(pointer).is_some(), "{pointer} is not in {module:#}");
    }
    assert_eq!(module["answers"][0]["kept"]["state"], "young");
    assert_eq!(module["versions"]["count"], 1);
    let text = text(&stoa, "ex.com/lib").await;
    has(
        &text,
        &[
            "list       3 versions, up to v1.2.0-rc.1, from ",
            "stored     1 version\n",
            "v1.0.0 (mod)",
        ],
    );
}

#[tokio::test]
async fn what_a_route_refuses_and_what_is_not_there() {
    let world = World::new();
    let off = "[[route]]\npattern = \"ex.com/old\"\ngoproxy = \"off\"\n";
    let stoa = settings(world.setup(), off).start();
    let refused = text(&stoa, "ex.com/old@v2.0.0+incompatible").await;
    has(
        &refused,
        &[
            "refused    route 1 (ex.com/old) is off: ",
            "route      [[route]] 1, ex.com/old\n",
            "next       asked for nobody: it is refused\n",
        ],
    );

    stoa.get("ex.com/lib/@v/v1.9.9.info").await.refused(404, "not found");
    let shown = explained(&stoa, "ex.com/lib@v1.9.9").await;
    let info = file(&shown, "info");
    assert!(info.stored.is_none());
    assert_eq!(info.said[0].source, world.upstream.address().to_string());
    assert!(info.said[0].outcome.starts_with("http 404: "), "{info:?}");
    let verdict = info.verdict.as_ref().unwrap();
    assert_eq!(verdict.class, "not_found");
    has(&text(&stoa, "ex.com/lib@v1.9.9").await, &[".info      not stored\n", "http 404"]);

    // A branch, and what nobody has asked for so far.
    stoa.get("ex.com/lib/@v/main.info").await.ok();
    let branch = explained(&stoa, "ex.com/lib@main").await;
    let kept = branch.answers[0].kept.as_ref().unwrap();
    assert_eq!(kept.says, "v1.1.1-0.20240102030405-0123456789ab");
    let unknown = text(&stoa, "ex.com/nobody/asked@v1.0.0").await;
    has(
        &unknown,
        &[&format!(
            "next       asked for .zip: {}, and for its record {0}\n",
            world.upstream.url()
        )],
    );
    has(&text(&stoa, "github.com/user").await, &["refused    it can be no module: "]);
}

#[tokio::test]
async fn a_contradiction_is_shown_with_both_hashes_and_where_the_body_is() {
    let world = World::new();
    let other = Modules::parse("-- ex.com/lib@v1.0.0/go.mod --\nmodule ex.com/lib\n");
    world.upstream.fault("*/v1.0.0.zip", Fault::replace(other.zip(LIB).to_vec()));
    let setup = world.setup();
    let stoa = setup.start();
    stoa.get(&format!("{BASE}.zip")).await.refused(403, "checksum mismatch");
    let shown = explained(&stoa, LIB).await;
    let zip = file(&shown, "zip");
    let verdict = zip.verdict.as_ref().unwrap();
    let (sent, recorded) = (other.zip_h1(LIB).to_string(), modules().zip_h1(LIB).to_string());
    assert_eq!(verdict.class, "mismatch");
    assert!(verdict.stands > 30.0 && verdict.stands <= 60.0);
    has(&verdict.text, &[&sent, &recorded]);
    assert!(!zip.said[0].ok);
    has(&zip.said[0].outcome, &["checksum mismatch"]);
    let rejected = &shown.rejected[0];
    has(&rejected.reason, &[&sent, &recorded]);
    assert_eq!(fs_err::read(setup.data_dir().join(&rejected.path)).unwrap(), other.zip(LIB));
    let text = text(&stoa, LIB).await;
    has(
        &text,
        &[
            "refused    .zip: ",
            &sent,
            &recorded,
            "asked for .zip: nobody while its verdict stands\n",
        ],
    );
}

#[tokio::test]
async fn offline_and_what_nobody_has_vouched_for() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    stoa.get(&format!("{BASE}.mod")).await.ok();
    drop(stoa);
    let stoa = setup.clone().offline().start();
    let offline = text(&stoa, LIB).await;
    has(
        &offline,
        &[
            "offline    yes",
            "refused    .zip: offline, not stored (404)\n",
            "asked for .mod: nobody, it is served from the store\n",
            "asked for .zip: nobody: the server is offline\n",
        ],
    );
    drop(stoa);

    world.upstream.fault("/sumdb/*", Fault::status(503));
    let dead = "http://127.0.0.1:9";
    let serving = setup
        .clone()
        .gosumdb(format!("{} {dead}", world.sumdb.verifier_key()))
        .env("STOA_SUMDB_ON_UNREACHABLE", "serve")
        .env("STOA_SUMDB_SERVE_AFTER", "100ms");
    let stoa = serving.start();
    stoa.get("ex.com/lib/@v/v1.1.0.mod").await.ok();
    let shown = explained(&stoa, "ex.com/lib@v1.1.0").await;
    let stored = file(&shown, "mod").stored.as_ref().unwrap();
    assert_eq!((stored.state.as_str(), stored.handed_out), ("unverified", true));
    assert!(stored.path.ends_with(".mod.unverified"), "{}", stored.path);
    has(&shown.refused.join("\n"), &[".mod: handed out although nobody has vouched for it yet"]);
    // Through the proxies only if the database itself does not answer, as GOSUMDB says here.
    assert_eq!(shown.checksums.roads[0].source, dead);
    drop(stoa);
    // It must be verified first where nothing else is said.
    let stoa = setup.start();
    let shown = explained(&stoa, "ex.com/lib@v1.1.0").await;
    assert!(!file(&shown, "mod").stored.as_ref().unwrap().handed_out);
    has(&shown.refused.join("\n"), &[".mod: withheld until the checksum database vouches for it"]);
}

#[tokio::test]
async fn a_dead_source_is_shown_with_its_breaker_and_its_stage() {
    let mut world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_CONNECT_TIMEOUT", "400ms");
    let stoa = setup.start();
    world.upstream.stop();
    stoa.get("ex.com/lib/@v/list").await.refused(502, "connect: connection refused");
    let shown = explained(&stoa, "ex.com/lib").await;
    let list = &shown.answers[0];
    has(&list.said[0].outcome, &["connect: connection refused"]);
    assert!(list.said[0].stages.iter().any(|stage| stage.stage == "connect"), "{list:?}");
    assert_ne!(shown.routing.chain[0].breaker.as_ref().unwrap().state, "closed");
    has(&text(&stoa, "ex.com/lib").await, &["; breaker ", ": connect: connection refused"]);
}

#[tokio::test]
async fn private_modules_are_for_those_who_may_see_them() {
    let world = World::new();
    let toml = format!(
        "[[route]]\npattern = \"ex.com/private\"\ngoproxy = \"{}\"\n",
        world.upstream.url()
    );
    let setup = settings(world.setup().env("STOA_GOPRIVATE", "ex.com/private"), toml);
    let stoa = setup.start();
    let hidden = async |subject: &str| {
        let reply = stoa.get(&format!("-/explain/{subject}")).await;
        reply.refused(404, "private, and not explained here\nhint: ask at server.admin-listen");
        let text = reply.text();
        text[..text.find("request id").unwrap()].to_owned()
    };
    let subjects = ["ex.com/private", "ex.com/private@v1.0.0", "ex.com/private@main"];
    let mut before = Vec::new();
    for subject in subjects {
        before.push(hidden(subject).await);
    }
    stoa.get("ex.com/private/@v/v1.0.0.zip").await.ok();
    let mut after = Vec::new();
    for subject in subjects {
        after.push(hidden(subject).await);
    }
    // Nobody learns whether it is stored.
    assert_eq!(before, after);
    let socket = setup.data_dir().join("stoa.sock");
    let target = "/-/explain/ex.com/private@v1.0.0";
    let (code, body) = get_over(&socket, target).await.unwrap();
    assert_eq!(code, 200);
    has(
        &body,
        &[
            "private    yes",
            "exempt by ex.com/private",
            ".zip       stored: exempt by ex.com/private",
        ],
    );
    drop(stoa);

    let stoa = setup.env("STOA_SERVER_ADMIN_LISTEN", "127.0.0.1:0").start();
    let admin = admin_url(&stoa);
    let there = stoa.send(client().get(format!("{admin}{target}"))).await;
    has(there.text(), &["cache/download/ex.com/private/@v/v1.0.0.zip"]);
    for page in [&target[1..], "-/explain/ex.com/lib", "-/explain"] {
        stoa.get(page).await.refused(404, "this server's pages are at another address");
    }
}

#[tokio::test]
async fn nonsense_is_answered_with_what_is_wrong() {
    let stoa = World::new().setup().env("STOA_SERVER_PATH_PREFIX", "/goproxy").start();
    let long = "x".repeat(4000);
    for (subject, words) in [
        ("", "hint: ask for /-/explain/MODULE"),
        ("/", "hint: ask for /-/explain/MODULE"),
        ("/lib", "lib: "),
        ("/ex.com/lib@", "ex.com/lib@: "),
        ("/ex.com/..%2f..%2fetc/passwd", "hint: "),
        ("/ex.com/lib@v2.0.0", "ex.com/lib@v2.0.0: "),
        ("/ex.com/!!", "ex.com/!!: "),
        ("/ex.com/%00@v1.0.0", "hint: "),
        ("/%ff%fe", "the name is no text"),
        ("/ex.com/%1b%5b31m", "hint: "),
        ("/@v1.0.0", "@v1.0.0: "),
        (&*format!("/{long}"), "hint: "),
        (&*format!("/ex.com/lib@{long}"), "hint: "),
    ] {
        let url = format!("{}/-/explain{subject}", stoa.url);
        let reply = stoa.send(client().get(url)).await;
        let is_module = reply.status == 200;
        assert!(!is_module || subject.ends_with(&long), "{subject}: {}", reply.text());
        if !is_module {
            reply.refused(400, words);
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
    let posted = stoa.send(client().post(format!("{}/-/explain/ex.com/lib", stoa.url))).await;
    posted.refused(405, "GET and HEAD only");
    stoa.get("-/explain/ex.com/lib").await.ok();
    stoa.get("-/inflight").await.ok();
    assert!(!stoa.log().contains("panicked"), "{}", stoa.log());
}

/// Some proxies have a token in their path.
#[tokio::test]
async fn where_modules_are_served_only_hosts_are_shown() {
    let world = World::new();
    let url = format!("{}/t0ken-of-ours/go", world.upstream.url());
    let setup =
        world.setup().goproxy(format!("{url},file:///srv/s3cret")).env("STOA_GOSUMDB", "off");
    let stoa = setup.start();
    stoa.get(&format!("{BASE}.info")).await;
    for subject in ["ex.com/lib", LIB] {
        let shown = text(&stoa, subject).await;
        has(&shown, &[&world.upstream.address().to_string(), "file"]);
        let json =
            String::from_utf8(stoa.get(&format!("-/explain/{subject}?format=json")).await.ok());
        for shown in [shown, json.unwrap()] {
            assert!(!shown.contains("t0ken") && !shown.contains("s3cret"), "{shown}");
        }
        let socket = setup.data_dir().join("stoa.sock");
        let (_, all) = get_over(&socket, &format!("/-/explain/{subject}")).await.unwrap();
        has(&all, &[&url, "file:///srv/s3cret"]);
    }
}
