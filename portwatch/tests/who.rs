//! `portwatch who` as a program, on sockets that these tests opened.

mod elsewhere;
mod program;
mod promises;

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use elsewhere::listener_elsewhere;
use program::{outcome, portwatch};
use promises::{root, run};

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some(BIND) => bind(),
        Some(V6ONLY) => wildcards(),
        _ => {}
    }
    let root = root();
    let lacks = |flags: &[&str]| unshare(flags, "true", &[]).is_none_or(|x| x.0 != Some(0));
    let user = lacks(&["-Urn"]).then_some("user namespaces and unshare");
    let range = from_port(1).err().map(|_| "Linux 6.3");
    let pid = lacks(&PID).then_some("root and unshare");
    run(
        &[
            ("the_first_line_names_who_listens", None, listener),
            ("json_tells_of_servers_peers_and_binds", None, json),
            ("a_free_port_is_told_with_exit_code_0", None, free),
            ("a_client_is_named_and_no_success_promised", None, client),
            ("a_connection_of_ipv6_may_be_in_the_way_of_ipv4", None, ipv6),
            ("wait_tells_who_failed_and_who_frees_it", root, wait),
            (
                "another_proc_is_asked_and_watched_by_polling",
                None,
                another_proc,
            ),
            (
                "wait_tells_of_connections_made_from_there",
                root.or(range),
                wait_for_connections,
            ),
            (
                "a_privilege_counts_only_where_the_network_namespace_belongs",
                user,
                privilege,
            ),
            (
                "a_setting_makes_the_wildcard_of_ipv6_one_for_ipv6_only",
                user,
                v6only,
            ),
            (
                "processes_outside_of_the_pid_namespace_are_said_to_be_hidden",
                pid,
                pid_namespace,
            ),
            (
                "a_namespace_that_cannot_be_entered_is_said_to_be_read_from_proc",
                root,
                not_entered,
            ),
            (
                "owners_that_the_kernel_tells_are_not_said_to_be_hidden",
                root,
                told_by_the_kernel,
            ),
        ],
        // A port that one has just freed must not be picked by another.
        true,
    )
}

fn who(args: &[&str]) -> Command {
    portwatch(&[&["who"], args].concat())
}

/// What it prints, which has to go well.
fn prints(args: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(who(args).output().unwrap());
    assert_eq!(code, Some(0), "{args:?}: {stderr}");
    stdout
}

fn open() -> (TcpListener, u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port, port.to_string())
}

fn own_comm() -> String {
    std::fs::read_to_string("/proc/self/comm")
        .unwrap()
        .trim_end()
        .to_owned()
}

fn listener() {
    let (_listener, _, port) = open();
    let text = prints(&[&port]);
    let first = text.lines().next().unwrap();
    let start = format!(
        "{port}/tcp: {} (pid {}, user ",
        own_comm(),
        std::process::id()
    );
    assert!(first.starts_with(&start), "{text}");
    assert!(first.contains(") listens on 127.0.0.1"), "{text}");
    let last = text.lines().last().unwrap();
    let verdict = format!("verdict: {port}/tcp is taken on 127.0.0.1 by ");
    assert!(last.starts_with(&verdict), "{text}");
}

fn json() {
    let (listener, port, text) = open();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = listener.accept().unwrap();
    let answer: Value = serde_json::from_str(&prints(&[&text, "-t", "-o", "json"])).unwrap();
    assert_eq!(answer["port"], port);
    let [tcp] = &answer["protocols"].as_array().unwrap()[..] else {
        panic!("more than tcp: {answer}")
    };
    assert_eq!(tcp["servers"][0]["pid"], std::process::id());
    assert_eq!(tcp["states"][0]["state"], "ESTAB");
    assert_eq!(tcp["peers"][0]["raddr"], "127.0.0.1");
    assert_eq!(tcp["clients"][0]["pid"], std::process::id());
    for (bind, addr) in tcp["binds"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["0.0.0.0", "::"])
    {
        assert_eq!(
            (&bind["laddr"], &bind["error"]),
            (&addr.into(), &"EADDRINUSE".into())
        );
    }
    let elsewhere = format!("127.0.0.2:{port}");
    let answer: Value = serde_json::from_str(&prints(&[&elsewhere, "-t", "-o", "json"])).unwrap();
    assert_eq!(answer["addr"], "127.0.0.2");
    assert_eq!(answer["protocols"][0]["binds"][0].get("error"), None);
    drop((client, accepted));
}

fn free() {
    let (listener, _, port) = open();
    drop(listener);
    let text = prints(&[&port]);
    let first = format!("{port}/tcp: free, nobody has it");
    assert_eq!(text.lines().next(), Some(first.as_str()));
    let last = format!("verdict: {port}/tcp+udp is free: a bind succeeds");
    assert_eq!(text.lines().last(), Some(last.as_str()));
}

fn client() {
    let (listener, at, _) = open();
    let client = TcpStream::connect(("127.0.0.1", at)).unwrap();
    let port = client.local_addr().unwrap().port();
    let text = prints(&[&port.to_string(), "-t"]);
    let verdict = format!(
        "verdict: a bind to {port}/tcp fails with EADDRINUSE unless it and the sockets there set \
         SO_REUSEADDR: nobody listens, but {} (pid {}) has it",
        own_comm(),
        std::process::id()
    );
    assert_eq!(text.lines().last(), Some(verdict.as_str()));
    let json = prints(&[&port.to_string(), "-t", "-o", "json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    for bind in answer["protocols"][0]["binds"].as_array().unwrap() {
        assert_eq!(bind["error"], "EADDRINUSE");
        assert_eq!(bind.get("error_if"), None);
        assert_eq!(bind["error_with_reuseaddr"], "EADDRINUSE");
        let conditions = &bind["error_with_reuseaddr_if"];
        assert_eq!(conditions[0], "a socket there has not set SO_REUSEADDR");
    }
    // The server's end of that connection is no client, whether it is accepted or not.
    assert_eq!(answer["protocols"][0]["clients"], Value::Array(Vec::new()));
    let accepted = listener.accept().unwrap();
    let json = prints(&[&port.to_string(), "-t", "-o", "json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(answer["protocols"][0]["clients"], Value::Array(Vec::new()));
    drop((listener, accepted));
}

fn ipv6() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("::1", port)).unwrap();
    let accepted = listener.accept().unwrap();
    drop(listener);
    let text = prints(&[&format!("0.0.0.0:{port}"), "-t"]);
    let own = format!("{} (pid {})", own_comm(), std::process::id());
    let bind = format!(
        "  bind         0.0.0.0: perhaps EADDRINUSE unless both set SO_REUSEADDR (ESTAB of {own} on \
         [::1], which counts for IPv4 too unless it is for IPv6 only)"
    );
    assert!(text.lines().any(|line| line == bind), "{text}");
    let verdict = format!("verdict: a bind to 0.0.0.0:{port}/tcp may fail with EADDRINUSE unless ");
    assert!(text.lines().last().unwrap().starts_with(&verdict), "{text}");
    drop((client, accepted));
}

fn wait() {
    let (listener, port, text) = open();
    let mut child = who(&[&text, "-t", "--wait", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(
        next()["protocols"][0]["servers"][0]["pid"],
        std::process::id()
    );
    // comes and goes without a word: it neither takes nor frees the port
    drop((
        TcpStream::connect(("127.0.0.1", port)).unwrap(),
        listener.accept().unwrap(),
    ));
    TcpListener::bind(("127.0.0.1", port)).unwrap_err();
    let failed = next();
    assert_eq!(
        (&failed["event"], &failed["error"]),
        (&"bind".into(), &"EADDRINUSE".into())
    );
    assert_eq!(
        (&failed["lport"], &failed["pid"]),
        (&port.into(), &std::process::id().into())
    );
    assert_eq!(failed["holders"][0]["pid"], std::process::id());
    drop(listener);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"]),
        (&"close".into(), &port.into())
    );
    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    assert_eq!(next()["event"], "bind");
    assert_eq!(next()["event"], "listen");
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    let (code, _, stderr) = outcome(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0));
    // Whether it is, as trace does.
    assert!(stderr.contains("complete: "), "{stderr}");
}

fn another_proc() {
    let (listener, port, text) = open();
    for (addr, verdict) in [
        (
            "[fe80::2]:29999",
            "fails with EINVAL: the address means nothing without an interface",
        ),
        ("[ff05::1]:29999", "fails with EINVAL: tcp has no multicast"),
        ("203.0.113.7:29999", "is free: a bind succeeds"),
    ] {
        let answer = who(&[addr, "-t", "--proc-root", "/proc"]).output().unwrap();
        let (_, answer, said) = outcome(answer);
        assert!(answer.contains(verdict), "{answer}");
        let told = "the kernel's default settings, if the machine has that address";
        assert!(said.contains(told), "{said}");
    }
    let (code, ..) = outcome(who(&[&text, "--interval", "1s"]).output().unwrap());
    assert_eq!(code, Some(2));
    let polling = ["--proc-root", "/proc", "--wait", "--interval", "20ms"];
    let args = [&[text.as_str(), "-t", "-o", "json"], &polling[..]].concat();
    let mut child = who(&args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    let answer = next();
    let server = &answer["protocols"][0]["servers"][0];
    assert_eq!(server["pid"], std::process::id());
    // Here it may be another than there.
    assert_eq!(server.get("user"), None);
    let here = who(&[&text, "-t", "-o", "json"]).output().unwrap();
    let here: Value = serde_json::from_slice(&here.stdout).unwrap();
    let started = |server: &Value| -> jiff::Timestamp {
        server["started"].as_str().unwrap().parse().unwrap()
    };
    let apart = started(server) - started(&here["protocols"][0]["servers"][0]);
    assert!(apart.get_seconds().abs() <= 2, "{server}");
    let limits = answer["limits"].to_string();
    let told = "what becomes of a bind is told for a process with privileges";
    assert!(limits.contains(told), "{limits}");
    drop(listener);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"], &freed["origin"]),
        (&"close".into(), &port.into(), &"poll".into())
    );
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A socket that connects from this port without a bind, and leaves nothing behind.
fn from_port(port: u16) -> std::io::Result<Socket> {
    const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    let range = u32::from(port) << 16 | u32::from(port);
    // SAFETY: the descriptor is open, and the value is of the size told.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw const range).cast(),
            size_of_val(&range) as libc::socklen_t,
        )
    };
    match refused {
        0 => Ok(socket),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn wait_for_connections() {
    let (server, at, _) = open();
    let (free, port, text) = open();
    drop(free);
    let connect = || {
        let socket = from_port(port).unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], at));
        socket.connect(&server.into()).unwrap();
        socket
    };
    let before = connect();
    let mut child = who(&[&text, "-t", "--wait", "-o", "json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["protocols"][0]["states"][0]["state"], "ESTAB");
    drop(before);
    let freed = next();
    assert_eq!(
        (&freed["event"], &freed["lport"]),
        (&"close".into(), &port.into())
    );
    let after = connect();
    let taken = next();
    assert_eq!(
        (&taken["event"], &taken["lport"], &taken["pid"]),
        (&"connect".into(), &port.into(), &std::process::id().into())
    );
    drop(after);
    assert_eq!(next()["event"], "close");
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(server);
}

/// What a program prints in new namespaces, and its exit code; `None` without unshare(1).
fn unshare(flags: &[&str], program: &str, args: &[&str]) -> Option<(Option<i32>, String, String)> {
    let mut command = Command::new("unshare");
    let command = command.args(flags).arg("--").arg(program).args(args);
    command.stdin(Stdio::null()).output().ok().map(outcome)
}

/// Runs this program as one that binds to a port that needs a privilege.
const BIND: &str = "bind-privileged";

/// Says whether that is denied.
fn bind() -> ! {
    let error = TcpListener::bind("0.0.0.0:1").err();
    let denied = error.and_then(|x| x.raw_os_error()) == Some(libc::EACCES);
    println!("{denied}");
    std::process::exit(0);
}

fn privilege() {
    let own = std::env::current_exe().unwrap();
    for flags in ["-Ur", "-Urn"] {
        let (_, truth, _) = unshare(&[flags], own.to_str().unwrap(), &[BIND]).unwrap();
        let program = env!("CARGO_BIN_EXE_portwatch");
        let (_, text, stderr) = unshare(&[flags], program, &["who", "1", "-t"]).unwrap();
        let denied = text.contains("verdict: a bind to 1/tcp fails with EACCES");
        assert_eq!(denied.to_string(), truth.trim_end(), "{text}{stderr}");
    }
}

/// Runs this program as one that compares what `who` says of wildcards with binds.
const V6ONLY: &str = "bind-wildcards";

/// With each value of the setting of its network namespace.
fn wildcards() -> ! {
    const SETTING: &str = "/proc/sys/net/ipv6/bindv6only";
    let socket = |domain| Socket::new(domain, Type::STREAM, None).unwrap();
    for (value, succeeds) in [("0", false), ("1", true)] {
        if !std::path::Path::new(SETTING).exists() {
            eprintln!("NOT RUN: no IPv6 on this kernel");
            break;
        }
        std::fs::write(SETTING, value).unwrap();
        let listener = socket(Domain::IPV4);
        let any = SocketAddr::from(([0, 0, 0, 0], 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let port = listener.local_addr().unwrap().as_socket().unwrap().port();
        let text = prints(&[&port.to_string(), "-t", "-o", "json"]);
        let answer: Value = serde_json::from_str(&text).unwrap();
        let told = &answer["protocols"][0]["binds"][1];
        let all = SocketAddr::from(([0; 16], port));
        let truth = socket(Domain::IPV6).bind(&all.into()).is_ok();
        assert_eq!(truth, succeeds);
        assert_eq!(told.get("error").is_none(), truth, "{text}");
    }
    std::process::exit(0);
}

fn v6only() {
    let own = std::env::current_exe().unwrap();
    let (code, _, stderr) = unshare(&["-Urn"], own.to_str().unwrap(), &[V6ONLY]).unwrap();
    eprint!("{stderr}");
    assert_eq!(code, Some(0));
}

/// What could not be seen, and the pid of the first server of tcp.
fn limits_and_owner(json: &str) -> (String, Option<u64>) {
    let answer: Value = serde_json::from_str(json).unwrap();
    let owner = answer["protocols"][0]["servers"][0]["pid"].as_u64();
    (answer["limits"].to_string(), owner)
}

/// A pid namespace with a /proc of its own.
const PID: [&str; 3] = ["-p", "-f", "--mount-proc"];

fn pid_namespace() {
    let (_listener, _, port) = open();
    let program = env!("CARGO_BIN_EXE_portwatch");
    let (_, json, stderr) = unshare(&PID, program, &["who", &port, "-t", "-o", "json"]).unwrap();
    let hidden = "processes outside of this pid namespace cannot be seen: owners of their sockets \
                  are not shown, and sockets of network namespaces that only they are in are missing";
    let (limits, owner) = limits_and_owner(&json);
    assert!(limits.contains(hidden), "{json}");
    assert!(stderr.contains(hidden), "{stderr}");
    assert_eq!(owner, None);
    // Also where two look there, it is said once.
    let wait = "\"$0\" who \"$1\" -t --wait --from poll | head -n 1";
    let (_, _, stderr) = unshare(&PID, "sh", &["-c", wait, program, &port]).unwrap();
    assert_eq!(stderr.matches(hidden).count(), 1, "{stderr}");
    // Polling has the same eyes.
    let polling = ["trace", "--from", "poll", "-d", "10ms"];
    let (_, _, stderr) = unshare(&PID, program, &polling).unwrap();
    assert!(stderr.contains(hidden), "{stderr}");
    // Nor does it see those that have sockets where there are none here.
    let alone = [&PID[..], &["-n"]].concat();
    for args in [&["list"][..], &["list", "-d", "10ms"]] {
        let (_, _, stderr) = unshare(&alone, program, args).unwrap();
        assert!(stderr.contains(hidden), "{args:?}: {stderr}");
    }
}

/// The answer for a tcp port to root without this capability.
fn answer_without(capability: libc::c_ulong, args: &[&str]) -> String {
    let mut command = who(&[args, &["-t", "-o", "json"]].concat());
    // SAFETY: one system call, which takes numbers only.
    let drop = move || match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    // SAFETY: only a system call between fork and exec.
    unsafe { command.pre_exec(drop) };
    let (code, stdout, stderr) = outcome(command.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    stdout
}

fn not_entered() {
    const CAP_SYS_ADMIN: libc::c_ulong = 21;
    let (listener, at, port) = open();
    drop(listener);
    let elsewhere = listener_elsewhere(at);
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_ADMIN, &[&port]));
    assert_eq!(owner, Some(elsewhere.0.id().into()));
    let told = "cannot be entered, which needs CAP_SYS_ADMIN, and ";
    assert!(limits.contains(told), "{limits}");
    let (limits, _) = limits_and_owner(&prints(&[&port, "-t", "-o", "json"]));
    assert!(!limits.contains(told), "{limits}");
}

fn told_by_the_kernel() {
    const CAP_SYS_PTRACE: libc::c_ulong = 19;
    let (_listener, _, port) = open();
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_PTRACE, &[&port]));
    // Older kernels do not tell.
    let shown = owner == Some(std::process::id().into());
    assert_eq!(
        limits.contains("owners of their sockets are not shown"),
        !shown,
        "{limits}"
    );
    // Polling does not ask it.
    let polling = [port.as_str(), "--from", "poll"];
    let (limits, owner) = limits_and_owner(&answer_without(CAP_SYS_PTRACE, &polling));
    assert_eq!(owner, None);
    let told = "owners of their sockets are not shown";
    assert!(limits.contains(told), "{limits}");
}
