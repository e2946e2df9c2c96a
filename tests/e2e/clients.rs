//! What a client can do to the server, and that the others notice nothing of it.

use std::time::{Duration, Instant};

use stoa_testkit::{FakeUpstream, Fault, Gate, Modules};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fixtures::{BASE, World, client, modules, noise, raw};
use crate::stoa::{Setup, Stoa};

const LARGE: &str = "ex.com/large/@v/v1.0.0.zip";
const LARGE_BYTES: usize = 8 << 20;

/// Far more than any bound that a test here sets.
const PATIENCE: Duration = Duration::from_secs(15);

/// An upstream with a module whose zip is more than the kernel keeps for a socket that nobody reads.
fn large() -> FakeUpstream {
    let files = [("go.mod", b"module ex.com/large\n".to_vec()), ("noise", noise(LARGE_BYTES))];
    FakeUpstream::start(Modules::default().with("ex.com/large@v1.0.0", files))
}

async fn connect(stoa: &Stoa) -> TcpStream {
    TcpStream::connect(stoa.address()).await.expect("a connection")
}

async fn ask(stoa: &Stoa, path: &str) -> TcpStream {
    let mut stream = connect(stoa).await;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request fits");
    stream
}

/// So many requests of others, one after the other: each is answered, and the slowest took so long.
async fn others(stoa: &Stoa, path: &str, requests: usize) -> Duration {
    let client = client();
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let began = Instant::now();
        let reply = client.get(format!("{}/{path}", stoa.url)).send().await.expect("an answer");
        assert_eq!(reply.status(), 200);
        reply.bytes().await.expect("a whole body");
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[tokio::test]
async fn it_may_leave_at_any_point() {
    let upstream = large();
    let stoa = Setup::new().goproxy(upstream.url()).start();
    let whole = stoa.get(LARGE).await.ok();
    for _ in 0..20 {
        // In the head, and in the body, with a word and without.
        let mut in_head = connect(&stoa).await;
        in_head.write_all(b"GET /ex.com/large/@v/li").await.unwrap();
        let mut in_body = ask(&stoa, LARGE).await;
        let mut piece = vec![0; 64 << 10];
        in_body.read_exact(&mut piece).await.unwrap();
        let mut reset = ask(&stoa, LARGE).await;
        reset.read_exact(&mut piece).await.unwrap();
        reset.set_zero_linger().unwrap();
    }
    assert!(stoa.get(LARGE).await.ok() == whole);
    assert!(!stoa.log().contains("panicked"), "{}", stoa.log());
}

/// The flight of a body that is on its way goes on when nobody waits for it any more, and is stored.
#[tokio::test]
async fn it_may_leave_while_the_body_comes() {
    let world = World::new();
    let gate = Gate::new();
    let path = format!("{BASE}.zip");
    world.upstream.fault(format!("/{path}"), Fault::gate_after(&gate, 50));
    let setup = world.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "20s");
    let stoa = setup.start();
    let left = ask(&stoa, &path).await;
    gate.wait_for_held(1).await;
    drop(left);
    gate.open();
    // Nobody asks for it until it is here.
    let sidecar = setup.data_dir().join("cache/download").join(format!("{BASE}.stoa"));
    let stored = async {
        while !sidecar.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("it is stored");
    assert!(stoa.get(&path).await.ok() == modules().zip("ex.com/lib@v1.0.0"));
    assert_eq!(world.upstream.count(format!("/{path}")), 1);
}

#[tokio::test]
async fn those_that_read_a_byte_now_and_then_hold_up_nobody() {
    let upstream = large();
    let setup = Setup::new().goproxy(upstream.url()).env("STOA_SERVER_WRITE_TIMEOUT", "1s");
    let stoa = setup.start();
    stoa.get(LARGE).await.ok();
    let mut slow = JoinSet::new();
    for _ in 0..32 {
        let mut stream = ask(&stoa, LARGE).await;
        slow.spawn(async move {
            let mut read = 0_usize;
            let mut byte = [0];
            // What the kernels have taken meanwhile is not the server's to take back; the end of it comes all the same.
            while stream.read_exact(&mut byte).await.is_ok() {
                read += 1;
                if read < 30 {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                } else {
                    let mut rest = Vec::new();
                    _ = stream.read_to_end(&mut rest).await;
                    return read + rest.len();
                }
            }
            read
        });
    }
    let slowest = others(&stoa, "ex.com/large/@v/v1.0.0.mod", 100).await;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let ended = async {
        while let Some(read) = slow.join_next().await {
            let read = read.unwrap();
            assert!(read < LARGE_BYTES, "it was not cut off: {read} bytes");
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.expect("they are given up");
}

#[tokio::test]
async fn many_headers_and_large_ones() {
    let stoa = Setup::new().start();
    let with = async |headers: &str| {
        let head =
            format!("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        let answer = raw(&stoa, head.as_bytes()).await;
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let many = |count: usize| "x: y\r\n".repeat(count);
    assert_eq!(with(&many(90)).await, "200");
    // With the two that every request has here.
    assert_eq!(with(&many(98)).await, "200");
    assert_eq!(with(&many(200)).await, "431");
    let large = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    assert_eq!(with(&large(2_000)).await, "200");
    // The end of it may be met by a connection that is closed already.
    let refused = with(&large(1 << 20)).await;
    assert!(refused == "431" || refused.is_empty(), "{refused}");
    assert_eq!(stoa.get("healthz").await.status, 200);
    let peak = memory_kib(&stoa, "VmHWM:");
    assert!(peak < 60 << 10, "{peak} KiB");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new();
    let stoa = world.setup().start();
    stoa.get(&format!("{BASE}.mod")).await.ok();
    let mut requests = Vec::new();
    for n in 0..50 {
        let path = match n % 3 {
            0 => "version".to_owned(),
            1 => format!("{BASE}.mod"),
            _ => format!("ex.com/lib/@v/v9.9.{n}.txt"),
        };
        let last = if n == 49 { "connection: close\r\n" } else { "" };
        requests.extend(
            format!("GET /{path} HTTP/1.1\r\nhost: x\r\nx-request-id: n{n}\r\n{last}\r\n").bytes(),
        );
    }
    let answers = raw(&stoa, &requests).await;
    let statuses: Vec<&str> =
        answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
    let expected: Vec<&str> = (0..50).map(|n| if n % 3 == 2 { "404" } else { "200" }).collect();
    assert_eq!(statuses, expected, "{answers}");
    let ids: Vec<_> =
        (0..50).filter_map(|n| answers.find(&format!("x-request-id: n{n}\r"))).collect();
    assert!(ids.len() == 50 && ids.is_sorted(), "{answers}");
}

/// Who asks for ever and takes no answer is not listened to for ever.
#[tokio::test]
async fn pipelined_requests_whose_answers_nobody_reads() {
    let stoa = Setup::new().env("STOA_SERVER_WRITE_TIMEOUT", "500ms").start();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let mut stream = socket.connect(stoa.address().parse().unwrap()).await.unwrap();
    let requests = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let mut sent = 0;
    let flood = async {
        while stream.write_all(&requests).await.is_ok() {
            sent += requests.len();
            assert!(sent < 64 << 20, "nothing has stopped it");
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("the connection is closed");
    let peak = memory_kib(&stoa, "VmHWM:");
    assert!(peak < 60 << 10, "{peak} KiB");
}

/// A head has one bound as a whole: a byte now and then does not start it anew.
#[tokio::test]
async fn a_head_that_drips_is_given_up() {
    let stoa = Setup::new().env("STOA_SERVER_HEADER_TIMEOUT", "500ms").start();
    let mut stream = connect(&stoa).await;
    let began = Instant::now();
    let dripping = async {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, dripping).await.expect("the connection is closed");
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

/// Nothing here reads the body of a request, so none may become the next request.
#[tokio::test]
async fn a_body_is_not_read_and_is_not_the_next_request() {
    let stoa = Setup::new().env("STOA_SERVER_HEADER_TIMEOUT", "500ms").start();
    let smuggled = "GET /version HTTP/1.1\r\nhost: x\r\n\r\n";
    let check = async |headers: &str, body: &str, statuses: &[&str]| {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n{body}");
        let answer = raw(&stoa, request.as_bytes()).await;
        let seen: Vec<&str> =
            answer.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
        assert!(statuses.contains(&seen.join(" ").as_str()), "{headers:?}: {answer}");
        assert!(
            !answer.contains("go1") && !answer.contains("\"version\""),
            "{headers:?}: {answer}"
        );
    };
    let length = format!("content-length: {}\r\n", smuggled.len());
    check(&length, smuggled, &["200"]).await;
    let chunked = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    check("transfer-encoding: chunked\r\n", &chunked, &["200"]).await;
    // Of two lengths one is a lie.
    check(&format!("{length}transfer-encoding: chunked\r\n"), &chunked, &["200", "400"]).await;
    check("content-length: 5\r\ncontent-length: 6\r\n", "", &["400"]).await;
    check("content-length: -1\r\n", "", &["400"]).await;
    // Promised and never sent: the answer does not wait for it, and the connection does not for ever.
    let began = Instant::now();
    check("content-length: 1000000000\r\n", "x", &["200"]).await;
    check("transfer-encoding: chunked\r\n", "5\r\nab", &["200"]).await;
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[tokio::test]
async fn absurd_ranges() {
    let world = World::new();
    let stoa = world.setup().start();
    for file in ["mod", "zip"] {
        let path = format!("{BASE}.{file}");
        let whole = stoa.get(&path).await.ok();
        let check = async |range: &str, status: u16, expected: &[u8]| {
            let reply = stoa.get_with(&path, &[("range", range)]).await;
            assert_eq!(reply.status, status, "{range:.60}");
            if status != 416 {
                assert!(reply.body == expected, "{range:.60}");
            }
        };
        let last = whole.len() - 1;
        check("bytes=0-0", 206, &whole[..1]).await;
        check(&format!("bytes={last}-"), 206, &whole[last..]).await;
        check("bytes=-1", 206, &whole[last..]).await;
        check("bytes=0-99999999999999999999", 206, &whole).await;
        check("bytes=-18446744073709551615", 206, &whole).await;
        check("bytes=18446744073709551615-", 416, &[]).await;
        check("bytes=-0", 416, &[]).await;
        // Several, none, and what is none at all: the whole.
        check(&format!("bytes={}0-0", "0-0,".repeat(1500)), 200, &whole).await;
        for range in ["bytes=5-1", "bytes=-", "bytes=", "bytes=a-b", "items=0-1", "bytes=0-0-0", ""]
        {
            check(range, 200, &whole).await;
        }
    }
}

/// Idle connections cost some memory each and nothing else.
#[tokio::test]
async fn two_thousand_idle_connections() {
    const IDLE: usize = 2000;

    raise_open_files(2 * IDLE as u64);
    let world = World::new();
    let stoa = world.setup().env("STOA_SERVER_HEADER_TIMEOUT", "60s").start();
    let path = format!("{BASE}.mod");
    stoa.get(&path).await.ok();
    let before = memory_kib(&stoa, "VmRSS:");
    let mut idle = Vec::with_capacity(IDLE);
    for n in 0..IDLE {
        // The kernel takes them in for the server; one without room there would ask again after a second.
        let began = Instant::now();
        let mut stream = connect(&stoa).await;
        let took = began.elapsed();
        assert!(took < Duration::from_millis(900), "connection {n} waited {took:?}");
        if n % 2 == 0 {
            // Kept alive behind an answer, as a browser or a build's client does.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        }
        idle.push(stream);
    }
    // Every one of those has had its answer.
    for stream in idle.iter_mut().step_by(2) {
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
    }
    let slowest = others(&stoa, &path, 50).await;
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let each = memory_kib(&stoa, "VmRSS:").saturating_sub(before) * 1024 / IDLE as u64;
    assert!(each < 24 << 10, "{each} bytes for each");
    eprintln!("an idle connection costs {each} bytes");
}

#[tokio::test]
async fn at_the_cap_others_wait_and_the_silent_are_sent_away() {
    let world = World::new();
    let setup = world.setup().env("STOA_SERVER_MAX_CONNECTIONS", 4);
    let stoa = setup.env("STOA_SERVER_HEADER_TIMEOUT", "1s").start();
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(connect(&stoa).await);
    }
    // In the kernel's queue, until the others are given up.
    let reply = tokio::time::timeout(PATIENCE, stoa.get("healthz")).await.expect("an answer");
    assert_eq!(reply.status, 200);
    let waited = began.elapsed();
    assert!(waited > Duration::from_millis(700), "there were more than four: {waited:?}");
    for mut one in silent {
        let mut rest = Vec::new();
        let end = tokio::time::timeout(PATIENCE, one.read_to_end(&mut rest)).await;
        assert!(end.expect("it is closed").is_err() || rest.is_empty(), "{rest:?}");
    }
}

/// A hit shares nothing with a miss: not a place at a source, not a flight, not a thread.
#[tokio::test]
async fn hits_do_not_wait_for_two_hundred_misses_that_hang() {
    const MISSES: usize = 200;

    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("/ex.com/cold*", Fault::gate(&gate));
    let setup = world.setup().env("STOA_UPSTREAM_FILE_TIMEOUT", "60s");
    let stoa = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s").start();
    let sumdb = world.sumdb.name();
    let hits = [
        format!("{BASE}.info"),
        format!("{BASE}.mod"),
        format!("{BASE}.zip"),
        "ex.com/lib/@v/list".to_owned(),
        "ex.com/lib/@latest".to_owned(),
        format!("sumdb/{sumdb}/lookup/ex.com/lib@v1.0.0"),
        format!("sumdb/{sumdb}/tile/8/0/000"),
        format!("sumdb/{sumdb}/supported"),
    ];
    for path in &hits {
        stoa.get(path).await.ok();
    }
    let client = client();
    let mut misses = JoinSet::new();
    for n in 0..MISSES {
        let file = ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "list"][n % 4];
        misses.spawn(client.get(format!("{}/ex.com/cold{n}/@v/{file}", stoa.url)).send());
    }
    // As many as the source has places hang there, the others before it.
    gate.wait_for_held(64).await;
    let mut times = Vec::new();
    for round in 0..50 {
        for path in &hits {
            let began = Instant::now();
            let reply = client.get(format!("{}/{path}", stoa.url)).send().await.unwrap();
            assert_eq!(reply.status(), 200, "{path} in round {round}");
            reply.bytes().await.unwrap();
            times.push(began.elapsed());
        }
    }
    assert!(misses.try_join_next().is_none(), "a miss was answered: nothing hung");
    assert_eq!(world.upstream.count("/ex.com/lib/*.zip"), 1);
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    // `just bench` measures it; this machine may have other things to do.
    assert!(p99 < Duration::from_millis(250), "p50 {p50:?}, p99 {p99:?}");
    gate.open();
    while let Some(miss) = misses.join_next().await {
        assert_eq!(miss.unwrap().unwrap().status(), 404);
    }
}

/// A field of the process's status, in KiB.
pub fn memory_kib(stoa: &Stoa, field: &str) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{}/status", stoa.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// As far as the system allows; the tests here need no more than it usually does.
fn raise_open_files(wanted: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < wanted) {
        let current = limit.maximum.map_or(wanted, |most| most.min(wanted));
        setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit }).unwrap();
    }
}
