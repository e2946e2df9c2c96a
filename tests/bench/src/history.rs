//! A repository that is made, the same on every machine: as long a history, and as many and as large files, as those of a
//! module that a company has worked on for years.

use std::fmt::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use stoa_testkit::GitRemotes;

use crate::random::Random;
use crate::synthetic::text;

pub(crate) const COMMITS: usize = 5_000;
pub(crate) const TAGS: usize = 30;
const FILES: usize = 300;
/// Bytes of a file, from and to.
const SIZES: (usize, usize) = (1_000, 15_000);
/// The most files that a commit changes, and about how many bytes in each.
const CHANGED: usize = 3;
const CHANGE: usize = 400;
/// Of the first commit; there is one each hour.
const BEGAN: usize = 1_600_000_000;

/// Makes it, packed as a host has it.
pub(crate) fn make(remotes: &GitRemotes, name: &str, module: &str) -> anyhow::Result<()> {
    println!("making a repository of {COMMITS} commits");
    remotes.init(name);
    let directory = remotes.path(name);
    let stream = directory.join("stream");
    let mut file = std::io::BufWriter::new(fs_err::File::create(&stream)?);
    write_stream(&mut file, module)?;
    file.into_inner().context("the stream cannot be written")?;
    let status = Command::new("git")
        .args(["fast-import", "--quiet"])
        .current_dir(&directory)
        .envs(remotes.environment())
        .stdin(Stdio::from(fs_err::File::open(&stream)?.into_file()))
        .status()?;
    if !status.success() {
        bail!("git fast-import: {status}");
    }
    fs_err::remove_file(&stream)?;
    remotes.git(name, &["repack", "-a", "-d", "-q", "--write-bitmap-index"]);
    Ok(())
}

/// The version that the last commit of each part of the history has.
pub(crate) fn version(number: usize) -> String {
    format!("v1.{number}.0")
}

/// What `git fast-import` reads.
fn write_stream(stream: &mut impl std::io::Write, module: &str) -> anyhow::Result<()> {
    let mut random = Random::new(5);
    let mut files: Vec<Vec<u8>> = (0..FILES)
        .map(|_| {
            let length = SIZES.0 + random.below(SIZES.1 - SIZES.0);
            text(&mut random, length)
        })
        .collect();
    for commit in 0..COMMITS {
        let time = BEGAN + commit * 3600;
        let mut head = String::from("commit refs/heads/main\n");
        _ = writeln!(head, "mark :{}", commit + 1);
        _ = writeln!(head, "committer Someone <someone@bench.example> {time} +0000");
        let message = format!("change {commit}\n");
        _ = writeln!(head, "data {}\n{message}", message.len());
        stream.write_all(head.as_bytes())?;
        if commit == 0 {
            let go_mod = format!("module {module}\n\ngo 1.24\n");
            put(stream, "go.mod", go_mod.as_bytes())?;
            for (number, file) in files.iter().enumerate() {
                put(stream, &name_of(number), file)?;
            }
        } else {
            for _ in 0..=random.below(CHANGED) {
                let number = random.below(FILES);
                let file = &mut files[number];
                let at = random.below(file.len().saturating_sub(CHANGE).max(1));
                let end = (at + random.below(CHANGE)).min(file.len());
                let length = 1 + random.below(CHANGE);
                file.splice(at..end, text(&mut random, length));
                put(stream, &name_of(number), file)?;
            }
        }
        if (commit + 1) % (COMMITS / TAGS) == 0 {
            let number = (commit + 1) / (COMMITS / TAGS) - 1;
            if number < TAGS {
                let tag = version(number);
                write!(stream, "\nreset refs/tags/{tag}\nfrom :{}\n\n", commit + 1)?;
            }
        }
    }
    writeln!(stream, "done")?;
    Ok(())
}

/// In some forty packages.
fn name_of(number: usize) -> String {
    format!("internal/package{}/file{number}.go", number % 40)
}

fn put(stream: &mut impl std::io::Write, name: &str, content: &[u8]) -> std::io::Result<()> {
    writeln!(stream, "M 100644 inline {name}\ndata {}", content.len())?;
    stream.write_all(content)?;
    stream.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_all_commits_and_tags() {
        let mut stream = Vec::new();
        write_stream(&mut stream, "example.com/m").unwrap();
        let count = |what: &[u8]| {
            stream.split(|&byte| byte == b'\n').filter(|line| line.starts_with(what)).count()
        };
        assert_eq!(count(b"commit refs/heads/main"), COMMITS);
        assert_eq!(count(b"reset refs/tags/v1."), TAGS);
        let mut again = Vec::new();
        write_stream(&mut again, "example.com/m").unwrap();
        assert!(stream == again);
    }
}
