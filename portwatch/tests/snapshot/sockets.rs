//! Sockets of this process, in every state.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;

use portwatch::event::{Family, Kind, Origin, Proto};
use portwatch::row::{Row, State};
use portwatch::snapshot::Options;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{ALL, by_every_means, cookie, inode, mptcp_socket, own_netns, row, rows, snapshot};

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

pub fn as_they_are() {
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
                (event.kind, row.state, row.event.inode),
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
            assert_eq!(context.args.as_deref(), Some(&args[..]));
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

pub fn queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for options in by_every_means() {
        let all = snapshot(&options);
        assert_eq!(row(&all, port, None).recv_queue, Some(1));
        let waiting = row(&all, port, Some(client.local_addr().unwrap().port()));
        assert_eq!(
            (waiting.event.inode, waiting.event.pid, waiting.event.uid),
            (None, None, None)
        );
    }
}

pub fn time_wait() {
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
        assert_eq!((left.state, left.event.inode), (State::TimeWait, None));
        assert_eq!((left.event.pid, left.event.holders.as_ref()), (None, None));
    }
}

pub fn mapped() {
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

pub fn mptcp() {
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
        assert_eq!((row.state, row.event.inode), (state, Some(inode)));
        assert_eq!(row.event.pid, Some(std::process::id()));
    }
    let cookie = rustix::net::sockopt::socket_cookie(&listener).unwrap();
    assert_eq!(row(&all, port, None).event.sock, Some(cookie));
}

pub fn shared_mptcp() {
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
    let mut found: Vec<u64> = rows.iter().filter_map(|row| row.event.inode).collect();
    found.sort_unstable();
    let mut expected: Vec<u64> = sockets.iter().map(inode).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.event.proto == Some(Proto::Mptcp)));
}

pub fn listening() {
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
