//! Getting bytes from elsewhere: upstream proxies over HTTP, credentials, retries.
#![forbid(unsafe_code)]

mod chain;
mod client;
mod credentials;
mod error;
mod failure;
mod netrc;
mod proxy;
mod settings;
mod source;
mod via;

pub use reqwest::dns;

pub use crate::chain::{Chain, Entry, Step, Walk, deciding};
pub use crate::client::{Bounds, Client, Downloaded};
pub use crate::error::Error;
pub use crate::failure::{Failure, Stage};
pub use crate::proxy::ProxyEnvironment;
pub use crate::settings::{Credential, Secret, Settings, netrc_from_env};
pub use crate::source::{Base, Source};
pub use crate::via::leads_back;

#[cfg(test)]
mod tests;
