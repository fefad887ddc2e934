//! `top` on a pseudo terminal, with an emulator behind it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `top` with these arguments.
pub fn top(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portwatch"));
    command.arg("top").args(args);
    command
}

/// `top` on a terminal.
pub struct Top {
    child: Child,
    /// Our end of the terminal.
    keyboard: File,
    /// Its end, to ask for its settings.
    terminal: OwnedFd,
    before: libc::termios,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Top {
    pub fn start(args: &[&str]) -> Self {
        Self::run(top(args))
    }

    /// Started by this command, or by what that starts.
    pub fn run(command: Command) -> Self {
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
    pub fn until(&self, what: &str, looks: impl Fn(&str) -> bool) -> String {
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
    pub fn is_dim(&self, text: &str) -> bool {
        let parser = self.screen.lock().unwrap();
        let screen = parser.screen();
        let lines: Vec<String> = screen.rows(0, 80).collect();
        let row = lines.iter().position(|line| line.contains(text)).unwrap();
        screen.cell(u16::try_from(row).unwrap(), 0).unwrap().dim()
    }

    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub fn signal(&self, number: i32) {
        // SAFETY: no memory involved; the child is not waited for yet.
        unsafe { libc::kill(self.child.id().cast_signed(), number) };
    }

    /// To the one child of what was started.
    pub fn signal_child(&self, number: i32) {
        let shell = self.child.id();
        let children = format!("/proc/{shell}/task/{shell}/children");
        let child = std::fs::read_to_string(children).unwrap();
        // SAFETY: no memory involved; the shell has not waited for its end.
        unsafe { libc::kill(child.trim().parse().unwrap(), number) };
    }

    /// Gives the terminal another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        self.screen
            .lock()
            .unwrap()
            .screen_mut()
            .set_size(whole(rows), whole(columns));
        let size = window(rows, columns);
        // SAFETY: reads a winsize, which lives until after the call.
        unsafe { libc::ioctl(self.terminal.as_raw_fd(), libc::TIOCSWINSZ, &size) };
    }

    /// Waits for its end, which has to be a good one, and gives what it said then.
    pub fn ended(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        let said = self.until("the words at the end", |text| text.contains("complete: "));
        self.given_back();
        let after = settings(&self.terminal);
        let flags = |x: &libc::termios| (x.c_iflag, x.c_oflag, x.c_lflag);
        assert_eq!(flags(&after), flags(&self.before));
        said
    }

    /// Looks whether the screen is as it was before.
    pub fn given_back(&self) {
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

/// Starts a command on this terminal.
pub fn spawn_on(terminal: &OwnedFd, mut command: Command) -> Child {
    let end = || Stdio::from(terminal.try_clone().unwrap());
    command
        .env("TERM", "xterm-256color")
        .stdin(end())
        .stdout(end())
        .stderr(end());
    // SAFETY: all of these calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // The tests may be run by nohup(1), or in the background by a script.
            for number in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
                libc::signal(number, libc::SIG_DFL);
            }
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// Both ends of a new terminal of 24 lines and 80 columns.
pub fn pseudo_terminal() -> (File, OwnedFd) {
    let (mut ours, mut theirs) = (0, 0);
    let size = window(24, 80);
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

fn window(rows: u16, columns: u16) -> libc::winsize {
    libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
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
