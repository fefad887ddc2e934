//! `--from FILE`: sessions made here, shown by every view.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use portwatch::event::{Cause, Comm, Context, Event, Family, Kind, Origin, Peer, Proto};
use portwatch::row::{Row, State};
use portwatch::session::{self, About, Finish, Kept, Run, Writer};
use portwatch::source::accounts::Accounts;
use portwatch::table::{Limits, Table};
use portwatch::view::lines::Json;
use serde_json::Value;
use tempfile::TempDir;

/// 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const HOST_NETNS: u32 = 4026531840;

/// An event so many milliseconds after the start.
fn event(ms: u64, kind: Kind, sock: u64, lport: u16, rport: Option<u16>) -> Event {
    let mut event = Event::new(kind, Origin::Live, START + ms * 1_000_000);
    event.proto = Some(Proto::Tcp);
    event.family = Some(Family::Ipv4);
    event.laddr = Some("127.0.0.1".parse().unwrap());
    event.lport = Some(lport);
    event.raddr = rport.map(|_| "127.0.0.1".parse().unwrap());
    event.rport = rport;
    event.sock = Some(sock);
    event.netns = Some(HOST_NETNS);
    event.pid = Some(100 + sock as u32);
    event.uid = Some(0);
    event.comm = Some(Comm::from("python3"));
    event.context = Some(Arc::new(Context {
        exe: Some("/usr/bin/python3".into()),
        user: Some("alice".into()),
        ..Context::default()
    }));
    // As nobody here would call it: it has to come from the session.
    event.service = Some("recorded");
    event
}

/// A server on port 8080 with one client, from 1 s to 8 s; at 2 s somebody else wants its port.
fn story() -> Vec<Event> {
    let mut listen = event(1_001, Kind::Listen, 1, 8080, None);
    listen.backlog = Some(5);
    let mut taken = event(2_000, Kind::Bind, 2, 8080, None);
    taken.error = Some(libc::EADDRINUSE as u16);
    taken.comm = Some(Comm::from("nc\x1b[2J"));
    taken.holders = Some(vec![Peer {
        pid: 101,
        comm: "python3".into(),
        sock: Some(1),
    }]);
    let mut close = event(5_000, Kind::Close, 4, 8080, Some(40_000));
    close.cause = Some(Cause::Remote);
    let mut end = event(8_000, Kind::Close, 1, 8080, None);
    (end.cause, end.accepted, end.duration_us) = (Some(Cause::Local), Some(1), Some(6_999_000));
    vec![
        event(1_000, Kind::Bind, 1, 8080, None),
        listen,
        taken,
        event(3_000, Kind::Connect, 3, 40_000, Some(8080)),
        event(3_001, Kind::Accept, 4, 8080, Some(40_000)),
        close,
        event(5_001, Kind::Close, 3, 40_000, Some(8080)),
        end,
    ]
}

/// sshd was there before.
fn before() -> Kept {
    let mut listen = event(0, Kind::Listen, 9, 22, None);
    listen.origin = Origin::Seed;
    listen.comm = Some(Comm::from("sshd"));
    Kept {
        row: Row {
            event: listen,
            state: State::Listen,
            since: None,
            recv_queue: Some(0),
            send_queue: Some(128),
            inode: Some(77),
            v6only: None,
        },
        bound: true,
        told: false,
    }
}

fn run(began: u64) -> Run {
    Run {
        began,
        host: Some("web1\x1b[2J".into()),
        netns: Some(HOST_NETNS),
        version: "0".into(),
        source: "tracepoint probes".into(),
        ..Run::default()
    }
}

fn finish(ended: u64, accounts: &Accounts) -> Finish {
    Finish {
        ended,
        reason: "signal".into(),
        complete: accounts.complete(),
        accounts: serde_json::to_string(accounts).unwrap(),
    }
}

fn about() -> session::Describe {
    Box::new(|_, _| About {
        started: Some(START - 60 * SECOND),
        blake3: None,
    })
}

/// Adds a run of ten seconds, a batch for each event.
fn add(writer: &mut Writer<'_>, began: u64, events: &[Event], end: Option<&Accounts>) {
    writer.begin(&run(began)).unwrap();
    writer.checkpoint(began + 100_000_000, [before()]).unwrap();
    for event in events {
        writer.event(event).unwrap();
        writer.commit(None).unwrap();
    }
    if let Some(accounts) = end {
        writer
            .finish(&finish(began + 10 * SECOND, accounts))
            .unwrap();
    }
    writer.commit(None).unwrap();
}

struct Made {
    _folder: TempDir,
    path: PathBuf,
}

/// A session with the story.
fn made(end: Option<&Accounts>) -> Made {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    add(&mut writer, START, &story(), end);
    Made {
        _folder: folder,
        path,
    }
}

fn later(events: Vec<Event>) -> Vec<Event> {
    let shift = |mut event: Event| {
        event.ts += 3600 * SECOND;
        event
    };
    events.into_iter().map(shift).collect()
}

/// The story, and an hour later the beginning of it again.
fn twice() -> Made {
    let made = made(Some(&Accounts::default()));
    let db = session::append(&made.path, None).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    let events = later(story()[..3].to_vec());
    add(
        &mut writer,
        START + 3600 * SECOND,
        &events,
        Some(&Accounts::default()),
    );
    drop(writer);
    drop(db);
    made
}

/// Exit code, stdout and stderr of `portwatch WORDS --from FILE MORE`.
fn outcome(words: &str, path: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_portwatch"))
        .args(words.split_whitespace())
        .arg("--from")
        .arg(path)
        .args(more)
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// What it prints, which has to go well.
fn prints(words: &str, path: &Path, more: &[&str]) -> String {
    let (code, stdout, stderr) = outcome(words, path, more);
    assert_eq!(code, Some(0), "{words} {more:?}: {stderr}");
    stdout
}

/// As `trace -o json` prints events with these numbers.
fn lines(events: &[Event]) -> String {
    let mut json = Json::new(None);
    let mut out = Vec::new();
    for (at, event) in events.iter().enumerate() {
        let seq = at as u64 + 1;
        json.event(
            &mut out,
            &Event {
                seq,
                ..event.clone()
            },
        );
    }
    String::from_utf8(out).unwrap()
}

fn objects(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).expect(line);
    text.lines().map(parse).collect()
}

#[test]
fn a_trace_is_byte_for_byte_what_was_recorded() {
    let made = made(Some(&Accounts::default()));
    let (code, stdout, stderr) = outcome("trace -o json", &made.path, &["--require-complete"]);
    assert_eq!((code, stdout), (Some(0), lines(&story())));
    assert!(
        stderr.contains("2023-11-14 22:13:20.000+00:00 to 2023-11-14 22:13:30.000+00:00"),
        "{stderr}"
    );
    assert!(
        stderr.contains("8 events in 10.00s: 2 bind, 1 listen, 1 connect, 1 accept, 3 close"),
        "{stderr}"
    );
    assert!(stderr.contains("complete: nothing lost"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "{stderr}");
}

#[test]
fn filters_fields_formats_and_counts_are_those_of_trace() {
    let made = made(Some(&Accounts::default()));
    let closes: Vec<Event> = story()
        .into_iter()
        .filter(|x| x.kind == Kind::Close)
        .collect();
    assert_eq!(
        prints("trace -o json -e close", &made.path, &[]),
        lines(&closes)
    );
    assert_eq!(
        prints("trace -o json -e close -c 2", &made.path, &[]),
        lines(&closes[..2])
    );
    let csv = prints("trace -o csv -F seq,event,pid --failed", &made.path, &[]);
    assert_eq!(csv, "seq,event,pid\n1,bind,102\n");
    let expr = ["--filter", "service == \"recorded\" && rport == 8080"];
    assert_eq!(
        prints("trace -o csv -F event", &made.path, &expr),
        "event\nconnect\nclose\n"
    );
    let text = prints("trace -P 22", &made.path, &[]);
    assert_eq!(text.lines().count(), 1, "{text}");
    let file = made.path.with_extension("json");
    assert_eq!(
        prints(
            "trace -o json",
            &made.path,
            &["--write", file.to_str().unwrap()]
        ),
        ""
    );
    assert_eq!(std::fs::read_to_string(file).unwrap(), lines(&story()));
}

#[test]
fn times_select_by_the_clock_of_the_session() {
    let made = made(Some(&Accounts::default()));
    let events = story();
    for (times, expected) in [
        (vec!["--since", "22:13:23"], 3..8),
        (vec!["--since", "-5s"], 5..8),
        (vec!["--until", "2023-11-14T23:13:21.001+01:00"], 0..2),
        (vec!["--since", "@1700000002", "--until", "22:13:23"], 2..4),
        (
            vec!["--since", "2023-11-14 22:13", "--until", "22:14"],
            0..8,
        ),
        (vec!["--since", "@1700000002", "-d", "1"], 2..4),
        (vec!["-d", "1500ms"], 0..2),
        (vec!["--since", "22:13:24", "--until", "22:13:24.5"], 8..8),
    ] {
        let stdout = prints("trace -o json", &made.path, &times);
        assert_eq!(stdout, lines(&events[expected]), "{times:?}");
    }
    for times in [
        vec!["--since", "2023-11-15"],
        vec!["--until", "22:13", "--since", "2023-11-14 22:13:25"],
        vec!["--until", "2023-11-14 22:13"],
        vec!["--since", "-2s", "--until", "-5s"],
    ] {
        let (code, _, stderr) = outcome("trace", &made.path, &times);
        if times[1] == "22:13" {
            // the next day's
            assert_eq!(code, Some(0), "{stderr}");
            continue;
        }
        assert_eq!(code, Some(2), "{times:?}: {stderr}");
        let told = [
            "covers 2023-11-14 22:13:20.000+00:00 to 2023-11-14 22:13:30.000+00:00",
            "is before --since",
        ];
        assert!(
            told.iter().any(|x| stderr.contains(x)),
            "{times:?}: {stderr}"
        );
    }
}

#[test]
fn each_run_is_numbered_from_one_and_judged_by_itself() {
    let made = twice();
    let second = later(story()[..3].to_vec());
    let both = lines(&story()) + &lines(&second);
    let (code, stdout, stderr) = outcome("trace -o json", &made.path, &[]);
    assert_eq!((code, stdout), (Some(0), both));
    assert_eq!(
        stderr.matches("complete: nothing lost").count(),
        2,
        "{stderr}"
    );
    assert_eq!(
        prints("trace -o json", &made.path, &["--run", "2"]),
        lines(&second)
    );
    assert_eq!(
        prints("trace -o json", &made.path, &["--since", "23:00"]),
        lines(&second)
    );
    assert_eq!(
        prints("trace -o json -c 2", &made.path, &[]),
        lines(&story()[..2])
    );
    let (code, _, stderr) = outcome("trace", &made.path, &["--run", "3"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("has no run 3: there are 1 to 2"),
        "{stderr}"
    );
    // in between nothing was recorded
    let (code, _, stderr) = outcome("list", &made.path, &["--at", "22:30"]);
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("22:13:30.000+00:00 and 2023-11-14 23:13:20.000+00:00 to"),
        "{stderr}"
    );
    let ports = |more: &[&str]| -> Vec<u64> {
        let rows = objects(&prints("list -o json", &made.path, more));
        rows.iter()
            .map(|row| row["lport"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(ports(&["--at", "22:13:25"]), [22, 8080]);
    assert_eq!(ports(&["--run", "1"]), [22]);
    assert_eq!(ports(&[]), [22, 8080], "the last one");
}

#[test]
fn what_is_not_complete_is_said() {
    let lossy = Accounts {
        lost: 3,
        lost_by_kind: vec![(Kind::Close, 3)],
        ..Accounts::default()
    };
    let made_lossy = made(Some(&lossy));
    let cut = made(None);
    for (path, told) in [
        (&made_lossy.path, "incomplete: 3 events lost (3 close)"),
        (
            &cut.path,
            "incomplete: the recording was cut off at 2023-11-14 22:13:28",
        ),
    ] {
        let (code, stdout, stderr) = outcome("trace -o json", path, &["--require-complete"]);
        assert_eq!((code, stdout), (Some(4), lines(&story())));
        assert!(stderr.contains(told), "{stderr}");
        assert_eq!(outcome("trace", path, &[]).0, Some(0));
    }
}

#[test]
fn a_session_that_is_being_written_is_read_up_to_its_last_batch() {
    let made = made(Some(&Accounts::default()));
    let db = session::append(&made.path, None).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    let again = session::append(&made.path, None).err().unwrap();
    assert!(
        format!("{again:#}").contains("is being recorded into"),
        "{again:#}"
    );
    let second = later(story());
    add(&mut writer, START + 3600 * SECOND, &second[..2], None);
    writer.event(&second[2]).unwrap();
    let (code, stdout, stderr) = outcome("trace -o json", &made.path, &["--run", "2"]);
    assert_eq!((code, stdout), (Some(0), lines(&second[..2])));
    assert!(
        stderr.contains("incomplete: the recording goes on"),
        "{stderr}"
    );
    // as of now
    let rows = objects(&prints("list -o json", &made.path, &["--at", "-1s"]));
    assert_eq!(rows.len(), 2);
    writer.commit(None).unwrap();
    assert_eq!(
        prints("trace -o json", &made.path, &["--run", "2"]),
        lines(&second[..3])
    );
    drop(writer);
    drop(db);
    let (_, _, stderr) = outcome("trace -o json", &made.path, &["--run", "2"]);
    assert!(stderr.contains("was cut off"), "{stderr}");
}

#[test]
fn flags_that_do_not_fit_are_refused() {
    let made = made(Some(&Accounts::default()));
    for (words, more, told) in [
        (
            "trace",
            vec!["--interval", "1s"],
            "--interval does not go with --from",
        ),
        (
            "trace",
            vec!["--proc-root", "/proc"],
            "--proc-root does not go with",
        ),
        (
            "trace",
            vec!["--ring-size", "8M"],
            "--ring-size does not go with",
        ),
        ("trace", vec!["--", "true"], "a command does not go with"),
        ("trace", vec!["--probes", "auto"], "cannot be used with"),
        ("list", vec!["-d", "1s"], "--duration does not go with"),
        ("who 80", vec!["--wait"], "--wait does not go with"),
        ("trace", vec!["--since", "noon"], "write 03:12"),
    ] {
        let (code, stdout, stderr) = outcome(words, &made.path, &more);
        assert_eq!(
            (code, stdout.as_str()),
            (Some(2), ""),
            "{words} {more:?}: {stderr}"
        );
        assert!(stderr.contains(told), "{words} {more:?}: {stderr}");
    }
    let poll = Path::new("poll");
    for (words, more) in [("trace", ["--since", "01:00"]), ("list", ["--at", "01:00"])] {
        let (code, _, stderr) = outcome(words, poll, &more);
        assert_eq!(code, Some(2));
        assert!(stderr.contains("name one with --from FILE"), "{stderr}");
    }
}

#[test]
fn list_shows_the_table_as_it_was() {
    let made = made(Some(&Accounts::default()));
    let at = |more: &[&str]| objects(&prints("list -a -o json", &made.path, more));
    let ports = |rows: &[Value]| -> Vec<String> {
        let port = |row: &Value| format!("{} {}", row["lport"], row["state"].as_str().unwrap());
        rows.iter().map(port).collect()
    };
    let open = ["22 LISTEN", "8080 ESTAB", "8080 LISTEN", "40000 ESTAB"];
    let mut during = ports(&at(&["--at", "22:13:23.5"]));
    during.sort_by_key(|x| open.iter().position(|y| x == y));
    assert_eq!(during, open);
    let quiet = at(&["--at", "22:13:22"]);
    assert_eq!(ports(&quiet), ["22 LISTEN", "8080 LISTEN"]);
    assert_eq!(quiet[1]["since"], "2023-11-14T22:13:21.001000000Z");
    assert_eq!(
        (&quiet[0]["inode"], &quiet[0]["comm"]),
        (&77.into(), &"sshd".into())
    );
    assert_eq!(ports(&at(&["--at", "22:13:20"])), ["22 LISTEN"]);
    assert_eq!(ports(&at(&[])), ["22 LISTEN"], "at the end");
    let (_, stdout, stderr) = outcome("list --at -5s -P 8080", &made.path, &[]);
    assert!(
        stderr.contains("on web1\\x1b[2J, as of 2023-11-14 22:13:25"),
        "{stderr}"
    );
    assert!(
        stdout.contains("python3") && !stdout.contains("WHERE"),
        "{stdout}"
    );
    // without a command it is list
    assert_eq!(prints("", &made.path, &["-n"]).lines().count(), 2);
    for outside in ["2023-11-14 22:13:19", "2023-11-14 22:13:31", "-11s"] {
        let (code, _, stderr) = outcome("list", &made.path, &["--at", outside]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains("covers 2023-11-14 22:13:20.000+00:00 to"),
            "{stderr}"
        );
    }
}

#[test]
fn who_tells_of_the_moment_and_what_was_before() {
    let made = made(Some(&Accounts::default()));
    let text = prints("who 8080 -t", &made.path, &["--at", "22:13:24"]);
    assert!(
        text.starts_with("8080/tcp: python3 (pid 101, user alice) listens on 127.0.0.1"),
        "{text}"
    );
    assert!(text.contains("2023-11-14 22:13:22.000 bind   tcp 127.0.0.1 EADDRINUSE by nc\\x1b[2J(102), held by python3(101)"), "{text}");
    let json: Value = serde_json::from_str(&prints("who 8080 -o json", &made.path, &[])).unwrap();
    assert_eq!(json["at"], "2023-11-14T22:13:30.000000000Z");
    assert_eq!(json["netns"], HOST_NETNS);
    let history: Vec<(&str, &Value)> = (json["history"].as_array().unwrap().iter())
        .map(|x| (x["event"].as_str().unwrap(), &x["error"]))
        .collect();
    let none = &Value::Null;
    let taken = &Value::from("EADDRINUSE");
    assert_eq!(
        history,
        [
            ("bind", none),
            ("listen", none),
            ("bind", taken),
            ("close", none)
        ]
    );
    assert_eq!(json["protocols"][0]["servers"], Value::Array(vec![]));
    let early = prints("who 8080 -o json", &made.path, &["--at", "22:13:21.0005"]);
    let early: Value = serde_json::from_str(&early).unwrap();
    assert_eq!(early["history"].as_array().unwrap().len(), 1);
    // of another protocol and address there is nothing
    for target in ["who 8080 -U -o json", "who 127.0.0.2:8080 -o json"] {
        let other: Value = serde_json::from_str(&prints(target, &made.path, &[])).unwrap();
        assert_eq!(other["history"], Value::Array(vec![]), "{target}");
    }
    let during = prints("who 8080 -t -o json", &made.path, &["--at", "22:13:24"]);
    let during: Value = serde_json::from_str(&during).unwrap();
    let server = &during["protocols"][0]["servers"][0];
    assert_eq!(server["started"], "2023-11-14T22:12:20.000000000Z");
}

#[test]
fn of_a_command_nothing_is_known_to_be_free() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    let of_command = Run {
        command: Some(r#"["python3"]"#.into()),
        ..run(START)
    };
    writer.begin(&of_command).unwrap();
    for event in story() {
        writer.event(&event).unwrap();
    }
    writer.commit(None).unwrap();
    drop(writer);
    drop(db);
    let why = "is not known: the recording holds the sockets of one command only";
    for (target, at, told) in [
        (
            "who 9 -t",
            "22:13:24",
            "9/tcp: nobody is known to have it\n",
        ),
        (
            "who 9",
            "22:13:24",
            &format!("what becomes of a bind to 9/tcp+udp {why}\n"),
        ),
        (
            "who 8080 -t",
            "22:13:24",
            &format!(
                "8080/tcp is taken on 127.0.0.1 by python3 (pid 101), what becomes of binds to other addresses {why}\n"
            ),
        ),
        // That much is sure.
        (
            "who 127.0.0.1:8080 -t",
            "22:13:24",
            "a bind to 127.0.0.1:8080/tcp fails with EADDRINUSE: python3 (pid 101) has it\n",
        ),
    ] {
        let text = prints(target, &path, &["--at", at]);
        assert!(text.contains(told), "{target}: {text}");
        assert!(
            !text.contains("free") && !text.contains("succeeds"),
            "{target}: {text}"
        );
    }
    let json = prints("who 9 -o json", &path, &["--at", "22:13:24"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["protocols"][0]["binds"], Value::Array(vec![]));
}

#[test]
fn other_files_are_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "no session").unwrap();
    let empty = folder.path().join("empty.db");
    drop(session::create(&empty).unwrap());
    for (path, told) in [
        (folder.path().join("nothing.db"), "No such file"),
        (text, "is not a session"),
        (empty, "holds no recording yet"),
        (folder.path().to_owned(), "is a directory"),
    ] {
        for words in ["trace", "list", "who 80"] {
            let (code, stdout, stderr) = outcome(words, &path, &[]);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{words}: {stderr}");
            assert!(stderr.contains(told), "{words}: {stderr}");
        }
    }
}

#[test]
fn damaged_files_never_end_in_a_panic() {
    let made = twice();
    let whole = std::fs::read(&made.path).unwrap();
    // always the same places, all over the file
    let mut place = 12_345_u64;
    for round in 0..60 {
        let mut bytes = whole.clone();
        for _ in 0..=round % 8 {
            place = place
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = (place >> 20) as usize % bytes.len();
            bytes[at] ^= 1 << (place >> 60 & 7);
        }
        std::fs::write(&made.path, bytes).unwrap();
        for words in ["trace -o json", "list -a", "who 8080"] {
            let (code, _, stderr) = outcome(words, &made.path, &[]);
            assert!(matches!(code, Some(0..=2)), "{words}: {code:?} {stderr}");
            assert!(!stderr.contains("panicked"), "{words}: {stderr}");
        }
    }
}

#[test]
fn numbers_that_cannot_be_never_end_in_a_panic() {
    for sql in [
        "UPDATE raw_run SET before = 9223372036854775807",
        "UPDATE raw_run SET before = -5",
        "UPDATE raw_run SET began = -1",
        "UPDATE raw_run SET began = 9223372036854775807, netns = -7",
        "UPDATE raw_finish SET ended = -1",
        "UPDATE raw_finish SET ended = 0",
        "UPDATE raw_finish SET accounts = '[1]'",
        "UPDATE raw_batch SET first_ts = 9223372036854775807, last_ts = -9223372036854775807",
        "UPDATE raw_batch SET events = 9223372036854775807",
        "UPDATE raw_batch SET events = 4000000000000000000 WHERE id = 3",
        "UPDATE raw_checkpoint SET ts = -1, event = -9223372036854775807",
        "UPDATE raw_checkpoint SET event = 9223372036854775807",
        "UPDATE raw_event SET ts = -1",
        "UPDATE raw_event SET kind = 200",
        "UPDATE raw_event SET duration_us = -1, lport = 99999",
        "UPDATE raw_process SET args = '{', parents = '[]', started = -1",
        "UPDATE raw_owner SET process = 77",
        "DELETE FROM raw_event WHERE id > 4",
        "DELETE FROM raw_event",
        "DELETE FROM raw_batch",
        "DELETE FROM raw_run",
        "DROP TABLE raw_open",
    ] {
        let made = made(Some(&Accounts::default()));
        let db = rusqlite::Connection::open(&made.path).unwrap();
        db.execute_batch("PRAGMA foreign_keys = off").unwrap();
        db.execute_batch(sql).expect(sql);
        drop(db);
        for (words, more) in [
            ("trace -o json", vec![]),
            ("trace -o json", vec!["--since", "-5s", "--until", "-1s"]),
            ("list -a", vec![]),
            ("list -a", vec!["--at", "22:13:24"]),
            ("who 8080", vec![]),
        ] {
            let (code, _, stderr) = outcome(words, &made.path, &more);
            assert!(
                matches!(code, Some(0..=2)),
                "{sql}: {words}: {code:?} {stderr}"
            );
            assert!(!stderr.contains("panicked"), "{sql}: {words}: {stderr}");
        }
    }
}

/// Not a test but a measurement: `cargo test --release -p portwatch --test from -- --ignored --nocapture`.
/// The session stays where the variable SESSION says, if it does.
#[test]
#[ignore = "takes minutes"]
fn five_million_events() {
    const EVENTS: u64 = 5_000_000;
    const OPEN: u64 = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let path = match std::env::var_os("SESSION") {
        Some(path) => PathBuf::from(path),
        None => folder.path().join("big.db"),
    };
    if !path.exists() {
        let started = Instant::now();
        big(&path, EVENTS, OPEN);
        eprintln!("made in {:?}", started.elapsed());
    }
    let size = std::fs::metadata(&path).unwrap().len();
    eprintln!("{} bytes an event", size / EVENTS);
    let at = format!("@{}.999", 1_700_000_000 + EVENTS / 10_000 / 2 - 5);
    for (words, more) in [
        ("list", vec![]),
        ("list", vec!["--at", &at]),
        ("list -a -o json", vec!["--at", "-17.3"]),
        ("who 8080", vec!["--at", &at]),
        ("who 8080", vec![]),
        ("trace -o json -c 10", vec!["--since", &at]),
        ("trace -o json --failed", vec!["--since", "-5s"]),
        ("trace -o json -c 1000000", vec![]),
    ] {
        let started = Instant::now();
        let stdout = prints(words, &path, &more);
        let took = started.elapsed();
        eprintln!(
            "{words} {more:?}: {took:?}, {} lines",
            stdout.lines().count()
        );
    }
}

/// A session as `record` makes them: 10,000 events a second of connections, 10,000 of which are open at
/// a time, and now and then a server that comes and goes.
fn big(path: &Path, count: u64, open: u64) {
    let db = session::create(path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    writer.begin(&run(START)).unwrap();
    let mut table = Table::of_kept(Limits::default(), [before()]);
    writer.checkpoint(START, table.kept()).unwrap();
    let context = event(0, Kind::Bind, 1, 1, None).context;
    for number in 0..count {
        let mut event = match number % 1000 {
            0 => event(0, Kind::Bind, number + 10, 8080, None),
            1 => event(0, Kind::Listen, number + 9, 8080, None),
            2 => event(0, Kind::Close, number + 8, 8080, None),
            _ => {
                // Each connection opens, and closes when as many others have.
                let (turn, which) = (number / open, number % open);
                let kind = if turn % 2 == 0 {
                    Kind::Connect
                } else {
                    Kind::Close
                };
                let sock = (turn / 2 + 1) * 1_000_000_000 + which;
                event(0, kind, sock, 10_000 + (which % 50_000) as u16, Some(443))
            }
        };
        event.ts = START + number * 100_000;
        event.pid = Some(1_000 + (number % 200) as u32);
        event.context.clone_from(&context);
        event.duration_us = (event.kind == Kind::Close).then_some(number);
        table.apply(&event);
        writer.event(&event).unwrap();
        if number % 2_000 == 1_999 {
            writer.commit(None).unwrap();
        }
        if number % 50_000 == 49_999 {
            writer.checkpoint(event.ts, table.kept()).unwrap();
        }
    }
    let ended = START + count * 100_000;
    writer.finish(&finish(ended, &Accounts::default())).unwrap();
    writer.commit(None).unwrap();
}
