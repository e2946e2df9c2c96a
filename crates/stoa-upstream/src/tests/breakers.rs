//! Hosts that are dead, silent, broken or merely slow: what they cost, and how they come back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::server::{Asked, Do, Server, ok, redirect, reply};
use super::{AMPLE, client, settings, short, source};
use crate::dns::{Addrs, Name, Resolve, Resolving};
use crate::{Bounds, BreakerState, BreakerStatus, Client, Failure, HostCounters, Settings, Use};

/// The shortest silence that says something is half a second.
const BOUND: Duration = Duration::from_millis(700);
const BRIEF: Bounds = Bounds { header: BOUND, ..AMPLE };

/// Probes come soon.
fn keen() -> Settings {
    Settings {
        connect_timeout: Duration::from_millis(300),
        probe_pause: Duration::from_millis(40),
        ..settings()
    }
}

/// The first probe comes after this test.
fn lazy() -> Settings {
    Settings { connect_timeout: Duration::from_millis(300), ..settings() }
}

async fn ask(client: &Client, url: &str, module: &str) -> Result<(), Failure> {
    let path = format!("{module}/@v/list");
    client.get(&source(url), Use::Modules, &path, &BRIEF, "").await.map(drop)
}

fn only(client: &Client) -> BreakerStatus {
    let mut all = client.breakers();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn counted(client: &Client, used_for: Use) -> HostCounters {
    client.counters().into_iter().find(|counters| counters.used_for == used_for).unwrap()
}

fn requests(counters: &HostCounters, outcome: &str) -> u64 {
    counters.requests.iter().find(|(name, _)| *name == outcome).unwrap().1
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_closed_port_is_tried_once() {
    let client = Client::new(lazy()).unwrap();
    let url = format!("http://{}", closed_port().await);
    let refused = "unavailable connect 3: connect: connection refused";
    assert_eq!(short(&ask(&client, &url, "a").await.unwrap_err()), refused);
    let failure = ask(&client, &url, "b").await.unwrap_err();
    let text = short(&failure);
    let not_asked = "unavailable connect 0: not asked: connect: connection refused ";
    assert!(text.starts_with(not_asked), "{text}");
    assert!(text.contains(" ago; next try in ") || text.ends_with(" ago; it is being tried"));
    assert_eq!(failure.retry_after, Some(Duration::from_secs(1)));
    // Who waits for something else learns of it too.
    let failure = client.refusing(&source(&url), Use::Modules, "c/@v/list").await;
    assert_eq!(failure.tries, 0);

    let BreakerStatus { host, used_for, state, reason, since, .. } = only(&client);
    assert_eq!((host.as_str(), used_for), (&url["http://".len()..], Use::Modules));
    assert_eq!(state, BreakerState::Open);
    assert_eq!(reason.as_deref(), Some("connect: connection refused"));
    assert!(since.is_some_and(|since| since <= jiff::Timestamp::now()));
    let counters = counted(&client, Use::Modules);
    assert_eq!((requests(&counters, "unavailable"), requests(&counters, "refused")), (1, 2));
    assert_eq!((counters.retries, counters.opened), (2, 1));

    // For another use, and another host, nothing is known.
    let of = source(&url);
    let failure = client.get(&of, Use::Database, "latest", &BRIEF, "").await.unwrap_err();
    assert_eq!(short(&failure), refused);
    let alive = Server::start(|_, _| ok(b"found")).await;
    ask(&client, &alive.url(), "a").await.unwrap();
    let states: Vec<_> = client.breakers().into_iter().map(|breaker| breaker.state).collect();
    assert_eq!(states.iter().filter(|state| **state == BreakerState::Closed).count(), 1);
}

#[tokio::test]
async fn breakers_can_be_switched_off() {
    let client = Client::new(Settings { breakers: false, ..lazy() }).unwrap();
    let url = format!("http://{}", closed_port().await);
    for _ in 0..2 {
        assert_eq!(ask(&client, &url, "a").await.unwrap_err().tries, 3);
    }
    assert_eq!(only(&client).state, BreakerState::Closed);
    assert_eq!(requests(&counted(&client, Use::Modules), "unavailable"), 2);
}

/// Knows a name or does not.
#[derive(Clone, Default)]
struct Changing(Arc<Mutex<Option<SocketAddr>>>);

impl Resolve for Changing {
    fn resolve(&self, _: Name) -> Resolving {
        let known = *self.0.lock().unwrap();
        Box::pin(async move {
            match known {
                Some(addr) => Ok(Box::new([addr].into_iter()) as Addrs),
                None => Err(Box::new(std::io::Error::other("unknown")) as _),
            }
        })
    }
}

#[tokio::test]
async fn a_name_that_is_found_again() {
    let server = Server::start(|_, _| reply(502, "", b"")).await;
    let names = Changing::default();
    let client = Client::with_resolver(keen(), Arc::new(names.clone())).unwrap();
    let url = format!("http://gone.test:{}", server.addr().port());
    assert_eq!(
        short(&ask(&client, &url, "a").await.unwrap_err()),
        "unavailable dns 1: dns: unknown"
    );
    assert_eq!(ask(&client, &url, "a").await.unwrap_err().tries, 0);
    until("it is probed", || counted(&client, Use::Modules).probes > 1).await;
    assert_ne!(only(&client).state, BreakerState::Closed);
    *names.0.lock().unwrap() = Some(server.addr());
    // Whatever it answers, it can be reached.
    until("it is found", || only(&client).state == BreakerState::Closed).await;
    assert_eq!(server.asked().iter().map(Asked::target).collect::<Vec<_>>(), ["/"]);
}

#[tokio::test]
async fn a_silent_host_costs_its_wait_once() {
    let server = Server::start(|_, _| vec![Do::Stall]).await;
    let client = Client::new(lazy()).unwrap();
    let url = server.url();
    let began = Instant::now();
    let (first, second) = tokio::join!(ask(&client, &url, "a"), async {
        // It begins when the first has waited for a while.
        tokio::time::sleep(BOUND / 2).await;
        let began = Instant::now();
        (ask(&client, &url, "b").await, began.elapsed())
    });
    assert_eq!(short(&first.unwrap_err()), "timeout http 1: http: timeout after 700 ms");
    let (second, waited) = second;
    let second = short(&second.unwrap_err());
    assert!(second.starts_with("unavailable http 1: given up after "), "{second}");
    assert!(second.contains("no answer to anything (http: timeout after "), "{second}");
    assert!(waited < BOUND, "{waited:?}");
    assert!(began.elapsed() < BOUND * 2, "{:?}", began.elapsed());
    let third = ask(&client, &url, "c").await.unwrap_err();
    assert_eq!(third.tries, 0);
    let mut asked: Vec<_> = server.asked().iter().map(|asked| asked.target().to_owned()).collect();
    asked.sort();
    // The question that settled it tells no name.
    assert_eq!(asked, ["/", "/a/@v/list", "/b/@v/list"]);
}

/// Says nothing about these modules and answers everything else with 404.
fn slow_for(
    modules: &'static [&'static str],
    is_slow: &Arc<AtomicBool>,
) -> impl Fn(&Asked, usize) -> Vec<Do> + use<> {
    let is_slow = Arc::clone(is_slow);
    move |asked, _| {
        let is_meant = modules.iter().any(|module| asked.target().contains(module));
        if is_meant && is_slow.load(Ordering::SeqCst) {
            vec![Do::Stall]
        } else {
            reply(404, "", b"")
        }
    }
}

#[tokio::test]
async fn one_slow_module_never_opens_it() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let server = Server::start(slow_for(&["slow"], &is_slow)).await;
    let client = Client::new(lazy()).unwrap();
    let url = server.url();
    for _ in 0..2 {
        for failure in ask_all(&client, &url, ["slow"; 3]).await {
            assert_eq!(short(&failure), "timeout http 1: http: timeout after 700 ms");
        }
    }
    assert_eq!(only(&client).state, BreakerState::Closed);
    assert!(counted(&client, Use::Modules).probes > 0);
    assert_eq!(ask(&client, &url, "other").await.unwrap_err().tries, 1);
}

/// At once.
async fn ask_all(client: &Client, url: &str, modules: [&'static str; 3]) -> Vec<Failure> {
    let asking = modules.map(|module| {
        let (client, url) = (client.clone(), url.to_owned());
        async move { ask(&client, &url, module).await.unwrap_err() }
    });
    asking.into_iter().collect::<JoinSet<_>>().join_all().await
}

#[tokio::test]
async fn three_silent_modules_open_it_and_cannot_keep_it_open_for_others() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let server = Server::start(slow_for(&["/m1", "/m2", "/m3"], &is_slow)).await;
    let client = Client::new(keen()).unwrap();
    let url = server.url();
    for Failure { detail, .. } in ask_all(&client, &url, ["m1", "m2", "m3"]).await {
        assert!(
            detail.starts_with("http: timeout after ") || detail.starts_with("given up after ")
        );
    }
    let failure = ask(&client, &url, "m4").await.unwrap_err();
    let text = short(&failure);
    let expected = "unavailable http 0: not asked: no answer for 3 different modules (http: timeout after 700 ms) ";
    assert!(text.starts_with(expected), "{text}");
    // What was refused is what the probe asks.
    until("it closes", || only(&client).state == BreakerState::Closed).await;
    assert_eq!(server.asked().last().unwrap().target(), "/m4/@v/list");
    assert_eq!(short(&ask(&client, &url, "m4").await.unwrap_err()), "not_found http 1: http 404");
}

#[tokio::test]
async fn a_run_of_5xx_opens_it_and_a_request_that_pauses_notices() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let server = Server::start({
        let is_broken = Arc::clone(&is_broken);
        move |asked, _| match asked.target() {
            _ if !is_broken.load(Ordering::SeqCst) => ok(b"found"),
            "/" => ok(b"a fine page"),
            "/pausing/@v/list" => reply(503, "Retry-After: 4\r\n", b""),
            _ => reply(500, "", b""),
        }
    })
    .await;
    let client = Client::new(keen()).unwrap();
    let url = server.url();
    // One broken module is not a broken host.
    for _ in 0..8 {
        assert_eq!(
            short(&ask(&client, &url, "a").await.unwrap_err()),
            "unavailable http 1: http 500"
        );
    }
    let began = Instant::now();
    let long = Bounds { header: Duration::from_secs(20), ..AMPLE };
    let at = source(&url);
    let (pausing, ()) =
        tokio::join!(client.get(&at, Use::Modules, "pausing/@v/list", &long, ""), async {
            until("the first try", || server.asked().len() > 8).await;
            for module in ["b", "c"] {
                assert_eq!(ask(&client, &url, module).await.unwrap_err().tries, 1);
            }
        });
    assert_eq!(short(&pausing.unwrap_err()), "unavailable http 1: http 503");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let text = short(&ask(&client, &url, "d").await.unwrap_err());
    let expected = "unavailable http 0: not asked: 10 failures in a row, the last: http 500 ";
    assert!(text.starts_with(expected), "{text}");
    is_broken.store(false, Ordering::SeqCst);
    until("it closes", || only(&client).state == BreakerState::Closed).await;
    ask(&client, &url, "d").await.unwrap();
    assert!(!server.asked().iter().any(|asked| asked.target() == "/"));
}

#[tokio::test]
async fn where_a_redirect_leads_is_not_the_hosts_fault() {
    let gone = closed_port().await;
    let server = Server::start(move |_, _| redirect(&format!("http://{gone}/x"))).await;
    let client = Client::new(lazy()).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&client, &server.url(), "a").await.unwrap_err().tries, 3);
    }
    assert_eq!(only(&client).state, BreakerState::Closed);
}

#[tokio::test]
async fn the_database_is_asked_for_what_every_database_has() {
    let server = Server::start(|_, _| vec![Do::Stall]).await;
    let at = source(&server.url());
    let direct = "lookup/ex.com/m@v1.0.0";
    let proxied = "sumdb/sum.test/lookup/ex.com/m@v1.0.0";
    for (path, neutral) in [(direct, "/latest"), (proxied, "/sumdb/sum.test/supported")] {
        // Each time a client for which nothing is open.
        let client = Client::new(lazy()).unwrap();
        client.get(&at, Use::Database, path, &BRIEF, "").await.unwrap_err();
        until("the question", || server.asked().iter().any(|asked| asked.target() == neutral))
            .await;
    }
}

#[tokio::test]
async fn nothing_is_probed_for_a_client_that_is_gone() {
    let names = Changing::default();
    let client = Client::with_resolver(keen(), Arc::new(names.clone())).unwrap();
    let server = Server::start(|_, _| ok(b"found")).await;
    let url = format!("http://gone.test:{}", server.addr().port());
    ask(&client, &url, "a").await.unwrap_err();
    drop(client);
    *names.0.lock().unwrap() = Some(server.addr());
    tokio::time::sleep(keen().probe_pause * 5).await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn what_is_counted() {
    let server = Server::start(|asked, number| match asked.target() {
        "/ok/@v/list" => ok(b"v1.0.0\n"),
        "/denied/@v/list" => reply(403, "", b""),
        "/torn/@v/list" => reply(200, "Content-Encoding: gzip\r\n", b"no gzip"),
        "/again/@v/list" if number % 2 == 0 => reply(502, "", b""),
        "/again/@v/list" => ok(b""),
        _ => reply(404, "", b""),
    })
    .await;
    let client = client();
    // The even one that begins a pair is the first.
    for module in ["again", "ok", "ok", "denied", "torn", "none"] {
        let _ = ask(&client, &server.url(), module).await;
    }
    let counters = counted(&client, Use::Modules);
    let named: Vec<_> = counters.requests.iter().filter(|(_, number)| *number > 0).collect();
    let expected = [&("ok", 3), &("absent", 1), &("denied", 1), &("corrupt", 1)];
    assert_eq!(named, expected);
    assert_eq!((counters.bytes, counters.retries, counters.probes), (14, 3, 0));
}

#[tokio::test]
async fn a_connection_that_was_cut_off_silently_is_no_dead_host() {
    let server = Server::start(|asked, _| match asked.target() {
        "/first/@v/list" => ok(b"found"),
        // Only the connection of the pool is dead.
        "/second/@v/list" => vec![Do::Stall],
        _ => reply(404, "", b""),
    })
    .await;
    let client = Client::new(lazy()).unwrap();
    ask(&client, &server.url(), "first").await.unwrap();
    ask(&client, &server.url(), "second").await.unwrap_err();
    assert_eq!(only(&client).state, BreakerState::Closed);
    assert_eq!((server.connections(), counted(&client, Use::Modules).probes), (2, 1));
}

/// Another source's answer came first: nobody waits for this one, and it is found out all the same.
#[tokio::test]
async fn a_silent_host_that_is_passed_over_is_found_out() {
    let server = Server::start(|_, _| vec![Do::Stall]).await;
    let client = Client::new(lazy()).unwrap();
    let at = source(&server.url());
    let asking = client.get(&at, Use::Modules, "a.test/m/@v/list", &AMPLE, "");
    assert!(tokio::time::timeout(BOUND, asking).await.is_err());
    until("it is left alone", || only(&client).state != BreakerState::Closed).await;
    let targets: Vec<String> =
        server.asked().iter().map(|asked| asked.target().to_owned()).collect();
    assert_eq!(targets[0], "/a.test/m/@v/list");
    assert!(targets[1..].iter().all(|target| !target.contains("a.test")), "{targets:?}");

    // One that was given no time is not suspected.
    let server = Server::start(|_, _| vec![Do::Stall]).await;
    let client = Client::new(lazy()).unwrap();
    let at = source(&server.url());
    let asking = client.get(&at, Use::Modules, "a.test/m/@v/list", &AMPLE, "");
    assert!(tokio::time::timeout(Duration::from_millis(50), asking).await.is_err());
    let counted = counted(&client, Use::Modules);
    assert_eq!(counted.probes, 0);
}
