//! accept(2): the moment a process takes a connection from the queue.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    macros::{fentry, kprobe, map},
    maps::LruHashMap,
    programs::{FEntryContext, ProbeContext},
};
use portwatch_common::{Kind, Socket, flag, handover};

use crate::{
    emit::{Details, elapsed, emit, now},
    end::{End, ended},
    maps::{constant, offset},
    memory::{Direct, Memory, Probe, add},
    owner::owner,
    socket::{self, IPPROTO_MPTCP, fill, is_inet, is_stream, new, protocol, sk_of},
    sockets::{EEXIST, find, remember, remember_first, take_out},
    syscall::{Arguments, socket_of},
    tcp::SYN_RECV,
    twin::{Hook, twins},
};

/// Ends of connections that both sides may report, while they are handed over: who gets in here
/// first does. Nothing is ever taken out; old ones make room.
#[map]
static CLAIMS: LruHashMap<u64, u8> = LruHashMap::with_max_entries(4096, 0);

/// `sk` was accepted from `listener` (0: not known).
#[inline(always)]
pub fn accepted<M: Memory>(sk: usize, listener: usize) {
    if listener != 0 {
        count::<M>(listener);
    }
    // By fast open it may be accepted before the handshake is over and it has a cookie. While this CPU looks
    // it may get its cookie on another, and then be remembered there: each time it is looked up once more.
    for _ in 0..3 {
        let key = socket::key::<M>(sk);
        if let Some(socket) = find(sk, key) {
            match unsafe { (*socket).flags } & (flag::EARLY | flag::SUBFLOW) {
                0 => return queued::<M>(sk, key, unsafe { &mut *socket }),
                // Plain tcp after all.
                flag::SUBFLOW => {
                    take_out(key);
                }
                _ => {}
            }
        }
        if !is_stream(protocol::<M>(sk)) || unknown::<M>(sk, key) {
            return;
        }
    }
}

/// Accepted as it should be, from the queue in which it was seen.
#[inline(never)]
fn queued<M: Memory>(sk: usize, key: u64, socket: &mut Socket) {
    let ts = now();
    if socket.protocol == IPPROTO_MPTCP {
        // It was remembered before its first subflow was there.
        fill::<M>(sk, socket);
    } else if constant(&socket.handover) & handover::TOLD != 0 {
        // Told already: the task was moved to another CPU before its twin, which found no token there.
        return;
    }
    socket.owner = owner();
    let left = constant(&socket.handover) & handover::LEFT != 0;
    let elapsed = elapsed(ts, socket.since);
    emit(
        Kind::Accept,
        ts,
        socket,
        Details {
            elapsed,
            ..Details::default()
        },
    );
    add(&raw mut socket.handover, handover::TOLD);
    if constant(&socket.handover) & handover::ENDED == 0 {
        add(&raw mut socket.handover, handover::SETTLED);
    } else if left || claim(socket) {
        ended::<M>(sk, key, socket, &End::in_queue(ts, socket));
    }
}

#[inline(always)]
fn count<M: Memory>(listener: usize) {
    if let Some(socket) = find(listener, socket::key::<M>(listener)) {
        // Several processes may accept from one listener.
        add(unsafe { &raw mut (*socket).accepted }, 1);
    }
}

/// Accepted without having been seen in the queue: before the probes were there, or by fast open
/// before the handshake was over. False when it has come to be seen meanwhile.
#[inline(never)]
fn unknown<M: Memory>(sk: usize, key: u64) -> bool {
    let ts = now();
    let mut socket = new::<M>(sk, owner());
    let state: u8 = unsafe { M::read(sk, offset!(sk_state)) };
    if state as i32 == SYN_RECV && socket.cookie == sk as u64 {
        // It gets its cookie when the handshake is over, and is reported then.
        socket.flags = flag::EARLY;
        socket.started = ts;
        remember(key, &socket);
        if socket::key::<M>(sk) == key {
            return true;
        }
        // Whoever takes it out reports it.
        return !take_out(key);
    }
    if socket::key::<M>(sk) != key {
        return false;
    }
    socket.flags = flag::PASSIVE;
    socket.handover = handover::TOLD | handover::SETTLED;
    if !remember_first(key, &socket) {
        return false;
    }
    emit(Kind::Accept, ts, &socket, Details::default());
    true
}

/// A connection that was accepted before it had a cookie, as it is to be remembered by its cookie.
#[inline(always)]
pub fn promote(sk: usize, cookie: u64, early: &Socket) -> Socket {
    let mut socket = *early;
    if !take_out(sk as u64) {
        // The accepting side was faster, and finds it in the queue.
        return new::<Direct>(sk, Default::default());
    }
    tell_early(&mut socket, cookie);
    socket
}

/// Reports the accept of a connection that had no cookie then.
#[inline(always)]
pub fn tell_early(socket: &mut Socket, cookie: u64) {
    socket.cookie = cookie;
    socket.handover = handover::TOLD | handover::SETTLED;
    emit(Kind::Accept, socket.started, socket, Details::default());
}

/// A connection from a listener ended: whether that is to be reported now, and not by who accepts it.
#[inline(always)]
pub fn ended_first(socket: &mut Socket) -> bool {
    add(&raw mut socket.handover, handover::ENDED);
    let steps = constant(&socket.handover);
    if steps & handover::TOLD == 0 {
        // The accepting side sees the end when it has told.
        add(&raw mut socket.handover, handover::LEFT);
        return false;
    }
    steps & handover::SETTLED != 0 || claim(socket)
}

/// Whether this side is the first to claim the end. A claim that finds no room counts as first:
/// rather told twice than not at all.
#[inline(always)]
fn claim(socket: &Socket) -> bool {
    // Accepted MPTCP sockets share a cookie, but not a moment.
    let name = socket.cookie ^ socket.since << 20;
    CLAIMS.insert(name, 1, BPF_NOEXIST as u64) != Err(EEXIST)
}

twins! {
    #[fentry(function = "__inet_accept")]
    entry_inet_accept, entry_inet_accept_twin |ctx: FEntryContext| Hook::Accept, ctx.arg(2), 0 => {
        let listener = sk_of::<Direct>(ctx.arg(0));
        accepted::<Direct>(ctx.arg(2), listener);
    }
}

/// Counts a connection with the listener that the current syscall names, where the probe does not
/// tell it: the one with the same port.
#[inline(always)]
fn count_by_call(sk: usize) {
    let listener = socket_of(Arguments::current().fd());
    // The port it sends from stays, even when it has been reset and gave back the other.
    let port = |sk| unsafe { Probe::read::<u16>(sk, offset!(inet_sport)) };
    if is_inet::<Probe>(listener) && port(listener) == port(sk) {
        count::<Probe>(listener);
    }
}

twins! {
    #[fentry(function = "security_sock_graft")]
    entry_sock_graft, entry_sock_graft_twin |ctx: FEntryContext| Hook::Graft, ctx.arg(0), 0 => {
        let sk: usize = ctx.arg(0);
        accepted::<Direct>(sk, 0);
        count_by_call(sk);
    }
}

#[kprobe]
pub fn kprobe_inet_accept(ctx: ProbeContext) -> u32 {
    if let (Some(socket), Some(sk)) = (ctx.arg::<usize>(0), ctx.arg(2)) {
        accepted::<Probe>(sk, sk_of::<Probe>(socket));
    }
    0
}

#[kprobe]
pub fn kprobe_sock_graft(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg(0) {
        accepted::<Probe>(sk, 0);
        count_by_call(sk);
    }
    0
}
