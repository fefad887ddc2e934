//! The kernel skips a program on a CPU where it is running already. So most programs are attached in
//! several copies that stand in for one another: which, and what was missed all the same.
//!
//! A *twin* (see `twin.rs` of the programs) is a second copy, for what an interrupt brings in the middle
//! of the first. It has to run after that. *Stand-ins* (`standin.rs`) are many, for where programs can be preempted. Copies of
//! large programs share a *body* (`body.rs`).

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, Pod};
use portwatch_common::Crowd;

const TWIN: &str = "_twin";
const STANDIN: &str = "_standin";
const BODY: &str = "_body";

/// The program of the plan that this one is a copy of, or itself.
pub fn original(name: &str) -> &str {
    match name.rsplit_once(STANDIN) {
        Some((original, _)) => original,
        None => (name.strip_suffix(TWIN).or(name.strip_suffix(BODY))).unwrap_or(name),
    }
}

fn is_standin(name: &str) -> bool {
    name.contains(STANDIN)
}

pub fn is_twin(name: &str) -> bool {
    name.ends_with(TWIN)
}

/// Whether a program is one of several copies of it.
pub fn is_copy(ebpf: &Ebpf, name: &str) -> bool {
    let others = [TWIN.to_owned(), format!("{STANDIN}1")];
    let exists = |ending| (ebpf.program(&format!("{}{ending}", original(name)))).is_some();
    !name.ends_with(BODY) && others.into_iter().any(exists)
}

/// Whether this program is loaded; `preemption`: see [`portwatch_common::Config::standins`].
pub fn is_used(ebpf: &Ebpf, name: &str, preemption: u32) -> bool {
    let from = match ebpf.program(&format!("{}{STANDIN}1", original(name))) {
        Some(Program::TracePoint(_)) => 2,
        Some(_) => 1,
        None => u32::MAX,
    };
    name.ends_with(BODY) || (preemption >= from) == is_standin(name)
}

/// The programs to attach for one of the plan, in this order.
pub fn of(ebpf: &Ebpf, program: &str, preemption: u32) -> Vec<String> {
    let mut names: Vec<String> = (ebpf.programs())
        .filter(|(name, _)| original(name) == program && !name.ends_with(BODY))
        .filter(|(name, _)| is_used(ebpf, name, preemption))
        .map(|(name, _)| name.to_string())
        .collect();
    names.sort();
    names
}

/// Loads the body of a program, where it has one, and puts it where the program finds it.
///
/// # Errors
/// What the kernel says against it.
pub fn place_body(
    ebpf: &mut Ebpf,
    name: &str,
    load: impl FnOnce(&mut Program) -> Result<(), ProgramError>,
) -> Result<()> {
    let Some(body) = ebpf.program_mut(&format!("{name}{BODY}")) else {
        return Ok(());
    };
    load(body)?;
    let fd = body.fd()?.try_clone()?;
    let map = name.to_uppercase();
    let map = ebpf
        .map_mut(&map)
        .with_context(|| format!("no map {map}"))?;
    ProgramArray::try_from(map)?.set(0, &fd, 0)?;
    Ok(())
}

/// Which events no copy of a program was told of.
pub struct Skips {
    crowds: PerCpuArray<MapData, Plain<Crowd>>,
    /// How it was when all were attached; before, one of a pair was there without the other.
    skipped: u64,
    left: u64,
}

impl Skips {
    /// To be made when everything is attached; `left`: see [`portwatch_common::Loss::left`].
    ///
    /// # Errors
    /// When the object has no such map.
    pub fn new(ebpf: &mut Ebpf, left: u64) -> Result<Self> {
        let crowds = ebpf.take_map("CROWDS").context("no map CROWDS")?;
        Ok(Self {
            crowds: crowds.try_into().context("reading the map CROWDS")?,
            skipped: skipped(ebpf),
            left,
        })
    }

    /// How often programs were skipped up to now, of which their twins may still have to hear. To be
    /// asked before the twins are detached.
    pub fn so_far(&self, ebpf: &Ebpf) -> u64 {
        skipped(ebpf) - self.skipped
    }

    /// Events that no copy of a program was told of, at most; `skipped`: by [`Self::so_far`]. To be
    /// asked when nothing is attached any more.
    ///
    /// # Errors
    /// When the kernel does not let the map be read.
    pub fn missed(&self, ebpf: &Ebpf, skipped: u64, left: u64) -> Result<u64> {
        // What was skipped and not left to a twin was missed.
        let alone = skipped.saturating_sub(left - self.left);
        // All stand-ins have to be skipped for an event to be missed, which takes a task in each.
        let of_standins = if self.were_full()? {
            skipped_by_standins(ebpf)
        } else {
            0
        };
        Ok(alone + of_standins)
    }

    fn were_full(&self) -> Result<bool> {
        for program in 0..self.crowds.len() {
            let crowds = self
                .crowds
                .get(&program, 0)
                .context("reading the map CROWDS")?;
            if crowds.iter().any(|Plain(crowd)| crowd.full != 0) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// How often programs were skipped that have no stand-ins. What their twins missed was seen before.
fn skipped(ebpf: &Ebpf) -> u64 {
    (ebpf.programs())
        .filter(|(name, _)| !is_twin(name) && !is_standin(name))
        .filter_map(|(_, program)| skipped_runs(program))
        .sum()
}

fn skipped_by_standins(ebpf: &Ebpf) -> u64 {
    let mut least: HashMap<&str, u64> = HashMap::new();
    for (name, program) in ebpf.programs().filter(|(name, _)| is_standin(name)) {
        if let Some(skipped) = skipped_runs(program) {
            let least = least.entry(original(name)).or_insert(skipped);
            *least = skipped.min(*least);
        }
    }
    least.values().sum()
}

/// Lets a plain structure be read from a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);
// SAFETY: integers without padding; the size is asserted in portwatch-common.
unsafe impl Pod for Plain<Crowd> {}

/// How often the kernel skipped a program, as it tells since 5.12. One that is not loaded was not.
fn skipped_runs(program: &Program) -> Option<u64> {
    let fd = program.fd().ok()?.as_fd().as_raw_fd();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
    let count = text
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_by_their_names() {
        assert_eq!(original("sys_exit"), "sys_exit");
        assert_eq!(original("sys_exit_standin3"), "sys_exit");
        assert_eq!(original("sys_exit_body"), "sys_exit");
        assert_eq!(original("tcp_send_reset_twin"), "tcp_send_reset");
    }
}
