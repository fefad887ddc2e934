//! Network namespaces as views name them: the one that goes without saying, and the names of others.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::snapshot::first_netns;

/// Number of the network namespace that this process is in.
pub fn own() -> Option<u32> {
    number(Path::new("/proc/self/ns/net"))
}

/// The one that goes without saying: that of this process, of another `proc_root` that of its first process.
pub fn home(proc_root: Option<&Path>) -> Option<u32> {
    proc_root.and_then(first_netns).or_else(own)
}

/// The namespaces that ip-netns(8) gave a name. None of another `proc_root`: those here may be others there.
pub fn names(proc_root: Option<&Path>) -> HashMap<u32, String> {
    let Some(Ok(entries)) = proc_root.is_none().then(|| std::fs::read_dir("/run/netns")) else {
        return HashMap::new();
    };
    (entries.flatten())
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            Some((number(&entry.path())?, name))
        })
        .collect()
}

fn number(namespace: &Path) -> Option<u32> {
    u32::try_from(std::fs::metadata(namespace).ok()?.ino()).ok()
}
