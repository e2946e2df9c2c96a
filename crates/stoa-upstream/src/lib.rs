//! Getting bytes from elsewhere: proxies and checksum databases behind `http:` and `https:`, directories behind
//! `file:`, modules' own repositories, with bounds, tries, credentials, redirects and outgoing proxies; and the go
//! command's rules for a chain of sources.
//!
//! [`Client::get`] reads something small into memory, [`Client::download`] writes something of any size to a file. Both
//! ask one [`Source`]; which one is asked next is told by a [`Walk`] along a [`Chain`]. What stands in the way of a host is
//! told by [`Client::examine`].
//!
//! # What can go wrong
//!
//! Every fault becomes a [`Failure`] by this table. "Again" tells whether it is tried again (three tries in all, with
//! pauses that double, within the bound to the first byte). Where a chain goes on after `,` it also does after `|`, and
//! it goes on after `|` whatever went wrong.
//!
//! | fault | class | stage | again | on after `,` |
//! |---|---|---|---|---|
//! | 404, 410; no such file | `NotFound` | http, local | no | yes |
//! | `off`; `direct` without a directory for repositories (never asked: 0 tries) | `NotFound` | local, git | no | yes |
//! | `direct`: no repository, no go-import, no such revision, a tree that can be no module; in its words: `direct/words.rs` | `NotFound` | http, git | no | yes |
//! | `direct`: a host that is not public and that nobody named; GOVCS | `Denied` | dns, local | no | no |
//! | 401, 403; a file that may not be read | `Denied` | http, local | no | no |
//! | redirect of a [confined](Source::confined) source to another host | `Denied` | http | no | no |
//! | 502, 503, 504 | `Unavailable` | http | yes, unless `Retry-After` is over 5 s | no |
//! | 429 | `Unavailable` | http | if `Retry-After` is at most 5 s | no |
//! | any other 4xx, any other 5xx | `Unavailable` | http | no | no |
//! | the name is not known, or nobody could be asked | `Unavailable` | dns | no: the resolver tries for itself | no |
//! | refused, unreachable, reset while connecting | `Unavailable` | connect | yes | no |
//! | the outgoing proxy refuses | `Unavailable` | connect | no | no |
//! | certificate not accepted, no TLS there, nobody to trust | `Unavailable` | tls | no | no |
//! | closed during the handshake | `Unavailable` | tls | yes | no |
//! | closed or reset before the header's end | `Unavailable` | http | yes | no |
//! | reset in the body | `Unavailable` | body | yes | no |
//! | name, connection and handshake together over [`Settings::connect_timeout`] | `Timeout` | dns, connect | no | no |
//! | no header within [`Bounds::header`] | `Timeout` | dns, connect, http | no | no |
//! | under 4 KiB of body within [`Settings::stall_timeout`] | `Timeout` | body | no | no |
//! | shorter than announced, bad chunks, bad gzip | `Corrupt` | body | yes | no |
//! | larger than [`Bounds::max_bytes`], decoded | `Corrupt` | body | no | no |
//! | not HTTP | `Corrupt` | http | no | no |
//! | 1xx to 3xx but 200 and a redirect, redirect without a usable `Location` | `Corrupt` | http | no | no |
//! | redirect loop, over ten redirects, from https to http | `Corrupt` | http | no | no |
//! | content encoding that was not asked for | `Corrupt` | http | no | no |
//! | the host's breaker is open (not asked: 0 tries) | `Unavailable` | that of the reason | no | no |
//! | the breaker opened because the host answers nobody, while the request waited | `Unavailable` | http | no | no |
//! | a path that leaves its base | `Invalid` | local | no | no |
//! | the downloaded file cannot be written | `Full` or `Internal` | local | no | no |
//!
//! # Decisions
//!
//! - A 200 is the only success, and after it nothing but the body's own length and form is checked here.
//! - Tries are made at one level: reqwest's own are switched off. (hyper still takes another connection when a pooled one
//!   turns out to be closed before anything was written to it. That is not a try: the upstream never saw the request.)
//! - A dead host costs its wait once ([`Use`], [`BreakerStatus`]). The rules are in `breaker/state.rs`. Probes are our own
//!   and tell a host no name that nobody wants it asked about; what a redirect leads to is no part of the host.
//! - Redirects are followed by our own loop, so that each hop gets the credentials that belong to it: those of the
//!   source while scheme, host and port stay the same, and none ever after they changed once. Otherwise an upstream could
//!   redirect to another host of the settings and have us fetch from it what only we may see.
//! - Small answers may come gzipped, and the cap is on what comes out. A zip is asked for as it is.
//! - `Via` carries the instance id ([`leads_back`]), also to where a redirect leads. No `Referer` is sent: it would tell a
//!   module's name to another host.
//! - The outgoing proxy is chosen by Go's rules, not by reqwest's.
#![forbid(unsafe_code)]

mod breaker;
mod chain;
mod client;
mod credentials;
mod direct;
mod discovery;
mod error;
pub mod examine;
mod failure;
pub mod journey;
mod netrc;
mod proxy;
mod settings;
mod source;
mod via;

pub use reqwest::dns;

pub use crate::breaker::{BreakerState, BreakerStatus, HostCounters, Use};
pub use crate::chain::{Chain, Entry, Step, Walk, deciding};
pub use crate::client::body::Watch;
pub use crate::client::names::NameCounts;
pub use crate::client::{Bounds, Client, Destination, Downloaded};
pub use crate::direct::{GitCommands, GitSettings, GitStatus};
pub use crate::discovery::{GoVcs, InvalidGoVcs, Rules};
pub use crate::error::Error;
pub use crate::failure::{Failure, Stage};
pub use crate::netrc::netrc_has_login;
pub use crate::proxy::ProxyEnvironment;
pub use crate::settings::{Credential, Environment, Secret, Settings, SshKey, netrc_from_env};
pub use crate::source::{Base, Source};
pub use crate::via::leads_back;

#[cfg(test)]
mod tests;
