//! Network namespaces as views name them: the one that goes without saying, and the names of others.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::snapshot::{first_netns, own_netns};

/// Number of the one that goes without saying: that of this process, of another `proc_root` that of its first process.
pub fn home(proc_root: Option<&Path>) -> Option<u32> {
    (proc_root.and_then(first_netns)).or_else(|| own_netns().ok())
}

/// The namespaces that ip-netns(8) gave a name. None of another `proc_root`: those here may be others there.
pub fn names(proc_root: Option<&Path>) -> HashMap<u32, String> {
    let Some(Ok(entries)) = proc_root.is_none().then(|| std::fs::read_dir("/run/netns")) else {
        return HashMap::new();
    };
    (entries.flatten())
        .filter_map(|entry| {
            let inode = std::fs::metadata(entry.path()).ok()?.ino();
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((u32::try_from(inode).ok()?, name))
        })
        .collect()
}
