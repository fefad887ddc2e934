//! Where things are: the checkout, and what xtask keeps in its `target`.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Folders of this checkout.
pub struct Paths {
    pub root: PathBuf,
}

impl Paths {
    /// # Errors
    /// When the checkout that xtask was built from is gone.
    pub fn find() -> Result<Self> {
        // cargo sets it at run time too, which stays right when a binary is shared by checkouts
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.join("..");
        let root = root
            .canonicalize()
            .with_context(|| format!("finding the checkout at {}", root.display()))?;
        Ok(Self { root })
    }

    /// A path below the checkout.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// A path below `target`. Always the checkout's own, since tools and kernels are costly to get twice.
    pub fn target(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join("target").join(path)
    }
}
