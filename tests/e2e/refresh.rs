//! Answers that change: how they age, who looks for newer ones, and what is known while nobody can be asked.

use std::time::{Duration, Instant};

use stoa_testkit::{Fault, Gate, Modules};

use crate::fixtures::{Reply, World, client};
use crate::stoa::{Setup, Stoa};

const LIST: &str = "ex.com/lib/@v/list";
const OLD: &str = "v1.0.0\nv1.1.0\nv1.2.0-rc.1\n";
const NEW: &str = "v1.0.0\nv1.1.0\nv1.2.0-rc.1\nv1.3.0\n";
const FRESH: [(&str, &str); 1] = [("cache-control", "no-cache")];
/// Longer than the time in which a question is taken for the echo of the one before.
const NO_ECHO: Duration = Duration::from_millis(550);

impl World {
    /// A version is tagged, and its checksum recorded.
    fn tag(&self, module_version: &str) {
        let path = module_version.split('@').next().unwrap();
        let text = format!(
            "-- {module_version}/go.mod --\nmodule {path}\n\ngo 1.21\n\
             -- {module_version}/new.go --\npackage new\n"
        );
        let modules = Modules::parse(&text);
        self.sumdb.append(&modules);
        self.upstream.publish(modules);
    }
}

/// Makes what the server keeps of an answer so much older, in seconds; between two servers, who remember it.
fn make_older(setup: &Setup, file: &str, seconds: i64) {
    let path = setup.data_dir().join("cache/answers").join(file);
    let answer = fs_err::read_to_string(&path).unwrap();
    let (head, body) = answer.split_once('\n').unwrap();
    let mut head: serde_json::Value = serde_json::from_str(head).unwrap();
    let fetched_at: jiff::Timestamp = head["fetched_at"].as_str().unwrap().parse().unwrap();
    let fetched_at = fetched_at - jiff::SignedDuration::from_secs(seconds);
    head["fetched_at"] = fetched_at.to_string().into();
    fs_err::write(&path, format!("{head}\n{body}")).unwrap();
}

/// A world, and a server in it that keeps a list of that age in seconds. The TTL is a minute.
async fn with_list_of_age(seconds: i64) -> (World, Setup, Stoa) {
    let world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1");
    let stoa = setup.start();
    assert_eq!(stoa.get(LIST).await.text(), OLD);
    stoa.stop();
    make_older(&setup, LIST, seconds);
    world.upstream.forget_requests();
    let stoa = setup.start();
    (world, setup, stoa)
}

/// Asks until the answer is what it must become.
async fn until(stoa: &Stoa, path: &str, arrived: impl Fn(&Reply) -> bool) -> Reply {
    let waiting = async {
        loop {
            let reply = stoa.get(path).await;
            if arrived(&reply) {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it becomes so")
}

/// No source answered, or was asked.
fn is_unanswered(reply: &Reply) -> bool {
    matches!(reply.status.as_u16(), 502 | 503)
}

#[tokio::test]
async fn a_list_in_use_is_renewed_before_it_ages_and_nobody_waits() {
    // Of two of its three last quarters of a minute, and of the second minute.
    for (age, max_age) in [(50, "public, max-age="), (90, "no-cache")] {
        let (world, _setup, stoa) = with_list_of_age(age).await;
        world.tag("ex.com/lib@v1.3.0");
        let gate = Gate::new();
        world.upstream.fault(format!("/{LIST}"), Fault::gate(&gate));
        let reply = stoa.get(LIST).await;
        assert!(reply.header("cache-control").starts_with(max_age), "{:?}", reply.headers);
        assert_ne!(reply.header("cache-control"), "public, max-age=60", "it says what is left");
        assert_eq!((reply.header("warning"), reply.text()), ("", OLD), "of {age} s");
        gate.wait_for_held(1).await;
        for _ in 0..10 {
            assert_eq!(stoa.get(LIST).await.text(), OLD);
        }
        gate.open();
        let new = until(&stoa, LIST, |reply| reply.text() == NEW).await;
        assert!(new.header("cache-control").starts_with("public, max-age="), "{:?}", new.headers);
        assert_eq!(world.upstream.count(format!("/{LIST}")), 1, "one look for all who asked");
    }
    // What is young is not looked at.
    let (world, _setup, stoa) = with_list_of_age(20).await;
    assert_eq!(stoa.get(LIST).await.text(), OLD);
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_look_that_fails_leaves_what_is_kept() {
    let (mut world, _setup, stoa) = with_list_of_age(90).await;
    world.upstream.stop();
    assert_eq!(stoa.get(LIST).await.header("warning"), "");
    // Then it is known that nobody answers, and not tried again for a while.
    let stale = until(&stoa, LIST, |reply| !reply.header("warning").is_empty()).await;
    assert!(stale.header("warning").starts_with("110"), "{:?}", stale.headers);
    assert_eq!((stale.header("cache-control"), stale.text()), ("no-cache", OLD));
    world.upstream.resume();
    assert!(stoa.get(LIST).await.header("warning").starts_with("110"));
    assert_eq!(world.upstream.count(format!("/{LIST}")), 0);
}

#[tokio::test]
async fn a_list_older_than_twice_its_ttl_is_waited_for_and_not_for_long() {
    let (world, _setup, stoa) = with_list_of_age(130).await;
    world.tag("ex.com/lib@v1.3.0");
    assert_eq!(stoa.get(LIST).await.text(), NEW);

    let (world, _setup, stoa) = with_list_of_age(130).await;
    world.upstream.fault(format!("/{LIST}"), Fault::hang());
    let started = Instant::now();
    let stale = stoa.get(LIST).await;
    assert!(stale.header("warning").starts_with("110"), "{:?}", stale.headers);
    assert_eq!(stale.text(), OLD);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_source_that_hangs_costs_those_who_read_a_list_one_wait() {
    let (world, setup, stoa) = with_list_of_age(130).await;
    drop(stoa);
    world.upstream.fault(format!("/{LIST}"), Fault::hang());
    let stoa = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s").start();
    assert_eq!(stoa.get(LIST).await.text(), OLD);
    let started = Instant::now();
    for _ in 0..20 {
        let stale = stoa.get(LIST).await;
        assert!(stale.header("warning").starts_with("110"), "{:?}", stale.headers);
        assert_eq!(stale.text(), OLD);
    }
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(world.upstream.count(format!("/{LIST}")), 1);
}

#[tokio::test]
async fn that_it_is_gone_is_newer_than_what_is_kept() {
    let (mut world, setup, stoa) = with_list_of_age(50).await;
    world.upstream.fault(format!("/{LIST}"), Fault::status(410).text("gone"));
    assert_eq!(stoa.get(LIST).await.text(), OLD);
    let gone = until(&stoa, LIST, |reply| reply.status != 200).await;
    gone.refused(404, "gone");
    world.upstream.stop();
    stoa.get(LIST).await.refused(404, "gone");
    // A server that does not remember it any more has the list of earlier.
    stoa.stop();
    assert_eq!(setup.start().get(LIST).await.text(), OLD);
}

#[tokio::test]
async fn a_client_may_ask_for_a_fresh_look() {
    let mut world = World::new();
    let stoa = world.setup().env("STOA_UPSTREAM_TRIES", "1").start();
    let files = [LIST, "ex.com/lib/@latest", "ex.com/lib/@v/main.info", "ex.com/new/@v/list"];
    for file in &files[..3] {
        stoa.get(file).await.ok();
    }
    stoa.get(files[3]).await.refused(404, "not found");
    let main = r#"{"Version":"v1.3.0"}"#;
    world.tag("ex.com/lib@v1.3.0");
    world.tag("ex.com/new@v1.0.0");
    world.upstream.publish(Modules::parse(&format!("-- ex.com/lib@main.info --\n{main}")));
    world.upstream.forget_requests();
    for file in &files[..3] {
        assert!(!stoa.get(file).await.text().contains("v1.3.0"), "{file}");
    }
    stoa.get(files[3]).await.refused(404, "not found");
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
    for (file, words) in files.iter().zip(["v1.3.0", "v1.3.0", "v1.3.0", "v1.0.0"]) {
        let looked = stoa.get_with(file, &FRESH).await;
        assert!(looked.text().contains(words), "{file}: {}", looked.text());
        // Others have it from then on.
        assert!(stoa.get(file).await.text().contains(words), "{file}");
        assert_eq!(world.upstream.count(format!("/{file}")), 1, "{file}");
    }

    // It is no way to hammer an upstream.
    let started = Instant::now();
    for _ in 0..40 {
        assert_eq!(stoa.get_with(LIST, &FRESH).await.text(), NEW);
    }
    let most = 3 + started.elapsed().as_secs() as usize + 1;
    let asked = world.upstream.count(format!("/{LIST}"));
    assert!((2..=most).contains(&asked), "{asked} times, where {most} are the most");

    // What is stored for ever is not asked for, and what nobody can answer is answered as before.
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    world.upstream.stop();
    stoa.get_with("ex.com/lib/@v/v1.0.0.mod", &FRESH).await.ok();
    let stale = stoa.get_with("ex.com/lib/@v/main.info", &FRESH).await;
    assert!(stale.header("warning").starts_with("110"), "{:?}", stale.headers);
    assert_eq!(stale.text().trim_end(), main);
}

#[tokio::test]
async fn a_fresh_look_is_none_that_began_before() {
    let world = World::new();
    let stoa = world.setup().env("STOA_UPSTREAM_LIST_TIMEOUT", "15s").start();
    let gate = Gate::new();
    // What it says is settled when it is asked, however late it arrives.
    world.upstream.fault(format!("/{LIST}"), Fault::gate(&gate).first(1));
    let before = tokio::spawn(client().get(format!("{}/{LIST}", stoa.url)).send());
    gate.wait_for_held(1).await;
    world.tag("ex.com/lib@v1.3.0");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let fresh = client().get(format!("{}/{LIST}", stoa.url)).header("cache-control", "no-cache");
    let fresh = tokio::spawn(fresh.send());
    // The server has it, and lets it wait for the look that is under way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(world.upstream.count(format!("/{LIST}")), 1);
    gate.open();
    assert_eq!(before.await.unwrap().unwrap().text().await.unwrap(), OLD);
    assert_eq!(fresh.await.unwrap().unwrap().text().await.unwrap(), NEW);
    assert_eq!(world.upstream.count(format!("/{LIST}")), 2);
}

#[tokio::test]
async fn a_version_that_was_just_tagged_is_found_at_once() {
    let world = World::new();
    // Long enough that none of it ends by itself.
    let setup = world.setup().env("STOA_CACHE_NEGATIVE_VERSION_TTL", "1h");
    let stoa = setup.env("STOA_CACHE_NEGATIVE_TTL", "1h").env("STOA_CACHE_LIST_TTL", "1h").start();
    let files = ["info", "mod", "zip"].map(|file| format!("ex.com/lib/@v/v1.3.0.{file}"));
    assert_eq!(stoa.get(LIST).await.text(), OLD);
    assert!(stoa.get("ex.com/lib/@latest").await.text().contains("v1.1.0"));
    let lookup = format!("sumdb/{}/lookup/ex.com/lib@v1.3.0", world.sumdb.name());
    for file in files.iter().chain([&lookup]) {
        stoa.get(file).await.refused(404, "");
    }
    world.tag("ex.com/lib@v1.3.0");
    tokio::time::sleep(NO_ECHO).await;
    for file in &files {
        stoa.get(file).await.ok();
    }
    // It is listed, and what is kept is renewed, although it was fresh for an hour.
    assert_eq!(stoa.get(LIST).await.text(), NEW);
    world.upstream.wait_for_requests(&format!("/{LIST}"), 2).await;
    until(&stoa, "ex.com/lib/@latest", |reply| reply.text().contains("v1.3.0")).await;

    // A module of which nothing was known.
    let new = ["ex.com/new/@v/list", "ex.com/new/@v/v1.0.0.info", "ex.com/new/@latest"];
    for file in new {
        stoa.get(file).await.refused(404, "not found");
    }
    world.tag("ex.com/new@v1.0.0");
    tokio::time::sleep(NO_ECHO).await;
    stoa.get(new[0]).await.refused(404, "not found");
    stoa.get(new[1]).await.ok();
    assert_eq!(stoa.get(new[0]).await.text(), "v1.0.0\n");
    assert!(stoa.get(new[2]).await.text().contains("v1.0.0"));
}

#[tokio::test]
async fn absent_versions_are_asked_for_at_a_measured_rate() {
    let world = World::new();
    let stoa = world.setup().env("STOA_CACHE_NEGATIVE_VERSION_TTL", "1h").start();
    let version = |n: usize| format!("ex.com/lib/@v/v1.9.{n}.info");
    let started = Instant::now();
    while started.elapsed() < 2 * NO_ECHO {
        for n in 0..10 {
            stoa.get(&version(n)).await.refused(404, "not found");
        }
    }
    // Each once, and then the burst and one a second for all of the module.
    let most = 10 + 9 + started.elapsed().as_secs() as usize + 1;
    let asked = world.upstream.count("*/v1.9.*.info");
    assert!((11..=most).contains(&asked), "{asked} times, where {most} are the most");
}

#[tokio::test]
async fn an_absence_is_known_while_nobody_can_be_asked() {
    let mut world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1");
    let setup = setup.env("STOA_CACHE_NEGATIVE_VERSION_TTL", "0s");
    let stoa = setup.env("STOA_CACHE_NEGATIVE_TTL", "0s").start();
    let absent = [
        "ex.com/none/@v/list",
        "ex.com/none/@latest",
        "ex.com/none/@v/main.info",
        "ex.com/none/@v/v1.0.0.info",
        "ex.com/none/@v/v1.0.0.mod",
        "ex.com/none/@v/v1.0.0.zip",
    ];
    for file in absent {
        stoa.get(file).await.refused(404, "not found");
    }
    world.upstream.stop();
    for file in absent {
        let reply = stoa.get(file).await;
        reply.refused(404, "ago; no source answers now");
        assert_eq!(reply.header("cache-control"), "no-store", "{file}");
        // The second is for the failure that is remembered.
        stoa.get_with(file, &FRESH).await.refused(404, "ago; no source answers now");
    }
    // Of what was never asked, nothing is known.
    for file in ["ex.com/other/@v/list", "ex.com/none/@v/v1.0.1.mod"] {
        assert!(is_unanswered(&stoa.get(file).await), "{file}");
    }
    world.upstream.resume();
    world.tag("ex.com/none@v1.0.0");
    for file in ["ex.com/none/@v/v1.0.0.mod", "ex.com/none/@v/list"] {
        until(&stoa, file, |reply| reply.status == 200).await;
    }
    // What has come is not absent any more, whoever is down.
    world.upstream.stop();
    stoa.get("ex.com/none/@v/list").await.ok();
    stoa.get("ex.com/none/@v/v1.0.0.zip").await.refused(404, "ago; no source answers now");
}

#[tokio::test]
async fn what_a_source_has_is_not_absent_because_nobody_vouches_for_it_now() {
    let mut world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1");
    let stoa = setup.env("STOA_CACHE_NEGATIVE_VERSION_TTL", "0s").start();
    let file = "ex.com/new/@v/v1.0.0.mod";
    world.upstream.fault("/sumdb/*", Fault::status(500));
    stoa.get(file).await.refused(404, "not found");
    world.tag("ex.com/new@v1.0.0");
    tokio::time::sleep(NO_ECHO).await;
    assert!(is_unanswered(&stoa.get(file).await));
    world.upstream.stop();
    assert!(is_unanswered(&stoa.get(file).await));
}

/// Runs `stoa refresh` beside the server: its exit code, and what it says to either side.
async fn refresh(setup: &Setup, subjects: &[&str]) -> (i32, String, String) {
    let mut command = setup.command(&["refresh"]);
    command.args(subjects);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_person_has_the_server_look_anew() {
    let mut world = World::new();
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1").env("STOA_CACHE_LIST_TTL", "1h");
    let setup = setup.env("STOA_CACHE_NEGATIVE_TTL", "1h");
    let setup = setup.env("STOA_CACHE_NEGATIVE_VERSION_TTL", "1h");
    let stoa = setup.start();
    let (code, said, error) = refresh(&setup, &["ex.com/lib", "ex.com/old"]).await;
    assert_eq!(
        (code, said.as_str(), error.as_str()),
        (
            0,
            "ex.com/lib: list 3 versions, up to v1.2.0-rc.1; @latest v1.1.0\n\
             ex.com/old: list 1 version, up to v2.0.0+incompatible; @latest v2.0.0+incompatible\n",
            ""
        )
    );
    // What is remembered: absences, a branch, a refusal.
    let main = "ex.com/lib/@v/main.info";
    stoa.get(main).await.ok();
    stoa.get("ex.com/new/@v/list").await.refused(404, "not found");
    stoa.get("ex.com/lib/@v/v1.3.0.info").await.refused(404, "not found");
    let forged = stoa_testkit::zip_of([("ex.com/lib@v1.0.0/go.mod", "module ex.com/lib\n")]);
    world.upstream.fault("*.zip", Fault::replace(forged));
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.refused(403, "checksum mismatch");
    world.upstream.clear_faults();
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.refused(403, "checksum mismatch");

    let (code, said, _) = refresh(&setup, &["ex.com/new"]).await;
    assert_eq!((code, &*said), (1, "ex.com/new: list not found; @latest not found\n"));
    world.tag("ex.com/lib@v1.3.0");
    world.tag("ex.com/new@v1.0.0");
    let text = "-- ex.com/lib@main.info --\n{\"Version\":\"v1.3.0\"}\n";
    world.upstream.publish(Modules::parse(text));
    tokio::time::sleep(NO_ECHO).await;
    let (code, said, _) = refresh(&setup, &["ex.com/new@latest", "ex.com/lib@v1.3.0"]).await;
    assert_eq!(
        (code, &*said),
        (
            0,
            "ex.com/new: list 1 version, up to v1.0.0; @latest v1.0.0\n\
             ex.com/lib@v1.3.0: .info fetched; .mod fetched; list 4 versions, up to v1.3.0; \
             @latest v1.3.0\n"
        )
    );
    assert_eq!(stoa.get(LIST).await.text(), NEW);
    assert!(stoa.get(main).await.text().contains("v1.3.0"), "it is looked at anew too");
    stoa.get("ex.com/lib/@v/v1.0.0.zip").await.ok();
    let (code, said, _) = refresh(&setup, &["ex.com/lib@main", "ex.com/lib@v1.3.0"]).await;
    assert_eq!(code, 0);
    assert!(said.contains("ex.com/lib@main: main v1.3.0; list 4 versions"), "{said}");
    assert!(
        said.contains("ex.com/lib@v1.3.0: .info stored already; .mod stored already"),
        "{said}"
    );

    // While nobody answers nothing is lost by it.
    world.upstream.stop();
    let (code, said, _) = refresh(&setup, &["ex.com/lib", "ex.com/lib@v1.3.0"]).await;
    assert_eq!(code, 1);
    assert!(said.contains("ex.com/lib: list ex.com/lib (list of versions): no source"), "{said}");
    assert_eq!(stoa.get(LIST).await.text(), NEW);
    stoa.get("ex.com/lib/@v/v1.3.0.mod").await.ok();
}

#[tokio::test]
async fn a_refresh_that_cannot_be() {
    let world = World::new();
    let setup = world.setup();
    let (code, _, error) = refresh(&setup, &["ex.com/lib"]).await;
    assert_eq!(code, 1);
    assert!(error.contains("no server runs on ") && error.lines().count() == 1, "{error}");
    // One that was killed leaves its socket.
    setup.start().kill();
    let (code, _, error) = refresh(&setup, &["ex.com/lib"]).await;
    assert!(code == 1 && error.contains("no server runs on "), "{error}");
    for wrong in [&["ex.com/lib", "not a module"][..], &["ex.com/lib@v2.0.0"], &[]] {
        assert_eq!(refresh(&setup, wrong).await.0, 2, "{wrong:?}");
    }
    let offline = setup.clone().offline();
    let _stoa = offline.start();
    let (code, said, _) = refresh(&setup, &["ex.com/lib", "github.com/x"]).await;
    assert_eq!(code, 1);
    assert!(said.starts_with("ex.com/lib: the server is offline\n"), "{said}");
    assert!(said.contains("github.com/x: not found: "), "{said}");
    assert_eq!(world.upstream.request_lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_probe_that_nobody_answers_is_taken_for_a_directory_of_a_stored_module() {
    let mut world = World::new();
    let nested = "ex.com/lib/nested@v1.0.0";
    world.tag(nested);
    let setup = world.setup().env("STOA_UPSTREAM_TRIES", "1");
    let stoa = setup.start();
    // Of one only the go.mod is stored, as a build leaves it that needs no more; of the other only the .zip.
    stoa.get("ex.com/lib/@v/v1.0.0.mod").await.ok();
    world.upstream.fault("*.info", Fault::status(403));
    world.upstream.fault("*/old/*.mod", Fault::status(403));
    stoa.get("ex.com/old/@v/v2.0.0+incompatible.zip").await.ok();
    stoa.get("ex.com/lib/nested/@v/v1.0.0.mod").await.ok();
    world.upstream.stop();
    let probe = async |file: &str, module: Option<&str>| match module {
        Some(module) => {
            let reply = stoa.get(file).await;
            reply.refused(404, &format!("which has {module}; no source answered"));
            assert_eq!(reply.header("cache-control"), "no-store", "{file}");
        }
        None => assert!(is_unanswered(&stoa.get(file).await), "{file}"),
    };
    probe("ex.com/lib/sub/@v/list", Some("ex.com/lib")).await;
    probe("ex.com/lib/sub/deeper/@v/list", Some("ex.com/lib")).await;
    probe("ex.com/old/sub/@latest", Some("ex.com/old")).await;
    probe("ex.com/old/sub/@v/main.info", Some("ex.com/old")).await;
    probe("ex.com/lib/nested/sub/@v/list", Some("ex.com/lib/nested")).await;
    // The longest that is stored, in the version that is asked for.
    probe("ex.com/lib/nested/sub/@v/v1.0.0.info", Some("ex.com/lib/nested@v1.0.0")).await;
    probe("ex.com/lib/sub/@v/v1.0.0.info", Some("ex.com/lib@v1.0.0")).await;
    probe("ex.com/lib/sub/@v/v1.1.0.info", None).await;
    probe("ex.com/lib/v2/@v/v2.0.0.info", None).await;
    // A build that needs it needs the module itself.
    probe("ex.com/lib/sub/@v/v1.0.0.mod", None).await;
    probe("ex.com/lib/sub/@v/v1.0.0.zip", None).await;
    // What is known to be a module is no directory of another; what is shorter or beside it is not known.
    probe("ex.com/lib/nested/@v/main.info", None).await;
    probe("ex.com/lib/nested/@v/v1.1.0.info", None).await;
    probe("ex.com/@v/list", None).await;
    probe("ex.com/libs/@v/list", None).await;
}
