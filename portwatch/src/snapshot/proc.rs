//! Sockets from the tables of a proc file system: /proc/PID/net/{tcp,tcp6,udp,udp6}, see
//! proc_pid_net(5). Whoever wrote them may have stopped halfway, or be no kernel at all.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::file;
use super::gap::Why;
use super::socket::Socket;
use crate::event::{Family, Proto};
use crate::row::State;

/// Name of the file that has these sockets.
pub fn table(proto: Proto, family: Family) -> &'static str {
    match (proto, family) {
        (Proto::Udp, Family::Ipv4) => "udp",
        (Proto::Udp, Family::Ipv6) => "udp6",
        (_, Family::Ipv4) => "tcp",
        (_, Family::Ipv6) => "tcp6",
    }
}

/// What a table of 1.7 million sockets has.
const LARGEST: u64 = 256 << 20;
/// Those of the kernel have less than 200 bytes.
const LONGEST_LINE: u64 = 4 << 10;

/// Hands over the sockets of one table, each once; returns what is missing of it.
///
/// # Errors
/// When it cannot be read.
pub fn read(
    directory: &Path,
    proto: Proto,
    family: Family,
    netns: Option<u32>,
    found: impl FnMut(Socket),
) -> std::io::Result<Option<Why>> {
    let file = file::open(&directory.join(table(proto, family)))?;
    let mut text = BufReader::with_capacity(64 << 10, file.take(LARGEST));
    let why = parse(&mut text, proto, family, netns, found)?;
    match text.into_inner().limit() {
        0 => Err(file::too_large(LARGEST)),
        _ => Ok(why),
    }
}

fn parse(
    text: &mut impl BufRead,
    proto: Proto,
    family: Family,
    netns: Option<u32>,
    mut found: impl FnMut(Socket),
) -> std::io::Result<Option<Why>> {
    let (mut damaged, mut headed) = (0, false);
    // A table that changes while it is read may show one twice.
    let mut seen = HashSet::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        text.by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(match damaged {
                0 if seen.is_empty() && !headed => Some(Why::Unread("it is empty".to_owned())),
                0 => None,
                _ => Some(Why::Lines(damaged)),
            });
        }
        let heading = line.trim_ascii_start().starts_with(b"sl ");
        // Without its end a number in it may be cut short.
        let whole = line.ends_with(b"\n");
        headed |= heading && whole;
        match socket(&line, proto, family, netns).filter(|_| whole) {
            Some(socket) if seen.insert((socket.inode, socket.local, socket.remote)) => {
                found(socket)
            }
            Some(_) => {}
            None => damaged += usize::from(!heading && !line.trim_ascii().is_empty()),
        }
        if !whole {
            text.skip_until(b'\n')?;
        }
    }
}

/// A line: number, local and remote address, state, queues, timer, retransmits, uid, timeout, inode,
/// references, pointer, and more of some.
fn socket(line: &[u8], proto: Proto, family: Family, netns: Option<u32>) -> Option<Socket> {
    // A sign, which would pass for a part of a number.
    if line.contains(&b'+') {
        return None;
    }
    let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    fields.next()?.strip_suffix(':')?.parse::<u64>().ok()?;
    let local = endpoint(fields.next()?, family)?;
    let remote = endpoint(fields.next()?, family)?;
    let state = State::from_kernel(u8::from_str_radix(fields.next()?, 16).ok()?)?;
    if proto == Proto::Udp && !matches!(state, State::Unconn | State::Estab) {
        return None;
    }
    let (send, recv) = fields.next()?.split_once(':')?;
    let (send, recv) = (hex(send)?, hex(recv)?);
    let uid = fields.nth(2)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    // The two that end every kind of line, which may have been cut between or in its numbers.
    let (_references, _pointer) = (fields.next()?.parse::<i64>().ok()?, fields.next()?);
    Some(Socket {
        proto,
        family,
        state,
        local,
        remote: (remote.1 != 0).then_some(remote),
        device: None,
        netns,
        sock: None,
        inode: (inode != 0).then_some(inode),
        v6only: None,
        uid,
        recv_queue: recv,
        send_queue: (state != State::Listen).then_some(send),
        traffic: None,
    })
}

/// From `0100007F:1F90`: the words of the address as numbers of this machine, and the port.
fn endpoint(text: &str, family: Family) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16)
        .ok()
        .filter(|_| port.len() == 4)?;
    let word = |at: usize| Some(hex(address.get(at * 8..at * 8 + 8)?)?.to_ne_bytes());
    let address = match (family, address.len()) {
        (Family::Ipv4, 8) => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        (Family::Ipv6, 32) => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some((address, port))
}

fn hex(digits: &str) -> Option<u32> {
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LISTENER: &str = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000002 00:00000000 00000000  1000        0 4242 1 00000000757e7322 100 0 0 10 0\n";
    const MAPPED: &str = "   1: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000200007F:C350 01 00000007:00000009 00:00000000 00000000     0        0 77 1 0000000000000000 20 4 30 10 -1\n";
    const TIME_WAIT: &str = "   2: 0100007F:1F90 0100007F:C352 06 00000000:00000000 03:00000E2E 00000000     0        0 0 3 0000000000000000\n";
    const HEADING: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn check(text: &str, family: Family) -> (Vec<Socket>, usize) {
        let mut sockets = Vec::new();
        let found = |socket| sockets.push(socket);
        let why = parse(&mut text.as_bytes(), Proto::Tcp, family, None, found).unwrap();
        let damaged = match why {
            Some(Why::Lines(lines)) => lines,
            _ => 0,
        };
        (sockets, damaged)
    }

    #[test]
    fn a_listener_has_a_queue_and_no_peer() {
        let (sockets, damaged) = check(&(HEADING.to_owned() + LISTENER), Family::Ipv4);
        assert_eq!(damaged, 0);
        let [socket] = &sockets[..] else {
            panic!("{sockets:?}");
        };
        assert_eq!(socket.local, ("127.0.0.1".parse().unwrap(), 8080));
        assert_eq!((socket.remote, socket.send_queue), (None, None));
        assert_eq!((socket.state, socket.recv_queue), (State::Listen, 2));
        assert_eq!((socket.uid, socket.inode), (1000, Some(4242)));
    }

    #[test]
    fn a_mapped_address_is_shown_as_what_it_stands_for() {
        let (sockets, _) = check(MAPPED, Family::Ipv6);
        let socket = &sockets[0];
        assert_eq!(socket.family, Family::Ipv6);
        assert_eq!(socket.remote, Some(("127.0.0.2".parse().unwrap(), 50000)));
        assert_eq!((socket.recv_queue, socket.send_queue), (9, Some(7)));
    }

    #[test]
    fn what_nobody_holds_has_no_inode() {
        let (sockets, _) = check(TIME_WAIT, Family::Ipv4);
        assert_eq!(
            (sockets[0].state, sockets[0].inode),
            (State::TimeWait, None)
        );
    }

    #[test]
    fn a_line_that_is_cut_anywhere_is_left_out_and_counted() {
        // where only the end of the line is missing, or what comes after the pointer
        let pointer = LISTENER.find("757e7322").unwrap();
        for length in 1..LISTENER.len() {
            let (sockets, damaged) = check(&LISTENER[..length], Family::Ipv4);
            assert_eq!(
                (sockets.len(), damaged),
                (0, usize::from(!LISTENER[..length].trim().is_empty()))
            );
            let cut = format!("{}\n{TIME_WAIT}", &LISTENER[..length]);
            let (sockets, damaged) = check(&cut, Family::Ipv4);
            let readable = length > pointer - 8;
            assert_eq!(sockets.len(), if readable { 2 } else { 1 }, "{cut}");
            let blank = LISTENER[..length].trim().is_empty();
            assert_eq!(damaged, usize::from(!readable && !blank), "{cut}");
        }
    }

    #[test]
    fn numbers_that_are_none_are_damage() {
        for (from, to) in [
            ("0:", "0"),
            ("0100007F", "010000"),
            ("0100007F", "0100007G"),
            ("1F90", "11F90"),
            ("0100007F", "+100007F"),
            ("1F90", "+F90"),
            (" 4242 ", " +4242 "),
            (" 0A ", " 0D "),
            (" 0A ", " 00 "),
            (" 4242 ", " -1 "),
            (" 1000 ", " 99999999999 "),
            (" 1 0000", " one 0000"),
        ] {
            let text = LISTENER.replacen(from, to, 1);
            assert_eq!(check(&text, Family::Ipv4), (vec![], 1), "{text}");
        }
        assert_eq!(check(LISTENER, Family::Ipv6), (vec![], 1));
    }

    #[test]
    fn a_line_that_comes_again_is_one_socket() {
        let other = LISTENER.replace("4242", "4243");
        let (sockets, damaged) = check(&[LISTENER, &other, LISTENER].concat(), Family::Ipv4);
        let inodes: Vec<_> = sockets.iter().map(|socket| socket.inode).collect();
        assert_eq!((inodes, damaged), (vec![Some(4242), Some(4243)], 0));
    }

    #[test]
    fn a_line_without_an_end_is_damage_once_and_takes_no_room() {
        let long = "0".repeat(3 * LONGEST_LINE as usize);
        let (sockets, damaged) = check(&format!("{LISTENER}{long}\n{TIME_WAIT}"), Family::Ipv4);
        assert_eq!((sockets.len(), damaged), (2, 1));
        // a number of pieces, none of which is a line of its own
        let (sockets, damaged) = check(&format!("{long}{LISTENER}"), Family::Ipv4);
        assert_eq!((sockets.len(), damaged), (0, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(text in proptest::collection::vec(any::<u8>(), 0..400)) {
            for family in [Family::Ipv4, Family::Ipv6] {
                parse(&mut &text[..], Proto::Udp, family, None, drop).unwrap();
            }
        }

        /// Whole lines are read whatever stands between them, and whatever does not count.
        #[test]
        fn garbage_between_lines_costs_only_itself(garbage in "[ -~]{1,60}") {
            prop_assume!(!garbage.trim().is_empty() && !garbage.trim_start().starts_with("sl "));
            let text = format!("{HEADING}{LISTENER}{garbage}\n{TIME_WAIT}");
            let (sockets, damaged) = check(&text, Family::Ipv4);
            prop_assert_eq!((sockets.len(), damaged), (2, 1));
        }
    }
}
