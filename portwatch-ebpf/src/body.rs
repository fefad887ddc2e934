//! The largest programs are split: what is attached, maybe several times, only decides whether the
//! body runs, which is loaded once.

use aya_ebpf::{
    macros::{btf_tracepoint, map, tracepoint},
    maps::ProgramArray,
    programs::{BtfTracePointContext, TracePointContext},
};

use crate::{
    end::released, maps::config, process::executed, reset::reset_sent, standin, syscall::returned,
    tcp::changed,
};

/// The programs with a body that have stand-ins.
#[derive(Clone, Copy)]
pub enum Program {
    SysExit,
    State,
    Destroy,
    SendReset,
}

// Where bodies are found: the loader knows these by the name of the program.
#[map]
pub static SYS_EXIT: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static INET_SOCK_SET_STATE: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static TCP_DESTROY_SOCK: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static TCP_SEND_RESET: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
pub static SCHED_PROCESS_EXEC: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Runs the body in this map, and does not come back.
macro_rules! run {
    ($map:ident, $ctx:expr) => {
        unsafe { $map.tail_call($ctx, 0) }
    };
}
pub(crate) use run;

/// Declares a body, which the loader knows by the ending `_body`; for one that has stand-ins, also the value
/// of `standins` from which on these run it, who are told that it is done.
///
/// Kernels since 6.13 give a program that nobody can enter twice on a CPU a stack per CPU; a body may be
/// entered twice, so it must not get one. No program with a tail call does, even if the verifier
/// finds that it is never made.
macro_rules! body {
    (#[$kind:meta] $name:ident |$ctx:ident: $context:ty| -> $ret:ty { $map:ident, $body:expr $(, $program:expr, $preempted:literal)? }) => {
        #[$kind]
        pub fn $name($ctx: $context) -> $ret {
            $body;
            match config!(standins) {
                3.. => run!($map, &$ctx),
                $($preempted.. => standin::done($program),)?
                _ => {}
            }
            0
        }
    };
}

body! {
    #[tracepoint]
    sys_exit_body |ctx: TracePointContext| -> u32 { SYS_EXIT, returned(&ctx), Program::SysExit, 2 }
}

body! {
    #[btf_tracepoint(function = "inet_sock_set_state")]
    inet_sock_set_state_body |ctx: BtfTracePointContext| -> i32 {
        INET_SOCK_SET_STATE, changed(&ctx), Program::State, 1
    }
}

body! {
    #[btf_tracepoint(function = "tcp_destroy_sock")]
    tcp_destroy_sock_body |ctx: BtfTracePointContext| -> i32 {
        TCP_DESTROY_SOCK, released(ctx.arg(0)), Program::Destroy, 1
    }
}

body! {
    #[btf_tracepoint(function = "tcp_send_reset")]
    tcp_send_reset_body |ctx: BtfTracePointContext| -> i32 {
        TCP_SEND_RESET, reset_sent(&ctx), Program::SendReset, 1
    }
}

body! {
    #[btf_tracepoint(function = "sched_process_exec")]
    sched_process_exec_body |ctx: BtfTracePointContext| -> i32 { SCHED_PROCESS_EXEC, executed(&ctx) }
}
