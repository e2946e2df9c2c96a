use std::time::Duration;

use bytes::Bytes;

use crate::gzip::{gzip, gzip_of_zeros};
use crate::{Answer, Gate, Pattern, Request};

/// What a [`FakeUpstream`](crate::FakeUpstream) does instead of answering honestly.
///
/// Most change either what is answered (`status`, `replace`, `flip_byte`, `version`, …) or how it is
/// sent (`hang`, `truncate`, `reset`, `drip`, `gate`, …); `with` joins one of each kind.
#[derive(Debug, Clone)]
pub struct Fault {
    pub(crate) content: Content,
    pub(crate) delivery: Delivery,
    headers: Vec<(String, String)>,
    pub(crate) times: Option<usize>,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Honest,
    Answer(Answer),
    Body(Bytes),
    FlipByte(usize),
    Version(String),
    Gzip { damaged: bool },
}

/// How an answer goes over the wire. `after` counts bytes of the body; `None` is before the head.
#[derive(Debug, Clone)]
pub(crate) enum Delivery {
    Whole,
    /// Waits for the gate, or for ever.
    Hold {
        after: Option<usize>,
        gate: Option<Gate>,
    },
    Cut {
        after: Option<usize>,
        reset: bool,
    },
    Drip {
        bytes: usize,
        every: Duration,
    },
    Chunked {
        cut_after: Option<usize>,
    },
    Raw(Bytes),
    /// After the body come spaces, without end.
    Endless,
    /// Sends the head and so many bytes of the body, then waits for the gate before it goes on.
    Behind {
        bytes: usize,
        gate: Gate,
        then: Box<Delivery>,
    },
}

impl Fault {
    fn content(content: Content) -> Fault {
        Fault { content, delivery: Delivery::Whole, headers: Vec::new(), times: None }
    }

    fn delivery(delivery: Delivery) -> Fault {
        Fault { delivery, ..Fault::content(Content::Honest) }
    }

    /// Answers with that status, and with a text that says so.
    pub fn status(status: u16) -> Fault {
        let text = format!("fault: status {status}\n");
        Fault::content(Content::Answer(Answer::text(status, text)))
    }

    /// Answers with a redirect to a URL or a path; one that leads to itself is a loop.
    pub fn redirect(location: impl Into<String>) -> Fault {
        Fault::status(302).header("Location", location)
    }

    /// Answers 200 with that body.
    pub fn replace(body: impl Into<Vec<u8>>) -> Fault {
        Fault::content(Content::Body(body.into().into()))
    }

    /// Inverts one byte of the honest body; counted from its start, modulo its length.
    pub fn flip_byte(at: usize) -> Fault {
        Fault::content(Content::FlipByte(at))
    }

    /// Puts another version into the honest `.info`.
    pub fn version(version: impl Into<String>) -> Fault {
        Fault::content(Content::Version(version.into()))
    }

    /// Sends the honest body with `Content-Encoding: gzip`, whether or not that was asked for.
    pub fn gzip() -> Fault {
        Fault::content(Content::Gzip { damaged: false })
    }

    /// The same with a wrong checksum at the end.
    pub fn damaged_gzip() -> Fault {
        Fault::content(Content::Gzip { damaged: true })
    }

    /// Sends a gzip that unpacks to so many zeros, some 150 times its own size.
    pub fn gzip_bomb(zeros: u64) -> Fault {
        Fault::replace(gzip_of_zeros(zeros)).header("Content-Encoding", "gzip")
    }

    /// Sends the honest body, and says that it has another length: what is missing never comes, and what
    /// is too much comes all the same.
    pub fn content_length(length: usize) -> Fault {
        Fault::content(Content::Honest).header("Content-Length", length.to_string())
    }

    /// Takes the request and says nothing, until the client leaves.
    pub fn hang() -> Fault {
        Fault::delivery(Delivery::Hold { after: None, gate: None })
    }

    /// Sends the head and so many bytes of the body, then nothing more, until the client leaves.
    pub fn hang_after(bytes: usize) -> Fault {
        Fault::delivery(Delivery::Hold { after: Some(bytes), gate: None })
    }

    /// Says nothing until the gate opens, then goes on.
    pub fn gate(gate: &Gate) -> Fault {
        Fault::delivery(Delivery::Hold { after: None, gate: Some(gate.clone()) })
    }

    /// Stops after so many bytes of the body until the gate opens, then goes on.
    pub fn gate_after(gate: &Gate, bytes: usize) -> Fault {
        Fault::delivery(Delivery::Hold { after: Some(bytes), gate: Some(gate.clone()) })
    }

    /// Closes the connection after so many bytes of the body, of which `Content-Length` promised more.
    pub fn truncate(bytes: usize) -> Fault {
        Fault::delivery(Delivery::Cut { after: Some(bytes), reset: false })
    }

    /// Closes the connection without a word.
    pub fn close() -> Fault {
        Fault::delivery(Delivery::Cut { after: None, reset: false })
    }

    /// Resets the connection (RST) without a word.
    pub fn reset() -> Fault {
        Fault::delivery(Delivery::Cut { after: None, reset: true })
    }

    /// Resets the connection after so many bytes of the body.
    pub fn reset_after(bytes: usize) -> Fault {
        Fault::delivery(Delivery::Cut { after: Some(bytes), reset: true })
    }

    /// Sends the body in small pieces with pauses between.
    pub fn drip(bytes: usize, every: Duration) -> Fault {
        Fault::delivery(Delivery::Drip { bytes, every })
    }

    /// Sends the body in chunks, without `Content-Length`; no lie.
    pub fn chunked() -> Fault {
        Fault::delivery(Delivery::Chunked { cut_after: None })
    }

    /// The same, but closes after so many bytes of the body, without the last chunk.
    pub fn cut_chunked(bytes: usize) -> Fault {
        Fault::delivery(Delivery::Chunked { cut_after: Some(bytes) })
    }

    /// Sends the body, and after it spaces for as long as the client takes them.
    pub fn endless() -> Fault {
        Fault::delivery(Delivery::Endless)
    }

    /// Sends these bytes in place of an HTTP answer and closes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Fault {
        Fault::delivery(Delivery::Raw(bytes.into().into()))
    }

    /// Sends the head and so many bytes of the body, and commits the fault of how it is sent (in what is left) only once
    /// the gate is open.
    pub fn behind(self, gate: &Gate, bytes: usize) -> Fault {
        let then = Box::new(self.delivery);
        Fault { delivery: Delivery::Behind { bytes, gate: gate.clone(), then }, ..self }
    }

    /// Sends this fault's content in the way of the other.
    pub fn with(self, delivery: Fault) -> Fault {
        assert!(
            matches!((&self.delivery, &delivery.content), (Delivery::Whole, Content::Honest)),
            "{self:?} and {delivery:?} are of one kind"
        );
        Fault {
            delivery: delivery.delivery,
            headers: [self.headers, delivery.headers].concat(),
            times: self.times.or(delivery.times),
            ..self
        }
    }

    /// The text of a [`status`](Fault::status), as `text/plain`.
    pub fn text(self, text: impl Into<String>) -> Fault {
        self.body("text/plain; charset=utf-8", text.into())
    }

    /// The body of a [`status`](Fault::status), and its content type.
    pub fn body(mut self, content_type: &str, body: impl Into<Vec<u8>>) -> Fault {
        let Content::Answer(answer) = &mut self.content else {
            panic!("only a status has a body of its own: {self:?}")
        };
        *answer = Answer::new(answer.status, content_type, body.into());
        self
    }

    /// One more header; it takes the place of one of the same name.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Fault {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn retry_after(self, seconds: u32) -> Fault {
        self.header("Retry-After", seconds.to_string())
    }

    /// Only for the first so many requests that the pattern matches.
    pub fn first(self, requests: usize) -> Fault {
        Fault { times: Some(requests), ..self }
    }

    /// The one that a request meets: of several that match, the last. It has been used then.
    pub(crate) fn met_by(request: &Request, faults: &mut [(Pattern, Fault)]) -> Option<Fault> {
        faults.iter_mut().rev().find_map(|(pattern, fault)| {
            let live = fault.times != Some(0) && pattern.matches(request);
            live.then(|| {
                fault.times = fault.times.map(|times| times - 1);
                fault.clone()
            })
        })
    }

    /// Whether [`apply`](Fault::apply) asks for the honest answer.
    pub(crate) fn needs_honest(&self) -> bool {
        let alone = matches!(self.content, Content::Answer(_));
        !alone && !matches!(self.delivery, Delivery::Raw(_))
    }

    pub(crate) fn apply(&self, honest: impl FnOnce() -> Answer) -> Answer {
        let mut answer = match &self.content {
            Content::Answer(answer) => answer.clone(),
            Content::Honest => honest(),
            Content::Body(body) => Answer { status: 200, body: body.clone(), ..honest() },
            Content::FlipByte(at) => {
                let answer = honest();
                let mut body = answer.body.to_vec();
                if let Some(at) = at.checked_rem(body.len()) {
                    body[at] = !body[at];
                }
                Answer { body: body.into(), ..answer }
            }
            Content::Version(version) => {
                let answer = honest();
                let mut info: serde_json::Value = serde_json::from_slice(&answer.body)
                    .expect("only an .info has a version to be changed");
                info["Version"] = version.as_str().into();
                Answer { body: info.to_string().into(), ..answer }
            }
            Content::Gzip { damaged } => {
                let answer = honest();
                let mut body = gzip(&answer.body);
                if *damaged {
                    let checksum = body.len() - 8;
                    body[checksum] ^= 1;
                }
                let answer = Answer { body: body.into(), ..answer };
                answer.with_header("Content-Encoding", "gzip")
            }
        };
        for (name, value) in &self.headers {
            answer = answer.with_header(name, value);
        }
        answer
    }
}
