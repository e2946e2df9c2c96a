//! Requests to hosts that a stranger's text chose: a module's path, a page's go-import, a redirect.

use std::sync::Arc;

use reqwest::dns::Resolve;
use stoa_module::ErrorClass;
use tokio::sync::OnceCell;
use url::Url;

use crate::client::requests::Builder;
use crate::discovery::Rules;
use crate::discovery::address::{NotPublic, PublicOnly, is_public, literal_address};
use crate::failure::{Fault, Stage};
use crate::proxy::Proxies;

/// Whose request it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct About {
    /// A private module's name must not come to a host that nobody named for it.
    pub(crate) is_private: bool,
    /// A person has named the module, in whatever setting. Others may neither be fetched from this network's own hosts nor
    /// with this server's credentials, whatever their authors write into a page: whoever chooses a path could read what
    /// the server may read.
    pub(crate) is_named: bool,
    /// GOINSECURE names the module: `http:` and certificates that nobody vouches for will do.
    pub(crate) insecure: bool,
}

/// The address filter for our own requests: chooses the client that may ask a host, if any may.
pub(crate) struct Guard {
    rules: Arc<Rules>,
    proxies: Arc<Proxies>,
    /// For hosts that a setting names, wherever they are.
    named: Builder,
    /// For hosts that no setting names.
    public: Builder,
    /// Made when they are first needed: most servers need one of them, and each holds all authorities.
    clients: [OnceCell<reqwest::Client>; 4],
}

#[derive(Clone, Copy)]
struct Kind {
    /// Wherever the host is.
    anywhere: bool,
    /// Certificates are not looked at.
    insecure: bool,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl Guard {
    /// `named` and `public` make the clients; the second must have a resolver of [`Guard::resolver`].
    pub(crate) fn new(
        rules: Arc<Rules>,
        proxies: Arc<Proxies>,
        named: Builder,
        public: Builder,
    ) -> Self {
        Self { rules, proxies, named, public, clients: Default::default() }
    }

    /// A resolver that finds public addresses only.
    pub(crate) fn resolver(of: Arc<dyn Resolve>) -> Arc<dyn Resolve> {
        Arc::new(PublicOnly(of))
    }

    /// Whom to ask at this address. To be called for every hop.
    pub(crate) async fn client(&self, url: &Url, about: About) -> Result<&reqwest::Client, Fault> {
        let kind = self.kind(url, about)?;
        let index = usize::from(kind.anywhere) + 2 * usize::from(kind.insecure);
        let client = self.clients[index].get_or_try_init(async || {
            let builder = if kind.anywhere { &self.named } else { &self.public };
            let built = builder.build(|client| {
                if kind.insecure { client.tls_danger_accept_invalid_certs(true) } else { client }
            });
            built.map(|(client, _)| client)
        });
        client.await.map_err(|error| {
            Fault::new(ErrorClass::Internal, Stage::Local, format!("cannot ask over http: {error}"))
        })
    }

    fn kind(&self, url: &Url, about: About) -> Result<Kind, Fault> {
        let name = url.host_str().unwrap_or_default();
        if about.is_named && self.rules.names_host(name) {
            return Ok(Kind { anywhere: true, insecure: about.insecure });
        }
        if about.is_private {
            let detail = format!("redirect of a private module to another host ({name})");
            return Err(Fault::new(ErrorClass::Denied, Stage::Http, detail)
                .hint("if that host is one of yours, too, name it in the server's GOPRIVATE"));
        }
        // The resolver is not asked about these.
        if let Some(address) = literal_address(name).filter(|&address| !is_public(address)) {
            return Err(NotPublic(address).fault().at_host(name));
        }
        // Through an outgoing proxy it is the proxy that looks names up, and its own address may well be a private one.
        let anywhere = self.proxies.find(url).is_some();
        Ok(Kind { anywhere, insecure: about.insecure })
    }
}
