//! What is told of an owner beyond its numbers, however odd its names are.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;
use nix::sys::wait::{WaitStatus, wait};

use super::connecting::loopback;
use super::listeners::expect_listener;
use super::programs::LISTENER;
use crate::harness::event::Event;
use crate::harness::meeting::mailboxes;
use crate::harness::process::{cannot, spawn};
use crate::harness::socket::Sock;
use crate::harness::stage::Stage;
use crate::harness::truth::{Process, text};

crate::scenarios! {
    hostile_names_and_arguments_arrive_unharmed_in_json,
    hostile_names_do_no_harm_in_text,
    hostile_names_arrive_unharmed_in_csv,
    chosen_fields_are_shown_alone_and_in_order,
    parents_are_told_nearest_first,
    a_parent_has_the_name_that_it_gave_itself,
    who_ended_before_is_no_ancestor,
    the_user_is_named,
    a_container_is_told_from_the_cgroup,
    a_container_is_told_from_a_cgroup_of_version_1,
    the_filter_by_container_shows_exactly_its_events,
    a_systemd_unit_is_told_from_the_cgroup,
}

/// Up to 15 bytes, so that the kernel keeps all of it.
const HOSTILE_NAME: &str = "e\"v\\i\u{1b}[1m\nl,";
const PORT: u16 = 20_001;

fn hostile_arguments() -> Vec<OsString> {
    [
        LISTENER.as_bytes(),
        PORT.to_string().as_bytes(),
        b"quote\" and back\\slash",
        b"tab\tnewline\nreturn\r",
        b"escape\x1b[31m bell\x07",
        "\u{202e}turned \u{e9} \u{6f22}\u{1f980}".as_bytes(),
        b"not text \xff\xfe",
        b"",
        b"last",
    ]
    .iter()
    .map(|bytes| OsStr::from_bytes(bytes).to_owned())
    .collect()
}

/// Execs a copy of this program under a hostile name.
fn hostile_listener(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let program = stage.directory().join(HOSTILE_NAME);
    fs::copy("/proc/self/exe", &program)?;
    let inode = netns.inode();
    stage.spawn_in(&netns, "starter", || {
        let arguments = hostile_arguments();
        let mut child = Command::new(&program).args(&arguments).spawn()?;
        let starter = Process::current()?;
        let me = Process {
            exe: program.to_string_lossy().into_owned(),
            ..starter
        };
        let text: Vec<String> = arguments
            .iter()
            .map(|argument| text(argument.as_bytes()))
            .collect();
        expect_listener(&me, child.id(), &text, PORT, inode);
        ensure!(child.wait()?.success(), "the listener failed");
        Ok(())
    })?;
    stage.join()
}

fn hostile_names_and_arguments_arrive_unharmed_in_json(stage: &mut Stage) -> Result<()> {
    let events = stage.exact(hostile_listener)?;
    ensure!(events.len() == 3, "{} events", events.len());
    Ok(())
}

/// Runs another kind of output over the hostile listener.
fn hostile_output(stage: &mut Stage, output: &str, flags: &[&str]) -> Result<String> {
    let mut tracer = stage.start(stage.command(output, flags))?;
    tracer.wait_ready()?;
    hostile_listener(stage)?;
    let run = tracer.stop()?;
    run.expect_status(0)?;
    Ok(String::from_utf8(run.stdout)?)
}

fn hostile_names_do_no_harm_in_text(stage: &mut Stage) -> Result<()> {
    let text = hostile_output(stage, "text", &["--port", &PORT.to_string()])?;
    let harmful =
        |c: &char| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{202e}').contains(c);
    let found = text.chars().find(harmful);
    ensure!(found.is_none(), "{found:?} in {text:?}");
    // the header, and one line for each of bind, listen, close
    ensure!(text.lines().count() == 4, "not 4 lines: {text:?}");
    Ok(())
}

fn hostile_names_arrive_unharmed_in_csv(stage: &mut Stage) -> Result<()> {
    let fields = ["event", "lport", "comm", "args"];
    let port = PORT.to_string();
    let flags = ["--port", &port, "--fields", &fields.join(",")];
    let text = hostile_output(stage, "csv", &flags)?;
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header: Vec<&str> = reader.headers()?.iter().collect();
    ensure!(header == fields, "{header:?}");
    let mut events = Vec::new();
    for row in reader.records() {
        let row = row?;
        ensure!(row[1] == port, "{row:?}");
        ensure!(&row[2] == HOSTILE_NAME, "{row:?}");
        ensure!(row[3].contains("quote"), "{row:?}");
        events.push(row[0].to_owned());
    }
    ensure!(events == ["bind", "listen", "close"], "{events:?}");
    Ok(())
}

fn chosen_fields_are_shown_alone_and_in_order(stage: &mut Stage) -> Result<()> {
    let netns = stage.netns()?;
    let inode = netns.inode().to_string();
    let flags = ["--fields", "lport,event,pid", "--netns", &inode];
    let tracer = stage.trace(&flags)?;
    let pid = stage.spawn_in(&netns, "binder", || Ok(Sock::udp4()?.bind(loopback(5353))?))?;
    stage.join()?;
    let run = tracer.stop()?;
    run.expect_status(0)?;
    let line = |event| format!("{{\"lport\":5353,\"event\":\"{event}\",\"pid\":{pid}}}\n");
    let due = [line("bind"), line("close")].concat();
    let text = String::from_utf8(run.stdout)?;
    ensure!(text == due, "{text:?}, not {due:?}");
    Ok(())
}

fn bind_once(stage: &mut Stage, before: impl FnOnce() -> Result<()>) -> Result<Vec<Event>> {
    let netns = stage.netns()?;
    stage.exact(|stage| {
        stage.spawn_in(&netns, "binder", || {
            before()?;
            Sock::tcp4()?.bind(loopback(8080))?;
            Ok(())
        })?;
        Ok(())
    })
}

fn parents_are_told_nearest_first(stage: &mut Stage) -> Result<()> {
    let runner = Process::current()?;
    let events = bind_once(stage, || Ok(()))?;
    for event in events {
        let parents = event.parents.context("no parents")?;
        let told: Vec<(u32, &str)> = parents.iter().map(|x| (x.pid, &*x.comm)).collect();
        let due = (runner.pid, &*runner.comm);
        ensure!(
            told.first() == Some(&due),
            "{told:?}, but {due:?} is the parent"
        );
        ensure!(
            told.get(1).map(|x| x.0) == Some(runner.ppid) || runner.ppid == 0,
            "{told:?}, but {} is the grandparent",
            runner.ppid
        );
    }
    Ok(())
}

fn a_parent_has_the_name_that_it_gave_itself(stage: &mut Stage) -> Result<()> {
    let events = stage.exact_of("renamed", || {
        spawn("child", || Ok(Sock::tcp4()?.bind(loopback(0))?))?.join()
    })?;
    for event in events {
        let parents = event.parents.context("no parents")?;
        let parent = parents.first().map(|parent| &*parent.comm);
        ensure!(parent == Some("renamed"), "{parents:?}");
    }
    Ok(())
}

fn who_ended_before_is_no_ancestor(stage: &mut Stage) -> Result<()> {
    let time_to_look = stage.scaled(Duration::from_millis(500), Duration::from_secs(3));
    let events = stage.exact_of("adopter", || {
        prctl::set_child_subreaper(true)?;
        let [safe, alone] = mailboxes()?;
        let forebear = spawn("forebear", || {
            spawn("orphan", || {
                prctl::set_pdeathsig(None)?;
                safe.put("")?;
                alone.take()?;
                spawn("child", || Ok(Sock::tcp4()?.bind(loopback(0))?))?.join()?;
                sleep(time_to_look);
                Ok(())
            })
            .map(drop)?;
            safe.take().map(drop)
        })?;
        forebear.join()?;
        alone.put("")?;
        let ended = wait()?;
        ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        Ok(())
    })?;
    for event in events {
        let parents = event.parents.context("no parents")?;
        let told: Vec<&str> = parents.iter().map(|x| &*x.comm).take(2).collect();
        ensure!(told == ["orphan", "adopter"], "{parents:?}");
    }
    Ok(())
}

fn the_user_is_named(stage: &mut Stage) -> Result<()> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some("0"))
        .and_then(|line| line.split(':').next())
        .ok_or_else(|| cannot("no name for user 0 in /etc/passwd"))?;
    for event in bind_once(stage, || Ok(()))? {
        ensure!(event.user.as_deref() == Some(name), "{:?}", event.user);
    }
    Ok(())
}

/// A cgroup made for the test, removed with everything above it that it made.
struct Cgroup {
    made: Vec<PathBuf>,
}

impl Cgroup {
    fn new(path: &str) -> Result<Self> {
        Self::of("cgroup2", path)
    }

    /// `version`: the file system of its hierarchy.
    fn of(version: &str, path: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>())
            // New cpusets have no CPUs.
            .filter(|fields| fields.get(1).is_some_and(|path| !path.ends_with("/cpuset")))
            .find(|fields| fields.get(2) == Some(&version))
            .and_then(|fields| fields.get(1).map(PathBuf::from))
            .ok_or_else(|| cannot(format!("no {version} is mounted")))?;
        let mut cgroup = Self { made: Vec::new() };
        let mut directory = root;
        for part in Path::new(path) {
            directory.push(part);
            if !directory.exists() {
                fs::create_dir(&directory)
                    .map_err(|error| cannot(format!("no cgroup can be made: {error}")))?;
                cgroup.made.push(directory.clone());
            }
        }
        Ok(cgroup)
    }

    /// Moves the calling process there.
    fn enter(&self) -> Result<()> {
        let innermost = self.made.last().context("the cgroup was there before")?;
        Ok(fs::write(innermost.join("cgroup.procs"), "0")?)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in self.made.iter().rev() {
            // what stays, stays empty
            let _ = fs::remove_dir(directory);
        }
    }
}

fn a_container_is_told_from_the_cgroup(stage: &mut Stage) -> Result<()> {
    let id = "0123456789abcdef".repeat(4);
    let path = format!("/portwatch-test/docker/{id}");
    let cgroup = Cgroup::new(&path[1..])?;
    let events = bind_once(stage, || cgroup.enter())?;
    for event in events {
        ensure!(event.container.as_deref() == Some(&id[..12]), "{event:?}");
        let told = event.cgroup.unwrap_or_default();
        ensure!(told.ends_with(&path), "cgroup {told}");
    }
    Ok(())
}

fn a_container_is_told_from_a_cgroup_of_version_1(stage: &mut Stage) -> Result<()> {
    let id = "89abcdef01234567".repeat(4);
    let cgroup = Cgroup::of("cgroup", &format!("portwatch-test/docker/{id}"))?;
    let events = bind_once(stage, || {
        cgroup.enter()?;
        // Its path is read when a process is first told of, which has to be there still.
        Sock::tcp4()?.bind(loopback(0))?;
        sleep(Duration::from_secs(1));
        Ok(())
    })?;
    for event in events {
        ensure!(event.container.as_deref() == Some(&id[..12]), "{event:?}");
    }
    Ok(())
}

fn the_filter_by_container_shows_exactly_its_events(stage: &mut Stage) -> Result<()> {
    let id = "fedcba9876543210".repeat(4);
    let cgroup = Cgroup::new(&format!("portwatch-test/docker/{id}"))?;
    let netns = stage.netns()?;
    let tracer = stage.trace(&["--container", &id[..12]])?;
    let inside = stage.spawn_in(&netns, "inside", || {
        cgroup.enter()?;
        Ok(Sock::tcp4()?.bind(loopback(8080))?)
    })?;
    stage.spawn_in(
        &netns,
        "outside",
        || Ok(Sock::tcp4()?.bind(loopback(8081))?),
    )?;
    stage.join()?;
    let run = tracer.stop()?;
    let mut truth = stage.truth()?;
    truth.expected.retain(|x| x.pid == inside);
    stage.judge_by(&run, &truth)?;
    Ok(())
}

fn a_systemd_unit_is_told_from_the_cgroup(stage: &mut Stage) -> Result<()> {
    let cgroup = Cgroup::new("portwatch-test/system.slice/portwatch-test.service")?;
    for event in bind_once(stage, || cgroup.enter())? {
        let unit = event.unit.as_deref();
        ensure!(unit == Some("portwatch-test.service"), "unit {unit:?}");
    }
    Ok(())
}
