//! Any module from its origin: finds out where its code is, remembers that, and answers by the paths of the protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fs_err::tokio::File;
use moka::sync::Cache;
use stoa_module::{Artifact, ErrorClass, ModulePath, Request, Version};
use tokio::io::AsyncSeekExt as _;
use tokio::sync::Mutex;

use crate::client::body::Answer;
use crate::client::directory::Opened;
use crate::client::fault;
use crate::client::names::Names;
use crate::client::requests::Builder;
use crate::credentials::Credentials;
use crate::direct::access::{Access, Grant};
use crate::direct::counters::GitStatus;
use crate::direct::module::CodeModule;
use crate::direct::repositories::{Fresh, Repositories};
use crate::discovery::{Code, CodeRoot, Guard, Pages, Rules};
use crate::error::Error;
use crate::failure::{Fault, Stage};
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, Source};

/// How long it is known where a module's code is.
const FOUND_TTL: Duration = Duration::from_mins(5);
/// How long it is remembered that it could not be found out: for requests that come together.
const LOST_TTL: Duration = Duration::from_secs(2);
/// How long the last answer is good enough while the host gives no other.
const STALE_TTL: Duration = Duration::from_hours(24);
/// How long its host is not asked again then.
const STALE_PAUSE: Duration = Duration::from_secs(30);
/// Modules of which it is remembered.
const MODULES: u64 = 10_000;

/// Modules from their own repositories. See [`Source::Direct`].
#[derive(Debug)]
pub(crate) struct DirectModules {
    rules: Arc<Rules>,
    guard: Arc<Guard>,
    pages: Arc<Pages>,
    access: Arc<Access>,
    repositories: Repositories,
    places: Cache<ModulePath, Arc<Mutex<Slot>>>,
}

/// What is known of one module. Locked while its host is asked, so that one question answers all.
#[derive(Debug, Default)]
struct Slot {
    found: Option<(Instant, Place)>,
    lost: Option<(Instant, Fault)>,
}

/// Where a module is to be had.
#[derive(Clone, Debug)]
enum Place {
    Repository(CodeRoot),
    /// Its host names a proxy for it.
    Proxy(Base),
}

/// Who answers for a module.
pub(crate) enum Origin {
    Repository(CodeModule),
    Proxy(Source),
}

impl DirectModules {
    /// None if the settings name no directory for repositories. Blocks while it reads authorities.
    pub(crate) fn new(
        settings: &Settings,
        credentials: Arc<Credentials>,
        proxies: Arc<Proxies>,
        names: Arc<Names>,
    ) -> Result<Option<Self>, Error> {
        let Some(directory) = &settings.git_dir else { return Ok(None) };
        let environment = settings.environment.iter().cloned();
        let repositories = Repositories::new(directory, settings.git.clone(), environment)
            .map_err(Error::GitDirectory)?;
        let rules = Arc::new(settings.rules.clone());
        let builder = |resolver| Builder::new(settings, Arc::clone(&proxies), resolver);
        let guard = Guard::new(
            Arc::clone(&rules),
            Arc::clone(&proxies),
            builder(names.clone())?,
            builder(Guard::resolver(names.clone()))?,
        );
        let guard = Arc::new(guard);
        let pages = Arc::new(Pages::new(settings, Arc::clone(&guard), Arc::clone(&credentials)));
        let access = Access::new(
            settings,
            Arc::clone(&rules),
            credentials,
            proxies,
            names,
            Arc::clone(&pages),
            repositories.clone(),
        )?;
        let places = Cache::builder().max_capacity(MODULES).time_to_idle(STALE_TTL).build();
        let access = Arc::new(access);
        Ok(Some(Self { rules, guard, pages, access, repositories, places }))
    }

    /// The address filter, for requests to proxies that modules' hosts name.
    pub(crate) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(super) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    pub(super) fn repositories(&self) -> &Repositories {
        &self.repositories
    }

    pub(crate) fn status(&self) -> GitStatus {
        self.repositories.status()
    }

    /// Who answers for the module.
    pub(crate) async fn origin(&self, path: &ModulePath) -> Result<Origin, Fault> {
        let about = self.rules.about(path);
        match self.place(path).await? {
            Place::Proxy(base) => Ok(Origin::Proxy(Source::Http(base.guarded(about)))),
            Place::Repository(code) => Ok(Origin::Repository(self.open(path, &code)?)),
        }
    }

    /// What was said of the module before now does not count: somebody knows better.
    pub(crate) async fn look_anew(&self, path: &ModulePath) {
        let Some(slot) = self.places.get(path) else { return };
        let mut slot = slot.lock().await;
        slot.lost = None;
        if let Some((when, place)) = &mut slot.found {
            // Still the answer while the module's host gives no other.
            *when = when.checked_sub(FOUND_TTL).unwrap_or(*when);
            if let Place::Repository(code) = place {
                self.repositories.look_anew(&code.url);
            }
        }
    }

    fn open(&self, path: &ModulePath, code: &CodeRoot) -> Result<CodeModule, Fault> {
        let grant = Grant { access: Arc::clone(&self.access), about: self.rules.about(path) };
        let repository = self.repositories.open(code, Arc::new(grant))?;
        CodeModule::new(path, code, repository)
    }

    async fn place(&self, path: &ModulePath) -> Result<Place, Fault> {
        let slot = self.places.get_with_by_ref(path, Arc::default);
        let mut slot = slot.lock().await;
        if let Some((when, place)) = &slot.found
            && when.elapsed() < FOUND_TTL
        {
            return Ok(place.clone());
        }
        if let Some(outcome) = slot.lately() {
            return outcome;
        }
        match self.look(path).await {
            Ok(place) => {
                *slot = Slot { found: Some((Instant::now(), place.clone())), lost: None };
                Ok(place)
            }
            Err(fault) => {
                if !matches!(fault.class, ErrorClass::Unavailable | ErrorClass::Timeout) {
                    slot.found = None;
                }
                slot.lost = Some((Instant::now(), fault.clone()));
                slot.lately().unwrap_or(Err(fault))
            }
        }
    }

    async fn look(&self, path: &ModulePath) -> Result<Place, Fault> {
        match self.discovered(path).await? {
            Code::Git(code) => Ok(Place::Repository(code)),
            Code::Proxy(base) => {
                let base = Base::new(&base).map_err(|error| {
                    Fault::new(ErrorClass::NotFound, Stage::Http, error.to_string())
                })?;
                Ok(Place::Proxy(base))
            }
            Code::GitByScheme { root, urls } => self.by_scheme(path, &root, urls).await,
        }
    }

    /// The first address that answers; else what the first said, which most would have used.
    async fn by_scheme(
        &self,
        path: &ModulePath,
        root: &str,
        urls: Vec<String>,
    ) -> Result<Place, Fault> {
        let mut first = None;
        for url in urls {
            let code = CodeRoot { root: root.to_owned(), url, subdir: String::new() };
            match self.open(path, &code)?.ping().await {
                Ok(()) => return Ok(Place::Repository(code)),
                Err(fault) => _ = first.get_or_insert(fault),
            }
        }
        Err(first.unwrap_or_else(|| {
            Fault::new(ErrorClass::NotFound, Stage::Git, format!("git: no address for {root}"))
        }))
    }
}

impl Slot {
    /// What came of a failure that was not long ago: the last good answer, if it is of any use.
    fn lately(&self) -> Option<Result<Place, Fault>> {
        let (when, fault) = self.lost.as_ref()?;
        let kept = self.found.as_ref().filter(|(when, _)| when.elapsed() < STALE_TTL);
        let pause = if kept.is_some() { STALE_PAUSE } else { LOST_TTL };
        let kept = kept.map(|(_, place)| place.clone());
        (when.elapsed() < pause).then(|| kept.ok_or_else(|| fault.clone()))
    }
}

impl CodeModule {
    /// Whether anybody answers for the repository.
    async fn ping(&self) -> Result<(), Fault> {
        self.repository().refs(Fresh::Enough).await.map(|_| ())
    }

    /// A file of the protocol. A zip is made in a file of its own, and never in memory.
    pub(crate) async fn answer(&self, request: &Request, max_bytes: u64) -> Result<Made, Fault> {
        let text: Bytes = match request {
            Request::List(_) => self.list().await?.into(),
            Request::Latest(_) => self.latest().await?.into(),
            Request::Query { query, .. } => self.query(query.as_str()).await?.into(),
            Request::Artifact { module, artifact } => match artifact {
                Artifact::Info => self.info(module.version()).await?.into(),
                Artifact::Mod => self.go_mod(module.version()).await?.into(),
                Artifact::Zip => return self.zip_file(module.version(), max_bytes).await,
            },
            Request::Sumdb { .. } => return Err(impossible()),
        };
        Ok(Made::Text(Some(text)))
    }

    async fn zip_file(&self, version: &Version, max_bytes: u64) -> Result<Made, Fault> {
        let file = self.repository().temporary_file()?;
        let mut file = File::from_parts(file.into(), "the module zip");
        self.zip(version, &file, max_bytes).await?;
        file.rewind().await.map_err(|error| fault::of_write(&error))?;
        Opened::of(file).await.map(Made::Zip)
    }
}

/// What was made of a repository for an answer.
pub(crate) enum Made {
    /// None once it was taken.
    Text(Option<Bytes>),
    Zip(Opened),
}

impl Answer for Made {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Text(text) => text.as_ref().map(|text| text.len() as u64),
            Self::Zip(file) => file.length(),
        }
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, Fault> {
        match self {
            Self::Text(text) => Ok(text.take().filter(|text| !text.is_empty())),
            Self::Zip(file) => file.chunk().await,
        }
    }
}

/// A path that no file of a module has.
pub(crate) fn impossible() -> Fault {
    Fault::new(ErrorClass::Invalid, Stage::Local, "impossible file name")
}
