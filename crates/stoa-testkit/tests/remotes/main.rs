//! The real `git` and the real `go` take what is here for hosts on the internet.

mod client;
mod https;
mod ssh;
mod wire;
