//! bind(2) of tcp and udp sockets, as it returns. Successful ones of udp are reported in udp.rs,
//! where implicit binds are seen too.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use portwatch_common::{Kind, flag};

use crate::{
    call::{self, Call},
    emit::{Details, emit, now},
    memory::{Direct, Memory, Probe},
    mptcp::is_subflow,
    owner::owner,
    socket::{
        IPPROTO_TCP, IPPROTO_UDP, Name, is_transport, key, new, number, protocol, read_name, sk_of,
    },
    sockets::{find, remember},
    syscall::{self, Arguments, socket_of},
    twin::{Hook, twins},
};

/// The socket whose failed bind was reported last, by thread, until the call that made it returns.
#[map]
static FAILED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(1024, 0);

/// The function that binds this socket returned `error`. `name` is the address asked for.
#[inline(always)]
fn function_returned<M: Memory>(sk: usize, name: usize, error: u16) {
    match protocol::<M>(sk) {
        // The MPTCP socket it belongs to is bound by mptcp_bind.
        IPPROTO_TCP if is_subflow::<M>(sk) => {}
        IPPROTO_UDP if error == 0 => {}
        IPPROTO_TCP | IPPROTO_UDP => reached::<M>(sk, name, error),
        _ => {}
    }
}

#[inline(always)]
fn reached<M: Memory>(sk: usize, name: usize, error: u16) {
    report::<M>(sk, Name::Kernel(name), error);
    if error != 0 {
        let _ = FAILED.insert(bpf_get_current_pid_tgid(), number(sk), 0);
    }
}

/// The call returned. It may have failed before the function was reached: a security module or a
/// cgroup's program refused it, or the address cannot be read.
#[inline(always)]
fn call_returned(ret: i64) {
    if ret >= 0 {
        return;
    }
    let arguments = Arguments::current();
    let sk = socket_of(arguments.fd());
    let thread = bpf_get_current_pid_tgid();
    if unsafe { FAILED.get(thread) } == Some(&number(sk)) {
        let _ = FAILED.remove(thread);
    } else {
        syscall::bound(sk, arguments.name(), errno(ret as i32));
    }
}

/// Reports a bind, and remembers the socket when it succeeded.
#[inline(never)]
pub fn report<M: Memory>(sk: usize, name: Name, error: u16) {
    let key = key::<M>(sk);
    let ts = now();
    let mut socket = new::<M>(sk, owner());
    if error != 0 {
        if !read_name(name, socket.family, &mut socket.laddr, &mut socket.lport) {
            socket.lport = 0;
            socket.flags = flag::NAMELESS;
        }
    } else {
        socket.since = ts;
        socket.flags = flag::BOUND;
        remember(key, &socket);
    }
    emit(
        Kind::Bind,
        ts,
        &socket,
        Details {
            error,
            ..Details::default()
        },
    );
}

/// Whether this socket's bind is on record already.
#[inline(always)]
pub fn known(sk: usize, key: u64) -> bool {
    find(sk, key).is_some_and(|socket| unsafe { (*socket).flags } & flag::BOUND != 0)
}

twins! {
    #[fexit(function = "__inet_bind")]
    exit_inet_bind, exit_inet_bind_twin |ctx: FExitContext| Hook::Bind4, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), errno(ctx.arg(4)))
}

twins! {
    #[fexit(function = "__inet6_bind")]
    exit_inet6_bind, exit_inet6_bind_twin |ctx: FExitContext| Hook::Bind6, ctx.arg(0), 0 => function_returned::<Direct>(ctx.arg(0), ctx.arg(1), errno(ctx.arg(4)))
}

#[inline(always)]
fn mptcp_bound(ctx: &FExitContext) {
    let sk = sk_of::<Direct>(ctx.arg(0));
    reached::<Direct>(sk, ctx.arg(1), errno(ctx.arg(3)));
}

twins! {
    #[fexit(function = "mptcp_bind")]
    exit_mptcp_bind, exit_mptcp_bind_twin |ctx: FExitContext| Hook::MptcpBind, ctx.arg(0), 0 => mptcp_bound(&ctx)
}

/// Without a twin: it has something to do where a call is refused, and then seldom for two at once.
#[fexit(function = "__x64_sys_bind")]
pub fn exit_sys_bind(ctx: FExitContext) -> i32 {
    call_returned(ctx.arg(1));
    0
}

/// Has the kernel make the socket's cookie. What is found by a descriptor, above, has no type, and may not ask for one.
#[fentry(function = "security_socket_bind")]
pub fn entry_socket_bind(ctx: FEntryContext) -> i32 {
    let sk = sk_of::<Direct>(ctx.arg(0));
    if is_transport::<Direct>(sk) {
        key::<Direct>(sk);
    }
    0
}

#[kprobe]
pub fn kprobe_sys_bind(_: ProbeContext) -> u32 {
    call::enter(Call::SysBind, None, None)
}

#[kretprobe]
pub fn kretprobe_sys_bind(ctx: RetProbeContext) -> u32 {
    if call::leave(Call::SysBind).is_some() {
        call_returned(ctx.ret());
    }
    0
}

#[kprobe]
pub fn kprobe_inet_bind(ctx: ProbeContext) -> u32 {
    call::enter(Call::Bind, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_inet_bind(ctx: RetProbeContext) -> u32 {
    if let Some([sk, name]) = call::leave(Call::Bind) {
        function_returned::<Probe>(sk, name, errno(ctx.ret()));
    }
    0
}

#[kprobe]
pub fn kprobe_mptcp_bind(ctx: ProbeContext) -> u32 {
    call::enter(Call::MptcpBind, ctx.arg(0), ctx.arg(1))
}

#[kretprobe]
pub fn kretprobe_mptcp_bind(ctx: RetProbeContext) -> u32 {
    if let Some([socket, name]) = call::leave(Call::MptcpBind) {
        reached::<Probe>(sk_of::<Probe>(socket), name, errno(ctx.ret()));
    }
    0
}

/// The errno in a function's return value; 0 for success.
#[inline(always)]
pub fn errno(ret: i32) -> u16 {
    if ret < 0 { -ret as u16 } else { 0 }
}
