//! Repositories by the real `git http-backend`.

use std::ffi::OsString;
use std::io;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::GitCall;
use crate::wire::{chunk, client_leaves, head};
use crate::{Answer, GitRemotes, Request};

/// How a pack begins (`gitformat-pack`): where that is in an answer, objects are.
const PACK: &[u8] = b"PACK\0\0\0\x02";

/// The repositories of a [`GitRemotes`], as a program that serves them needs to know them.
#[derive(Debug, Clone)]
pub(super) struct Repositories {
    root: PathBuf,
    environment: Vec<(&'static str, OsString)>,
}

/// One request to the program.
#[derive(Debug)]
pub(super) struct Call {
    repositories: Repositories,
    /// `/NAME/SERVICE`.
    path: String,
}

impl Repositories {
    pub(super) fn of(remotes: &GitRemotes) -> Repositories {
        let root = remotes.path("");
        let environment = vec![
            ("PATH", std::env::var_os("PATH").unwrap_or_default()),
            ("HOME", remotes.home().into()),
            ("GIT_CONFIG_GLOBAL", remotes.config().into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_PROJECT_ROOT", root.clone().into()),
            ("GIT_HTTP_EXPORT_ALL", "1".into()),
        ];
        Repositories { root, environment }
    }

    /// `/NAME/SERVICE` or `/NAME.git/SERVICE`, where there is such a repository.
    pub(super) fn call(&self, path: &str) -> Option<Call> {
        let services = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];
        let service = services.into_iter().find(|&service| path.ends_with(service))?;
        let name = path.strip_suffix(service)?.strip_prefix('/')?;
        if name.is_empty() || name.split('/').any(|part| part.is_empty() || part == "..") {
            return None;
        }
        // As at the large hosts, `.git` may be there or not.
        let bare = format!("{name}.git");
        let names = [Some(name), name.strip_suffix(".git"), Some(&*bare)].into_iter().flatten();
        let name = names.into_iter().find(|name| self.root.join(name).is_dir())?;
        // The program itself finds the `.git` in a repository with a working tree.
        Some(Call { repositories: self.clone(), path: format!("/{name}{service}") })
    }
}

impl Call {
    /// Starts the program, which gets the body and ends with the answer.
    pub(super) fn start(&self, request: &Request, body: Vec<u8>) -> io::Result<Running> {
        let query = request.target.split_once('?').map_or("", |(_, query)| query);
        let mut command = Command::new("git");
        command
            .arg("http-backend")
            .env_clear()
            .envs(self.repositories.environment.iter().map(|(name, value)| (name, value)))
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", &self.path)
            .env("QUERY_STRING", query)
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("REMOTE_ADDR", "127.0.0.1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It complains there of clients that leave.
            .stderr(Stdio::null())
            // What it starts itself is in its group, and ends with it.
            .process_group(0);
        let passed_on = [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "GIT_PROTOCOL"),
        ];
        for (header, variable) in passed_on {
            if let Some(value) = request.header(header) {
                command.env(variable, value);
            }
        }
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(mut stdin) = stdin {
            // Beside the reading, because the program may answer before it has read all.
            tokio::spawn(async move { stdin.write_all(&body).await });
        }
        let stdout = stdout.ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Running { child: Group(child), stdout })
    }
}

/// The program at work. Dropped, it is killed.
pub(super) struct Running {
    child: Group,
    stdout: ChildStdout,
}

struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Without an id it has ended and been waited for.
        let leader = self.0.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
        if let Some(leader) = leader {
            _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

impl Running {
    /// Passes the answer on as it comes. `transferred` is called before the first of the objects is. `Ok(true)` when the
    /// connection can take another request.
    pub(super) async fn stream(
        mut self,
        stream: &mut TcpStream,
        request: &Request,
        transferred: impl Fn(),
    ) -> io::Result<bool> {
        let (answer, mut piece) = tokio::select! {
            answer = self.head() => answer?,
            () = client_leaves(stream) => return Ok(false),
        };
        stream.write_all(&head(&answer, true)).await?;
        let mut scan = Scan::default();
        loop {
            if scan.finds_pack_in(&piece) {
                transferred();
            }
            if !piece.is_empty() {
                stream.write_all(&chunk(&piece)).await?;
            }
            piece.clear();
            piece.reserve(64 * 1024);
            let read = tokio::select! {
                read = self.stdout.read_buf(&mut piece) => read?,
                () = client_leaves(stream) => return Ok(false),
            };
            if read == 0 {
                break;
            }
        }
        self.child.0.wait().await?;
        stream.write_all(b"0\r\n\r\n").await?;
        Ok(request.keeps_alive())
    }

    /// The whole answer at once.
    pub(super) async fn collect(mut self, transferred: impl Fn()) -> io::Result<Answer> {
        let (answer, mut body) = self.head().await?;
        self.stdout.read_to_end(&mut body).await?;
        self.child.0.wait().await?;
        if Scan::default().finds_pack_in(&body) {
            transferred();
        }
        Ok(Answer { body: body.into(), ..answer })
    }

    /// The answer without its body (RFC 3875, section 6.2.1), and the beginning of that.
    async fn head(&mut self) -> io::Result<(Answer, Vec<u8>)> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            if self.stdout.read_buf(&mut bytes).await? == 0 {
                let answer = Answer::text(500, "git http-backend ended without an answer\n");
                return Ok((answer, Vec::new()));
            }
        };
        let body = bytes.split_off(end + 4);
        let mut answer = Answer { status: 200, headers: Vec::new(), body: bytes::Bytes::new() };
        for line in String::from_utf8_lossy(&bytes[..end]).lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            if name.eq_ignore_ascii_case("status") {
                let code = value.split(' ').next().and_then(|code| code.parse().ok());
                answer.status = code.unwrap_or(500);
            } else if !name.eq_ignore_ascii_case("content-length") {
                answer.headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Ok((answer, body))
    }
}

/// Looks for the first pack in what comes in pieces.
#[derive(Default)]
struct Scan {
    found: bool,
    last: Vec<u8>,
}

impl Scan {
    /// Once at most.
    fn finds_pack_in(&mut self, piece: &[u8]) -> bool {
        if self.found {
            return false;
        }
        self.last.extend(piece);
        self.found = self.last.windows(PACK.len()).any(|window| window == PACK);
        let rest = self.last.len().saturating_sub(PACK.len());
        self.last.drain(..rest);
        self.found
    }
}

/// What a client asks git for with a request.
pub(super) fn kind_of(request: &Request, body: &[u8]) -> Option<GitCall> {
    let v2 = request.header("git-protocol").is_some_and(|it| it.contains("version=2"));
    if request.path.ends_with("/info/refs") {
        // In protocol 2 it is followed by a command that asks for the refs.
        return (!v2 && request.target.ends_with("service=git-upload-pack"))
            .then_some(GitCall::List);
    }
    if request.method != "POST" || !request.path.ends_with("/git-upload-pack") {
        return None;
    }
    let mut plain = Vec::new();
    let gzipped = request.header("content-encoding").is_some_and(|it| it.ends_with("gzip"));
    if gzipped {
        flate2::read::GzDecoder::new(body).take(1024).read_to_end(&mut plain).ok()?;
    }
    let plain = if gzipped { &plain } else { body };
    let lists = plain.windows(15).take(64).any(|window| window == b"command=ls-refs");
    Some(if lists { GitCall::List } else { GitCall::Fetch })
}
