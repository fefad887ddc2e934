//! `trace --from`: the bytes that were recorded.

use std::path::Path;

use portwatch::event::{Event, Kind};
use portwatch::session::{self, Writer};
use portwatch::source::accounts::Accounts;

use crate::{
    SECOND, START, about, add, later, lines, made, objects, outcome, prints, story, twice,
};

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
        ("trace", vec!["--ring-size", "8M"], "cannot be used with"),
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
