//! The last tier's view of calls: one program at the exit of five syscalls, with the arguments from
//! the registers and the socket from the file descriptor. It sees no io_uring; uring.rs does.

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
    },
    macros::tracepoint,
    programs::TracePointContext,
};

use crate::{
    accept, bind,
    bind::errno,
    body::{SYS_EXIT, run},
    connect, listen,
    maps::{config, offset},
    memory::{Direct, Memory, Probe},
    socket::{IPPROTO_UDP, Name, is_stream, is_transport, key, protocol},
    sockets::find,
    udp,
};

// x86-64 numbers; the loader does not offer this tier on other machines. Calls of 32 bit programs,
// whose numbers mean others, do not come here.
const CONNECT: i32 = 42;
const ACCEPT: i32 = 43;
const BIND: i32 = 49;
const LISTEN: i32 = 50;
const ACCEPT4: i32 = 288;

// Where kernels before 5.15 keep the registers: at the top of the stack.
const STACK_SIZE: usize = 16384;
const REGISTERS_SIZE: usize = 168;

#[tracepoint]
pub fn sys_exit(ctx: TracePointContext) -> u32 {
    run!(SYS_EXIT, &ctx);
    0
}

#[inline(always)]
pub fn returned(ctx: &TracePointContext) {
    // Layout of all events syscalls/sys_exit_*: number at 8, returned value at 16.
    let (Ok(number), Ok(ret)) = (unsafe { ctx.read_at::<i32>(8) }, unsafe {
        ctx.read_at::<i64>(16)
    }) else {
        return;
    };
    if matches!(number, ACCEPT | ACCEPT4) && ret < 0 {
        return;
    }
    let arguments = Arguments::current();
    let sk = socket_of(arguments.fd());
    let error = errno(ret as i32);
    match number {
        ACCEPT | ACCEPT4 => {
            let accepted = socket_of(ret as u32);
            if accepted != 0 {
                accept::accepted::<Probe>(accepted, sk);
            }
        }
        CONNECT => connected(sk, arguments.name(), error),
        BIND => bound(sk, arguments.name(), error),
        LISTEN => listen::returned::<Probe>(sk, arguments.second() as u32, error),
        _ => {}
    }
}

/// The arguments of the current syscall, in its registers.
pub struct Arguments(usize);

impl Arguments {
    #[inline(always)]
    pub fn current() -> Self {
        unsafe {
            if config!(task_pt_regs_helper) == 1 {
                return Self(bpf_task_pt_regs(bpf_get_current_task_btf()) as usize);
            }
            let stack: usize = Probe::read(bpf_get_current_task() as usize, offset!(task_stack));
            Self(stack + STACK_SIZE - REGISTERS_SIZE)
        }
    }

    #[inline(always)]
    fn read(&self, register: u32) -> u64 {
        if config!(task_pt_regs_helper) == 1 {
            unsafe { Direct::read(self.0, register) }
        } else {
            unsafe { Probe::read(self.0, register) }
        }
    }

    #[inline(always)]
    pub fn fd(&self) -> u32 {
        self.read(offset!(regs_di)) as u32
    }

    #[inline(always)]
    fn second(&self) -> u64 {
        self.read(offset!(regs_si))
    }

    /// Of bind and connect.
    #[inline(always)]
    pub fn name(&self) -> Name {
        Name::User(self.second() as usize, self.read(offset!(regs_dx)) as u32)
    }
}

#[inline(always)]
pub fn connected(sk: usize, name: Name, error: u16) {
    if !is_transport::<Probe>(sk) {
        return;
    }
    if protocol::<Probe>(sk) != IPPROTO_UDP {
        return connect::returned::<Probe>(sk, name, error);
    }
    let key = key::<Probe>(sk);
    if error == 0 && !udp::has_peer::<Probe>(sk) {
        if let Some(socket) = find(sk, key) {
            udp::dissolved::<Probe>(sk, unsafe { &mut *socket });
        }
        return;
    }
    if !bind::known(sk, key) && has_port(sk) {
        udp::bound_by_connect::<Probe>(sk);
    }
    udp::connected::<Probe>(sk, name, error);
}

#[inline(always)]
fn has_port(sk: usize) -> bool {
    unsafe { Probe::read::<u16>(sk, offset!(sk_num)) != 0 }
}

#[inline(always)]
pub fn bound(sk: usize, name: Name, error: u16) {
    let protocol = protocol::<Probe>(sk);
    if is_transport::<Probe>(sk) && (is_stream(protocol) || protocol == IPPROTO_UDP) {
        bind::report::<Probe>(sk, name, error);
    }
}

/// The socket behind a file descriptor of the current process; 0 when it is none.
#[inline(always)]
pub fn socket_of(fd: u32) -> usize {
    unsafe {
        if config!(task_btf_helper) == 1 {
            file_of::<Direct>(bpf_get_current_task_btf() as usize, fd)
        } else {
            file_of::<Probe>(bpf_get_current_task() as usize, fd)
        }
    }
}

#[inline(always)]
fn file_of<M: Memory>(task: usize, fd: u32) -> usize {
    unsafe {
        let files: usize = M::read(task, offset!(task_files));
        let table: usize = M::read(files, offset!(files_fdt));
        if fd >= M::read(table, offset!(fdt_max_fds)) {
            return 0;
        }
        let array: usize = M::read(table, offset!(fdt_fd));
        socket_in(Probe::read(array + fd as usize * 8, 0))
    }
}

/// The socket behind a file; 0 when it is none.
#[inline(always)]
pub fn socket_in(file: usize) -> usize {
    unsafe {
        let socket: usize = Probe::read(file, offset!(file_private_data));
        if file == 0 || socket == 0 {
            return 0;
        }
        // A socket's back pointer, which lies before its sk, proves that this file is a socket.
        let [back, sk]: [usize; 2] = Probe::read(socket, offset!(socket_file));
        if back == file { sk } else { 0 }
    }
}
