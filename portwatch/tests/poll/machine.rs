//! Sockets of this machine that come and go while it is polled.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::program::portwatch;
use super::{Polling, alone, own_pid, run, send};

#[test]
fn a_server_and_a_client_are_told_from_listen_to_close() {
    let _alone = alone();
    let mut polling = Polling::start(&["--interval", "50ms", "-t", "-p", &own_pid()]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"listen".into(), &port.into())
    );
    assert_eq!(event["origin"], "poll");
    assert_eq!(event["pid"], std::process::id());
    let exe = std::env::current_exe().unwrap();
    assert_eq!(event["exe"], exe.to_str().unwrap());

    let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let asking = client.local_addr().unwrap().port();
    let mut server = listener.accept().unwrap().0;
    client.write_all(&[7; 300]).unwrap();
    server.read_exact(&mut [0; 300]).unwrap();
    let mut both = [polling.next(), polling.next()];
    both.sort_by_key(|event| event["event"].to_string());
    let [accept, connect] = &both;
    for (event, kind, lport, rport) in [
        (accept, "accept", port, asking),
        (connect, "connect", asking, port),
    ] {
        assert_eq!(event["event"], kind);
        assert_eq!(
            (&event["lport"], &event["rport"]),
            (&lport.into(), &rport.into())
        );
    }
    // one more snapshot, which sees the bytes
    let again = TcpListener::bind("127.0.0.1:0").unwrap();
    assert_eq!(polling.next()["event"], "listen");
    drop((client, server));
    let mut both = [polling.next(), polling.next()];
    both.sort_by_key(|event| event["lport"] == port);
    let [client, server] = &both;
    for (event, bytes, lport) in [(client, "tx_bytes", asking), (server, "rx_bytes", port)] {
        assert_eq!(
            (&event["event"], &event["lport"]),
            (&"close".into(), &lport.into())
        );
        assert_eq!(event[bytes], 300);
        assert!(
            event["duration_us"].as_u64().is_some_and(|us| us > 0),
            "{event}"
        );
    }
    drop(listener);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &port.into())
    );
    drop(again);
    assert_eq!(polling.next()["event"], "close");
    let (rest, said) = polling.end(libc::SIGINT);
    assert_eq!(rest, "", "told twice");
    assert!(said.contains("portwatch: incomplete: polling "), "{said}");
}

#[test]
fn a_udp_socket_is_told_from_bind_to_close_and_what_was_there_is_no_event() {
    let _alone = alone();
    let old = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut polling = Polling::start(&["--interval", "50ms", "-U", "-p", &own_pid()]);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"bind".into(), &port.into())
    );
    socket.connect("127.0.0.1:9").unwrap();
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["rport"]),
        (&"connect".into(), &9.into())
    );
    drop(socket);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &port.into())
    );
    let there_before = old.local_addr().unwrap().port();
    drop(old);
    let event = polling.next();
    assert_eq!(
        (&event["event"], &event["lport"]),
        (&"close".into(), &there_before.into())
    );
    assert_eq!(event.get("duration_us"), None);
    assert_eq!(polling.end(libc::SIGINT).0, "");
}

#[test]
fn a_listener_between_two_snapshots_is_missed_and_that_is_said() {
    let _alone = alone();
    // Far longer than the listener lives, however slow the machine: two snapshots are all.
    let polling = Polling::start(&["--interval", "1h", "-p", &own_pid()]);
    assert_eq!(
        polling.first_line,
        "portwatch: polling every 1h: what lives shorter than 1h is missed\n"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    std::thread::sleep(Duration::from_millis(1));
    drop(listener);
    let kept = TcpListener::bind("127.0.0.1:0").unwrap();
    let (stdout, said) = polling.end(libc::SIGINT);
    // the last snapshot is taken at the end
    let events: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 1, "{stdout}");
    assert_eq!(
        events[0]["lport"],
        Value::from(kept.local_addr().unwrap().port())
    );
    assert!(
        said.contains(
            "incomplete: polling misses what fails, resets, and what lives shorter than "
        ),
        "{said}"
    );
}

#[test]
fn a_table_after_a_while_does_not_wait_for_the_next_poll() {
    let _alone = alone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = Value::from(listener.local_addr().unwrap().port());
    for duration in ["200ms", "1h"] {
        let pid = own_pid();
        let args = ["--interval", "1h", "-d", duration, "-t", "-p", &pid];
        let mut polling = Polling::command("list", &args);
        if duration == "1h" {
            // Ended by a signal it has as much to show.
            send(&polling.child, libc::SIGINT);
        }
        assert_eq!(polling.next()["lport"], port);
        assert_eq!(polling.child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn polling_is_never_complete() {
    let args = [
        "trace",
        "--from",
        "poll",
        "-d",
        "100ms",
        "--require-complete",
    ];
    let (code, _, said) = run(&args);
    assert_eq!(code, Some(4), "{said}");
}

#[test]
fn only_the_command_and_its_descendants_are_shown() {
    let _alone = alone();
    let outsider = || TcpListener::bind("127.0.0.1:0").unwrap();
    let script = "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); \
                  print(s.getsockname()[1], flush=True); import sys; sys.stdin.read()";
    let shell = format!("(python3 -c \"{script}\"; :)");
    let mut command = portwatch(&["trace", "--from", "poll", "--interval", "50ms"]);
    command.args(["-o", "json", "--", "sh", "-c", &shell]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // what the command prints is on stderr, behind what portwatch says
    let port: u16 = loop {
        let mut line = String::new();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended");
        if let Ok(port) = line.trim().parse() {
            break port;
        }
    };
    let others = (outsider(), outsider());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let event: Value = serde_json::from_str(&line).expect(&line);
    assert_eq!(event["lport"], port);
    let comm = event["comm"].as_str().unwrap();
    assert!(comm.starts_with("python3"), "{comm}");
    drop(child.stdin.take());
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    drop(others);
    let rest: Vec<Value> = rest
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        rest.iter()
            .all(|event| event["event"] == "close" && event["lport"] == port),
        "{rest:?}"
    );
}
