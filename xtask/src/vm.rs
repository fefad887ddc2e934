//! `cargo xtask vm`: boots a kernel in an emulated machine, runs one script in it and gives back what it printed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::image::{self, Programs};
use crate::kernels::{Kernel, LINES, Line};
use crate::paths::Paths;
use crate::shell::say;

const MEMORY_MIB: u32 = 2048;
/// The time stamp counter is right here, but the kernel's test of it is too strict for emulation, and
/// every other clock is a device that is slow to ask. Mitigations cost much and protect nothing here.
const APPEND: &str = "console=ttyS0 panic=-1 oops=panic softlockup_panic=1 loglevel=5 tsc=reliable clocksource=tsc mitigations=off";
/// Ends the output of the script; the exit code follows. See `init.sh`.
const END: &str = "@exit ";

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Fetch the kernels that are not there yet
    Fetch {
        /// Fetch all anew, to have the newest of each line
        #[arg(long)]
        update: bool,
    },
    /// Run a command in a machine: `vm run 6.1 -- portwatch doctor`
    Run {
        /// 5.10, 6.1, 6.12, 6.18 or newest
        kernel: String,
        /// Seconds until it is ended
        #[arg(long, default_value_t = 600)]
        timeout: u64,
        /// Further files to put into its /bin
        #[arg(long)]
        file: Vec<PathBuf>,
        /// Without portwatch and the scenarios
        #[arg(long)]
        bare: bool,
        /// The command; several words are quoted, one word is a line for sh
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// A shell in a machine
    Shell { kernel: String },
}

/// Whether the command in the machine exited with 0.
///
/// # Errors
/// When a kernel cannot be had, or the machine does not come to the command's end.
pub fn task(paths: &Paths, args: &Args) -> Result<bool> {
    match &args.verb {
        Verb::Fetch { update } => {
            if *update && paths.target("vm/kernels").exists() {
                fs::remove_dir_all(paths.target("vm/kernels"))?;
            }
            for line in LINES {
                println!("{}: {}", line.name, line.kernel(paths)?.version);
            }
            Ok(true)
        }
        Verb::Run {
            kernel,
            timeout,
            file,
            bare,
            command,
        } => {
            let script = match &command[..] {
                [line] => line.clone(),
                words => words
                    .iter()
                    .map(|word| quoted(word))
                    .collect::<Vec<_>>()
                    .join(" "),
            };
            let kernel = Line::named(kernel)?.kernel(paths)?;
            let mut files: Vec<_> = file.iter().map(PathBuf::as_path).collect();
            let programs = if *bare {
                None
            } else {
                Some(Programs::build(paths)?)
            };
            if let Some(programs) = &programs {
                files.extend([&*programs.portwatch, &*programs.scenarios]);
            }
            let machine = Machine::new(paths, &kernel, &files, &script)?;
            let code = machine.run(Duration::from_secs(*timeout), |line| println!("{line}"))?;
            if code != 0 {
                say(format!("the command exited with {code}"));
            }
            Ok(code == 0)
        }
        Verb::Shell { kernel } => {
            let kernel = Line::named(kernel)?.kernel(paths)?;
            let programs = Programs::build(paths)?;
            Machine::new(
                paths,
                &kernel,
                &[&programs.portwatch, &programs.scenarios],
                "",
            )?
            .shell()?;
            Ok(true)
        }
    }
}

/// A machine that is ready to boot. Its files are removed when it is dropped.
pub struct Machine {
    folder: PathBuf,
    kernel: PathBuf,
    version: String,
}

impl Machine {
    /// # Errors
    /// When the initramfs cannot be made.
    pub fn new(paths: &Paths, kernel: &Kernel, files: &[&Path], script: &str) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        remove_leftovers(&paths.target("vm/run"));
        let folder = paths
            .target("vm/run")
            .join(format!("{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let machine = Self {
            folder,
            kernel: kernel.image.clone(),
            version: kernel.version.clone(),
        };
        image::write(&machine.folder, kernel, files, script)?;
        Ok(machine)
    }

    /// Boots, hands over each line the script prints, and gives the script's exit code.
    ///
    /// # Errors
    /// When the kernel does not come up, dies, or the script is not done in time; the error ends
    /// with the last lines of the kernel's console.
    pub fn run(&self, timeout: Duration, mut line: impl FnMut(&str)) -> Result<i32> {
        let console = self.folder.join("console");
        let mut qemu = Qemu(
            self.command()
                .args(["-display", "none", "-monitor", "none", "-serial"])
                .arg(format!("file:{}", console.display()))
                .args(["-serial", "stdio"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting qemu-system-x86_64")?,
        );
        let deadline = Instant::now() + timeout;
        let output = BufReader::new(qemu.0.stdout.take().context("qemu has no stdout")?);
        let (lines, received) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for text in output.split(b'\n') {
                let Ok(text) = text else { break };
                if lines
                    .send(String::from_utf8_lossy(&text).into_owned())
                    .is_err()
                {
                    break;
                }
            }
        });
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let problem = match received.recv_timeout(left) {
                Ok(text) => match text.strip_prefix(END) {
                    Some(code) => return code.trim().parse().context("the script's exit code"),
                    None => {
                        line(text.trim_end_matches('\r'));
                        continue;
                    }
                },
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    format!("not done after {} s", timeout.as_secs())
                }
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => "the machine died".into(),
            };
            bail!(
                "kernel {}: {problem}; its console ends with\n{}",
                self.version,
                tail(&console)
            );
        }
    }

    /// Boots into a shell on this terminal.
    fn shell(&self) -> Result<()> {
        fs::write(self.folder.join("root/vm/interactive"), "")?;
        image::pack(
            &self.folder.join("root"),
            &self.folder.join("initramfs.cpio"),
        )?;
        say("leave with `exit` or Ctrl-A X");
        self.command()
            .arg("-nographic")
            .status()
            .context("running qemu-system-x86_64")?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            // emulated: works everywhere, nested virtualisation does not. One thread for both CPUs:
            // with more, QEMU 7.2 hung where the kernel patches its code, as it does for each
            // tracepoint. A fifth level of page tables only costs time. Without cmpxchg16b, which
            // QEMU 7.2 follows with flags computed from a stale state (seen as EFLAGS full of address
            // bits, then a panic somewhere in the slab allocator); the kernel has a way round it.
            .args([
                "-accel",
                "tcg,thread=single",
                "-cpu",
                "max,la57=off,cx16=off",
                "-smp",
                "2",
            ])
            .args(["-m", &MEMORY_MIB.to_string()])
            .args(["-nodefaults", "-no-user-config", "-no-reboot"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(self.folder.join("initramfs.cpio"))
            .args(["-append", APPEND]);
        command
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // what stays behind is in `target`, and the next run does not use it
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes folders of machines whose xtask was killed.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            // another xtask may be removing it too
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A running emulator; ended with us.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A word for sh.
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
