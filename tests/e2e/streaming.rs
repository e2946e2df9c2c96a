//! Large zips that clients get while they are downloaded: the first bytes as they come, the last ones once the whole is
//! verified, and never a whole one that was not.

use std::time::{Duration, Instant};

use bytes::Bytes;
use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Gate, Go, Modules, require_go, zip_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fixtures::{BASE, Reply, World, bounded, brief, noise};
use crate::listen::logged;
use crate::metrics::scrape;
use crate::stoa::{Setup, Stoa};
use crate::tls::secured;

const VERSION: &str = "ex.com/large@v1.0.0";
const ZIP: &str = "ex.com/large/@v/v1.0.0.zip";
const SIDECAR: &str = "cache/download/ex.com/large/@v/v1.0.0.stoa";
/// What is held back.
const TAIL: usize = 256 << 10;
/// Far more than the bounds of the servers here.
const PATIENCE: Duration = Duration::from_secs(15);

fn files(noise_bytes: usize, last: &str) -> [(&'static str, Vec<u8>); 3] {
    [
        ("go.mod", b"module ex.com/large\n\ngo 1.21\n".to_vec()),
        ("noise", noise(noise_bytes)),
        ("z.go", last.as_bytes().to_vec()),
    ]
}

/// The same names and lengths as the honest one, and up to the last file the same bytes.
fn forged(noise_bytes: usize) -> Vec<u8> {
    let files = files(noise_bytes, "package worse\n");
    zip_of(files.map(|(name, content)| (format!("{VERSION}/{name}"), content)))
}

/// An upstream with one large module, and the database that knows it.
struct Large {
    upstream: FakeUpstream,
    sumdb: FakeSumdb,
    modules: Modules,
    zip: Bytes,
}

const NOISE: usize = 1300 << 10;

impl Large {
    fn new() -> Self {
        Self::of(NOISE)
    }

    fn of(noise_bytes: usize) -> Self {
        let modules = Modules::default().with(VERSION, files(noise_bytes, "package large\n"));
        let sumdb = FakeSumdb::new("sum.test.example", &modules);
        let upstream = FakeUpstream::start(modules.clone()).with_sumdb(&sumdb);
        let zip = modules.zip(VERSION);
        Self { upstream, sumdb, modules, zip }
    }

    fn setup(&self) -> Setup {
        brief(Setup::new())
            .goproxy(self.upstream.url())
            .gosumdb(self.sumdb.verifier_key())
            .env("STOA_LIMITS_HOLD_SIZE", "1MiB")
            // What is held at a gate is not stalled.
            .env("STOA_UPSTREAM_STALL_TIMEOUT", "10s")
    }

    fn most(&self) -> usize {
        self.zip.len() - TAIL
    }

    fn h1s(&self) -> String {
        self.modules.zip_h1(VERSION).to_string()
    }
}

/// An answer as it comes over the wire.
struct Coming {
    stream: TcpStream,
    head: String,
    body: Vec<u8>,
}

impl Coming {
    /// Waits for the head.
    async fn of(stoa: &Stoa) -> Self {
        Self::begun(ask(stoa).await).await
    }

    async fn begun(mut stream: TcpStream) -> Self {
        let mut head = Vec::new();
        let reading = async {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.expect("a head in time");
        Self { stream, head: String::from_utf8(head).unwrap(), body: Vec::new() }
    }

    #[track_caller]
    fn is_whole_and_anonymous(&self, length: usize) {
        let head = self.head.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {length}\r\n")), "{head}");
        assert!(head.contains("\r\ncache-control: public, max-age=31536000, immutable\r\n"));
        assert!(head.contains("\r\ncontent-type: application/zip\r\n"), "{head}");
        assert!(!head.contains("etag"), "{head}");
    }

    /// Reads up to so many bytes of the body.
    async fn read_to(&mut self, bytes: usize) -> &[u8] {
        let mut more = vec![0; bytes - self.body.len()];
        let read = tokio::time::timeout(PATIENCE, self.stream.read_exact(&mut more));
        read.await.expect("bytes in time").expect("bytes");
        self.body.extend(more);
        &self.body
    }

    /// Nothing more comes for now.
    async fn holds(&mut self) {
        let more = self.stream.read_u8();
        let more = tokio::time::timeout(Duration::from_millis(60), more).await;
        assert!(more.is_err(), "{more:?} after {} bytes", self.body.len());
    }

    /// Reads to the end, however that is.
    async fn end(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = self.stream.read_to_end(&mut rest);
        let _ = tokio::time::timeout(PATIENCE, read).await.expect("an end in time");
        self.body.extend(rest);
        self.body
    }
}

async fn ask(stoa: &Stoa) -> TcpStream {
    let mut stream = TcpStream::connect(stoa.address()).await.expect("a connection");
    let request = format!("GET /{ZIP} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request fits");
    stream
}

async fn stored(setup: &Setup) {
    let sidecar = setup.data_dir().join(SIDECAR);
    let stored = async {
        while !sidecar.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("it is stored");
}

/// Until the metrics say so of a zip.
async fn counted(stoa: &Stoa, outcome: &str, times: f64) {
    let sample = format!("stoa_requests_total{{kind=\"zip\",outcome=\"{outcome}\"}}");
    let counted = async {
        while scrape(stoa).await.get(&sample) != Some(&times) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let counted = tokio::time::timeout(PATIENCE, counted).await;
    counted.unwrap_or_else(|_| panic!("{sample} is not {times}"));
}

#[tokio::test]
async fn it_comes_as_fast_as_the_upstream_sends_it_but_for_its_end() {
    let large = Large::new();
    let (length, most) = (large.zip.len(), large.most());
    for held in [4, 1000, most - 1, most, most + 1, most + TAIL / 2, length - 1] {
        let gate = Gate::new();
        large.upstream.clear_faults();
        large.upstream.forget_requests();
        large.upstream.fault("*.zip", Fault::gate_after(&gate, held));
        let stoa = large.setup().start();
        let mut first = Coming::of(&stoa).await;
        first.is_whole_and_anonymous(length);
        let may = held.min(most);
        assert!(first.read_to(may).await == &large.zip[..may], "{held}");
        // One who comes later gets the same from the start.
        let mut later = Coming::of(&stoa).await;
        assert!(later.read_to(may).await == &large.zip[..may], "{held}");
        first.holds().await;
        later.holds().await;
        gate.open();
        assert!(first.end().await == large.zip, "{held}");
        assert!(later.end().await == large.zip, "{held}");
        assert_eq!(large.upstream.count("*.zip"), 1);
        let log = logged(&stoa, &["answered", "kind=\"zip\"", "outcome=\"miss\""]).await;
        assert!(log.contains(&format!("source=\"{}", large.upstream.url())), "{log}");
        counted(&stoa, "miss", 2.0).await;
        // From the store it is like any other.
        let hit = stoa.get(ZIP).await;
        assert!(hit.header("etag").len() > 60);
        assert!(hit.ok() == large.zip);
    }
}

/// What says more than "all of it" waits for the file, whose validator is known.
#[tokio::test]
async fn heads_ranges_and_conditions_wait_for_the_file() {
    let large = Large::new();
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, large.most()));
    let stoa = large.setup().start();
    let mut first = Coming::of(&stoa).await;
    first.read_to(10).await;
    let (range, unless) = ([("range", "bytes=5-9")], [("if-none-match", "\"other\"")]);
    let others = async {
        tokio::join!(stoa.head(ZIP), stoa.get_with(ZIP, &range), stoa.get_with(ZIP, &unless))
    };
    let opening = async {
        // They are on the flight, or come to the stored file: both is right, and has a validator.
        tokio::task::yield_now().await;
        gate.open();
    };
    let ((head, part, whole), ()) = tokio::join!(others, opening);
    let etag = head.header("etag").to_owned();
    assert!(etag.len() > 60);
    assert_eq!(head.header("content-length"), large.zip.len().to_string());
    assert_eq!((part.status.as_u16(), part.header("etag")), (206, &*etag));
    assert_eq!(part.body, large.zip[5..10]);
    assert_eq!(whole.header("etag"), etag);
    assert!(whole.ok() == large.zip);
    assert!(first.end().await == large.zip);
    let same = stoa.get_with(ZIP, &[("if-none-match", &etag)]).await;
    assert_eq!(same.status, 304);
    assert_eq!(large.upstream.count("*.zip"), 1);
}

/// The record is asked for while the zip is; only when it is known there is an answer, and at once then.
#[tokio::test]
async fn the_head_waits_for_the_record_and_not_for_the_zip() {
    let large = Large::new();
    let (record, body) = (Gate::new(), Gate::new());
    large.upstream.fault("*.zip", Fault::gate_after(&body, large.zip.len() - 10));
    large.upstream.fault("*/lookup/*", Fault::gate(&record));
    let stoa = large.setup().env("STOA_SUMDB_TIMEOUT", "20s").start();
    let mut stream = ask(&stoa).await;
    // Both are under way at the same time.
    tokio::join!(record.wait_for_held(1), body.wait_for_held(1));
    let nothing = tokio::time::timeout(Duration::from_millis(60), stream.read_u8()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    record.open();
    let mut coming = Coming::begun(stream).await;
    assert!(coming.read_to(large.most()).await == &large.zip[..large.most()]);
    coming.holds().await;
    body.open();
    assert!(coming.end().await == large.zip);
}

/// What proves a record is known before any of it is asked for, and asked for together.
#[tokio::test]
async fn the_tiles_of_a_proof_are_fetched_at_once() {
    let world = World::new();
    let gate = Gate::new();
    world.upstream.fault("*/tile/*", Fault::gate(&gate));
    let setup = world.setup().env("STOA_SUMDB_TIMEOUT", "20s");
    let stoa = setup.env("STOA_UPSTREAM_FILE_TIMEOUT", "20s").start();
    let path = format!("{BASE}.zip");
    let all_held = async {
        // Of a tree of some three hundred records: two of the lowest level, one of the next.
        gate.wait_for_held(3).await;
        gate.open();
    };
    let (reply, ()) = tokio::join!(stoa.get(&path), all_held);
    reply.ok();
    // None was asked for behind them; and the look-up of the .mod reads none again.
    assert_eq!(world.upstream.count("*/tile/*"), 3);
}

/// An exempt module has no record to wait for.
#[tokio::test]
async fn what_is_exempt_is_streamed_too() {
    let large = Large::new();
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, 5000));
    let setup = large.setup().env("STOA_GONOSUMDB", "ex.com/*");
    let stoa = setup.start();
    let mut coming = Coming::of(&stoa).await;
    assert!(coming.head.to_ascii_lowercase().contains("cache-control: private, max-age"));
    coming.read_to(5000).await;
    gate.open();
    assert!(coming.end().await == large.zip);
    assert_eq!(large.upstream.count("*/lookup/*"), 0);
}

/// Whoever cannot tell how much is missing, or may be told that it is unverified, gets the file.
#[tokio::test]
async fn what_is_not_streamed() {
    let check = async |fault: Fault, change: fn(Setup) -> Setup, status: u16| -> Reply {
        let large = Large::new();
        large.upstream.fault("*.zip", fault);
        let stoa = change(large.setup()).start();
        let reply = bounded(stoa.get(ZIP)).await;
        assert_eq!(reply.status.as_u16(), status);
        if status == 200 {
            assert!(reply.header("etag").len() > 60);
            assert!(reply.body == large.zip);
        }
        reply
    };
    let honest = || Fault::content_length(Large::new().zip.len());
    let same = |setup| setup;
    check(Fault::chunked(), same, 200).await;
    check(honest(), |setup| setup.env("STOA_LIMITS_HOLD_SIZE", "2MiB"), 200).await;
    // No zip begins so.
    let page = "<html>welcome to our hotel</html>".repeat(50_000);
    check(Fault::replace(page), same, 502).await.refused(502, "not a module zip");
    // In an outage it goes out unverified, which is said in its head.
    let large = Large::new();
    large.upstream.fault("/sumdb/*", Fault::status(500));
    let setup = large.setup().env("STOA_SUMDB_ON_UNREACHABLE", "serve");
    let reply = bounded(setup.env("STOA_SUMDB_SERVE_AFTER", "1s").start().get(ZIP)).await;
    assert_eq!(reply.header("cache-control"), "no-store");
    assert!(reply.ok() == large.zip);
    // No record: nothing of it is given.
    let large = Large::new();
    let empty = FakeSumdb::new("sum.test.example", &Modules::default());
    empty.append_filler(5);
    large.upstream.set_sumdb(&empty);
    let setup = large.setup().gosumdb(empty.verifier_key());
    bounded(setup.start().get(ZIP)).await.refused(404, "GOPRIVATE");
}

/// Whatever is wrong with it: nobody gets a byte of its end, the connection breaks, the log and the metrics say why, and
/// who asks again is told.
#[tokio::test]
async fn what_is_wrong_is_never_whole() {
    let check = async |fault: Fault, outcome: &str, status: u16, words: &str| {
        let large = Large::new();
        // It is wrong once somebody reads it; else it is simply refused.
        let gate = Gate::new();
        large.upstream.fault("*.zip", fault.clone().behind(&gate, 1000));
        let setup = large.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "700ms");
        let stoa = setup.env("STOA_UPSTREAM_TRIES", "2").start();
        let coming = Coming::of(&stoa).await;
        gate.open();
        assert!(coming.head.starts_with("HTTP/1.1 200 "), "{fault:?}: {}", coming.head);
        let announced = coming.head.to_ascii_lowercase();
        let announced = announced.split("content-length: ").nth(1).unwrap();
        let announced: usize = announced.lines().next().unwrap().parse().unwrap();
        let body = coming.end().await;
        assert!(body.len() <= announced - TAIL, "{fault:?}: {} of {announced}", body.len());
        counted(&stoa, outcome, 1.0).await;
        let line = logged(&stoa, &["broken off", "request_id", "kind=\"zip\""]).await;
        assert!(line.contains(&format!("outcome=\"{outcome}\"")), "{line}");
        // Another one is not given anything before it is whole, and hears what it is.
        bounded(stoa.get(ZIP)).await.refused(status, words);
        assert!(!setup_has_zip(&stoa, &large).await);
    };
    let honest = Large::new();
    let length = honest.zip.len();
    // Another content under the same names: both hashes are named.
    check(Fault::replace(forged(NOISE)), "mismatch", 403, &honest.h1s()).await;
    // Broken in the middle, in the directory, in its last byte.
    check(Fault::flip_byte(length / 2), "corrupt", 502, "not a module zip").await;
    check(Fault::flip_byte(length - 1), "corrupt", 502, "not a module zip").await;
    check(Fault::flip_byte(length - 40), "corrupt", 502, "not a module zip").await;
    // No zip at all behind its first bytes.
    let garbage = [b"PK\x03\x04".to_vec(), noise(NOISE)].concat();
    check(Fault::replace(garbage), "corrupt", 502, "not a module zip").await;
    // Shorter or longer than it says.
    check(Fault::content_length(length - 1), "corrupt", 502, "not a module zip").await;
    check(Fault::content_length(length + 1), "timeout", 504, "stalled").await;
    // It ends or stands still: early, where its end begins, in its end, just before the last byte.
    for at in [70_000, length - TAIL, length - TAIL / 2, length - 1] {
        check(Fault::truncate(at), "corrupt", 502, "cut off").await;
        check(Fault::reset_after(at), "unavailable", 502, "").await;
        check(Fault::hang_after(at), "timeout", 504, "stalled").await;
    }
}

/// Whether the store has it, by what a client without an upstream would get.
async fn setup_has_zip(stoa: &Stoa, large: &Large) -> bool {
    large.upstream.clear_faults();
    large.upstream.fault("*", Fault::status(500));
    let reply = stoa.get(ZIP).await;
    reply.status == 200
}

#[tokio::test]
async fn a_slow_reader_holds_up_nobody_and_gets_what_is_right() {
    // More than the kernels keep for a connection.
    let noise_bytes = 12 << 20;
    let large = Large::of(noise_bytes);
    let setup = large.setup();
    let stoa = setup.start();
    let mut slow = Coming::of(&stoa).await;
    slow.read_to(100).await;
    // The download does not wait for it, nor do others; and the file has another name afterwards.
    stored(&setup).await;
    assert!(stoa.get(ZIP).await.ok() == large.zip);
    assert!(slow.end().await == large.zip);
    stoa.stop();

    let large = Large::of(noise_bytes);
    large.upstream.fault("*.zip", Fault::replace(forged(noise_bytes)));
    let stoa = large.setup().start();
    let mut slow = Coming::of(&stoa).await;
    slow.read_to(100).await;
    logged(&stoa, &["SECURITY: checksum mismatch"]).await;
    bounded(stoa.get(ZIP)).await.refused(403, &large.h1s());
    let body = slow.end().await;
    assert!(body.len() < large.most(), "{} bytes", body.len());
}

#[tokio::test]
async fn those_who_leave_cancel_nothing() {
    let large = Large::new();
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, 100_000));
    let setup = large.setup();
    let stoa = setup.start();
    let mut stays = Coming::of(&stoa).await;
    for bytes in [0, 1, 50_000] {
        let mut leaves = Coming::of(&stoa).await;
        leaves.read_to(bytes).await;
        leaves.stream.set_zero_linger().unwrap();
    }
    counted(&stoa, "broken_off", 3.0).await;
    gate.open();
    stays.read_to(100_000).await;
    assert!(stays.end().await == large.zip);
    stoa.stop();

    // Nor does the only one.
    let large = Large::new();
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, 100_000));
    let setup = large.setup();
    let stoa = setup.start();
    let mut only = Coming::of(&stoa).await;
    only.read_to(100).await;
    drop(only);
    counted(&stoa, "broken_off", 1.0).await;
    gate.open();
    stored(&setup).await;
    assert!(stoa.get(ZIP).await.ok() == large.zip);
    assert_eq!(large.upstream.count("*.zip"), 1);
}

/// Those who have its beginning are broken off; those who have nothing yet get it from the next source.
#[tokio::test]
async fn the_next_source_is_for_those_who_have_nothing_yet() {
    for (separator, status) in [("|", 200), (",", 502)] {
        let (large, other) = (Large::new(), Large::new());
        let gate = Gate::new();
        let at = 200_000;
        large.upstream.fault("*.zip", Fault::flip_byte(100_000).with(Fault::gate_after(&gate, at)));
        let chain = format!("{}{separator}{}", large.upstream.url(), other.upstream.url());
        let stoa = large.setup().goproxy(chain).start();
        let mut first = Coming::of(&stoa).await;
        first.read_to(at).await;
        let range = [("range", "bytes=0-")];
        let (waits, ()) = tokio::join!(bounded(stoa.get_with(ZIP, &range)), async {
            // It is on this flight, or on the next one if it is late; it must not see the broken one.
            tokio::task::yield_now().await;
            gate.open();
        });
        assert!(first.end().await.len() <= large.most());
        if status == 200 {
            assert!(waits.body == large.zip);
            assert!(stoa.get(ZIP).await.ok() == large.zip);
            assert_eq!(other.upstream.count("*.zip"), 1);
        } else {
            waits.refused(status, "not a module zip");
            assert_eq!(other.upstream.count("*.zip"), 0);
        }
        counted(&stoa, "corrupt", if status == 200 { 1.0 } else { 2.0 }).await;
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_under_its_validator() {
    let range = |large: &Large| -> Vec<String> {
        let asked = large.upstream.requests().into_iter();
        let zips = asked.filter(|asked| asked.path == format!("/{ZIP}"));
        zips.map(|asked| asked.header("range").unwrap_or_default().to_owned()).collect()
    };
    let at = 700_000;
    for fault in [Fault::truncate(at), Fault::reset_after(at), Fault::hang_after(at)] {
        let large = Large::new();
        large.upstream.give_ranges();
        large.upstream.fault("*.zip", fault.clone().first(1));
        let stoa = large.setup().env("STOA_UPSTREAM_STALL_TIMEOUT", "700ms").start();
        let coming = Coming::of(&stoa).await;
        assert!(coming.end().await == large.zip, "{fault:?}");
        let asked = range(&large);
        assert_eq!(asked.len(), 2, "{asked:?}");
        // What a reset takes with it was never here.
        let from = asked[1].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap();
        assert!(from.parse::<usize>().unwrap() <= at, "{asked:?}");
        counted(&stoa, "miss", 1.0).await;
    }
    // The same validator, other bytes: they fit together, and are not what was vouched for.
    let large = Large::new();
    large.upstream.give_ranges();
    large.upstream.fault("*.zip", Fault::replace(forged(NOISE)));
    large.upstream.fault("*.zip", Fault::truncate(at).first(1));
    let setup = large.setup();
    let stoa = setup.start();
    let body = Coming::of(&stoa).await.end().await;
    assert!(body.len() <= large.most());
    bounded(stoa.get(ZIP)).await.refused(403, &large.h1s());
    let kept: Vec<_> =
        fs_err::read_dir(setup.data_dir().join("quarantine")).unwrap().flatten().collect();
    let forged = forged(NOISE);
    let holds =
        |entry: &fs_err::DirEntry| fs_err::read(entry.path()).is_ok_and(|body| body == forged);
    assert!(kept.iter().any(holds), "{kept:?}");
}

/// A disk that fills up meanwhile: what was given cannot be followed up; others get it past the disk.
#[tokio::test]
async fn a_disk_that_fills_up() {
    let large = Large::of(6 << 20);
    let Some(setup) = large.setup().on_tmpfs("4m") else { return };
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, 1 << 20).first(1));
    let stoa = setup.start();
    let mut first = Coming::of(&stoa).await;
    first.read_to(1 << 20).await;
    let (head, ()) = tokio::join!(bounded(stoa.head(ZIP)), async {
        tokio::task::yield_now().await;
        gate.open();
    });
    assert_eq!(head.header("content-length"), large.zip.len().to_string());
    assert!(first.end().await.len() < large.most());
    assert!(bounded(stoa.get(ZIP)).await.ok() == large.zip);
}

/// Over HTTP/2 it is the stream that is reset; others on the connection do not notice.
#[tokio::test]
async fn over_http2_the_stream_is_reset() {
    let large = Large::new();
    let (signed, setup) = secured(large.setup());
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::replace(forged(NOISE)).behind(&gate, 1000));
    let stoa = setup.start();
    let client = signed.client().build().unwrap();
    let get = async || client.get(format!("{}/{ZIP}", stoa.url)).send().await.unwrap();
    let reply = get().await;
    assert_eq!((reply.status().as_u16(), reply.version()), (200, http::Version::HTTP_2));
    assert_eq!(reply.content_length(), Some(large.zip.len() as u64));
    gate.open();
    let broken = reply.bytes().await.unwrap_err();
    assert!(format!("{broken:?}").contains("INTERNAL_ERROR"), "{broken:?}");
    let reply = get().await;
    assert_eq!(reply.status(), 403);
    let text = reply.text().await.unwrap();
    assert!(text.contains(&large.h1s()), "{text}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_an_upstream() {
    let large = Large::new();
    let gate = Gate::new();
    large.upstream.fault("*.zip", Fault::gate_after(&gate, 100_000));
    let stoa = large.setup().env("STOA_SERVER_DRAIN_TIMEOUT", "500ms").start();
    let mut coming = Coming::of(&stoa).await;
    coming.read_to(100_000).await;
    let began = Instant::now();
    stoa.stop();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(coming.end().await.len(), 100_000);
}

#[tokio::test]
async fn the_go_command_through_a_slow_upstream() {
    if !require_go() {
        return;
    }
    let noise_bytes = 5 << 20;
    let large = Large::of(noise_bytes);
    large.upstream.fault("*.zip", Fault::drip(64 << 10, Duration::from_millis(20)));
    // By the default: larger than four megabytes.
    let setup = large.setup().env("STOA_LIMITS_HOLD_SIZE", "4MiB");
    let stoa = setup.start();
    let go = |stoa: &Stoa| {
        let go = Go::new().goproxy(&stoa.url).gosumdb(large.sumdb.verifier_key());
        go.project("-- go.mod --\nmodule ex.com/app\n\ngo 1.21\n")
    };
    go(&stoa).ok(["mod", "download", VERSION]).await;
    counted(&stoa, "miss", 1.0).await;
    stoa.stop();

    large.upstream.clear_faults();
    large.upstream.fault("*.zip", Fault::replace(forged(noise_bytes)));
    let stoa = large.setup().start();
    let client = go(&stoa);
    let said = client.fails(["mod", "download", VERSION]).await;
    assert!(said.contains("EOF") || said.contains("checksum mismatch"), "{said}");
    let said = client.fails(["mod", "download", VERSION]).await;
    assert!(said.contains("checksum mismatch") && said.contains(&large.h1s()), "{said}");
}
