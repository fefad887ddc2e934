//! The kernel skips a program on a CPU where it is running already: when an interrupt's event, or on
//! preemptible kernels another task's, comes in the middle of it. So each tracing program has a twin,
//! attached to run right after it. The program handles every event it is told of, and leaves a token
//! before; the twin takes the token away, and handles the events for which there is none. What
//! comes in the middle of the twin needs no twin. Where programs can be preempted, the busiest
//! have stand-ins instead (`standin.rs`).
//!
//! Tokens of a hook have slots of their own. Only its program takes one, which runs once at a time on a CPU,
//! and only who took it on is told by its twin: whatever comes between any two instructions, of an interrupt or of
//! another task, finds and leaves all other slots as they are.

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use portwatch_common::{Token, Tokens};

use crate::maps::count;

/// The programs that have a twin.
#[derive(Clone, Copy)]
pub enum Hook {
    State,
    Destroy,
    SendReset,
    CongState,
    Retransmit,
    Fork,
    Exec,
    Exit,
    Mkdir,
    Bind4,
    Bind6,
    MptcpBind,
    Listen,
    MptcpListen,
    NoListen,
    Connect4,
    Connect6,
    Accept,
    Graft,
    UdpPort,
    UdpConnect4,
    UdpConnect6,
    UdpDestroy4,
    UdpDestroy6,
}

const HOOKS: u32 = Hook::UdpDestroy6 as u32 + 1;

/// Tokens on this CPU, by hook.
#[map]
static TOKENS: PerCpuArray<Tokens> = PerCpuArray::with_max_entries(HOOKS, 0);

/// Leaves a token for the twin. `object` and `change` tell the event from others of this hook.
#[inline(always)]
pub fn take_on(hook: Hook, object: usize, change: u32) {
    let Some(tokens) = TOKENS.get_ptr_mut(hook as u32) else {
        return;
    };
    let tokens = unsafe { &mut *tokens };
    for token in &mut tokens.slots {
        if unsafe { read_volatile(&token.change) } == 0 {
            return put(token, object, change);
        }
    }
    // All are of events whose twin was skipped.
    let next = unsafe { read_volatile(&tokens.next) };
    unsafe { write_volatile(&mut tokens.next, next + 1) };
    put(
        &mut tokens.slots[next as usize % Tokens::SLOTS],
        object,
        change,
    );
}

#[inline(always)]
fn put(token: &mut Token, object: usize, change: u32) {
    unsafe {
        write_volatile(&mut token.object, object as u64);
        write_volatile(&mut token.change, change as u64 + 1);
    }
}

/// Whether the program was skipped for this event, so that its twin has to handle it. Takes the
/// token away where there is one.
#[inline(always)]
pub fn is_left(hook: Hook, object: usize, change: u32) -> bool {
    let Some(tokens) = TOKENS.get_ptr_mut(hook as u32) else {
        return false;
    };
    let tokens = unsafe { &mut *tokens };
    for token in &mut tokens.slots {
        // The object is a pointer, with which older verifiers allow comparing, but not reckoning.
        if unsafe { read_volatile(&token.change) } == change as u64 + 1
            && unsafe { read_volatile(&token.object) } == object as u64
        {
            unsafe { write_volatile(&mut token.change, 0) };
            return false;
        }
    }
    count(|loss| &mut loss.left);
    true
}

/// Declares a program and its twin, which the loader knows by the ending `_twin`: the hook with the
/// object and the change that tell its events from one another, and what is to be done about them.
macro_rules! twins {
    (#[$kind:ident(function = $function:tt)] $first:ident, $twin:ident |$ctx:ident: $context:ty| $hook:expr, $object:expr, $change:expr => $body:expr) => {
        #[$kind(function = $function)]
        pub fn $first($ctx: $context) -> i32 {
            crate::twin::take_on($hook, $object, $change);
            $body;
            0
        }

        #[$kind(function = $function)]
        pub fn $twin($ctx: $context) -> i32 {
            if crate::twin::is_left($hook, $object, $change) {
                aya_log_ebpf::debug!(
                    &$ctx,
                    "{} was skipped: its twin takes over",
                    stringify!($first)
                );
                $body;
            }
            0
        }
    };
}
pub(crate) use twins;
