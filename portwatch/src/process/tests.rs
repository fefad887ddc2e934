use super::*;

/// A machine where only process 1 can be looked up.
struct Machine;

impl Lookup for Machine {
    fn process(&mut self, pid: u32) -> Option<Process> {
        (pid == 1).then(|| Process {
            comm: "init".into(),
            ..Process::default()
        })
    }
    fn cgroup(&mut self, id: u64) -> Option<String> {
        (id == 7).then(|| "/system.slice/web.service".into())
    }
    fn cgroup_now(&mut self, pid: u32) -> Option<String> {
        (pid == 30).then(|| "/docker/now".into())
    }
    fn user(&mut self, uid: u32) -> Option<String> {
        (uid == 0).then(|| "root".into())
    }
}

fn program(ppid: u32, name: &str) -> Process {
    Process {
        ppid,
        comm: name.into(),
        exe: Some(format!("/bin/{name}")),
        ..Process::default()
    }
}

/// Numbers of the ancestors that are told of a process.
fn ancestors(
    processes: &mut Processes,
    tgid: u32,
    ppid: u32,
    lookup: &mut impl Lookup,
) -> Vec<u32> {
    let context = processes.context(&owner(tgid, ppid), u64::MAX, lookup);
    context.parents.iter().flatten().map(|x| x.pid).collect()
}

fn owner(tgid: u32, ppid: u32) -> Owner {
    Owner {
        tgid,
        ppid,
        cgroup: 7,
        ..Owner::default()
    }
}

#[test]
fn a_process_is_known_after_its_end_until_its_number_is_taken() {
    let mut processes = Processes::default();
    processes.exec(10, program(1, "sh"), 0);
    processes.fork(10, 20, "sh".into(), 0, &mut Machine);
    processes.exec(20, program(10, "nc"), 0);
    processes.exit(20, 5);
    let context = processes.context(&owner(20, 10), u64::MAX, &mut Machine);
    assert_eq!(context.exe.as_deref(), Some("/bin/nc"));
    assert_eq!(context.unit.as_deref(), Some("web.service"));
    assert_eq!(context.user.as_deref(), Some("root"));
    let names: Vec<&str> = context
        .parents
        .iter()
        .flatten()
        .map(|p| p.comm.as_str())
        .collect();
    assert_eq!(names, ["sh", "init"]);
    processes.fork(10, 20, "sh".into(), 0, &mut Machine);
    assert_eq!(
        processes
            .context(&owner(20, 10), u64::MAX, &mut Machine)
            .exe
            .as_deref(),
        Some("/bin/sh")
    );
}

#[test]
fn a_parent_has_the_name_that_it_had_when_it_forked() {
    let mut processes = Processes::default();
    processes.exec(10, program(1, "python"), 0);
    processes.fork(10, 20, "python".into(), 0, &mut Machine);
    let names = |processes: &mut Processes, pid| -> Vec<String> {
        let context = processes.context(&owner(pid, 10), u64::MAX, &mut Machine);
        let parents = context.parents.iter().flatten();
        parents.map(|parent| parent.comm.clone()).collect()
    };
    assert_eq!(names(&mut processes, 20), ["python", "init"]);
    processes.fork(10, 21, "worker".into(), 0, &mut Machine);
    for pid in [20, 21] {
        assert_eq!(names(&mut processes, pid), ["worker", "init"]);
    }
}

#[test]
fn what_is_said_of_one_that_ends_is_no_cgroup_to_move_to() {
    let mut processes = Processes::default();
    let program = |cgroup: &str| Process {
        cgroup: Some(cgroup.to_owned()),
        ..program(1, "sh")
    };
    processes.exec(10, program("/docker/1"), 0);
    processes.exec(10, program("/"), 0);
    let known = |processes: &mut Processes, pid| {
        let process = processes.get(pid, &mut Machine);
        process.and_then(|process| process.cgroup.clone())
    };
    assert_eq!(known(&mut processes, 10).as_deref(), Some("/docker/1"));
    processes.exec(11, program("/"), 0);
    assert_eq!(known(&mut processes, 11).as_deref(), Some("/"));
}

#[test]
fn a_process_in_a_cgroup_of_version_1_is_where_it_is_now() {
    let mut processes = Processes::default();
    let cgroup = Some("/docker/before".to_string());
    for pid in [30, 31] {
        let process = Process {
            cgroup: cgroup.clone(),
            ..program(1, "sh")
        };
        processes.exec(pid, process, 0);
    }
    let mut told = |pid, cgroup| {
        let owner = Owner {
            cgroup,
            ..owner(pid, 1)
        };
        processes
            .context(&owner, u64::MAX, &mut Machine)
            .cgroup
            .clone()
    };
    assert_eq!(told(30, 7).as_deref(), Some("/system.slice/web.service"));
    assert_eq!(told(30, 1).as_deref(), Some("/docker/now"));
    assert_eq!(told(31, 1), cgroup);
    processes.exit(30, 1);
    let owner = Owner {
        cgroup: 1,
        ..owner(30, 1)
    };
    let context = processes.context(&owner, u64::MAX, &mut Machine);
    assert_eq!(context.cgroup, cgroup);
}

#[test]
fn a_context_is_shared_until_something_in_it_changes() {
    let mut processes = Processes::default();
    processes.exec(10, program(1, "sh"), 0);
    let first = processes.context(&owner(10, 1), u64::MAX, &mut Machine);
    assert!(Arc::ptr_eq(
        &first,
        &processes.context(&owner(10, 1), u64::MAX, &mut Machine)
    ));
    // others come and go
    processes.fork(10, 20, "sh".into(), 0, &mut Machine);
    processes.exec(20, program(10, "nc"), 0);
    processes.exit(20, 1);
    assert!(Arc::ptr_eq(
        &first,
        &processes.context(&owner(10, 1), u64::MAX, &mut Machine)
    ));
    let nobody = Owner {
        uid: 65534,
        ..owner(10, 1)
    };
    assert_eq!(
        processes.context(&nobody, u64::MAX, &mut Machine).user,
        None
    );
    processes.exec(10, program(1, "cat"), 0);
    assert_eq!(
        processes
            .context(&owner(10, 1), u64::MAX, &mut Machine)
            .exe
            .as_deref(),
        Some("/bin/cat")
    );
}

#[test]
fn the_dead_are_forgotten_but_not_those_who_took_their_numbers() {
    let mut processes = Processes::default();
    for pid in [10, 11] {
        processes.exec(pid, program(1, "sh"), 0);
        processes.exit(pid, 0);
    }
    processes.exec(11, program(1, "cat"), 0);
    processes.exit(99, REMEMBER_NS + 1);
    processes.exec(12, program(1, "sh"), 0);
    processes.exit(12, REMEMBER_NS + 2);
    assert!(!processes.known.contains_key(&10));
    assert!(processes.known.contains_key(&11));
    assert!(processes.known.contains_key(&12));
}

/// A machine where process 20 has this parent now.
struct Orphan(u32);

impl Lookup for Orphan {
    fn process(&mut self, pid: u32) -> Option<Process> {
        match pid {
            20 => Some(program(self.0, "b")),
            _ => Machine.process(pid),
        }
    }
    fn cgroup(&mut self, _: u64) -> Option<String> {
        None
    }
    fn cgroup_now(&mut self, _: u32) -> Option<String> {
        None
    }
    fn user(&mut self, _: u32) -> Option<String> {
        None
    }
}

#[test]
fn who_ended_before_is_no_ancestor_nor_is_who_took_its_number() {
    // 5 begot 10, that 20, that 30
    let line = || {
        let mut processes = Processes::default();
        processes.seed(5, program(1, "reaper"));
        processes.fork(5, 10, "reaper".into(), 1, &mut Machine);
        processes.fork(10, 20, "reaper".into(), 2, &mut Machine);
        processes
    };
    let mut processes = line();
    assert_eq!(
        ancestors(&mut processes, 30, 20, &mut Machine),
        [20, 10, 5, 1]
    );
    processes.exit(10, 3);
    processes.fork(20, 30, "b".into(), 4, &mut Machine);
    // while it is on its way to another parent
    assert_eq!(ancestors(&mut processes, 30, 20, &mut Orphan(10)), [20]);
    processes.exit(99, 5);
    assert_eq!(
        ancestors(&mut processes, 30, 20, &mut Orphan(5)),
        [20, 5, 1]
    );
    processes.fork(1, 10, "innocent".into(), 6, &mut Machine);
    processes.exit(99, 7);
    assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20, 5, 1]);

    let mut processes = line();
    processes.exit(10, 3);
    processes.fork(1, 10, "innocent".into(), 4, &mut Machine);
    assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20]);
    assert_eq!(ancestors(&mut processes, 31, 20, &mut Orphan(1)), [20, 1]);

    let mut processes = line();
    processes.exit(20, 3);
    processes.exit(10, 4);
    assert_eq!(
        ancestors(&mut processes, 30, 20, &mut Machine),
        [20, 10, 5, 1]
    );
    let mut processes = line();
    processes.exit(10, 3);
    processes.exit(20, 4);
    assert_eq!(ancestors(&mut processes, 30, 20, &mut Machine), [20]);
}

#[test]
fn a_process_is_what_it_was_at_the_time() {
    let mut processes = Processes::default();
    processes.fork(1, 10, "init".into(), 10, &mut Machine);
    processes.exec(10, program(1, "sh"), 20);
    processes.exec(10, program(1, "nc"), 30);
    let exe = |processes: &mut Processes, ts| {
        let context = processes.context(&owner(10, 1), ts, &mut Machine);
        context.exe.clone()
    };
    // Longer ago than is known.
    assert_eq!(exe(&mut processes, 19), None);
    for (ts, there) in [(30, "/bin/nc"), (29, "/bin/sh"), (30, "/bin/nc")] {
        assert_eq!(exe(&mut processes, ts).as_deref(), Some(there));
    }
    processes.exit(10, 40);
    processes.fork(1, 10, "init".into(), 50, &mut Machine);
    assert_eq!(exe(&mut processes, 45).as_deref(), Some("/bin/nc"));
    assert_eq!(exe(&mut processes, 50), None);
}

#[test]
fn ancestors_that_form_a_ring_end_somewhere() {
    let mut processes = Processes::default();
    processes.exec(10, program(20, "a"), 0);
    processes.exec(20, program(10, "b"), 0);
    assert_eq!(
        processes
            .context(&owner(10, 20), u64::MAX, &mut Machine)
            .parents
            .as_ref()
            .map(Vec::len),
        Some(2)
    );
}
