//! `trace -- COMMAND`: a command that runs only once the probes follow it.

use std::ffi::OsString;
use std::io::{self, Error, ErrorKind, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::sync::oneshot;

use crate::command::say;
use crate::command::signals::{self, Signals};
use crate::command::trace::summary::plural;
use crate::exit::Exit;
use crate::source::Source;
use crate::user::{self, Users};

/// How long after its end the sockets of a command may take to close: the other end has to answer first.
const CLOSING: Duration = Duration::from_secs(1);

/// A process that will become the command, and waits for permission.
pub struct Held {
    pid: u32,
    name: String,
    go: PipeWriter,
    started: mpsc::Receiver<io::Result<()>>,
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
}

/// The command at work.
pub struct Running {
    ended: oneshot::Receiver<io::Result<ExitStatus>>,
    end: Option<(io::Result<ExitStatus>, Instant)>,
}

/// Why the command did not start.
pub struct Failure {
    pub message: String,
    pub exit: Exit,
}

/// Makes a process for the command, as the user who called sudo, and holds it before its first
/// instruction.
pub fn hold(words: &[OsString], stdout_to_stderr: bool) -> Result<Held> {
    let Some((program, args)) = words.split_first() else {
        bail!("no command")
    };
    let mut command = Command::new(program);
    command.args(args);
    if stdout_to_stderr {
        let stderr = io::stderr()
            .as_fd()
            .try_clone_to_owned()
            .context("opening stderr")?;
        command.stdout(Stdio::from(stderr));
    }
    let identity = Identity::of_caller();
    if let Some(identity) = &identity {
        identity.announce(&mut command);
    }
    signals::notice_children();
    let (mut pid, pid_writer) = io::pipe()?;
    let (go_reader, go) = io::pipe()?;
    let ends = Ends {
        pid: pid_writer.as_raw_fd(),
        go: go_reader.as_raw_fd(),
        other_end: go.as_raw_fd(),
    };
    // SAFETY: the closure only makes system calls that are safe between fork and exec; it
    // allocates nothing, and its descriptors are open as long as the thread below.
    unsafe {
        command.pre_exec(move || {
            if let Some(identity) = &identity {
                identity.assume()?;
            }
            signals::give_back();
            ends.wait()
        });
    }
    let (started_sender, started) = mpsc::channel();
    let (ended_sender, ended) = oneshot::channel();
    // On a thread of its own, as spawn returns only when the command runs.
    std::thread::Builder::new()
        .name("command".into())
        .spawn(move || {
            let child = command.spawn();
            // From here on the end of the pipe tells that nobody waits there any more.
            drop((pid_writer, go_reader));
            match child {
                Err(error) => drop(started_sender.send(Err(error))),
                Ok(mut child) => {
                    signals::pass_to(child.id());
                    // Nobody listens when the trace has failed meanwhile.
                    let _ = started_sender.send(Ok(()));
                    let ended = child.wait();
                    signals::pass_to_nobody();
                    let _ = ended_sender.send(ended);
                }
            }
        })
        .context("starting a thread")?;
    let mut bytes = [0; 4];
    if pid.read_exact(&mut bytes).is_err() {
        let error = match started.recv() {
            Ok(Err(error)) => error,
            _ => ErrorKind::BrokenPipe.into(),
        };
        return Err(error).context("making a process for the command");
    }
    Ok(Held {
        pid: u32::from_ne_bytes(bytes),
        name: program.to_string_lossy().into_owned(),
        go,
        started,
        ended,
    })
}

/// # Errors
/// When a command could not be followed, as its processes have no numbers or others in this tree.
pub fn check_tree(proc_root: Option<&Path>) -> Result<()> {
    let Some(root) = proc_root else {
        return Ok(());
    };
    let own = std::fs::read_link(root.join("self"));
    ensure!(
        own.is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str()),
        "--proc-root {} shows other processes than those that run here, a command could not be followed: \
         leave one of them out",
        root.display()
    );
    Ok(())
}

/// Starts the command once the source follows it.
///
/// # Errors
/// When no process can be made for it; the inner one when that could not become the command.
pub fn start(
    words: &[OsString],
    stdout_to_stderr: bool,
    source: &mut Source,
) -> Result<Result<Running, Failure>> {
    let held = hold(words, stdout_to_stderr)?;
    source.follow(held.pid());
    Ok(held.release())
}

impl Held {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets the command run.
    pub fn release(mut self) -> Result<Running, Failure> {
        let started = self.go.write_all(&[1]).and_then(|()| {
            self.started
                .recv()
                .unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()))
        });
        match started {
            Ok(()) => Ok(Running {
                ended: self.ended,
                end: None,
            }),
            Err(error) => Err(Failure {
                message: format!(
                    "cannot run '{}': {error}",
                    crate::sanitize::text(self.name.as_bytes())
                ),
                // As env(1), nohup(1) and the shells have it.
                exit: Exit::Command(if error.kind() == ErrorKind::NotFound {
                    127
                } else {
                    126
                }),
            }),
        }
    }
}

impl Running {
    /// Waits for its end. Cancel-safe.
    pub async fn wait(&mut self) {
        if self.end.is_none() {
            let ended = (&mut self.ended).await;
            let status = ended.unwrap_or_else(|_| Err(ErrorKind::BrokenPipe.into()));
            self.end = Some((status, Instant::now()));
        }
    }

    /// Whether it has not ended yet, as far as was waited for that.
    pub fn runs(&self) -> bool {
        self.end.is_none()
    }

    /// Whether nothing is to be waited for any more, once the source has told what happened until the end:
    /// its sockets are closed, or took too long, which is said.
    pub fn is_over(&self, source: &Source) -> bool {
        let Some((_, at)) = &self.end else {
            return false;
        };
        let open = source.open();
        let all_told = open == 0 && !source.is_behind();
        if !all_told && at.elapsed() < CLOSING {
            return false;
        }
        // They are open, or their closes were lost.
        if open > 0 {
            say(&format!(
                "no close was told of {} of the command within a second of its end",
                plural(open as u64, "socket")
            ));
        }
        true
    }

    /// Waits for its end, whatever signals come, and tells how it ended.
    pub async fn ended(mut self, signals: &mut Signals) -> Exit {
        let status = loop {
            if let Some((status, _)) = self.end {
                break status;
            }
            tokio::select! {
                () = self.wait() => {}
                _ = signals.next() => signals::dealt_with(),
            }
        };
        match status {
            Ok(status) => exit_of(status),
            Err(error) => {
                say(&format!("waiting for the command: {error}"));
                Exit::Failed
            }
        }
    }
}

fn exit_of(status: ExitStatus) -> Exit {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, signal) => 128 + signal.unwrap_or_default(),
    };
    Exit::Command(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The pipes of the held process, as seen from inside it.
#[derive(Clone, Copy)]
struct Ends {
    pid: RawFd,
    go: RawFd,
    /// The writing end of `go`.
    other_end: RawFd,
}

impl Ends {
    /// Tells the process id and waits for permission. Called between fork and exec.
    fn wait(self) -> io::Result<()> {
        // SAFETY: system calls on our own descriptors and on memory of this frame.
        unsafe {
            // While we hold it open ourselves we could not see that portwatch is gone.
            libc::close(self.other_end);
            let pid = libc::getpid().to_ne_bytes();
            if libc::write(self.pid, pid.as_ptr().cast(), pid.len()) != pid.len().cast_signed() {
                return Err(Error::last_os_error());
            }
            let mut byte = 0_u8;
            loop {
                match libc::read(self.go, (&raw mut byte).cast(), 1) {
                    1 => return Ok(()),
                    0 => return Err(Error::from_raw_os_error(libc::ECANCELED)),
                    _ if Error::last_os_error().kind() == ErrorKind::Interrupted => {}
                    _ => return Err(Error::last_os_error()),
                }
            }
        }
    }
}

/// The user that a command runs as.
struct Identity {
    account: user::Account,
    groups: Vec<libc::gid_t>,
}

impl Identity {
    /// The one who called sudo; `None`: stay who we are.
    fn of_caller() -> Option<Self> {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let uid = number("SUDO_UID").filter(|&uid| uid != 0)?;
        let gid = number("SUDO_GID")?;
        let mut account = Users::system()
            .account(uid)
            .cloned()
            .unwrap_or_else(|| user::Account {
                name: uid.to_string(),
                uid,
                gid,
                home: "/".to_owned(),
                shell: "/bin/sh".to_owned(),
            });
        account.gid = gid;
        let groups = user::groups(&account);
        Some(Self { account, groups })
    }

    /// Sets the variables of login(1), which sudo may have set to root's.
    fn announce(&self, command: &mut Command) {
        let account = &self.account;
        command.envs([
            ("HOME", &account.home),
            ("SHELL", &account.shell),
            ("USER", &account.name),
            ("LOGNAME", &account.name),
        ]);
    }

    /// Becomes that user for good. Called between fork and exec.
    fn assume(&self) -> io::Result<()> {
        // SAFETY: system calls that read the list of groups, which outlives them.
        let done = unsafe {
            libc::setgroups(self.groups.len(), self.groups.as_ptr()) == 0
                && libc::setgid(self.account.gid) == 0
                && libc::setuid(self.account.uid) == 0
        };
        if done {
            Ok(())
        } else {
            Err(Error::last_os_error())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    async fn run(command: &[&str]) -> Result<Exit, u8> {
        let held = hold(&words(command), false).unwrap();
        let mut running = held.release().map_err(|failure| failure.exit.code())?;
        running.wait().await;
        Ok(exit_of(running.end.unwrap().0.unwrap()))
    }

    #[tokio::test]
    async fn the_exit_code_is_that_of_the_command() {
        for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15)] {
            assert_eq!(
                run(&["sh", "-c", script]).await,
                Ok(Exit::Command(expected)),
                "{script}"
            );
        }
    }

    #[tokio::test]
    async fn a_command_that_cannot_run_is_told_as_the_shell_does() {
        assert_eq!(run(&["/nonexistent/program"]).await, Err(127));
        assert_eq!(run(&["/"]).await, Err(126));
    }

    #[tokio::test]
    async fn nothing_of_the_command_runs_before_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let held = hold(&words(&["touch", mark.to_str().unwrap()]), false).unwrap();
        let exe = std::fs::read_link(format!("/proc/{}/exe", held.pid())).unwrap();
        assert_eq!(
            exe,
            std::env::current_exe().unwrap(),
            "it waits before its exec"
        );
        std::thread::sleep(Duration::from_millis(100));
        assert!(!mark.exists());
        let mut running = held.release().map_err(|failure| failure.message).unwrap();
        running.wait().await;
        assert!(mark.exists());
    }

    #[test]
    fn a_held_process_ends_when_the_trace_fails() {
        let held = hold(&words(&["sleep", "1000"]), false).unwrap();
        let process = format!("/proc/{}", held.pid());
        drop(held);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Path::new(&process).exists() {
            assert!(Instant::now() < deadline, "{process} is still there");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
