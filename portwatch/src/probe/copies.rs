//! The kernel skips a program on a CPU where it is running already. So most programs are attached in
//! several copies that stand in for one another: which, and what was missed all the same.
//!
//! A *twin* (see `twin.rs` of the programs) is a second copy, for what an interrupt brings in the middle
//! of the first. *Stand-ins* (`standin.rs`) are many, for where programs can be preempted. Copies of
//! large programs share a *body* (`body.rs`).

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, PerCpuArray, ProgramArray};
use aya::programs::{Program, ProgramError};
use aya::{Ebpf, Pod};
use portwatch_common::{Crowd, Tokens};

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

/// Whether this program is loaded; `standins`: whether programs have stand-ins on this kernel.
pub fn is_used(ebpf: &Ebpf, name: &str, standins: bool) -> bool {
    let standins = standins && has_standins(ebpf, original(name));
    name.ends_with(BODY) || standins == is_standin(name)
}

/// The programs to attach for one of the plan, in this order.
pub fn of(ebpf: &Ebpf, program: &str, standins: bool) -> Vec<String> {
    let mut names: Vec<String> = (ebpf.programs())
        .filter(|(name, _)| original(name) == program && !name.ends_with(BODY))
        .filter(|(name, _)| is_used(ebpf, name, standins))
        .map(|(name, _)| name.to_string())
        .collect();
    names.sort();
    names
}

fn has_standins(ebpf: &Ebpf, program: &str) -> bool {
    ebpf.program(&format!("{program}{STANDIN}1")).is_some()
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

/// Reads what the programs note about being skipped.
pub struct Skips {
    tokens: PerCpuArray<MapData, Plain<Tokens>>,
    crowds: PerCpuArray<MapData, Plain<Crowd>>,
}

impl Skips {
    /// # Errors
    /// When the object has no such maps.
    pub fn new(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        Ok(Self {
            tokens: map("TOKENS")?
                .try_into()
                .context("reading the map TOKENS")?,
            crowds: map("CROWDS")?
                .try_into()
                .context("reading the map CROWDS")?,
        })
    }

    /// Events that no copy of a program was told of, at most. To be asked when nothing is attached
    /// any more.
    ///
    /// # Errors
    /// When the kernel does not let the maps be read.
    pub fn missed(&self, ebpf: &Ebpf) -> Result<u64> {
        let (mut alone, mut of_twins) = (0, 0);
        let mut of_standins: HashMap<&str, u64> = HashMap::new();
        for (name, program) in ebpf.programs() {
            // What is not loaded was not skipped; older kernels do not count.
            let Some(skipped) = skipped_runs(program) else {
                continue;
            };
            if is_standin(name) {
                let least = of_standins.entry(original(name)).or_insert(skipped);
                *least = skipped.min(*least);
            } else if name.ends_with(TWIN) || ebpf.program(&format!("{name}{TWIN}")).is_some() {
                of_twins += skipped;
            } else {
                alone += skipped;
            }
        }
        // One of a pair of twins that was skipped leaves the other's token unmatched; what is
        // skipped beyond that was both of them, for the same event.
        let tokens = self.tokens.get(&0, 0).context("reading the map TOKENS")?;
        let unmatched: u64 = tokens.iter().map(|Plain(tokens)| tokens.unmatched()).sum();
        let of_twins = of_twins.saturating_sub(unmatched) / 2;
        // All stand-ins have to be skipped for an event to be missed, which takes a task in each.
        let of_standins = if self.were_full()? {
            of_standins.values().sum()
        } else {
            0
        };
        Ok(alone + of_twins + of_standins)
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

/// Lets a plain structure be read from a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);
// SAFETY: integers without padding; the sizes are asserted in portwatch-common.
unsafe impl Pod for Plain<Tokens> {}
unsafe impl Pod for Plain<Crowd> {}

/// How often the kernel skipped a program, as it tells since 5.12.
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
