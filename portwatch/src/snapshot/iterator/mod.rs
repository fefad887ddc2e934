//! Which processes hold which sockets, told by the kernel in one walk over all open files
//! (`iter/task_file`, Documentation/bpf/bpf_iterators.rst): a tenth of the work of reading links in
//! /proc, for those who may load eBPF programs.
//!
//! The program is a dozen lines and made here, since reading an object and all of the kernel's types,
//! as is done for tracing, would take longer than the walk.

mod instruction;
mod syscall;

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use anyhow::{Context as _, Result, ensure};
use rustix::thread::{CapabilitySet, capabilities};

use instruction::{Instruction, STACK};

use crate::machine::same_numbers;
use crate::probe::btf::{self, Btf, Kind};

/// What the program hands over of each socket: the inode's number, then the process's.
const RECORD: usize = 16;
/// The kernel fills up to 32 KiB at a time.
const BUFFER: usize = 32 << 10;

/// Inode number and pid for each open file that is a socket, in no order.
///
/// # Errors
/// When this process may not load programs, the kernel has no such iterator (before 5.8), cannot tell
/// sockets there (before 5.11), or numbers processes otherwise than they are seen here.
pub fn pairs() -> Result<Vec<(u64, u32)>> {
    let own = capabilities(None)
        .context("reading capabilities")?
        .effective;
    let enough = CapabilitySet::BPF.union(CapabilitySet::PERFMON);
    ensure!(
        own.contains(enough) || own.contains(CapabilitySet::SYS_ADMIN),
        "CAP_BPF and CAP_PERFMON are missing"
    );
    same_numbers()?;
    let mut iterator = open()?;
    let mut pairs = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match iterator.read(&mut buffer) {
            Ok(0) => return Ok(pairs),
            Ok(count) => pairs.extend(buffer[..count].chunks_exact(RECORD).filter_map(pair)),
            Err(error) => match error.kind() {
                // The second after a million of files of which none is a socket.
                ErrorKind::Interrupted | ErrorKind::WouldBlock => {}
                _ => return Err(error).context("reading the iterator"),
            },
        }
    }
}

fn pair(record: &[u8]) -> Option<(u64, u32)> {
    let inode = u64::from_ne_bytes(*record.first_chunk()?);
    let pid = u32::from_ne_bytes(*record.get(8..)?.first_chunk()?);
    Some((inode, pid))
}

/// An iterator that has not begun.
fn open() -> Result<File> {
    const HOOK: (Kind, &str) = (Kind::Func, "bpf_iter_task_file");
    let types = btf::kernel().context("reading the kernel's types")?;
    let structures = ["file", "inode", "task_struct"].map(|name| (Kind::Struct, name));
    let [file, inode, task] = structures;
    let types = Btf::parse(&types, &[HOOK, file, inode, task])?;
    let member = |structure: &str, name: &str| {
        let offset = types.offset(structure, name);
        let offset = offset.and_then(|offset| i16::try_from(offset).ok());
        offset.with_context(|| format!("{structure} has no {name} within reach"))
    };
    let program = program(
        member("file", "f_inode")?,
        member("inode", "i_ino")?,
        member("task_struct", "tgid")?,
    );
    let hook = types.id(HOOK.0, HOOK.1).context("no iterator of files")?;
    let program = syscall::load(&program, hook).context("loading the program")?;
    syscall::iterate(&program).context("attaching the program")
}

/// The instructions of this, for the offsets of these members:
/// ```c
/// int open_sockets(struct { meta, task, fd, file } *ctx) {
///     if (ctx->task && ctx->file && bpf_sock_from_file(ctx->file)) {
///         u64 record[] = { ctx->file->f_inode->i_ino, ctx->task->tgid };
///         bpf_seq_write(ctx->meta->seq, record, sizeof(record));
///     }
///     return 0;
/// }
/// ```
fn program(f_inode: i16, i_ino: i16, tgid: i16) -> [Instruction; 20] {
    use Instruction as I;
    const BPF_FUNC_SEQ_WRITE: i32 = 127;
    const BPF_FUNC_SOCK_FROM_FILE: i32 = 162;
    let (meta, task, file) = (6, 7, 8);
    let size = RECORD as i16;
    [
        I::load(meta, 1, 0),
        I::load(task, 1, 8),
        I::load(file, 1, 24),
        I::if_zero(task, 14),
        I::if_zero(file, 13),
        I::copy(1, file),
        I::call(BPF_FUNC_SOCK_FROM_FILE),
        I::if_zero(0, 10),
        I::load(1, file, f_inode),
        I::load(1, 1, i_ino),
        I::store(STACK, -size, 1),
        I::load_word(1, task, tgid),
        I::store(STACK, 8 - size, 1),
        I::load(1, meta, 0),
        I::copy(2, STACK),
        I::add(2, -i32::from(size)),
        I::set(3, size.into()),
        I::call(BPF_FUNC_SEQ_WRITE),
        I::set(0, 0),
        I::EXIT,
    ]
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    use super::super::Holders;
    use super::*;

    #[test]
    fn the_kernel_and_proc_tell_the_same_of_this_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = listener.try_clone().unwrap();
        let inode = rustix::fs::fstat(second.as_fd()).unwrap().st_ino;
        // Other tests open and close sockets meanwhile: of this one all is known.
        let own = (inode, std::process::id());
        match pairs() {
            Ok(pairs) => assert_eq!(pairs.iter().filter(|&&pair| pair == own).count(), 2),
            Err(error) => eprintln!("not tried here: {error:#}"),
        }
        for holders in [Holders::of_machine(), Holders::read(Path::new("/proc"))] {
            let pids: Vec<u32> = holders.unwrap().of(inode).collect();
            assert_eq!(pids, [own.1]);
        }
    }

    #[test]
    fn a_file_that_only_looks_like_a_socket_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        // The file in the directory, which has a number among the files there.
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
        let inode = rustix::fs::fstat(&file).unwrap().st_ino;
        match pairs() {
            Ok(pairs) => assert!(!pairs.contains(&(inode, std::process::id()))),
            Err(error) => eprintln!("not tried here: {error:#}"),
        }
    }
}
