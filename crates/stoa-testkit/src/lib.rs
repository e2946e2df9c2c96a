//! For tests: a fake upstream proxy, a fake checksum database, and the real `go` command in a box.
//!
//! ```
//! use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Modules};
//!
//! let modules = Modules::parse("
//! -- ex.com/hello@v1.0.0/go.mod --
//! module ex.com/hello
//! -- ex.com/hello@v1.0.0/hello.go --
//! package hello
//! ");
//! let sumdb = FakeSumdb::new("sum.test.example", &modules);
//! let upstream = FakeUpstream::start(modules).with_sumdb(&sumdb);
//! upstream.fault("/ex.com/hello/@v/*.zip", Fault::status(500).text("try later").first(1));
//!
//! // … point a server or the go command at `upstream.url()` with `sumdb.verifier_key()` …
//! assert_eq!(upstream.count("*.zip"), 0);
//! ```
//!
//! - [`Modules`] are written as one small text; lists, infos and zips are made from it.
//! - [`FakeUpstream`] serves them over HTTP, keeps a log of the requests, and lies, stalls and breaks
//!   off as [`Fault`]s say. It has a thread and a runtime of its own, so that it answers while a test
//!   blocks, and needs no runtime itself; only what waits is async.
//! - [`FakeSumdb`] is a checksum database with a key of its own that the real go command believes.
//! - [`GitRemotes`] are repositories that pass for others on the internet.
//! - [`Internet`] has them on hosts with real names, with TLS and credentials, behind an outgoing proxy.
//! - [`SshServer`] is a real sshd that has them.
//! - [`Port`] refuses, drops, keeps silent, or says what nobody wants to hear.
//! - [`Go`] runs the real `go` command with nothing of the machine's own settings.
//!
//! A mistake in a test's own description (malformed text, an unknown module) panics and says where.

mod background;
mod fault;
mod gate;
mod git;
mod go;
mod gzip;
mod internet;
mod modules;
mod pattern;
mod port;
mod ssh;
mod sumdb;
mod tls;
mod upstream;
mod wire;

pub use fault::Fault;
pub use gate::Gate;
pub use git::{GIT_VECTORS, GitRemotes, require_git};
pub use go::{Go, Output, require_go};
pub use internet::{Access, Host, Internet, Reach};
pub use modules::{Modules, zip_of};
pub use pattern::Pattern;
pub use port::Port;
pub use ssh::{SshServer, require_sshd};
pub use sumdb::{FakeSumdb, Misbehaviour};
pub use tls::{Authority, Certificate, TlsFront};
pub use upstream::FakeUpstream;
pub use wire::{Answer, Request};

/// How long anything here waits for what must happen before it calls the test failed.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
