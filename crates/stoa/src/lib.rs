//! The program: command line, configuration, HTTP, listeners, signals, wiring.

pub mod cli;
pub mod command_socket;
pub mod config;
pub mod doctor;
pub mod healthcheck;
pub mod http;
pub mod log;
pub mod refresh;
pub mod server;
pub mod systemd;
pub mod wiring;
