//! `cargo xtask bpf`: builds the eBPF object with pinned tools so that the same source gives the same
//! bytes anywhere, and proves that the committed one is that.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::setup;
use crate::shell::{read, run, say};

const OBJECT: &str = "portwatch/bpf/portwatch.o";
/// Beside the object: what built it. Another compiler gives other bytes.
const TOOLS: &str = "portwatch/bpf/TOOLS";

const TARGET: &str = "bpfel-unknown-none";
const BPF_LINKER: &str = "0.13.0";
const LLVM_BIN: &str = "/usr/lib/llvm-22/bin";
/// `core` is built from source, and bpf-linker has to be of rustc's LLVM: this set fits together.
const PACKAGES: &[&str] = &[
    "gcc",
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-clippy",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];

#[derive(clap::Args)]
pub struct Args {
    /// Build from nothing and compare with the committed object
    #[arg(long, conflicts_with = "lint")]
    check: bool,
    /// Run clippy on the eBPF crate instead
    #[arg(long)]
    lint: bool,
}

/// # Errors
/// When the tools cannot be had, the build fails, or (`--check`) the result is another.
pub fn task(paths: &Paths, args: &Args) -> Result<()> {
    let build = Build::prepare(paths)?;
    if args.lint {
        build.lint()
    } else if args.check {
        build.check()
    } else {
        build.update()
    }
}

/// The tools, ready to build.
pub struct Build<'a> {
    paths: &'a Paths,
    linker_bin: PathBuf,
    /// Versions of what decides on the bytes, one a line.
    tools: String,
}

impl<'a> Build<'a> {
    /// Installs what is missing.
    ///
    /// # Errors
    /// Says what to install when that cannot be done from here.
    pub fn prepare(paths: &'a Paths) -> Result<Self> {
        setup::packages(PACKAGES)?;
        let tools_root = paths.target("tools");
        let linker = tools_root.join("bin/bpf-linker");
        let version = format!("bpf-linker {BPF_LINKER}");
        let found = read(Command::new(&linker).arg("--version")).unwrap_or_default();
        if found.trim() != version {
            say(format!(
                "installing {version} into {}",
                tools_root.display()
            ));
            run(clean_cargo("cargo")
                .args(["install", "bpf-linker", "--version", BPF_LINKER])
                .args([
                    "--locked",
                    "--no-default-features",
                    "--features",
                    "llvm-22",
                    "--force",
                ])
                .arg("--root")
                .arg(&tools_root)
                .env("PATH", search_path(&[Path::new(LLVM_BIN)])))?;
        }
        let rustc = read(Command::new("/usr/bin/rustc").arg("--version"))?;
        let llvm = read(Command::new(format!("{LLVM_BIN}/llvm-config")).arg("--version"))?;
        Ok(Self {
            paths,
            linker_bin: tools_root.join("bin"),
            tools: format!("{}\nLLVM {}\n{version}\n", rustc.trim(), llvm.trim()),
        })
    }

    /// Rebuilds the committed object.
    fn update(&self) -> Result<()> {
        let object = self.object(&self.paths.target("bpf"))?;
        let path = self.paths.join(OBJECT);
        if fs::read(&path).is_ok_and(|old| old == object) {
            say(format!("{OBJECT} is up to date"));
        } else {
            fs::create_dir_all(self.paths.join("portwatch/bpf"))?;
            fs::write(&path, &object).with_context(|| format!("writing {}", path.display()))?;
            say(format!("{OBJECT} rebuilt, {} bytes", object.len()));
        }
        let tools = self.paths.join(TOOLS);
        fs::write(&tools, &self.tools).with_context(|| format!("writing {}", tools.display()))
    }

    /// Compares the committed object with a build from nothing.
    ///
    /// # Errors
    /// When they differ.
    pub fn check(&self) -> Result<()> {
        let target = self.paths.target("bpf-check");
        if target.exists() {
            fs::remove_dir_all(&target)
                .with_context(|| format!("emptying {}", target.display()))?;
        }
        let fresh = self.object(&target)?;
        let path = self.paths.join(OBJECT);
        let committed = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if fresh == committed {
            say(format!(
                "{OBJECT} is what the source gives, {} bytes",
                fresh.len()
            ));
            return Ok(());
        }
        let with = fs::read_to_string(self.paths.join(TOOLS)).unwrap_or_default();
        if with != self.tools {
            bail!(
                "{OBJECT} cannot be compared: it was built with\n{with}and here there is\n{}\
                 Rebuild it with `cargo xtask bpf` and commit it.",
                self.tools
            );
        }
        let kept = target.join("portwatch.o");
        fs::write(&kept, &fresh).with_context(|| format!("writing {}", kept.display()))?;
        let at = fresh
            .iter()
            .zip(&committed)
            .take_while(|(a, b)| a == b)
            .count();
        bail!(
            "{OBJECT} is not what the source gives: {} bytes committed, {} built, first difference \
             at byte {at}. Rebuild it with `cargo xtask bpf` and commit it. The one built is {}",
            committed.len(),
            fresh.len(),
            kept.display()
        )
    }

    /// # Errors
    /// When clippy has something to say.
    pub fn lint(&self) -> Result<()> {
        run(self
            .cargo("clippy", &self.paths.target("bpf-lint"))?
            .args(["--", "-D", "warnings"]))
        .context("clippy on portwatch-ebpf")
    }

    /// Builds it and takes away what depends on neither source nor kernel.
    fn object(&self, target: &Path) -> Result<Vec<u8>> {
        run(&mut self.cargo("build", target)?).context("building portwatch-ebpf")?;
        let built = target.join(TARGET).join("release/portwatch");
        let stripped = target.join("stripped.o");
        // DWARF goes, BTF stays
        run(Command::new(format!("{LLVM_BIN}/llvm-objcopy"))
            .arg("--strip-debug")
            // Source lines for the verifier's log: more bytes than the programs, different with
            // every reformatting.
            .args([
                "--remove-section",
                ".BTF.ext",
                "--remove-section",
                ".rel.BTF.ext",
            ])
            .args([&built, &stripped]))?;
        fs::read(&stripped).with_context(|| format!("reading {}", stripped.display()))
    }

    /// A cargo command on the eBPF crate with everything that decides on the bytes.
    fn cargo(&self, verb: &str, target: &Path) -> Result<Command> {
        let fetch = ["fetch", "--quiet"];
        run(clean_cargo("/usr/bin/cargo")
            .args(fetch)
            .current_dir(&self.paths.root))?;
        // Without the second, memory is set and copied by calls, which go byte by byte, and the
        // verifier with them.
        let mut flags = OsString::from(
            "-Cdebuginfo=2\x1f-Clink-arg=--btf\x1f-Clink-arg=--disable-expand-memcpy-in-order",
        );
        for (from, to) in self.renamed_folders()? {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        }
        let mut command = clean_cargo("/usr/bin/cargo");
        command
            .arg(verb)
            .args(["--release", "-p", "portwatch-ebpf", "-Z", "build-std=core"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(target)
            .current_dir(&self.paths.root)
            .env(
                "PATH",
                search_path(&[&self.linker_bin, Path::new(LLVM_BIN), Path::new("/usr/bin")]),
            )
            // these packages are stable releases; build-std is not
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags);
        Ok(command)
    }

    /// Folders whose place differs from machine to machine, and what the object calls them.
    fn renamed_folders(&self) -> Result<Vec<(PathBuf, &'static str)>> {
        let home = cargo_home()?;
        let mut folders = vec![
            (home.clone(), "/cargo"),
            (self.paths.root.clone(), "/portwatch"),
        ];
        // named after the registry, or its mirror, that was used
        let sources = home.join("registry/src");
        for entry in
            fs::read_dir(&sources).with_context(|| format!("reading {}", sources.display()))?
        {
            folders.push((entry?.path(), "/registry"));
        }
        let sysroot = read(Command::new("/usr/bin/rustc").args(["--print", "sysroot"]))?;
        let std = Path::new(sysroot.trim()).join("lib/rustlib/src/rust");
        if let Ok(real) = std.canonicalize() {
            folders.push((real, "/rust"));
        }
        folders.push((std, "/rust"));
        Ok(folders)
    }
}

/// A cargo without what the one that runs us, rustup or the user's shell put into the environment.
fn clean_cargo(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let keep = matches!(&*text, "CARGO_HOME" | "RUSTUP_HOME")
            || text.starts_with("CARGO_HTTP")
            || text.starts_with("CARGO_REGISTR")
            || text.starts_with("CARGO_NET");
        let ours = text.starts_with("CARGO") || text.starts_with("RUST");
        if ours && !keep {
            command.env_remove(name);
        }
    }
    command
}

/// `PATH` with these folders first.
fn search_path(first: &[&Path]) -> OsString {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = first
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&old));
    std::env::join_paths(folders).unwrap_or(old)
}

fn cargo_home() -> Result<PathBuf> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    home.canonicalize()
        .with_context(|| format!("finding {}", home.display()))
}
