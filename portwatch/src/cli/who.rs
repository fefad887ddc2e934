//! Arguments of `who`.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use clap::Args;

use crate::device::Device;

use super::{MOMENT, MomentArgs, ProbeArgs, ReportFormat, SourceArgs, elsewhere};

/// Say who has a port, who uses it, and what would become of a bind to it now
///
/// Looks at tcp and udp in every network namespace, as far as the kernel lets you see them. Binds are
/// thought of in the namespace of portwatch, with --proc-root in that of process 1 there. Exit code 0
/// also when nobody has the port.
#[derive(Debug, Args)]
#[command(mut_arg("interval", |arg| arg.requires("wait")))]
#[command(mut_arg("probes", |arg| arg.requires("wait")))]
#[command(mut_arg("ring_size", |arg| arg.requires("wait")))]
#[command(args(["since", "until"].map(|name| elsewhere(name, MOMENT))))]
#[command(after_long_help = "\
Examples:
  portwatch who 8080
  portwatch who 127.0.0.1:8080 -t         a bind to this address
  portwatch who [::1]:53
  portwatch who 127.0.0.53%lo:53          a bind on this interface
  portwatch who '*%eth0:80'               also [fe80::1%eth0]:80
  portwatch who 8080 --wait               stay, and tell who takes or frees it
  portwatch who 8080 --from s.db --at 03:12
                                          of a session, as it was then, and what
                                          happened before
  portwatch who 8080 --proc-root /host/proc
                                          another /proc, such as the host's

A bind is meant to the address given, else to 0.0.0.0 and to [::] for both families, unless \
net.ipv6.bindv6only makes [::] one for IPv6 only. One with SO_REUSEPORT succeeds beside sockets of the \
same user that have all set it. Connections, TIME-WAIT and sockets that do not listen do not stop a bind \
with SO_REUSEADDR if they have set it too, as those of servers have and those of clients seldom. The \
kernel tells nobody whether they have, nor whether a connection of IPv6 is for IPv6 only; if it is not, \
it stops a bind to 0.0.0.0.

An address that this machine does not have cannot be bound (EADDRNOTAVAIL), unless \
net.ipv4.ip_nonlocal_bind (net.ipv6.ip_nonlocal_bind) allows it or a local route has it. Multicast of \
IPv6 is for udp only, and addresses of a link (fe80::, ff02::) need an interface (EINVAL). With \
--proc-root, and of a session, the address is taken for one that the machine has; what closed in the last \
two minutes of a session may be in TIME-WAIT. Sockets bound \
to an interface (SO_BINDTODEVICE) stop binds on the same one and on none.

JSON is one object with these keys; with --wait the events follow, an object a line as from trace:
  port addr device netns
               the question; addr and device only when there was one
  protocols    for tcp and udp each:
    proto
    servers    rows as from `portwatch list -o json`, and started: start of the
               process
    states     sockets with this local port that do not serve: netns, state,
               count
    peers      addresses at their other end: netns, raddr, count
    clients    connections from here to this port: netns, pid, comm, uid, user,
               raddr, count
    binds      what would become of a bind: laddr, error (absent: it succeeds),
               the same with that option as error_with_reuseaddr, obstacles
               (laddr, device, state, pid, comm, why).
               Where an error depends on what nobody tells, error_if and
               error_with_reuseaddr_if say on what: it comes only if one of
               these is so. Of a session that holds only the sockets of a
               command: only those known to fail
    verdict
  remarks      on the port itself
  limits       what could not be seen
  at history   of a session: the moment; the latest events of binds, listens and
               ends on the port before it, as from trace, the last one last")]
pub struct WhoArgs {
    /// PORT, or ADDRESS:PORT with IPv6 in brackets, or ADDRESS%INTERFACE:PORT
    #[arg(value_name = "[ADDR[%DEV]:]PORT")]
    pub target: Target,

    /// Only tcp, mptcp included; with -U both
    #[arg(short, long)]
    pub tcp: bool,

    /// Only udp
    #[arg(short = 'U', long)]
    pub udp: bool,

    /// Stay, and tell who takes or frees it and which binds fail. Needs root; without it polls, and
    /// does not see binds that fail
    #[arg(long)]
    pub wait: bool,

    #[command(flatten)]
    pub source: SourceArgs,

    #[command(flatten)]
    pub moment: MomentArgs,

    #[command(flatten)]
    pub probes: ProbeArgs,

    /// How to print the answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub output: ReportFormat,

    /// In text, no names of users, only numbers
    #[arg(short, long)]
    pub numeric: bool,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    pub addr: Option<IpAddr>,
    pub device: Option<Device>,
    pub port: u16,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (plain, name) = without_device(text).unzip();
        let device = match name {
            Some(name) => Some(Device::new(name.as_bytes()).ok_or_else(|| {
                format!("'{name}' is no name of a network interface: those have 1 to 15 letters")
            })?),
            None => None,
        };
        let plain: &str = plain.as_deref().unwrap_or(text);
        let target = match (plain.parse(), plain.parse::<SocketAddr>()) {
            (Ok(port), _) => Some((None, port)),
            (_, Ok(socket)) => Some((Some(socket.ip()), socket.port())),
            _ => plain
                .strip_prefix("*:")
                .and_then(|port| Some((None, port.parse().ok()?))),
        };
        match target {
            Some((addr, port)) if port > 0 => Ok(Self {
                addr: addr.map(|x| x.to_canonical()),
                device,
                port,
            }),
            _ => Err(format!(
                "'{text}' is not a port from 1 to 65535: write 8080, 127.0.0.1:8080 or [::1]:8080"
            )),
        }
    }
}

/// Takes the device out of `127.0.0.53%lo:53`, `[fe80::1]%eth0:80` and `[fe80::1%eth0]:80`; `None` where
/// there is none.
fn without_device(text: &str) -> Option<(String, &str)> {
    let (place, port) = text.rsplit_once(':')?;
    let (addr, device) = place.split_once('%')?;
    let (addr, device) = match (addr.starts_with('['), addr.ends_with(']')) {
        (true, false) => (format!("{addr}]"), device.strip_suffix(']')?),
        _ => (addr.to_owned(), device),
    };
    Some((format!("{addr}:{port}"), device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_port_with_or_without_address() {
        for (text, expected) in [
            ("8080", Some((None, None, 8080))),
            ("*:8080", Some((None, None, 8080))),
            ("127.0.0.1:8080", Some((Some("127.0.0.1"), None, 8080))),
            ("[::1]:8080", Some((Some("::1"), None, 8080))),
            ("[::]:8080", Some((Some("::"), None, 8080))),
            ("[::ffff:10.0.0.1]:80", Some((Some("10.0.0.1"), None, 80))),
            (
                "127.0.0.53%lo:53",
                Some((Some("127.0.0.53"), Some("lo"), 53)),
            ),
            (
                "[fe80::1%eth0]:53",
                Some((Some("fe80::1"), Some("eth0"), 53)),
            ),
            (
                "[fe80::1]%eth0:53",
                Some((Some("fe80::1"), Some("eth0"), 53)),
            ),
            ("*%eth0:53", Some((None, Some("eth0"), 53))),
            ("[fe80::1%eth0:53", None),
            ("127.0.0.53%:53", None),
            ("127.0.0.53%sixteen--letters:53", None),
            ("127.0.0.53%lo", None),
            ("%lo:53", None),
            ("0", None),
            ("65536", None),
            ("http", None),
            ("::1:8080", None),
            ("8080/tcp", None),
            ("", None),
        ] {
            let expected = expected.map(|(addr, device, port)| Target {
                addr: addr.map(|x: &str| x.parse().unwrap()),
                device: device.and_then(|x: &str| Device::new(x.as_bytes())),
                port,
            });
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
