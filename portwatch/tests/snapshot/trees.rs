//! Trees that look like /proc, whole and damaged.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use portwatch::event::Kind;
use portwatch::snapshot::{Options, Snapshot, first_netns, take};

use crate::{ALL, row, snapshot};

/// A tree like /proc, made by hand: process 10 (`web`, a child of 1) in namespace 1 has a listener
/// and a connection, process 20 (`dns server`, in a container) in namespace 2 has a udp socket.
struct Tree(tempfile::TempDir);

const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const TCP: &str = "   0: 00000000:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000    33        0 1001 1 0000000000000000 100 0 0 10 0\n   1: 0100007F:1F90 0100007F:D431 01 00000004:00000005 00:00000000 00000000    33        0 1002 1 0000000000000000 20 4 30 10 -1\n";
const UDP: &str = "  100: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 2001 2 0000000000000000 0\n";

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for (pid, parent, comm, netns, uid, sockets) in [
            (1, 0, "init", 1, 0, &[][..]),
            (10, 1, "web", 1, 33, &[1001, 1002][..]),
            (20, 1, "dns) server (", 2, 101, &[2001][..]),
        ] {
            let stat = format!("{pid} ({comm}) S {parent} {pid} {pid} 0 -1 4194560 1 2 3 4");
            tree.write(&format!("{pid}/stat"), &stat);
            tree.write(
                &format!("{pid}/status"),
                format!("Name:\tx\nUid:\t{uid}\t0\t0\t0\nGid:\t{uid}\t0\t0\t0\n"),
            );
            tree.write(&format!("{pid}/cmdline"), format!("/bin/{comm}\0-v\0"));
            let id = "3f2a".repeat(16);
            tree.write(&format!("{pid}/cgroup"), format!("0::/docker/{id}\n"));
            tree.link(&format!("{pid}/exe"), "/bin/program");
            tree.link(&format!("{pid}/ns/net"), format!("net:[{netns}]"));
            tree.link(&format!("{pid}/fd/0"), "/dev/null");
            tree.link(&format!("{pid}/fd/1"), "pipe:[1001]");
            for (number, inode) in sockets.iter().enumerate() {
                tree.link(
                    &format!("{pid}/fd/{}", number + 3),
                    format!("socket:[{inode}]"),
                );
            }
            let (tcp, udp) = if netns == 1 { (TCP, "") } else { ("", UDP) };
            tree.write(&format!("{pid}/net/tcp"), format!("{HEADING}{tcp}"));
            tree.write(&format!("{pid}/net/udp"), format!("{HEADING}{udp}"));
            tree.write(&format!("{pid}/net/tcp6"), HEADING);
            tree.write(&format!("{pid}/net/udp6"), HEADING);
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let _ = fs::remove_file(self.path(name));
        fs::write(self.path(name), text).unwrap();
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) {
        let _ = fs::remove_file(self.path(name));
        symlink(target, self.path(name)).unwrap();
    }

    fn fifo(&self, name: &str) {
        let _ = fs::remove_file(self.path(name));
        let made = Command::new("mkfifo").arg(self.path(name)).status();
        assert!(made.unwrap().success());
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.path(name)).unwrap();
    }

    fn take(&self) -> Snapshot {
        let proc_root = Some(self.0.path().to_owned());
        snapshot(&Options { proc_root, ..ALL })
    }
}

pub fn recorded() {
    let tree = Tree::new();
    assert_eq!(first_netns(tree.0.path()), Some(1));
    let all = tree.take();
    assert_eq!((all.rows.len(), &all.limits), (3, &vec![]));
    let listener = row(&all, 8080, None);
    assert_eq!(
        (listener.event.netns, listener.event.kind),
        (Some(1), Kind::Listen)
    );
    assert_eq!((listener.recv_queue, listener.send_queue), (Some(3), None));
    let accepted = row(&all, 8080, Some(54321));
    assert_eq!(
        (accepted.event.kind, accepted.event.pid),
        (Kind::Accept, Some(10))
    );
    assert_eq!(
        (accepted.recv_queue, accepted.send_queue),
        (Some(5), Some(4))
    );
    let udp = &row(&all, 53, None).event;
    assert_eq!((udp.netns, udp.pid, udp.ppid), (Some(2), Some(20), Some(1)));
    assert_eq!((udp.uid, udp.gid), (Some(101), Some(101)));
    assert_eq!(udp.comm.unwrap().text(), "dns) server (");
    let context = udp.context.as_ref().unwrap();
    assert_eq!(context.exe.as_deref(), Some("/bin/program"));
    assert_eq!(context.args.as_ref().unwrap()[1], "-v");
    assert_eq!(context.container.as_deref(), Some("3f2a3f2a3f2a"));
    assert_eq!(context.parents.as_ref().unwrap()[0].comm, "init");
    // names of users are those of another machine
    assert_eq!(context.user, None);
}

pub fn damaged() {
    let tree = Tree::new();
    let cut = &TCP[..TCP.len() - 60];
    tree.write(
        "1/net/tcp",
        [HEADING.as_bytes(), cut.as_bytes(), b"\n\xff\xfe garbage\n"].concat(),
    );
    // processes that went away between two looks at them
    tree.remove("10/net");
    tree.remove("20/fd");
    tree.write("30/stat", "30 (");
    tree.write("10/stat", [0xff, b'(', 0x80, b')', b' ', b'S']);
    tree.write("10/ns/net", "no link");
    tree.link("10/fd/9", "socket:[many]");
    tree.write("10/fd/10", "no link either");
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    let listener = row(&all, 8080, None);
    // a process that cannot be read owns what it holds all the same
    assert_eq!(
        (listener.event.pid, listener.event.uid),
        (Some(10), Some(33))
    );
    assert_eq!(listener.event.holders.as_ref().unwrap()[0].pid, 10);
    assert_eq!(
        (
            row(&all, 53, None).event.pid,
            &row(&all, 53, None).event.holders
        ),
        (None, &None)
    );
    let limits = all.limits.join("\n");
    for expected in [
        "the network namespaces of 2 processes are not told",
        "2 lines of tables of sockets could not be understood",
        "4 lists or entries of processes could not be understood",
    ] {
        assert!(limits.contains(expected), "{limits}");
    }
}

pub fn incomplete_processes() {
    let tree = Tree::new();
    // which holds the listener of process 10 too
    tree.link("20/fd/9", "socket:[1001]");
    let whole = tree.take();
    for damage in [None, Some(&b""[..]), Some(b"\xff garbage"), Some(b"10 (we")] {
        for name in ["10/stat", "10/status", "10/cmdline"] {
            let tree = Tree::new();
            tree.link("20/fd/9", "socket:[1001]");
            tree.write("10/comm", "web\n");
            match damage {
                None => fs::remove_file(tree.path(name)).unwrap(),
                Some(text) => tree.write(name, text),
            }
            let all = tree.take();
            for remote in [None, Some(54321)] {
                let (whole, event) = (
                    &row(&whole, 8080, remote).event,
                    &row(&all, 8080, remote).event,
                );
                assert_eq!((event.pid, event.comm), (whole.pid, whole.comm), "{name}");
                assert_eq!(event.holders, whole.holders, "{name}");
                // of the socket, where the process does not tell
                assert_eq!(event.uid, Some(33), "{name}");
                let gid = whole.gid.filter(|_| name != "10/status");
                assert_eq!(event.gid, gid, "{name}");
                let ppid = whole.ppid.filter(|_| name != "10/stat");
                assert_eq!(event.ppid, ppid, "{name}");
            }
            // what else tells the same
            tree.write("10/status", "Name:\tweb\nPPid:\t1\n");
            tree.write("10/comm", "");
            let all = tree.take();
            let event = &row(&all, 8080, None).event;
            assert_eq!(event.comm.unwrap().text(), "web", "{name}");
            assert_eq!(event.ppid, Some(1), "{name}");
        }
    }
    // nothing but its number
    for name in ["10/stat", "10/status", "10/cmdline"] {
        fs::remove_file(tree.path(name)).unwrap();
    }
    let all = tree.take();
    let event = &row(&all, 8080, None).event;
    assert_eq!((event.pid, event.comm, event.ppid), (Some(10), None, None));
    assert_eq!((event.uid, event.gid), (Some(33), None));
}

pub fn no_regular_files() {
    let tree = Tree::new();
    for pid in [1, 10] {
        tree.link(&format!("{pid}/net/tcp"), "/dev/zero");
        tree.fifo(&format!("{pid}/net/udp6"));
    }
    for name in ["20/stat", "20/cgroup"] {
        tree.fifo(name);
    }
    tree.link("20/cmdline", "/dev/zero");
    // no device, but without an end as well
    fs::remove_file(tree.path("10/status")).unwrap();
    let endless = fs::File::create(tree.path("10/status")).unwrap();
    endless.set_len(1 << 40).unwrap();
    let all = tree.take();
    assert_eq!(all.rows.len(), 1);
    let udp = &row(&all, 53, None).event;
    assert_eq!((udp.pid, udp.uid), (Some(20), Some(101)));
    let context = udp.context.as_ref().unwrap();
    assert_eq!((&context.args, &context.cgroup), (&None, &None));
    let expected =
        "tables of sockets could not be read: tcp: not a regular file, udp6: not a regular file";
    assert_eq!(all.limits, [expected]);

    let tree = Tree::new();
    tree.write("1/net/tcp", format!("{HEADING}{}", "0".repeat(1 << 20)));
    tree.remove("10/net");
    let all = tree.take();
    assert_eq!(all.rows.len(), 1);
    let expected = "1 line of tables of sockets could not be understood and is left out";
    assert_eq!(all.limits, [expected]);
}

pub fn some_tables() {
    let limits = |there: &[&str]| {
        let tree = Tree::new();
        for pid in [1, 10, 20] {
            for table in ["tcp", "tcp6", "udp", "udp6"] {
                if !there.contains(&table) {
                    fs::remove_file(tree.path(&format!("{pid}/net/{table}"))).unwrap();
                }
            }
        }
        let all = tree.take();
        let ports: Vec<u16> = all
            .rows
            .iter()
            .map(|row| row.event.lport.unwrap())
            .collect();
        let expected = |table, port| {
            assert_eq!(ports.contains(&port), there.contains(&table), "{there:?}");
        };
        expected("tcp", 8080);
        expected("udp", 53);
        all.limits.join("\n")
    };
    let unread = "tables of sockets could not be read: ";
    let reason = "No such file or directory (os error 2)";
    for (there, missing) in [
        (&["tcp"][..], &["udp", "tcp6", "udp6"][..]),
        (&["udp", "udp6"], &["tcp", "tcp6"]),
        (&["tcp", "udp", "tcp6"], &["udp6"]),
        (&["tcp6"], &["tcp", "udp", "udp6"]),
    ] {
        let missing: Vec<String> = (missing.iter().map(|x| format!("{x}: {reason}"))).collect();
        assert_eq!(limits(there), format!("{unread}{}", missing.join(", ")));
    }
    // a kernel without IPv6
    assert_eq!(limits(&["tcp", "udp"]), "");

    // without processes, as a copy of net alone is
    let tree = Tree(tempfile::tempdir().unwrap());
    tree.write("net/tcp", format!("{HEADING}{TCP}"));
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    assert!(all.limits.join("\n").contains(&format!("udp: {reason}")));
}

pub fn no_namespaces() {
    let tree = Tree::new();
    for pid in [1, 10, 20] {
        tree.remove(&format!("{pid}/ns"));
    }
    let all = tree.take();
    assert_eq!(all.rows.len(), 2);
    assert_eq!(row(&all, 8080, None).event.netns, None);
    assert_eq!(row(&all, 8080, None).event.pid, Some(10));
    assert_eq!(
        all.limits,
        ["network namespaces cannot be told apart: only one is shown"]
    );
}

pub fn no_proc() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: PathBuf| {
        let proc_root = Some(path);
        format!("{:#}", take(&Options { proc_root, ..ALL }).unwrap_err())
    };
    let error = refused(folder.path().to_owned());
    assert!(error.contains("has no tables of sockets"), "{error}");
    let error = refused(folder.path().join("nothing"));
    assert!(error.contains("No such file or directory"), "{error}");
}
