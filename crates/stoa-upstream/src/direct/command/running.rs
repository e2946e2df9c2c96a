//! A command that runs: its pipes, its bounds, and its end.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use stoa_module::ErrorClass;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdin};

use super::{Ended, Run, WORDS, Wanted, not_started};
use crate::failure::{Fault, Stage, span};

/// How often the bounds are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a pipe may stay open after the command has ended, and how long a killed one may take to be gone.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// A process group, killed whole when this is dropped before all of it was seen to end. Its number is that of the command
/// itself, and belongs to nobody else for as long as one of the group lives.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        let pid = child.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.and_then(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            // It may be gone already.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn is_gone(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(super) struct Running {
    // Dropped first: what is still running then is killed.
    group: Group,
    child: Child,
    input: Option<(ChildStdin, Vec<u8>)>,
    began: Instant,
    /// When something last moved.
    moved: Instant,
    size: u64,
    words: Vec<u8>,
}

impl Running {
    pub(super) fn new(mut child: Child, input: Option<Vec<u8>>) -> Self {
        let group = Group::of(&child);
        let input = input.and_then(|bytes| Some((child.stdin.take()?, bytes)));
        let now = Instant::now();
        Self { group, child, input, began: now, moved: now, size: 0, words: Vec::new() }
    }

    pub(super) async fn watch(
        mut self,
        run: &Run<'_>,
        reader: &mut (dyn FnMut(&[u8]) -> Wanted + Send),
    ) -> Result<Ended, Fault> {
        let (mut stdout, mut stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (mut out, mut err) = (vec![0; 64 << 10], vec![0; 4 << 10]);
        let mut ticks = tokio::time::interval_at((Instant::now() + TICK).into(), TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut feeding = Box::pin(feed(self.input.take()));
        let mut fed = false;
        let mut ended: Option<(ExitStatus, Instant)> = None;
        while ended.is_none() || stdout.is_some() || stderr.is_some() {
            tokio::select! {
                read = piece(&mut stdout, &mut out), if stdout.is_some() => {
                    let Some(length) = read else {
                        stdout = None;
                        continue;
                    };
                    self.moved = Instant::now();
                    match reader(&out[..length]) {
                        Wanted::More => {}
                        Wanted::Enough => {
                            self.end().await;
                            return Ok(Ended { code: None, enough: true, words: self.said() });
                        }
                        Wanted::Refused(fault) => {
                            self.end().await;
                            return Err(fault);
                        }
                    }
                }
                read = piece(&mut stderr, &mut err), if stderr.is_some() => {
                    let Some(length) = read else {
                        stderr = None;
                        continue;
                    };
                    self.moved = Instant::now();
                    self.hear(&err[..length]);
                }
                () = &mut feeding, if !fed => fed = true,
                status = self.child.wait(), if ended.is_none() => match status {
                    // What it has started may outlive it: `git fetch` that dies of what it was sent leaves its
                    // `git remote-https` to a host that says no more.
                    Ok(status) => ended = Some((status, Instant::now())),
                    Err(error) => {
                        self.end().await;
                        return Err(not_started(&error));
                    }
                },
                _ = ticks.tick() => {
                    if let Some((_, when)) = ended {
                        // Something that it left behind holds a pipe, and so is there to be killed. A daemon that
                        // is meant to stay, such as that of `git credential-cache`, closes what it was given.
                        if when.elapsed() > GRACE {
                            self.group.kill();
                            break;
                        }
                    } else if let Err(fault) = self.look(run) {
                        self.end().await;
                        return Err(fault);
                    }
                }
            }
        }
        // Nobody is left whom its number is sure to mean.
        self.group.is_gone();
        let code = ended.and_then(|(status, _)| status.code());
        Ok(Ended { code, enough: false, words: self.said() })
    }

    /// Whether the bounds are kept.
    fn look(&mut self, run: &Run<'_>) -> Result<(), Fault> {
        let now = Instant::now();
        if let Some(growth) = &run.growth {
            let size = (growth.size)();
            if size != self.size {
                (self.size, self.moved) = (size, now);
            }
            if size > growth.most {
                let detail = format!("git: {} has more than {} bytes", growth.what, growth.most);
                return Err(Fault::new(ErrorClass::Corrupt, Stage::Git, detail));
            }
        }
        let timeout = |detail| Err(Fault::new(ErrorClass::Timeout, Stage::Git, detail));
        if now.duration_since(self.began) > run.whole {
            return timeout(format!("git: timeout after {}", span(run.whole)));
        }
        if now.duration_since(self.moved) > run.quiet {
            return timeout(format!("git: no progress for {}", span(run.quiet)));
        }
        Ok(())
    }

    /// Ends the command and all that it has started.
    async fn end(&mut self) {
        self.group.kill();
        if let Ok(Ok(_)) = tokio::time::timeout(GRACE, self.child.wait()).await {
            self.group.is_gone();
        }
    }

    fn hear(&mut self, bytes: &[u8]) {
        self.words.extend_from_slice(bytes);
        if self.words.len() > 2 * WORDS {
            self.words.drain(..self.words.len() - WORDS);
        }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.words).into_owned()
    }
}

async fn feed(input: Option<(ChildStdin, Vec<u8>)>) {
    if let Some((mut stdin, bytes)) = input {
        // A command that does not read it all has ended, and says why itself.
        let _ = stdin.write_all(&bytes).await;
    }
}

/// The length of what was read; `None` at the end.
async fn piece(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> Option<usize> {
    match pipe.as_mut()?.read(buffer).await {
        Ok(length @ 1..) => Some(length),
        Ok(0) | Err(_) => None,
    }
}
