//! Which sources a module may come from, and whether the checksum database is asked about it.

use stoa_module::{ModulePath, Patterns};
use stoa_upstream::{Chain, Entry, Source};

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
/// This is stricter than the go command in one point: a module that `GOPRIVATE` names never takes the default chain and
/// is never asked about at the checksum database, even when `GONOPROXY` or `GONOSUMDB` is set to something else. Whoever
/// wants it fetched from a proxy names that proxy in a route; whoever has a database of their own for it names it in
/// `GONOPROXY` instead.
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

/// What decides on a module's chain.
#[derive(Clone, Copy, Debug)]
pub enum Rule<'p> {
    /// Its place among the routes, from 0.
    Route(usize, &'p Route),
    /// A pattern of `GONOPROXY`.
    NoProxy(&'p str),
    /// A pattern of `GOPRIVATE`.
    Private(&'p str),
    Default,
}

impl Policy {
    /// The first that fits: a route, `GONOPROXY`, `GOPRIVATE`, none.
    pub fn rule(&self, path: &ModulePath) -> Rule<'_> {
        let mut routes = self.routes.iter().enumerate();
        if let Some((n, route)) = routes.find(|(_, route)| route.pattern.matches(path)) {
            return Rule::Route(n, route);
        }
        let no_proxy = self.gonoproxy.find(path).map(Rule::NoProxy);
        let private = || self.goprivate.find(path).map(Rule::Private);
        no_proxy.or_else(private).unwrap_or(Rule::Default)
    }

    fn chain(&self, path: &ModulePath) -> &Chain {
        match self.rule(path) {
            Rule::Route(_, route) => &route.chain,
            Rule::NoProxy(_) | Rule::Private(_) => &self.direct,
            Rule::Default => &self.default,
        }
    }

    /// Whether the name is kept from shared caches, labels and hosts that were not named for it.
    pub fn is_private(&self, path: &ModulePath) -> bool {
        self.goprivate.matches(path) || self.gonoproxy.matches(path) || self.gonosumdb.matches(path)
    }

    /// The pattern that keeps this module's name from the checksum database: of `GONOSUMDB`, or of `GOPRIVATE`, which
    /// keeps it from everybody, also where `GONOSUMDB` is set to something else.
    pub fn exempting_pattern(&self, path: &ModulePath) -> Option<&str> {
        if is_toolchain(path) {
            return None;
        }
        self.gonosumdb.find(path).or_else(|| self.goprivate.find(path))
    }

    /// The route that refuses this module: one whose chain is `off` and nothing else. (The default chain being `off`
    /// means that only what is stored is served.)
    pub fn refusing_route(&self, path: &ModulePath) -> Option<&Route> {
        let Rule::Route(_, route) = self.rule(path) else { return None };
        let off = |entry: &Entry| matches!(entry.source, Source::Off);
        route.chain.entries.iter().all(off).then_some(route)
    }

    /// The chain of a module, in which a private name does not follow a redirect to a host that was not named for it.
    pub fn careful_chain(&self, path: &ModulePath) -> Chain {
        let mut chain = self.chain(path).clone();
        if self.is_private(path) {
            for entry in &mut chain.entries {
                entry.source = entry.source.clone().confined();
            }
        }
        chain
    }
}

pub(crate) fn is_toolchain(path: &ModulePath) -> bool {
    path.as_str() == TOOLCHAIN
}
