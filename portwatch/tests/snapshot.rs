//! Snapshots of sockets that these tests opened, by every means: the kernel's sock_diag, the running
//! /proc, and trees that look like one, whole and damaged.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use libtest_mimic::{Arguments, Trial};
use portwatch::event::{Family, Kind, Origin, Proto};
use portwatch::group;
use portwatch::row::{Row, State};
use portwatch::snapshot::{Options, Snapshot, take};
use socket2::{Domain, Protocol, Socket, Type};

fn main() {
    if std::env::args().nth(1).as_deref() == Some(WITHOUT_FIRST_THREAD) {
        without_first_thread();
    }
    let tests: &[(&str, Needs, fn())] = &[
        (
            "listeners_and_connections_are_shown_as_they_are",
            Needs::Nothing,
            as_they_are,
        ),
        (
            "a_connection_that_waits_is_in_its_listeners_queue",
            Needs::Nothing,
            queue,
        ),
        (
            "who_closes_first_stays_in_time_wait_with_no_holder",
            Needs::Nothing,
            time_wait,
        ),
        (
            "a_mapped_connection_is_ipv6_with_ipv4_addresses",
            Needs::Nothing,
            mapped,
        ),
        ("mptcp_is_shown_once", Needs::Mptcp, mptcp),
        (
            "listeners_of_mptcp_that_share_an_address_are_all_shown",
            Needs::Mptcp,
            shared_mptcp,
        ),
        (
            "listening_leaves_out_everything_else",
            Needs::Nothing,
            listening,
        ),
        (
            "every_process_that_has_it_open_is_a_holder",
            Needs::Nothing,
            all_holders,
        ),
        (
            "a_socket_in_the_namespace_of_a_process_is_shown",
            Needs::Root,
            other_namespace,
        ),
        (
            "a_socket_in_the_namespace_of_a_thread_is_shown",
            Needs::Root,
            namespace_of_a_thread,
        ),
        (
            "a_device_has_the_name_that_it_has_in_the_namespace_of_the_socket",
            Needs::Root,
            devices,
        ),
        (
            "sockets_of_a_process_whose_first_thread_has_ended_are_shown",
            Needs::Root,
            first_thread_ended,
        ),
        (
            "a_socket_in_a_mounted_namespace_is_shown",
            Needs::Root,
            mounted_namespace,
        ),
        ("a_recorded_tree_is_read", Needs::Nothing, recorded),
        (
            "a_damaged_tree_gives_the_rest_and_says_what_is_missing",
            Needs::Nothing,
            damaged,
        ),
        (
            "in_a_tree_only_regular_files_of_sensible_size_are_read",
            Needs::Nothing,
            no_regular_files,
        ),
        (
            "a_tree_without_a_file_of_a_process_tells_the_rest_of_it",
            Needs::Nothing,
            incomplete_processes,
        ),
        (
            "a_tree_with_some_tables_says_which_are_missing",
            Needs::Nothing,
            some_tables,
        ),
        (
            "a_tree_without_namespaces_is_one",
            Needs::Nothing,
            no_namespaces,
        ),
        (
            "a_directory_that_is_no_proc_is_refused",
            Needs::Nothing,
            no_proc,
        ),
    ];
    let trials = tests.iter().map(|(name, needs, test)| {
        let missing = needs.missing();
        if let Some(missing) = missing {
            eprintln!("NOT RUN: {name} needs {missing}");
        }
        Trial::test(*name, || {
            test();
            Ok(())
        })
        .with_ignored_flag(missing.is_some())
    });
    let mut arguments = Arguments::from_args();
    // What one test forks has the sockets of the others for a moment.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// What a test cannot do without.
enum Needs {
    Nothing,
    Root,
    Mptcp,
}

impl Needs {
    /// What is not there.
    fn missing(&self) -> Option<&'static str> {
        // SAFETY: takes nothing and touches no memory.
        let root = unsafe { libc::geteuid() } == 0;
        match self {
            Needs::Root if !root => Some("root"),
            Needs::Mptcp if mptcp_socket().is_none() => Some("a kernel with MPTCP"),
            _ => None,
        }
    }
}

fn mptcp_socket() -> Option<OwnedFd> {
    // SAFETY: a new descriptor, owned by nobody else.
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd))
    }
}

const ALL: Options = Options {
    proc_root: None,
    listening: false,
    holders: true,
    tcp_info: true,
    in_order: true,
};

/// The same by sock_diag and by /proc.
fn by_every_means() -> [Options; 2] {
    let proc_root = Some("/proc".into());
    [ALL, Options { proc_root, ..ALL }]
}

fn snapshot(options: &Options) -> Snapshot {
    take(options).unwrap()
}

/// The only row with these ports.
#[track_caller]
fn row(snapshot: &Snapshot, lport: u16, rport: Option<u16>) -> &Row {
    let rows = rows(snapshot, lport, rport);
    assert_eq!(rows.len(), 1, "{rows:#?}");
    rows[0]
}

fn rows(snapshot: &Snapshot, lport: u16, rport: Option<u16>) -> Vec<&Row> {
    let ports = (Some(lport), rport);
    (snapshot.rows.iter())
        .filter(|row| (row.event.lport, row.event.rport) == ports)
        .collect()
}

fn inode(socket: &impl AsRawFd) -> u64 {
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    fs::metadata(path).unwrap().ino()
}

/// The kernel's cookie, from the socket itself.
fn cookie(socket: &impl AsRawFd) -> u64 {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = 8;
    // SAFETY: writes at most 8 bytes into a number that has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_COOKIE,
            (&raw mut cookie).cast(),
            &mut length,
        )
    };
    assert_eq!(result, 0);
    cookie
}

fn own_netns() -> u32 {
    u32::try_from(fs::metadata("/proc/self/ns/net").unwrap().ino()).unwrap()
}

struct Pair {
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = listener.accept().unwrap().0;
        Self {
            listener,
            client,
            server,
        }
    }

    fn ports(&self) -> (u16, u16) {
        let port = |address: SocketAddr| address.port();
        (
            port(self.listener.local_addr().unwrap()),
            port(self.client.local_addr().unwrap()),
        )
    }
}

fn as_they_are() {
    let mut pair = Pair::new();
    pair.client.write_all(&[7; 1000]).unwrap();
    pair.server.read_exact(&mut [0; 600]).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let connected = UdpSocket::bind("[::1]:0").unwrap();
    connected.connect("[::1]:9").unwrap();
    let (served, asking) = pair.ports();
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    // SAFETY: takes nothing and touches no memory.
    let uid = unsafe { libc::getuid() };
    for options in by_every_means() {
        let all = snapshot(&options);
        let check = |row: &Row, kind: Kind, state: State, inode: u64| {
            let event = &row.event;
            assert_eq!(
                (event.kind, row.state, row.inode),
                (kind, state, Some(inode))
            );
            assert_eq!(event.origin, Origin::Seed);
            assert_eq!(event.netns, Some(own_netns()));
            assert_eq!(event.pid, Some(std::process::id()));
            assert_eq!(event.uid, Some(uid));
            assert_eq!(event.comm.unwrap().text(), comm.trim_end());
            let context = event.context.as_ref().unwrap();
            let exe = std::env::current_exe().unwrap();
            assert_eq!(context.exe.as_deref(), exe.to_str());
            let args: Vec<String> = std::env::args().collect();
            assert_eq!(context.args.as_ref(), Some(&args));
            // SAFETY: takes nothing and touches no memory.
            let parent = unsafe { libc::getppid() }.cast_unsigned();
            assert_eq!(context.parents.as_ref().unwrap()[0].pid, parent);
            let holders: Vec<u32> = event.holders.iter().flatten().map(|x| x.pid).collect();
            assert_eq!(holders, [std::process::id()]);
        };
        let diag = options.proc_root.is_none();
        let expect_cookie = |row: &Row, expected: u64| {
            assert_eq!(row.event.sock, diag.then_some(expected));
        };
        let listener = row(&all, served, None);
        check(listener, Kind::Listen, State::Listen, inode(&pair.listener));
        expect_cookie(listener, cookie(&pair.listener));
        let server = row(&all, served, Some(asking));
        check(server, Kind::Accept, State::Estab, inode(&pair.server));
        expect_cookie(server, cookie(&pair.server));
        assert_eq!(server.recv_queue, Some(400));
        let client = row(&all, asking, Some(served));
        check(client, Kind::Connect, State::Estab, inode(&pair.client));
        expect_cookie(client, cookie(&pair.client));
        if diag {
            // std listens with 128, or with as many as the system allows
            assert!(listener.send_queue.is_some_and(|backlog| backlog >= 128));
            assert_eq!(listener.event.backlog, listener.send_queue);
            assert_eq!(
                (server.event.rx_bytes, client.event.tx_bytes),
                (Some(1000), Some(1000))
            );
            assert!(client.event.rtt_us.is_some_and(|rtt| rtt > 0));
            assert_eq!(client.event.retrans, Some(0));
        }
        let bound = row(&all, udp.local_addr().unwrap().port(), None);
        check(bound, Kind::Bind, State::Unconn, inode(&udp));
        assert_eq!(
            (bound.event.proto, bound.event.family),
            (Some(Proto::Udp), Some(Family::Ipv4))
        );
        let sender = row(&all, connected.local_addr().unwrap().port(), Some(9));
        check(sender, Kind::Connect, State::Estab, inode(&connected));
        assert_eq!(sender.event.family, Some(Family::Ipv6));
        assert_eq!(sender.event.raddr, Some(Ipv6Addr::LOCALHOST.into()));
    }
}

fn queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        assert_eq!(row(&all, port, None).recv_queue, Some(1));
        let waiting = row(&all, port, Some(client.local_addr().unwrap().port()));
        assert_eq!(
            (waiting.inode, waiting.event.pid, waiting.event.uid),
            (None, None, None)
        );
    }
}

fn time_wait() {
    let Pair {
        listener,
        client,
        mut server,
    } = Pair::new();
    let served = listener.local_addr().unwrap().port();
    let asking = client.local_addr().unwrap().port();
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
    drop(server);
    for options in by_every_means() {
        let all = snapshot(&options);
        let left = row(&all, asking, Some(served));
        assert_eq!((left.state, left.inode), (State::TimeWait, None));
        assert_eq!((left.event.pid, left.event.holders.as_ref()), (None, None));
    }
}

fn mapped() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let _server = listener.accept().unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        let row = row(&all, port, Some(client.local_addr().unwrap().port()));
        assert_eq!(row.event.kind, Kind::Accept);
        assert_eq!(row.event.family, Some(Family::Ipv6));
        assert_eq!(row.event.laddr, Some("127.0.0.1".parse().unwrap()));
    }
}

fn mptcp() {
    let listener = mptcp_socket().unwrap();
    let client = mptcp_socket().unwrap();
    // SAFETY: the descriptor is open; without a bind the kernel chooses a port.
    assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 5) }, 0);
    let listener = TcpListener::from(listener);
    let port = listener.local_addr().unwrap().port();
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes([127, 0, 0, 1]),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address is whole and outlives the call.
    let connected = unsafe {
        let length = size_of_val(&address) as libc::socklen_t;
        libc::connect(client.as_raw_fd(), (&raw const address).cast(), length)
    };
    assert_eq!(connected, 0);
    let client = TcpStream::from(client);
    let asking = client.local_addr().unwrap().port();
    let waiting = snapshot(&ALL);
    assert_eq!(
        row(&waiting, port, Some(asking)).event.proto,
        Some(Proto::Mptcp)
    );
    let (server, _) = listener.accept().unwrap();
    let all = snapshot(&ALL);
    for (row, state, inode) in [
        (row(&all, port, None), State::Listen, inode(&listener)),
        (row(&all, asking, Some(port)), State::Estab, inode(&client)),
        (row(&all, port, Some(asking)), State::Estab, inode(&server)),
    ] {
        assert_eq!(row.event.proto, Some(Proto::Mptcp));
        assert_eq!((row.state, row.inode), (state, Some(inode)));
        assert_eq!(row.event.pid, Some(std::process::id()));
    }
    let cookie = rustix::net::sockopt::socket_cookie(&listener).unwrap();
    assert_eq!(row(&all, port, None).event.sock, Some(cookie));
}

fn shared_mptcp() {
    // Of as many at one place the kernel does not tell all as what they are.
    let sockets: Vec<Socket> = (0..6)
        .map(|_| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap())
        .collect();
    let mut at = SocketAddr::from(([127, 0, 0, 1], 0));
    for socket in &sockets {
        socket.set_reuse_port(true).unwrap();
        socket.bind(&at.into()).unwrap();
        at = socket.local_addr().unwrap().as_socket().unwrap();
        socket.listen(5).unwrap();
    }
    let all = snapshot(&ALL);
    let rows = rows(&all, at.port(), None);
    let mut found: Vec<u64> = rows.iter().filter_map(|row| row.inode).collect();
    found.sort_unstable();
    let mut expected: Vec<u64> = sockets.iter().map(inode).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.event.proto == Some(Proto::Mptcp)));
}

fn listening() {
    let pair = Pair::new();
    let (served, asking) = pair.ports();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    for options in by_every_means() {
        let listening = Options {
            listening: true,
            ..options
        };
        let some = snapshot(&listening);
        row(&some, served, None);
        row(&some, port, None);
        assert!(rows(&some, asking, Some(served)).is_empty());
        assert!(
            some.rows
                .iter()
                .all(|row| matches!(row.state, State::Listen | State::Unconn))
        );
    }
}

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

fn all_holders() {
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

fn other_namespace() {
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

fn namespace_of_a_thread() {
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

fn devices() {
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
const WITHOUT_FIRST_THREAD: &str = "without-first-thread";

/// Listens here and, as a thread, in a new namespace, until its input ends.
fn without_first_thread() -> ! {
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

fn first_thread_ended() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.arg(WITHOUT_FIRST_THREAD);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = Sleeper(command.spawn().unwrap());
    let stdout = process.0.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        for port in [4714, 4715] {
            assert_eq!(row(&all, port, None).event.pid, Some(process.0.id()));
        }
    }
}

fn mounted_namespace() {
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

/// A tree like /proc, made by hand: process 10 (`web`, a child of 1) in namespace 1 has a listener
/// and a connection, process 20 (`dns server`, in a container) in namespace 2 has a udp socket.
struct Tree(tempfile::TempDir);

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const TCP: &str = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000    33        0 1001 1 0000000000000000 100 0 0 10 0\n   1: 0100007F:1F90 0100007F:D431 01 00000004:00000005 00:00000000 00000000    33        0 1002 1 0000000000000000 20 4 30 10 -1\n";
const UDP: &str = "  100: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 2001 2 0000000000000000 0\n";

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (pid, parent, comm, netns, uid, sockets) in [
            (1, 0, "init", 1, 0, &[][..]),
            (10, 1, "web", 1, 33, &[1001, 1002][..]),
            (20, 1, "dns) server (", 2, 101, &[2001][..]),
        ] {
            let stat = format!("{pid} ({comm}) S {parent} {pid} {pid} 0 -1 4194560 1 2 3 4");
            tree.write(&format!("{pid}/stat"), &stat);
            tree.write(
                &format!("{pid}/status"),
                format!("Name:\tx\nUid:\t{uid}\t0\t0\t0\nGid:\t{uid}\t0\t0\t0\n"),
            );
            tree.write(&format!("{pid}/cmdline"), format!("/bin/{comm}\0-v\0"));
            let id = "3f2a".repeat(16);
            tree.write(&format!("{pid}/cgroup"), format!("0::/docker/{id}\n"));
            tree.link(&format!("{pid}/exe"), "/bin/program");
            tree.link(&format!("{pid}/ns/net"), format!("net:[{netns}]"));
            tree.link(&format!("{pid}/fd/0"), "/dev/null");
            tree.link(&format!("{pid}/fd/1"), "pipe:[1001]");
            for (number, inode) in sockets.iter().enumerate() {
                tree.link(
                    &format!("{pid}/fd/{}", number + 3),
                    format!("socket:[{inode}]"),
                );
            }
            let (tcp, udp) = if netns == 1 { (TCP, "") } else { ("", UDP) };
            tree.write(&format!("{pid}/net/tcp"), format!("{HEADING}{tcp}"));
            tree.write(&format!("{pid}/net/udp"), format!("{HEADING}{udp}"));
            tree.write(&format!("{pid}/net/tcp6"), HEADING);
            tree.write(&format!("{pid}/net/udp6"), HEADING);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let _ = fs::remove_file(self.path(name));
        fs::write(self.path(name), text).unwrap();
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        let _ = fs::remove_file(self.path(name));
        symlink(target, self.path(name)).unwrap();
    }

    fn fifo(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
        let made = Command::new("mkfifo").arg(self.path(name)).status();
        assert!(made.unwrap().success());
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    fn take(&self) -> Snapshot {
        let proc_root = Some(self.0.path().to_owned());
        snapshot(&Options { proc_root, ..ALL })
    }
}

fn recorded() {
    let all = Tree::new().take();
    assert_eq!((all.rows.len(), &all.limits), (3, &vec![]));
    let listener = row(&all, 8080, None);
    assert_eq!(
        (listener.event.netns, listener.event.kind),
        (Some(1), Kind::Listen)
    );
    assert_eq!((listener.recv_queue, listener.send_queue), (Some(3), None));
    let accepted = row(&all, 8080, Some(54321));
    assert_eq!(
        (accepted.event.kind, accepted.event.pid),
        (Kind::Accept, Some(10))
    );
    assert_eq!(
        (accepted.recv_queue, accepted.send_queue),
        (Some(5), Some(4))
    );
    let udp = &row(&all, 53, None).event;
    assert_eq!((udp.netns, udp.pid, udp.ppid), (Some(2), Some(20), Some(1)));
    assert_eq!((udp.uid, udp.gid), (Some(101), Some(101)));
    assert_eq!(udp.comm.unwrap().text(), "dns) server (");
    let context = udp.context.as_ref().unwrap();
    assert_eq!(context.exe.as_deref(), Some("/bin/program"));
    assert_eq!(context.args.as_ref().unwrap()[1], "-v");
    assert_eq!(context.container.as_deref(), Some("3f2a3f2a3f2a"));
    assert_eq!(context.parents.as_ref().unwrap()[0].comm, "init");
    // names of users are those of another machine
    assert_eq!(context.user, None);
}

fn damaged() {
    let tree = Tree::new();
    let cut = &TCP[..TCP.len() - 60];
    tree.write(
        "1/net/tcp",
        [HEADING.as_bytes(), cut.as_bytes(), b"\n\xff\xfe garbage\n"].concat(),
    );
    // processes that went away between two looks at them
    tree.remove("10/net");
    tree.remove("20/fd");
    tree.write("30/stat", "30 (");
    tree.write("10/stat", [0xff, b'(', 0x80, b')', b' ', b'S']);
    tree.write("10/ns/net", "no link");
    tree.link("10/fd/9", "socket:[many]");
    tree.write("10/fd/10", "no link either");
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    let listener = row(&all, 8080, None);
    // a process that cannot be read owns what it holds all the same
    assert_eq!(
        (listener.event.pid, listener.event.uid),
        (Some(10), Some(33))
    );
    assert_eq!(listener.event.holders.as_ref().unwrap()[0].pid, 10);
    assert_eq!(
        (
            row(&all, 53, None).event.pid,
            &row(&all, 53, None).event.holders
        ),
        (None, &None)
    );
    let limits = all.limits.join("\n");
    for expected in [
        "the network namespaces of 2 processes are not told",
        "2 lines of tables of sockets could not be understood",
        "4 lists or entries of processes could not be understood",
    ] {
        assert!(limits.contains(expected), "{limits}");
    }
}

fn incomplete_processes() {
    let tree = Tree::new();
    // which holds the listener of process 10 too
    tree.link("20/fd/9", "socket:[1001]");
    let whole = tree.take();
    for damage in [None, Some(&b""[..]), Some(b"\xff garbage"), Some(b"10 (we")] {
        for name in ["10/stat", "10/status", "10/cmdline"] {
            let tree = Tree::new();
            tree.link("20/fd/9", "socket:[1001]");
            tree.write("10/comm", "web\n");
            match damage {
                None => fs::remove_file(tree.path(name)).unwrap(),
                Some(text) => tree.write(name, text),
            }
            let all = tree.take();
            for remote in [None, Some(54321)] {
                let (whole, event) = (
                    &row(&whole, 8080, remote).event,
                    &row(&all, 8080, remote).event,
                );
                assert_eq!((event.pid, event.comm), (whole.pid, whole.comm), "{name}");
                assert_eq!(event.holders, whole.holders, "{name}");
                // of the socket, where the process does not tell
                assert_eq!(event.uid, Some(33), "{name}");
                let gid = whole.gid.filter(|_| name != "10/status");
                assert_eq!(event.gid, gid, "{name}");
                let ppid = whole.ppid.filter(|_| name != "10/stat");
                assert_eq!(event.ppid, ppid, "{name}");
            }
            // what else tells the same
            tree.write("10/status", "Name:\tweb\nPPid:\t1\n");
            tree.write("10/comm", "");
            let all = tree.take();
            let event = &row(&all, 8080, None).event;
            assert_eq!(event.comm.unwrap().text(), "web", "{name}");
            assert_eq!(event.ppid, Some(1), "{name}");
        }
    }
    // nothing but its number
    for name in ["10/stat", "10/status", "10/cmdline"] {
        fs::remove_file(tree.path(name)).unwrap();
    }
    let all = tree.take();
    let event = &row(&all, 8080, None).event;
    assert_eq!((event.pid, event.comm, event.ppid), (Some(10), None, None));
    assert_eq!((event.uid, event.gid), (Some(33), None));
}

fn no_regular_files() {
    let tree = Tree::new();
    for pid in [1, 10] {
        tree.link(&format!("{pid}/net/tcp"), "/dev/zero");
        tree.fifo(&format!("{pid}/net/udp6"));
    }
    for name in ["20/stat", "20/cgroup"] {
        tree.fifo(name);
    }
    tree.link("20/cmdline", "/dev/zero");
    // no device, but without an end as well
    fs::remove_file(tree.path("10/status")).unwrap();
    let endless = fs::File::create(tree.path("10/status")).unwrap();
    endless.set_len(1 << 40).unwrap();
    let all = tree.take();
    assert_eq!(all.rows.len(), 1);
    let udp = &row(&all, 53, None).event;
    assert_eq!((udp.pid, udp.uid), (Some(20), Some(101)));
    let context = udp.context.as_ref().unwrap();
    assert_eq!((&context.args, &context.cgroup), (&None, &None));
    let expected =
        "tables of sockets could not be read: tcp: not a regular file, udp6: not a regular file";
    assert_eq!(all.limits, [expected]);

    let tree = Tree::new();
    tree.write("1/net/tcp", format!("{HEADING}{}", "0".repeat(1 << 20)));
    tree.remove("10/net");
    let all = tree.take();
    assert_eq!(all.rows.len(), 1);
    let expected = "1 line of tables of sockets could not be understood and is left out";
    assert_eq!(all.limits, [expected]);
}

fn some_tables() {
    let limits = |there: &[&str]| {
        let tree = Tree::new();
        for pid in [1, 10, 20] {
            for table in ["tcp", "tcp6", "udp", "udp6"] {
                if !there.contains(&table) {
                    fs::remove_file(tree.path(&format!("{pid}/net/{table}"))).unwrap();
                }
            }
        }
        let all = tree.take();
        let ports: Vec<u16> = all
            .rows
            .iter()
            .map(|row| row.event.lport.unwrap())
            .collect();
        let expected = |table, port| {
            assert_eq!(ports.contains(&port), there.contains(&table), "{there:?}");
        };
        expected("tcp", 8080);
        expected("udp", 53);
        all.limits.join("\n")
    };
    let unread = "tables of sockets could not be read: ";
    let reason = "No such file or directory (os error 2)";
    for (there, missing) in [
        (&["tcp"][..], &["udp", "tcp6", "udp6"][..]),
        (&["udp", "udp6"], &["tcp", "tcp6"]),
        (&["tcp", "udp", "tcp6"], &["udp6"]),
        (&["tcp6"], &["tcp", "udp", "udp6"]),
    ] {
        let missing: Vec<String> = (missing.iter().map(|x| format!("{x}: {reason}"))).collect();
        assert_eq!(limits(there), format!("{unread}{}", missing.join(", ")));
    }
    // a kernel without IPv6
    assert_eq!(limits(&["tcp", "udp"]), "");

    // without processes, as a copy of net alone is
    let tree = Tree(tempfile::tempdir().unwrap());
    tree.write("net/tcp", format!("{HEADING}{TCP}"));
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    assert!(all.limits.join("\n").contains(&format!("udp: {reason}")));
}

fn no_namespaces() {
    let tree = Tree::new();
    for pid in [1, 10, 20] {
        tree.remove(&format!("{pid}/ns"));
    }
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    assert_eq!(row(&all, 8080, None).event.netns, None);
    assert_eq!(row(&all, 8080, None).event.pid, Some(10));
    assert_eq!(
        all.limits,
        ["network namespaces cannot be told apart: only one is shown"]
    );
}

fn no_proc() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| {
        let proc_root = Some(path);
        format!("{:#}", take(&Options { proc_root, ..ALL }).unwrap_err())
    };
    let error = refused(folder.path().to_owned());
    assert!(error.contains("has no tables of sockets"), "{error}");
    let error = refused(folder.path().join("nothing"));
    assert!(error.contains("No such file or directory"), "{error}");
}
