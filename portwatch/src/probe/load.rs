//! Carries out the plan: loads and attaches what this kernel takes, and reports what it refused.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use aya::maps::Array;
use aya::util::nr_cpus;
use aya::{Btf as AyaBtf, Ebpf, EbpfLoader, Endianness, Pod};
use aya_log::Level;
use portwatch_common::{Config, MISSING, Offsets, PASSING_EVENTS};

use super::btf::{self, Btf, KERNEL, Kind, Passed};
use super::plan::{Hook, PLAN, Probe, Thing};
use super::program::{self, Link, words};
use super::report::{Refusal, Report, Row};
use super::{Tier, copies, permission};

/// The programs, built from `portwatch-ebpf` by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../bpf/portwatch.o");
/// See [`Kernel::order`].
const TASKS_RCU_EXIT: &str = "tasks_rcu_exit_srcu_srcu_data";
/// Came with the preemption of programs of tracepoints (7.0), and of those that perf runs (7.2).
const PREEMPTION: (&str, &str) = ("tp_transition_snapshot", "srcu_gp");
const PERF_PREEMPTION: &str = "trace_call_bpf_faultable";

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
}

/// Attached probes. Dropping the links detaches.
pub struct Loaded {
    pub ebpf: Ebpf,
    pub links: Links,
    pub report: Report,
    /// Why a reset was sent, by the kernel's numbers.
    pub reset_reasons: Vec<(u32, &'static str)>,
}

/// What holds each program in its place.
#[derive(Default)]
pub struct Links(Vec<Attached>);

struct Attached {
    probe: Probe,
    is_twin: bool,
    link: Link,
}

impl Links {
    /// Detaches everything. Twins go first, which would take what their program has not seen for
    /// what it was skipped for, and entries: a call whose entry was seen can then still show
    /// its return. Each detachment waits for all CPUs, so they wait together.
    pub fn detach(self) {
        let (first, rest): (Vec<_>, Vec<_>) = (self.0.into_iter())
            .partition(|it| it.is_twin || matches!(it.probe.hook, Hook::Kprobe(_)));
        for links in [first, rest] {
            std::thread::scope(|scope| {
                for link in links {
                    scope.spawn(move || drop(link.link));
                }
            });
        }
    }

    fn holds(&self, probe: &Probe) -> bool {
        self.0.iter().any(|held| held.probe == *probe)
    }
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
    let mut ebpf = kernel.programs(loader, settings)?;
    let tiers = settings
        .tier
        .map_or_else(|| kernel.order(), |tier| vec![tier]);
    let mut refused = Vec::new();
    for tier in tiers {
        if let Some((report, links)) = kernel.attach(tier, &mut ebpf, &mut refused) {
            return Ok(Loaded {
                ebpf,
                links,
                report,
                reset_reasons: kernel.reset_reasons(),
            });
        }
    }
    let reasons: Vec<String> = refused
        .iter()
        .map(|(_, r): &(&str, Refusal)| format!("  {} ({}): {}", r.tier, r.alternative, r.error))
        .collect();
    let which = settings.tier.map_or("no tier of probes".into(), |tier| {
        format!("the {tier} tier")
    });
    bail!(
        "{} can serve on this kernel:\n{}\nTry another tier (--probes), a newer kernel, or check \
         lockdown and the container's privileges (portwatch doctor)",
        if settings.tier.is_some() {
            format!("{which} is not what")
        } else {
            which
        },
        reasons.join("\n")
    )
}

/// What is known of the running kernel.
struct Kernel<'a> {
    btf: Btf<'a>,
    aya: AyaBtf,
    offsets: Vec<u32>,
    missing: Vec<String>,
}

/// Lets a plain structure be handed to the loader as bytes.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct Plain<T>(T);
// SAFETY: integers without padding, as their assertions in portwatch-common say.
unsafe impl Pod for Plain<Config> {}

impl<'a> Kernel<'a> {
    fn read(data: &'a [u8]) -> Result<(Self, EbpfLoader<'static>)> {
        let mut wanted: Vec<(Kind, String)> = vec![
            (Kind::Func, "bpf_get_socket_ptr_cookie".into()),
            (Kind::Func, "bpf_get_current_task_btf".into()),
            (Kind::Typedef, "btf_trace_tcp_send_reset".into()),
            (Kind::Typedef, "btf_trace_io_uring_complete".into()),
            (Kind::Typedef, "btf_trace_tcp_retransmit_skb".into()),
            (Kind::Func, "bpf_task_pt_regs".into()),
            (Kind::Enum, "sk_rst_reason".into()),
            (Kind::Var, TASKS_RCU_EXIT.into()),
            (Kind::Struct, PREEMPTION.0.into()),
            (Kind::Func, PERF_PREEMPTION.into()),
        ];
        wanted.extend(
            Offsets::MEMBERS
                .iter()
                .map(|(s, _)| (Kind::Struct, s.to_string())),
        );
        let functions = PLAN
            .iter()
            .flat_map(|t| t.alternatives)
            .flat_map(|a| a.probes);
        wanted.extend(functions.filter_map(|p| Some((Kind::Func, p.hook.function()?.into()))));
        let wanted: Vec<(Kind, &str)> = wanted.iter().map(|(k, n)| (*k, n.as_str())).collect();
        // Readers of the same bytes: ours tells offsets, aya's the numbers of functions, and its loader
        // begins with reading them for itself.
        let (btf, aya, loader) = std::thread::scope(|scope| {
            let loader = scope.spawn(EbpfLoader::new);
            let aya = scope.spawn(|| AyaBtf::parse(data, Endianness::default()));
            let btf = Btf::parse(data, &wanted).with_context(|| format!("reading {KERNEL}"));
            let loader = loader.join().expect("it does not panic");
            (btf, aya.join().expect("it returns errors"), loader)
        });
        let (btf, aya) = (btf?, aya.context("reading the kernel's BTF")?);

        let find = |&(s, m): &(&str, &str)| btf.offset(s, m).unwrap_or(MISSING);
        let offsets: Vec<u32> = Offsets::MEMBERS.iter().map(find).collect();
        let missing: Vec<String> = (Offsets::MEMBERS.iter().zip(&offsets))
            .filter(|&(_, &offset)| offset == MISSING)
            .map(|((structure, member), _)| format!("{structure}.{member}"))
            .collect();
        let needed = |m: &&String| {
            matches!(
                m.split('.').next(),
                Some("sock_common" | "sock" | "net" | "task_struct")
            ) && !m.contains("skc_v6")
                && !m.contains("thread_info")
        };
        let offset = |structure, member| btf.offset(structure, member);
        if offset("socket", "sk") != offset("socket", "file").map(|file| file + 8) {
            bail!("this kernel's struct socket does not have its members file and sk in a row");
        }
        if let Some(member) = missing.iter().find(needed) {
            bail!("this kernel has no {member}, without which no socket can be told from another");
        }
        let kernel = Self {
            btf,
            aya,
            offsets,
            missing,
        };
        Ok((kernel, loader))
    }

    /// The order in which tiers are tried. In kernels whose RCU tasks wait for exiting tasks
    /// through this variable, detaching a trampoline can deadlock with the end of a process id
    /// namespace: there kprobes come first.
    fn order(&self) -> Vec<Tier> {
        if self.btf.has(Kind::Var, TASKS_RCU_EXIT) {
            vec![Tier::Kprobe, Tier::Trampoline, Tier::Tracepoint]
        } else {
            Tier::ALL.to_vec()
        }
    }

    fn has(&self, function: &str) -> bool {
        self.btf.has(Kind::Func, function)
    }

    /// The programs with this kernel's constants, none of them loaded yet, and their maps.
    fn programs(&self, loader: EbpfLoader<'static>, settings: &Settings) -> Result<Ebpf> {
        let cookie_helper = self.has("bpf_get_socket_ptr_cookie");
        let config = Plain(Config {
            cookie_helper: cookie_helper.into(),
            task_btf_helper: self.has("bpf_get_current_task_btf").into(),
            task_pt_regs_helper: self.has("bpf_task_pt_regs").into(),
            kinds: settings.kinds,
            wakeup_bytes: settings.ring_bytes / 2,
            reset_reason: self
                .btf
                .tracepoint_arg("tcp_send_reset", 2)
                .is_some()
                .into(),
            uring_cqe: (self.btf.tracepoint_arg("io_uring_complete", 2) == Some(Passed::Pointer))
                .into(),
            standins: self.preemption(),
        });
        let cpus = nr_cpus()
            .map_err(|(_, error)| error)
            .context("counting CPUs")?;
        let cpus = u32::try_from(cpus)?;
        // Where nothing is to pass, the least that the kernel has no trouble with.
        let passing = if self.preemption() > 0 {
            PASSING_EVENTS
        } else {
            128
        };
        let level = if settings.notes {
            Level::Debug as u8
        } else {
            0
        };
        let mut loader: EbpfLoader<'_> = loader;
        loader
            .btf(Some(&self.aya))
            .override_global("OFFSETS", self.offsets.as_slice(), true)
            .override_global("CONFIG", &config, true)
            .override_global(aya_log::LEVEL, &level, true)
            .map_max_entries("EVENTS", settings.ring_bytes)
            .map_max_entries("LOSS", cpus)
            .map_max_entries("PASSING", passing)
            .load(OBJECT)
            .context("creating the maps of the eBPF programs")
    }

    /// Attaches a tier; `None` when something required was refused. Refusals are kept for the report.
    fn attach(
        &self,
        tier: Tier,
        ebpf: &mut Ebpf,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> Option<(Report, Links)> {
        if tier == Tier::Tracepoint && !cfg!(target_arch = "x86_64") {
            let error = "reads registers of x86-64 only".to_string();
            refused.push((
                "bind",
                Refusal {
                    tier,
                    alternative: "tp_btf sys_exit".into(),
                    error,
                },
            ));
            return None;
        }
        let mut links = Links::default();
        let mut rows = Vec::new();
        // No kernel refuses these as a kind.
        if tier == Tier::Tracepoint {
            self.load_side_by_side(tier, ebpf);
        }
        for (number, thing) in PLAN.iter().enumerate() {
            if number + 1 == PLAN.len()
                && let Err(error) = begin(ebpf)
            {
                let error = words(&error);
                let alternative = "map WATCHING".into();
                refused.push((
                    thing.observe,
                    Refusal {
                        tier,
                        alternative,
                        error,
                    },
                ));
                return None;
            }
            let chosen = self.serve(thing, tier, ebpf, &mut links, refused);
            if chosen.is_none() && thing.required {
                return None;
            }
            // The kernel takes this kind of probe: it will take most of the others.
            if number == 0 && tier != Tier::Tracepoint {
                self.load_side_by_side(tier, ebpf);
            }
            let refused = refused.iter().filter(|(of, _)| *of == thing.observe);
            rows.push(Row {
                observe: thing.observe,
                required: thing.required,
                chosen,
                refused: refused.map(|(_, refusal)| refusal.clone()).collect(),
                loses: thing.loses,
            });
        }
        Some((
            Report {
                tier,
                rows,
                missing_members: self.missing.clone(),
            },
            links,
        ))
    }

    /// The kernel's reasons for a reset, as it numbers them.
    fn reset_reasons(&self) -> Vec<(u32, &'static str)> {
        let reasons = self
            .btf
            .enumerators("sk_rst_reason")
            .into_iter()
            .map(|(number, name)| {
                let name = name
                    .trim_start_matches("SK_RST_REASON_")
                    .to_ascii_lowercase();
                // A few dozen short names, once per run.
                (number, &*Box::leak(name.into_boxed_str()))
            });
        reasons.collect()
    }

    /// Attaches the first alternative of a thing that this tier has and the kernel takes.
    fn serve(
        &self,
        thing: &'static Thing,
        tier: Tier,
        ebpf: &mut Ebpf,
        links: &mut Links,
        refused: &mut Vec<(&'static str, Refusal)>,
    ) -> Option<String> {
        for alternative in thing.alternatives.iter().filter(|a| a.serves(tier)) {
            let probes: Vec<&Probe> = (alternative.probes.iter())
                .filter(|p| !p.if_present || p.hook.function().is_none_or(|f| self.has(f)))
                .collect();
            let fails = probes.iter().find_map(|probe| {
                if links.holds(probe) {
                    return None;
                }
                match self.attach_probe(ebpf, probe) {
                    Ok(all) => {
                        links.0.extend(all);
                        None
                    }
                    Err(error) => Some((probe.hook.to_string(), words(&error))),
                }
            });
            match fails {
                None => {
                    let hooks: Vec<String> = probes.iter().map(|p| p.hook.to_string()).collect();
                    return Some(hooks.join(", "));
                }
                Some((alternative, error)) => {
                    refused.push((
                        thing.observe,
                        Refusal {
                            tier,
                            alternative,
                            error,
                        },
                    ));
                }
            }
        }
        None
    }

    /// Loads what the plan asks of this tier first, on all CPUs: the verifier's work is most of the
    /// start. What is refused here is tried again, and told, when its turn comes.
    fn load_side_by_side(&self, tier: Tier, ebpf: &mut Ebpf) {
        let first = |thing: &'static Thing| (thing.alternatives.iter()).find(|a| a.serves(tier));
        let hooks: HashMap<&str, Hook> = (PLAN.iter().filter_map(first))
            .flat_map(|alternative| alternative.probes)
            .map(|probe| (probe.program, probe.hook))
            .collect();
        let used: HashSet<String> = (ebpf.programs())
            .filter(|(name, _)| copies::is_used(ebpf, name, self.preemption()))
            .map(|(name, _)| name.to_string())
            .collect();
        let wanted = |name: &str| {
            let hook = hooks.get(copies::original(name)).copied();
            hook.filter(|_| used.contains(name))
        };
        let programs = ebpf.programs_mut();
        let programs = programs.filter_map(|(name, program)| Some((program, wanted(name)?)));
        let queue = Mutex::new(programs);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(4) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().expect("held by nobody who panics").next();
                        let Some((program, hook)) = next else { break };
                        let _ = program::load(program, hook, &self.aya);
                    }
                });
            }
        });
    }

    /// Attaches the programs of a probe.
    fn attach_probe(&self, ebpf: &mut Ebpf, probe: &Probe) -> Result<Vec<Attached>> {
        self.check(probe.hook)?;
        if probe.program.is_empty() {
            return Ok(Vec::new());
        }
        copies::place_body(ebpf, probe.program, |body| {
            program::load(body, probe.hook, &self.aya)
        })?;
        let mut names = copies::of(ebpf, probe.program, self.preemption());
        if names.is_empty() {
            bail!("no program {}", probe.program);
        }
        // Here the one attached last runs first.
        if matches!(probe.hook, Hook::Fentry(_) | Hook::Fexit(_)) {
            names.reverse();
        }
        let mut links = Vec::new();
        for name in names {
            let program = ebpf
                .program_mut(&name)
                .ok_or_else(|| anyhow!("no program {name}"))?;
            links.push(Attached {
                probe: *probe,
                is_twin: copies::is_twin(&name),
                link: program::attach(program, probe.hook, &self.aya)?,
            });
        }
        Ok(links)
    }

    /// Which programs can be preempted, which makes the kernel skip them for everybody else: see
    /// [`Config::standins`].
    fn preemption(&self) -> u32 {
        let tracing = self.btf.offset(PREEMPTION.0, PREEMPTION.1).is_some();
        if self.has(PERF_PREEMPTION) {
            2
        } else {
            tracing.into()
        }
    }

    /// Whether this kernel has what a hook needs, as far as its BTF tells.
    fn check(&self, hook: Hook) -> Result<()> {
        if let Some(function) = hook.function()
            && !self.has(function)
        {
            bail!("this kernel has no function {function}");
        }
        match hook {
            Hook::CookieHelper if !self.has("bpf_get_socket_ptr_cookie") => {
                bail!("this kernel offers it to no tracing program")
            }
            Hook::RetransmitWithError
                if self.btf.tracepoint_arg("tcp_retransmit_skb", 2).is_none() =>
            {
                bail!("this kernel's tracepoint tells of successful retransmissions only")
            }
            Hook::TpBtf("io_uring_complete")
                if self.btf.tracepoint_arg("io_uring_complete", 1) != Some(Passed::Pointer) =>
            {
                bail!("this kernel's tracepoint does not tell the request")
            }
            _ => Ok(()),
        }
    }
}

/// All is attached but the walk over what is open already: from here on sockets are remembered.
fn begin(ebpf: &mut Ebpf) -> Result<()> {
    let map = ebpf.map_mut("WATCHING").context("no map WATCHING")?;
    Array::<_, u32>::try_from(map)?.set(0, 1, 0)?;
    Ok(())
}
