//! `list --from` and `who --from`: how it was at a moment.

use portwatch::session::{self, Run, Writer};
use portwatch::source::accounts::Accounts;
use serde_json::Value;

use crate::{HOST_NETNS, START, about, made, objects, outcome, prints, run, story};

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
fn a_moment_is_not_moved_into_a_recording() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    let db = session::create(&path).unwrap();
    let mut writer = Writer::new(&db, about()).unwrap();
    writer.begin(&run(START + 337_912_345)).unwrap();
    writer.commit(None).unwrap();
    drop(writer);
    drop(db);
    let at = |at: &str| outcome("list", &path, &["--at", at]);
    for begins in ["22:13:20", "22:13:20.337"] {
        let (code, _, stderr) = at(begins);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.contains("as of 2023-11-14 22:13:20.337"), "{stderr}");
    }
    for outside in ["22:13:20.1", "22:13:21", "22:13:19"] {
        let (code, _, stderr) = at(outside);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains(&format!("2023-11-14 {outside}")),
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
    let multicast = prints("who [ff05::1]:8080 -t", &made.path, &[]);
    assert!(multicast.contains("fails with EINVAL"), "{multicast}");
    let during = prints("who 8080 -t -o json", &made.path, &["--at", "22:13:24"]);
    let during: Value = serde_json::from_str(&during).unwrap();
    let server = &during["protocols"][0]["servers"][0];
    assert_eq!(server["started"], "2023-11-14T22:12:20.000000000Z");
}

#[test]
fn a_port_that_a_connection_left_shortly_before_is_not_called_free() {
    let made = made(None);
    // The other end closed the first one, and of the second nobody knows who did.
    for (target, may_fail) in [
        ("8080", false),
        ("40000", true),
        ("0.0.0.0:40000", true),
        ("127.0.0.2:40000", false),
    ] {
        let ask = |format| prints(&format!("who {target} -t -o {format}"), &made.path, &[]);
        let text = ask("text");
        let told = match may_fail {
            true => "may fail with EADDRINUSE unless it and the sockets there set SO_REUSEADDR",
            false => "is free: a bind succeeds",
        };
        assert!(text.contains(told), "{text}");
        let json: Value = serde_json::from_str(&ask("json")).unwrap();
        let bind = &json["protocols"][0]["binds"][0];
        assert_eq!(bind.get("error").is_some(), may_fail, "{bind}");
        assert_eq!(bind.get("error_if").is_some(), may_fail, "{bind}");
    }
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
