//! One test binary that drives the real server, and where it is installed the real `go` command. No test needs the
//! internet: upstreams and checksum databases are `stoa-testkit`'s, on loopback.

#![expect(unreachable_pub, reason = "`pub` says that other modules of this binary use it")]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![expect(clippy::print_stderr, reason = "a failed test shows the server's log")]

mod arrows;
mod breakers;
mod clients;
mod deploy;
mod direct_access;
mod direct_bad_input;
mod direct_bad_repositories;
mod direct_content;
mod direct_discovery;
mod direct_errors;
mod direct_mixed;
mod direct_net;
mod direct_privacy;
mod direct_redirects;
mod direct_world;
mod disk;
mod doctor;
mod doctor_client;
mod doctor_net;
mod endings;
mod explain;
mod faults;
mod fixtures;
mod floods;
mod go;
mod go_classes;
mod hedge;
mod http2;
mod listen;
mod matrix;
mod metrics;
mod nginx;
mod offline;
mod policy;
mod process;
mod ready;
mod refresh;
mod routes;
mod stoa;
mod streaming;
mod sumdb;
mod systemd;
mod tls;
mod tmpfs;
mod unverified;
mod waits;
