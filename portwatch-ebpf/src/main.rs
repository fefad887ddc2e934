//! portwatch's eBPF programs: one file per concern. A body is shared by the hooks of all tiers,
//! which stand below it.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod accept;
mod bind;
mod body;
mod call;
mod cgroup;
mod connect;
mod emit;
mod end;
mod listen;
mod maps;
mod memory;
mod mptcp;
mod owner;
mod process;
mod reset;
mod seed;
mod slow;
mod socket;
mod sockets;
mod standin;
mod syscall;
mod tcp;
mod twin;
mod udp;
mod uring;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // The verifier admits no panic, so none is reachable.
    loop {}
}

/// The helpers used are offered to GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
