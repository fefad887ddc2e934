//! Names of well-known ports, from a list of our own. /etc/services, where there is one, names the
//! ports that the list does not.

use std::sync::LazyLock;

use crate::event::{Event, Kind, Proto};

/// The same on every machine, so that a name in a recording means the same everywhere.
const BUILT_IN: &str = include_str!("../data/services");

struct Names {
    tcp: Ports,
    udp: Ports,
}

/// Names by port.
struct Ports {
    /// Sorted by port.
    names: Vec<(u16, &'static str)>,
    /// A bit for each port that has one: most have none, and every event asks.
    named: Vec<u64>,
}

impl Ports {
    fn new(mut names: Vec<(u16, &'static str)>) -> Self {
        // stable, so the first name of a port stays the first
        names.sort_by_key(|&(port, _)| port);
        names.dedup_by_key(|&mut (port, _)| port);
        let mut named = vec![0; (1 << 16) / 64];
        for (port, _) in &names {
            named[usize::from(port / 64)] |= 1 << (port % 64);
        }
        Self { names, named }
    }

    fn name(&self, port: u16) -> Option<&'static str> {
        if self.named[usize::from(port / 64)] >> (port % 64) & 1 == 0 {
            return None;
        }
        let at = (self.names).binary_search_by_key(&port, |&(port, _)| port);
        Some(self.names[at.ok()?].1)
    }
}

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let local = std::fs::read("/etc/services").unwrap_or_default();
    // Kept for as long as the program runs, read once.
    parse(&[
        BUILT_IN,
        String::from_utf8_lossy(&local).into_owned().leak(),
    ])
});

/// Name of a well-known port.
pub fn name(proto: Proto, port: u16) -> Option<&'static str> {
    match proto {
        Proto::Tcp | Proto::Mptcp => NAMES.tcp.name(port),
        Proto::Udp => NAMES.udp.name(port),
        Proto::Sctp | Proto::Raw => None,
    }
}

/// Name of the service that an event is about: of the local port where something is served, of
/// the remote one where something is asked for, and of the one that has a name when both may be.
pub fn of(event: &Event) -> Option<&'static str> {
    let proto = event.proto?;
    let local = || event.lport.and_then(|port| name(proto, port));
    let remote = || event.rport.and_then(|port| name(proto, port));
    match event.kind {
        Kind::Bind | Kind::Listen | Kind::Accept => local(),
        Kind::Connect => remote(),
        // The side that serves has the lower port, almost always.
        Kind::Close | Kind::Reset if event.rport < event.lport => remote().or_else(local),
        Kind::Close | Kind::Reset => local().or_else(remote),
        Kind::Lost => None,
    }
}

/// Lines of services(5): name, port/protocol, aliases, comment. The first name of a port counts.
fn parse(texts: &[&'static str]) -> Names {
    let (mut tcp, mut udp) = (Vec::new(), Vec::new());
    for line in texts.iter().flat_map(|text| text.lines()) {
        let mut words = line.split('#').next().unwrap_or("").split_whitespace();
        if let (Some(name), Some(place)) = (words.next(), words.next())
            && let Some((port, proto)) = place.split_once('/')
            && let Ok(port) = port.parse()
            // it is printed as it is
            && name.bytes().all(|b| b.is_ascii_graphic())
        {
            match proto {
                "tcp" => tcp.push((port, name)),
                "udp" => udp.push((port, name)),
                _ => {}
            }
        }
    }
    Names {
        tcp: Ports::new(tcp),
        udp: Ports::new(udp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    #[test]
    fn lines_of_services_are_read_as_the_manual_says() {
        let names = parse(&[
            "# comment\nhttp\t80/tcp\twww # WorldWideWeb\nweb 80/tcp\nssh 22/tcp\n\
             ntp 123/udp\nodd\nodd 12/\nodd x/tcp\nddp 1/ddp\n\u{1b}[2J 99/tcp\n",
            "local 80/tcp\nlocal 81/tcp\n",
        ]);
        assert_eq!(names.tcp.names, [(22, "ssh"), (80, "http"), (81, "local")]);
        assert_eq!(names.udp.names, [(123, "ntp")]);
        assert_eq!(names.tcp.name(80), Some("http"));
        assert_eq!(names.tcp.name(79), None);
        assert_eq!(names.udp.name(u16::MAX), None);
    }

    #[test]
    fn the_built_in_list_is_read_whole() {
        let names = parse(&[BUILT_IN]);
        let lines = BUILT_IN.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(names.tcp.names.len() + names.udp.names.len(), lines.count());
        assert_eq!(name(Proto::Tcp, 22), Some("ssh"));
        assert_eq!(name(Proto::Udp, 53), Some("domain"));
        assert_eq!(name(Proto::Tcp, 5432), Some("postgresql"));
    }

    #[test]
    fn the_service_is_that_of_the_side_that_serves() {
        for (kind, lport, rport, expected) in [
            (Kind::Listen, 443, None, Some("https")),
            (Kind::Accept, 443, Some(22), Some("https")),
            (Kind::Connect, 22, Some(443), Some("https")),
            (Kind::Close, 50123, Some(443), Some("https")),
            (Kind::Close, 443, Some(50123), Some("https")),
            (Kind::Close, 443, None, Some("https")),
            (Kind::Close, 64999, Some(64998), None),
        ] {
            let mut event = Event::new(kind, Origin::Live, 0);
            event.proto = Some(Proto::Tcp);
            event.lport = Some(lport);
            event.rport = rport;
            assert_eq!(of(&event), expected, "{kind} {lport} {rport:?}");
        }
    }
}
