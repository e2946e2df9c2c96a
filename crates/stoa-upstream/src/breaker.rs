//! Breakers: a host that is dead costs its wait once. Each host is judged apart for modules and for the checksum
//! database, because one may be blocked or broken where the other works.
//!
//! While a breaker is open its host is asked nothing but a probe now and then, and requests fail at once. What opens one,
//! and what closes it again, is [`state`]; who asks the probes is `client/probe.rs`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use stoa_module::ErrorClass;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::breaker::counters::Counters;
use crate::breaker::state::{Admission, Change, Failed, Phase, Position, Reason, Sign, State};
use crate::client::budget::{Budget, Spent};
use crate::failure::{Failure, span};
use crate::journey::{self, Leg};
use crate::source::{Base, Source};

pub(crate) mod counters;
pub(crate) mod state;

/// A host that comes and goes is logged no oftener than this.
const LOG_AGAIN: Duration = Duration::from_mins(1);

/// What a host is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Use {
    Modules,
    /// The checksum database, of its own host or through a proxy.
    Database,
}

impl Use {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Modules => "modules",
            Self::Database => "database",
        }
    }

    /// What two requests have in common when they are about the same thing: the module of `ex.com/m/@v/list` and of
    /// `sumdb/NAME/lookup/ex.com/m@v1.0.0`, or a tile.
    pub(crate) fn about(self, path: &str) -> &str {
        match self {
            Self::Modules => path.split_once("/@").map_or(path, |(module, _)| module),
            Self::Database => path.rsplit_once('@').map_or(path, |(module, _)| module),
        }
    }

    /// What can be asked of a host in place of `path` without telling it any module's name. The empty path is the base
    /// address itself.
    pub(crate) fn neutral(self, path: &str) -> String {
        match self {
            Self::Modules => String::new(),
            Self::Database => {
                match path.strip_prefix("sumdb/").and_then(|rest| rest.split_once('/')) {
                    Some((name, _)) => format!("sumdb/{name}/supported"),
                    None => "latest".to_owned(),
                }
            }
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// Open, and a probe is under way.
    HalfOpen,
}

impl BreakerState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

/// One breaker, as people and metrics see it.
#[derive(Clone, Debug)]
pub struct BreakerStatus {
    /// `host`, or `host:port` where the port is not that of https. One of the configuration's, never with a credential.
    pub host: String,
    pub used_for: Use,
    pub state: BreakerState,
    /// What was met last, as in [`Failure::detail`]: `connect: connection refused`. None when closed, like the others.
    pub reason: Option<String>,
    /// When it opened.
    pub since: Option<Timestamp>,
    /// None also while a probe is under way, and when nobody has asked for so long that the next request is the probe.
    pub next_probe: Option<Timestamp>,
}

/// What was asked of a host since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCounters {
    /// As in [`BreakerStatus::host`].
    pub host: String,
    pub used_for: Use,
    /// Requests by how they ended, whatever the number of tries: `ok`, `absent`, `denied`, `corrupt`, `unavailable`,
    /// `timeout`, `refused` (not asked, because the breaker is open) and `local` (this machine's fault).
    pub requests: [(&'static str, u64); counters::OUTCOMES],
    /// Tries after the first of each request.
    pub retries: u64,
    /// Of bodies, decoded.
    pub bytes: u64,
    /// Questions of our own, to find out whether the host is alive.
    pub probes: u64,
    /// How often the breaker opened.
    pub opened: u64,
}

/// What a probe may ask: a request that was made, or refused, at the very place where it belongs.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) base: Base,
    pub(crate) path: String,
}

/// One for each host of the configuration and use. Sources are only ever made from the configuration, so there are few.
#[derive(Debug)]
pub(crate) struct Circuits {
    enabled: bool,
    longest_pause: Duration,
    all: Mutex<BTreeMap<(String, Use), Arc<Circuit>>>,
}

impl Circuits {
    pub(crate) fn new(enabled: bool, longest_pause: Duration) -> Self {
        Self { enabled, longest_pause, all: Mutex::default() }
    }

    /// None for what is no host.
    pub(crate) fn of(&self, source: &Source, used_for: Use) -> Option<Arc<Circuit>> {
        let Source::Http(base) = source else { return None };
        // Of those that modules' hosts name there may be any number.
        if base.guard().is_some() {
            return None;
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let circuit = all.entry((base.origin(), used_for)).or_insert_with_key(|(host, _)| {
            Arc::new(Circuit {
                host: host.clone(),
                used_for,
                enabled: self.enabled,
                state: Mutex::new(State::new(self.longest_pause)),
                phase: watch::Sender::new(Phase::Closed),
                logged: Mutex::default(),
                counters: Counters::default(),
            })
        });
        Some(Arc::clone(circuit))
    }

    /// The same where it was ever asked.
    pub(crate) fn known(&self, source: &Source, used_for: Use) -> Option<Arc<Circuit>> {
        let Source::Http(base) = source else { return None };
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(base.origin(), used_for)).map(Arc::clone)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Circuit>> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().cloned().collect()
    }
}

/// The breaker of one host and use, and what was counted there.
#[derive(Debug)]
pub(crate) struct Circuit {
    host: String,
    used_for: Use,
    enabled: bool,
    state: Mutex<State<Question>>,
    /// Follows the state, for those who wait.
    phase: watch::Sender<Phase>,
    logged: Mutex<Logged>,
    pub(crate) counters: Counters,
}

#[derive(Debug, Default)]
struct Logged {
    opening: Option<Instant>,
    /// The last opening was logged, so its end is too.
    is_due: bool,
}

/// Why a request was not made, or not waited for.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    reason: Reason,
    /// Since the host was last seen failing.
    ago: Duration,
    /// None while a probe is under way.
    next: Option<Duration>,
}

impl Refusal {
    /// The failure of a request that was not made.
    pub(crate) fn at(self, source: &Source) -> Failure {
        Failure {
            class: ErrorClass::Unavailable,
            stage: self.reason.stage,
            source: source.name(),
            detail: format!("not asked: {}", self.words()),
            text: None,
            retry_after: Some(self.retry_after()),
            tries: 0,
            hint: None,
            status: None,
            trouble: None,
        }
    }

    pub(crate) fn stage(&self) -> crate::Stage {
        self.reason.stage
    }

    /// `connect: connection refused 12 s ago; next try in 8 s`.
    pub(crate) fn words(&self) -> String {
        let next = match self.next {
            Some(next) => format!("next try in {}", span(next)),
            None => "it is being tried".to_owned(),
        };
        format!("{} {} ago; {next}", self.reason.detail, span(self.ago))
    }

    /// When it is worth while to ask again.
    pub(crate) fn retry_after(&self) -> Duration {
        const LEAST: Duration = Duration::from_secs(1);
        self.next.unwrap_or_default().max(LEAST)
    }
}

/// A request that is the probe. Unless it comes to a verdict, the next request is it.
#[derive(Debug)]
pub(crate) struct Trial(Arc<Circuit>);

impl Drop for Trial {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.trial_lost();
        self.0.publish(&state);
    }
}

impl Circuit {
    pub(crate) fn used_for(&self) -> Use {
        self.used_for
    }

    fn state(&self) -> MutexGuard<'_, State<Question>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the state's lock, so that those who wait see the phases in their order.
    fn publish(&self, state: &State<Question>) {
        let phase = state.phase();
        self.phase.send_if_modified(|known| std::mem::replace(known, phase) != phase);
    }

    /// Whether a request may be made now. Waits while another one finds out, within the budget.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        base: &Base,
        path: &str,
        waiting: &mut Budget,
    ) -> Result<Option<Trial>, Refusal> {
        let mut has_waited = false;
        loop {
            let admission = {
                let mut state = self.state();
                let admission = state.admit(Instant::now());
                self.publish(&state);
                admission
            };
            match admission {
                Admission::Go => {
                    if has_waited {
                        // Whoever waited for another's luck shall not have less time for it.
                        waiting.refill();
                    }
                    return Ok(None);
                }
                Admission::Trial => return Ok(Some(Trial(Arc::clone(self)))),
                Admission::Refused => return Err(self.refused(base, path)),
                Admission::Wait => {
                    has_waited = true;
                    journey::enter(Leg::Breaker);
                    let mut phase = self.phase.subscribe();
                    let decided = phase.wait_for(|phase| *phase != Phase::Trial);
                    if let Err(Spent) = waiting.spend(decided).await {
                        return Err(self.refusal());
                    }
                }
            }
        }
    }

    /// The refusal of a request, which may be the next probe's question.
    pub(crate) fn refused(&self, base: &Base, path: &str) -> Refusal {
        let question = || Question { base: base.clone(), path: path.to_owned() };
        self.state().refused(Instant::now(), self.used_for.about(path), question);
        self.refusal()
    }

    /// Completes as soon as requests are refused.
    pub(crate) async fn refusing(&self) -> Refusal {
        let mut phase = self.phase.subscribe();
        // The sender lives as long as this.
        let _ = phase.wait_for(|phase| matches!(phase, Phase::Refusing { .. })).await;
        self.refusal()
    }

    /// Completes as soon as the host is known to answer nobody.
    pub(crate) async fn mute(&self) -> Refusal {
        let mut phase = self.phase.subscribe();
        let _ = phase.wait_for(|phase| *phase == Phase::Refusing { mute: true }).await;
        self.refusal()
    }

    fn refusal(&self) -> Refusal {
        let now = Instant::now();
        match self.state().position() {
            Some(Position { reason, failed, next, .. }) => Refusal {
                reason,
                ago: now.saturating_duration_since(failed),
                next: next.map(|next| next.saturating_duration_since(now)),
            },
            // It has closed between the refusal and its text.
            None => Refusal {
                reason: Reason { stage: crate::Stage::Http, detail: "no answer".to_owned() },
                ago: Duration::ZERO,
                next: None,
            },
        }
    }

    /// The host answered something, for whatever it is worth.
    pub(crate) fn answered(&self) {
        self.change(|state| state.answered(Instant::now()));
    }

    /// A request has ended without an answer, after all its tries.
    pub(crate) fn failed(&self, failed: Failed<Question>, is_trial: bool) -> Change {
        self.change(|state| state.failed(Instant::now(), failed, is_trial))
    }

    /// Whether to find out by a neutral question if the host is alive: nobody else does, and it has answered nothing
    /// since then.
    pub(crate) fn suspect(&self, began: Instant) -> bool {
        self.enabled && self.state().suspect(Instant::now(), began)
    }

    /// What the neutral question met, when a request was silent or contradicted others.
    pub(crate) fn confirmed(
        &self,
        began: Instant,
        asked: Question,
        sign: Sign,
        reason: Reason,
    ) -> Change {
        self.change(|state| state.confirmed(Instant::now(), began, asked, sign, reason))
    }

    /// What the neutral question met that was asked beside a request which is the probe.
    pub(crate) fn asked_beside(&self, sign: Sign) {
        self.change(|state| state.asked_beside(Instant::now(), sign));
    }

    /// How long until the next probe of this opening; none when there is none.
    pub(crate) fn next_probe(&self, opening: u64) -> Option<Duration> {
        let mut state = self.state();
        let pause = state.next_probe(Instant::now(), opening);
        self.publish(&state);
        pause
    }

    /// What to ask, and whether it is the neutral question in place of that.
    pub(crate) fn begin_probe(&self, opening: u64) -> Option<(Question, bool)> {
        self.state().begin_probe(opening)
    }

    pub(crate) fn probed(&self, opening: u64, sign: Sign, reason: Reason) {
        self.change(|state| state.probed(Instant::now(), opening, sign, reason));
    }

    fn change(&self, change: impl FnOnce(&mut State<Question>) -> Change) -> Change {
        if !self.enabled {
            return Change::None;
        }
        let (change, reason) = {
            let mut state = self.state();
            let change = change(&mut state);
            self.publish(&state);
            (change, state.position().map(|position| position.reason.detail))
        };
        match change {
            Change::Opened(_) => {
                self.counters.opened();
                self.log_opening(&reason.unwrap_or_default());
            }
            Change::Closed => self.log_closing(),
            Change::None | Change::StillOpen(_) | Change::Confirm => {}
        }
        change
    }

    fn log_opening(&self, reason: &str) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        logged.is_due =
            logged.opening.is_none_or(|last| now.saturating_duration_since(last) >= LOG_AGAIN);
        if logged.is_due {
            logged.opening = Some(now);
            warn!(upstream.host = self.host, used_for = %self.used_for, reason,
                "the upstream does not answer; it is not asked until a probe finds it again");
        } else {
            debug!(upstream.host = self.host, used_for = %self.used_for, reason,
                "the upstream does not answer again");
        }
    }

    fn log_closing(&self) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut logged.is_due) {
            info!(upstream.host = self.host, used_for = %self.used_for, "the upstream answers again");
        }
    }

    pub(crate) fn status(&self) -> BreakerStatus {
        let (host, used_for) = (self.host.clone(), self.used_for);
        let Some(position) = self.state().position() else {
            let state = BreakerState::Closed;
            return BreakerStatus {
                host,
                used_for,
                state,
                reason: None,
                since: None,
                next_probe: None,
            };
        };
        let (now, today) = (Instant::now(), Timestamp::now());
        let next = position.next.map(|next| today + next.saturating_duration_since(now));
        BreakerStatus {
            host,
            used_for,
            state: if position.is_half_open { BreakerState::HalfOpen } else { BreakerState::Open },
            reason: Some(position.reason.detail),
            since: Some(today - now.saturating_duration_since(position.since)),
            next_probe: next,
        }
    }

    pub(crate) fn counted(&self) -> HostCounters {
        self.counters.snapshot(&self.host, self.used_for)
    }
}

#[cfg(test)]
mod tests;
