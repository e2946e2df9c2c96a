//! The matrix of faults: each fault × each document a source can have it in × where that source stands. For each case
//! the class of the answer, its time, what it says, who else was asked, what is in the store afterwards, and that all is
//! well again once the source is.
//!
//! Every case has a server and upstreams of its own. What must come of it is [`rule`]'s to say.

mod case;
mod fault;
mod rule;
mod target;

use std::sync::OnceLock;

use futures_util::StreamExt as _;
use stoa_testkit::{Authority, Certificate, FakeSumdb, FakeUpstream, Modules, TlsFront};
use tempfile::NamedTempFile;

use self::case::Case;
pub use self::case::World;
use self::fault::Fault;
use self::rule::Place;
use self::target::Target;
use crate::fixtures::noise;

/// What all cases share and none changes.
pub struct Common {
    modules: Modules,
    authority: Authority,
    authority_file: NamedTempFile,
    /// The database's own host, honest.
    _direct: FakeUpstream,
    _direct_front: TlsFront,
    sumdb: FakeSumdb,
}

impl Common {
    fn shared() -> &'static Self {
        static COMMON: OnceLock<Common> = OnceLock::new();
        COMMON.get_or_init(|| {
            let mut modules = Modules::default();
            for version in ["v1.0.0", "v1.1.0"] {
                let files = [
                    ("go.mod", b"module ex.com/lib\n".to_vec()),
                    ("lib.go", b"package lib\n".to_vec()),
                    // A zip that takes its time when it comes slowly.
                    ("noise", noise(48 << 10)),
                ];
                modules = modules.with(&format!("ex.com/lib@{version}"), files);
            }
            let authority = Authority::new();
            let authority_file = NamedTempFile::new().unwrap();
            fs_err::write(authority_file.path(), authority.pem()).unwrap();
            let direct = FakeUpstream::start(Modules::default());
            let direct_front = TlsFront::start(&direct, &authority, Certificate::Good);
            // Named so, it is reached there when nothing else is said.
            let sumdb = FakeSumdb::new(&direct_front.address().to_string(), &modules);
            sumdb.append_filler(300);
            direct.set_sumdb(&sumdb);
            Self {
                modules,
                authority,
                authority_file,
                _direct: direct,
                _direct_front: direct_front,
                sumdb,
            }
        })
    }
}

/// Servers at once: some where they work, many where they wait.
const BUSY: usize = 12;
const WAITING: usize = 48;

/// Runs every case of the faults and tells of all that went wrong.
async fn hold(at_once: usize, faults: &[Fault]) {
    let mut cases = Vec::new();
    for &fault in faults {
        for target in Target::ALL {
            for place in Place::ALL {
                if let Some(expected) = rule::expected(fault, target, place) {
                    cases.push(Case { fault, target, place, expected });
                }
            }
        }
    }
    let number = cases.len();
    let mut failed = run(at_once, cases).await;
    // Where bounds are short, a machine with much else to do may miss one: such a case is run again, by itself.
    let (waiting, mut wrong): (Vec<_>, Vec<_>) =
        failed.drain(..).partition(|(case, _)| case.waits());
    let again: Vec<_> = waiting.into_iter().map(|(case, _)| case).collect();
    if !again.is_empty() {
        eprintln!("{} of {number} cases are run again", again.len());
    }
    wrong.extend(run(1, again).await);
    let wrong: Vec<String> = wrong
        .iter()
        .flat_map(|(case, problems)| problems.iter().map(move |it| format!("{case}: {it}")))
        .collect();
    assert!(wrong.is_empty(), "{} problems in {number} cases:\n{}", wrong.len(), wrong.join("\n"));
}

/// The cases that went wrong, each with its problems.
async fn run(at_once: usize, cases: Vec<Case>) -> Vec<(Case, Vec<String>)> {
    let common = Common::shared();
    futures_util::stream::iter(cases)
        .map(|case| async move {
            // A task of its own, so that both threads of the runtime are used.
            let running = tokio::spawn({
                let case = case.clone();
                async move { case.run(common).await }
            });
            let problems = running.await.unwrap_or_else(|error| vec![error.to_string()]);
            (case, problems)
        })
        .buffer_unordered(at_once)
        .filter(|(_, problems)| std::future::ready(!problems.is_empty()))
        .collect()
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statuses() {
    hold(
        BUSY,
        &[
            Fault::NotFound,
            Fault::Gone,
            Fault::Unauthorized,
            Fault::Forbidden,
            Fault::BusyForSeconds,
            Fault::BusyUntil,
            Fault::ServerError,
            Fault::BadGateway,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections() {
    hold(
        BUSY,
        &[
            Fault::Refused,
            Fault::Reset,
            Fault::SelfSigned,
            Fault::ExpiredCertificate,
            Fault::CertificateOfAnother,
            Fault::NoTls,
            Fault::RedirectLoop,
            Fault::RedirectToHttp,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence() {
    hold(
        WAITING,
        &[
            Fault::SilentAtConnect,
            Fault::SilentAtHeaders,
            Fault::SilentInBody,
            Fault::DripsForEver,
            Fault::Steady,
            Fault::LengthTooLarge,
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies() {
    hold(
        BUSY,
        &[
            Fault::LengthTooSmall,
            Fault::Truncated,
            Fault::ChunksCutOff,
            Fault::TooLongAnnounced,
            Fault::TooLongUnannounced,
            Fault::NotHttp,
            Fault::LoginPage,
            Fault::GzipBomb,
            Fault::Forged,
        ],
    )
    .await;
}
