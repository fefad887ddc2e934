//! `portwatch report` as a program, on sessions made here, and its pages in a real browser. Tests that
//! need the browser are listed as ignored where there is none.

mod made;
mod program;
#[expect(dead_code, reason = "none of these needs root")]
mod promises;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use scraper::{ElementRef, Html, Selector};
use tempfile::TempDir;

use program::{outcome, portwatch};
use promises::run;

fn main() {
    let browser = browser().is_none().then_some("chromium");
    let time = Some("minutes: cargo test --release --test report -- --ignored");
    run(
        &[
            (
                "a_page_is_made_beside_its_session_and_not_overwritten",
                None,
                files,
            ),
            ("numbers_are_those_of_what_was_recorded", None, numbers),
            ("a_run_that_was_cut_off_is_told", None, cut_off),
            ("an_altered_session_is_told_with_exit_code_1", None, altered),
            ("a_table_that_is_a_sample_says_so", None, sampled),
            ("a_browser_shows_the_page_without_complaint", browser, shown),
            ("search_sort_pages_and_details_work", browser, used),
            ("hostile_names_do_nothing_in_a_browser", browser, hostile),
            ("a_page_of_100000_events_works", browser, large),
            ("it_can_be_printed", browser, printed),
            (
                "five_million_events_take_30_s_and_little_memory",
                time,
                huge,
            ),
        ],
        false,
    )
}

fn report(args: &[&str], folder: &Path) -> Output {
    let mut command = portwatch(&[&["report"], args].concat());
    command.current_dir(folder).output().unwrap()
}

/// A session of about that many events, and its page.
fn day(events: u64, args: &[&str]) -> (TempDir, made::Truth, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let truth = made::day(&folder.path().join("s.db"), events);
    let output = report(&[&["s.db"], args].concat(), folder.path());
    let (code, _, stderr) = outcome(output);
    assert_eq!(code, Some(0), "{stderr}");
    let page = folder.path().join("s.html");
    (folder, truth, page)
}

fn parsed(page: &Path) -> Html {
    Html::parse_document(&fs::read_to_string(page).unwrap())
}

fn texts(html: &Html, selector: &str) -> Vec<String> {
    let selector = Selector::parse(selector).unwrap();
    let text = |element: ElementRef<'_>| element.text().collect();
    html.select(&selector).map(text).collect()
}

/// The numbers at the top, by their names.
fn tiles(html: &Html) -> BTreeMap<String, u64> {
    let tile = |text: &String| {
        let (number, name) = text.split_once(' ').unwrap();
        (name.to_owned(), number.replace(',', "").parse().unwrap())
    };
    texts(html, ".tiles li").iter().map(tile).collect()
}

fn files() {
    let (folder, _, page) = day(100, &[]);
    let mode = fs::metadata(&page).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "others may read it");
    for (args, code, expected) in [
        (
            &["s.db"][..],
            1,
            "s.html is there already: name another file, or overwrite it with --force",
        ),
        (&["s.db", "--force"], 0, "s.html: "),
        (&["s.db", "-o", "other.html"], 0, "other.html: "),
        (
            &["s.db", "-o", "s.db", "--force"],
            1,
            "s.db is a session: name another file",
        ),
        (
            &["s.db", "-o", "none/x.html"],
            1,
            "creating none/x.html: No such file",
        ),
        (&["none.db"], 1, "opening none.db: No such file"),
        (&["s.html", "-o", "x.html"], 1, "s.html is not a session"),
        (&["s.db", "--events", "0"], 2, "0 is not in 1..=1000000"),
        (&[], 2, "<FILE.db>"),
    ] {
        let (ended, _, stderr) = outcome(report(args, folder.path()));
        assert_eq!(ended, Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
    let (code, page, stderr) = outcome(report(&["s.db", "-o", "-"], folder.path()));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
}

fn numbers() {
    let (_folder, truth, page) = day(3_000, &[]);
    let html = parsed(&page);
    let [_, listens, _, accepts, _, resets, _] = truth.by_kind;
    let tiles = tiles(&html);
    for (name, expected) in [
        ("Events", truth.events),
        ("Listens", listens),
        ("of less than 1 s", truth.short_lived),
        ("Outgoing", truth.connected),
        ("Incoming", accepts),
        ("Failed", truth.failed),
        ("Resets", resets),
        ("Lost", 0),
    ] {
        assert_eq!(tiles[name], expected, "{name}");
    }
    assert_eq!(
        texts(&html, "#short tbody tr").len() as u64,
        truth.short_lived
    );
    assert_eq!(
        texts(&html, "#listeners svg rect.short").len() as u64,
        truth.short_lived
    );
    let sum = |selector: &str| -> u64 {
        let of = texts(&html, selector);
        of.iter()
            .map(|x| x.replace(',', "").parse::<u64>().unwrap_or(0))
            .sum()
    };
    // Fewer kinds than are listed, so all of them count.
    assert_eq!(sum("#failures td:first-child"), truth.failed);
    assert_eq!(sum("#resets td:first-child"), resets);
    assert_eq!(sum("#ports td:nth-child(4)"), accepts);
    assert_eq!(sum("#programs td:nth-child(3)"), truth.events);
    assert_eq!(sum("#programs td:nth-child(7)"), accepts);
    let drawn = |class: &str| -> u64 {
        let titles = texts(&html, &format!("#activity rect.{class} title"));
        titles
            .iter()
            .map(|x| {
                x.rsplit(' ')
                    .next()
                    .unwrap()
                    .replace(',', "")
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    };
    assert_eq!(drawn("out"), truth.connected);
    assert_eq!(drawn("in"), accepts);
    assert_eq!(drawn("failed"), truth.failed);
    assert_eq!(drawn("reset"), resets);
    assert!(texts(&html, "#events > p")[0].starts_with("Showing all "));
}

fn cut_off() {
    let (_folder, _, page) = day(3_000, &[]);
    let html = parsed(&page);
    assert_eq!(
        texts(&html, ".verdict strong"),
        ["Cut off: the end of a recording is missing"]
    );
    let [reason] = &texts(&html, ".verdict p")[..] else {
        panic!("not one reason")
    };
    assert!(reason.starts_with("Run 1: it has no end"), "{reason}");
    let complete: Vec<String> = texts(&html, "#runs td:nth-child(6)");
    assert_eq!(complete, ["cut off", "yes"]);
    assert!(!texts(&html, "#activity rect.gap title").is_empty());
}

fn altered() {
    let (folder, _, page) = day(300, &["--verify"]);
    let of = |page: &Path| texts(&parsed(page), "#summary dd").pop().unwrap();
    assert!(
        of(&page).ends_with("all as they were written."),
        "{}",
        of(&page)
    );
    let db = rusqlite::Connection::open(folder.path().join("s.db")).unwrap();
    db.execute("UPDATE raw_event SET lport = 1 WHERE id = 7", [])
        .unwrap();
    drop(db);
    let (code, _, stderr) = outcome(report(&["s.db", "--verify", "--force"], folder.path()));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the session was altered"), "{stderr}");
    assert!(of(&page).starts_with("Altered of batch 1"), "{}", of(&page));
}

fn sampled() {
    let (_folder, truth, page) = day(3_000, &["--events", "250"]);
    let html = parsed(&page);
    let note = &texts(&html, "#events > p")[0];
    assert!(note.starts_with("Showing 250 of 3,000 events"), "{note}");
    let data: serde_json::Value = serde_json::from_str(&texts(&html, "#data")[0]).unwrap();
    let ids: Vec<u64> = data["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row[0].as_u64().unwrap())
        .collect();
    assert_eq!((ids.len(), ids[0], ids[249]), (250, 1, truth.events));
    assert!(
        ids.windows(2)
            .all(|pair| (11..=13).contains(&(pair[1] - pair[0]))),
        "{ids:?}"
    );
}

/// The browser, where there is one.
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut files = std::env::split_paths(&path).flat_map(|folder| {
        ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name))
    });
    files.find(|file| file.is_file())
}

/// Opens a page in the browser; what that printed, and what the page had to complain about.
fn open(page: &Path, args: &[&str]) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("timeout")
        .args(["--kill-after=5", "300"])
        .arg(browser().unwrap())
        // Root has no other way; the pages are our own, and nothing is loaded.
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(args)
        .arg(format!("file://{}", page.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let complaints = stderr.lines().filter(|line| line.contains("CONSOLE"));
    let complaints = complaints.map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), complaints)
}

/// The document after its script has run, of a page without complaints.
fn rendered(page: &Path) -> Html {
    let (text, complaints) = open(page, &["--virtual-time-budget=10000", "--dump-dom"]);
    assert_eq!(complaints, Vec::<String>::new());
    Html::parse_document(&text)
}

/// The same with another script behind the page's own, which the policy would forbid.
fn driven(page: &Path, script: &str) -> Html {
    let text = fs::read_to_string(page).unwrap();
    let (head, tail) = text
        .split_once("<meta http-equiv=\"Content-Security-Policy\"")
        .unwrap();
    let (_, tail) = tail.split_once('>').unwrap();
    let other = page.with_file_name("driven.html");
    fs::write(&other, format!("{head}{tail}<script>{script}</script>")).unwrap();
    rendered(&other)
}

fn shown() {
    let (_folder, _, page) = day(3_000, &[]);
    let html = rendered(&page);
    assert_eq!(texts(&html, "#status"), ["3,000 of 3,000, page 1 of 30"]);
    assert_eq!(texts(&html, "#event-table tbody tr").len(), 100);
    assert_eq!(texts(&html, "#event-table th button").len(), 9);
    assert!(texts(&html, ".tools[hidden]").is_empty());
    // What a script made is what was there without it.
    let cells = |html: &Html| texts(html, "#event-table tbody td");
    assert_eq!(cells(&html), cells(&parsed(&page)));
}

fn used() {
    let (_folder, truth, page) = day(3_000, &[]);
    let html = driven(&page, "
        const find = (id) => document.getElementById(id);
        const note = (name) => document.body.append(Object.assign(document.createElement('output'),
          { className: name, textContent: find('status').textContent + ' | ' +
            [...find('event-table').tBodies[0].rows[0].cells].map((cell) => cell.textContent).join(' | ') }));
        find('last').click(); note('last');
        find('event-table').tHead.rows[0].cells[4].firstChild.click(); note('sorted');
        find('event-table').tHead.rows[0].cells[4].firstChild.click(); note('reversed');
        find('kind').value = 'bind'; find('failed').click(); note('failed');
        find('event-table').tBodies[0].rows[0].querySelector('button').click();
        find('query').value = 'NO such'; find('query').dispatchEvent(new Event('input'));
        document.querySelector('[data-short]').click();
    ");
    let note = |name: &str| texts(&html, &format!("output.{name}")).remove(0);
    assert!(
        note("last").starts_with("3,000 of 3,000, page 30 of 30 | 2901 |"),
        "{}",
        note("last")
    );
    assert!(
        note("sorted").contains("| 812 | nginx |"),
        "{}",
        note("sorted")
    );
    assert!(
        note("reversed").contains("| curl |") || note("reversed").contains("| nc |"),
        "{}",
        note("reversed")
    );
    let failed = format!("{} of 3,000, page 1 of 1 |", truth.short_lived);
    assert!(
        note("failed").starts_with(&failed) && note("failed").contains("EADDRINUSE"),
        "{}",
        note("failed")
    );
    assert_eq!(texts(&html, "#status"), ["0 of 3,000, page 1 of 1"]);
    let status = texts(&html, "[data-status]").remove(0);
    let hidden = texts(&html, "#listeners tbody tr[hidden]").len();
    assert_eq!(hidden, 4, "{status}: those of the servers");

    let html = driven(
        &page,
        "
        document.querySelector('#event-table tbody button').click();
        document.getElementById('data').remove();
    ",
    );
    let owner = texts(&html, "tr.owner dd");
    assert_eq!(owner, ["root", "/usr/sbin/nginx", "nginx", "bash(7256)"]);
}

fn hostile() {
    let folder = tempfile::tempdir().unwrap();
    made::hostile(&folder.path().join("s.db"));
    let output = report(&["s.db"], folder.path());
    let (code, _, stderr) = outcome(output);
    assert_eq!(code, Some(0), "{stderr}");
    let page = folder.path().join("s.html");
    let html = rendered(&page);
    let document = Selector::parse("html").unwrap();
    let document = html.select(&document).next().unwrap();
    assert_eq!(document.attr("data-hit"), None, "a name was run");
    assert_eq!(texts(&html, "script").len(), 2);
    for element in ["img", "iframe", "b", "object", "base", "link", "form"] {
        assert!(texts(&html, element).is_empty(), "<{element}>");
    }
    let cells = texts(&html, "#event-table td").join("\n");
    for name in made::HOSTILE {
        let visible = portwatch::sanitize::text(&name.as_bytes()[..name.len().min(15)]);
        assert!(cells.contains(&visible), "{visible}: {cells}");
    }
    // The same names do run in a page that does not escape them: so the test can fail.
    let naked = page.with_file_name("naked.html");
    let names: String = made::HOSTILE.concat();
    fs::write(&naked, format!("<!DOCTYPE html><html><body><p>{names}</p>")).unwrap();
    let (text, _) = open(&naked, &["--virtual-time-budget=2000", "--dump-dom"]);
    assert!(text.contains("data-hit=\"1\""), "{text}");
}

fn large() {
    let (_folder, _, page) = day(100_000, &["--events", "100000"]);
    let size = fs::metadata(&page).unwrap().len();
    assert!(size < 12 << 20, "{size} bytes");
    let html = driven(
        &page,
        "
        const find = (id) => document.getElementById(id);
        find('event-table').tHead.rows[0].cells[8].firstChild.click();
        find('query').value = 'python3 8080'; find('query').dispatchEvent(new Event('input'));
    ",
    );
    let status = texts(&html, "#status").remove(0);
    assert!(
        status.contains(" of 100,000, page 1 of ") && !status.starts_with("100,000"),
        "{status}"
    );
    assert_eq!(texts(&html, "#event-table tbody tr").len(), 100);
}

fn printed() {
    let (folder, _, page) = day(300, &[]);
    let pdf = folder.path().join("s.pdf");
    let to = format!("--print-to-pdf={}", pdf.display());
    let (_, complaints) = open(&page, &[&to, "--no-pdf-header-footer"]);
    assert_eq!(complaints, Vec::<String>::new());
    assert!(fs::read(&pdf).unwrap().starts_with(b"%PDF-"));
}

fn huge() {
    let folder = tempfile::tempdir().unwrap();
    let truth = made::day(&folder.path().join("s.db"), 5_000_000);
    let start = std::time::Instant::now();
    let output = report(&["s.db"], folder.path());
    let took = start.elapsed();
    let (code, _, stderr) = outcome(output);
    assert_eq!(code, Some(0), "{stderr}");
    // SAFETY: writes a whole rusage, which lives until after the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let mib = usage.ru_maxrss / 1024;
    eprintln!("{} events: {took:?}, {mib} MiB resident", truth.events);
    assert_eq!(
        tiles(&parsed(&folder.path().join("s.html")))["Events"],
        truth.events
    );
    assert!(took.as_secs() <= 30, "{took:?}");
    assert!(mib <= 256, "{mib} MiB");
}
