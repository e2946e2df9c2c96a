//! One question over HTTP, and the beginning of its answer.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use http::header::{HeaderName, LOCATION, SERVER, VIA};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::Client;
use crate::client::budget::Budget;
use crate::client::{fault, words};
use crate::examine::tls::Wire;
use crate::examine::{Course, Step, Trouble, banner, line};
use crate::failure::{Fault, Stage, span};
use crate::source::{Base, redacted};

/// Of a header that is read by hand.
const MAX_HEAD: usize = 16 << 10;
/// Of a body, which shows how fast it comes.
const MAX_BODY: usize = 256 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes in a second; a body that comes more slowly, and whose end does not come, is slow.
const SLOW: f64 = 32.0 * 1024.0;
/// Of a header's value, characters.
const MAX_VALUE: usize = 40;

/// Asks the one question, with the client's own means. `wire` is a connection to the same host that nothing was said over
/// yet, if there is one.
pub(super) async fn ask(
    client: &Client,
    base: &Base,
    url: &Url,
    wire: Option<Box<dyn Wire>>,
    course: &mut Course,
) {
    let Some(begun) = course.begin(Step::Http, Duration::MAX) else { return };
    let mut waiting = Budget::new(begun.patience());
    client.http().doubt(url);
    match client.http().ask_once(base, url, &mut waiting).await {
        Ok(response) => {
            let to_header = begun.at.elapsed();
            course.dated(dated(response.headers()));
            let until = Instant::now() + BODY_TIMEOUT.min(begun.left());
            let (seen, trouble) = received(response, to_header, until).await;
            course.end(begun, &seen, trouble);
        }
        Err(fault) => {
            let mut trouble = fault.trouble.unwrap_or(match fault.stage {
                Stage::Dns => Trouble::ResolverSilent,
                Stage::Connect => Trouble::Filtered,
                Stage::Tls => Trouble::TlsFailed,
                _ => Trouble::HeaderTimeout,
            });
            let mut seen = fault.to_string();
            if trouble == Trouble::HeaderTimeout {
                seen = format!("connected, and no header of an answer: {seen}");
            }
            if trouble == Trouble::Endless {
                seen = format!("a header without end: {seen}");
            }
            // Whoever speaks first is met before the question was asked.
            if matches!(trouble, Trouble::NotHttp | Trouble::Reset)
                && let Some(mut wire) = wire
            {
                let said = first_words(&mut wire, url, begun.left().min(BODY_TIMEOUT)).await;
                if !said.is_empty() && status(&said).is_none() {
                    trouble = Trouble::NotHttp;
                    seen = format!("it does not speak http: {}", banner(&said));
                }
            }
            course.end(begun, &seen, trouble);
        }
    }
}

/// What an answer shows.
async fn received(
    mut response: Response,
    to_header: Duration,
    until: Instant,
) -> (String, Option<Trouble>) {
    let status = response.status();
    let mut seen = format!("{:?} {}", response.version(), status.as_u16());
    for (name, shown) in
        [(SERVER, "server"), (VIA, "via"), (HeaderName::from_static("x-cache"), "x-cache")]
    {
        if let Some(value) = response.headers().get(name) {
            let value = line(&String::from_utf8_lossy(value.as_bytes()));
            let value: String = value.chars().take(MAX_VALUE).collect();
            _ = write!(seen, ", {shown} {value}");
        }
    }
    if status.is_redirection() {
        _ = write!(seen, ", redirects to {}", target(&response));
    }
    _ = write!(seen, ", header after {}", span(to_header));
    let is_plain = words::are_plain(response.headers());
    let mut trouble = of_status(status);

    let began = Instant::now();
    let (mut bytes, mut beginning, mut has_no_end) = (0, Vec::new(), false);
    while bytes < MAX_BODY {
        match timeout_at(until, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = words::MAX_BYTES - beginning.len();
                beginning.extend(chunk.iter().take(room));
                bytes += chunk.len();
            }
            Ok(Ok(None)) => break,
            Ok(Err(error)) => {
                let Fault { detail, .. } = fault::of_body(&error);
                _ = write!(seen, ", {detail}");
                trouble = trouble.or(Some(Trouble::Reset));
                break;
            }
            Err(_) => {
                has_no_end = true;
                break;
            }
        }
    }
    let took = began.elapsed();
    let rate = bytes as f64 / took.as_secs_f64().max(0.001);
    let is_slow = has_no_end && rate < SLOW && took >= BODY_TIMEOUT / 2;
    if bytes >= MAX_BODY || has_no_end {
        _ = write!(seen, ", {} of body at {}/s", size(bytes as f64), size(rate));
    } else {
        _ = write!(seen, ", {} of body", size(bytes as f64));
    }
    if is_slow {
        trouble = trouble.or(Some(Trouble::Slow));
    }
    if trouble.is_some()
        && is_plain
        && let Some(said) = words::from_body(&beginning)
    {
        _ = write!(seen, ": {said}");
    }
    (seen, trouble)
}

/// What is asked may well not be there.
fn of_status(status: StatusCode) -> Option<Trouble> {
    fault::of_status(status, None).trouble.filter(|&trouble| trouble != Trouble::NotFound)
}

fn target(response: &Response) -> String {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    match location.and_then(|location| response.url().join(location).ok()) {
        Some(url) => redacted(&url).chars().take(100).collect(),
        None => "nowhere".to_owned(),
    }
}

/// `1.5 KiB`.
fn size(bytes: f64) -> String {
    let (value, unit) = match bytes {
        ..1024.0 => return format!("{bytes:.0} B"),
        ..1_048_576.0 => (bytes / 1024.0, "KiB"),
        _ => (bytes / 1_048_576.0, "MiB"),
    };
    format!("{value:.1} {unit}")
}

/// What a host says to a question that tells it nothing: `HEAD /`. Up to the end of the header, or to the bound.
pub(super) async fn first_words(stream: &mut impl Wire, url: &Url, bound: Duration) -> Vec<u8> {
    let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
    let request = format!("HEAD / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let mut said = Vec::new();
    let asking = async {
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        read_into(stream, &mut said).await
    };
    // What came before it broke off counts as well.
    _ = timeout(bound, asking).await;
    said
}

/// The header of an answer, to its end, or to that of the connection; at most [`MAX_HEAD`].
pub(super) async fn read_head(stream: &mut impl Wire) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    read_into(stream, &mut head).await?;
    Ok(head)
}

/// Byte by byte, since what follows the header is somebody else's.
async fn read_into(stream: &mut impl Wire, head: &mut Vec<u8>) -> io::Result<()> {
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            break;
        }
        head.extend(byte);
        // One line is enough of what is something else, and there may be no more of it.
        if byte == *b"\n" && !head.starts_with(b"HTTP/") {
            break;
        }
    }
    Ok(())
}

/// The status in the first line of a header.
pub(super) fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?.get(1..)?.strip_prefix(b" ")?;
    std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()
}

/// The `Date` in a header that was read by hand.
pub(super) fn date(head: &[u8]) -> Option<Timestamp> {
    status(head)?;
    let text = String::from_utf8_lossy(head);
    let mut fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    parse(value)
}

fn dated(headers: &HeaderMap) -> Option<Timestamp> {
    parse(headers.get(http::header::DATE)?.to_str().ok()?)
}

fn parse(date: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(date.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_by_hand() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nDATE: Sat, 21 Nov 2026 21:00:00 GMT\r\n\r\n";
        assert_eq!(status(head), Some(200));
        assert_eq!(date(head).unwrap().to_string(), "2026-11-21T21:00:00Z");
        assert_eq!(status(b"HTTP/1.0 407 Who are you?\r\n"), Some(407));
        for other in
            [&b""[..], b"HTTP/1.1", b"HTTP/1.1 ", b"HTTP/1.1 20", b"SSH-2.0-x", b"HTTP/1.1 abc"]
        {
            assert_eq!((status(other), date(other)), (None, None), "{other:?}");
        }
        assert_eq!(date(b"HTTP/1.1 200 OK\r\nDate: yesterday\r\n\r\n"), None);
    }

    #[test]
    fn sizes() {
        let check = |bytes, expected: &str| assert_eq!(size(bytes), expected);
        check(0.0, "0 B");
        check(1023.0, "1023 B");
        check(1536.0, "1.5 KiB");
        check(262_144.0, "256.0 KiB");
        check(3_145_728.0, "3.0 MiB");
    }
}
