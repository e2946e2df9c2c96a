use super::*;

const LONGEST: Duration = Duration::from_secs(10);

/// A breaker and a clock that only moves when it is told to.
struct Bench {
    state: State<&'static str>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { state: State::new(LONGEST), now: Instant::now() }
    }

    fn after(&mut self, seconds: u64) -> &mut Self {
        self.now += Duration::from_secs(seconds);
        self
    }

    fn ago(&self, seconds: u64) -> Instant {
        self.now.checked_sub(Duration::from_secs(seconds)).unwrap()
    }

    /// A request about this that began so many seconds ago ends like that.
    fn fails_after(&mut self, seconds: u64, sign: Sign, about: &'static str) -> Change {
        self.end(seconds, sign, about, false)
    }

    fn fails(&mut self, sign: Sign, about: &'static str) -> Change {
        self.end(0, sign, about, false)
    }

    fn end(&mut self, seconds: u64, sign: Sign, about: &'static str, is_trial: bool) -> Change {
        let failed = Failed {
            sign,
            about: about.to_owned(),
            question: about,
            began: self.ago(seconds),
            reason: reason(Stage::Http, "met"),
        };
        self.state.failed(self.now, failed, is_trial)
    }

    fn answers(&mut self) -> Change {
        self.state.answered(self.now)
    }

    /// The neutral question, asked so many seconds ago, ends like that.
    fn confirm(&mut self, seconds: u64, sign: Sign) -> Change {
        let began = self.ago(seconds);
        self.state.confirmed(self.now, began, "neutral", sign, reason(Stage::Http, "met"))
    }

    /// Waits for the next probe and answers how long that took, what is asked, and whether it is the neutral question.
    fn probe(&mut self, opening: u64, sign: Sign) -> (Duration, &'static str, bool) {
        let pause = self.state.next_probe(self.now, opening).expect("a probe to come");
        self.now += pause;
        let (asked, is_neutral) = self.state.begin_probe(opening).expect("a question");
        self.state.probed(self.now, opening, sign, reason(Stage::Http, "met"));
        (pause, asked, is_neutral)
    }

    fn is_open(&self) -> bool {
        self.state.position().is_some()
    }
}

fn reason(stage: Stage, detail: &str) -> Reason {
    Reason { stage, detail: detail.to_owned() }
}

#[test]
fn what_opens_it() {
    use Sign::{Answer, Failing, Nothing, Silence, Unreachable};

    /// Requests in their order, each begun when the one before it had ended; whether it is open after the last, and
    /// closed before.
    #[track_caller]
    fn check(requests: &[(Sign, &'static str)], expected: bool) {
        let mut bench = Bench::new();
        let mut is_open = false;
        for (sign, about) in requests {
            assert!(!is_open, "it opens too early: {requests:?}");
            bench.after(1).fails(*sign, about);
            is_open = bench.is_open();
        }
        assert_eq!(is_open, expected, "{requests:?}");
    }
    check(&[(Unreachable, "a")], true);
    check(&[(Answer, "a"), (Unreachable, "a")], true);
    check(&[(Nothing, "a"); 100], false);
    // One slow module, however often it is asked for.
    check(&[(Silence, "a"); 100], false);
    check(&[(Silence, "a"), (Silence, "b"), (Silence, "a")], false);
    check(&[(Silence, "a"), (Silence, "b"), (Silence, "c")], true);
    check(&[(Silence, "a"), (Nothing, "d"), (Silence, "b"), (Failing, "d"), (Silence, "c")], true);
    check(&[(Silence, "a"), (Silence, "b"), (Answer, "d"), (Silence, "c")], false);
    // One broken module.
    check(&[(Failing, "a"); 100], false);
    check(&[(Failing, "a"), (Failing, "b"), (Failing, "c"), (Failing, "d")], false);
    check(&[(Failing, "a"), (Failing, "b"), (Failing, "c"), (Failing, "a"), (Failing, "a")], true);
    check(&[(Failing, "a"), (Failing, "b"), (Failing, "a"), (Failing, "a"), (Failing, "b")], false);
    let [a, b, c] = [(Failing, "a"), (Failing, "b"), (Failing, "c")];
    check(&[a, b, c, a, (Answer, "d"), b, c, a, b], false);
    check(&[a, b, c, a, (Answer, "d"), b, c, a, b, c], true);
}

#[test]
fn an_answer_to_others_is_evidence() {
    let mut bench = Bench::new();
    bench.after(10).answers();
    // Three that began before that answer and end after it.
    for about in ["a", "b", "c"] {
        assert_eq!(bench.after(1).fails_after(9, Sign::Silence, about), Change::None);
    }
    assert!(bench.state.silent.is_empty());
    // One that heard nothing in the half that is after the answer.
    bench.after(1).fails_after(9, Sign::Silence, "a");
    assert!(bench.state.silent.is_empty());
    bench.after(2).fails_after(9, Sign::Silence, "a");
    assert_eq!(bench.state.silent.len(), 1);
    bench.answers();
    // A connection that failed while others were answered is looked into, once.
    assert_eq!(bench.fails_after(9, Sign::Unreachable, "a"), Change::Confirm);
    assert_eq!(bench.fails_after(9, Sign::Unreachable, "a"), Change::None);
    assert_eq!(bench.confirm(0, Sign::Answer), Change::None);
    assert!(!bench.is_open());
    assert_eq!(bench.fails_after(9, Sign::Unreachable, "a"), Change::Confirm);
    assert_eq!(bench.confirm(0, Sign::Unreachable), Change::Opened(1));
}

#[test]
fn silence_is_confirmed_by_a_neutral_question() {
    // The question fails first.
    let mut bench = Bench::new();
    let began = bench.now;
    let now = bench.after(7).now;
    assert!(bench.state.suspect(now, began));
    assert!(!bench.state.suspect(now, began), "one at a time");
    assert_eq!(bench.after(7).confirm(7, Sign::Silence), Change::None);
    assert_eq!(bench.after(1).fails_after(15, Sign::Silence, "a"), Change::Opened(1));
    assert_eq!(bench.state.phase(), Phase::Refusing { mute: true });

    // The request fails first.
    let mut bench = Bench::new();
    assert_eq!(bench.fails_after(15, Sign::Silence, "a"), Change::None);
    assert_eq!(bench.after(1).confirm(8, Sign::Silence), Change::Opened(1));

    // The neutral question is answered, so it is only this module so far; but the third is one too many.
    let mut bench = Bench::new();
    for (about, change) in [("a", Change::None), ("b", Change::None), ("c", Change::Opened(1))] {
        assert_eq!(bench.after(7).confirm(7, Sign::Answer), Change::None);
        assert_eq!(bench.after(1).fails_after(15, Sign::Silence, about), change, "{about}");
    }
    assert_eq!(bench.state.phase(), Phase::Refusing { mute: false });
    let asked: Vec<_> = (0..4).map(|_| bench.probe(1, Sign::Silence)).collect();
    assert_eq!(asked.iter().map(|probe| probe.1).collect::<Vec<_>>(), ["a", "b", "c", "a"]);
    assert!(asked.iter().all(|probe| !probe.2), "the neutral question would be answered");

    // Somebody was answered meanwhile.
    let mut bench = Bench::new();
    bench.after(3).answers();
    assert_eq!(bench.after(4).confirm(7, Sign::Silence), Change::None);
    assert_eq!(bench.after(1).fails_after(3, Sign::Silence, "a"), Change::None);
    assert!(!bench.state.suspect(bench.now, bench.ago(12)));
}

#[test]
fn what_closes_it() {
    use Sign::{Answer, Failing, Nothing, Silence, Unreachable};

    #[track_caller]
    fn check(open: impl Fn(&mut Bench), probe: Sign, closes: bool) {
        let mut bench = Bench::new();
        open(&mut bench);
        assert!(bench.is_open());
        bench.probe(1, probe);
        assert_eq!(!bench.is_open(), closes, "{probe:?}");
    }
    let unreachable = |bench: &mut Bench| _ = bench.fails(Unreachable, "a");
    let silent = |bench: &mut Bench| {
        for about in ["a", "b", "c"] {
            bench.fails(Silence, about);
        }
    };
    let failing = |bench: &mut Bench| {
        for about in ["a", "b", "c", "a", "b"] {
            bench.fails(Failing, about);
        }
    };
    for sign in [Silence, Unreachable, Nothing] {
        check(unreachable, sign, false);
        check(silent, sign, false);
        check(failing, sign, false);
    }
    check(unreachable, Answer, true);
    check(silent, Answer, true);
    check(failing, Answer, true);
    // A host that answers 5xx can be reached and is not silent.
    check(unreachable, Failing, true);
    check(silent, Failing, true);
    check(failing, Failing, false);

    // So does the answer to a request that was under way when it opened.
    let mut bench = Bench::new();
    unreachable(&mut bench);
    assert_eq!(bench.answers(), Change::Closed);
    assert_eq!(bench.state.admit(bench.now), Admission::Go);
    assert_eq!(bench.state.next_probe(bench.now, 1), None);
}

#[test]
fn pauses_grow_and_are_no_longer_than_the_longest() {
    let mut bench = Bench::new();
    bench.fails(Sign::Unreachable, "a");
    let mut least = Duration::from_millis(500);
    for _ in 0..12 {
        bench.state.admit(bench.now);
        let (pause, _, is_neutral) = bench.probe(1, Sign::Unreachable);
        assert!(is_neutral);
        assert!(pause >= least && pause <= (least * 2).min(LONGEST), "{pause:?} {least:?}");
        least = (least * 2).min(LONGEST / 2);
    }
}

#[test]
fn one_probe_at_a_time_and_everybody_else_is_refused() {
    let mut bench = Bench::new();
    assert_eq!(bench.state.admit(bench.now), Admission::Go);
    bench.fails(Sign::Unreachable, "a");
    assert_eq!(bench.state.admit(bench.now), Admission::Refused);
    assert!(bench.state.position().unwrap().next.is_some());
    bench.state.begin_probe(1).unwrap();
    assert_eq!(bench.state.next_probe(bench.now, 1), None);
    assert_eq!(bench.state.admit(bench.now), Admission::Refused);
    assert!(bench.state.position().unwrap().is_half_open);
    // What the probe of another opening met says nothing.
    bench.state.probed(bench.now, 7, Sign::Answer, reason(Stage::Http, "met"));
    assert!(bench.is_open());
    bench.state.probed(bench.now, 1, Sign::Answer, reason(Stage::Http, "met"));
    assert_eq!(bench.state.admit(bench.now), Admission::Go);
}

#[test]
fn when_nobody_asks_any_more_the_next_request_is_the_probe() {
    fn dormant() -> Bench {
        let mut bench = Bench::new();
        bench.fails(Sign::Unreachable, "a");
        bench.after(KEEP_PROBING.as_secs() - 1);
        assert!(bench.state.next_probe(bench.now, 1).is_some());
        assert_eq!(bench.state.admit(bench.now), Admission::Refused, "somebody asks");
        bench.after(KEEP_PROBING.as_secs());
        assert!(bench.state.next_probe(bench.now, 1).is_some());
        bench.after(1);
        assert_eq!(bench.state.next_probe(bench.now, 1), None);
        assert_eq!(bench.state.phase(), Phase::Dormant);
        assert_eq!(bench.state.admit(bench.now), Admission::Trial);
        assert_eq!(bench.state.admit(bench.now), Admission::Wait);
        bench
    }
    let mut bench = dormant();
    assert_eq!(bench.answers(), Change::Closed);

    let mut bench = dormant();
    assert_eq!(bench.end(0, Sign::Unreachable, "b", true), Change::StillOpen(1));
    assert_eq!(bench.state.admit(bench.now), Admission::Refused);
    bench.probe(1, Sign::Answer);
    assert!(!bench.is_open());

    // It came to no verdict.
    let mut bench = dormant();
    assert_eq!(bench.end(0, Sign::Nothing, "b", true), Change::None);
    bench.state.trial_lost();
    assert_eq!(bench.state.admit(bench.now), Admission::Trial);

    // It is about the one thing that is slow.
    let mut bench = dormant();
    for sign in [Sign::Silence, Sign::Unreachable, Sign::Nothing] {
        assert_eq!(bench.state.asked_beside(bench.now, sign), Change::None);
        assert_eq!(bench.state.admit(bench.now), Admission::Wait);
    }
    assert_eq!(bench.state.asked_beside(bench.now, Sign::Answer), Change::Closed);
    assert_eq!(bench.state.admit(bench.now), Admission::Go);
    assert_eq!(bench.fails_after(9, Sign::Silence, "b"), Change::None);
    assert!(!bench.is_open());

    // One that is no trial has nothing to say.
    let mut bench = dormant();
    assert_eq!(bench.fails(Sign::Unreachable, "b"), Change::None);
    assert_eq!(bench.state.phase(), Phase::Trial);
}

#[test]
fn what_is_refused_is_what_is_asked_next() {
    let mut bench = Bench::new();
    for about in ["a", "b", "c"] {
        bench.fails(Sign::Silence, about);
    }
    for about in ["d", "a", "e", "d", "f", "g"] {
        bench.state.refused(bench.now, about, || about);
    }
    let asked: Vec<_> = (0..5).map(|_| bench.probe(1, Sign::Silence).1).collect();
    assert_eq!(asked, ["g", "f", "e", "a", "b"]);
    bench.state.refused(bench.now, "d", || "d");
    assert_eq!(bench.probe(1, Sign::Answer).1, "d");
    assert!(!bench.is_open());

    // It is somebody's wish, so probes go on.
    let mut bench = Bench::new();
    bench.fails(Sign::Unreachable, "a");
    bench.after(KEEP_PROBING.as_secs());
    bench.state.refused(bench.now, "b", || "b");
    bench.after(1);
    assert!(bench.state.next_probe(bench.now, 1).is_some());
    assert!(bench.probe(1, Sign::Silence).2, "the neutral question tells no name");
}

#[test]
fn the_reason_is_what_was_met_last() {
    let mut bench = Bench::new();
    for about in ["a", "b", "c"] {
        bench.fails(Sign::Silence, about);
    }
    let detail = |bench: &Bench| bench.state.position().unwrap().reason.detail;
    assert_eq!(detail(&bench), "no answer for 3 different modules (met)");
    bench.probe(1, Sign::Silence);
    assert_eq!(detail(&bench), "no answer for 3 different modules (met)");
    bench.state.begin_probe(1).unwrap();
    let refused = reason(Stage::Connect, "connect: connection refused");
    bench.state.probed(bench.now, 1, Sign::Unreachable, refused);
    assert_eq!(detail(&bench), "connect: connection refused");
}
