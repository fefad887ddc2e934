//! What went wrong in the kernel, as the programs count it.

use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result, bail};
use aya::maps::Map;
use memmap2::{MmapOptions, MmapRaw};
use portwatch_common::Loss;

/// The map `LOSS`, mapped into memory: reading it asks nothing of the kernel, which would skip
/// programs meanwhile.
pub struct Losses {
    memory: MmapRaw,
    cpus: usize,
}

impl Losses {
    /// # Errors
    /// When the kernel does not map it.
    pub fn new(map: Map) -> Result<Self> {
        let Map::Array(map) = map else {
            bail!("the map LOSS is no array");
        };
        let cpus = map.info()?.max_entries() as usize;
        let memory = MmapOptions::new()
            .len(cpus * size_of::<Loss>())
            .map_raw_read_only(map.fd().as_fd().as_raw_fd())
            .context("mapping the map LOSS")?;
        Ok(Self { memory, cpus })
    }

    /// The accounts of all CPUs, added up.
    pub fn read(&self) -> Loss {
        let mut sum = Loss::default();
        for cpu in 0..self.cpus {
            // SAFETY: within the mapping; the programs write whole integers at any time.
            let loss = unsafe { self.memory.as_ptr().cast::<Loss>().add(cpu).read_volatile() };
            for (sum, one) in sum.full.iter_mut().zip(loss.full) {
                *sum += one;
            }
            sum.sockets += loss.sockets;
            sum.entered += loss.entered;
            sum.returned += loss.returned;
            sum.left += loss.left;
        }
        sum
    }
}
