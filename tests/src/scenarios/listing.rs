//! `portwatch list`: what is in use now, compared with what the traffic makers hold open.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use socket2::SockRef;

use super::binding::NOBODY;
use crate::harness::meeting::{Mailbox, mailboxes};
use crate::harness::netns::Netns;
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::tracer::Run;

crate::scenarios! {
    what_is_open_in_three_namespaces_is_listed_exactly_during_churn,
    the_table_is_what_is_open_before_and_after_the_start_during_churn,
    a_listener_is_listed_with_all_its_holders,
    listeners_that_share_a_port_are_one_line,
    an_ordinary_user_gets_a_list_and_a_hint,
}

/// A socket as `list` has to show it; the keys are the schema's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Open {
    netns: u64,
    proto: String,
    state: String,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    sock: u64,
    pid: u32,
}

/// A row of `list`, with what its kind may leave out.
#[derive(Debug, Deserialize)]
pub struct Row {
    netns: u64,
    proto: String,
    state: String,
    laddr: IpAddr,
    lport: u16,
    raddr: Option<IpAddr>,
    rport: Option<u16>,
    sock: Option<u64>,
    pid: Option<u32>,
    holders: Option<Vec<Holder>>,
}

#[derive(Debug, Deserialize)]
struct Holder {
    pid: u32,
    comm: String,
}

impl Row {
    /// What events tell as well as snapshots, as text.
    pub fn told(&self) -> String {
        let remote = (self.raddr, self.rport);
        let socket = (self.sock, self.netns, self.pid);
        format!(
            "{} {} {}:{} {remote:?} {socket:?}",
            self.proto, self.state, self.laddr, self.lport
        )
    }

    fn open(&self) -> Result<Open> {
        let unknown = || format!("in {self:?}");
        Ok(Open {
            netns: self.netns,
            proto: self.proto.clone(),
            state: self.state.clone(),
            laddr: self.laddr,
            lport: self.lport,
            raddr: self.raddr,
            rport: self.rport,
            sock: self.sock.with_context(unknown)?,
            pid: self.pid.with_context(unknown)?,
        })
    }
}

/// What a traffic maker holds, told by its own system calls.
struct Held {
    netns: u64,
    open: Vec<Open>,
}

impl Held {
    fn new(netns: &Netns) -> Self {
        Self {
            netns: netns.inode(),
            open: Vec::new(),
        }
    }

    fn add(
        &mut self,
        socket: &impl AsFd,
        (proto, state): (&str, &str),
        local: SocketAddr,
        remote: Option<SocketAddr>,
    ) -> Result<()> {
        self.open.push(Open {
            netns: self.netns,
            proto: proto.into(),
            state: state.into(),
            laddr: local.ip(),
            lport: local.port(),
            raddr: remote.map(|x| x.ip()),
            rport: remote.map(|x| x.port()),
            sock: SockRef::from(socket).cookie()?,
            pid: std::process::id(),
        });
        Ok(())
    }

    fn save(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, serde_json::to_vec(&self.open)?)?)
    }
}

/// Runs `list -a` as JSON with these flags more, and reads its rows.
fn list(stage: &mut Stage, flags: &[&str]) -> Result<Vec<Row>> {
    let mut command = Command::new(stage.portwatch());
    command.args(["list", "-a", "-o", "json"]).args(flags);
    rows_of(&stage.start(command)?.wait()?)
}

pub fn rows_of(run: &Run) -> Result<Vec<Row>> {
    run.expect_status(0)?;
    let lines = run.stdout.split(|&byte| byte == b'\n');
    (lines.filter(|line| !line.is_empty()))
        .map(|line| {
            serde_json::from_slice(line).with_context(|| String::from_utf8_lossy(line).into_owned())
        })
        .collect()
}

/// Opens listeners, connections among them and udp sockets, and holds them until told.
fn keep(
    netns: &Netns,
    listeners: usize,
    connections: usize,
    file: &Path,
    ready: &Mailbox,
    done: &Mailbox,
) -> Result<()> {
    let mut held = Held::new(netns);
    let mut sockets: Vec<Box<dyn AsRawFd>> = Vec::new();
    for number in 0..listeners {
        let address = if number % 2 == 0 {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let listener = TcpListener::bind(address)?;
        held.add(&listener, ("tcp", "LISTEN"), listener.local_addr()?, None)?;
        sockets.push(Box::new(listener));
    }
    let listener = TcpListener::bind("127.0.0.1:0")?;
    held.add(&listener, ("tcp", "LISTEN"), listener.local_addr()?, None)?;
    for _ in 0..connections {
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, peer) = listener.accept()?;
        held.add(
            &client,
            ("tcp", "ESTAB"),
            client.local_addr()?,
            Some(listener.local_addr()?),
        )?;
        held.add(&server, ("tcp", "ESTAB"), server.local_addr()?, Some(peer))?;
        sockets.push(Box::new(client));
        sockets.push(Box::new(server));
    }
    let udp = UdpSocket::bind("127.0.0.1:0")?;
    held.add(&udp, ("udp", "UNCONN"), udp.local_addr()?, None)?;
    let connected = UdpSocket::bind("127.0.0.1:0")?;
    connected.connect(udp.local_addr()?)?;
    held.add(
        &connected,
        ("udp", "ESTAB"),
        connected.local_addr()?,
        Some(udp.local_addr()?),
    )?;
    held.save(file)?;
    ready.put("ready")?;
    done.take()?;
    Ok(())
}

const CHURN_PORT: u16 = 7;

/// Connects and closes until told, with so much rest in between.
fn churn(ready: &Mailbox, done: &Mailbox, rest: Duration) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", CHURN_PORT))?;
    ready.put("ready")?;
    while done.try_take()?.is_none() {
        let mut client = TcpStream::connect(("127.0.0.1", CHURN_PORT))?;
        let (server, _) = listener.accept()?;
        client.write_all(b"x")?;
        drop(server);
        drop(client);
        sleep(rest);
    }
    Ok(())
}

/// Three namespaces with traffic makers that hold sockets, and some that churn.
struct World {
    namespaces: [Netns; 3],
    files: Vec<PathBuf>,
    ready: Mailbox,
    done: Mailbox,
    stop: Mailbox,
}

impl World {
    fn new(stage: &mut Stage) -> Result<Self> {
        let [ready, done, stop] = mailboxes()?;
        let namespaces = [stage.netns()?, stage.netns()?, stage.netns()?];
        // An emulated machine would do nothing else.
        let rest = stage.scaled(Duration::ZERO, Duration::from_millis(2));
        for netns in &namespaces {
            stage.spawn_in(netns, "churner", || churn(&ready, &stop, rest))?;
            ready.take()?;
        }
        Ok(Self {
            namespaces,
            files: Vec::new(),
            ready,
            done,
            stop,
        })
    }

    /// One more process in each namespace, with so many listeners and connections.
    fn keepers(&mut self, stage: &mut Stage, listeners: usize, connections: usize) -> Result<()> {
        for netns in &self.namespaces {
            let number = self.files.len();
            let file = stage.directory().join(format!("open{number}"));
            stage.spawn_in(netns, &format!("keeper{number}"), || {
                keep(
                    netns,
                    listeners,
                    connections,
                    &file,
                    &self.ready,
                    &self.done,
                )
            })?;
            self.ready.take()?;
            self.files.push(file);
        }
        Ok(())
    }

    /// Whether these rows are what is held open in the namespaces, but for what churns.
    fn judge(&self, rows: &[Row]) -> Result<()> {
        let mut expected = BTreeSet::new();
        for file in &self.files {
            let open: Vec<Open> = serde_json::from_slice(&std::fs::read(file)?)?;
            expected.extend(open);
        }
        let inodes = self.namespaces.each_ref().map(Netns::inode);
        let rows = rows.iter().filter(|row| {
            inodes.contains(&row.netns) && row.lport != CHURN_PORT && row.rport != Some(CHURN_PORT)
        });
        let mut shown = BTreeSet::new();
        for row in rows {
            ensure!(shown.insert(row.open()?), "shown twice: {row:?}");
        }
        let missing: Vec<_> = expected.difference(&shown).take(3).collect();
        let extra: Vec<_> = shown.difference(&expected).take(3).collect();
        ensure!(
            missing.is_empty() && extra.is_empty(),
            "{} due, {} shown; missing {missing:?}; extra {extra:?}",
            expected.len(),
            shown.len()
        );
        Ok(())
    }

    fn end(self, stage: &mut Stage) -> Result<()> {
        for _ in &self.namespaces {
            self.stop.put("stop")?;
        }
        for _ in &self.files {
            self.done.put("done")?;
        }
        stage.join()
    }
}

fn what_is_open_in_three_namespaces_is_listed_exactly_during_churn(
    stage: &mut Stage,
) -> Result<()> {
    let (listeners, connections) = stage.scaled((166, 166), (30, 30));
    let mut world = World::new(stage)?;
    world.keepers(stage, listeners, connections)?;
    world.keepers(stage, listeners, connections)?;
    let mut result = Ok(());
    for _ in 0..5 {
        result = list(stage, &[]).and_then(|rows| world.judge(&rows));
        if result.is_err() {
            break;
        }
    }
    world.end(stage)?;
    result
}

fn the_table_is_what_is_open_before_and_after_the_start_during_churn(
    stage: &mut Stage,
) -> Result<()> {
    let (listeners, connections) = stage.scaled((166, 166), (30, 30));
    let mut world = World::new(stage)?;
    world.keepers(stage, listeners, connections)?;
    let command = stage.view(&["list", "-a", "-o", "json", "-d", "5m"]);
    let mut table = stage.start(command)?;
    table.wait_ready()?;
    let made = world.keepers(stage, listeners, connections);
    sleep(Duration::from_secs(4));
    let run = table.stop()?;
    made?;
    let result = rows_of(&run).and_then(|rows| world.judge(&rows));
    let result = result.and_then(|()| {
        ensure!(
            !run.stderr.contains("repaired"),
            "events and the kernel's sockets did not agree: {}",
            run.stderr
        );
        Ok(())
    });
    world.end(stage)?;
    result.with_context(|| run.stderr.clone())
}

/// The one row of this port.
fn row_of(rows: &[Row], netns: &Netns, port: u16) -> Result<usize> {
    let of_port = |row: &Row| row.netns == netns.inode() && row.lport == port;
    let found: Vec<usize> = (0..rows.len()).filter(|&at| of_port(&rows[at])).collect();
    match found[..] {
        [at] => Ok(at),
        _ => bail!("{} rows of port {port}", found.len()),
    }
}

fn holders_of(row: &Row) -> BTreeSet<(u32, String)> {
    let holders = row.holders.iter().flatten();
    holders.map(|x| (x.pid, x.comm.clone())).collect()
}

fn a_listener_is_listed_with_all_its_holders(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [rights, ready, done] = mailboxes()?;
    // opened by one, inherited by its child, handed to a third
    let opener = stage.spawn_in(&netns, "opener", || {
        let listener = TcpListener::bind("127.0.0.1:8080")?;
        let heir = crate::harness::process::spawn("heir", || {
            ready.put(&std::process::id().to_string())?;
            done.take()?;
            Ok(())
        })?;
        rights.put_fd(listener.as_raw_fd())?;
        done.take()?;
        heir.join()
    })?;
    let heir: u32 = ready.take()?.parse()?;
    let third = stage.spawn_in(&netns, "third", || {
        let _listener = rights.take_fd()?;
        ready.put("ready")?;
        done.take()?;
        Ok(())
    })?;
    ready.take()?;
    let rows = list(stage, &["-P", "8080"])?;
    for _ in 0..3 {
        done.put("done")?;
    }
    stage.join()?;
    let row = &rows[row_of(&rows, &netns, 8080)?];
    let due = [(opener, "opener"), (heir, "heir"), (third, "third")];
    let due: BTreeSet<_> = due
        .into_iter()
        .map(|(pid, comm)| (pid, comm.to_owned()))
        .collect();
    ensure!(holders_of(row) == due, "{row:?} where {due:?} were due");
    Ok(())
}

fn listeners_that_share_a_port_are_one_line(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let [ready, done] = mailboxes()?;
    let mut due = BTreeSet::new();
    for number in 0..4 {
        let comm = format!("server{number}");
        let pid = stage.spawn_in(&netns, &comm, || {
            let listener = Sock::tcp4()?;
            listener.raw().set_reuse_port(true)?;
            listener.bind("127.0.0.1:8080".parse()?)?;
            listener.listen(16)?;
            ready.put("ready")?;
            done.take()?;
            Ok(())
        })?;
        due.insert((pid, comm));
        ready.take()?;
    }
    let rows = list(stage, &["-P", "8080"])?;
    for _ in 0..4 {
        done.put("done")?;
    }
    stage.join()?;
    let row = &rows[row_of(&rows, &netns, 8080)?];
    ensure!(holders_of(row) == due, "{row:?} where {due:?} were due");
    Ok(())
}

fn an_ordinary_user_gets_a_list_and_a_hint(stage: &mut Stage) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    // where the program lies may be closed to others
    let copy = stage.directory().join("portwatch");
    std::fs::copy(stage.portwatch(), &copy)?;
    let mut command = Command::new(&copy);
    command
        .args(["list", "-o", "json", "-P", &port.to_string()])
        .uid(NOBODY)
        .gid(NOBODY);
    let run = stage.start(command)?.wait()?;
    run.expect_status(0)?;
    let row: Row = serde_json::from_slice(&run.stdout)?;
    ensure!(
        row.lport == port && row.state == "LISTEN" && row.pid.is_none(),
        "{row:?}"
    );
    ensure!(
        run.stderr.lines().count() >= 1,
        "no hint why owners are missing"
    );
    run.expect_said(&["root"])
}
