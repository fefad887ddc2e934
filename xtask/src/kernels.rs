//! Kernels to test on: Debian's cloud kernels of several suites, fetched with apt from the mirror
//! that this machine is set up for, unpacked below `target/vm/kernels`.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::setup;
use crate::shell::{read, run, say};

/// A line of kernels, of which the newest is used.
pub struct Line {
    /// What one asks for: `--kernel 6.1`.
    pub name: &'static str,
    suite: &'static str,
    /// Of the version; empty takes the newest there is.
    prefix: &'static str,
}

pub const LINES: &[Line] = &[
    Line {
        name: "5.10",
        suite: "bullseye",
        prefix: "5.10.",
    },
    Line {
        name: "6.1",
        suite: "bookworm",
        prefix: "6.1.",
    },
    Line {
        name: "6.12",
        suite: "trixie",
        prefix: "6.12.",
    },
    Line {
        name: "6.18",
        suite: "trixie-backports",
        prefix: "6.18.",
    },
    Line {
        name: "newest",
        suite: "trixie-backports",
        prefix: "",
    },
];

/// What the scenarios use and a cloud kernel may have as a module.
const MODULES: &[&str] = &[
    "veth",
    "dummy",
    "inet_diag",
    "tcp_diag",
    "udp_diag",
    "raw_diag",
    "mptcp_diag",
];
const PACKAGES: &[&str] = &["debian-archive-keyring", "xz-utils"];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Packages of one kernel; older kernels are in the first alone.
const PARTS: &[&str] = &["linux-image-", "linux-binary-", "linux-modules-"];
const FLAVOUR: &str = "-cloud-amd64";

/// An unpacked kernel.
pub struct Kernel {
    /// E.g. `6.1.0-50`.
    pub version: String,
    pub image: PathBuf,
    /// Modules in the order in which to load them.
    pub modules: Vec<PathBuf>,
}

impl Line {
    /// # Errors
    /// When no line has this name.
    pub fn named(name: &str) -> Result<&'static Line> {
        LINES
            .iter()
            .find(|line| line.name == name)
            .with_context(|| {
                let names: Vec<_> = LINES.iter().map(|line| line.name).collect();
                format!("no kernel {name:?}; there are {}", names.join(", "))
            })
    }

    /// The kernel, fetched when it is not there yet.
    ///
    /// # Errors
    /// When it is not there and cannot be fetched.
    pub fn kernel(&self, paths: &Paths) -> Result<Kernel> {
        let folder = paths.target("vm/kernels").join(self.name);
        fs::create_dir_all(paths.target("vm/kernels"))?;
        // another xtask may be fetching the same
        let lock = File::create(paths.target("vm/kernels/lock"))?;
        lock.lock()?;
        if !folder.join("version").exists() {
            self.fetch(paths, &folder).with_context(|| {
                format!("fetching kernel {} of Debian {}", self.name, self.suite)
            })?;
        }
        Kernel::open(&folder)
    }

    fn fetch(&self, paths: &Paths, folder: &Path) -> Result<()> {
        setup::packages(PACKAGES)?;
        let apt = Apt::of_suite(self.suite, &paths.target("vm/apt").join(self.suite))?;
        let names = apt.names("linux-")?;
        let version = names
            .iter()
            .filter_map(|name| name.strip_prefix("linux-image-")?.strip_suffix(FLAVOUR))
            .filter(|version| version.starts_with(self.prefix))
            .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
            .max_by_key(|version| numbers(version))
            .with_context(|| format!("no linux-image-{}*{FLAVOUR} in the suite", self.prefix))?;
        say(format!(
            "fetching kernel {version} of Debian {}",
            self.suite
        ));

        let work = folder.with_extension("part");
        if work.exists() {
            fs::remove_dir_all(&work)?;
        }
        fs::create_dir_all(work.join("tree"))?;
        for part in PARTS {
            let package = format!("{part}{version}{FLAVOUR}");
            if names.contains(&package) {
                apt.unpack(&package, &work)?;
            }
        }
        let tree = files_below(&work.join("tree"))?;
        let image = tree
            .iter()
            .find(|path| file_name(path).starts_with("vmlinuz"))
            .with_context(|| format!("the packages of {version} hold no vmlinuz"))?;
        fs::rename(image, work.join("vmlinuz"))?;
        fs::create_dir(work.join("modules"))?;
        let mut order = Vec::new();
        for name in MODULES {
            take_module(name, &tree, &work.join("modules"), &mut order)?;
        }
        fs::write(work.join("modules/order"), order.join("\n"))?;
        fs::remove_dir_all(work.join("tree"))?;
        // last: it says that all is there
        fs::write(work.join("version"), version)?;
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::rename(&work, folder).with_context(|| format!("creating {}", folder.display()))
    }
}

impl Kernel {
    fn open(folder: &Path) -> Result<Self> {
        let order = fs::read_to_string(folder.join("modules/order"))?;
        Ok(Self {
            version: fs::read_to_string(folder.join("version"))?,
            image: folder.join("vmlinuz"),
            modules: order
                .lines()
                .map(|name| folder.join("modules").join(name))
                .collect(),
        })
    }
}

/// Copies a module, uncompressed, after those it depends on. One that is not there is built in, or
/// this kernel has no such thing.
fn take_module(name: &str, tree: &[PathBuf], into: &Path, order: &mut Vec<String>) -> Result<()> {
    let file = format!("{}.ko", name.replace('-', "_"));
    if order.contains(&file) {
        return Ok(());
    }
    let found = tree.iter().find(|path| {
        let name = file_name(path).replace('-', "_");
        name.strip_suffix(".xz").unwrap_or(&name) == file
    });
    let Some(found) = found else { return Ok(()) };
    let module = if found.extension().is_some_and(|end| end == "xz") {
        let output = Command::new("xz")
            .arg("-dc")
            .arg(found)
            .output()
            .context("running xz")?;
        if !output.status.success() {
            bail!("cannot decompress {}", found.display());
        }
        output.stdout
    } else {
        fs::read(found)?
    };
    for needed in dependencies(&module) {
        take_module(&needed, tree, into, order)?;
    }
    fs::write(into.join(&file), module)?;
    order.push(file);
    Ok(())
}

/// Names in the `depends=` entry of a module's `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return Vec::new();
    };
    let value = module[at + key.len()..]
        .split(|&byte| byte == 0)
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(String::from)
        .collect()
}

/// apt with lists and cache of its own, so that the machine's are left alone.
struct Apt {
    state: PathBuf,
}

impl Apt {
    fn of_suite(suite: &str, state: &Path) -> Result<Self> {
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(state.join("cache/archives/partial"))?;
        let mirror = mirror()?;
        fs::write(
            state.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n"),
        )?;
        let apt = Self {
            state: state.to_path_buf(),
        };
        run(apt.command("apt-get").args(["update", "-qq"]))
            .with_context(|| format!("the machine's mirror does not serve Debian {suite}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, value) in [
            ("Dir::State", self.state.clone()),
            ("Dir::State::lists", self.state.join("lists")),
            ("Dir::State::status", "/dev/null".into()),
            ("Dir::Cache", self.state.join("cache")),
            ("Dir::Etc::SourceList", self.state.join("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
        command
            // as whoever runs us: the folder need not be readable for _apt
            .args(["-o", "APT::Sandbox::User="])
            .args(["-o", "Acquire::Languages=none"])
            .args(["-o", "APT::Architecture=amd64"])
            .args(["-o", "APT::Architectures=amd64"]);
        command
    }

    fn names(&self, prefix: &str) -> Result<BTreeSet<String>> {
        let names = read(self.command("apt-cache").args(["pkgnames", prefix]))?;
        Ok(names.lines().map(String::from).collect())
    }

    /// Downloads a package, verified by apt, and adds its files to `work/tree`.
    fn unpack(&self, package: &str, work: &Path) -> Result<()> {
        let deb = work.join("deb");
        fs::create_dir_all(&deb)?;
        run(self
            .command("apt-get")
            .args(["download", "-qq", package])
            .current_dir(&deb))?;
        for file in files_below(&deb)? {
            run(Command::new("dpkg-deb")
                .arg("-x")
                .arg(&file)
                .arg(work.join("tree")))?;
        }
        fs::remove_dir_all(&deb).context("removing the package")
    }
}

/// The address of Debian's main archive as apt is set up here.
fn mirror() -> Result<String> {
    let targets =
        || read(Command::new("apt-get").args(["indextargets", "--format", "$(LABEL) $(REPO_URI)"]));
    let of_debian = |text: &str| {
        let mut addresses = text.lines().filter_map(|line| line.strip_prefix("Debian "));
        addresses.next().map(String::from)
    };
    if let Some(address) = of_debian(&targets()?) {
        return Ok(address);
    }
    // without package lists apt knows no labels yet
    if setup::is_root() {
        run(Command::new("apt-get").args(["update", "-qq"]))?;
    }
    of_debian(&targets()?)
        .context("apt is not set up for a Debian archive here, or needs `apt-get update`")
}

/// The numbers in a version, to compare 6.12.94 with 6.12.107.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
