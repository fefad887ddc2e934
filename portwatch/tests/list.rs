//! `portwatch list` as a program, on sockets that these tests opened.

mod elsewhere;
mod program;
mod promises;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

use elsewhere::{Elsewhere, listener_elsewhere};
use program::{outcome, portwatch};
use promises::{root, run};

const NOBODY: u32 = 65534;

fn main() {
    let root = root();
    run(
        &[
            ("without_a_command_servers_are_listed", None, servers),
            ("all_shows_every_state", None, every_state),
            ("filters_and_states_select", None, filters),
            ("rows_are_in_the_order_asked_for", None, order),
            ("csv_has_a_row_for_each", None, csv),
            ("a_group_is_one_row", None, group),
            ("a_name_that_is_no_text_is_shown_whole", None, name),
            (
                "a_group_is_that_of_the_lowest_pid_with_the_queues_of_all",
                None,
                workers,
            ),
            (
                "a_group_of_mptcp_is_that_of_the_lowest_pid_with_the_queues_of_all",
                None,
                mptcp_workers,
            ),
            ("nothing_found_is_a_header_and_no_error", None, nothing),
            ("wrong_usage_is_exit_code_2", None, wrong_usage),
            (
                "a_filter_that_fails_on_a_row_is_a_failure",
                None,
                failing_filter,
            ),
            ("a_closed_pipe_is_a_normal_end", None, closed_pipe),
            ("help_that_cannot_be_written_is_a_failure", None, full_disk),
            ("other_namespaces_are_listed_as_such", root, namespaces),
            (
                "names_of_namespaces_here_are_not_for_another_proc",
                root,
                named_namespace,
            ),
            (
                "an_ordinary_user_gets_one_hint_and_no_error",
                root,
                ordinary_user,
            ),
            (
                "a_proc_that_hides_processes_is_in_the_hint",
                root,
                hidden_processes,
            ),
        ],
        // What one test forks has the sockets of the others for a moment.
        true,
    )
}

/// What it prints, which has to go well.
fn prints(args: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(portwatch(args).output().unwrap());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn rows(args: &[&str]) -> Vec<Value> {
    let stdout = prints(args);
    stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn own_pid() -> String {
    std::process::id().to_string()
}

fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

fn servers() {
    let (_listener, tcp) = listener();
    let receiver = UdpSocket::bind("[::1]:0").unwrap();
    let udp = receiver.local_addr().unwrap().port();
    let rows = rows(&["-o", "json"]);
    let row =
        |port: u16| -> Vec<&Value> { rows.iter().filter(|row| row["lport"] == port).collect() };
    let [listener] = row(tcp)[..] else {
        panic!("not one row: {rows:?}")
    };
    let expected = [
        ("proto", "tcp".into()),
        ("state", "LISTEN".into()),
        ("family", "ipv4".into()),
        ("laddr", "127.0.0.1".into()),
        ("pid", std::process::id().into()),
        ("backlog", 128.into()),
        ("recv_queue", 0.into()),
        (
            "exe",
            std::env::current_exe().unwrap().to_str().unwrap().into(),
        ),
        (
            "netns",
            std::fs::metadata("/proc/self/ns/net").unwrap().ino().into(),
        ),
    ];
    for (key, value) in expected {
        let value: Value = value;
        assert_eq!(listener[key], value, "{key}: {listener}");
    }
    assert_eq!(listener.get("rport"), None);
    let udp = row(udp)[0];
    assert_eq!(
        (&udp["state"], &udp["laddr"]),
        (&"UNCONN".into(), &"::1".into())
    );

    let table = prints(&[]);
    assert!(table.starts_with("PROTO LOCAL"), "{table}");
    let line = table
        .lines()
        .find(|line| line.contains(&format!("127.0.0.1:{tcp} ")));
    assert!(line.expect(&table).contains(&own_pid()), "{table}");
}

fn every_state() {
    let (listener, port) = listener();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let port = port.to_string();
    let states = |rows: Vec<Value>| {
        let mut states: Vec<String> = (rows.iter())
            .map(|row| row["state"].as_str().unwrap().to_owned())
            .collect();
        states.sort();
        states
    };
    let only_servers = rows(&["list", "-P", &port, "-o", "json"]);
    assert_eq!(states(only_servers), ["LISTEN"]);
    let all = rows(&["-a", "-P", &port, "-o", "json"]);
    assert_eq!(states(all), ["ESTAB", "ESTAB", "LISTEN"]);
    drop(client);
    // a FIN that has arrived
    let mut byte = [0];
    std::io::Read::read(&mut &accepted, &mut byte).unwrap();
    let only_listen = rows(&["-a", "--state", "listen", "-P", &port, "-o", "json"]);
    assert_eq!(states(only_listen), ["LISTEN"]);
    let half_closed = rows(&[
        "--state",
        "close-wait,fin-wait-2",
        "-P",
        &port,
        "-o",
        "json",
    ]);
    assert_eq!(states(half_closed), ["CLOSE-WAIT", "FIN-WAIT-2"]);
}

fn filters() {
    let (_listener, port) = listener();
    let pid = own_pid();
    let text = port.to_string();
    let condition = format!("lport == {port} && state == \"LISTEN\" && rport == null");
    for (args, found) in [
        (&["-P", &text, "-p", &pid][..], true),
        (&["-P", &text, "-p", "1"], false),
        (&["-P", &text, "-U"], false),
        (&["-P", &text, "-t", "-4"], true),
        (&["-P", &text, "-6"], false),
        (&["-P", &text, "--net", "127.0.0.0/8"], true),
        (&["-P", &text, "--net", "10.0.0.0/8"], false),
        (&["-P", &text, "--net", "::ffff:127.0.0.0/104"], true),
        (&["-P", &text, "--net", "::ffff:10.0.0.1"], false),
        (&["-P", &text, "--netns", "/proc/self/ns/net"], true),
        (&["-P", &text, "--comm", "no-such-comm"], false),
        (&["--filter", &condition], true),
        (&["--filter", &condition.replace("==", "!=")], false),
    ] {
        let args = [args, &["-o", "json"]].concat();
        let hit = rows(&args)
            .iter()
            .any(|row| row["lport"] == port && row["pid"] != 1);
        assert_eq!(hit, found, "{args:?}");
    }
}

fn order() {
    let _listeners = [listener(), listener(), listener()];
    let pid = own_pid();
    let ports = |sort: &str| -> Vec<u64> {
        let rows = rows(&[
            "-t", "-p", &pid, "--sort", sort, "-F", "lport", "-o", "json",
        ]);
        rows.iter()
            .map(|row| row["lport"].as_u64().unwrap())
            .collect()
    };
    // others of this process come and go meanwhile, but each answer is in order
    assert!(ports("lport").is_sorted());
    assert!(ports("-lport").is_sorted_by(|a, b| a >= b));
    assert!(ports("lport").len() >= 3);
}

fn csv() {
    let (_listener, port) = listener();
    let port = port.to_string();
    let stdout = prints(&[
        "-P",
        &port,
        "-t",
        "-o",
        "csv",
        "-F",
        "state,lport,pid,raddr",
    ]);
    let expected = format!("state,lport,pid,raddr\nLISTEN,{port},{},\n", own_pid());
    assert_eq!(stdout, expected);
}

/// A socket of a group.
fn member(proto: Protocol, port: u16, backlog: i32) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(proto))?;
    socket.set_reuse_port(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

/// A process with a socket of a group, which it never accepts from.
fn worker(proto: Protocol, port: u16, backlog: i32) -> Elsewhere {
    let mut command = Command::new("sleep");
    command.arg("600").stdout(Stdio::null());
    command.stderr(Stdio::null());
    let listen = move || {
        let socket = member(proto, port, backlog)?;
        socket.set_cloexec(false)?;
        // open until the process ends
        std::mem::forget(socket);
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(listen) };
    Elsewhere(command.spawn().unwrap())
}

fn workers() {
    workers_of(Protocol::TCP);
}

fn mptcp_workers() {
    match member(Protocol::MPTCP, 0, 1) {
        Ok(_) => workers_of(Protocol::MPTCP),
        Err(error) => eprintln!("NOT RUN: no mptcp on this kernel: {error}"),
    }
}

fn workers_of(proto: Protocol) {
    const WAITING: usize = 4;
    let first = member(proto, 0, 1).unwrap();
    let port = port_of(&first);
    let workers = [4, 5, 6].map(|backlog| worker(proto, port, backlog));
    drop(first);
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let _clients: Vec<TcpStream> = (0..WAITING)
        .map(|_| TcpStream::connect(addr).unwrap())
        .collect();
    let mut pids = workers.each_ref().map(|x| x.0.id());
    pids.sort_unstable();
    let port = port.to_string();
    for source in [
        &[][..],
        &["--proc-root", "/proc"],
        &["--from", "poll", "-d", "100ms"],
    ] {
        let rows = rows(&[&["list", "-P", &port, "-o", "json"], source].concat());
        let [row] = &rows[..] else {
            panic!("{source:?}: not one row: {rows:?}")
        };
        let holders: Vec<&Value> = (row["holders"].as_array().unwrap().iter())
            .map(|holder| &holder["pid"])
            .collect();
        assert_eq!(holders, pids, "{source:?}");
        assert_eq!(row["pid"], pids[0], "{source:?}");
        assert_eq!(row["ppid"], std::process::id(), "{source:?}");
        assert_eq!(row["recv_queue"], WAITING, "{source:?}");
        // /proc does not tell it
        if !source.contains(&"--proc-root") {
            let room = (&row["backlog"], &row["send_queue"]);
            assert_eq!(room, (&15.into(), &15.into()), "{source:?}");
        }
    }
    let answer = prints(&["who", &port, "-t"]);
    let owner = format!("{port}/tcp: sleep (pid {}, ", pids[0]);
    assert!(answer.starts_with(&owner), "{answer}");
    assert!(
        answer.contains(" 4 of 15 wait to be accepted\n"),
        "{answer}"
    );
}

fn group() {
    let first = member(Protocol::TCP, 0, 1).unwrap();
    let port = port_of(&first);
    let _others = [port, port].map(|port| member(Protocol::TCP, port, 1).unwrap());
    let rows = rows(&["-P", &port.to_string(), "-o", "json"]);
    let [row] = &rows[..] else {
        panic!("not one row: {rows:?}")
    };
    let socks: std::collections::BTreeSet<u64> = (row["holders"].as_array().unwrap().iter())
        .map(|holder| {
            assert_eq!(holder["pid"], std::process::id());
            holder["sock"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(socks.len(), 3, "{row}");
    assert_eq!((row.get("sock"), row.get("inode")), (None, None));
}

fn name() {
    let script = "import socket, sys; open('/proc/self/comm', 'wb').write(b'\\xff' * 8 + b'\\\\'); \
                  s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
                  print(s.getsockname()[1], flush=True); sys.stdin.read()";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut port).unwrap();
    let (port, bytes) = (port.trim(), r"\xff".repeat(8));
    let row = &rows(&["-P", port, "-o", "json"])[0];
    assert_eq!(row["comm"], format!(r"{bytes}\"));
    assert_eq!(row["holders"][0]["comm"], row["comm"]);
    let table = prints(&["-P", port, "-F", "comm"]);
    // for people, a backslash is told from what it begins
    assert_eq!(table, format!("COMM\n{bytes}\\\\\n"));
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn nothing() {
    // never handed out: it is no port
    let table = prints(&["--filter", "lport == 0 && rport == 70000"]);
    assert_eq!(table, "PROTO LOCAL PID COMM USER QUEUE SERVICE\n");
    assert_eq!(prints(&["--filter", "lport == 70000", "-o", "json"]), "");
}

fn wrong_usage() {
    for (args, expected) in [
        (&["--filter", "dport == 1"][..], "no name 'dport'"),
        (&["list", "--uid", "no-such-user"], "no user 'no-such-user'"),
        (&["-u", "-1"], "no user '-1'"),
        (&["--netns", "/proc/self/ns/uts"], "is no network namespace"),
        (&["--filter", "uid == \"root\""], "int compared with string"),
        (&["--filter", "comm.matches(\"[\")"], "not a valid regex"),
        (&["--frobnicate"], "--frobnicate"),
        (&["--probes", "tracepoint"], "--duration <TIME>"),
        (&["list", "--interval", "50ms"], "--duration <TIME>"),
    ] {
        let (code, stdout, stderr) = outcome(portwatch(args).output().unwrap());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}

fn closed_pipe() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = portwatch(&["-a", "-o", "json"]);
    let (code, _, stderr) = outcome(command.stdout(writer).output().unwrap());
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

fn failing_filter() {
    let (_listener, port) = listener();
    let filter = format!("lport == {port} && args[1000] == \"x\"");
    let (code, stdout, stderr) = outcome(
        portwatch(&["-o", "json", "--filter", &filter])
            .output()
            .unwrap(),
    );
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    let complaint = "could not be evaluated once, and nothing was shown then: Index out of bounds";
    assert!(stderr.contains(complaint), "{stderr}");
}

fn full_disk() {
    let to_full = |args: &[&str]| {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let (code, _, stderr) = outcome(portwatch(args).stdout(full.unwrap()).output().unwrap());
        assert_eq!(code, Some(1), "{args:?}");
        let expected = "portwatch: writing to stdout: No space left on device";
        assert!(stderr.starts_with(expected), "{stderr}");
    };
    to_full(&["doctor"]);
    for args in [&["--help"][..], &["--version"], &["list", "-h"]] {
        to_full(args);
        let mut command = portwatch(args);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, _, stderr) = outcome(command.stdout(writer).output().unwrap());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}");
    }
}

fn namespaces() {
    let (own, port) = listener();
    let child = listener_elsewhere(port);
    let netns = std::fs::metadata(format!("/proc/{}/ns/net", child.0.id()))
        .unwrap()
        .ino();
    let port = port.to_string();
    let both = rows(&["-P", &port, "-o", "json"]);
    let pids: Vec<&Value> = both.iter().map(|row| &row["pid"]).collect();
    assert!(pids.contains(&&child.0.id().into()), "{both:?}");
    assert!(pids.contains(&&std::process::id().into()), "{both:?}");
    let netns_filter = netns.to_string();
    let rows = rows(&["-P", &port, "--netns", &netns_filter, "-o", "json"]);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (&rows[0]["netns"], &rows[0]["comm"]),
        (&netns.into(), &"sleep".into())
    );
    let table = prints(&["-P", &port, "--netns", &netns_filter]);
    assert!(table.contains("WHERE"), "{table}");
    assert!(table.contains(&format!("net:{netns}")), "{table}");
    drop(own);
}

fn named_namespace() {
    let (own, port) = listener();
    let child = listener_elsewhere(port);
    let name = format!("pw{}", std::process::id());
    let place = Path::new("/run/netns").join(&name);
    std::fs::create_dir_all("/run/netns").unwrap();
    let namespace = format!("/proc/{}/ns/net", child.0.id());
    std::os::unix::fs::symlink(namespace, &place).unwrap();
    let port = port.to_string();
    let here = prints(&["-P", &port]);
    let elsewhere = prints(&["-P", &port, "--proc-root", "/proc"]);
    std::fs::remove_file(&place).unwrap();
    assert!(here.contains(&name), "{here}");
    assert!(elsewhere.contains("net:"), "{elsewhere}");
    assert!(!elsewhere.contains(&name), "{elsewhere}");
    drop(own);
}

/// Copies the program to where everybody may run it.
fn public_program() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("portwatch");
    // By another process: one that is forked here meanwhile would have it open for writing.
    let mut copy = Command::new("cp");
    let copied = copy
        .arg(env!("CARGO_BIN_EXE_portwatch"))
        .arg(&program)
        .status();
    assert!(copied.unwrap().success());
    for path in [folder.path(), &program] {
        let all = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, all).unwrap();
    }
    (folder, program)
}

fn hidden_processes() {
    let (_folder, program) = public_program();
    let script = "mount -t proc -o hidepid=2 proc /proc && \
                  exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\" -o json";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&program);
    let (code, _, stderr) = outcome(
        command
            .stdin(Stdio::null())
            .current_dir("/")
            .output()
            .unwrap(),
    );
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let hint = "/proc hides the processes of other users (hidepid)";
    assert!(
        stderr.contains(hint) && stderr.contains("needs root"),
        "{stderr}"
    );
}

fn ordinary_user() {
    let (_listener, port) = listener();
    let (_folder, program) = public_program();
    let mut command = Command::new(&program);
    command.args(["-P", &port.to_string(), "-o", "json"]);
    command
        .uid(NOBODY)
        .gid(NOBODY)
        .stdin(Stdio::null())
        .current_dir("/");
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let row: Value = serde_json::from_str(stdout.trim()).expect(&stdout);
    assert_eq!(
        (&row["lport"], &row["state"]),
        (&port.into(), &"LISTEN".into())
    );
    assert_eq!(
        (row.get("pid"), row.get("comm"), row.get("exe")),
        (None, None, None)
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("root"), "{stderr}");
}
