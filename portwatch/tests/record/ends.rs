//! What ends a recording, and what stays of one that was ended.

use std::io::BufRead as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::{
    NETWORK, Recording, ask, connection, now, number, outcome, place, record, unfinished, until,
};

/// Machines stand still for seconds at times, and what is not stored then is lost; that happens rarely,
/// and whatever is there has to be all there was up to some moment.
pub fn killed() {
    const ROUNDS: u32 = 5;
    let mut kept = 0;
    for _ in 0..ROUNDS {
        let (_folder, file) = place();
        let mut recording = Recording::start(&mut record(&file, &[]));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = AtomicBool::new(false);
        let (made, killed) = std::thread::scope(|scope| {
            let maker = scope.spawn(|| {
                // when it was over, and the client's port
                let mut made: Vec<(u64, i64)> = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    let client = connection(&listener);
                    made.push((now(), client.into()));
                    // SQLite is built to be debugged, not to be fast.
                    if cfg!(debug_assertions) {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                }
                made
            });
            std::thread::sleep(Duration::from_secs(3));
            let killed = now();
            recording.signal(libc::SIGKILL);
            recording.wait();
            done.store(true, Ordering::Relaxed);
            (maker.join().unwrap(), killed)
        });
        let old = made.partition_point(|x| x.0 + 1_000_000_000 < killed);
        assert!(old > 100, "{old}");
        assert_eq!(unfinished(&file), [1]);
        let there = |event: &str, own: &str, other: &str| -> Vec<i64> {
            let sql = format!(
                "SELECT {own} FROM events WHERE event = '{event}' AND {other} = {port} AND raddr IS NOT NULL ORDER BY seq"
            );
            ask(&file, &sql)
        };
        let clients: Vec<i64> = made.iter().map(|x| x.1).collect();
        let connects = there("connect", "lport", "rport");
        let accepts = there("accept", "rport", "lport");
        assert!(clients.starts_with(&connects) && clients.starts_with(&accepts));
        let stored = connects.len().min(accepts.len());
        kept += u32::from(stored >= old);
        // A reset is taken in by the kernel later on, maybe after the next connection is made.
        let mut closed = there("close", "rport", "lport");
        let until = made.get(stored).map_or(killed, |x| x.0);
        for client in &clients[..made.partition_point(|x| x.0 + 1_000_000_000 < until)] {
            let at = closed.iter().position(|x| x == client);
            closed.remove(at.expect("a connection that did not end"));
        }
        // it can be gone on with
        let (code, _, said) = outcome(record(&file, &["--append", "--", "true"]).output().unwrap());
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(unfinished(&file), [1]);
    }
    assert!(kept * 2 > ROUNDS, "{kept} of {ROUNDS} times");
}

/// Later on it may have no more open files.
pub fn blinded() {
    let (_folder, file) = place();
    let mut recording = Recording::start(&mut record(&file, &[]));
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pid = recording.child.id().cast_signed();
    let mut line = String::new();
    // The first one is taken by then.
    std::thread::sleep(Duration::from_secs(2));
    // SAFETY: reads the structure, and writes nothing.
    let set = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, std::ptr::null_mut()) };
    assert_eq!(set, 0);
    while !line.contains("open sockets cannot be read: ") {
        line.clear();
        assert!(recording.stderr.read_line(&mut line).unwrap() > 0);
    }
    assert!(line.contains("Too many open files"), "{line}");
    recording.stop();
}

/// Runs a script where mounts are its own, with the program as `$0` and a folder as `$1`.
fn with_mounts(folder: &Path, script: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new("unshare");
    command
        .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_portwatch")])
        .arg(folder)
        .stdin(Stdio::null())
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID");
    outcome(command.output().unwrap())
}

pub fn full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let churn = "
import socket, struct
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
for i in range(20000):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept()
    c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0)); c.close(); a.close()
print('to the end')
";
    std::fs::write(folder.path().join("churn.py"), churn).unwrap();
    // What is left is looked at while the disk is still full.
    let script = "
mkdir $1/small && mount -t tmpfs -o size=2M none $1/small && cd $1/small || exit 99
$0 record s.db -- python3 ../churn.py; code=$?
head -c 100000 /dev/zero > rest 2>/dev/null
cp -a . $1/copy; umount -l $1/small; exit $code";
    let (code, stdout, stderr) = with_mounts(folder.path(), script);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.ends_with("to the end\n"), "{stdout}");
    assert!(
        stderr.contains("ended early, what was stored until then is whole: the disk is full; the command runs on"),
        "{stderr}"
    );
    let file = folder.path().join("copy/s.db");
    assert_eq!(unfinished(&file), [1]);
    let events = number(&file, "SELECT count(*) FROM events");
    assert!(events > 1000, "{events}");
    assert_eq!(events, number(&file, "SELECT max(seq) FROM events"));
}

pub fn read_only() {
    let folder = tempfile::tempdir().unwrap();
    // The kernel itself makes a damaged file system read-only, with files open for writing.
    let script = "
head -c 16M /dev/zero > $1/image && mkfs.ext4 -q -F $1/image && mkdir $1/disk || exit 99
mount -o loop,errors=remount-ro $1/image $1/disk || exit 99
trigger=/sys/fs/ext4/$(basename $(findmnt -n -o SOURCE $1/disk))/trigger_fs_error
$0 record $1/disk/s.db 2> $1/said & pid=$!
until grep -q tracing $1/said; do kill -0 $pid || break; sleep 0.1; done
python3 $1/churn.py 500; sleep 1.5
echo 1 > $trigger || exit 99
python3 $1/churn.py 500
wait $pid; code=$?
cat $1/said >&2; cp -a $1/disk/s.db* $1/; umount $1/disk; exit $code";
    let churn = "
import socket, sys
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()
for i in range(int(sys.argv[1])):
    c = socket.create_connection(s.getsockname()); a, _ = s.accept(); a.close(); c.close()
";
    std::fs::write(folder.path().join("churn.py"), churn).unwrap();
    let (code, _, stderr) = with_mounts(folder.path(), script);
    if code == Some(99) {
        eprintln!("NOT RUN: no file system that can turn read-only: {stderr}");
        return;
    }
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains(
            "ended early, what was stored until then is whole: it cannot be written any more"
        ),
        "{stderr}"
    );
    let file = folder.path().join("s.db");
    assert_eq!(unfinished(&file), [1]);
    let accepts = number(
        &file,
        "SELECT count(*) FROM events WHERE event = 'accept' AND comm = 'python3'",
    );
    assert!(accepts >= 500, "{accepts}");
}

pub fn taken_away() {
    let (_folder, file) = place();
    let mut recording = Recording::start(&mut record(&file, &[]));
    std::fs::remove_file(&file).unwrap();
    let (status, stderr) = recording.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("the file was removed or renamed"),
        "{stderr}"
    );
}

pub fn exit_code() {
    for (words, expected) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["true"], 0),
        (&["/"], 126),
    ] {
        let (_folder, file) = place();
        let args = [&["--"], words].concat();
        let (code, _, stderr) = outcome(record(&file, &args).output().unwrap());
        assert_eq!(code, Some(expected), "{stderr}");
    }
}

pub fn reader_leaves() {
    let (_folder, file) = place();
    let mut recording = Recording::start(&mut record(&file, &["-o", "json"]));
    drop(recording.child.stdout.take());
    let (status, said) = recording.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(unfinished(&file).is_empty());
    // a disk that is full is trouble, but not of the session
    let (_folder, file) = place();
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let args = ["-o", "json", "--", "python3", "-c", NETWORK];
    let (code, _, stderr) = outcome(record(&file, &args).stdout(full).output().unwrap());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("writing to stdout: No space left on device"),
        "{stderr}"
    );
    assert!(unfinished(&file).is_empty());
    assert_eq!(
        number(
            &file,
            "SELECT count(*) FROM runs WHERE reason LIKE 'writing to stdout%'"
        ),
        1
    );
}

pub fn capabilities() {
    let (_folder, file) = place();
    let recording = Recording::start(&mut record(&file, &[]));
    until(&file, "SELECT count(*) FROM raw_batch");
    // CAP_DAC_READ_SEARCH, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF
    let kept = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;
    let threads = format!("/proc/{}/task", recording.child.id());
    // Threads that helped at the start may still be on their way out.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let threads = std::fs::read_dir(&threads).unwrap();
        let all: Vec<String> = threads
            .filter_map(|x| std::fs::read_to_string(x.unwrap().path().join("status")).ok())
            .collect();
        let value = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
        };
        let given_up = all.iter().all(|status| {
            value(status, "CapEff:") & !kept == 0
                && value(status, "CapBnd:") & !kept == 0
                && value(status, "NoNewPrivs:") == 1
        });
        if given_up && all.iter().any(|x| x.starts_with("Name:\trecorder\n")) {
            break;
        }
        assert!(Instant::now() < deadline, "{all:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    recording.stop();
}
