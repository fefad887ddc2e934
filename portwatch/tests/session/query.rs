//! Questions in SQL, and what they cannot do.

use std::fs;
use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use expect_test::{Expect, expect};
use serde_json::Value as Json;

use super::{name, portwatch, prints, says, says_of, session, shows};

fn check(args: &[&str], expected: Expect) {
    let (_folder, path) = session();
    expected.assert_eq(&prints(&[&["query", name(&path)], args].concat()));
}

#[test]
fn rows_are_an_aligned_table() {
    check(
        &["SELECT seq, event, comm, lport, raddr, args, error FROM events WHERE seq < 6"],
        expect![[r#"
            SEQ EVENT   COMM             LPORT RADDR    ARGS                                    ERROR
              1 bind    nginx               80 -        ["nginx","-g","daemon off;"]            -
              2 listen  nginx               80 -        ["nginx","-g","daemon off;"]            -
              3 bind    \x1b]0;x\x07\xff    80 -        ["=cmd|' /C calc'!A0","\u001b[2J\n,\""] EADDRINUSE
              4 connect curl             40000 10.0.0.1 ["curl","http://10.0.0.1/"]             -
              5 accept  nginx               80 10.0.0.2 ["nginx","-g","daemon off;"]            -
        "#]],
    );
    check(
        &["SELECT comm, count(*) AS n, avg(duration_us) FROM events GROUP BY comm ORDER BY n DESC"],
        expect![[r#"
            COMM              N AVG(DURATION_US)
            nginx            51          14880.0
            curl             48           5000.0
            \x1b]0;x\x07\xff  1                -
            -                 1                -
        "#]],
    );
    check(
        &["SELECT 1 AS a WHERE 0"],
        expect![[r#"
        A
    "#]],
    );
}

#[test]
fn json_has_a_row_a_line_and_lists_as_lists() {
    check(
        &[
            "SELECT seq, comm, args, holders, sock, 0.5 AS half, x'00ff' AS bytes, seq FROM events WHERE seq IN (3, 5)",
            "-o",
            "json",
        ],
        expect![[r#"
            {"seq":3,"comm":"\u001b]0;x\u0007\\xff","args":["=cmd|' /C calc'!A0","\u001b[2J\n,\""],"holders":[{"comm":"nginx","pid":812,"sock":7}],"sock":null,"half":0.5,"bytes":"00ff","seq:1":3}
            {"seq":5,"comm":"nginx","args":["nginx","-g","daemon off;"],"holders":null,"sock":-1,"half":0.5,"bytes":"00ff","seq:1":5}
        "#]],
    );
}

#[test]
fn csv_is_as_that_of_trace() {
    let (_folder, path) = session();
    let sql = "SELECT seq, comm, exe, args, error FROM events WHERE seq IN (1, 3)";
    let args = ["query", name(&path), sql, "-o", "csv"];
    let on_terminal = shows(&args);
    expect![[r#"
        seq,comm,exe,args,error
        1,nginx,/usr/sbin/nginx,"[""nginx"",""-g"",""daemon off;""]",
        3,\x1b]0;x\x07\xff,/tmp/\u{202e}gpj.x,"[""=cmd|' /C calc'!A0"",""\u001b[2J\n,\""""]",EADDRINUSE
    "#]]
    .assert_eq(&on_terminal);
    // what reads it elsewhere gets what it was
    let exact = on_terminal
        .replace("\\x1b", "\x1b")
        .replace("\\x07", "\x07")
        .replace("\\u{202e}", "\u{202e}");
    assert_eq!(prints(&args), exact);
}

#[test]
fn a_backslash_and_a_newline_do_not_look_alike() {
    let sql = "SELECT 'a\\nb' AS x UNION ALL SELECT 'a' || char(10) || 'b'";
    check(
        &[sql],
        expect![[r#"
            X
            a\\nb
            a\nb
        "#]],
    );
    check(
        &[sql, "-o", "csv"],
        expect![[r#"
            x
            a\nb
            "a
            b"
        "#]],
    );
}

#[test]
fn the_schema_lists_the_views() {
    let (_folder, path) = session();
    let text = prints(&["query", name(&path), "--schema"]);
    assert!(
        text.contains("\nevents      ts seq event origin proto "),
        "{text}"
    );
    let json = prints(&["query", name(&path), "--schema", "-o", "json"]);
    let views: Vec<Json> = json
        .lines()
        .map(|x| serde_json::from_str(x).unwrap())
        .collect();
    let names: Vec<_> = views.iter().map(|x| x["view"].as_str().unwrap()).collect();
    for view in [
        "runs",
        "events",
        "processes",
        "listeners",
        "short_lived",
        "connections",
        "failures",
    ] {
        assert!(names.contains(&view), "{json}");
        // and each of them answers
        prints(&["query", name(&path), &format!("SELECT * FROM {view}")]);
    }
    assert_eq!(views[1]["columns"][0], "ts");
}

#[test]
fn wrong_sql_is_told_with_its_place() {
    let (_folder, path) = session();
    for (sql, expected) in [
        (
            "SELECT pi FROM events",
            "no such column: pi, at character 8: pi FROM events\nViews are: runs, events,",
        ),
        ("SELECT * FROM sockets", "no such table: sockets"),
        (
            "SELEC 1",
            "near \"SELEC\": syntax error, at character 1: SELEC 1",
        ),
        (
            "SELECT 'ü', , 1",
            "near \",\": syntax error, at character 13",
        ),
        ("SELECT 1; SELECT 2", "only one statement at a time"),
        ("", "there is no SQL in it"),
        ("/* nothing */", "there is no SQL in it"),
        (
            "SELECT ?",
            "has no parameters: write the value instead of ?",
        ),
        (
            "SELECT pid FROM events WHERE pid = :pid",
            "has no parameters",
        ),
        ("SELECT json('{')", "malformed JSON"),
        ("SELECT * FROM \"\x1b[2J\"", "no such table: \\x1b[2J"),
    ] {
        let (code, stdout, stderr) = says(&["query", name(&path), sql]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{sql}: {stderr}");
        assert!(stderr.contains(expected), "{sql}: {stderr}");
    }
    let (code, _, stderr) = says(&["query", name(&path)]);
    assert_eq!(code, 2);
    assert!(stderr.contains("<SQL|--schema>"), "{stderr}");
}

#[test]
fn a_question_can_do_nothing_but_read() {
    let (folder, path) = session();
    let before = fs::read(&path).unwrap();
    let other = folder.path().join("other.db");
    let into = format!("VACUUM INTO '{}'", name(&other));
    let attach = format!("ATTACH '{}' AS other", name(&other));
    for sql in [
        "DELETE FROM raw_event",
        "UPDATE raw_event SET lport = 1 RETURNING id",
        "INSERT INTO raw_address VALUES (99, 'x') RETURNING id",
        "DROP VIEW events",
        "CREATE TABLE t(x)",
        "CREATE TEMP TABLE t(x)",
        "CREATE TEMP VIEW t AS SELECT 1",
        "CREATE VIRTUAL TABLE temp.t USING fts5(x)",
        &attach,
        "DETACH main",
        &into,
        "VACUUM",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "SAVEPOINT x",
        "PRAGMA query_only = 0",
        "PRAGMA journal_mode = delete",
        "PRAGMA writable_schema = 1",
        "PRAGMA wal_checkpoint(truncate)",
        "PRAGMA temp_store_directory = '/tmp'",
        "PRAGMA trusted_schema = 1",
        "PRAGMA user_version",
        "SELECT load_extension('libm.so')",
        "SELECT * FROM pragma_user_version",
        "EXPLAIN DELETE FROM raw_event",
    ] {
        let (code, stdout, stderr) = says(&["query", name(&path), sql]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{sql}: {stderr}");
        assert!(
            stderr.contains("does nothing else") || stderr.contains("not authorized"),
            "{sql}: {stderr}"
        );
    }
    assert!(!other.exists());
    assert_eq!(fs::read(&path).unwrap(), before);
    // what only tells is fine
    for sql in [
        "SELECT name FROM pragma_table_info('events')",
        "PRAGMA table_info(events)",
        "EXPLAIN QUERY PLAN SELECT * FROM events",
        "VALUES (1), (2)",
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 3) SELECT x FROM n;",
        "SELECT value FROM events, json_each(args) WHERE args IS NOT NULL",
    ] {
        prints(&["query", name(&path), sql]);
    }
}

#[test]
fn a_question_comes_from_stdin_too() {
    let (_folder, path) = session();
    let (code, stdout, _) = says_of(
        &["query", name(&path), "-"],
        "SELECT 40 + 2 AS x -- so\n;\n",
    );
    assert_eq!((code, stdout.as_str()), (0, " X\n42\n"));
}

/// More rows than anybody waits for.
const ENDLESS: &str =
    "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n";

#[test]
fn rows_are_streamed_and_a_reader_that_leaves_is_a_normal_end() {
    let (_folder, path) = session();
    for output in ["text", "json", "csv"] {
        let mut command = portwatch(&["query", name(&path), ENDLESS, "-o", output]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 1 << 20]).unwrap();
        drop(stdout);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{output}");
    }
}

#[test]
fn ctrl_c_ends_a_question() {
    let (_folder, path) = session();
    let silent = format!("SELECT count(*) FROM ({ENDLESS})");
    let mut command = portwatch(&["query", name(&path), &silent]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    // A signal before it listens would end it in the usual way, so wait until it does.
    let status = format!("/proc/{}/status", child.id());
    let listens = || {
        let status = fs::read_to_string(&status).unwrap_or_default();
        let caught = status.lines().find_map(|x| x.strip_prefix("SigCgt:"));
        let caught = u64::from_str_radix(caught.unwrap_or("0").trim(), 16).unwrap();
        caught & (1 << (libc::SIGINT - 1)) != 0
    };
    while !listens() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = i32::try_from(child.id()).unwrap();
    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(pid, libc::SIGINT) };
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("interrupted: these are not all rows"),
        "{stderr}"
    );
}
