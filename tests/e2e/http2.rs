//! What a client can do to the server with frames of HTTP/2 that no honest one sends: each has a bound, after which its
//! connection ends, and the others notice nothing of it.

use std::time::{Duration, Instant};

use stoa_testkit::{Fault, Gate};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::clients::memory_kib;
use crate::fixtures::{BASE, World};
use crate::stoa::{Setup, Stoa};
use crate::tls::{PREFACE, Signed, secured};

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Until a connection that must end has ended.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the server may need of memory, whatever it is sent. In a debug build each of 2,048 flights takes some 30 KiB.
const MEMORY_KIB: u64 = 128 << 10;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A request's head, without any compression (RFC 7541, appendix A has the numbers).
fn head(path: &str) -> Vec<u8> {
    let mut head = vec![0x82, 0x87];
    for (name, value) in [(0x01, "x"), (0x04, path)] {
        // Shorter than what needs a second byte for its length.
        assert!(value.len() < 127);
        head.extend([name, u8::try_from(value.len()).unwrap()]);
        head.extend(value.bytes());
    }
    head
}

/// A connection whose frames are written by hand.
struct Raw {
    read: ReadHalf<TlsStream<TcpStream>>,
    write: WriteHalf<TlsStream<TcpStream>>,
}

impl Raw {
    async fn connect(signed: &Signed, stoa: &Stoa) -> Self {
        let stream = TcpStream::connect(stoa.address()).await.unwrap();
        Self::over(signed, stream).await
    }

    async fn over(signed: &Signed, stream: TcpStream) -> Self {
        let (read, write) = tokio::io::split(signed.handshake(stream, b"h2").await);
        let mut raw = Self { read, write };
        raw.send(PREFACE).await.unwrap();
        raw
    }

    async fn send(&mut self, frames: &[u8]) -> std::io::Result<()> {
        self.write.write_all(frames).await?;
        self.write.flush().await
    }

    async fn ask(&mut self, stream: u32, path: &str) -> std::io::Result<()> {
        self.send(&frame(HEADERS, END_STREAM | END_HEADERS, stream, &head(path))).await
    }

    /// The next frame: its kind, stream and payload; none at the end of the connection.
    async fn next(&mut self) -> Option<(u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.read.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.read.read_exact(&mut payload).await.ok()?;
        Some((head[3], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// Reads to the end of the connection: the code of the last `GOAWAY`.
    async fn end(&mut self) -> Option<u32> {
        let reading = async {
            let mut code = None;
            while let Some((kind, _, payload)) = self.next().await {
                if kind == GOAWAY {
                    code = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
            code
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("the connection is closed")
    }
}

/// Others are served meanwhile, and it has cost no memory to speak of.
async fn others_are_served(signed: &Signed, stoa: &Stoa) {
    let client = signed.client().build().unwrap();
    let began = Instant::now();
    for _ in 0..10 {
        let reply = client.get(format!("{}/{BASE}.mod", stoa.url)).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let peak = memory_kib(stoa, "VmHWM:");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

fn world() -> (World, Signed, Setup) {
    let world = World::new();
    let (signed, setup) = secured(world.setup());
    (world, signed, setup)
}

/// CVE-2023-44487: a client that opens a stream and takes it back in one breath, and never has more than one open.
#[tokio::test]
async fn rapid_resets() {
    let (world, signed, setup) = world();
    let stoa = setup.start();
    let client = signed.client().build().unwrap();
    client.get(format!("{}/{BASE}.mod", stoa.url)).send().await.unwrap();
    let mut raw = Raw::connect(&signed, &stoa).await;
    let mut sent = 0;
    // What is taken back before the server looked at it is counted.
    for burst in 0..100 {
        let mut frames = Vec::new();
        for n in 0..100 {
            let stream = (burst * 100 + n) * 2 + 1;
            frames.extend(frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                stream,
                &head(&format!("/ex.com/cold{stream}/@v/list")),
            ));
            frames.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
        }
        if raw.send(&frames).await.is_err() {
            break;
        }
        sent += 100;
    }
    let code = raw.end().await;
    assert!(code.is_none_or(|code| code == ENHANCE_YOUR_CALM), "{code:?}");
    assert!(sent < 10_000, "nothing has stopped it");
    let asked = world.upstream.count("/ex.com/cold*");
    assert!(asked <= 200, "{asked} requests came of it");
    others_are_served(&signed, &stoa).await;
}

/// The same at a pace at which each request is begun: what was begun is let go of.
#[tokio::test]
async fn resets_of_what_was_begun() {
    let (world, signed, setup) = world();
    let gate = Gate::new();
    world.upstream.fault("/ex.com/cold*", Fault::gate(&gate));
    let setup = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s");
    let stoa = setup.env("STOA_UPSTREAM_MAX_CONCURRENT", "8").start();
    let client = signed.client().build().unwrap();
    client.get(format!("{}/{BASE}.mod", stoa.url)).send().await.unwrap();
    let mut raw = Raw::connect(&signed, &stoa).await;
    let mut stream = 1;
    for _ in 0..60 {
        let first = stream;
        for _ in 0..50 {
            raw.ask(stream, &format!("/ex.com/cold{stream}/@v/list")).await.unwrap();
            stream += 2;
        }
        // Answered in the order of their coming: the server has looked at all of those before it. It is stored, since what is
        // asked of the source may have to wait for a place there, all of which the others hold.
        raw.ask(stream, &format!("/{BASE}.mod")).await.unwrap();
        loop {
            let (kind, of, _) = raw.next().await.expect("the connection goes on");
            if (kind, of) == (HEADERS, stream) {
                break;
            }
        }
        stream += 2;
        for taken_back in (first..stream - 2).step_by(2) {
            raw.send(&frame(RST_STREAM, 0, taken_back, &CANCEL.to_be_bytes())).await.unwrap();
        }
    }
    // 3,000 of them, of which as many are under way at the source as it has places, and no more wait than can fly.
    assert!(world.upstream.count("/ex.com/cold*") <= 8);
    others_are_served(&signed, &stoa).await;
    let log = stoa.log();
    assert!(!log.contains("panicked"), "{log}");
    gate.open();
}

/// CVE-2024-27316: a head that never ends.
#[tokio::test]
async fn heads_without_end() {
    let (_world, signed, setup) = world();
    let stoa = setup.start();
    let mut raw = Raw::connect(&signed, &stoa).await;
    raw.send(&frame(HEADERS, END_STREAM, 1, &head("/healthz"))).await.unwrap();
    let mut header = vec![0x00, 1, b'x', 100];
    header.extend([b'y'; 100]);
    let piece = header.repeat(100);
    let mut sent = 0;
    while raw.send(&frame(CONTINUATION, 0, 1, &piece)).await.is_ok() {
        sent += piece.len();
        assert!(sent < 16 << 20, "nothing has stopped it");
    }
    raw.end().await;
    // And of empty frames, which no limit of bytes would stop.
    let mut raw = Raw::connect(&signed, &stoa).await;
    raw.send(&frame(HEADERS, END_STREAM, 1, &head("/healthz"))).await.unwrap();
    let (empty, mut sent) = (frame(CONTINUATION, 0, 1, b"").repeat(100), 0);
    while raw.send(&empty).await.is_ok() {
        sent += 100;
        assert!(sent < 1_000_000, "nothing has stopped it");
    }
    raw.end().await;
    let peak = memory_kib(&stoa, "VmHWM:");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
}

#[tokio::test]
async fn more_streams_than_there_may_be() {
    let (world, signed, setup) = world();
    let gate = Gate::new();
    world.upstream.fault("/ex.com/cold*", Fault::gate(&gate));
    let stoa = setup.env("STOA_UPSTREAM_LIST_TIMEOUT", "60s").start();
    let client = signed.client().build().unwrap();
    client.get(format!("{}/{BASE}.mod", stoa.url)).send().await.unwrap();
    let mut raw = Raw::connect(&signed, &stoa).await;
    // Without waiting for the settings that say how many.
    let mut frames = Vec::new();
    for n in 0..200_u32 {
        let path = format!("/ex.com/cold{n}/@v/list");
        frames.extend(frame(HEADERS, END_STREAM | END_HEADERS, n * 2 + 1, &head(&path)));
    }
    raw.send(&frames).await.unwrap();
    let refusing = async {
        let mut refused = 0;
        while refused < 136 {
            match raw.next().await {
                Some((RST_STREAM, _, code)) => {
                    assert_eq!(code, REFUSED_STREAM.to_be_bytes());
                    refused += 1;
                }
                Some((GOAWAY, _, payload)) => {
                    assert_eq!(payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes());
                    break;
                }
                Some(_) => {}
                None => break,
            }
        }
    };
    tokio::time::timeout(PATIENCE, refusing).await.expect("they are refused");
    assert!(world.upstream.count("/ex.com/cold*") <= 64);
    others_are_served(&signed, &stoa).await;
    gate.open();
}

/// Questions whose answers nobody reads: the server reads no further while it cannot say what it has to say.
#[tokio::test]
async fn pings_whose_answers_nobody_reads() {
    let (_world, signed, setup) = world();
    let stoa = setup.env("STOA_SERVER_WRITE_TIMEOUT", "500ms").start();
    // With little room, so that it is soon full.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 << 10).unwrap();
    let stream = socket.connect(stoa.address().parse().unwrap()).await.unwrap();
    let mut raw = Raw::over(&signed, stream).await;
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(500);
    let mut sent = 0;
    let flood = async {
        while raw.send(&pings).await.is_ok() {
            sent += pings.len();
            assert!(sent < 64 << 20, "nothing has stopped it");
        }
    };
    tokio::time::timeout(PATIENCE, flood).await.expect("the connection is closed");
    let peak = memory_kib(&stoa, "VmHWM:");
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    eprintln!("{} KiB of pings, peak {peak} KiB", sent >> 10);
}
