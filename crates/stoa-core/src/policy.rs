//! Which sources a module may come from, and whether the checksum database is asked about it.

use stoa_module::{ModulePath, Patterns};
use stoa_upstream::Chain;

/// The module whose zips are Go toolchains. The go command verifies it whatever the settings say, and so do we.
const TOOLCHAIN: &str = "golang.org/toolchain";

/// `[[route]]`: a chain of its own for the modules that match.
#[derive(Clone, Debug)]
pub struct Route {
    pub pattern: Patterns,
    pub chain: Chain,
}

/// Routing by name. The first route that matches wins; then `GONOPROXY` and `GOPRIVATE` go direct; the rest takes the
/// default chain.
///
/// This is stricter than the go command in one point: a module that `GOPRIVATE` names never takes the default chain,
/// even when `GONOPROXY` is set to something else. Whoever wants it fetched from a proxy names that proxy in a route.
#[derive(Clone, Debug)]
pub struct Policy {
    pub default: Chain,
    pub routes: Vec<Route>,
    /// The chain of modules that `GONOPROXY` or `GOPRIVATE` names: `direct` and nothing else.
    pub direct: Chain,
    pub goprivate: Patterns,
    pub gonoproxy: Patterns,
    pub gonosumdb: Patterns,
}

impl Policy {
    pub fn chain(&self, path: &ModulePath) -> &Chain {
        if let Some(route) = self.routes.iter().find(|route| route.pattern.matches(path)) {
            return &route.chain;
        }
        if self.gonoproxy.matches(path) || self.goprivate.matches(path) {
            return &self.direct;
        }
        &self.default
    }

    /// Whether the name is kept from shared caches, labels and hosts that were not named for it.
    pub fn is_private(&self, path: &ModulePath) -> bool {
        self.goprivate.matches(path) || self.gonoproxy.matches(path) || self.gonosumdb.matches(path)
    }

    /// The `GONOSUMDB` pattern that exempts this module from the checksum database.
    pub fn exempting_pattern(&self, path: &ModulePath) -> Option<&str> {
        if is_toolchain(path) { None } else { self.gonosumdb.find(path) }
    }
}

pub(crate) fn is_toolchain(path: &ModulePath) -> bool {
    path.as_str() == TOOLCHAIN
}
