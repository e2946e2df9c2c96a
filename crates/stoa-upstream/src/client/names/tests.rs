use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::discovery::Guard;

const TTL: Duration = Duration::from_secs(40);
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone)]
enum Says {
    Found(&'static [&'static str]),
    Fails(&'static str),
    Hangs,
    /// The address, after a while.
    Slowly(&'static str, Duration),
    Panics,
}

/// Says one thing after the other, and the last for ever.
struct Script {
    says: Mutex<VecDeque<Says>>,
    asked: AtomicUsize,
}

impl Script {
    fn new(says: impl IntoIterator<Item = Says>) -> Arc<Self> {
        Arc::new(Self { says: Mutex::new(says.into_iter().collect()), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Script {
    fn resolve(&self, _: Name) -> Resolving {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut says = self.says.lock().unwrap();
        let next = if says.len() > 1 { says.pop_front() } else { says.front().cloned() };
        let addresses = |texts: &[&str]| {
            let found: Vec<SocketAddr> =
                texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect();
            Box::new(found.into_iter()) as Addrs
        };
        Box::pin(async move {
            match next.unwrap() {
                Says::Found(texts) => Ok(addresses(texts)),
                Says::Fails(words) => Err(io::Error::other(words).into()),
                Says::Hangs => std::future::pending().await,
                Says::Slowly(text, pause) => {
                    tokio::time::sleep(pause).await;
                    Ok(addresses(&[text]))
                }
                Says::Panics => panic!("on purpose"),
            }
        })
    }
}

async fn ask(names: &dyn Resolve, name: &str) -> Result<Vec<String>, String> {
    match names.resolve(name.parse().unwrap()).await {
        Ok(found) => Ok(found.map(|address| address.ip().to_string()).collect()),
        Err(error) => Err(error.to_string()),
    }
}

/// Lets what was begun behind an answer come to its end.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

const A: &[&str] = &["192.0.2.1"];
const B: &[&str] = &["192.0.2.2"];
const OUTAGE: Says = Says::Fails("Temporary failure in name resolution");

#[tokio::test(start_paused = true)]
async fn kept_for_its_time_and_looked_up_anew_before_it_is_over() {
    let script = Script::new([Says::Found(A), Says::Found(B)]);
    let names = Names::new(script.clone(), TTL);
    for _ in 0..3 {
        assert_eq!(ask(&names, "h").await.unwrap(), A);
    }
    tokio::time::advance(SECOND * 29).await;
    assert_eq!((ask(&names, "h").await.unwrap(), script.asked()), (vec![A[0].to_owned()], 1));
    tokio::time::advance(SECOND * 2).await;
    // Nobody waits for it.
    assert_eq!(ask(&names, "h").await.unwrap(), A);
    settle().await;
    assert_eq!((ask(&names, "h").await.unwrap(), script.asked()), (vec![B[0].to_owned()], 2));
    // Nobody wanted it in the last part of its time.
    tokio::time::advance(TTL + SECOND).await;
    assert_eq!((ask(&names, "h").await.unwrap(), script.asked()), (vec![B[0].to_owned()], 3));
    let counts = NameCounts { kept: 1, looked_up: 3, failed: 0, stale: 0 };
    assert_eq!(names.counts(), counts);
}

#[tokio::test(start_paused = true)]
async fn many_who_want_a_name_cause_one_look_up() {
    let script = Script::new([Says::Slowly("192.0.2.1", SECOND * 3)]);
    let names = Arc::new(Names::new(script.clone(), Duration::ZERO));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let names = Arc::clone(&names);
        waiting.spawn(async move { ask(&*names, "h").await });
    }
    // One who leaves takes nothing with it.
    waiting.spawn(async { Ok(Vec::new()) }).abort();
    while let Some(found) = waiting.join_next().await {
        if let Ok(found) = found {
            assert_eq!(found.unwrap(), A);
        }
    }
    assert_eq!(script.asked(), 1);
    // With no time to live each further one is asked for.
    assert_eq!(ask(&*names, "h").await.unwrap(), A);
    assert_eq!(script.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn used_stale_for_a_day_while_the_resolver_fails() {
    let script = Script::new([Says::Found(A), OUTAGE, OUTAGE, Says::Found(B), OUTAGE]);
    let names = Names::new(script.clone(), TTL);
    ask(&names, "h").await.unwrap();
    tokio::time::advance(TTL + SECOND).await;
    for _ in 0..3 {
        assert_eq!(ask(&names, "h").await.unwrap(), A);
    }
    // A resolver that fails is asked now and then, and not by everybody.
    assert_eq!((script.asked(), names.counts().stale), (2, 3));
    tokio::time::advance(AFTER_FAILURE + SECOND).await;
    assert_eq!(ask(&names, "h").await.unwrap(), A);
    tokio::time::advance(AFTER_FAILURE + SECOND).await;
    assert_eq!(ask(&names, "h").await.unwrap(), B);
    tokio::time::advance(STALE + SECOND).await;
    assert_eq!(ask(&names, "h").await.unwrap_err(), "Temporary failure in name resolution");
    // A failure is not kept.
    assert_eq!(script.asked(), 5);
    ask(&names, "h").await.unwrap_err();
    assert_eq!(script.asked(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_slow_resolver_costs_its_patience_once() {
    let script = Script::new([Says::Found(A), Says::Slowly("192.0.2.2", SECOND * 3), Says::Hangs]);
    let names = Names::new(script.clone(), TTL);
    ask(&names, "h").await.unwrap();
    tokio::time::advance(TTL + SECOND).await;
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(ask(&names, "h").await.unwrap(), A);
    }
    assert_eq!((began.elapsed(), script.asked()), (PATIENCE, 2));
    // What it brings in the end counts.
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(ask(&names, "h").await.unwrap(), B);
    // And one that never answers: it is not asked twice at once, and given up in the end.
    tokio::time::advance(TTL + SECOND).await;
    for _ in 0..3 {
        assert_eq!(ask(&names, "h").await.unwrap(), B);
        tokio::time::advance(AFTER_FAILURE + SECOND).await;
    }
    assert_eq!(script.asked(), 3);
    tokio::time::sleep(LONGEST).await;
    settle().await;
    ask(&names, "h").await.unwrap();
    assert_eq!(script.asked(), 4);
}

#[tokio::test(start_paused = true)]
async fn that_there_is_no_such_name_is_the_newest_word() {
    let gone = Says::Fails("failed to lookup address information: Name or service not known");
    let script = Script::new([Says::Found(A), gone]);
    let names = Names::new(script.clone(), TTL);
    ask(&names, "h").await.unwrap();
    tokio::time::advance(TTL + SECOND).await;
    assert!(ask(&names, "h").await.unwrap_err().contains("not known"));
    assert_eq!(names.counts().kept, 0);
    assert!(ask(&names, "h").await.is_err());
    assert_eq!(script.asked(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_failed_connection_has_it_looked_up_and_the_last_that_answered_comes_first() {
    let three: &[&str] = &["192.0.2.1", "192.0.2.2", "2001:db8::3"];
    let script = Script::new([Says::Found(three), Says::Found(three), OUTAGE]);
    let names = Names::new(script.clone(), TTL);
    assert_eq!(ask(&names, "h").await.unwrap(), three);
    names.answered("h", "2001:db8::3".parse().unwrap());
    assert_eq!(ask(&names, "h").await.unwrap(), ["2001:db8::3", "192.0.2.1", "192.0.2.2"]);
    names.answered("h", "192.0.2.2".parse().unwrap());
    assert_eq!(ask(&names, "h").await.unwrap(), ["192.0.2.2", "192.0.2.1", "2001:db8::3"]);
    assert_eq!(script.asked(), 1);
    names.doubt("h");
    assert_eq!((ask(&names, "h").await.unwrap(), script.asked()), (three.map_owned(), 2));
    // While the resolver fails, doubts do not have it asked again and again.
    for _ in 0..5 {
        names.doubt("h");
        assert_eq!(ask(&names, "h").await.unwrap(), three);
    }
    assert_eq!(script.asked(), 3);
    names.doubt("nobody has asked for this");
}

trait MapOwned {
    fn map_owned(&self) -> Vec<String>;
}

impl MapOwned for &[&str] {
    fn map_owned(&self) -> Vec<String> {
        self.iter().map(|&text| text.to_owned()).collect()
    }
}

/// One who may ask anywhere and one who may not share what is kept; the filter stands before it.
#[tokio::test(start_paused = true)]
async fn what_is_kept_passes_the_filter_at_each_use() {
    let both: &[&str] = &["10.0.0.1", "8.8.8.8"];
    let script = Script::new([Says::Found(&["10.0.0.1"]), Says::Found(both), OUTAGE]);
    let names = Arc::new(Names::new(script.clone(), TTL));
    let public = Guard::resolver(names.clone());
    assert_eq!(ask(&*names, "h").await.unwrap(), ["10.0.0.1"]);
    for _ in 0..3 {
        let refused = ask(&*public, "h").await.unwrap_err();
        assert_eq!(refused, "its address 10.0.0.1 is not a public one");
    }
    assert_eq!(script.asked(), 1);
    // Nor does it help to have answered, nor that the resolver fails.
    names.answered("h", "10.0.0.1".parse().unwrap());
    names.doubt("h");
    assert_eq!(ask(&*public, "h").await.unwrap(), ["8.8.8.8"]);
    tokio::time::advance(TTL + SECOND).await;
    names.answered("h", "10.0.0.1".parse().unwrap());
    assert_eq!(ask(&*public, "h").await.unwrap(), ["8.8.8.8"]);
    assert_eq!((script.asked(), names.counts().stale), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn strangers_names_take_a_bounded_room() {
    let script = Script::new([Says::Found(A)]);
    let names = Names::new(script.clone(), TTL);
    ask(&names, "ours").await.unwrap();
    for n in 0..3 * MOST_NAMES {
        ask(&names, &format!("h{n}")).await.unwrap();
        if n % 100 == 0 {
            tokio::time::advance(Duration::from_millis(1)).await;
            ask(&names, "ours").await.unwrap();
        }
    }
    assert_eq!(names.counts().kept, MOST_NAMES as u64);
    let asked = script.asked();
    ask(&names, "ours").await.unwrap();
    assert_eq!(script.asked(), asked, "what is used stays");
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_frees_the_name() {
    let script = Script::new([Says::Panics, Says::Found(A)]);
    let names = Names::new(script.clone(), TTL);
    assert_eq!(ask(&names, "h").await.unwrap_err(), "the look-up ended without an answer");
    assert_eq!(ask(&names, "h").await.unwrap(), A);
}
