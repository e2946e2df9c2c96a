//! The state of one breaker, without a clock and without I/O.
//!
//! | what is met | opens when | the probe asks | and closes by |
//! |---|---|---|---|
//! | no name, no connection, no TLS | at once, unless the host answered others meanwhile and still answers the neutral question | the neutral question | any answer |
//! | no header within its bound | the neutral question is not answered either | the neutral question | any answer |
//! | the same, though the neutral question is answered | three different modules met it | one of these again | any answer |
//! | 5xx, or the connection breaks before the header's end | five requests in a row met it, for three different modules | one of these again | an answer below 500 |
//!
//! One answer below 500, whatever it says, ends every count, and closes the breaker. One slow or broken module never opens
//! it: nothing but the module's own requests would meet anything. That a host answered others in the second half of a
//! request's wait is evidence against that request, so that its silence counts for nothing.
//!
//! "One of these again" gives way to what was refused meanwhile, so that a few modules that always fail cannot keep a host
//! closed to all others. It is asked where its client wanted it asked.
//!
//! Half-open: one probe at a time. The probes are our own, so that no client pays for them, as long as somebody wants the
//! host; when nobody did for ten minutes they end, and the next request is the probe, for which others wait. The neutral
//! question is asked beside it, lest one slow module keep them waiting.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

use crate::failure::{Fault, Stage};

/// So many different modules tell a host's fault from a module's.
pub(crate) const DIFFERENT: usize = 3;
/// So many failures in a row tell a broken host from one that has a bad moment.
pub(crate) const FAILING_RUN: u32 = 5;
/// How long probes go on after the last request.
pub(crate) const KEEP_PROBING: Duration = Duration::from_mins(10);
/// Before the first probe; the pauses double up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What the end of a try says about the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It answered below 500.
    Answer,
    /// It answered 5xx, or broke off before the header's end.
    Failing,
    /// No header came.
    Silence,
    /// No name, no connection, no TLS.
    Unreachable,
    /// Nothing: something of our own failed, or the wait was too short to tell.
    Nothing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reason {
    pub(crate) stage: Stage,
    pub(crate) detail: String,
}

impl From<&Fault> for Reason {
    fn from(fault: &Fault) -> Self {
        Self { stage: fault.stage, detail: fault.detail.clone() }
    }
}

/// A request that ended without an answer.
#[derive(Clone, Debug)]
pub(crate) struct Failed<Q> {
    pub(crate) sign: Sign,
    /// What tells it from requests for other things.
    pub(crate) about: String,
    /// To ask it again.
    pub(crate) question: Q,
    /// Its last try.
    pub(crate) began: Instant,
    pub(crate) reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Go,
    Refused,
    /// This request is the probe.
    Trial,
    /// Another request is the probe, and decides.
    Wait,
}

/// What a report has brought about. The numbers tell openings apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened(u64),
    /// A request that was the probe failed: from now on probes are our own again.
    StillOpen(u64),
    Closed,
    /// The neutral question is to be asked.
    Confirm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Closed,
    /// `mute`: nothing at all is answered, so that also those who wait for an answer need wait no longer.
    Refusing {
        mute: bool,
    },
    /// The next request will be the probe.
    Dormant,
    /// A request is the probe.
    Trial,
}

/// An open breaker, as it is told.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) reason: Reason,
    pub(crate) since: Instant,
    /// When the host was last seen failing.
    pub(crate) failed: Instant,
    pub(crate) next: Option<Instant>,
    pub(crate) is_half_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Unreachable,
    /// Nothing is answered.
    Mute,
    /// Only the neutral question is answered.
    Silent,
    Failing,
}

impl Cause {
    /// Whether this is the end of it.
    fn ends_by(self, sign: Sign) -> bool {
        match sign {
            Sign::Answer => true,
            Sign::Failing => self != Self::Failing,
            Sign::Silence | Sign::Unreachable | Sign::Nothing => false,
        }
    }

    fn asks_neutral(self) -> bool {
        matches!(self, Self::Unreachable | Self::Mute)
    }
}

#[derive(Debug)]
struct Open<Q> {
    cause: Cause,
    reason: Reason,
    since: Instant,
    failed: Instant,
    /// Of the last request that was refused.
    wanted: Instant,
    /// Those that met it.
    questions: Vec<(String, Q)>,
    /// Refused since, of other modules; the last few.
    refused: Vec<(String, Q)>,
    probes: usize,
    pauses: ExponentialBackoff,
    turn: Turn,
}

/// Whose turn it is to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nobody's before this.
    Pause(Instant),
    Probe,
    /// The next request's.
    Dormant,
    Trial,
}

#[derive(Debug)]
pub(crate) struct State<Q> {
    longest_pause: Duration,
    last_answer: Option<Instant>,
    /// The neutral question was not answered, and nothing was since.
    is_mute: bool,
    is_confirming: bool,
    /// Since the last answer: of different modules.
    silent: Vec<(String, Q)>,
    failing: Vec<(String, Q)>,
    /// The same, of any.
    failing_run: u32,
    open: Option<Open<Q>>,
    openings: u64,
}

impl<Q: Clone> State<Q> {
    pub(crate) fn new(longest_pause: Duration) -> Self {
        Self {
            longest_pause,
            last_answer: None,
            is_mute: false,
            is_confirming: false,
            silent: Vec::new(),
            failing: Vec::new(),
            failing_run: 0,
            open: None,
            openings: 0,
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match &self.open {
            None => Phase::Closed,
            Some(open) => match open.turn {
                Turn::Pause(_) | Turn::Probe => Phase::Refusing { mute: open.cause == Cause::Mute },
                Turn::Dormant => Phase::Dormant,
                Turn::Trial => Phase::Trial,
            },
        }
    }

    pub(crate) fn position(&self) -> Option<Position> {
        let open = self.open.as_ref()?;
        Some(Position {
            reason: open.reason.clone(),
            since: open.since,
            failed: open.failed,
            next: if let Turn::Pause(until) = open.turn { Some(until) } else { None },
            is_half_open: matches!(open.turn, Turn::Probe | Turn::Trial),
        })
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Admission {
        let Some(open) = &mut self.open else { return Admission::Go };
        open.wanted = now;
        match open.turn {
            Turn::Pause(_) | Turn::Probe => Admission::Refused,
            Turn::Dormant => {
                open.turn = Turn::Trial;
                Admission::Trial
            }
            Turn::Trial => Admission::Wait,
        }
    }

    /// A request was refused, which may be the next probe's question.
    pub(crate) fn refused(&mut self, now: Instant, about: &str, question: impl FnOnce() -> Q) {
        let Some(open) = &mut self.open else { return };
        open.wanted = now;
        let is_known = |kept: &[(String, Q)]| kept.iter().any(|(known, _)| known == about);
        if open.cause.asks_neutral() || is_known(&open.questions) || is_known(&open.refused) {
            return;
        }
        if open.refused.len() == DIFFERENT {
            open.refused.remove(0);
        }
        open.refused.push((about.to_owned(), question()));
    }

    /// Also the answer to a request that was under way when the breaker opened counts.
    pub(crate) fn answered(&mut self, now: Instant) -> Change {
        self.last_answer = Some(now);
        self.is_mute = false;
        self.forget();
        if self.open.take().is_some() { Change::Closed } else { Change::None }
    }

    fn forget(&mut self) {
        self.silent.clear();
        self.failing.clear();
        self.failing_run = 0;
    }

    fn answered_since(&self, then: Instant) -> bool {
        self.last_answer.is_some_and(|last| last > then)
    }

    /// Whether nobody was answered in the second half of a wait. The first half is left out, because the host may have
    /// died since the wait began.
    fn is_quiet(&self, now: Instant, began: Instant) -> bool {
        !self.answered_since(began + now.saturating_duration_since(began) / 2)
    }

    pub(crate) fn failed(&mut self, now: Instant, failed: Failed<Q>, is_trial: bool) -> Change {
        let Failed { sign, about, question, began, reason } = failed;
        if sign == Sign::Answer {
            return self.answered(now);
        }
        if let Some(open) = &self.open {
            if open.cause.ends_by(sign) {
                self.open = None;
                self.is_mute = false;
                self.count_failing(about, question);
                return Change::Closed;
            }
            return if is_trial && sign != Sign::Nothing {
                self.still_open(now, reason);
                Change::StillOpen(self.openings)
            } else {
                Change::None
            };
        }
        match sign {
            Sign::Answer | Sign::Nothing => Change::None,
            Sign::Unreachable if self.answered_since(began) => {
                let is_new = !std::mem::replace(&mut self.is_confirming, true);
                if is_new { Change::Confirm } else { Change::None }
            }
            Sign::Unreachable => {
                self.open(now, Cause::Unreachable, vec![(about, question)], reason)
            }
            Sign::Silence if !self.is_quiet(now, began) => Change::None,
            Sign::Silence => {
                insert(&mut self.silent, about, question);
                self.judge_silence(now, &reason)
            }
            Sign::Failing => {
                self.count_failing(about, question);
                if self.failing_run < FAILING_RUN || self.failing.len() < DIFFERENT {
                    return Change::None;
                }
                let detail =
                    format!("{} failures in a row, the last: {}", self.failing_run, reason.detail);
                let questions = std::mem::take(&mut self.failing);
                self.open(now, Cause::Failing, questions, Reason { detail, ..reason })
            }
        }
    }

    fn count_failing(&mut self, about: String, question: Q) {
        self.failing_run += 1;
        insert(&mut self.failing, about, question);
    }

    fn judge_silence(&mut self, now: Instant, reason: &Reason) -> Change {
        let questions = || self.silent.clone();
        let (stage, said) = (reason.stage, &reason.detail);
        if self.is_mute {
            let detail = format!("no answer to anything ({said})");
            self.open(now, Cause::Mute, questions(), Reason { stage, detail })
        } else if self.silent.len() >= DIFFERENT {
            let detail = format!("no answer for {DIFFERENT} different modules ({said})");
            self.open(now, Cause::Silent, questions(), Reason { stage, detail })
        } else {
            Change::None
        }
    }

    fn open(
        &mut self,
        now: Instant,
        cause: Cause,
        questions: Vec<(String, Q)>,
        reason: Reason,
    ) -> Change {
        let (first, longest) = (FIRST_PAUSE.min(self.longest_pause), self.longest_pause);
        let mut pauses = ExponentialBuilder::new()
            // The jitter is up to as much again.
            .with_min_delay(first / 2)
            .with_max_delay(longest / 2)
            .without_max_times()
            .with_jitter()
            .build();
        let pause = pauses.next().unwrap_or(longest);
        self.openings += 1;
        self.forget();
        self.open = Some(Open {
            cause,
            reason,
            since: now,
            failed: now,
            wanted: now,
            questions,
            refused: Vec::new(),
            probes: 0,
            pauses,
            turn: Turn::Pause(now + pause),
        });
        Change::Opened(self.openings)
    }

    fn still_open(&mut self, now: Instant, reason: Reason) {
        let Some(open) = &mut self.open else { return };
        let pause = open.pauses.next().unwrap_or(self.longest_pause);
        open.turn = Turn::Pause(now + pause);
        open.failed = now;
        // What the neutral question meets is told; the same silence again would only be told in fewer words.
        if open.reason.stage != reason.stage {
            open.reason = reason;
        }
    }

    pub(crate) fn trial_lost(&mut self) {
        if let Some(open) = &mut self.open
            && open.turn == Turn::Trial
        {
            open.turn = Turn::Dormant;
        }
    }

    /// Whether the neutral question is to be asked because a request that began then has heard nothing yet.
    pub(crate) fn suspect(&mut self, now: Instant, began: Instant) -> bool {
        if self.open.is_some() || !self.is_quiet(now, began) {
            return false;
        }
        !std::mem::replace(&mut self.is_confirming, true)
    }

    /// What the neutral question met. Its answer does not count as one for the modules, of which a host may serve none.
    pub(crate) fn confirmed(
        &mut self,
        now: Instant,
        began: Instant,
        asked: Q,
        sign: Sign,
        reason: Reason,
    ) -> Change {
        self.is_confirming = false;
        if self.open.is_some() || self.answered_since(began) {
            return Change::None;
        }
        match sign {
            Sign::Nothing => Change::None,
            Sign::Answer | Sign::Failing => {
                self.is_mute = false;
                Change::None
            }
            Sign::Unreachable => {
                self.open(now, Cause::Unreachable, vec![(String::new(), asked)], reason)
            }
            Sign::Silence => {
                self.is_mute = true;
                if self.silent.is_empty() { Change::None } else { self.judge_silence(now, &reason) }
            }
        }
    }

    /// What the neutral question met that was asked beside a request which is the probe.
    pub(crate) fn asked_beside(&mut self, now: Instant, sign: Sign) -> Change {
        let ends = |open: &Open<Q>| {
            open.turn == Turn::Trial && open.cause.asks_neutral() && open.cause.ends_by(sign)
        };
        if self.open.as_ref().is_some_and(ends) { self.answered(now) } else { Change::None }
    }

    pub(crate) fn next_probe(&mut self, now: Instant, opening: u64) -> Option<Duration> {
        let is_this = self.openings == opening;
        let open = self.open.as_mut().filter(|_| is_this)?;
        let Turn::Pause(until) = open.turn else { return None };
        if now.saturating_duration_since(open.wanted) > KEEP_PROBING {
            open.turn = Turn::Dormant;
            return None;
        }
        Some(until.saturating_duration_since(now))
    }

    /// What to ask, and whether it is the neutral question in place of that.
    pub(crate) fn begin_probe(&mut self, opening: u64) -> Option<(Q, bool)> {
        let is_this = self.openings == opening;
        let open = self.open.as_mut().filter(|_| is_this)?;
        let (_, question) = match open.refused.pop() {
            Some(refused) => refused,
            None => open.questions.get(open.probes % open.questions.len().max(1))?.clone(),
        };
        open.probes += 1;
        open.turn = Turn::Probe;
        Some((question, open.cause.asks_neutral()))
    }

    pub(crate) fn probed(
        &mut self,
        now: Instant,
        opening: u64,
        sign: Sign,
        reason: Reason,
    ) -> Change {
        let is_this = self.openings == opening;
        let Some(open) = self.open.as_ref().filter(|_| is_this) else { return Change::None };
        if open.cause.ends_by(sign) {
            return self.answered(now);
        }
        self.still_open(now, reason);
        Change::None
    }
}

/// Keeps the first few of different modules.
fn insert<Q>(kept: &mut Vec<(String, Q)>, about: String, question: Q) {
    if kept.len() < DIFFERENT && !kept.iter().any(|(known, _)| *known == about) {
        kept.push((about, question));
    }
}

#[cfg(test)]
mod tests;
