//! Wrong usage ends at once with status 2 and a message that says what is wrong with what.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::binding::NOBODY;
use crate::harness::stage::Stage;

crate::scenarios! {
    wrong_usage_is_answered_with_what_is_wrong,
    without_permission_the_cause_and_the_remedy_are_told,
}

fn wrong_usage_is_answered_with_what_is_wrong(stage: &mut Stage) -> Result<()> {
    // arguments, and words that the answer has to hold
    let table: &[(&[&str], &[&str])] = &[
        (&["trase"], &["trase", "trace"]),
        (&["trace", "--bogus"], &["--bogus"]),
        (&["trace", "--port", "abc"], &["--port", "abc"]),
        (&["trace", "--port", "70000"], &["--port", "70000", "65535"]),
        (&["trace", "--port", "9000-8000"], &["--port", "8000"]),
        (&["trace", "--pid", "-1"], &["-1"]),
        (&["trace", "--event", "conect"], &["conect", "connect"]),
        (&["trace", "--uid", "no-such-user"], &["no-such-user"]),
        (
            &["trace", "--net", "192.0.2.0/40"],
            &["--net", "192.0.2.0/40"],
        ),
        (&["trace", "--fields", "lport,nosuch"], &["nosuch"]),
        (&["trace", "--output", "xml"], &["xml", "json"]),
        (&["trace", "--probes", "warp"], &["warp", "tracepoint"]),
        (&["trace", "--ring-size", "5"], &["--ring-size", "5"]),
        (&["trace", "--ring-size", "12K"], &["--ring-size", "12K"]),
        (&["trace", "--count", "many"], &["--count", "many"]),
        (&["trace", "--duration", "soon"], &["--duration", "soon"]),
        (
            &["trace", "--filter", "lport =="],
            &["--filter", "lport =="],
        ),
        (&["trace", "--filter", "nosuch == 1"], &["nosuch", "lport"]),
        (
            &["trace", "--netns", "no-such-namespace"],
            &["no-such-namespace"],
        ),
    ];
    for (args, words) in table {
        let mut command = Command::new(stage.portwatch());
        command.args(*args);
        let run = stage.start(command)?.wait()?;
        let check = || {
            run.expect_status(2)?;
            ensure!(run.stdout.is_empty(), "something on stdout");
            run.expect_said(words)
        };
        check().with_context(|| format!("portwatch {}", args.join(" ")))?;
    }
    Ok(())
}

fn without_permission_the_cause_and_the_remedy_are_told(stage: &mut Stage) -> Result<()> {
    use std::os::unix::process::CommandExt;
    // where the program lies may be closed to others
    let copy = stage.directory().join("portwatch");
    std::fs::copy(stage.portwatch(), &copy)?;
    let mut command = Command::new(&copy);
    // without a tier that is asked for, it would poll
    let arguments = ["trace", "--probes", "tracepoint"];
    command.args(arguments).uid(NOBODY).gid(NOBODY);
    let run = stage.start(command)?.wait()?;
    run.expect_status(1)?;
    ensure!(run.stdout.is_empty(), "something on stdout");
    run.expect_said(&["permission", "CAP_BPF", "root"])
}
