//! One request's way past the breaker of its host: let in or refused, watched while it waits, and reported.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stoa_module::ErrorClass;

use crate::breaker::state::{Change, Failed, Reason, Sign};
use crate::breaker::{Circuit, Question, Refusal, Trial, Use};
use crate::client::budget::Budget;
use crate::client::fault;
use crate::client::{Inner, probe};
use crate::failure::{Failure, Fault, Stage, span};
use crate::source::{Base, Source};

/// Less time than this is too little to be suspicious of a host.
const LEAST_PATIENCE: Duration = Duration::from_millis(500);

pub(crate) struct Passage<'r> {
    client: &'r Arc<Inner>,
    circuit: Arc<Circuit>,
    base: &'r Base,
    path: &'r str,
    used_for: Use,
    /// Held while this request is the probe.
    trial: Option<Trial>,
    /// The present try.
    began: Instant,
}

impl<'r> Passage<'r> {
    /// Waits for another request that finds out whether the host is alive, within the budget.
    pub(crate) async fn enter(
        client: &'r Arc<Inner>,
        source: &'r Source,
        used_for: Use,
        path: &'r str,
        waiting: &mut Budget,
    ) -> Result<Option<Self>, Failure> {
        let Source::Http(base) = source else { return Ok(None) };
        let Some(circuit) = client.circuits.of(source, used_for) else { return Ok(None) };
        let trial =
            circuit.enter(base, path, waiting).await.map_err(|refusal| refusal.at(source))?;
        let began = Instant::now();
        let passage = Self { client, circuit, base, path, used_for, trial, began };
        if passage.trial.is_some() {
            probe::beside(client, &passage.circuit, passage.question());
        }
        Ok(Some(passage))
    }

    pub(crate) fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// Completes when asking again is in vain.
    pub(crate) async fn refusing(&self) -> Refusal {
        self.circuit.refusing().await
    }

    /// Waits for an answer's header: not after the host is known to answer nobody, and finding that out before the wait
    /// is over, so that the next request need not wait as well.
    pub(crate) async fn header<T>(
        &mut self,
        patience: Duration,
        whole: Duration,
        ask: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.began = Instant::now();
        let connecting = self.client.connect_timeout;
        let probe_bound = (whole / 2).max(connecting).min(connecting * 2);
        let suspicious =
            tokio::time::sleep((patience / 2).max(patience.saturating_sub(probe_bound)));
        let may_suspect = patience >= LEAST_PATIENCE && self.trial.is_none();
        let watching = async {
            if may_suspect {
                suspicious.await;
                if self.circuit.suspect(self.began) {
                    // Its verdict comes a little before the end of this wait.
                    let bound = probe_bound * 9 / 10;
                    probe::confirm(self.client, &self.circuit, self.question(), bound);
                }
            }
            std::future::pending().await
        };
        let mut dropped = Dropped(may_suspect.then(|| {
            let given_up = Failed {
                sign: Sign::Silence,
                about: self.used_for.about(self.path).to_owned(),
                question: self.question(),
                began: self.began,
                reason: Reason { stage: Stage::Http, detail: String::new() },
            };
            (Arc::clone(self.client), Arc::clone(&self.circuit), given_up)
        }));
        let outcome = tokio::select! {
            biased;
            outcome = ask => outcome,
            refusal = self.circuit.mute() => Err(self.given_up(&refusal)),
            never = watching => never,
        };
        dropped.0 = None;
        let is_answer = match &outcome {
            Ok(_) => true,
            Err(fault) => fault::sign(fault, self.began.elapsed(), connecting) == Sign::Answer,
        };
        if is_answer {
            self.circuit.answered();
        }
        outcome
    }

    fn given_up(&self, refusal: &Refusal) -> Fault {
        let detail = format!("given up after {}: {}", span(self.began.elapsed()), refusal.words());
        let mut fault = Fault::new(ErrorClass::Unavailable, refusal.stage(), detail);
        fault.retry_after = Some(refusal.retry_after());
        fault.given_up = true;
        fault
    }

    /// Reports how the last try failed.
    pub(crate) fn failed(&self, fault: &Fault) {
        let connecting = self.client.connect_timeout;
        let sign = fault::sign(fault, self.began.elapsed(), connecting);
        if matches!(sign, Sign::Nothing | Sign::Answer) {
            return;
        }
        let failed = Failed {
            sign,
            about: self.used_for.about(self.path).to_owned(),
            question: self.question(),
            began: self.began,
            reason: Reason::from(fault),
        };
        match self.circuit.failed(failed, self.trial.is_some()) {
            Change::None | Change::Closed => {}
            Change::Opened(opening) | Change::StillOpen(opening) => {
                probe::watch(self.client, &self.circuit, opening);
            }
            Change::Confirm => {
                probe::confirm(self.client, &self.circuit, self.question(), connecting);
            }
        }
    }

    fn question(&self) -> Question {
        Question { base: self.base.clone(), path: self.path.to_owned() }
    }
}

/// What to ask about when nobody waits for an answer any more, because another source's came first: a host that is dead
/// must be found out all the same.
struct Dropped(Option<(Arc<Inner>, Arc<Circuit>, Failed<Question>)>);

impl Drop for Dropped {
    fn drop(&mut self) {
        let Some((client, circuit, mut given_up)) = self.0.take() else { return };
        let (began, waited) = (given_up.began, given_up.began.elapsed());
        // Not at the end of the process.
        let lives = tokio::runtime::Handle::try_current().is_ok();
        if lives && waited >= LEAST_PATIENCE && circuit.suspect(began) {
            given_up.reason.detail = format!("no answer within {}", span(waited));
            probe::confirm_after(&client, &circuit, given_up);
        }
    }
}
