//! Modules that are made, the same on every machine: as many, as large and as compressible as those
//! of a project with some 300 requirements, and a checksum database that has a record of each.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use stoa_module::{Artifact, H1, ModuleVersion};
use stoa_sumdb::{Tile, TileLevel, right_edge};
use stoa_testkit::{FakeSumdb, Modules};

use crate::random::Random;

/// Counts up when what is made changes.
const EDITION: &str = "2";
const DATABASE: &str = "sum.bench.example";

/// Versions that are downloaded whole, and those of which the go command reads only the go.mod.
const WHOLE: usize = 322;
const ONLY_GO_MOD: usize = 514;
/// Records of others between each two of ours, so that proofs need as many tiles as in a large tree.
const OTHERS_BETWEEN: u64 = 128;

/// Sizes of the zips in bytes, by the share that is smaller; between two points the logarithm is even.
const SIZES: [(f64, f64); 5] =
    [(0.0, 1_500.0), (0.5, 55_000.0), (0.9, 810_000.0), (0.98, 5_000_000.0), (1.0, 30_000_000.0)];
/// Zips of bytes that nothing compresses, beside those that are asked for in every pass; in bytes.
const LARGE: [usize; 2] = [50_000_000, 200_000_000];
/// How much smaller a zip is, about, than the text below.
const COMPRESSION: usize = 5;

/// Makes them in a directory, unless they are there.
pub(crate) fn make(dir: &Path) -> anyhow::Result<()> {
    let edition = dir.join("edition");
    if fs_err::read_to_string(&edition).is_ok_and(|it| it == EDITION) {
        return Ok(());
    }
    println!("making modules in {}", dir.display());
    if dir.exists() {
        fs_err::remove_dir_all(dir)?;
    }
    let store = dir.join("store");
    fs_err::create_dir_all(&store)?;
    let count = WHOLE + ONLY_GO_MOD + LARGE.len();
    let versions: Vec<_> = (0..count).map(Made::new).collect();
    let hashes = write_modules(&store, &versions)?;

    let sumdb = FakeSumdb::new(DATABASE, &Modules::default());
    for (made, (zip, go_mod)) in versions.iter().zip(hashes) {
        sumdb.append_filler(OTHERS_BETWEEN);
        sumdb.append_record(&made.name, zip, go_mod);
    }
    let database_paths = write_database(&store, &sumdb, &versions)?;
    fs_err::write(dir.join("gosumdb"), sumdb.verifier_key())?;
    let (large, asked): (Vec<_>, Vec<_>) = versions.iter().partition(|made| made.is_large());
    fs_err::write(dir.join("paths.txt"), paths(&asked, database_paths)?.join("\n"))?;
    fs_err::write(dir.join("large.txt"), paths(&large, Vec::new())?.join("\n"))?;
    fs_err::write(edition, EDITION)?;
    Ok(())
}

/// One version that is made.
#[derive(Debug)]
struct Made {
    number: usize,
    /// `MODULE@VERSION`
    name: String,
    /// Of the zip, about; `None` when nobody asks for it.
    bytes: Option<usize>,
}

impl Made {
    fn new(number: usize) -> Made {
        let bytes = match number.checked_sub(WHOLE) {
            None => Some(size(number as f64 / (WHOLE - 1) as f64)),
            Some(number) => number.checked_sub(ONLY_GO_MOD).and_then(|at| LARGE.get(at)).copied(),
        };
        // Capitals now and then, since they are escaped.
        let owner = if number.is_multiple_of(7) { "Capital" } else { "owner" };
        let name =
            format!("bench.example/{owner}{}/module{number}@v1.{}.0", number % 40, number % 9);
        Made { number, name, bytes }
    }

    fn is_large(&self) -> bool {
        self.number >= WHOLE + ONLY_GO_MOD
    }

    fn path(&self, artifact: Artifact) -> anyhow::Result<String> {
        let module = ModuleVersion::parse(&self.name).with_context(|| self.name.clone())?;
        Ok(format!("/{}", module.escaped_file(artifact)))
    }

    fn module_path(&self) -> &str {
        self.name.split('@').next().unwrap_or_default()
    }

    fn go_mod(&self) -> String {
        let mut text = format!("module {}\n\ngo 1.24\n\nrequire (\n", self.module_path());
        for other in self.number + 1..self.number + 12 {
            let other = Made::new(other);
            _ = writeln!(text, "\t{}", other.name.replace('@', " "));
        }
        text + ")\n"
    }
}

#[expect(clippy::cast_sign_loss, reason = "all sizes in the table are positive")]
fn size(share: f64) -> usize {
    let above = SIZES.iter().position(|point| share <= point.0).unwrap_or(SIZES.len() - 1).max(1);
    let ((from, low), (to, high)) = (SIZES[above - 1], SIZES[above]);
    (low * (high / low).powf((share - from) / (to - from))) as usize
}

/// Writes `.info`, `.mod` and `.zip`, on all cores; the h1 hashes of zip and go.mod of each.
fn write_modules(store: &Path, versions: &[Made]) -> anyhow::Result<Vec<(H1, H1)>> {
    let hashes = Mutex::new(vec![None; versions.len()]);
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        // The largest first, so that no core is left with them.
        while let Some(made) = versions.get(next.fetch_add(1, Ordering::Relaxed)) {
            let made = if made.number < WHOLE { &versions[WHOLE - 1 - made.number] } else { made };
            let both = write_module(store, made)?;
            hashes.lock().unwrap_or_else(PoisonError::into_inner)[made.number] = Some(both);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("making modules failed")))
        })
    })?;
    let hashes = hashes.into_inner().unwrap_or_else(PoisonError::into_inner);
    hashes.into_iter().collect::<Option<_>>().context("a module was not made")
}

fn write_module(store: &Path, made: &Made) -> anyhow::Result<(H1, H1)> {
    let mut files = vec![("go.mod".to_owned(), made.go_mod().into_bytes())];
    if let Some(bytes) = made.bytes {
        let mut random = Random::new(made.number as u64);
        let mut left = if made.is_large() { bytes } else { bytes * COMPRESSION };
        while left > 0 {
            let length = (1_000 + random.below(45_000)).min(left);
            let content =
                if made.is_large() { random.bytes(length) } else { text(&mut random, length) };
            files.push((format!("package/file{}.go", files.len()), content));
            left -= length;
        }
    }
    let modules = Modules::default().with(&made.name, files);
    let write = |artifact, body: &[u8]| -> anyhow::Result<()> {
        let file = store.join(made.path(artifact)?.trim_start_matches('/'));
        if let Some(parent) = file.parent() {
            fs_err::create_dir_all(parent)?;
        }
        Ok(fs_err::write(file, body)?)
    };
    write(Artifact::Info, modules.info(&made.name).as_bytes())?;
    write(Artifact::Mod, &modules.go_mod(&made.name))?;
    if made.bytes.is_some() {
        write(Artifact::Zip, &modules.zip(&made.name))?;
    }
    Ok((modules.zip_h1(&made.name), modules.go_mod_h1(&made.name)))
}

/// Words in lines, some of them repeated, which a zip makes about as much smaller as it does source.
pub(crate) fn text(random: &mut Random, length: usize) -> Vec<u8> {
    let words: Vec<String> = (0..300)
        .map(|_| {
            (0..2 + random.below(8)).map(|_| (b'a' + random.below(26) as u8) as char).collect()
        })
        .collect();
    let mut text = Vec::with_capacity(length + 256);
    let mut lines: Vec<Range<usize>> = Vec::new();
    while text.len() < length {
        let start = text.len();
        if lines.len() > 10 && random.below(100) < 45 {
            text.extend_from_within(lines[random.below(lines.len())].clone());
            continue;
        }
        for _ in 0..=random.below(8) {
            // The first words come most often.
            let word = (0..3).map(|_| random.below(words.len())).min().unwrap_or_default();
            text.extend_from_slice(words[word].as_bytes());
            text.push(b' ');
        }
        text.push(b'\n');
        lines.push(start..text.len());
    }
    text.truncate(length);
    text
}

/// Writes every file of the database that its verifier may ask for; their paths.
fn write_database(
    store: &Path,
    sumdb: &FakeSumdb,
    versions: &[Made],
) -> anyhow::Result<Vec<String>> {
    let size = sumdb.size();
    let mut paths = Vec::new();
    let mut write = |file: String, body: &[u8]| -> anyhow::Result<()> {
        let path = format!("sumdb/{DATABASE}/{file}");
        let file = store.join(&path);
        if let Some(parent) = file.parent() {
            fs_err::create_dir_all(parent)?;
        }
        fs_err::write(file, body)?;
        paths.push(format!("/{path}"));
        Ok(())
    };
    write("supported".to_owned(), b"")?;
    write("latest".to_owned(), sumdb.signed_head(size).as_bytes())?;
    for made in versions {
        let path = sumdb.lookup_path(&made.name);
        let file = path.rsplit_once(&format!("{DATABASE}/")).context("a path of the database")?.1;
        let body = sumdb.lookup(&made.name).context("a record of each")?;
        write(file.to_owned(), body.as_bytes())?;
    }
    let whole_tiles = |level: u8| size >> (8 * (u32::from(level) + 1));
    for level in (0..7).take_while(|&level| whole_tiles(level) > 0) {
        for index in 0..whole_tiles(level) {
            let tile = Tile { level: TileLevel::Hashes(level), index, width: 256 };
            write(tile.path(), &sumdb.tile(tile).context("a tile of the tree")?)?;
        }
    }
    for tile in right_edge(size) {
        write(tile.path(), &sumdb.tile(tile).context("a tile of the tree")?)?;
    }
    Ok(paths)
}

/// In the order of the go command: first the go.mod files with their records, then the modules.
fn paths(versions: &[&Made], database_paths: Vec<String>) -> anyhow::Result<Vec<String>> {
    let mut random = Random::new(1);
    let (mut first, mut then) = (database_paths, Vec::new());
    for made in versions {
        first.push(made.path(Artifact::Mod)?);
        if made.bytes.is_some() {
            then.push(made.path(Artifact::Info)?);
            then.push(made.path(Artifact::Zip)?);
        }
    }
    random.shuffle(&mut first);
    random.shuffle(&mut then);
    first.extend(then);
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_table() {
        #[track_caller]
        fn check(share: f64, expected: usize) {
            assert!(size(share).abs_diff(expected) <= 1, "{share}: {}", size(share));
        }
        check(0.0, 1_500);
        check(0.5, 55_000);
        check(0.7, 211_068);
        check(0.9, 810_000);
        check(1.0, 30_000_000);
    }

    #[test]
    fn text_is_the_same_each_time() {
        let make = |seed| text(&mut Random::new(seed), 1000);
        assert_eq!(make(7), make(7));
        assert_ne!(make(7), make(8));
        assert_eq!(make(7).len(), 1000);
    }
}
