//! Tables of a proc file system, made by hand, that change and break while they are polled.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::Polling;
use super::program::portwatch;

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const LISTENER: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0\n";
const OTHER: &str = "   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4243 1 0000000000000000 100 0 0 10 0\n";

/// The tables of a proc file system, made by hand, and a trace that polls them for JSON.
struct Tables {
    folder: TempDir,
    polling: Polling,
}

impl Tables {
    fn start() -> Self {
        Self::with(&["trace"])
    }

    fn with(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let net = folder.path().join("net");
        std::fs::create_dir(&net).unwrap();
        for name in ["tcp", "tcp6", "udp", "udp6"] {
            std::fs::write(net.join(name), HEADING).unwrap();
        }
        let root = folder.path().to_str().unwrap();
        let mut command = portwatch(args);
        command.args(["-o", "json", "--proc-root", root, "--interval", "50ms"]);
        let polling = Polling::spawn(&mut command);
        let said = &polling.first_line;
        assert!(said.starts_with("portwatch: polling every 50"), "{said}");
        let mut tables = Self { folder, polling };
        assert!(tables.said().contains("only one is shown"));
        tables
    }

    fn tcp(&self) -> PathBuf {
        self.folder.path().join("net/tcp")
    }

    /// Never seen half written.
    fn write(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.tcp()).unwrap();
    }

    /// The next line on stderr.
    fn said(&mut self) -> String {
        self.polling.said()
    }

    /// The next event, and its port.
    fn next(&mut self) -> (String, u64) {
        let event = self.polling.next();
        let kind = event["event"].as_str().unwrap().to_owned();
        (kind, event["lport"].as_u64().unwrap())
    }

    /// Ends it; what was not read of stdout and stderr.
    fn end(self) -> (String, String) {
        self.polling.end(libc::SIGTERM)
    }

    /// Ends a trace that has told all of what it says of damage, and has nothing more to tell but the sum.
    fn end_damaged(self) {
        let (stdout, stderr) = self.end();
        assert_eq!(stdout, "");
        assert!(!stderr.contains("taken to be open"), "said twice: {stderr}");
        assert!(
            stderr.contains(" with tables missing or damaged"),
            "{stderr}"
        );
    }
}

#[test]
fn a_tree_that_changes_is_polled_like_any_proc() {
    let mut tables = Tables::start();
    tables.write(&format!("{HEADING}{LISTENER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    tables.write(HEADING);
    assert_eq!(tables.next(), ("close".to_owned(), 8080));
    assert_eq!(tables.end().0, "");
}

#[test]
fn a_table_that_is_damaged_meanwhile_proves_no_end() {
    let mut tables = Tables::start();
    let whole = format!("{HEADING}{LISTENER}");
    tables.write(&whole);
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    for (damaged, note) in [
        (&whole[..whole.len() - 90], "tcp has lines that"),
        ("", "tcp cannot be read (it is empty)"),
    ] {
        tables.write(damaged);
        let said = tables.said();
        assert!(said.contains(note), "{said}");
        // whatever was told before that has been read
        tables.write(&format!("\u{1}garbage\n{OTHER}"));
        assert_eq!(tables.next(), ("listen".to_owned(), 8081));
        tables.write(&whole);
        assert_eq!(tables.next(), ("close".to_owned(), 8081));
    }
    std::fs::remove_file(tables.tcp()).unwrap();
    let note = tables.said();
    assert!(note.contains("tcp cannot be read (No such file"), "{note}");
    std::fs::create_dir(tables.tcp()).unwrap();
    let note = tables.said();
    assert!(
        note.contains("tcp cannot be read (not a regular file"),
        "{note}"
    );
    std::fs::remove_dir(tables.tcp()).unwrap();
    // what ended meanwhile is told when the table tells it
    tables.write(HEADING);
    assert_eq!(tables.next(), ("close".to_owned(), 8080));
    tables.end_damaged();
}

#[test]
fn tables_that_vanish_for_a_moment_end_neither_sockets_nor_the_trace() {
    let mut tables = Tables::start();
    tables.write(&format!("{HEADING}{LISTENER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8080));
    let (net, away) = (
        tables.folder.path().join("net"),
        tables.folder.path().join("away"),
    );
    std::fs::rename(&net, &away).unwrap();
    let said = tables.said();
    assert!(
        said.contains("the proc file system cannot be read (No such file"),
        "{said}"
    );
    std::fs::rename(&away, &net).unwrap();
    tables.write(&format!("{HEADING}{LISTENER}{OTHER}"));
    assert_eq!(tables.next(), ("listen".to_owned(), 8081));
    tables.end_damaged();
}

#[test]
fn those_that_share_an_address_are_one_row_also_after_a_while() {
    let mut tables = Tables::with(&["list", "-d", "1h"]);
    // which of them were there before the first snapshot does not matter
    let member = |inode| {
        LISTENER
            .replace("00000000:00000000", "00000000:00000002")
            .replace("4242", inode)
    };
    let members = ["4242", "4244", "4245"].map(member);
    tables.write(&format!("{HEADING}{}", members.concat()));
    std::thread::sleep(Duration::from_millis(300));
    crate::send(&tables.polling.child, libc::SIGTERM);
    let row = tables.polling.next();
    assert_eq!(row["recv_queue"], 6, "{row}");
    assert_eq!(row.get("inode"), None);
    assert_eq!(tables.end().0, "");
}

#[test]
fn a_table_after_a_while_says_which_tables_broke_meanwhile() {
    for vanish in [false, true] {
        let mut tables = Tables::with(&["list", "-d", "1h"]);
        if vanish {
            // after the first snapshot
            tables.write(&format!("{HEADING}{LISTENER}"));
            std::thread::sleep(Duration::from_secs(1));
            std::fs::remove_dir_all(tables.folder.path().join("net")).unwrap();
        } else {
            std::fs::remove_file(tables.tcp()).unwrap();
        }
        let note = tables.said();
        assert!(note.contains("cannot be read (No such file"), "{note}");
        let (stdout, stderr) = tables.end();
        assert_eq!(stdout.lines().count(), usize::from(vanish), "{stdout}");
        assert!(
            stderr.contains(" with tables missing or damaged"),
            "{stderr}"
        );
        let compared = !stderr.contains("not compared with open sockets at the end");
        assert_eq!(compared, !vanish, "{stderr}");
    }
}
