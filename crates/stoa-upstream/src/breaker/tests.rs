use std::pin::pin;

use super::*;
use crate::failure::Stage;

fn source(url: &str) -> Source {
    Source::from_url(&url::Url::parse(url).unwrap()).unwrap()
}

#[test]
fn hosts_and_uses_are_apart() {
    let circuits = Circuits::new(true, Duration::from_secs(10));
    let same = |a: &str, b: &str| {
        let of = |url| circuits.of(&source(url), Use::Modules).unwrap();
        Arc::ptr_eq(&of(a), &of(b))
    };
    assert!(same("https://a.test/x", "https://user:pw@a.test:443/y"));
    assert!(!same("https://a.test", "http://a.test"));
    assert!(!same("https://a.test", "https://a.test:444"));
    assert!(!same("https://a.test", "https://b.test"));
    assert!(circuits.of(&Source::Off, Use::Modules).is_none());
    circuits.of(&source("https://a.test"), Use::Database).unwrap();
    let known: Vec<_> =
        circuits.all().iter().map(|circuit| (circuit.status().host, circuit.used_for)).collect();
    let expected = [
        ("a.test", Use::Modules),
        ("a.test", Use::Database),
        ("a.test:444", Use::Modules),
        ("a.test:80", Use::Modules),
        ("b.test", Use::Modules),
    ];
    assert_eq!(known, expected.map(|(host, used_for)| (host.to_owned(), used_for)));
}

#[test]
fn what_a_request_is_about_and_what_tells_no_name() {
    let check = |used_for: Use, path: &str, about: &str, neutral: &str| {
        assert_eq!((used_for.about(path), used_for.neutral(path).as_str()), (about, neutral));
    };
    check(Use::Modules, "ex.com/m/@v/list", "ex.com/m", "");
    check(Use::Modules, "ex.com/m/@v/v1.0.0.zip", "ex.com/m", "");
    check(Use::Modules, "ex.com/m/@latest", "ex.com/m", "");
    check(Use::Database, "lookup/ex.com/m@v1.0.0", "lookup/ex.com/m", "latest");
    check(Use::Database, "tile/8/0/000", "tile/8/0/000", "latest");
    check(Use::Database, "latest", "latest", "latest");
    let through = "sumdb/sum.test/lookup/ex.com/m@v1.0.0";
    let about = "sumdb/sum.test/lookup/ex.com/m";
    check(Use::Database, through, about, "sumdb/sum.test/supported");
}

/// A breaker that is open, and that nobody has asked for ten minutes.
fn dormant() -> Arc<Circuit> {
    let circuits = Circuits::new(true, Duration::from_secs(10));
    let at = source("https://a.test");
    let circuit = circuits.of(&at, Use::Modules).unwrap();
    let change = circuit.failed(gone(&at), false);
    assert_eq!(change, Change::Opened(1));
    let mut state = circuit.state();
    let later = Instant::now() + state::KEEP_PROBING * 2;
    assert_eq!(state.next_probe(later, 1), None);
    circuit.publish(&state);
    drop(state);
    circuit
}

fn base(at: &Source) -> &Base {
    let Source::Http(base) = at else { panic!("{at}") };
    base
}

fn gone(at: &Source) -> Failed<Question> {
    Failed {
        sign: Sign::Unreachable,
        about: "m".to_owned(),
        question: Question { base: base(at).clone(), path: "m/@v/list".to_owned() },
        began: Instant::now(),
        reason: Reason { stage: Stage::Connect, detail: "connect: refused".to_owned() },
    }
}

#[tokio::test]
async fn after_a_silence_of_clients_the_first_is_the_probe_and_others_wait_for_it() {
    let ample = || Budget::new(Duration::from_secs(10));
    let at = source("https://a.test");
    let circuit = dormant();
    assert!(tokio::time::timeout(Duration::ZERO, circuit.refusing()).await.is_err());
    let trial = circuit.enter(base(&at), "m", &mut ample()).await.unwrap();
    assert!(trial.is_some());
    let mut budget = ample();
    let mut second = pin!(circuit.enter(base(&at), "m", &mut budget));
    assert!(tokio::time::timeout(Duration::ZERO, second.as_mut()).await.is_err());
    circuit.answered();
    assert!(second.await.unwrap().is_none());

    // It fails.
    let circuit = dormant();
    let _trial = circuit.enter(base(&at), "m", &mut ample()).await.unwrap();
    let mut budget = ample();
    let mut second = pin!(circuit.enter(base(&at), "m", &mut budget));
    assert!(tokio::time::timeout(Duration::ZERO, second.as_mut()).await.is_err());
    let change = circuit.failed(gone(&at), true);
    assert_eq!(change, Change::StillOpen(1));
    let refusal = second.await.unwrap_err();
    assert!(refusal.words().starts_with("connect: refused "), "{}", refusal.words());

    // It goes away without a verdict: the next one is the probe.
    let circuit = dormant();
    let trial = circuit.enter(base(&at), "m", &mut ample()).await.unwrap();
    let mut budget = ample();
    let mut second = pin!(circuit.enter(base(&at), "m", &mut budget));
    assert!(tokio::time::timeout(Duration::ZERO, second.as_mut()).await.is_err());
    drop(trial);
    assert!(second.await.unwrap().is_some());

    // It takes longer than another can wait.
    let circuit = dormant();
    let _trial = circuit.enter(base(&at), "m", &mut ample()).await.unwrap();
    let refusal = circuit
        .enter(base(&at), "m", &mut Budget::new(Duration::from_millis(1)))
        .await
        .unwrap_err();
    assert!(refusal.words().ends_with("; it is being tried"), "{}", refusal.words());
}
