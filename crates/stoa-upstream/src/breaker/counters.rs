//! What was asked of one host, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use stoa_module::ErrorClass;

use crate::breaker::{HostCounters, Use};
use crate::failure::Failure;

pub(crate) const OUTCOMES: usize = 8;

const NAMES: [&str; OUTCOMES] =
    ["ok", "absent", "denied", "corrupt", "unavailable", "timeout", "refused", "local"];

#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: [AtomicU64; OUTCOMES],
    retries: AtomicU64,
    bytes: AtomicU64,
    probes: AtomicU64,
    opened: AtomicU64,
}

fn add(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn ended<T>(&self, outcome: &Result<T, Failure>) {
        let name = match outcome {
            Ok(_) => "ok",
            Err(Failure { tries: 0, class: ErrorClass::Unavailable, .. }) => "refused",
            Err(failure) => match failure.class {
                ErrorClass::NotFound => "absent",
                ErrorClass::Denied => "denied",
                ErrorClass::Corrupt | ErrorClass::Mismatch => "corrupt",
                ErrorClass::Unavailable => "unavailable",
                ErrorClass::Timeout => "timeout",
                ErrorClass::Invalid
                | ErrorClass::Full
                | ErrorClass::Limited
                | ErrorClass::Internal => "local",
            },
        };
        for (known, counter) in NAMES.iter().zip(&self.requests) {
            if *known == name {
                add(counter, 1);
            }
        }
    }

    pub(crate) fn retried(&self) {
        add(&self.retries, 1);
    }

    pub(crate) fn received(&self, bytes: usize) {
        add(&self.bytes, bytes as u64);
    }

    pub(crate) fn probed(&self) {
        add(&self.probes, 1);
    }

    pub(crate) fn opened(&self) {
        add(&self.opened, 1);
    }

    pub(crate) fn snapshot(&self, host: &str, used_for: Use) -> HostCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HostCounters {
            host: host.to_owned(),
            used_for,
            requests: std::array::from_fn(|index| (NAMES[index], read(&self.requests[index]))),
            retries: read(&self.retries),
            bytes: read(&self.bytes),
            probes: read(&self.probes),
            opened: read(&self.opened),
        }
    }
}
