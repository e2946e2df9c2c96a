//! The answers under way on one HTTP/2 connection, and when such a connection must end.
//!
//! In HTTP/1.1 a client that takes nothing is a write that does not proceed, and [`super::impatient`] sees it. In HTTP/2
//! the client says how much it will take of each answer: one that says "nothing" lets every write proceed, for there are
//! none, and answers pings. So each answer notes since when its client has had all that it was offered; and a
//! connection without any answer is idle, which hyper bounds for HTTP/1.1 alone.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Bounds;
use crate::http::access_log::Logged;

/// What of an answer is handed to hyper at once, in bytes: progress is seen in steps of it. It is also the most that
/// HTTP/2 puts into a frame unless the client asks for more.
const PIECE: usize = 16 << 10;

/// How long after the stop a client may take at most to take the last bytes of its last answer, and to agree to the end.
const LINGER: Duration = Duration::from_secs(2);

/// The same, so that whoever is owed nothing has not to be cut off at the drain's end, as if it had been.
pub(super) fn linger(bounds: &Bounds) -> Duration {
    LINGER.min(bounds.drain_timeout / 2)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a connection should do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Continue,
    /// Take no more requests, and end when what is under way is finished.
    Finish,
    /// End now.
    Abandon,
}

/// The answers under way on one connection.
#[derive(Debug)]
pub(super) struct Streams(Mutex<State>);

#[derive(Debug)]
struct State {
    /// From the head of a request to the last byte handed to hyper, or to the client's leave.
    open: usize,
    /// Whether there was any.
    any: bool,
    idle_since: Instant,
    answers: Vec<Weak<Mutex<Answer>>>,
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Open(Arc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        let mut state = locked(&self.0.0);
        state.open -= 1;
        state.idle_since = Instant::now();
    }
}

impl Streams {
    pub(super) fn new() -> Arc<Self> {
        let state = State { open: 0, any: false, idle_since: Instant::now(), answers: Vec::new() };
        Arc::new(Self(Mutex::new(state)))
    }

    pub(super) fn open(self: &Arc<Self>) -> Open {
        let mut state = locked(&self.0);
        state.open += 1;
        state.any = true;
        Open(Arc::clone(self))
    }

    /// The body of an answer, watched. The permit is kept until the client has all of it.
    pub(super) fn watch(&self, body: Logged, open: Open, permit: OwnedSemaphorePermit) -> Watched {
        let answer = Arc::new(Mutex::new(Answer { body: Some(body), waits_since: None }));
        let mut state = locked(&self.0);
        state.answers.retain(|answer| answer.strong_count() > 0);
        state.answers.push(Arc::downgrade(&answer));
        Watched { answer, rest: Bytes::new(), _open: open, _permit: permit }
    }

    /// To be asked now and then. An answer of which nothing is taken for `write_timeout` is given up, and with it all that
    /// it held; what else is under way on the connection may be finished.
    ///
    /// `stopped`: since when the server takes no more requests.
    pub(super) fn verdict(&self, bounds: &Bounds, stopped: Option<Instant>) -> Verdict {
        let now = Instant::now();
        let state = locked(&self.0);
        if state.open == 0 {
            if stopped.is_some_and(|stopped| now - stopped.max(state.idle_since) >= linger(bounds))
            {
                return Verdict::Abandon;
            }
            return match now - state.idle_since {
                idle if idle < bounds.header_timeout => Verdict::Continue,
                // Not a request in all that time: there is nothing to be finished.
                _ if !state.any => Verdict::Abandon,
                // The last bytes may still be on their way.
                idle if idle < bounds.header_timeout + bounds.write_timeout => Verdict::Finish,
                _ => Verdict::Abandon,
            };
        }
        let (mut given_up, mut open) = (0, state.open);
        for answer in state.answers.iter().filter_map(Weak::upgrade) {
            let mut answer = locked(&answer);
            if answer.waits_since.is_some_and(|since| now - since >= bounds.write_timeout) {
                answer.body = None;
                given_up += 1;
            }
        }
        open -= given_up.min(open);
        match (given_up, open) {
            (0, _) => Verdict::Continue,
            (_, 0) => Verdict::Abandon,
            _ => Verdict::Finish,
        }
    }
}

#[derive(Debug)]
struct Answer {
    /// None when it was given up.
    body: Option<Logged>,
    /// Since when the client has been offered all that was asked of the body.
    waits_since: Option<Instant>,
}

/// A body that notes when it is asked for more.
#[derive(Debug)]
pub(super) struct Watched {
    answer: Arc<Mutex<Answer>>,
    /// Of the last piece of the body.
    rest: Bytes,
    _open: Open,
    _permit: OwnedSemaphorePermit,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let mut answer = locked(&this.answer);
        answer.waits_since = None;
        let Some(body) = &mut answer.body else {
            let text = "the client took nothing of it for too long";
            let error = io::Error::new(io::ErrorKind::TimedOut, text);
            return Poll::Ready(Some(Err(axum::Error::new(error))));
        };
        if this.rest.is_empty() {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended @ Poll::Ready(_) => return ended,
            }
        }
        answer.waits_since = Some(Instant::now());
        let piece = this.rest.split_to(this.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let answer = locked(&self.answer);
        self.rest.is_empty() && answer.body.as_ref().is_some_and(Logged::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let answer = locked(&self.answer);
        let rest = self.rest.len() as u64;
        let Some(body) = &answer.body else { return SizeHint::new() };
        let hint = body.size_hint();
        let mut sum = SizeHint::new();
        sum.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            sum.set_upper(upper + rest);
        }
        sum
    }
}

/// How often a connection's verdict is asked for.
pub(super) fn interval(bounds: &Bounds) -> Duration {
    let shortest = bounds.header_timeout.min(bounds.write_timeout);
    (shortest / 4).min(linger(bounds) / 2).max(Duration::from_millis(10))
}
