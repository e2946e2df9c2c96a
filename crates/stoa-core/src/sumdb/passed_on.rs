//! The checksum database's own files, for clients that ask for them here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use stoa_module::{ErrorClass, ModulePath, ModuleVersion, Version};
use stoa_sumdb::{Tile, TileLevel};

use crate::answer::{Answer, Body, Freshness, Kind, Lasting, Outcome};
use crate::error::Error;
use crate::mirror::Mirror;

impl Mirror {
    /// A file below `/sumdb/`.
    pub(crate) async fn sumdb(&self, rest: &str, via: &str) -> Result<Answer, Arc<Error>> {
        let refuse = |class, text: String| Arc::new(Error::new(class, text));
        let Some(database) = &self.inner.database else {
            return Err(refuse(
                ErrorClass::NotFound,
                "this server uses no checksum database (GOSUMDB=off)".to_owned(),
            ));
        };
        let name = database.name();
        let Some(file) = rest.strip_prefix(name).and_then(|rest| rest.strip_prefix('/')) else {
            return Err(refuse(
                ErrorClass::NotFound,
                format!("sumdb/{rest}: the checksum database of this server is {name}"),
            ));
        };
        let default = &self.inner.policy.default;
        let (body, kind, freshness, hit, private) = if file == "supported" {
            // From configuration alone: a client that gets an error here verifies nothing any more.
            (Bytes::new(), Kind::SumdbText, Freshness::For(Duration::from_mins(1)), true, false)
        } else if file == "latest" {
            let (note, fresh) = database.latest(default, via).await?;
            let keep = Duration::from_secs(if fresh { 60 } else { 0 });
            (note, Kind::SumdbText, Freshness::For(keep), fresh, false)
        } else if let Some(text) = file.strip_prefix("lookup/") {
            let module = parse_lookup(text).ok_or_else(|| {
                refuse(
                    ErrorClass::Invalid,
                    format!("sumdb/{rest}: {text} is not a module and a version"),
                )
            })?;
            if let Some(pattern) = self.inner.policy.exempting_pattern(module.path()) {
                return Err(Arc::new(
                    Error::new(
                        ErrorClass::Denied,
                        format!("{module}: this server keeps the name from the checksum database (GONOSUMDB={pattern})"),
                    )
                    .hint(format!("on the client: go env -w GONOSUMDB={pattern}")),
                ));
            }
            let chain = self.inner.policy.careful_chain(module.path());
            let found = database.lookup(&module, &chain, via).await?;
            let private = self.is_private(module.path());
            (found.body, Kind::SumdbText, Freshness::Immutable, found.stored, private)
        } else if file.starts_with("tile/") {
            let tile = Tile::parse(file).map_err(|error| {
                refuse(ErrorClass::Invalid, format!("sumdb/{rest}: not a tile: {error}"))
            })?;
            let kind =
                if tile.level == TileLevel::Data { Kind::SumdbText } else { Kind::SumdbTile };
            let found = database.tile(tile, default, via).await?;
            let freshness =
                if found.proven { Freshness::Immutable } else { Freshness::For(Duration::ZERO) };
            (found.body, kind, freshness, found.stored, false)
        } else {
            return Err(refuse(
                ErrorClass::NotFound,
                format!("sumdb/{rest}: no such file of a checksum database"),
            ));
        };
        // Of what never changes, only what is proven has got onto the disk.
        let is_proven_and_stored = hit && freshness == Freshness::Immutable;
        Ok(Answer {
            body: Body::Bytes(body),
            kind,
            outcome: if hit { Outcome::Hit } else { Outcome::Miss },
            source: name.to_owned(),
            freshness,
            digest: None,
            private,
            lasting: if is_proven_and_stored { Lasting::Always } else { Lasting::Once },
        })
    }
}

/// `escaped/path@escaped-version`, as `/lookup/` has it.
fn parse_lookup(text: &str) -> Option<ModuleVersion> {
    let (path, version) = text.split_once('@')?;
    let path = ModulePath::parse_escaped(path).ok()?;
    let version = Version::parse_escaped(version).ok()?;
    ModuleVersion::new(path, version).ok()
}
