//! HTTP/1.1 as a server speaks it that must also be able to lie: every byte is written by hand.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fault::Delivery;

/// A request as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    /// As it was sent, such as `/github.com/%21azure/x/@v/list`.
    pub target: String,
    /// Percent-decoded and without a query, such as `/github.com/!azure/x/@v/list`.
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// Which connection it came over, counted from 0.
    pub connection: usize,
}

impl Request {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn keeps_alive(&self) -> bool {
        !self.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"))
    }
}

/// An answer before it is sent. `Content-Length` is added when it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Answer {
    pub fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Answer {
        let headers = vec![("Content-Type".to_owned(), content_type.to_owned())];
        Answer { status, headers, body: body.into() }
    }

    pub fn text(status: u16, text: impl Into<String>) -> Answer {
        Answer::new(status, "text/plain; charset=utf-8", text.into())
    }

    pub fn not_found(text: &str) -> Answer {
        Answer::text(404, format!("not found: {text}\n"))
    }

    /// One more header; it takes the place of one of the same name.
    pub fn with_header(mut self, name: &str, value: &str) -> Answer {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

impl Answer {
    /// Tells this body from others.
    pub(crate) fn validator(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.body.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    /// The rest of the body, if that is asked for under its validator.
    pub(crate) fn ranged(self, request: &Request) -> Answer {
        let etag = header(&self.headers, "etag").map(str::to_owned);
        let is_same = etag.is_some() && etag.as_deref() == request.header("if-range");
        let from = request.header("range").and_then(|range| {
            range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok()
        });
        let total = self.body.len();
        match from {
            Some(from) if is_same && self.status == 200 && from < total => {
                let range = format!("bytes {from}-{}/{total}", total - 1);
                let body = self.body.slice(from..);
                Answer { status: 206, body, ..self }.with_header("Content-Range", &range)
            }
            _ => self,
        }
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
}

/// Reads the next request of a connection; `None` when the client left or does not speak HTTP.
pub(crate) async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    connection: usize,
) -> Option<Request> {
    const MAX_HEAD_BYTES: usize = 64 * 1024;
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if buffer.len() > MAX_HEAD_BYTES || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).ok()?;
    buffer.drain(..end + 4);

    let mut lines = head.split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, target) = (request_line.next()?.to_owned(), request_line.next()?.to_owned());
    let path = target.split('?').next().unwrap_or_default();
    let path = percent_decode_str(path).decode_utf8().ok()?.into_owned();
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    Some(Request { method, target, path, headers, connection })
}

/// Reads the body of a request, whose head was read before. A client that waits for leave to send it gets that.
pub(crate) async fn read_body(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    request: &Request,
) -> io::Result<Vec<u8>> {
    /// What a git client has to say about what it wants is far smaller.
    const MAX_BYTES: usize = 64 * 1024 * 1024;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    if request.header("expect").is_some_and(|it| it.eq_ignore_ascii_case("100-continue")) {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let is_chunked = |it: &str| it.eq_ignore_ascii_case("chunked");
    if !request.header("transfer-encoding").is_some_and(is_chunked) {
        let length = request.header("content-length").unwrap_or("0");
        let length = length.parse().ok().filter(|&it| it <= MAX_BYTES).ok_or_else(malformed)?;
        return take(stream, buffer, length).await;
    }
    let mut body = Vec::new();
    loop {
        let line = take_line(stream, buffer).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| malformed())?;
        if size == 0 {
            // Trailers, which nobody asked for.
            while !take_line(stream, buffer).await?.is_empty() {}
            return Ok(body);
        }
        if size > MAX_BYTES - body.len() {
            return Err(malformed());
        }
        body.extend(take(stream, buffer, size).await?);
        take_line(stream, buffer).await?;
    }
}

async fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, bytes: usize) -> io::Result<Vec<u8>> {
    while buffer.len() < bytes {
        more(stream, buffer).await?;
    }
    Ok(buffer.drain(..bytes).collect())
}

/// Up to the end of a line, which is taken but not part of the answer.
async fn take_line(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<String> {
    const MAX_BYTES: usize = 4096;
    loop {
        if let Some(end) = buffer.windows(2).position(|window| window == b"\r\n") {
            let line = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 2);
            return Ok(line);
        }
        if buffer.len() > MAX_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        more(stream, buffer).await?;
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Sends an answer. `Ok(true)` when the connection can take another request.
pub(crate) async fn deliver(
    stream: &mut TcpStream,
    request: &Request,
    answer: &Answer,
    delivery: &Delivery,
) -> io::Result<bool> {
    let chunked = matches!(delivery, Delivery::Chunked { .. } | Delivery::Endless);
    let mut head = head(answer, chunked);
    let mut body = if request.method == "HEAD" { &[] } else { &answer.body[..] };
    let (mut delivery, mut sent) = (delivery, 0);
    if let Delivery::Behind { bytes, gate, then } = delivery {
        let (first, rest) = body.split_at((*bytes).min(body.len()));
        stream.write_all(&[&head, first].concat()).await?;
        tokio::select! {
            () = client_leaves(stream) => return Ok(false),
            () = gate.pass() => {}
        }
        head.clear();
        (body, delivery, sent) = (rest, then, first.len());
    }
    let left = |after: &Option<usize>| after.map(|after| after.saturating_sub(sent));
    match delivery {
        Delivery::Behind { .. } => panic!("a fault is behind one gate"),
        Delivery::Whole => stream.write_all(&[&head, body].concat()).await?,
        Delivery::Hold { after, gate } => {
            let (before, rest) = split(&head, body, left(after));
            stream.write_all(&before).await?;
            tokio::select! {
                () = client_leaves(stream) => return Ok(false),
                () = async {
                    match gate {
                        Some(gate) => gate.pass().await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
            stream.write_all(&rest).await?;
        }
        Delivery::Cut { after, reset } => {
            stream.write_all(&split(&head, body, left(after)).0).await?;
            if *reset {
                stream.set_zero_linger()?;
            } else {
                stream.shutdown().await?;
            }
            return Ok(false);
        }
        Delivery::Drip { bytes, every } => {
            stream.write_all(&head).await?;
            for piece in body.chunks((*bytes).max(1)) {
                tokio::time::sleep(*every).await;
                stream.write_all(piece).await?;
            }
        }
        Delivery::Chunked { cut_after } => {
            stream.write_all(&head).await?;
            let sent = &body[..cut_after.unwrap_or(body.len()).min(body.len())];
            for piece in sent.chunks(1024) {
                stream.write_all(&chunk(piece)).await?;
            }
            if cut_after.is_some() {
                stream.shutdown().await?;
                return Ok(false);
            }
            if request.method != "HEAD" {
                stream.write_all(b"0\r\n\r\n").await?;
            }
        }
        Delivery::Endless => {
            stream.write_all(&head).await?;
            if !body.is_empty() {
                stream.write_all(&chunk(body)).await?;
            }
            let spaces = chunk(&[b' '; 16 * 1024]);
            loop {
                stream.write_all(&spaces).await?;
            }
        }
        Delivery::Raw(bytes) => {
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            return Ok(false);
        }
    }
    Ok(request.keeps_alive())
}

/// Bytes (not none, which would be the end) as a chunk.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat()
}

pub(crate) fn head(answer: &Answer, chunked: bool) -> Vec<u8> {
    use std::fmt::Write as _;

    let mut head = format!("HTTP/1.1 {} Fake\r\n", answer.status);
    for (name, value) in &answer.headers {
        _ = write!(head, "{name}: {value}\r\n");
    }
    if chunked {
        head += "Transfer-Encoding: chunked\r\n";
    } else if header(&answer.headers, "content-length").is_none() {
        _ = write!(head, "Content-Length: {}\r\n", answer.body.len());
    }
    head += "\r\n";
    head.into_bytes()
}

/// What goes before and after a stop; `after` counts bytes of the body, `None` is before the head.
fn split(head: &[u8], body: &[u8], after: Option<usize>) -> (Vec<u8>, Vec<u8>) {
    let at = after.map_or(0, |after| head.len() + after.min(body.len()));
    let mut before = [head, body].concat();
    let rest = before.split_off(at);
    (before, rest)
}

pub(crate) async fn client_leaves(stream: &TcpStream) {
    // One that sends its next request early is still there.
    if stream.peek(&mut [0]).await.is_ok_and(|bytes| bytes > 0) {
        std::future::pending::<()>().await;
    }
}
