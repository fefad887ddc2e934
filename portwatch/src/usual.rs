//! Which programs are usual on which ports, and what is unusual about a row.

use std::sync::LazyLock;

use crate::event::{Comm, Proto};
use crate::row::{Row, State};
use crate::service;

/// A service and the programs that usually offer it, by the names the kernel knows them by (15 bytes
/// of them).
struct Usual {
    service: &'static str,
    programs: &'static [&'static str],
    /// Its ports in the IANA registry: another program there is unusual.
    home: &'static [u16],
    /// Ports of default configurations and custom, that others use as well.
    also: &'static [u16],
}

/// From the IANA registry of ports, and the default configuration files that the projects ship.
const USUAL: &[Usual] = &[
    usual("ftp", &["vsftpd", "proftpd", "pure-ftpd"], &[21], &[990]),
    usual("ssh", &["sshd", "dropbear"], &[22], &[]),
    usual(
        "smtp",
        &[
            "master",
            "exim4",
            "exim",
            "sendmail",
            "sendmail-mta",
            "opensmtpd",
            "smtpd",
        ],
        &[25],
        &[465, 587],
    ),
    usual(
        "domain",
        &[
            "named",
            "dnsmasq",
            "unbound",
            "systemd-resolve",
            "pdns_server",
            "pdns_recursor",
            "coredns",
            "knotd",
            "kresd",
            "nsd",
            "pihole-FTL",
        ],
        &[53],
        &[
            443, 853, 953, 5353, 5355, 8053, 8953, 8080, 8181, 9153, 9253,
        ],
    ),
    usual(
        "http",
        &[
            "nginx", "apache2", "httpd", "caddy", "lighttpd", "varnishd", "h2o",
        ],
        &[80, 443],
        &[2019, 6081, 6082, 8000, 8008, 8080, 8081, 8443, 8888, 9901],
    ),
    usual("sunrpc", &["rpcbind"], &[111], &[]),
    usual("imap", &["dovecot"], &[143, 993], &[24, 110, 995, 4190]),
    usual("snmp", &["snmpd"], &[161], &[705]),
    usual("ldap", &["slapd", "ns-slapd"], &[389, 636], &[]),
    usual("microsoft-ds", &["smbd"], &[139, 445], &[]),
    usual("ipp", &["cupsd"], &[631], &[]),
    usual("rsync", &["rsync"], &[873], &[]),
    usual("mysql", &["mysqld", "mariadbd"], &[3306], &[33060, 33062]),
    usual("postgresql", &["postgres", "pgbouncer"], &[5432], &[6432]),
    usual(
        "redis",
        &["redis-server", "valkey-server", "keydb-server"],
        &[6379],
        &[6380, 16379, 26379],
    ),
    usual("memcache", &["memcached"], &[11211], &[]),
    usual("mongodb", &["mongod", "mongos"], &[27017], &[27018, 27019]),
];

/// Programs that listen on behalf of others, on any port.
const FRONTS: &[&str] = &[
    "systemd",
    "init",
    "inetd",
    "xinetd",
    "docker-proxy",
    "dockerd",
    "rootlessport",
    "rootlesskit",
    "conmon",
    "slirp4netns",
    "pasta",
    "pasta.avx2",
    "passt",
    "kube-proxy",
    "containerd",
    "k3s-server",
    "haproxy",
    "envoy",
    "traefik",
    "ssh",
    "stunnel",
    "stunnel4",
    "launcher",
];

/// By names of programs and by the ports that are at home, in order: every row of a table is looked up.
static PROGRAMS: LazyLock<Vec<(Comm, &Usual)>> = LazyLock::new(|| {
    let of = |x: &'static Usual| x.programs.iter().map(move |&name| (Comm::from(name), x));
    let mut programs: Vec<_> = USUAL.iter().flat_map(of).collect();
    programs.sort_by_key(|(name, _)| name.0);
    programs
});
static HOMES: LazyLock<Vec<(u16, &Usual)>> = LazyLock::new(|| {
    let of = |x: &'static Usual| x.home.iter().map(move |&port| (port, x));
    let mut homes: Vec<_> = USUAL.iter().flat_map(of).collect();
    homes.sort_by_key(|(port, _)| *port);
    homes
});

const fn usual(
    service: &'static str,
    programs: &'static [&'static str],
    home: &'static [u16],
    also: &'static [u16],
) -> Usual {
    Usual {
        service,
        programs,
        home,
        also,
    }
}

/// What is unusual about a server: a known program on another port, or another program on a known
/// port. `None` where nothing is, or where nobody can tell.
pub fn note(row: &Row) -> Option<String> {
    let event = &row.event;
    let port = event.lport?;
    let comm = event.comm?;
    let listens = row.state == State::Listen;
    // Programs open udp sockets at ports of all kinds for questions of their own.
    let receives = event.proto == Some(Proto::Udp) && row.state == State::Unconn;
    if !(listens || receives) {
        return None;
    }
    let own = &PROGRAMS[PROGRAMS.partition_point(|(name, _)| name.0 < comm.0)..];
    let mut own = (own.iter().take_while(|(name, _)| *name == comm)).map(|(_, usual)| usual);
    let owner = HOMES.binary_search_by_key(&port, |(port, _)| *port);
    let (first, owner) = (own.clone().next(), owner.ok().map(|at| HOMES[at].1));
    if first.is_none() && owner.is_none() {
        return None;
    }
    if own.any(|x| x.home.contains(&port) || x.also.contains(&port))
        || FRONTS.contains(&&*comm.text())
    {
        return None;
    }
    if let Some(owner) = owner {
        // As SERVICE has it: https, imaps.
        let service = service::name(event.proto?, port).unwrap_or(owner.service);
        return Some(format!("not a usual {service} server"));
    }
    let own = first.filter(|_| listens)?;
    let home: Vec<String> = own.home.iter().map(u16::to_string).collect();
    Some(format!(
        "{} on an unusual port (usually {})",
        own.service,
        home.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_ports_that_do_not_belong_together_are_noted() {
        for (local, proto, comm, expected) in [
            ("0.0.0.0:22", Proto::Tcp, "sshd", None),
            (
                "0.0.0.0:2222",
                Proto::Tcp,
                "sshd",
                Some("ssh on an unusual port (usually 22)"),
            ),
            (
                "0.0.0.0:22",
                Proto::Tcp,
                "nc",
                Some("not a usual ssh server"),
            ),
            (
                "0.0.0.0:443",
                Proto::Tcp,
                "sshd",
                Some("not a usual https server"),
            ),
            (
                "0.0.0.0:80",
                Proto::Tcp,
                "sshd",
                Some("not a usual http server"),
            ),
            ("[::]:8080", Proto::Tcp, "nginx", None),
            ("[::]:8080", Proto::Tcp, "python3", None),
            (
                "[::]:8082",
                Proto::Mptcp,
                "nginx",
                Some("http on an unusual port (usually 80, 443)"),
            ),
            ("0.0.0.0:443", Proto::Udp, "caddy", None),
            (
                "0.0.0.0:53",
                Proto::Udp,
                "x",
                Some("not a usual domain server"),
            ),
            // questions of a resolver, and what passes everything on
            ("0.0.0.0:40123", Proto::Udp, "dnsmasq", None),
            ("0.0.0.0:5432", Proto::Tcp, "docker-proxy", None),
            ("127.0.0.53:53", Proto::Udp, "systemd-resolve", None),
            ("0.0.0.0:49152", Proto::Tcp, "whatever", None),
        ] {
            let row = Row::server(proto, local, 7, comm);
            assert_eq!(note(&row).as_deref(), expected, "{local} {comm}");
        }
    }

    #[test]
    fn connections_and_sockets_of_nobody_are_not_judged() {
        let mut row = Row::server(Proto::Tcp, "0.0.0.0:22", 7, "nc");
        row.event.comm = None;
        assert_eq!(note(&row), None);
        let row = Row::connection(State::Estab, "10.0.0.1:22", "10.0.0.2:4000", 7, "nc");
        assert_eq!(note(&row), None);
    }

    #[test]
    fn names_fit_what_the_kernel_keeps() {
        for usual in USUAL {
            assert!(
                usual.programs.iter().all(|x| x.len() <= 15),
                "{}",
                usual.service
            );
        }
    }
}
