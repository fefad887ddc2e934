//! The live scenarios, on this kernel and in virtual machines, with each tier of probes forced in turn.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::image::Programs;
use crate::kernels::{Kernel, Line};
use crate::paths::Paths;
use crate::tally::Row;
use crate::vm::{Machine, quoted};

pub const TIERS: &[&str] = &["trampoline", "kprobe", "tracepoint"];
const HERE_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const VM_TIMEOUT: Duration = Duration::from_secs(25 * 60);
/// Starts the line with which the script tells why this tier is not to be had.
const UNAVAILABLE: &str = "unavailable: ";

/// Which scenarios, on which tiers.
pub struct Selection {
    pub tiers: Vec<&'static str>,
    /// Names or parts of names; all when empty.
    pub names: Vec<String>,
}

/// On this kernel. A tier that it does not allow is skipped, with portwatch's reason.
pub fn here(programs: &Programs, selection: &Selection) -> Vec<Row> {
    let place = std::fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(
        |_| "here".into(),
        |release| format!("{} (here)", release.trim()),
    );
    let each = |tier: &&'static str| {
        let mut row = Row::new("scenarios", &place, *tier);
        let script = script(
            &programs.portwatch,
            &programs.scenarios,
            tier,
            "full",
            &selection.names,
        );
        let start = Instant::now();
        let mut reader = Reader::new(&mut row, Unavailable::Skips);
        let code = run_here(&script, |line| reader.line(line));
        reader.finish(code);
        row.took = start.elapsed();
        row
    };
    selection.tiers.iter().map(each).collect()
}

/// On other kernels, `jobs` machines at a time. These are known to allow every tier, so that one
/// that is refused is a failure.
pub fn in_machines(
    paths: &Paths,
    programs: &Programs,
    selection: &Selection,
    lines: &[&Line],
    jobs: usize,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut work = Vec::new();
    for line in lines {
        match line.kernel(paths) {
            Ok(kernel) => {
                let kernel = std::sync::Arc::new(kernel);
                work.extend(selection.tiers.iter().map(|tier| (kernel.clone(), *tier)));
            }
            Err(error) => {
                let mut row = Row::new("scenarios", line.name, "");
                row.skip(format!("{error:#}").replace('\n', " "));
                rows.push(row);
            }
        }
    }
    let queue = Mutex::new(work.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    // both locks are held for no longer than these statements, which do not panic
                    let next = queue.lock().expect("not poisoned").next();
                    let Some((number, (kernel, tier))) = next else {
                        break;
                    };
                    let row = in_machine(paths, programs, selection, &kernel, tier);
                    done.lock().expect("not poisoned").push((number, row));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("not poisoned: see above");
    done.sort_by_key(|(number, _)| *number);
    rows.extend(done.into_iter().map(|(_, row)| row));
    rows
}

fn in_machine(
    paths: &Paths,
    programs: &Programs,
    selection: &Selection,
    kernel: &Kernel,
    tier: &'static str,
) -> Row {
    let mut row = Row::new("scenarios", &kernel.version, tier);
    let bin = Path::new("/bin");
    let script = script(
        &bin.join("portwatch"),
        &bin.join("scenarios"),
        tier,
        "vm",
        &selection.names,
    );
    let start = Instant::now();
    let mut reader = Reader::new(&mut row, Unavailable::Fails);
    let files = [&*programs.portwatch, &*programs.scenarios];
    let code = Machine::new(paths, kernel, &files, &script)
        .and_then(|machine| machine.run(VM_TIMEOUT, |line| reader.line(line)));
    reader.finish(code);
    row.took = start.elapsed();
    row
}

/// The same in every place: asks portwatch whether it can serve with this tier, then runs the scenarios.
fn script(portwatch: &Path, scenarios: &Path, tier: &str, scale: &str, names: &[String]) -> String {
    let word = |path: &Path| quoted(&path.to_string_lossy());
    let (portwatch, scenarios) = (word(portwatch), word(scenarios));
    let names: Vec<_> = names.iter().map(|name| quoted(name)).collect();
    format!(
        "{portwatch} doctor --probes {tier} >/dev/null 2>&1\n\
         if [ $? = 1 ]; then\n\
         reason=$({portwatch} trace --probes {tier} --duration 1s 2>&1 >/dev/null)\n\
         echo \"{UNAVAILABLE}$(echo \"$reason\" | tr '\\n' ' ')\"\n\
         exit 0\n\
         fi\n\
         {scenarios} --portwatch {portwatch} --probes {tier} --scale {scale} {}\n",
        names.join(" ")
    )
}

fn run_here(script: &str, mut line: impl FnMut(&str)) -> Result<i32> {
    let mut child = Command::new("timeout")
        .args([
            "--kill-after=10",
            &HERE_TIMEOUT.as_secs().to_string(),
            "sh",
            "-c",
            script,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("running sh")?;
    let output = child.stdout.take().context("sh has no stdout")?;
    for text in BufReader::new(output).split(b'\n') {
        line(&String::from_utf8_lossy(&text?));
    }
    let status = child.wait()?;
    status
        .code()
        .with_context(|| format!("the scenarios ended with {status}"))
}

/// What it means when portwatch cannot serve with a tier.
#[derive(Clone, Copy)]
enum Unavailable {
    Skips,
    Fails,
}

/// Reads what the script prints into a row.
struct Reader<'a> {
    row: &'a mut Row,
    unavailable: Unavailable,
    /// The runner's own totals, its last line.
    totals: Option<String>,
    ended: bool,
}

impl<'a> Reader<'a> {
    fn new(row: &'a mut Row, unavailable: Unavailable) -> Self {
        Self {
            row,
            unavailable,
            totals: None,
            ended: false,
        }
    }

    fn line(&mut self, line: &str) {
        eprintln!("{:>18} {:<10} {line}", self.row.place, self.row.tier);
        if let Some(reason) = line.strip_prefix(UNAVAILABLE) {
            self.ended = true;
            match self.unavailable {
                Unavailable::Skips => self.row.skip(format!("run: {reason}")),
                Unavailable::Fails => self.row.fail(format!("to attach: {reason}")),
            }
        } else if line.starts_with("ok ") {
            self.row.pass();
        } else if let Some(what) = line.strip_prefix("FAIL ") {
            self.row.fail(what);
        } else if let Some(what) = line.strip_prefix("again ") {
            self.row.again(what);
        } else if let Some(what) = line.strip_prefix("cannot ") {
            self.row.skip(format!("run {what}"));
        } else if line.contains(" passed, ") && line.ends_with(" skipped") {
            self.totals = Some(line.to_string());
        }
    }

    /// Nothing may be missing: the runner has to come to its last line, and its totals are ours.
    fn finish(self, code: Result<i32>) {
        let row = self.row;
        let counted = format!(
            "{} passed, {} failed, {} skipped",
            row.passed, row.failed, row.skipped
        );
        match (code, self.totals) {
            (Err(error), _) => row.fail(format!("{error:#}")),
            (Ok(_), None) if self.ended => {}
            (Ok(code), None) => row.fail(format!("the runner ended early, with {code}")),
            (Ok(_), Some(totals)) if totals != counted => {
                row.fail(format!("the runner says {totals}, its lines {counted}"));
            }
            (Ok(code), Some(_)) if (code == 0) != (row.failed == 0) => {
                row.fail(format!("the runner exited with {code} after {counted}"));
            }
            (Ok(_), Some(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Passed, failed and skipped after these lines and this exit code.
    fn read(lines: &[&str], code: i32, unavailable: Unavailable) -> (u32, u32, u32) {
        let mut row = Row::new("scenarios", "here", "kprobe");
        let mut reader = Reader::new(&mut row, unavailable);
        lines.iter().for_each(|line| reader.line(line));
        reader.finish(Ok(code));
        (row.passed, row.failed, row.skipped)
    }

    #[test]
    fn each_line_of_the_runner_counts() {
        let lines = [
            "ok a 1.00",
            "cannot b: no",
            "FAIL c 2.00: bad",
            "1 passed, 1 failed, 1 skipped",
        ];
        assert_eq!(read(&lines, 1, Unavailable::Fails), (1, 1, 1));
    }

    #[test]
    fn a_runner_that_does_not_come_to_its_last_line_fails() {
        assert_eq!(read(&["ok a 1.00"], 0, Unavailable::Skips), (1, 1, 0));
        assert_eq!(read(&[], 0, Unavailable::Skips), (0, 1, 0));
    }

    #[test]
    fn totals_and_exit_code_have_to_agree_with_the_lines() {
        assert_eq!(
            read(
                &["ok a 1.00", "2 passed, 0 failed, 0 skipped"],
                0,
                Unavailable::Skips
            ),
            (1, 1, 0)
        );
        assert_eq!(
            read(
                &["ok a 1.00", "1 passed, 0 failed, 0 skipped"],
                1,
                Unavailable::Skips
            ),
            (1, 1, 0)
        );
        assert_eq!(
            read(
                &["ok a 1.00", "1 passed, 0 failed, 0 skipped"],
                0,
                Unavailable::Skips
            ),
            (1, 0, 0)
        );
    }

    #[test]
    fn a_tier_that_portwatch_refuses_is_shown_with_its_reason_and_the_others_run() {
        let folder = std::env::temp_dir().join(format!("xtask-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            path
        };
        let refuse = r#"[ "$3" != kprobe ] || { printf 'no kprobes *\nat all' >&2; exit 1; }"#;
        let programs = Programs {
            portwatch: program("port watch", refuse),
            scenarios: program(
                "scenarios",
                "echo ok $4 1.00; echo 1 passed, 0 failed, 0 skipped",
            ),
        };
        let selection = Selection {
            tiers: TIERS.to_vec(),
            names: Vec::new(),
        };
        let rows = here(&programs, &selection);
        std::fs::remove_dir_all(&folder).unwrap();

        let counts: Vec<_> = rows
            .iter()
            .map(|row| (row.passed, row.failed, row.skipped))
            .collect();
        assert_eq!(counts, [(1, 0, 0), (0, 0, 1), (1, 0, 0)]);
        assert_eq!(rows[1].notes, ["could not run: no kprobes * at all "]);
    }

    #[test]
    fn a_refused_tier_is_skipped_only_where_the_kernel_may_refuse_it() {
        let lines = ["unavailable: kprobes are absent"];
        assert_eq!(read(&lines, 0, Unavailable::Skips), (0, 0, 1));
        assert_eq!(read(&lines, 0, Unavailable::Fails), (0, 1, 0));
    }
}
