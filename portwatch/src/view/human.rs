//! Quantities as people read them: short, with a unit.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use crate::device::Device;
use crate::event::{Comm, Event};
use crate::sanitize;

/// Appends microseconds as `7us`, `1.2ms`, `3.45s`, `2m05s`, `1h02m`, `3d04h`.
pub fn push_us(out: &mut String, us: u64) {
    let seconds = us / 1_000_000;
    // Writing to a String cannot fail.
    let _ = match us {
        0..1_000 => write!(out, "{us}us"),
        1_000..1_000_000 => write!(out, "{}.{}ms", us / 1_000, us / 100 % 10),
        1_000_000..60_000_000 => write!(out, "{seconds}.{:02}s", us / 10_000 % 100),
        _ if seconds < 3600 => write!(out, "{}m{:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86400 => write!(out, "{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => write!(out, "{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    };
}

/// Appends bytes as `512B`, `1.2K`, `3.4M`, in powers of 1024.
pub fn push_bytes(out: &mut String, bytes: u64) {
    const UNITS: [char; 6] = ['K', 'M', 'G', 'T', 'P', 'E'];
    // Writing to a String cannot fail.
    let _ = if bytes < 1024 {
        write!(out, "{bytes}B")
    } else {
        let step = (bytes.ilog2() / 10) as usize;
        let tenths = (u128::from(bytes) * 10) >> (10 * step);
        write!(out, "{}.{}{}", tenths / 10, tenths % 10, UNITS[step - 1])
    };
}

/// Appends the name of a process; an empty one so that it is seen, and that columns do not shift.
pub fn push_comm(out: &mut String, comm: &Comm) {
    match comm.bytes() {
        [] => out.push_str("\"\""),
        // Bytes that are no text are shown too.
        bytes => sanitize::push(out, bytes),
    }
}

/// Appends the container, or the namespace by name or number when it is not `own`; nothing when that goes
/// without saying.
pub fn push_place(out: &mut String, event: &Event, own: Option<u32>, names: &HashMap<u32, String>) {
    let container = event.context.as_ref().and_then(|x| x.container.as_ref());
    match (container, event.netns.filter(|&x| Some(x) != own)) {
        (Some(container), _) => sanitize::push_str(out, container),
        (None, Some(netns)) => match names.get(&netns) {
            Some(name) => sanitize::push_str(out, name),
            None => {
                out.push_str("net:");
                push_number(out, netns);
            }
        },
        (None, None) => {}
    }
}

/// Appends `192.0.2.1:80` or `[2001:db8::1]:80`; `-` when there is neither address nor port, `*`
/// for the one that is missing.
pub fn push_endpoint(out: &mut String, addr: Option<IpAddr>, port: Option<u16>) {
    push_local(out, addr, None, port);
}

/// The same with the device that the socket is bound to, as `ss` has it: `127.0.0.53%lo:53`,
/// `[fe80::1]%eth0:80`.
pub fn push_local(
    out: &mut String,
    addr: Option<IpAddr>,
    device: Option<Device>,
    port: Option<u16>,
) {
    match addr {
        None if port.is_none() => return out.push('-'),
        None => out.push('*'),
        Some(IpAddr::V4(addr)) => push_ipv4(out, addr),
        Some(IpAddr::V6(addr)) => {
            // Writing to a String cannot fail.
            let _ = write!(out, "[{addr}]");
        }
    }
    if let Some(device) = device {
        out.push('%');
        sanitize::push(out, device.bytes());
    }
    out.push(':');
    match port {
        Some(port) => push_number(out, port),
        None => out.push('*'),
    }
}

/// As `{addr}` does it, without the machinery of formats: tables are made of addresses and numbers.
pub fn push_ipv4(out: &mut String, addr: Ipv4Addr) {
    for (at, byte) in addr.octets().into_iter().enumerate() {
        if at > 0 {
            out.push('.');
        }
        push_number(out, byte);
    }
}

/// As `{number}` does it, faster.
pub fn push_number(out: &mut String, number: impl itoa::Integer) {
    out.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(push: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        push(&mut out);
        out
    }

    #[test]
    fn durations_keep_about_three_digits() {
        for (us, expected) in [
            (0, "0us"),
            (999, "999us"),
            (1_234, "1.2ms"),
            (999_999, "999.9ms"),
            (1_000_000, "1.00s"),
            (59_999_999, "59.99s"),
            (125_000_000, "2m05s"),
            (3_725_000_000, "1h02m"),
            (273_600_000_000, "3d04h"),
        ] {
            assert_eq!(with(|out| push_us(out, us)), expected);
        }
    }

    #[test]
    fn bytes_are_in_powers_of_1024() {
        for (bytes, expected) in [
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.0K"),
            (1_300_000, "1.2M"),
            (u64::MAX, "15.9E"),
        ] {
            assert_eq!(with(|out| push_bytes(out, bytes)), expected);
        }
    }

    #[test]
    fn a_device_stands_between_address_and_port() {
        for (addr, device, expected) in [
            (Some("127.0.0.53"), &b"lo"[..], "127.0.0.53%lo:53"),
            (Some("fe80::1"), b"eth0", "[fe80::1]%eth0:53"),
            (None, b"a\x1b", "*%a\\x1b:53"),
        ] {
            let addr = addr.map(|x| x.parse().unwrap());
            let text = with(|out| push_local(out, addr, Device::new(device), Some(53)));
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn ipv6_is_in_brackets() {
        let addr = |x: &str| Some(x.parse().unwrap());
        for (addr, port, expected) in [
            (addr("192.0.2.1"), Some(80), "192.0.2.1:80"),
            (addr("2001:db8::1"), Some(80), "[2001:db8::1]:80"),
            (addr("::"), None, "[::]:*"),
            (addr("0.0.0.0"), None, "0.0.0.0:*"),
            (None, Some(80), "*:80"),
            (None, None, "-"),
        ] {
            assert_eq!(with(|out| push_endpoint(out, addr, port)), expected);
        }
    }
}
