//! Questions of our own to a host that is suspected or known to answer nothing. Each is a task with a bound; none keeps
//! the client alive.
//!
//! What is asked tells nobody a name: it is the base address, `supported` or `latest` of the checksum database, or a
//! request that a client wanted made at that very address, with the credentials that belong there.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::breaker::state::{Change, Failed, Reason, Sign};
use crate::breaker::{Circuit, Question};
use crate::client::Inner;
use crate::client::budget::Budget;
use crate::client::fault;
use crate::failure::Stage;

/// Asks the neutral question, because requests hear nothing or contradict each other.
pub(crate) fn confirm(
    client: &Arc<Inner>,
    circuit: &Arc<Circuit>,
    question: Question,
    bound: Duration,
) {
    let (client, circuit) = (Arc::clone(client), Arc::clone(circuit));
    tokio::spawn(async move {
        let began = Instant::now();
        let (sign, reason) = ask(&client, &circuit, &question, true, bound).await;
        let change = circuit.confirmed(began, question, sign, reason);
        if let Change::Opened(opening) = change {
            watch(&client, &circuit, opening);
        }
    });
}

/// The same because of a request that nobody waits for any more. Its own silence says nothing, since it had no time to be
/// answered; together with that of the neutral question it does.
pub(crate) fn confirm_after(
    client: &Arc<Inner>,
    circuit: &Arc<Circuit>,
    given_up: Failed<Question>,
) {
    let (client, circuit) = (Arc::clone(client), Arc::clone(circuit));
    tokio::spawn(async move {
        let (began, bound) = (Instant::now(), client.connect_timeout * 2);
        let question = given_up.question.clone();
        let (sign, reason) = ask(&client, &circuit, &question, true, bound).await;
        let is_silent = sign == Sign::Silence;
        let mut change = circuit.confirmed(began, question, sign, reason);
        if is_silent && matches!(change, Change::None) {
            change = circuit.failed(given_up, false);
        }
        if let Change::Opened(opening) = change {
            watch(&client, &circuit, opening);
        }
    });
}

/// Asks the neutral question beside a request that is the probe, and may be about the one thing that is slow.
pub(crate) fn beside(client: &Arc<Inner>, circuit: &Arc<Circuit>, question: Question) {
    let (client, circuit) = (Arc::clone(client), Arc::clone(circuit));
    tokio::spawn(async move {
        let bound = client.connect_timeout * 2;
        let (sign, _) = ask(&client, &circuit, &question, true, bound).await;
        circuit.asked_beside(sign);
    });
}

/// Probes a host whose breaker has opened, until it closes or nobody wants the host any more.
pub(crate) fn watch(client: &Arc<Inner>, circuit: &Arc<Circuit>, opening: u64) {
    tokio::spawn(probing(Arc::downgrade(client), Arc::clone(circuit), opening));
}

async fn probing(client: Weak<Inner>, circuit: Arc<Circuit>, opening: u64) {
    while let Some(pause) = circuit.next_probe(opening) {
        tokio::time::sleep(pause).await;
        let Some(client) = client.upgrade() else { return };
        let Some((question, is_neutral)) = circuit.begin_probe(opening) else { return };
        let bound = client.connect_timeout * 2;
        let (sign, reason) = ask(&client, &circuit, &question, is_neutral, bound).await;
        circuit.probed(opening, sign, reason);
    }
}

async fn ask(
    client: &Inner,
    circuit: &Circuit,
    question: &Question,
    is_neutral: bool,
    bound: Duration,
) -> (Sign, Reason) {
    circuit.counters.probed();
    let Question { base, path } = question;
    let neutral = circuit.used_for().neutral(path);
    let path = if is_neutral { &neutral } else { path };
    let url = if path.is_empty() { Ok(base.root()) } else { base.join(path) };
    let began = Instant::now();
    let answer = match url {
        Ok(url) => client.http.ask_once(base, &url, &mut Budget::new(bound)).await,
        Err(fault) => Err(fault),
    };
    match answer {
        Ok(response) => {
            let status = response.status();
            let sign = if status.is_server_error() { Sign::Failing } else { Sign::Answer };
            let detail = format!("http {}", status.as_u16());
            (sign, Reason { stage: Stage::Http, detail })
        }
        Err(fault) => {
            let sign = fault::sign(&fault, began.elapsed(), client.connect_timeout);
            (sign, Reason::from(&fault))
        }
    }
}
