//! One test binary that drives the real server, and where it is installed the real `go` command. No test needs the
//! internet: upstreams and checksum databases are `stoa-testkit`'s, on loopback.

mod fixtures;
mod routes;
mod stoa;
