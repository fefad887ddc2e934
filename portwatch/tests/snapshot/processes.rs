//! Sockets of other processes, threads and network namespaces.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use portwatch::group;
use portwatch::row::Row;
use portwatch::snapshot::take;
use socket2::{Domain, Socket, Type};

use crate::{ALL, by_every_means, own_netns, row, rows, snapshot};

/// A program that does nothing, and ends with its owner.
struct Sleeper(Child);

impl Sleeper {
    /// Begins with what `before` does in the new process.
    fn new(before: impl FnMut() -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: the callers only make system calls.
        unsafe { command.pre_exec(before) };
        let mut child = command.spawn().unwrap();
        // What it writes back tells that it runs.
        child.stdin.as_mut().unwrap().write_all(b"!").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn checked(result: i32) -> std::io::Result<i32> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(result)
}

pub fn all_holders() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let fd = listener.as_raw_fd();
    // SAFETY: a system call on a descriptor that the new process has as well.
    let heir = Sleeper::new(move || unsafe { checked(libc::dup(fd)).map(drop) });
    for options in by_every_means() {
        let all = snapshot(&options);
        let row = row(&all, port, None);
        let mut expected = [std::process::id(), heir.0.id()];
        expected.sort_unstable();
        let holders = row.event.holders.as_ref().unwrap();
        assert_eq!(holders.iter().map(|x| x.pid).collect::<Vec<_>>(), expected);
        assert_eq!(row.event.pid, Some(expected[0]));
        let heir = holders.iter().find(|x| x.pid == heir.0.id()).unwrap();
        assert_eq!((heir.comm.as_str(), heir.sock), ("cat", row.event.sock));
    }
}

/// Listens on a port of every address, in a namespace where no interface is up. Returns the socket.
fn listen_on(port: u16) -> std::io::Result<i32> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0 },
        sin_zero: [0; 8],
    };
    // SAFETY: system calls only; the address is whole and outlives its call.
    unsafe {
        let socket = checked(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))?;
        let length = size_of_val(&address) as libc::socklen_t;
        checked(libc::bind(socket, (&raw const address).cast(), length))?;
        checked(libc::listen(socket, 3))?;
        Ok(socket)
    }
}

pub fn other_namespace() {
    let elsewhere = Sleeper::new(|| {
        // SAFETY: takes nothing but a flag.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) })?;
        listen_on(4711).map(drop)
    });
    let namespace = format!("/proc/{}/ns/net", elsewhere.0.id());
    let inode = fs::metadata(namespace).unwrap().ino();
    assert_ne!(inode, u64::from(own_netns()));
    for options in by_every_means() {
        let all = snapshot(&options);
        let found = rows(&all, 4711, None).into_iter();
        let row = found.filter(|x| x.event.netns.map(u64::from) == Some(inode));
        let row = row.collect::<Vec<_>>();
        assert_eq!(row.len(), 1);
        assert_eq!(row[0].event.pid, Some(elsewhere.0.id()));
        assert_eq!(row[0].event.comm.unwrap().text(), "cat");
    }
}

pub fn namespace_of_a_thread() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes nothing but a flag; the thread ends with this function.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).unwrap();
        let socket = listen_on(4713).unwrap();
        // SAFETY: it is open, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        tell.send(netns).unwrap();
        let _ = ended.recv();
        drop(socket);
    });
    let netns = told.recv().unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        let found = rows(&all, 4713, None).into_iter();
        let found: Vec<&Row> = found
            .filter(|x| x.event.netns.map(u64::from) == Some(netns))
            .collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].event.pid, Some(std::process::id()));
    }
    drop(end);
    thread.join().unwrap();
}

pub fn devices() {
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes nothing but a flag; the thread ends with this function.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).unwrap();
        let ip = |line: &str| {
            let made = Command::new("ip").args(line.split(' ')).status();
            made.is_ok_and(|status| status.success())
        };
        // The number has another name here, or none, where this test runs.
        if !ip("link add pw0 index 77 type veth peer name pw1") {
            return;
        }
        let servers = [Some("pw0"), Some("pw1"), Some("pw0"), None].map(|device| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind_device(device.map(str::as_bytes)).unwrap();
            let any = SocketAddr::from(([0, 0, 0, 0], 4714));
            socket.bind(&any.into()).unwrap();
            socket
        });
        let lost = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(ip("link add gone index 78 type veth peer name away"));
        lost.bind_device(Some(b"gone")).unwrap();
        lost.bind(&SocketAddr::from(([0, 0, 0, 0], 4715)).into())
            .unwrap();
        lost.listen(1).unwrap();
        assert!(ip("link del gone"));
        tell.send(fs::metadata("/proc/thread-self/ns/net").unwrap().ino())
            .unwrap();
        let _ = ended.recv();
        drop((servers, lost));
    });
    let Ok(netns) = told.recv() else {
        thread.join().unwrap();
        eprintln!("NOT RUN: no pair of devices can be made here");
        return;
    };
    let all = snapshot(&ALL);
    let rows = all.rows.into_iter();
    let rows = rows.filter(|row| row.event.netns.map(u64::from) == Some(netns));
    let rows: Vec<Row> = group::servers(rows).collect();
    let found: Vec<_> = (rows.iter())
        .map(|row| {
            let device = row.device.map(|x| x.text().into_owned());
            let together = row.event.holders.as_ref().map(Vec::len);
            (row.event.lport.unwrap(), device, together)
        })
        .collect();
    let device = |name: &str| Some(name.to_owned());
    let expected = [
        (4714, None, Some(1)),
        (4714, device("pw0"), Some(2)),
        (4714, device("pw1"), Some(1)),
        // as ss has it
        (4715, device("if78"), Some(1)),
    ];
    assert_eq!(found, expected);
    drop(end);
    thread.join().unwrap();
}

/// Runs this program as a process whose first thread ends.
pub const WITHOUT_FIRST_THREAD: &str = "without-first-thread";

/// Listens here and, as a thread, in a new namespace, until its input ends.
pub fn without_first_thread() -> ! {
    listen_on(4714).unwrap();
    std::thread::spawn(move || {
        // SAFETY: takes nothing but a flag.
        checked(unsafe { libc::unshare(libc::CLONE_NEWNET) }).unwrap();
        listen_on(4715).unwrap();
        // As the first thread has none any more.
        while fs::read_link("/proc/self/ns/net").is_ok() {
            std::thread::yield_now();
        }
        println!("ready");
        let _ = std::io::stdin().read(&mut [0; 1]);
        std::process::exit(0);
    });
    // SAFETY: ends this thread; what it has stays for the other.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!();
}

pub fn first_thread_ended() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.arg(WITHOUT_FIRST_THREAD);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Sleeper(command.spawn().unwrap());
    let stdout = process.0.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap().port();
    let exe = std::env::current_exe().unwrap();
    let exe = exe.to_str().unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        let own = row(&all, own, None).event.context.clone().unwrap();
        for port in [4714, 4715] {
            let event = &row(&all, port, None).event;
            assert_eq!(event.pid, Some(process.0.id()));
            let context = event.context.as_ref().unwrap();
            assert_eq!(context.exe.as_deref(), Some(exe));
            let args = context.args.as_ref().unwrap();
            assert_eq!(args[..], [exe, WITHOUT_FIRST_THREAD]);
            assert_eq!(context.cgroup, own.cgroup);
        }
    }
}

pub fn mounted_namespace() {
    let folder = tempfile::tempdir().unwrap();
    // as it may not be written in the table of mounts
    let place = folder.path().join("a name");
    fs::write(&place, "").unwrap();
    let path = std::ffi::CString::new(place.to_str().unwrap()).unwrap();
    let target = path.clone();
    let (socket, netns) = std::thread::spawn(move || {
        // SAFETY: strings that end with NUL; the thread ends with this function.
        unsafe {
            checked(libc::unshare(libc::CLONE_NEWNET)).unwrap();
            let from = c"/proc/thread-self/ns/net".as_ptr();
            let none = std::ptr::null();
            let bind = libc::MS_BIND;
            checked(libc::mount(from, target.as_ptr(), none, bind, none.cast())).unwrap();
        }
        let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        (listen_on(4712).unwrap(), netns)
    })
    .join()
    .unwrap();
    let all = take(&ALL);
    // SAFETY: our own descriptor and a string that ends with NUL.
    unsafe {
        libc::close(socket);
        checked(libc::umount2(path.as_ptr(), libc::MNT_DETACH)).unwrap();
    }
    let all = all.unwrap();
    let found = rows(&all, 4712, None).into_iter();
    let found: Vec<&Row> = found
        .filter(|x| x.event.netns.map(u64::from) == Some(netns))
        .collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].event.pid, Some(std::process::id()));
}
