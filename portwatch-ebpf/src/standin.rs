//! Where tracing programs can be preempted (Linux 7.0), whoever is preempted in one leaves everybody
//! else on that CPU without it until he runs again. So there the busiest programs are not attached
//! themselves, but several stand-ins for each, one after the other: the first that the kernel runs
//! for an event goes on with the body, the others see that it is taken care of. An event is missed
//! only when tasks are in the midst of all of them at once, which is noted.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_get_current_pid_tgid,
    macros::{btf_tracepoint, map, tracepoint},
    maps::{LruHashMap, PerCpuArray},
    programs::{BtfTracePointContext, TracePointContext},
};
use portwatch_common::{Crowd, PASSING_EVENTS, STANDINS};

use crate::{
    body::{INET_SOCK_SET_STATE, Program, SYS_EXIT, TCP_DESTROY_SOCK, TCP_SEND_RESET},
    memory::add,
    tcp::{change, matters},
};

/// How many are in the midst of a program and its stand-ins, by [`Program`].
#[map]
static CROWDS: PerCpuArray<Crowd> = PerCpuArray::with_max_entries(4, 0);

/// An event: the program with what changed, and the object it happened to.
type Event = [u64; 2];

/// Events on their way past the stand-ins, with the number of the one that ran last. Those of which the
/// kernel skipped the last one stay behind, until they make room.
#[map]
static PASSING: LruHashMap<Event, u32> = LruHashMap::with_max_entries(PASSING_EVENTS, 0);

/// One less, when the body is done or not run.
#[inline(always)]
pub fn done(program: Program) {
    if let Some(crowd) = CROWDS.get_ptr_mut(program as u32) {
        add(unsafe { &raw mut (*crowd).inside }, u64::MAX);
    }
}

#[inline(always)]
fn begin(program: Program) {
    if let Some(crowd) = CROWDS.get_ptr_mut(program as u32) {
        unsafe {
            add(&raw mut (*crowd).inside, 1);
            if core::ptr::read_volatile(&raw const (*crowd).inside) >= STANDINS as u64 - 1 {
                (*crowd).full = 1;
            }
        }
    }
}

/// Whether this is the first stand-in that runs for this event.
#[inline(always)]
fn first(event: Event, number: u32) -> bool {
    let Some(before) = PASSING.get_ptr_mut(event) else {
        // Where there is no room, the last one takes it, which needs none.
        return number == STANDINS || PASSING.insert(event, number, BPF_NOEXIST.into()).is_ok();
    };
    // They run in their order: a number that is not lower was left by an earlier event of the same
    // kind, for which the kernel skipped the last.
    let earlier = unsafe { *before } >= number;
    if number == STANDINS {
        let _ = PASSING.remove(event);
    } else {
        unsafe { *before = number };
    }
    earlier
}

macro_rules! stand_in {
    ($ctx:expr, $program:expr, $map:ident, $object:expr, $change:expr, $number:expr) => {
        let program = $program;
        begin(program);
        let event = [(program as u64) << 32 | $change as u64, $object as u64];
        if first(event, $number) {
            // The body is done later.
            unsafe { $map.tail_call($ctx, 0) };
        }
        done(program);
    };
}

/// Declares the stand-ins of a program, which the loader knows by the ending `_standin` and their
/// number: when an event matters to them, and the object and the change that tell it from others.
macro_rules! stand_ins {
    ($($name:ident $number:literal),* => #[$kind:meta] |$ctx:ident: $context:ty| -> $ret:ty { $matters:expr => $program:expr, $map:ident, $object:expr, $change:expr }) => {
        $(
            #[$kind]
            pub fn $name($ctx: $context) -> $ret {
                if $matters {
                    stand_in!(&$ctx, $program, $map, $object, $change, $number);
                }
                0
            }
        )*
    };
}

stand_ins! {
    sys_exit_standin1 1, sys_exit_standin2 2, sys_exit_standin3 3, sys_exit_standin4 4,
    sys_exit_standin5 5, sys_exit_standin6 6, sys_exit_standin7 7, sys_exit_standin8 8
    => #[tracepoint] |ctx: TracePointContext| -> u32 {
        true => Program::SysExit, SYS_EXIT, bpf_get_current_pid_tgid(), 0u32
    }
}

stand_ins! {
    inet_sock_set_state_standin1 1, inet_sock_set_state_standin2 2, inet_sock_set_state_standin3 3,
    inet_sock_set_state_standin4 4, inet_sock_set_state_standin5 5, inet_sock_set_state_standin6 6,
    inet_sock_set_state_standin7 7, inet_sock_set_state_standin8 8
    => #[btf_tracepoint(function = "inet_sock_set_state")] |ctx: BtfTracePointContext| -> i32 {
        matters(&ctx) => Program::State, INET_SOCK_SET_STATE, ctx.arg::<usize>(0), change(&ctx)
    }
}

stand_ins! {
    tcp_destroy_sock_standin1 1, tcp_destroy_sock_standin2 2, tcp_destroy_sock_standin3 3,
    tcp_destroy_sock_standin4 4, tcp_destroy_sock_standin5 5, tcp_destroy_sock_standin6 6,
    tcp_destroy_sock_standin7 7, tcp_destroy_sock_standin8 8
    => #[btf_tracepoint(function = "tcp_destroy_sock")] |ctx: BtfTracePointContext| -> i32 {
        true => Program::Destroy, TCP_DESTROY_SOCK, ctx.arg::<usize>(0), 0u32
    }
}

stand_ins! {
    tcp_send_reset_standin1 1, tcp_send_reset_standin2 2, tcp_send_reset_standin3 3,
    tcp_send_reset_standin4 4, tcp_send_reset_standin5 5, tcp_send_reset_standin6 6,
    tcp_send_reset_standin7 7, tcp_send_reset_standin8 8
    => #[btf_tracepoint(function = "tcp_send_reset")] |ctx: BtfTracePointContext| -> i32 {
        ctx.arg::<usize>(0) != 0 => Program::SendReset, TCP_SEND_RESET, ctx.arg::<usize>(0), 0u32
    }
}
