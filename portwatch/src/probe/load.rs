//! Carries out the plan: loads and attaches what this kernel takes, and reports what it refused.

use std::collections::HashMap;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::Array;
use aya::util::nr_cpus;
use aya::{Ebpf, EbpfLoader, Pod};
use aya_log::Level;
use portwatch_common::{Config, PASSING_EVENTS};

use super::btf::{self, KERNEL};
use super::kernel::Kernel;
use super::links::{Attached, Links};
use super::plan::{Hook, PLAN, Probe, Thing};
use super::program::{self, words};
use super::report::{Denial, Refusal, Report, Row, Unserved};
use super::{Tier, copies, permission};
use crate::threads;

/// The programs, built from `portwatch-ebpf` by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/portwatch.o");

/// What is asked of the programs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// `None`: the first tier that works.
    pub tier: Option<Tier>,
    pub ring_bytes: u32,
    /// Bit `1 << kind` for every wanted kind of record.
    pub kinds: u32,
    /// Whether the programs note what they do about what is rare.
    pub notes: bool,
    /// Whether a tier that cannot serve is tried to its end, so that the report tells all refusals.
    pub thorough: bool,
}

/// Attached probes. Dropping the links detaches.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub links: Links,
    pub report: Report,
    /// Why a reset was sent, by the kernel's numbers.
    pub reset_reasons: Vec<(u32, &'static str)>,
}

/// Loads and attaches the best tier this kernel takes, or the one asked for.
///
/// # Errors
/// When none can serve. The message names the cause and the remedy.
pub fn load(settings: &Settings) -> Result<Loaded> {
    permission::check()?;
    let data = btf::kernel().with_context(|| {
        format!(
            "this kernel does not describe its types: {KERNEL} cannot be read. \
             portwatch needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of all current \
             distributions are (and /sys mounted)"
        )
    })?;
    let (kernel, loader) = Kernel::read(&data)?;
    let mut loading = Loading {
        ebpf: programs(&kernel, loader, settings)?,
        kernel: &kernel,
        thorough: settings.thorough,
        refused: Vec::new(),
    };
    let tiers = settings
        .tier
        .map_or_else(|| kernel.order(), |tier| vec![tier]);
    for tier in tiers {
        if let Some((report, links)) = loading.attach(tier) {
            return Ok(Loaded {
                ebpf: loading.ebpf,
                links,
                report,
                reset_reasons: kernel.reset_reasons(),
            });
        }
    }
    let verdict = match settings.tier {
        Some(tier) => format!("the {tier} tier cannot serve on this kernel"),
        None => "no tier of probes can serve on this kernel".into(),
    };
    let rows = PLAN.iter().map(|thing| loading.row(thing, None)).collect();
    bail!(Unserved { verdict, rows })
}

/// Each thing to observe, of which nothing has been tried.
pub fn untried() -> Vec<Row> {
    PLAN.iter()
        .map(|thing| row(thing, None, Vec::new()))
        .collect()
}

fn row(thing: &Thing, chosen: Option<String>, refused: Vec<Refusal>) -> Row {
    Row {
        observe: thing.observe,
        required: thing.required,
        chosen,
        refused,
        loses: thing.loses,
    }
}

/// Lets a plain structure be handed to the loader as bytes.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);
// SAFETY: integers without padding, as their assertions in portwatch-common say.
unsafe impl Pod for Plain<Config> {}

/// The programs with this kernel's constants, none of them loaded yet, and their maps.
fn programs(kernel: &Kernel<'_>, loader: EbpfLoader<'static>, settings: &Settings) -> Result<Ebpf> {
    let config = Plain(kernel.config(settings));
    let cpus = nr_cpus()
        .map_err(|(_, error)| error)
        .context("counting CPUs")?;
    let cpus = u32::try_from(cpus)?;
    // Where nothing is to pass, the least that the kernel has no trouble with.
    let passing = match kernel.preemption() {
        0 => 128,
        _ => PASSING_EVENTS,
    };
    let level = match settings.notes {
        true => Level::Debug as u8,
        false => 0,
    };
    let mut loader: EbpfLoader<'_> = loader;
    loader
        .btf(Some(&kernel.aya))
        .override_global("OFFSETS", kernel.offsets.as_slice(), true)
        .override_global("CONFIG", &config, true)
        .override_global(aya_log::LEVEL, &level, true)
        .map_max_entries("EVENTS", settings.ring_bytes)
        .map_max_entries("LOSS", cpus)
        .map_max_entries("PASSING", passing)
        .load(OBJECT)
        .context("creating the maps of the eBPF programs")
}

/// The plan as it is carried out.
struct Loading<'a> {
    kernel: &'a Kernel<'a>,
    ebpf: Ebpf,
    thorough: bool,
    /// Of what is observed, in the order in which it was tried.
    refused: Vec<(&'static str, Refusal)>,
}

impl Loading<'_> {
    /// Attaches a tier; `None` when something required was refused.
    fn attach(&mut self, tier: Tier) -> Option<(Report, Links)> {
        if tier == Tier::Tracepoint && !cfg!(target_arch = "x86_64") {
            let error = anyhow!("reads registers of x86-64 only");
            self.refuse("bind", tier, "tp_btf sys_exit", &error);
            return None;
        }
        let mut links = Links::default();
        let mut rows = Vec::new();
        let mut serves = true;
        // No kernel refuses these as a kind.
        if tier == Tier::Tracepoint {
            self.load_side_by_side(tier);
        }
        for (number, thing) in PLAN.iter().enumerate() {
            if number + 1 == PLAN.len() {
                if !serves {
                    return None;
                }
                if let Err(error) = self.begin() {
                    self.refuse(thing.observe, tier, "map WATCHING", &error);
                    return None;
                }
            }
            let chosen = self.serve(thing, tier, &mut links);
            if chosen.is_none() && thing.required {
                serves = false;
                if !self.thorough {
                    return None;
                }
            }
            // The kernel takes this kind of probe: it will take most of the others.
            if number == 0 && serves && tier != Tier::Tracepoint {
                self.load_side_by_side(tier);
            }
            rows.push(self.row(thing, chosen));
        }
        let report = Report {
            tier,
            rows,
            missing_members: self.kernel.missing.clone(),
        };
        Some((report, links))
    }

    /// With all that was refused of it so far.
    fn row(&self, thing: &Thing, chosen: Option<String>) -> Row {
        let refused = self.refused.iter().filter(|(of, _)| *of == thing.observe);
        row(
            thing,
            chosen,
            refused.map(|(_, refusal)| refusal.clone()).collect(),
        )
    }

    /// Keeps for the report that the kernel does not take this.
    fn refuse(
        &mut self,
        observe: &'static str,
        tier: Tier,
        alternative: impl Into<String>,
        error: &anyhow::Error,
    ) {
        let refusal = Refusal {
            tier,
            alternative: alternative.into(),
            error: words(error),
            denial: Denial::of(error),
        };
        self.refused.push((observe, refusal));
    }

    /// All is attached but the walk over what is open already: from here on sockets are remembered.
    fn begin(&mut self) -> Result<()> {
        let map = self.ebpf.map_mut("WATCHING").context("no map WATCHING")?;
        Array::<_, u32>::try_from(map)?.set(0, 1, 0)?;
        Ok(())
    }

    /// Attaches the first alternative of a thing that this tier has and the kernel takes.
    fn serve(&mut self, thing: &'static Thing, tier: Tier, links: &mut Links) -> Option<String> {
        for alternative in thing.alternatives.iter().filter(|a| a.serves(tier)) {
            let kernel = self.kernel;
            let probes: Vec<&Probe> = (alternative.probes.iter())
                .filter(|p| !p.if_present || p.hook.function().is_none_or(|f| kernel.has(f)))
                .collect();
            let fails = probes.iter().find_map(|probe| {
                if links.holds(probe) {
                    return None;
                }
                match self.attach_probe(probe) {
                    Ok(all) => {
                        links.extend(all);
                        None
                    }
                    Err(error) => Some((probe.hook.to_string(), error)),
                }
            });
            match fails {
                None => {
                    let hooks: Vec<String> = probes.iter().map(|p| p.hook.to_string()).collect();
                    return Some(hooks.join(", "));
                }
                Some((hook, error)) => self.refuse(thing.observe, tier, hook, &error),
            }
        }
        None
    }

    /// Loads what the plan asks of this tier first, on all CPUs: the verifier's work is most of the
    /// start. What is refused here is tried again, and told, when its turn comes.
    fn load_side_by_side(&mut self, tier: Tier) {
        let first = |thing: &'static Thing| (thing.alternatives.iter()).find(|a| a.serves(tier));
        let hooks: HashMap<&str, Hook> = (PLAN.iter().filter_map(first))
            .flat_map(|alternative| alternative.probes)
            .map(|probe| (probe.program, probe.hook))
            .collect();
        // Whether it is one of several copies, which are small.
        let used: HashMap<String, bool> = (self.ebpf.programs())
            .filter(|(name, _)| copies::is_used(&self.ebpf, name, self.kernel.preemption()))
            .map(|(name, _)| (name.to_string(), copies::is_copy(&self.ebpf, name)))
            .collect();
        let programs = self.ebpf.programs_mut();
        let mut programs: Vec<_> = programs
            .filter_map(|(name, program)| {
                let hook = *hooks.get(copies::original(name))?;
                Some((*used.get(name)?, program, hook))
            })
            .collect();
        // None of the large ones is left for the end, when other CPUs have no more to do.
        programs.sort_by_key(|&(is_copy, ..)| is_copy);
        let queue = Mutex::new(programs.into_iter());
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        threads::all(available.min(4), || {
            loop {
                let next = queue.lock().expect("held by nobody who panics").next();
                let Some((_, program, hook)) = next else {
                    break;
                };
                let _ = program::load(program, hook, &self.kernel.aya);
            }
        });
    }

    /// Attaches the programs of a probe.
    fn attach_probe(&mut self, probe: &Probe) -> Result<Vec<Attached>> {
        let aya = &self.kernel.aya;
        self.kernel.check(probe.hook)?;
        if probe.program.is_empty() {
            return Ok(Vec::new());
        }
        copies::place_body(&mut self.ebpf, probe.program, |body| {
            program::load(body, probe.hook, aya)
        })?;
        let mut names = copies::of(&self.ebpf, probe.program, self.kernel.preemption());
        if names.is_empty() {
            bail!("no program {}", probe.program);
        }
        // Here the one attached last runs first.
        if matches!(probe.hook, Hook::Fentry(_) | Hook::Fexit(_)) {
            names.reverse();
        }
        let mut links = Vec::new();
        for name in names {
            let program = (self.ebpf)
                .program_mut(&name)
                .ok_or_else(|| anyhow!("no program {name}"))?;
            links.push(Attached {
                probe: *probe,
                is_twin: copies::is_twin(&name),
                link: program::attach(program, probe.hook, aya)?,
            });
        }
        Ok(links)
    }
}
