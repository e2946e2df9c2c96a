//! Floods of names that nobody knows: they cost the upstream one request for each, the server a fixed room, the others
//! nothing; and a client may have a rate.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa_testkit::{FakeUpstream, Fault, Gate, Go, require_go};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::clients::memory_kib;
use crate::fixtures::{BASE, World, client, modules};
use crate::stoa::Stoa;

/// Unknown names, each asked for twice, as an https client does.
/// (20,000 behave alike: tried by hand, they take half a minute here.)
const NAMES: usize = 5_000;
const CLIENTS: usize = 8;

/// Asks for all of these over one connection, and wants this status of each.
async fn ask(stoa: &Stoa, paths: impl Iterator<Item = String>, status: &str) {
    let mut stream = TcpStream::connect(stoa.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![0; 16 << 10];
    for path in paths {
        let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = 0;
        let (head, length) = loop {
            let more = stream.read(&mut buffer[read..]).await.unwrap();
            assert!(more > 0, "the connection was closed");
            read += more;
            let Some(end) = buffer[..read].windows(4).position(|it| it == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            break (head.clone(), end + 4 + length.unwrap().parse::<usize>().unwrap());
        };
        stream.read_exact(&mut buffer[..length - read]).await.unwrap();
        assert_eq!(&head[9..12], status, "{path}: {head}");
    }
}

fn files_below(dir: &Path) -> usize {
    let Ok(entries) = fs_err::read_dir(dir) else { return 0 };
    let count = |entry: fs_err::DirEntry| {
        if entry.file_type().unwrap().is_dir() { files_below(&entry.path()) + 1 } else { 1 }
    };
    entries.flatten().map(count).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_unknown_names() {
    let world = World::new();
    // A tenth of what they would need.
    let setup = world.setup().env("STOA_CACHE_NEGATIVE_MEMORY", "256KiB");
    let setup = setup.env("STOA_LOG_LEVEL", "info,access=off");
    let setup = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s");
    let stoa = Arc::new(setup.start());
    let hit = format!("{BASE}.mod");
    stoa.get(&hit).await.ok();
    let before = (files_below(&setup.data_dir()), memory_kib(&stoa, "VmRSS:"));
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for who in 0..CLIENTS {
        let stoa = Arc::clone(&stoa);
        asking.spawn(async move {
            let names = (who..NAMES).step_by(CLIENTS);
            let twice = names.flat_map(|n| std::iter::repeat_n(n, 2));
            ask(&stoa, twice.map(|n| format!("ex.com/none{n}/@v/list")), "404").await;
        });
    }
    let client = client();
    let mut hits = Vec::new();
    while asking.try_join_next().is_none() {
        let began = Instant::now();
        let reply = client.get(format!("{}/{hit}", stoa.url)).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        hits.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(done) = asking.join_next().await {
        done.unwrap();
    }
    let took = began.elapsed();
    hits.sort_unstable();
    let (p50, p99) = (hits[hits.len() / 2], hits[hits.len() * 99 / 100]);
    let after = (files_below(&setup.data_dir()), memory_kib(&stoa, "VmRSS:"));
    eprintln!(
        "{NAMES} names in {took:?}; {} hits, p50 {p50:?}, p99 {p99:?}; {before:?} {after:?}",
        hits.len()
    );
    // Beyond the room some are forgotten before they are asked for again: names that were never asked for twice before.
    let asked = world.upstream.count("/ex.com/none*");
    assert!((NAMES..NAMES * 5 / 4).contains(&asked), "{asked}");
    assert_eq!(before.0, after.0, "files were written");
    assert!(after.1 < before.1 + (16 << 10), "{before:?} {after:?} KiB");
    assert!(p99 < Duration::from_millis(250), "{p99:?}");
    let log = stoa.log();
    assert!(log.lines().count() < 30, "{log}");
}

/// The go command asks for every prefix of a path; those who build the same ask for the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_prefix_probes() {
    let world = World::new();
    let setup = world.setup().env("STOA_LOG_LEVEL", "debug,access=off,hyper=info,sqlx=warn");
    let stoa = Arc::new(setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s").start());
    let paths = |packages: usize| {
        (0..packages).flat_map(|n| {
            ["", "/a", "/a/b", "/a/b/c"].map(|below| format!("ex.com/p{n}{below}/@v/list"))
        })
    };
    let mut asking = JoinSet::new();
    for _ in 0..CLIENTS {
        let stoa = Arc::clone(&stoa);
        asking.spawn(async move { ask(&stoa, paths(50), "404").await });
    }
    asking.join_all().await;
    let mut asked = world.upstream.request_lines();
    asked.retain(|line| line.contains("ex.com/p"));
    asked.sort_unstable();
    let twice: Vec<_> = asked.windows(2).filter(|two| two[0] == two[1]).collect();
    assert!(twice.is_empty() && asked.len() == 200, "{} {twice:?}", asked.len());
    let began = Instant::now();
    ask(&stoa, paths(50).cycle().take(4_000), "404").await;
    let took = began.elapsed();
    eprintln!("4,000 probes in {took:?}");
    assert_eq!(world.upstream.count("/ex.com/p*"), 200);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[tokio::test]
async fn a_client_has_a_rate_for_what_is_not_here() {
    let world = World::new();
    let setup = world.setup().env("STOA_SERVER_MISSES_PER_CLIENT", 1);
    let setup = setup.env("STOA_SERVER_TRUSTED_PROXIES", "127.0.0.1");
    let stoa = setup.env("STOA_CACHE_LIST_TTL", "0s").start();
    let of =
        async |client: &str, path: &str| stoa.get_with(path, &[("x-forwarded-for", client)]).await;
    for file in ["mod", "zip", "info"] {
        of("192.0.2.9", &format!("{BASE}.{file}")).await.ok();
    }
    let list = of("192.0.2.9", "ex.com/lib/@v/list").await.ok();
    let began = Instant::now();
    let mut refused = Vec::new();
    for n in 0..40 {
        let path = match n % 4 {
            0 => format!("ex.com/none{n}/@v/list"),
            1 => format!("ex.com/none{n}/@v/v1.0.0.mod"),
            2 => format!("ex.com/none{n}/@latest"),
            _ => format!("sumdb/{}/lookup/ex.com/none{n}@v1.0.0", world.sumdb.name()),
        };
        let reply = of("192.0.2.1", &path).await;
        if reply.status == 429 {
            reply.refused(429, "not looked for: this client asks for too much at once");
            reply.refused(429, "hint: ask again in a moment");
            assert_eq!(
                (reply.header("retry-after"), reply.header("cache-control")),
                ("1", "no-store")
            );
            refused.push(path);
        }
    }
    let more = began.elapsed().as_secs() as usize + 1;
    assert!(
        (30 - more..=30).contains(&refused.len()),
        "{} in {:?}",
        refused.len(),
        began.elapsed()
    );
    let none = refused.pop().unwrap();
    // What is here is served; of what is kept the last word is given.
    for file in ["mod", "zip", "info"] {
        of("192.0.2.1", &format!("{BASE}.{file}")).await.ok();
    }
    assert_eq!(of("192.0.2.1", "ex.com/lib/@v/list").await.ok(), list);
    of("192.0.2.1", "ex.com/none0/@v/list").await.refused(404, "not found");
    of("192.0.2.1", &format!("sumdb/{}/lookup/ex.com/lib@v1.0.0", world.sumdb.name())).await.ok();
    // Others have rates of their own; a network of IPv6 has one.
    assert_eq!(of("192.0.2.2", &none).await.status, 404);
    for n in 0..10 {
        let reply = of(&format!("2001:db8:0:1::{n}"), &format!("ex.com/six{n}/@v/list")).await;
        assert_eq!(reply.status, 404);
    }
    let path = "ex.com/six/@v/list";
    assert_eq!(of("2001:db8:0:1:ffff::1", path).await.status, 429);
    assert_eq!(of("2001:db8:0:2::1", path).await.status, 404);
    let log = stoa.log();
    assert_eq!(log.matches("server.misses-per-client allows").count(), 1, "{log}");
    assert!(log.contains("client=192.0.2.1 per_second=1"), "{log}");
    assert!(!log.contains("class=\"limited\""), "{log}");
    let metrics = stoa.get("metrics").await;
    let counted = "stoa_requests_total{kind=\"list\",outcome=\"limited\"}";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

/// Who joins what another has begun pays nothing.
#[tokio::test]
async fn company_is_free() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*.zip", Fault::gate(&gate));
    let setup = world.setup().env("STOA_SERVER_MISSES_PER_CLIENT", 1);
    let stoa = setup.env("STOA_UPSTREAM_FILE_TIMEOUT", "60s").start();
    let client = client();
    let mut waiting = JoinSet::new();
    for _ in 0..40 {
        waiting.spawn(client.get(format!("{}/{BASE}.zip", stoa.url)).send());
    }
    gate.wait_for_held(1).await;
    gate.open();
    for reply in waiting.join_all().await {
        assert_eq!(reply.unwrap().status(), 200);
    }
    assert_eq!(world.upstream.count("*.zip"), 1);
}

#[tokio::test]
async fn the_go_command_does_not_pass_a_busy_server_over_on_a_comma() {
    if !require_go() {
        return;
    }
    let world = World::new();
    let stoa = world.setup().env("STOA_SERVER_MISSES_PER_CLIENT", 1).start();
    // Somebody else at this address who goes on and on.
    let (url, client) = (stoa.url.clone(), client());
    let flood = tokio::spawn(async move {
        for n in 0.. {
            client.get(format!("{url}/ex.com/none{n}/@v/list")).send().await.unwrap();
        }
    });
    world.upstream.wait_for_requests("/ex.com/none*", 10).await;
    let other = FakeUpstream::start(modules());
    let go = |separator: &str| Go::new().goproxy(format!("{}{separator}{}", stoa.url, other.url()));
    let refused = go(",").fails(["mod", "download", "ex.com/lib@v1.1.0"]).await;
    assert!(refused.contains("429 Too Many Requests"), "{refused}");
    assert!(refused.contains("this client asks for too much at once"), "{refused}");
    assert_eq!(other.count("*"), 0);
    flood.abort();
}
