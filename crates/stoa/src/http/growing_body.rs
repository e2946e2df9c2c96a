//! A file that is still being downloaded as a response body: what is there, then what comes, and its end once it is
//! verified. Where that is refused the body ends with an error, which resets the connection (or the stream): the length
//! that was announced tells the client, and everything between, that what it has is nothing.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body::{Body, Frame, SizeHint};
use stoa_core::{BrokenOff, Reader};
use stoa_module::ErrorClass;
use stoa_store::OpenFile;

use crate::http::file_body::FileBody;

type BoxError = Box<dyn Error + Send + Sync>;
type Readable = Result<(Arc<OpenFile>, u64), BrokenOff>;

/// Whether the answer to this request may be a body that grows: only a whole one, since its validator is not known yet.
pub fn suits<B>(request: &Request<B>) -> bool {
    let asks = |name| request.headers().contains_key(name);
    *request.method() == Method::GET && !asks(header::RANGE) && !asks(header::IF_NONE_MATCH)
}

/// Why an answer ended before it was whole, if that was our own word about its content.
pub fn verdict(error: &(dyn Error + 'static)) -> Option<ErrorClass> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(BrokenOff(class)) = error.downcast_ref() {
            return Some(*class);
        }
        next = error.source();
    }
    None
}

pub struct GrowingBody {
    state: State,
    given: u64,
    length: u64,
}

enum State {
    Waiting(Pin<Box<dyn Future<Output = (Reader, Readable)> + Send>>),
    Giving(FileBody, Reader),
    Ended,
}

impl GrowingBody {
    pub fn new(reader: Reader) -> Self {
        let length = reader.length();
        Self { state: State::wait(reader, 0), given: 0, length }
    }
}

impl State {
    fn wait(mut reader: Reader, from: u64) -> Self {
        Self::Waiting(Box::pin(async move {
            let readable = reader.readable(from).await;
            (reader, readable)
        }))
    }
}

impl Body for GrowingBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Ended => return Poll::Ready(None),
                State::Waiting(waiting) => {
                    let (reader, readable) = ready!(waiting.as_mut().poll(cx));
                    match readable {
                        Ok((file, end)) => {
                            this.state =
                                State::Giving(FileBody::new(file, this.given..end), reader);
                        }
                        Err(broken_off) => {
                            this.state = State::Ended;
                            return Poll::Ready(Some(Err(broken_off.into())));
                        }
                    }
                }
                State::Giving(piece, reader) => {
                    if let Some(broken_off) = reader.broken_off() {
                        this.state = State::Ended;
                        return Poll::Ready(Some(Err(broken_off.into())));
                    }
                    let frame = ready!(Pin::new(piece).poll_frame(cx));
                    if let Some(frame) = frame {
                        let bytes = |frame: &Frame<Bytes>| frame.data_ref().map_or(0, Bytes::len);
                        this.given += frame.as_ref().map_or(0, bytes) as u64;
                        return Poll::Ready(Some(frame.map_err(Into::into)));
                    }
                    this.state = if this.given < this.length {
                        State::wait(reader.clone(), this.given)
                    } else {
                        State::Ended
                    };
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.given == self.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.given)
    }
}

impl fmt::Debug for GrowingBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrowingBody")
            .field("given", &self.given)
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}
