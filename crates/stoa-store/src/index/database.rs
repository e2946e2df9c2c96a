//! The SQLite database and every statement that runs on it.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqlSafeStr, Sqlite, SqlitePool, Transaction,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stoa_module::{Artifact, ModulePath, ModuleVersion};

use super::{Counts, Row};
use crate::record::ArtifactRecord;

/// How long a statement waits for another process's lock.
const BUSY: Duration = Duration::from_secs(2);
/// A connection is a thread and a page cache; nobody keeps one that is not used.
const IDLE: Duration = Duration::from_secs(30);
const READERS: u32 = 3;
/// Page cache of one connection, in SQLite's negative KiB.
const CACHE: &str = "-512";
/// The write-ahead log is cut to this after a checkpoint, in bytes.
const LOG_LIMIT: &str = "4194304";

const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "index", include_str!("../../../../migrations/sqlite/0001_index.sql")),
    (2, "unverified", include_str!("../../../../migrations/sqlite/0002_unverified.sql")),
];

/// SQLite's primary result codes that say "not now" and nothing about the content.
const TRANSIENT: [i32; 11] = [
    3,  // no permission
    5,  // busy
    6,  // locked
    7,  // no memory
    8,  // read-only
    9,  // interrupted
    10, // I/O
    13, // disk full
    14, // cannot open
    15, // locking protocol
    23, // not authorised
];
/// An extended code of I/O: the file ends in the middle of a page.
const SHORT_READ: i32 = 522;

/// Why a row is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A commit just now: it knows best.
    Commit,
    /// A pass over the sidecars: it may have read before the last commit.
    Pass,
}

/// An open database: one connection that writes, a few that read.
#[derive(Debug)]
pub(super) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    path: PathBuf,
    /// Device and inode, to notice that the file was taken away.
    identity: Option<(u64, u64)>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Sqlx(#[from] sqlx::Error),
    #[error(transparent)]
    Migrate(#[from] MigrateError),
}

impl OpenError {
    /// Whether the file itself is at fault.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Io(_) => false,
            Self::Sqlx(error)
            | Self::Migrate(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => is_damage(error),
            // Its schema is none of ours.
            Self::Migrate(_) => true,
        }
    }
}

/// Whether an error says that the database's content is at fault, and no later try would fare better.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(0);
            code == SHORT_READ || !TRANSIENT.contains(&(code & 0xff))
        }
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

/// Moves a damaged database aside, over an earlier one.
pub(super) fn move_aside(path: &Path) -> io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(path, suffix);
        if from.exists() {
            fs_err::rename(&from, with_suffix(path, &format!(".corrupt{suffix}")))?;
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Database {
    /// Opens the database, makes it if it is missing, and brings its schema up to date.
    pub(super) async fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            // A log without its database belongs to one that is gone, and would be played into the new one.
            for suffix in ["-wal", "-shm"] {
                match fs_err::remove_file(with_suffix(path, suffix)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
            }
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .busy_timeout(BUSY)
            .statement_cache_capacity(16)
            .pragma("cache_size", CACHE)
            .disable_statement_logging();
        let write = options
            .clone()
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .pragma("journal_size_limit", LOG_LIMIT);
        let pool = SqlitePoolOptions::new()
            .acquire_timeout(BUSY * 2)
            .idle_timeout(IDLE)
            .max_lifetime(None)
            .test_before_acquire(false);
        let writer = pool.clone().max_connections(1).connect_with(write).await?;
        let mut migrator = Migrator::with_migrations(
            MIGRATIONS
                .map(|(number, name, sql)| {
                    let kind = MigrationType::Simple;
                    Migration::new(number, name.into(), kind, sql.into_sql_str(), false)
                })
                .into(),
        );
        // A newer program may have been here; migrations only ever add.
        migrator.set_ignore_missing(true);
        migrator.run(&writer).await?;
        let readers = pool.max_connections(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { writer, readers, path: path.to_owned(), identity: identity(path) })
    }

    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    /// Whether the file that is open is still the one at its path.
    pub(super) fn is_in_place(&self) -> bool {
        self.identity.is_some() && identity(&self.path) == self.identity
    }

    pub(super) async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// The token of the last clean close.
    pub(super) async fn token(&self) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar("select value from meta where name = 'clean'")
            .fetch_optional(&self.writer)
            .await
    }

    pub(super) async fn set_token(&self, token: &str) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into meta (name, value) values ('clean', ?1)
             on conflict (name) do update set value = excluded.value",
        )
        .bind(token)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// The number of the current pass over the sidecars.
    pub(super) async fn pass(&self) -> Result<i64, sqlx::Error> {
        let pass: Option<String> = sqlx::query_scalar("select value from meta where name = 'pass'")
            .fetch_optional(&self.writer)
            .await?;
        Ok(pass.and_then(|pass| pass.parse().ok()).unwrap_or(0))
    }

    pub(super) async fn set_pass(&self, pass: i64) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into meta (name, value) values ('pass', ?1)
             on conflict (name) do update set value = excluded.value",
        )
        .bind(pass.to_string())
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// Writes rows in one transaction, marked as seen by `pass`, and removes those of what is gone.
    pub(super) async fn write(
        &self,
        rows: &[Row],
        origin: Origin,
        pass: i64,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = self.writer.begin_with("begin immediate").await?;
        // A pass brings the artifacts of a version, and the versions of a module, one after the other.
        let mut module: Option<(ModulePath, i64)> = None;
        let mut version: Option<(ModuleVersion, i64)> = None;
        for row in rows {
            let Some(record) = &row.record else {
                remove_artifact(&mut transaction, &row.module, row.artifact).await?;
                // The ids may have gone with it.
                (module, version) = (None, None);
                continue;
            };
            let version_id = match &version {
                Some((last, id)) if *last == row.module => *id,
                _ => {
                    let module_id = match &module {
                        Some((last, id)) if last == row.module.path() => *id,
                        _ => module_id(&mut transaction, row.module.path()).await?,
                    };
                    module = Some((row.module.path().clone(), module_id));
                    let id = version_id(&mut transaction, module_id, &row.module).await?;
                    version = Some((row.module.clone(), id));
                    id
                }
            };
            write_artifact(&mut transaction, version_id, (row.artifact, record), origin, pass)
                .await?;
        }
        transaction.commit().await
    }

    /// Removes what the pass did not find.
    pub(super) async fn end_pass(&self, pass: i64) -> Result<(), sqlx::Error> {
        let mut transaction = self.writer.begin_with("begin immediate").await?;
        sqlx::query("delete from artifacts where pass <> ?1")
            .bind(pass)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("delete from versions where id not in (select version_id from artifacts)")
            .execute(&mut *transaction)
            .await?;
        sqlx::query("delete from modules where id not in (select module_id from versions)")
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

async fn module_id(
    transaction: &mut Transaction<'_, Sqlite>,
    path: &ModulePath,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "insert into modules (path) values (?1)
         on conflict (path) do update set path = excluded.path returning id",
    )
    .bind(path.as_str())
    .fetch_one(&mut **transaction)
    .await
}

async fn version_id(
    transaction: &mut Transaction<'_, Sqlite>,
    module_id: i64,
    module: &ModuleVersion,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "insert into versions (module_id, version) values (?1, ?2)
         on conflict (module_id, version) do update set version = excluded.version returning id",
    )
    .bind(module_id)
    .bind(module.version().as_str())
    .fetch_one(&mut **transaction)
    .await
}

async fn write_artifact(
    transaction: &mut Transaction<'_, Sqlite>,
    version_id: i64,
    (artifact, record): (Artifact, &ArtifactRecord),
    origin: Origin,
    pass: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into artifacts
             (version_id, kind, size, sha256, h1, state, state_detail, source, first_seen, pass)
         values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
         on conflict (version_id, kind) do update set
             size = excluded.size, sha256 = excluded.sha256, h1 = excluded.h1,
             state = excluded.state, state_detail = excluded.state_detail,
             source = excluded.source, first_seen = excluded.first_seen, pass = excluded.pass
         where ?11 or artifacts.pass < excluded.pass",
    )
    .bind(version_id)
    .bind(artifact.extension())
    .bind(i64::try_from(record.size).unwrap_or(i64::MAX))
    .bind(record.sha256.to_string())
    .bind(record.h1.map(|h1| h1.to_string()))
    .bind(record.state.as_str())
    .bind(record.state.detail())
    .bind(record.source.as_str())
    .bind(record.first_seen.as_millisecond())
    .bind(pass)
    .bind(origin == Origin::Commit)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Removes an artifact, and its version and module when nothing is left of them.
async fn remove_artifact(
    transaction: &mut Transaction<'_, Sqlite>,
    module: &ModuleVersion,
    artifact: Artifact,
) -> Result<(), sqlx::Error> {
    let found: Option<(i64, i64)> = sqlx::query_as(
        "select modules.id, versions.id from modules join versions on module_id = modules.id
         where path = ?1 and version = ?2",
    )
    .bind(module.path().as_str())
    .bind(module.version().as_str())
    .fetch_optional(&mut **transaction)
    .await?;
    let Some((module_id, version_id)) = found else { return Ok(()) };
    sqlx::query("delete from artifacts where version_id = ?1 and kind = ?2")
        .bind(version_id)
        .bind(artifact.extension())
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "delete from versions where id = ?1 and not exists
             (select 1 from artifacts where version_id = ?1)",
    )
    .bind(version_id)
    .execute(&mut **transaction)
    .await?;
    sqlx::query(
        "delete from modules where id = ?1 and not exists
             (select 1 from versions where module_id = ?1)",
    )
    .bind(module_id)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What is in the index. `complete` is for the caller to say.
pub(super) async fn counts(readers: &SqlitePool) -> Result<Counts, sqlx::Error> {
    let (modules, versions, artifacts, bytes, unverified): (i64, i64, i64, i64, i64) =
        sqlx::query_as(
            "select modules, versions, artifacts, bytes,
                 (select count(*) from artifacts where state = 'unverified')
             from totals where id = 1",
        )
        .fetch_one(readers)
        .await?;
    let natural = |count: i64| u64::try_from(count).unwrap_or(0);
    Ok(Counts {
        modules: natural(modules),
        versions: natural(versions),
        artifacts: natural(artifacts),
        bytes: natural(bytes),
        unverified: natural(unverified),
        complete: false,
    })
}

/// Versions of which something is unverified, with their ids, in the order of these; those with a larger id than `after`.
pub(super) async fn unverified(
    readers: &SqlitePool,
    after: i64,
    most: u32,
) -> Result<Vec<(i64, ModuleVersion)>, sqlx::Error> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "select distinct versions.id, path, version
         from artifacts
             join versions on versions.id = version_id
             join modules on modules.id = module_id
         where state = 'unverified' and version_id > ?1
         order by version_id limit ?2",
    )
    .bind(after)
    .bind(most)
    .fetch_all(readers)
    .await?;
    // What is no module is nobody's row.
    let parsed = rows.into_iter().filter_map(|(id, path, version)| {
        Some((id, ModuleVersion::parse(&format!("{path}@{version}")).ok()?))
    });
    Ok(parsed.collect())
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs_err::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use stoa_module::Sha256;

    use super::*;
    use crate::record::State;

    fn row(size: u64) -> Row {
        let record = ArtifactRecord {
            size,
            sha256: Sha256::of(b""),
            h1: None,
            state: State::Unverified,
            source: "proxy.example.com".into(),
            first_seen: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        let module = ModuleVersion::parse("example.com/a@v1.0.0").unwrap();
        Row { module, artifact: Artifact::Zip, record: Some(record) }
    }

    #[tokio::test]
    async fn a_pass_does_not_overwrite_what_was_committed_during_it() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("stoa.db")).await.unwrap();
        let mut bytes = Vec::new();
        for (size, origin, pass) in [
            (10, Origin::Commit, 1),
            (20, Origin::Commit, 1),
            (30, Origin::Pass, 1),
            (40, Origin::Pass, 2),
            (50, Origin::Pass, 2),
            (60, Origin::Commit, 2),
        ] {
            database.write(&[row(size)], origin, pass).await.unwrap();
            bytes.push(counts(database.readers()).await.unwrap().bytes);
        }
        assert_eq!(bytes, [10, 20, 20, 40, 40, 60]);
        let counts = counts(database.readers()).await.unwrap();
        assert_eq!((counts.modules, counts.versions, counts.artifacts), (1, 1, 1));
    }

    #[tokio::test]
    async fn what_is_gone_takes_its_empty_version_and_module_along() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&dir.path().join("stoa.db")).await.unwrap();
        let of = |version: &str, artifact| {
            let module = ModuleVersion::parse(&format!("example.com/a@{version}")).unwrap();
            Row { module, artifact, ..row(10) }
        };
        let gone = |row: &Row| Row { record: None, ..row.clone() };
        let zip = of("v1.0.0", Artifact::Zip);
        let text = of("v1.0.0", Artifact::Mod);
        let later = of("v1.1.0", Artifact::Zip);
        for (rows, expected) in [
            (vec![zip.clone(), text.clone(), later.clone()], (1, 2, 3, 30)),
            (vec![gone(&zip)], (1, 2, 2, 20)),
            (vec![gone(&zip), gone(&of("v1.9.0", Artifact::Zip))], (1, 2, 2, 20)),
            (vec![gone(&text)], (1, 1, 1, 10)),
            // In the order they came, though the ids go in between.
            (vec![later.clone(), gone(&later), zip.clone(), text.clone()], (1, 1, 2, 20)),
            (vec![zip.clone(), gone(&zip), gone(&text)], (0, 0, 0, 0)),
        ] {
            database.write(&rows, Origin::Commit, 1).await.unwrap();
            let found = counts(database.readers()).await.unwrap();
            let found = (found.modules, found.versions, found.artifacts, found.bytes);
            assert_eq!(found, expected);
        }
    }

    #[tokio::test]
    async fn a_newer_program_may_have_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stoa.db");
        let database = Database::open(&path).await.unwrap();
        sqlx::query(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (99, 'later', true, x'00', 1)",
        )
        .execute(&database.writer)
        .await
        .unwrap();
        database.close().await;
        let database = Database::open(&path).await.unwrap();
        database.write(&[row(1)], Origin::Commit, 1).await.unwrap();
    }
}
