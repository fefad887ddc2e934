//! The kernel skips a program on a CPU where that program is running already: when an interrupt's
//! event, or on preemptible kernels another task's, comes in the middle of it. So each tracing
//! program has a twin, attached beside it. Of the two, whichever sees an event first handles it and
//! leaves a token, by which the other knows; when one is skipped, the other does it. An interrupt's
//! event never comes in the middle of both. Where programs can be preempted, the busiest have stand-ins
//! instead (`standin.rs`).

use core::ptr::{read_volatile, write_volatile};

use aya_ebpf::{macros::map, maps::PerCpuArray};
use portwatch_common::Tokens;

/// The programs that have a twin.
#[derive(Clone, Copy)]
pub enum Hook {
    State = 1,
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

/// Tokens of events that one of two twins has handled, on this CPU.
#[map]
static TOKENS: PerCpuArray<Tokens> = PerCpuArray::with_max_entries(1, 0);

/// Leave to handle an event, and then to tell the twin.
pub struct Turn {
    tokens: *mut Tokens,
    what: u64,
    object: usize,
}

impl Turn {
    /// `None` when the twin has handled this event. `object` and `change` tell it from other events of
    /// this hook that may come in the middle of it.
    #[inline(always)]
    pub fn new(hook: Hook, object: usize, change: u32) -> Option<Self> {
        let turn = Self::taken(hook, object, change)?;
        for token in unsafe { &mut (*turn.tokens).slots } {
            // The object is a pointer, with which older verifiers allow comparing, but not reckoning.
            if unsafe { read_volatile(&token.what) } == turn.what
                && unsafe { read_volatile(&token.object) } == object as u64
            {
                unsafe { write_volatile(&mut token.what, 0) };
                return None;
            }
        }
        Some(turn)
    }

    /// The turn of one who has made sure that the twin has not handled the event.
    #[inline(always)]
    pub fn taken(hook: Hook, object: usize, change: u32) -> Option<Self> {
        Some(Self {
            tokens: TOKENS.get_ptr_mut(0)?,
            what: (hook as u64) << 32 | change as u64,
            object,
        })
    }

    /// The event is handled.
    #[inline(always)]
    pub fn over(self) {
        let tokens = unsafe { &mut *self.tokens };
        let next = unsafe { read_volatile(&tokens.next) };
        unsafe { write_volatile(&mut tokens.next, next + 1) };
        // Turn by turn, so that one whose twin does not come stays for a short time only.
        let token = &mut tokens.slots[next as usize % Tokens::SLOTS];
        if unsafe { read_volatile(&token.what) } != 0 {
            tokens.alone += 1;
        }
        unsafe {
            write_volatile(&mut token.object, self.object as u64);
            write_volatile(&mut token.what, self.what);
        }
    }
}

/// Runs the body unless the twin has done so for this event on this object.
#[inline(always)]
pub fn once(hook: Hook, object: usize, body: impl FnOnce()) {
    if let Some(turn) = Turn::new(hook, object, 0) {
        body();
        turn.over();
    }
}

/// Declares a program and its twin, which the loader knows by the ending `_twin`. The body is to do
/// its work by [`once`].
macro_rules! twins {
    (#[$kind:ident(function = $function:tt)] $first:ident, $twin:ident |$ctx:ident: $context:ty| $body:expr) => {
        #[$kind(function = $function)]
        pub fn $first($ctx: $context) -> i32 {
            $body;
            0
        }

        #[$kind(function = $function)]
        pub fn $twin($ctx: $context) -> i32 {
            $body;
            0
        }
    };
}
pub(crate) use twins;
