//! Where lines go: stdout or a file, in large pieces, never held back.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::file::{self, Existing};

/// The sink of lines. What is put into `buffer` is written by [`Output::flush`].
pub struct Output {
    pub buffer: Vec<u8>,
    file: File,
    /// `None`: stdout.
    path: Option<PathBuf>,
}

impl Output {
    /// Creates the file, or takes stdout, which is also `-`.
    ///
    /// # Errors
    /// When it cannot be created, or is there already.
    pub fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.filter(|path| *path != Path::new("-"));
        let file = match path {
            Some(path) => file::create(path, Existing::Kept)?,
            None => {
                let stdout = std::io::stdout().as_fd().try_clone_to_owned();
                File::from(stdout.context("opening stdout")?)
            }
        };
        Ok(Self {
            buffer: Vec::new(),
            file,
            path: path.map(Path::to_owned),
        })
    }

    /// Whether events go to a stdout that is read by a program or goes to a file, and so must
    /// hold nothing else.
    pub fn is_shared_stdout(&self) -> bool {
        self.path.is_none() && !self.file.is_terminal()
    }

    /// Writes all of the buffer.
    ///
    /// # Errors
    /// When it cannot be written; [`is_closed_pipe`] tells a reader that left from trouble.
    pub fn flush(&mut self) -> Result<()> {
        let written = write_all(&self.file, &self.buffer, -1);
        self.buffer.clear();
        written.with_context(|| match &self.path {
            Some(path) => format!("writing to {}", path.display()),
            None => "writing to stdout".to_owned(),
        })
    }

    /// Whether nobody will ever read what is written.
    pub fn reader_left(&self) -> bool {
        poll(self.file.as_raw_fd(), 0, 0) & libc::POLLERR != 0
    }
}

/// Writes all of it, also where that would have to wait: another program that has the same terminal or pipe may
/// have made it so. Gives up when there is no room for so many milliseconds (-1: never).
pub fn write_all(
    mut to: impl Write + AsFd,
    mut bytes: &[u8],
    patience: i32,
) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if poll(to.as_fd().as_raw_fd(), libc::POLLOUT, patience) == 0 && patience >= 0 {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether an error of [`Output::flush`] says that the reader left, which is a normal end.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|x| x.kind() == ErrorKind::BrokenPipe)
}

/// Takes a reader that left for the normal end that it is.
pub fn but_for_a_closed_pipe(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        result => result,
    }
}

/// Waits for `events` up to `timeout` milliseconds (-1: for ever); what poll(2) returned of them.
pub fn poll(descriptor: RawFd, events: i16, timeout: i32) -> i16 {
    let mut entry = libc::pollfd {
        fd: descriptor,
        events,
        revents: 0,
    };
    // SAFETY: one entry, which lives until after the call.
    unsafe { libc::poll(&mut entry, 1, timeout) };
    entry.revents
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn to(file: File) -> Output {
        Output {
            buffer: Vec::new(),
            file,
            path: None,
        }
    }

    #[test]
    fn a_reader_that_leaves_is_noticed_before_and_at_the_next_write() {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut output = to(File::from(std::os::fd::OwnedFd::from(writer)));
        assert!(!output.reader_left());
        drop(reader);
        assert!(output.reader_left());
        output.buffer.push(b'x');
        assert!(is_closed_pipe(&output.flush().unwrap_err()));
    }

    #[test]
    fn a_full_disk_is_trouble_and_named() {
        let mut output = to(File::options().write(true).open("/dev/full").unwrap());
        output.buffer.push(b'x');
        let error = output.flush().unwrap_err();
        assert!(!is_closed_pipe(&error));
        assert!(
            format!("{error:#}").contains("No space left on device"),
            "{error:#}"
        );
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let mut output = to(File::from(std::os::fd::OwnedFd::from(writer)));
        // more than a pipe holds
        output.buffer = vec![b'x'; 1 << 20];
        let drain = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).unwrap();
            all.len()
        });
        output.flush().unwrap();
        drop(output);
        assert_eq!(drain.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_pipe_that_stays_full_is_given_up_where_that_is_asked_for() {
        let (_reader, writer) = std::io::pipe().unwrap();
        // SAFETY: the descriptor is open.
        unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        let error = write_all(&writer, &[b'x'; 1 << 20], 10).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
