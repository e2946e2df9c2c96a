//! What must hold for everything that reads what strangers send, whatever they send.
//!
//! Each room has `check`, which panics where a property does not hold, and `seeds`, from which libFuzzer sets out. The
//! programs in `fuzz_targets` only hand the bytes on.
#![forbid(unsafe_code)]

pub mod go_import;
pub mod go_mod;
pub mod info;
pub mod list;
pub mod lookup;
pub mod note;
pub mod plan;
pub mod proxies;
pub mod request;
mod signer;
pub mod tile;
pub mod zip;
mod zip_model;

/// One room.
#[derive(Debug)]
pub struct Target {
    pub name: &'static str,
    pub check: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)*) => {
        [$(Target { name: stringify!($name), check: $name::check, seeds: $name::seeds }),*]
    };
}

pub const TARGETS: [Target; 11] =
    targets![request note lookup tile plan zip go_mod proxies list info go_import];

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::{TARGETS, Target};

    #[test]
    fn every_seed_holds() {
        for Target { name, check, seeds } in TARGETS {
            let seeds = seeds();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                check(&seed);
                for cut in 0..seed.len().min(200) {
                    check(&seed[..cut]);
                }
            }
        }
    }
}
