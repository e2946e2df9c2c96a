//! One source of the chain: whether it can be reached, and what it answers to the questions of the protocol.

use std::io::Seek as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stoa_core::Subject;
use stoa_module::{
    Artifact, ErrorClass, H1, Info, ModulePath, ModuleVersion, Version, ZipLimits, check_zip,
    latest_of, module_line,
};
use stoa_upstream::examine::{Trouble, line};
use stoa_upstream::{Bounds, Destination, Failure, Source, Use, Watch};

use super::local::{per_second, size};
use super::looked::{LEAST, Looked, Means, Outcome, beginning, described, unasked};
use super::verdict::Verdict;

/// Slower than this is worth telling.
const SLOW_RATE: u64 = 64 << 10;
/// Less than this says nothing of a rate.
const ENOUGH_FOR_A_RATE: u64 = 256 << 10;

/// Looks at the way to one source, which is told no module's name. Answers whether anything can be asked there.
pub(crate) async fn reach(
    means: &Means,
    source: &Source,
    role: String,
    database: Option<&str>,
) -> (Looked, bool) {
    let mut looked = Looked::new(source.name(), role);
    let usable = match source {
        Source::Http(base) => {
            // What is asked first tells no module's name.
            let path = database.map_or(String::new(), |name| format!("sumdb/{name}/supported"));
            let examined = means.client.examine_source(base, &path, &means.limits).await;
            looked.reached(examined)
        }
        Source::File(directory) => {
            let began = Instant::now();
            let found = means.within(fs_err::tokio::metadata(directory)).await;
            match found {
                Some(Ok(found)) if found.is_dir() => {
                    looked.ok("local", "it is there", began.elapsed());
                    true
                }
                found => {
                    let text = match found {
                        Some(Err(error)) => error.to_string(),
                        Some(Ok(_)) => "no directory".to_owned(),
                        None => "the disk does not answer".to_owned(),
                    };
                    looked.sign("local", Verdict::NotAProxy, text, began.elapsed());
                    false
                }
            }
        }
        Source::Direct | Source::Off => true,
    };
    if !usable {
        looked.outcome = Outcome::Failed;
    }
    (looked, usable)
}

/// What a source that was reached comes to where no module is named.
pub(crate) fn without_module(source: &Source, looked: &mut Looked) {
    match source {
        Source::Direct => {
            looked.skip("git", "which repository is asked depends on the module: name one");
        }
        Source::Off => looked.skip("local", "ends the chain: nothing behind it is asked"),
        Source::Http(_) | Source::File(_) => {
            // It may answer nothing but modules.
            looked.demote(&[Verdict::Forbidden], "http");
            if looked.signs.iter().any(|(verdict, _)| verdict.stops()) {
                looked.outcome = Outcome::Failed;
            }
        }
    }
}

/// Asks a source that was reached what a client would.
pub(crate) async fn ask(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) {
    match source {
        Source::Off => {
            looked.skip("local", "ends the chain: nothing behind it is asked");
            looked.outcome = Outcome::Absent;
        }
        Source::Direct => {
            let examined = means.client.examine_direct(subject.path(), &means.limits).await;
            let absent = examined.troubles().any(|trouble| trouble == Trouble::NotFound);
            looked.outcome = match looked.reached(examined) {
                false => Outcome::Failed,
                true if absent => Outcome::Absent,
                true => of_repository(means, subject, looked).await,
            };
        }
        Source::Http(_) | Source::File(_) => {
            looked.outcome = asked(means, source, subject, looked).await;
            if looked.outcome != Outcome::Failed {
                // What it said to the first question was about that address alone: it does answer for the module.
                let about_address = [
                    Verdict::Unauthorized,
                    Verdict::Forbidden,
                    Verdict::RateLimited,
                    Verdict::ServerError,
                ];
                looked.demote(&about_address, "http");
            }
        }
    }
}

/// The questions of a client: list, info, mod, zip.
async fn asked(means: &Means, source: &Source, subject: &Subject, looked: &mut Looked) -> Outcome {
    let path = subject.path();
    let began = Instant::now();
    match means.get(source, Use::Modules, &format!("{}/@v/list", path.escaped())).await {
        Ok(body) => {
            if !looked.take_list(&body, path, began.elapsed()) {
                return Outcome::Failed;
            }
        }
        // A version is fetched without a list.
        Err(failure) if !matches!(subject, Subject::Module(_)) => {
            looked.note("list", described(&failure), began.elapsed());
        }
        Err(failure) => {
            looked.failed("list", &failure, began.elapsed());
            if failure.class != ErrorClass::NotFound {
                return Outcome::Failed;
            }
        }
    }
    let module = match wanted(means, source, subject, looked).await {
        Ok(module) => module,
        Err(outcome) => return outcome,
    };
    looked.version = Some(module.clone());
    let began = Instant::now();
    match means.get(source, Use::Modules, &module.escaped_file(Artifact::Mod)).await {
        Ok(body) => {
            let named = module_line(&body);
            let is_text = std::str::from_utf8(&body).is_ok() && !body.starts_with(b"<");
            if is_text {
                looked.go_mod = Some(H1::of_go_mod(&body));
                let text =
                    named.map_or("no module line".to_owned(), |named| format!("module {named}"));
                looked.ok("mod", text, began.elapsed());
            } else {
                let text = format!("no go.mod: {}", beginning(&body));
                looked.sign("mod", Verdict::Malformed, text, began.elapsed());
                return Outcome::Failed;
            }
        }
        Err(failure) => {
            looked.failed("mod", &failure, began.elapsed());
            return outcome_of(&failure);
        }
    }
    zip(means, source, &module, looked).await
}

/// Of a repository only what its tags say: files would be fetched for minutes.
async fn of_repository(means: &Means, subject: &Subject, looked: &mut Looked) -> Outcome {
    let began = Instant::now();
    let path = format!("{}/@v/list", subject.path().escaped());
    match means.get(&Source::Direct, Use::Modules, &path).await {
        Ok(body) => {
            looked.take_list(&body, subject.path(), began.elapsed());
            let version = match subject {
                Subject::Version(module) if !module.version().is_pseudo() => module.version(),
                Subject::Module(_) => return Outcome::Has,
                Subject::Version(_) | Subject::Query(..) => {
                    looked.skip("info", "a commit is looked for only when it is fetched");
                    return Outcome::Has;
                }
            };
            if looked.versions.contains(version) { Outcome::Has } else { Outcome::Absent }
        }
        Err(failure) => {
            looked.failed("list", &failure, began.elapsed());
            outcome_of(&failure)
        }
    }
}

/// The version to ask for, and its `.info`.
async fn wanted(
    means: &Means,
    source: &Source,
    subject: &Subject,
    looked: &mut Looked,
) -> Result<ModuleVersion, Outcome> {
    let path = subject.path();
    let newest = || latest_of(&looked.versions).and_then(|version| of(path, version));
    let (step, file, wanted) = match subject {
        Subject::Version(module) => {
            ("info", module.escaped_file(Artifact::Info), Some(module.clone()))
        }
        Subject::Query(_, query) => {
            ("info", format!("{}/@v/{}.info", path.escaped(), query.escaped()), None)
        }
        Subject::Module(_) => match newest() {
            Some(module) => ("info", module.escaped_file(Artifact::Info), Some(module)),
            None => ("latest", format!("{}/@latest", path.escaped()), None),
        },
    };
    let began = Instant::now();
    let body = match means.get(source, Use::Modules, &file).await {
        Ok(body) => body,
        Err(failure) => {
            looked.failed(step, &failure, began.elapsed());
            return Err(outcome_of(&failure));
        }
    };
    let malformed = |looked: &mut Looked, why: String| {
        let text = format!("{}: {}", line(&why), beginning(&body));
        looked.sign(step, Verdict::Malformed, text, began.elapsed());
        Err(Outcome::Failed)
    };
    let info = match Info::parse(&body) {
        Ok(info) => info,
        Err(error) => return malformed(looked, error.to_string()),
    };
    match of(path, &info.version) {
        Some(module) if wanted.as_ref().is_none_or(|wanted| *wanted == module) => {
            let time = info.time.map_or(String::new(), |it| format!(", of {}", it.strftime("%F")));
            looked.ok(step, format!("{}{time}", info.version), began.elapsed());
            Ok(module)
        }
        _ => malformed(looked, format!("it is of {}", info.version)),
    }
}

fn of(path: &ModulePath, version: &Version) -> Option<ModuleVersion> {
    ModuleVersion::new(path.clone(), version.clone()).ok()
}

fn outcome_of(failure: &Failure) -> Outcome {
    match failure.class {
        ErrorClass::NotFound => Outcome::Absent,
        _ if failure.tries == 0 => Outcome::Unasked,
        _ => Outcome::Failed,
    }
}

/// Bytes that have come so far.
#[derive(Debug, Default)]
struct Counted {
    length: AtomicU64,
    bytes: AtomicU64,
}

impl Watch for Counted {
    fn begins(&self, length: Option<u64>) -> bool {
        self.length.store(length.unwrap_or(0), Ordering::Relaxed);
        // Bytes are to be seen as they come.
        true
    }

    fn grows(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn begins_again(&self) -> bool {
        true
    }
}

async fn zip(
    means: &Means,
    source: &Source,
    module: &ModuleVersion,
    looked: &mut Looked,
) -> Outcome {
    let file = match tempfile::tempfile_in(&means.scratch) {
        Ok(file) => fs_err::File::from_parts(file, "a temporary file"),
        Err(error) => {
            looked.skip("zip", format!("not asked: no temporary file: {error}"));
            return Outcome::Has;
        }
    };
    let mut reading = match file.try_clone() {
        Ok(reading) => reading,
        Err(error) => {
            looked.skip("zip", format!("not asked: {error}"));
            return Outcome::Has;
        }
    };
    let file = fs_err::tokio::File::from_std(file);
    let counted = Arc::new(Counted::default());
    let into = Destination {
        watch: Some(Arc::clone(&counted) as Arc<dyn Watch>),
        ..Destination::from(&file)
    };
    let began = Instant::now();
    let patience = means.left();
    if patience < LEAST {
        looked.failed("zip", &unasked(source), Duration::ZERO);
        return Outcome::Has;
    }
    let bounds = Bounds { header: patience, max_bytes: means.max_zip_bytes };
    let path = module.escaped_file(Artifact::Zip);
    let asking = means.client.download(source, Use::Modules, &path, &bounds, "", into);
    let downloaded = means.within(Box::pin(asking)).await;
    let took = began.elapsed();
    let bytes = counted.bytes.load(Ordering::Relaxed);
    let rate = per_second(bytes, took);
    let is_slow = rate < SLOW_RATE && (bytes >= ENOUGH_FOR_A_RATE || downloaded.is_none());
    let at = |bytes: u64| format!("{} at {}/s", size(bytes), size(rate));
    match downloaded {
        None if bytes == 0 => {
            let text = format!("not a byte within {} s", patience.as_secs().max(1));
            looked.sign("zip", Verdict::HeaderTimeout, text, took);
            return Outcome::Failed;
        }
        None => {
            let of = match counted.length.load(Ordering::Relaxed) {
                0 => String::new(),
                length => format!(" of {}", size(length)),
            };
            let text = format!("{}{of}, and not waited for longer", at(bytes));
            if is_slow {
                looked.sign("zip", Verdict::Slow, text, took);
            } else {
                looked.note("zip", text, took);
            }
            return Outcome::Has;
        }
        // The disk is looked at by itself.
        Some(Err(failure)) if failure.class == ErrorClass::Full => {
            looked.skip("zip", described(&failure));
            return Outcome::Has;
        }
        Some(Err(failure)) => {
            looked.failed("zip", &failure, took);
            return outcome_of(&failure);
        }
        Some(Ok(_)) => {}
    }
    let wanted = module.clone();
    let checked = tokio::task::spawn_blocking(move || {
        reading.rewind().map_err(|error| error.to_string())?;
        check_zip(reading, &wanted, &ZipLimits::default()).map_err(|error| error.to_string())
    });
    match means.within(checked).await {
        Some(Ok(Ok(checked))) => {
            looked.zip = Some(checked.h1);
            let text = format!("{}, {} files, well formed", at(bytes), checked.files);
            if is_slow {
                looked.sign("zip", Verdict::Slow, text, took);
            } else {
                looked.ok("zip", text, took);
            }
            Outcome::Has
        }
        Some(Ok(Err(error))) => {
            let text = line(&format!("not a module zip: {error}"));
            looked.sign("zip", Verdict::Malformed, text, took);
            Outcome::Failed
        }
        Some(Err(_)) | None => {
            looked.note("zip", format!("{}; not read through within the bound", at(bytes)), took);
            Outcome::Has
        }
    }
}
