//! `portwatch top` as a program on a terminal: what it shows of sockets that these tests opened, and
//! that it leaves the terminal as it was. The terminal is a pseudo one, with an emulator behind it.

mod promises;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portwatch::event::{Event, Kind, Origin, Proto};
use portwatch::session;

use promises::{root, run};

/// 2023-11-14 22:13:20 UTC.
const START: u64 = 1_700_000_000 * SECOND;
const SECOND: u64 = 1_000_000_000;

fn main() {
    let root = root();
    let unshares = inside().arg("true").stderr(Stdio::null()).status();
    let inside = (!unshares.is_ok_and(|x| x.success())).then_some("root and unshare");
    run(
        &[
            ("sockets_come_and_go", None, come_and_go),
            ("a_short_life_is_seen", root, short_life),
            ("keys_filter_freeze_and_explain", None, keys),
            ("another_size_is_another_picture", None, resized),
            ("every_end_gives_the_terminal_back", None, ends),
            ("a_stop_gives_the_terminal_to_the_shell", None, stops),
            ("a_terminal_that_goes_away_is_a_normal_end", None, gone),
            ("what_cannot_be_seen_is_told_at_the_end", inside, unseen),
            ("a_session_is_played", None, played),
            ("without_a_terminal_it_says_what_to_do", None, no_terminal),
        ],
        false,
    )
}

/// `top` with these arguments.
fn top(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portwatch"));
    command.arg("top").args(args);
    command
}

/// Starts a command on this terminal.
fn spawn_on(terminal: &OwnedFd, mut command: Command) -> Child {
    let end = || Stdio::from(terminal.try_clone().unwrap());
    command
        .env("TERM", "xterm-256color")
        .stdin(end())
        .stdout(end())
        .stderr(end());
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// `top` on a terminal.
struct Top {
    child: Child,
    /// Our end of the terminal.
    keyboard: File,
    /// Its end, to ask for its settings.
    terminal: OwnedFd,
    before: libc::termios,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Top {
    fn start(args: &[&str]) -> Self {
        Self::run(top(args))
    }

    /// Started by this command, or by what that starts.
    fn run(command: Command) -> Self {
        let (ours, theirs) = pseudo_terminal();
        let before = settings(&theirs);
        let child = spawn_on(&theirs, command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(whole(24), whole(80), 0)));
        let (mut output, parser) = (ours.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                parser.lock().unwrap().process(&bytes[..count]);
            }
        });
        let top = Self {
            child,
            keyboard: ours,
            terminal: theirs,
            before,
            screen,
        };
        top.until("the first picture", |text| text.contains("q quit"));
        top.until("the open sockets", |text| !text.contains("reading open"));
        top
    }

    /// Waits until the screen looks so.
    fn until(&self, what: &str, looks: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let text = self.screen.lock().unwrap().screen().contents();
            if looks(&text) {
                return text;
            }
            assert!(Instant::now() < deadline, "never seen: {what}\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the line with this text is dim.
    fn is_dim(&self, text: &str) -> bool {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let lines: Vec<String> = screen.rows(0, 80).collect();
        let row = lines.iter().position(|line| line.contains(text)).unwrap();
        screen.cell(u16::try_from(row).unwrap(), 0).unwrap().dim()
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, number: i32) {
        // SAFETY: no memory involved; the child is not waited for yet.
        unsafe { libc::kill(self.child.id().cast_signed(), number) };
    }

    /// To the one child of what was started.
    fn signal_child(&self, number: i32) {
        let shell = self.child.id();
        let children = format!("/proc/{shell}/task/{shell}/children");
        let child = std::fs::read_to_string(children).unwrap();
        // SAFETY: no memory involved; the shell has not waited for its end.
        unsafe { libc::kill(child.trim().parse().unwrap(), number) };
    }

    /// Waits for its end, which has to be a good one, and gives what it said then.
    fn ended(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        let said = self.until("the words at the end", |text| text.contains("complete: "));
        self.given_back();
        let after = settings(&self.terminal);
        let flags = |x: &libc::termios| (x.c_iflag, x.c_oflag, x.c_lflag);
        assert_eq!(flags(&after), flags(&self.before));
        said
    }

    /// Looks whether the screen is as it was before.
    fn given_back(&self) {
        let parser = self.screen.lock().unwrap();
        assert!(
            !parser.screen().alternate_screen(),
            "still the other screen"
        );
        assert!(!parser.screen().hide_cursor(), "the cursor is hidden");
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // Only a test that failed comes here with a child that runs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Both ends of a new terminal of 24 lines and 80 columns.
fn pseudo_terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize {
        ws_row: 24,
        ws_col: 80,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: writes two descriptors, which are then owned once each; reads the size.
    unsafe {
        let null = std::ptr::null_mut();
        let result = libc::openpty(&mut ours, &mut theirs, null, null.cast(), &size);
        assert_eq!(result, 0, "no pseudo terminal");
        for end in [ours, theirs] {
            libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs))
    }
}

fn whole(number: u16) -> NonZero<u16> {
    NonZero::new(number).unwrap()
}

fn settings(terminal: &OwnedFd) -> libc::termios {
    // SAFETY: all zeros is a valid termios, and the call writes one.
    unsafe {
        let mut settings = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(terminal.as_raw_fd(), &mut settings), 0);
        settings
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Arguments that show only this process.
fn own() -> String {
    format!("--pid={}", std::process::id())
}

fn come_and_go() {
    let (early, early_address) = listener();
    let top = Top::start(&["--from", "poll", "--keep", "2s", &own()]);
    top.until("what was open before", |text| text.contains(&early_address));
    let (late, late_address) = listener();
    top.until("a listener", |text| text.contains(&late_address));
    assert!(!top.is_dim(&late_address));
    let port = late_address.split(':').next_back().unwrap().to_owned();
    let client = TcpStream::connect(&late_address).unwrap();
    let server = late.accept().unwrap();
    top.until("both ends of a connection", |text| {
        text.matches("ESTAB").count() >= 2 && text.matches(&port).count() >= 3
    });
    drop(late);
    top.until("it is closed", |text| {
        (text.lines()).any(|line| line.contains(&late_address) && line.contains("closed"))
    });
    top.until("it is gone", |text| {
        let (table, _) = text.split_once("CONNECTIONS").unwrap();
        table.contains(&early_address) && !table.contains(&late_address)
    });
    drop((early, client, server));
    top.signal(libc::SIGTERM);
    top.ended();
}

fn short_life() {
    let top = Top::start(&["--keep", "1h", &own()]);
    top.until("that it traces", |text| text.contains(" probes"));
    let (listener, address) = listener();
    drop(listener);
    top.until("it was there", |text| {
        (text.lines()).any(|line| line.contains(&address) && line.contains("closed"))
    });
    assert!(top.is_dim(&address));
    top.signal(libc::SIGINT);
    top.ended();
}

fn keys() {
    let ((_one, first), (_other, second)) = (listener(), listener());
    let mut top = Top::start(&["--from", "poll", &own()]);
    top.until("both", |text| {
        text.contains(&first) && text.contains(&second)
    });
    top.press(&format!("/{first}"));
    top.until("only one", |text| {
        text.contains(&first) && !text.contains(&second)
    });
    top.press("\r\r");
    let text = top.until("details", |text| text.contains("history of port"));
    let own = format!("({})", std::process::id());
    assert!(text.contains(&own) && text.contains("LISTEN"), "{text}");
    // Esc alone: a key of its own only when nothing comes right after it.
    top.press("x");
    top.until("the table", |text| text.contains("filter: "));
    top.press("\x1b");
    top.until("both again", |text| text.contains(&second));
    top.press(" ");
    top.until("frozen", |text| text.contains("FROZEN"));
    top.press(" ?");
    top.until("help", |text| {
        text.contains("this help") && !text.contains("FROZEN")
    });
    top.press("qq");
    top.ended();
}

fn resized() {
    let (_listener, address) = listener();
    let top = Top::start(&["--from", "poll", &own()]);
    top.until("it", |text| text.contains(&address));
    for (rows, columns, shown) in [(8, 40, false), (30, 132, true)] {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        top.screen
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(whole(rows), whole(columns));
        // SAFETY: reads a winsize, which lives until after the call.
        unsafe { libc::ioctl(top.terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
        top.until("the picture of that size", |text| {
            text.contains(&address) && text.contains("CONNECTIONS") == shown
        });
    }
    top.signal(libc::SIGTERM);
    top.ended();
}

/// A minute in which a listener on port 7001 is there from 10 s to 20 s, and one on port 7002 from 30 s on.
fn record(path: &Path) {
    let db = session::create(path).unwrap();
    let about = Box::new(|_, _: &_| session::About::default());
    let mut writer = session::Writer::new(&db, about).unwrap();
    let run = session::Run {
        began: START,
        source: "tracepoint probes".into(),
        ..session::Run::default()
    };
    writer.begin(&run).unwrap();
    writer.checkpoint(START, []).unwrap();
    for (second, kind, port) in [
        (10, Kind::Listen, 7001),
        (20, Kind::Close, 7001),
        (30, Kind::Listen, 7002),
    ] {
        let mut event = Event::new(kind, Origin::Live, START + second * SECOND);
        event.proto = Some(Proto::Tcp);
        event.laddr = Some("127.0.0.1".parse().unwrap());
        event.lport = Some(port);
        event.sock = Some(u64::from(port));
        event.netns = Some(1);
        event.pid = Some(4242);
        event.comm = Some("server".into());
        writer.event(&event).unwrap();
    }
    let finish = session::Finish {
        ended: START + 60 * SECOND,
        reason: "signal".into(),
        complete: true,
        accounts: "{}".into(),
    };
    writer.finish(&finish).unwrap();
    writer.commit(None).unwrap();
}

fn played() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.db");
    record(&path);
    let file = path.to_str().unwrap();
    let tables = |text: &str| text.split("EVENTS").next().unwrap().to_owned();
    // as it was at a moment, standing still
    let mut top = Top::start(&["--from", file, "--at", "@1700000015"]);
    let text = top.until("the moment", |text| text.contains("15.00s of 1m00s"));
    assert!(
        text.contains("STOPPED") && tables(&text).contains(":7001"),
        "{text}"
    );
    top.press("\x1b[C");
    let text = top.until("10 s later", |text| text.contains("25.00s of"));
    let (table, events) = text.split_once("EVENTS").unwrap();
    assert!(
        !table.contains(":700") && events.contains("close"),
        "{text}"
    );
    top.press(".");
    let text = top.until("the next event", |text| text.contains("30.00s of"));
    assert!(
        tables(&text).contains(":7002") && text.contains("STOPPED"),
        "{text}"
    );
    top.press("\x1b[H");
    top.until("the beginning", |text| {
        text.contains("0us of") && !text.contains(":700")
    });
    top.press("\x1b[F");
    top.until("the end", |text| {
        text.contains("1m00s of") && tables(text).contains(":7002")
    });
    top.press("\x1b[1;2D?");
    top.until("its keys", |text| text.contains("with Shift a minute"));
    top.press("x");
    top.until("a minute before", |text| text.contains("0us of"));
    // it plays by itself, and stops at the end
    top.press("++++++ ");
    top.until("the end once more", |text| {
        text.contains("x64, 1m00s of") && text.contains("STOPPED") && tables(text).contains(":7002")
    });
    top.press("q");
    top.ended();
}

fn ends() {
    for number in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        let top = Top::start(&["--from", "poll"]);
        top.signal(number);
        top.ended();
    }
    for keys in ["q", "\x03"] {
        let mut top = Top::start(&["--from", "poll"]);
        top.press(keys);
        top.ended();
    }
}

/// Runs what follows in a pid namespace with a /proc of its own.
fn inside() -> Command {
    let mut command = Command::new("unshare");
    command.args(["-p", "-f", "--mount-proc", "--"]);
    command
}

fn unseen() {
    let mut command = inside();
    command.arg(env!("CARGO_BIN_EXE_portwatch"));
    command.args(["top", "--from", "poll"]);
    let mut top = Top::run(command);
    top.press("q");
    let said = top.ended();
    assert!(said.contains("portwatch: polling every 200ms: "), "{said}");
    let outside = "portwatch: processes outside of this pid namespace cannot be seen";
    assert!(said.contains(outside), "{said}");
}

/// By the key and by the signal, under a shell that continues it when a line is typed.
fn stops() {
    let script =
        r#""$0" top --from poll; for i in 1 2; do echo "stopped: $i"; read line; fg; done"#;
    let mut shell = Command::new("sh");
    shell.args(["-mc", script, env!("CARGO_BIN_EXE_portwatch")]);
    let mut top = Top::run(shell);
    for stop in ["stopped: 1", "stopped: 2"] {
        match stop {
            "stopped: 1" => top.press("\x1a"),
            _ => top.signal_child(libc::SIGTSTP),
        }
        top.until("the shell", |text| text.contains(stop));
        top.given_back();
        top.press("\n");
        top.until("the table again", |text| text.contains("q quit"));
    }
    top.press("q");
    top.ended();
}

fn gone() {
    let (mut ours, theirs) = pseudo_terminal();
    let mut child = spawn_on(&theirs, top(&["--from", "poll"]));
    drop(theirs);
    let mut shown = Vec::new();
    while !shown.windows(4).any(|bytes| bytes == b"quit") {
        let mut bytes = [0; 4096];
        let count = ours.read(&mut bytes).unwrap();
        shown.extend_from_slice(&bytes[..count]);
    }
    drop(ours);
    assert!(child.wait().unwrap().success());
}

fn no_terminal() {
    let output = top(&[]).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`portwatch trace`"), "{said}");
    assert!(output.stdout.is_empty());
}
