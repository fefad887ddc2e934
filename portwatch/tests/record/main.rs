//! `portwatch record` as a program: what traffic made here left in the session, what ends a recording,
//! and what stays of one that was ended. Traces the running kernel, so without root most are listed as
//! ignored.

mod ends;
mod files;
#[path = "../program/mod.rs"]
mod program;
#[path = "../promises/mod.rs"]
mod promises;
mod signed;
#[path = "../traffic/mod.rs"]
mod traffic;
mod truth;

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portwatch::session::{self, Session};
use rusqlite::types::FromSql;
use socket2::SockRef;
use tempfile::TempDir;

use program::{outcome, portwatch};
use promises::{root, run};
use traffic::NETWORK;

fn main() {
    let root = root();
    run(
        &[
            ("a_session_holds_what_was_done", root, truth::truth),
            (
                "processes_are_told_with_start_end_and_hash",
                root,
                truth::processes,
            ),
            ("what_is_printed_is_what_is_recorded", root, truth::printed),
            (
                "sockets_that_were_open_before_are_the_first_checkpoint",
                root,
                truth::seed,
            ),
            (
                "what_nobody_accepted_goes_with_its_listener",
                root,
                truth::queue,
            ),
            ("append_adds_a_run", root, files::append),
            (
                "files_follow_each_other_and_lose_nothing",
                root,
                files::rotation,
            ),
            ("the_oldest_files_are_deleted", root, files::oldest_deleted),
            (
                "a_killed_recording_has_all_but_the_last_second",
                root,
                ends::killed,
            ),
            (
                "a_full_disk_ends_it_and_not_the_command",
                root,
                ends::full_disk,
            ),
            ("a_disk_that_turns_read_only_ends_it", root, ends::read_only),
            ("nothing_is_overwritten", root, files::overwrites_nothing),
            ("only_the_owner_may_read_it", root, files::mode),
            (
                "the_exit_code_is_that_of_the_command",
                root,
                ends::exit_code,
            ),
            ("batches_are_signed", root, signed::signed),
            ("a_reader_that_leaves_ends_it", root, ends::reader_leaves),
            ("capabilities_are_given_up", root, ends::capabilities),
            (
                "what_was_open_before_is_in_the_shortest_recording",
                root,
                truth::shortest,
            ),
            ("a_file_that_is_taken_away_ends_it", root, ends::taken_away),
            ("a_snapshot_that_fails_is_told", root, ends::blinded),
            ("an_ordinary_user_records_by_polling", None, truth::polling),
            (
                "each_file_has_the_accounts_until_then",
                None,
                files::accounts,
            ),
            ("stdout_is_no_place_for_a_session", None, files::stdout),
            (
                "a_signed_session_is_added_to_with_a_key",
                None,
                signed::signed_appended,
            ),
        ],
        false,
    )
}

/// A name for a session, and its folder.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.db");
    (folder, file)
}

fn record(file: &Path, args: &[&str]) -> Command {
    portwatch(&[&["record", file.to_str().unwrap()], args].concat())
}

/// A recording that has begun.
struct Recording {
    child: Child,
    stderr: BufReader<ChildStderr>,
}

impl Recording {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("portwatch: tracing with "), "{line}");
        Self { child, stderr }
    }

    fn signal(&self, signal: i32) {
        // SAFETY: no memory involved; the child is not waited for yet.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Ends it as Ctrl-C does; what it said.
    fn stop(mut self) -> String {
        self.signal(libc::SIGINT);
        let (status, said) = self.wait();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }

    fn wait(&mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("it does not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Recording {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        // An error only says that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All rows of a question with one column.
fn ask<T: FromSql>(file: &Path, sql: &str) -> Vec<T> {
    let session = Session::open(file).unwrap();
    let mut statement = session.connection().prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// One number.
fn number(file: &Path, sql: &str) -> i64 {
    ask(file, sql)[0]
}

/// Nothing is wrong with it; which runs were not finished.
fn unfinished(file: &Path) -> Vec<i64> {
    let verdict = session::verify(file, None).unwrap();
    assert_eq!(verdict.fault, None, "{}", file.display());
    verdict.unfinished
}

fn is_alone(file: &Path) -> bool {
    let beside = |suffix| Path::new(&format!("{}{suffix}", file.display())).exists();
    !beside("-wal") && !beside("-shm") && !beside("-journal")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_nanos()).unwrap()
}

/// One connection over loopback, ended by a reset; the client's port.
fn connection(listener: &TcpListener) -> u16 {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, _) = listener.accept().unwrap();
    let port = client.local_addr().unwrap().port();
    let at_once = Some(Duration::ZERO);
    SockRef::from(&client).set_linger(at_once).unwrap();
    drop(client);
    drop(server);
    port
}

/// Waits until a question has an answer, while the session is written.
fn until(file: &Path, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while number(file, sql) == 0 {
        assert!(Instant::now() < deadline, "{sql}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
