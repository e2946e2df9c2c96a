use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::cgi::{self, Call, Repositories};
use super::{Access, GitCall, Shared};
use crate::fault::Delivery;
use crate::wire::{client_leaves, deliver, read_body};
use crate::{Answer, Authority, Certificate, FakeUpstream, Fault, GitRemotes, Pattern, Request};

/// A host of an [`Internet`](crate::Internet). Clones are the same host; what is declared holds from the next request on.
///
/// Of what matches a request, the first of these answers: a fault, an [`Access`] that refuses it, a repository, a page
/// (the last declared); and else there is a 404.
#[derive(Debug, Clone)]
pub struct Host {
    name: Arc<str>,
    served: Arc<Mutex<Served>>,
}

/// What becomes of a connection to a [`Host`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Served,
    /// As if there were no such name: the proxy answers 502.
    Unresolvable,
    /// It is taken, and not a word comes back: not even of TLS.
    Silent,
}

type Page = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

struct Served {
    reach: Reach,
    certificate: Certificate,
    /// Made when it is first needed.
    acceptor: Option<TlsAcceptor>,
    faults: Vec<(Pattern, Fault)>,
    access: Vec<(String, Access)>,
    git: Vec<(String, Repositories)>,
    pages: Vec<Page>,
    upstream: Option<Upstream>,
}

/// What is known of a [`FakeUpstream`] that a host is.
#[derive(Debug, Clone)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) log: watch::Sender<Vec<Request>>,
}

/// What answers when nothing is wrong.
enum Honest {
    Answer(Answer),
    Git(Call),
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Served { reach, certificate, faults, access, git, upstream, .. } = self;
        f.debug_struct("Served")
            .field("reach", reach)
            .field("certificate", certificate)
            .field("faults", faults)
            .field("access", access)
            .field("git", git)
            .field("upstream", upstream)
            .finish_non_exhaustive()
    }
}

impl Host {
    pub(super) fn new(name: &str) -> Host {
        let served = Served {
            reach: Reach::Served,
            certificate: Certificate::Good,
            acceptor: None,
            faults: Vec::new(),
            access: Vec::new(),
            git: Vec::new(),
            pages: Vec::new(),
            upstream: None,
        };
        Host { name: name.into(), served: Arc::new(Mutex::new(served)) }
    }

    /// Its name, and the port if it was declared with one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A page at a path, whatever the query, or at a path with exactly that query: `/team/lib?go-get=1`.
    pub fn page(self, target: &str, answer: Answer) -> Host {
        let target = target.to_owned();
        self.pages(move |request| {
            let asked =
                if target.contains('?') { origin_form(&request.target) } else { &request.path };
            (asked == target).then(|| answer.clone())
        })
    }

    /// Pages by a function, which answers `None` where it has none.
    pub fn pages(self, pages: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Host {
        self.served().pages.push(Box::new(pages));
        self
    }

    /// Says with `?go-get=1` at `/PATH` and everywhere below it that modules from `HOST/PATH` on are in the repository at
    /// this URL.
    pub fn go_import(self, path: &str, vcs: &str, url: &str) -> Host {
        let prefix = match path.trim_matches('/') {
            "" => self.name.to_string(),
            path => format!("{}/{path}", self.name),
        };
        let page = format!(
            "<!DOCTYPE html>\n<html><head>\n<meta name=\"go-import\" content=\"{prefix} {vcs} {url}\">\n\
             </head></html>\n"
        );
        let answer = Answer::new(200, "text/html; charset=utf-8", page);
        let path = format!("/{}", path.trim_matches('/'));
        self.pages(move |request| {
            let query = request.target.split_once('?').is_some_and(|(_, it)| it == "go-get=1");
            (query && is_under(&request.path, &path)).then(|| answer.clone())
        })
    }

    /// The repositories at `https://HOST/PREFIX/NAME` and `…/NAME.git`, by the real `git http-backend`, which only lets
    /// them be read. They are there as long as the [`GitRemotes`] are.
    pub fn git(self, prefix: &str, remotes: &GitRemotes) -> Host {
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("/{prefix}") };
        self.served().git.push((prefix, Repositories::of(remotes)));
        self
    }

    /// Who may see what is at a path and below it, pages and repositories; `/` is all. The longest path decides, and of
    /// two that are the same the last one.
    pub fn access(self, path: &str, access: Access) -> Host {
        self.served().access.push((path.to_owned(), access));
        self
    }

    /// Is this upstream, and nothing else: bytes go there and come back. Faults are the upstream's own.
    pub fn upstream(self, upstream: &FakeUpstream) -> Host {
        let upstream = Upstream { address: upstream.address(), log: upstream.log() };
        self.served().upstream = Some(upstream);
        self
    }

    /// What it shows as its certificate, instead of a good one.
    pub fn certificate(self, certificate: Certificate) -> Host {
        let mut served = self.served();
        served.certificate = certificate;
        served.acceptor = None;
        drop(served);
        self
    }

    /// What becomes of connections from now on.
    pub fn reach(self, reach: Reach) -> Host {
        self.served().reach = reach;
        self
    }

    /// Meets the requests of a pattern with a fault: a status, a redirect, silence, a body without end. Of several that
    /// match, the last one added wins. A fault that needs the honest answer has git's too, whole.
    pub fn fault(self, pattern: impl Into<Pattern>, fault: Fault) -> Host {
        self.served().faults.push((pattern.into(), fault));
        self
    }

    /// Takes all faults away.
    pub fn clear_faults(&self) {
        self.served().faults.clear();
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of a connection now, and where it goes if not here.
    pub(super) fn door(&self) -> (Reach, Option<SocketAddr>) {
        let served = self.served();
        (served.reach, served.upstream.as_ref().map(|upstream| upstream.address))
    }

    pub(super) fn upstream_log(&self) -> Option<Vec<Request>> {
        self.served().upstream.as_ref().map(|upstream| upstream.log.borrow().clone())
    }

    pub(super) fn acceptor(&self, authority: &Authority) -> TlsAcceptor {
        let mut served = self.served();
        let kind = served.certificate;
        let name = self.name.split(':').next().unwrap_or_default();
        served.acceptor.get_or_insert_with(|| authority.acceptor(kind, &[name])).clone()
    }

    /// Answers one request. `Ok(true)` when the connection can take another.
    pub(super) async fn answer(
        &self,
        shared: &Shared,
        stream: &mut TcpStream,
        buffer: &mut Vec<u8>,
        request: Request,
    ) -> io::Result<bool> {
        let body = read_body(stream, buffer, &request).await?;
        let (fault, honest) = {
            let mut served = self.served();
            (Fault::met_by(&request, &mut served.faults), served.honest(&request))
        };
        // In this order: what a test changes once it has seen the request does not change its answer.
        shared.log.send_modify(|log| log.push((self.name.clone(), request.clone())));
        let needs_honest = fault.as_ref().is_none_or(Fault::needs_honest);
        let honest = match honest {
            _ if !needs_honest => Answer::text(200, ""),
            Honest::Answer(answer) => answer,
            Honest::Git(call) => {
                let kind = cgi::kind_of(&request, &body);
                if kind == Some(GitCall::List) {
                    shared.count_listing();
                }
                let transferred = || {
                    if kind == Some(GitCall::Fetch) {
                        shared.count_clone();
                    }
                };
                let running = call.start(&request, body)?;
                if fault.is_none() {
                    return running.stream(stream, &request, transferred).await;
                }
                tokio::select! {
                    answer = running.collect(transferred) => answer?,
                    () = client_leaves(stream) => return Ok(false),
                }
            }
        };
        match fault {
            Some(fault) => {
                deliver(stream, &request, &fault.apply(|| honest), &fault.delivery).await
            }
            None => deliver(stream, &request, &honest, &Delivery::Whole).await,
        }
    }
}

impl Served {
    fn honest(&self, request: &Request) -> Honest {
        let path = &*request.path;
        let guards = self.access.iter().filter(|(prefix, _)| is_under(path, prefix));
        let guard = guards.max_by_key(|(prefix, _)| prefix.trim_end_matches('/').len());
        if let Some(refusal) = guard.and_then(|(_, access)| access.refuse(request)) {
            return Honest::Answer(refusal);
        }
        let repository = self
            .git
            .iter()
            .find_map(|(prefix, repositories)| repositories.call(path.strip_prefix(&**prefix)?));
        if let Some(call) = repository {
            return Honest::Git(call);
        }
        let page = self.pages.iter().rev().find_map(|page| page(request));
        Honest::Answer(page.unwrap_or_else(|| Answer::not_found(path)))
    }
}

/// Whether a path is at another or below it.
pub(super) fn is_under(path: &str, prefix: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `/path?query` of a target that may be a whole URL.
pub(super) fn origin_form(target: &str) -> &str {
    let Some((_, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target;
    };
    rest.find('/').map_or("/", |at| &rest[at..])
}
