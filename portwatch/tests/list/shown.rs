//! Which sockets are shown, in which order, and what of them.

use std::io::{BufRead as _, BufReader};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{listener, own_pid, prints, rows};

pub fn servers() {
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

pub fn every_state() {
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

pub fn filters() {
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

pub fn order() {
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

pub fn csv() {
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

pub fn name() {
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

pub fn nothing() {
    // never handed out: it is no port
    let table = prints(&["--filter", "lport == 0 && rport == 70000"]);
    assert_eq!(table, "PROTO LOCAL PID COMM USER QUEUE SERVICE\n");
    assert_eq!(prints(&["--filter", "lport == 70000", "-o", "json"]), "");
}
