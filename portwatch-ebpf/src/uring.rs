//! io_uring in the last tier, where no function-level probe sees it: requests as they complete.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    accept,
    bind::errno,
    listen,
    maps::{config, offset},
    memory::{Memory, Probe},
    socket::{AF_INET, AF_INET6, Name, is_inet},
    syscall::{bound, connected, socket_in, socket_of},
};

// enum io_uring_op
const ACCEPT: u8 = 13;
const CONNECT: u8 = 16;
const BIND: u8 = 56;
const LISTEN: u8 = 57;

/// Without a twin: completions seldom meet in the middle of another's, and it is by far the largest
/// program, so that loading it twice would be felt at every start.
#[btf_tracepoint(function = "io_uring_complete")]
pub fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    completed(&ctx);
    0
}

#[inline(always)]
fn completed(ctx: &BtfTracePointContext) {
    let request: usize = ctx.arg(1);
    if request == 0 {
        return;
    }
    let opcode: u8 = unsafe { Probe::read(request, offset!(io_kiocb_opcode)) };
    if !matches!(opcode, ACCEPT | CONNECT | BIND | LISTEN) {
        return;
    }
    let result: i32 = if config!(uring_cqe) == 1 {
        unsafe { Probe::read(ctx.arg(2), offset!(cqe_res)) }
    } else {
        ctx.arg(3)
    };
    let sk = socket_in(unsafe { Probe::read(request, offset!(io_kiocb_file)) });
    match opcode {
        // Into a slot of registered files: no descriptor, though the result may look like one.
        ACCEPT if unsafe { Probe::read::<u32>(request, offset!(io_accept_file_slot)) } != 0 => {}
        ACCEPT if result >= 0 => {
            let accepted = socket_of(result as u32);
            if is_inet::<Probe>(accepted) {
                accept::accepted::<Probe>(accepted, sk);
            }
        }
        CONNECT => {
            let name: usize = unsafe { Probe::read(request, offset!(io_connect_addr)) };
            connected(sk, Name::User(name, u32::MAX), errno(result))
        }
        BIND => {
            let data: usize = unsafe { Probe::read(request, offset!(io_kiocb_async_data)) };
            // Later kernels keep the bare address here, earlier ones a message's head, which begins
            // with a pointer.
            let name = match unsafe { Probe::read::<u16>(data, 0) } {
                AF_INET | AF_INET6 => data,
                _ => data + offset!(io_async_msghdr_addr) as usize,
            };
            bound(sk, Name::Kernel(name), errno(result))
        }
        LISTEN => listen::returned::<Probe>(sk, 0, errno(result)),
        _ => {}
    }
}
