//! A data directory on a file system of its own, as small as a test wants it: full, read-only and well again at will.
//!
//! It is mounted where only the server sees it, in a mount namespace that a sleeping process holds open. Without root that
//! needs user namespaces; where neither works, the tests that need it are skipped, unless `STOA_REQUIRE_TMPFS=1`.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

#[derive(Debug)]
pub struct Tmpfs {
    holder: Child,
    dir: PathBuf,
    is_root: bool,
}

impl Tmpfs {
    /// None where such a thing cannot be made; then the reason is on standard error.
    pub fn mount(dir: &Path, size: &str) -> Option<Arc<Self>> {
        let is_root = rustix::process::geteuid().is_root();
        let mut holder = Command::new("unshare");
        if !is_root {
            holder.args(["--user", "--map-root-user"]);
        }
        let script = r#"mount -t tmpfs -o "size=$0" tmpfs "$1" && echo mounted && exec sleep 600"#;
        holder.args(["--mount", "sh", "-c", script, size]).arg(dir);
        holder.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let said = holder.spawn().map_err(|error| error.to_string()).and_then(|mut holder| {
            let mut word = [0; 8];
            let mut stdout = holder.stdout.take().expect("a pipe");
            if stdout.read_exact(&mut word).is_ok() {
                return Ok(Self { holder, dir: dir.to_owned(), is_root });
            }
            let output = holder.wait_with_output().expect("its output");
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        });
        match said {
            Ok(tmpfs) => Some(Arc::new(tmpfs)),
            Err(why) => {
                let required = std::env::var_os("STOA_REQUIRE_TMPFS").is_some_and(|it| it == "1");
                assert!(!required, "no tmpfs can be mounted: {why}");
                eprintln!("SKIPPED: no tmpfs can be mounted: {why}");
                None
            }
        }
    }

    /// Runs a program where it is mounted.
    pub fn enter(&self, program: &OsStr, wd: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string()).arg("--mount");
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command.arg(format!("--wd={}", wd.display())).arg("--").arg(program);
        command
    }

    /// A place of it, as this process reaches it.
    pub fn path(&self, below: &str) -> PathBuf {
        let root = format!("/proc/{}/root{}", self.holder.id(), self.dir.display());
        Path::new(&root).join(below)
    }

    /// Fills it but for so many bytes.
    pub fn fill(&self, leave: u64) {
        let mut file = fs_err::File::create(self.path("filler")).expect("a file");
        let block = [0xa5; 4096];
        while file.write_all(&block).is_ok() {}
        let length = file.metadata().expect("its length").len();
        // Whole pages are what it has.
        let keep = length.saturating_sub(leave.next_multiple_of(4096)) / 4096 * 4096;
        file.set_len(keep).expect("some room");
    }

    /// Takes the filler away.
    pub fn free(&self) {
        fs_err::remove_file(self.path("filler")).expect("a filler");
    }

    /// Lays a read-only view of it over it. (It cannot be made read-only itself while the index has files open to be
    /// written, as only the kernel can on an error.)
    pub fn make_read_only(&self) {
        // Refused for a moment when the server has just opened a file through the new view.
        self.run(r#"mount --bind "$0" "$0" && for try in 1 2 3 4 5 6 7 8 9 10; do mount -o remount,bind,ro "$0" && exit 0; sleep 0.2; done; exit 1"#);
    }

    pub fn make_writable(&self) {
        self.run(r#"umount --lazy "$0""#);
    }

    fn run(&self, script: &str) {
        let mut sh = self.enter(OsStr::new("sh"), Path::new("/"));
        assert!(sh.args(["-c", script]).arg(&self.dir).status().expect("sh").success(), "{script}");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
