//! What a virtual machine boots into: static programs, and an initramfs with them, busybox and modules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::kernels::Kernel;
use crate::paths::Paths;
use crate::setup;
use crate::shell::{read, run, say};

const HOST: &str = "x86_64-unknown-linux-gnu";
const PACKAGES: &[&str] = &[
    "binutils",
    "busybox-static",
    "cpio",
    "gcc",
    "libc6-dev",
    "qemu-system-x86",
];

/// portwatch and the scenario runner, linked statically: the same files serve here and in every machine.
pub struct Programs {
    pub portwatch: PathBuf,
    pub scenarios: PathBuf,
}

impl Programs {
    /// # Errors
    /// When the build fails.
    pub fn build(paths: &Paths) -> Result<Self> {
        setup::packages(&["gcc", "libc6-dev"])?;
        say("building portwatch and the scenarios, static");
        let target = paths.target("static");
        run(Command::new(env!("CARGO"))
            .args(["build", "--release", "--quiet", "--target", HOST])
            .args(["-p", "portwatch", "-p", "portwatch-tests", "--target-dir"])
            .arg(&target)
            .current_dir(&paths.root)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env(
                "RUSTFLAGS",
                "-C target-feature=+crt-static -C relocation-model=static",
            ))?;
        let folder = target.join(HOST).join("release");
        Ok(Self {
            portwatch: folder.join("portwatch"),
            scenarios: folder.join("scenarios"),
        })
    }
}

/// Writes an initramfs that runs `script` (sh) on `kernel` and then powers off; `files` go to `/bin`.
///
/// # Errors
/// When a package is missing that cannot be installed, or a file cannot be copied.
pub fn write(into: &Path, kernel: &Kernel, files: &[&Path], script: &str) -> Result<PathBuf> {
    setup::packages(PACKAGES)?;
    let root = into.join("root");
    for folder in [
        "bin",
        "dev",
        "etc",
        "lib/modules",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "vm",
    ] {
        fs::create_dir_all(root.join(folder))?;
    }
    executable(Path::new("/bin/busybox"), &root.join("bin/busybox"))?;
    for file in files {
        let name = file.file_name().context("a program without a name")?;
        let copy = root.join("bin").join(name);
        executable(file, &copy)?;
        run(Command::new("strip").arg("--strip-debug").arg(&copy))?;
    }
    let mut order = String::new();
    for module in &kernel.modules {
        let name = module.file_name().context("a module without a name")?;
        fs::copy(module, root.join("lib/modules").join(name))?;
        order.push_str(&name.to_string_lossy());
        order.push('\n');
    }
    fs::write(root.join("lib/modules/order"), order)?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    )?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    fs::write(root.join("vm/script"), script)?;
    pack(&root, &into.join("initramfs.cpio"))
}

fn executable(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// A cpio archive of a folder. Not compressed: it is read from memory once.
pub fn pack(root: &Path, archive: &Path) -> Result<PathBuf> {
    let names = read(Command::new("find").arg(".").current_dir(root))?;
    let names_file = root.with_extension("names");
    fs::write(&names_file, names)?;
    let status = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc", "--owner", "0:0"])
        .current_dir(root)
        .stdin(fs::File::open(&names_file)?)
        .stdout(fs::File::create(archive)?)
        .stderr(Stdio::inherit())
        .status()
        .context("running cpio")?;
    if !status.success() {
        bail!("cpio failed: {status}");
    }
    Ok(archive.to_path_buf())
}
