//! A body in memory that comes at once, or so many bytes a second.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// A rest between two pieces, so short that the body seems to flow.
const REST: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct Paced {
    left: Bytes,
    /// Bytes of each piece, and when the next is due.
    pace: Option<(usize, Pin<Box<Sleep>>)>,
}

impl Paced {
    pub(crate) fn new(body: Bytes) -> Self {
        Self { left: body, pace: None }
    }

    /// From now on, so many bytes a second.
    pub(crate) fn at(self, bytes: u64) -> Self {
        let piece = (bytes * REST.as_millis() as u64 / 1000).max(1) as usize;
        Self { pace: Some((piece, Box::pin(sleep_until(Instant::now())))), ..self }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        let mut length = self.left.len();
        if let Some((piece, due)) = &mut self.pace {
            ready!(due.as_mut().poll(cx));
            // From when it was due, so that what was late is made up for.
            let next = due.deadline() + REST;
            due.as_mut().reset(next);
            length = length.min(*piece);
        }
        let piece = self.left.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
