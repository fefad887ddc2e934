//! Everything the README shows is run: its examples on loopback traffic made here, in a network
//! namespace of its own, and what comes out has to be of the shape that is shown there. Needs root
//! and curl; without root these tests are listed as ignored.

mod alone;
mod promises;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alone::own_network;
use promises::{root, run};

const README: &str = include_str!("../../README.md");
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What the examples of the README connect to; nothing listens on the second.
const ADDRESS: &str = "127.0.0.1:8080";
const CLOSED: &str = "127.0.0.1:8081";
/// Of the same event, not shown on every machine.
const OPTIONAL: [&str; 3] = ["container", "service", "unit"];

fn main() {
    let root = root();
    if root.is_none() {
        own_network();
    }
    run(
        &[
            ("recordings_have_the_shape_of_real_output", root, recordings),
            ("examples_run", root, examples),
            (
                "the_table_of_probes_is_that_of_the_plan",
                root,
                table_of_probes,
            ),
        ],
        // They share ports.
        true,
    )
}

/// Code blocks of a language.
fn blocks(language: &str) -> Vec<Vec<&'static str>> {
    let opening = format!("```{language}");
    let mut lines = README.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line == opening) {
        blocks.push(lines.by_ref().take_while(|line| *line != "```").collect());
    }
    blocks
}

fn shell(line: &str) -> Command {
    let folder = Path::new(env!("CARGO_BIN_EXE_portwatch")).parent();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec {line}")])
        .env("PATH", format!("{}:{path}", folder.unwrap().display()))
        .env_remove("SUDO_UID")
        .env_remove("SUDO_GID")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn recordings() {
    let mut kinds = 0;
    for block in blocks("console") {
        let (prompt, shown) = block.split_first().expect("an empty block");
        let line = prompt.strip_prefix("# ").expect(prompt);
        if line == "portwatch doctor" {
            let (code, stdout, stderr) = text(shell(line).output().unwrap());
            assert_eq!(code, Some(0), "{stderr}");
            let real: Vec<_> = stdout.lines().filter_map(row_of_doctor).collect();
            let rows: Vec<_> = shown.iter().copied().filter_map(row_of_doctor).collect();
            assert!(!rows.is_empty() && rows.iter().all(|row| real.contains(row)));
            continue;
        }
        if !line.starts_with("portwatch trace") {
            let real = snapshot(line);
            let real: Vec<&str> = real.lines().collect();
            // Elsewhere on the machine there may be more on this port.
            let missing: Vec<_> = parts(shown).difference(&parts(&real)).cloned().collect();
            assert!(
                missing.is_empty(),
                "{line}: {missing:?}\n{}",
                real.join("\n")
            );
            continue;
        }
        let real = if line.contains(" -- ") {
            traced_command(line)
        } else {
            traced_traffic(line)
        };
        let real: Vec<&str> = real.lines().collect();
        assert_eq!(shapes(shown), shapes(&real), "{line}\n{}", real.join("\n"));
        kinds += shapes(shown).len();
    }
    assert!(kinds > 15, "the README shows too little: {kinds}");
}

/// Name of what a line of the doctor's report is about, when it begins a row.
fn row_of_doctor(line: &str) -> Option<&str> {
    let row = line
        .strip_prefix("  ")
        .filter(|row| !row.starts_with(' '))?;
    let (_state, rest) = row.split_once(' ')?;
    rest.trim_start().split("  ").next()
}

/// Output of a command that looks once, while this process has a server and the rest of a
/// connection.
fn snapshot(line: &str) -> String {
    let listener = TcpListener::bind(ADDRESS).unwrap();
    let client = TcpStream::connect(ADDRESS).unwrap();
    drop(listener.accept().unwrap());
    drop(client);
    // only what is in this namespace
    let line = line.replace(" -P", " --netns /proc/self/ns/net -P");
    let (code, stdout, stderr) = text(shell(&line).output().unwrap());
    assert_eq!(code, Some(0), "{line}: {stderr}");
    stdout
}

/// What stays of a table or an answer: names of columns, the beginning of rows, names of lines.
fn parts(lines: &[&str]) -> BTreeSet<String> {
    let parts = lines.iter().flat_map(|line| match line.strip_prefix("  ") {
        Some(named) => vec![named.get(..13).unwrap_or(named).trim_end()],
        None if line.starts_with("PROTO") => split(line, ' '),
        None => split(line, ' ').into_iter().take(1).collect(),
    });
    let parts = parts.filter(|part| !OPTIONAL.contains(part));
    parts.map(str::to_owned).collect()
}

/// Output of a trace of a command that asks a server made here.
fn traced_command(line: &str) -> String {
    let listener = TcpListener::bind(ADDRESS).unwrap();
    listener.set_nonblocking(true).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => answer(stream),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let output = shell(line).output();
        done.store(true, Ordering::Relaxed);
        let (code, stdout, stderr) = text(output.unwrap());
        assert_eq!(code, Some(0), "{line} (needs curl): {stderr}");
        stdout + &stderr
    })
}

/// Takes a request, answers, and is the first to close: without a length, the end of the answer is
/// the end of the stream.
fn answer(mut stream: TcpStream) {
    stream.set_nonblocking(false).unwrap();
    assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nok").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

/// Output of a trace while this process is server and client, in the ways that the README tells.
fn traced_traffic(line: &str) -> String {
    let own = line.replacen("trace", "trace --netns /proc/self/ns/net", 1);
    let mut child = shell(&own).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    assert!(said.starts_with("portwatch: tracing with "), "{said}");

    let listener = TcpListener::bind(ADDRESS).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| answer(listener.accept().unwrap().0));
        let mut client = TcpStream::connect(ADDRESS).unwrap();
        client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
    });
    let taken = TcpListener::bind(ADDRESS).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let refused = TcpStream::connect(CLOSED).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    drop(listener);
    std::thread::sleep(Duration::from_millis(300));

    // SAFETY: no memory involved; the child is not waited for yet.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGINT) };
    stderr.read_to_string(&mut said).unwrap();
    let (code, stdout, _) = text(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    stdout + &said
}

/// What stays of lines of output when times, numbers and names are taken away.
fn shapes(lines: &[&str]) -> BTreeSet<String> {
    let (own, events): (Vec<&str>, Vec<&str>) = lines
        .iter()
        .partition(|line| line.starts_with("portwatch: "));
    let mut shapes: BTreeSet<String> = own.into_iter().map(message).collect();
    let Some((header, rows)) = events.split_first() else {
        return shapes;
    };
    if header.starts_with('{') {
        shapes.extend(events.iter().map(|line| json(line)));
    } else {
        let separator = if header.contains(',') { ',' } else { ' ' };
        let names = split(header, separator);
        shapes.insert(names.join(" "));
        shapes.extend(
            rows.iter()
                .map(|row| columns(&names, &split(row, separator))),
        );
    }
    shapes
}

fn split(line: &str, separator: char) -> Vec<&str> {
    if separator == ' ' {
        line.split_whitespace().collect()
    } else {
        line.split(separator).collect()
    }
}

fn message(line: &str) -> String {
    if let Some((_, kinds)) = line.split_once(" in ") {
        let kinds = kinds.split_once(": ").map_or("", |(_, kinds)| kinds);
        return format!("summary: {kinds}");
    }
    ["trampoline", "kprobe", "tracepoint"]
        .iter()
        .fold(line.to_owned(), |line, tier| line.replace(tier, "some"))
}

fn json(line: &str) -> String {
    let event: serde_json::Value = serde_json::from_str(line).expect(line);
    let fields = event.as_object().unwrap();
    let keys: BTreeSet<&str> = fields.keys().map(String::as_str).collect();
    let keys: Vec<&str> = keys
        .into_iter()
        .filter(|key| !OPTIONAL.contains(key))
        .collect();
    format!("{} {} {}", event["event"], event["error"], keys.join(" "))
}

/// A row: words that stand for something, and which other columns are filled; of details the words
/// and keys.
fn columns(names: &[&str], cells: &[&str]) -> String {
    let mut shape = Vec::new();
    for (i, cell) in cells.iter().enumerate() {
        match names
            .get(i)
            .map(|name| name.to_ascii_lowercase())
            .as_deref()
        {
            Some("event" | "proto" | "error") => shape.push(*cell),
            Some("details") | None => {
                let key = cell.split('=').next().unwrap_or(cell);
                if !OPTIONAL.contains(&key) {
                    shape.push(key);
                }
            }
            Some(_) => shape.push(if matches!(*cell, "" | "-") { "-" } else { "*" }),
        }
    }
    shape.join(" ")
}

fn examples() {
    let folder = tempfile::tempdir().unwrap();
    let (records, lines): (Vec<&str>, Vec<&str>) =
        (blocks("sh").concat().into_iter()).partition(|line| line.starts_with("portwatch record"));
    // Others ask what they recorded.
    records.iter().for_each(|line| example(line, folder.path()));
    assert!(lines.len() > 15, "the README shows too little");
    // Most of the time goes by in the kernel, which waits for readers of what is detached.
    let share = lines.len().div_ceil(4);
    std::thread::scope(|scope| {
        for lines in lines.chunks(share) {
            scope.spawn(|| lines.iter().for_each(|line| example(line, folder.path())));
        }
    });
}

fn example(line: &str, folder: &Path) {
    let line = line.split(" # ").next().unwrap_or(line).trim_end();
    if let Some(task) = line.strip_prefix("cargo xtask ") {
        xtask(task);
    } else if let Some(arguments) = line.strip_prefix("cargo run --release -- ") {
        runs(&format!("portwatch {arguments} --help"), folder);
    } else if line.starts_with("portwatch trace") && !line.contains(" -d ") {
        runs(&line.replacen("trace", "trace -d 200ms", 1), folder);
    } else if line.starts_with("portwatch record") {
        runs(&line.replacen("record", "record -d 200ms", 1), folder);
    } else {
        assert!(
            line == "portwatch" || line.starts_with("portwatch "),
            "not checked: {line}"
        );
        runs(line, folder);
    }
}

fn runs(line: &str, folder: &Path) {
    let output = shell(line).current_dir(folder).output().unwrap();
    let (code, _, stderr) = text(output);
    assert_eq!(code, Some(0), "{line}: {stderr}");
}

/// The task is there and knows these flags; to run it would take too long.
fn xtask(task: &str) {
    let mut words = task.split_whitespace();
    let mut command = Command::new(env!("CARGO"));
    command.args(["xtask", words.next().unwrap(), "--help"]);
    let (code, help, stderr) = text(command.current_dir(ROOT).output().unwrap());
    assert_eq!(code, Some(0), "{task}: {stderr}");
    for flag in words.filter(|word| word.starts_with("--")) {
        assert!(
            help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")),
            "{task}"
        );
    }
}

fn table_of_probes() {
    let (_, stdout, stderr) = text(shell("portwatch doctor -o json").output().unwrap());
    let report: serde_json::Value = serde_json::from_str(&stdout).expect(&stderr);
    let table = README.split_once("| what |").expect("no table").1;
    let table: Vec<Vec<&str>> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let plan = report["plan"].as_array().unwrap();
    let names: Vec<&str> = plan
        .iter()
        .map(|row| row["observe"].as_str().unwrap())
        .collect();
    let first: Vec<&str> = table.iter().map(|cells| cells[0]).collect();
    assert_eq!(first, names);
    let tier = ["trampoline", "kprobe", "tracepoint"]
        .iter()
        .position(|tier| report["tier"] == *tier)
        .unwrap();
    for (row, cells) in plan.iter().zip(table) {
        let Some(chosen) = row["chosen"].as_str() else {
            continue;
        };
        // A row with one cell for all tiers, or one for each.
        let cell = cells[1..].get(tier).filter(|cell| !cell.is_empty());
        let cell = cell.unwrap_or(&cells[1]);
        for probe in chosen.split(", ") {
            let mut words = probe.split(' ').filter(|word| *word != "tp_btf");
            let place = words.clone().find(|word| word.contains('_'));
            let place = place.or_else(|| words.next_back()).unwrap_or(probe);
            let place = place.trim_start_matches("syscalls/");
            assert!(
                cell.contains(place),
                "{}: {probe} is not in: {cell}",
                cells[0]
            );
        }
    }
}
