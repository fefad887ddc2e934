//! What is known of the running kernel before anything is loaded: from its BTF, never from its version.

use anyhow::{Context as _, Result, bail};
use aya::{Btf as AyaBtf, EbpfLoader, Endianness};
use portwatch_common::{Config, MISSING, Offsets};

use super::Tier;
use super::btf::{Btf, KERNEL, Kind, Passed};
use super::load::Settings;
use super::plan::{Hook, PLAN};
use crate::threads::both;

/// See [`Kernel::order`].
const TASKS_RCU_EXIT: &str = "tasks_rcu_exit_srcu_srcu_data";
/// Came with the preemption of programs of tracepoints (7.0), and of those that perf runs (7.2).
const PREEMPTION: (&str, &str) = ("tp_transition_snapshot", "srcu_gp");
const PERF_PREEMPTION: &str = "trace_call_bpf_faultable";

/// What its types say.
pub struct Kernel<'a> {
    btf: Btf<'a>,
    /// As aya wants it, which finds functions to attach to.
    pub aya: AyaBtf,
    /// In the order of [`Offsets::MEMBERS`].
    pub offsets: Vec<u32>,
    /// Members that this kernel does not have, as `structure.member`.
    pub missing: Vec<String>,
}

impl<'a> Kernel<'a> {
    /// Also returns a loader that has read the types for itself, which takes as long again.
    ///
    /// # Errors
    /// When the types cannot be read, or lack what nothing works without.
    pub fn read(data: &'a [u8]) -> Result<(Self, EbpfLoader<'static>)> {
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
        let ours = || Btf::parse(data, &wanted).with_context(|| format!("reading {KERNEL}"));
        let ayas = || AyaBtf::parse(data, Endianness::default());
        let (loader, (aya, btf)) = both(EbpfLoader::new, || both(ayas, ours));
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
    pub fn order(&self) -> Vec<Tier> {
        if self.btf.has(Kind::Var, TASKS_RCU_EXIT) {
            vec![Tier::Kprobe, Tier::Trampoline, Tier::Tracepoint]
        } else {
            Tier::ALL.to_vec()
        }
    }

    /// Whether it has a function of this name.
    pub fn has(&self, function: &str) -> bool {
        self.btf.has(Kind::Func, function)
    }

    /// What the programs are told.
    pub fn config(&self, settings: &Settings) -> Config {
        Config {
            cookie_helper: self.has("bpf_get_socket_ptr_cookie").into(),
            task_btf_helper: self.has("bpf_get_current_task_btf").into(),
            task_pt_regs_helper: self.has("bpf_task_pt_regs").into(),
            kinds: settings.kinds,
            reset_reason: self
                .btf
                .tracepoint_arg("tcp_send_reset", 2)
                .is_some()
                .into(),
            uring_cqe: (self.btf.tracepoint_arg("io_uring_complete", 2) == Some(Passed::Pointer))
                .into(),
            standins: self.preemption(),
        }
    }

    /// The kernel's reasons for a reset, as it numbers them.
    pub fn reset_reasons(&self) -> Vec<(u32, &'static str)> {
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

    /// Which programs can be preempted, which makes the kernel skip them for everybody else: see
    /// [`Config::standins`].
    pub fn preemption(&self) -> u32 {
        let tracing = self.btf.offset(PREEMPTION.0, PREEMPTION.1).is_some();
        if self.has(PERF_PREEMPTION) {
            2
        } else {
            tracing.into()
        }
    }

    /// Whether this kernel has what a hook needs, as far as its BTF tells.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self, hook: Hook) -> Result<()> {
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
