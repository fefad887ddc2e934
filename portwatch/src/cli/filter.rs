//! Filter flags, the same for events and for rows.

use clap::Args;
use ipnet::{IpNet, Ipv4Net};

use crate::event::Kind;
use crate::filter::Span;

/// What an event or a row has to be to be shown. Values of one flag are alternatives, flags are
/// joined by and.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Process ids, also ranges: 812,4000-4999
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    #[arg(allow_negative_numbers = true)]
    pub pid: Vec<Span<u32>>,

    /// Ports of either end, also ranges: 80,8000-8999
    #[arg(short = 'P', long, value_name = "LIST", value_delimiter = ',')]
    #[arg(allow_negative_numbers = true)]
    pub port: Vec<Span<u16>>,

    /// Users of the owner, by name or number, also ranges: root,1000-1999
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    #[arg(allow_negative_numbers = true)]
    pub uid: Vec<String>,

    /// Only tcp, mptcp included; with -U both
    #[arg(short, long)]
    pub tcp: bool,

    /// Only udp
    #[arg(short = 'U', long)]
    pub udp: bool,

    /// Only sockets of the family IPv4
    #[arg(short = '4', long)]
    pub ipv4: bool,

    /// Only sockets of the family IPv6, v4-mapped ones included
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Names of processes as in ps -o comm, also with * and ?
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_name)]
    pub comm: Vec<String>,

    /// Network namespaces: inode number, name as in `ip netns`, or a path such as /proc/1/ns/net
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_name)]
    pub netns: Vec<String>,

    /// Containers, by id or its beginning; the first 12 digits of an id count
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = parse_name)]
    pub container: Vec<String>,

    /// Networks that the address of either end is in: 10.0.0.0/8,2001:db8::/32 or one address
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_net)]
    pub net: Vec<IpNet>,

    /// A CEL expression (https://cel.dev): 'lport < 1024 && uid != 0'
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    pub filter: Option<String>,
}

/// The same of events, and what only they are.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Filters")]
pub struct EventFilterArgs {
    /// Kinds of events
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub event: Vec<Kind>,

    /// Only what failed
    #[arg(long)]
    pub failed: bool,

    #[command(flatten)]
    pub any: FilterArgs,
}

/// What is empty would match nothing, where a script's variable came out empty.
fn parse_name(text: &str) -> Result<String, String> {
    match text.is_empty() {
        true => Err("it is empty: write names, or leave the flag out to show all".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// One address is the network of just that address. A v4-mapped network is the one of IPv4, as events
/// show such addresses as IPv4.
fn parse_net(text: &str) -> Result<IpNet, String> {
    let net = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| {
            format!("'{text}' is not a network: write 10.0.0.0/8, 2001:db8::/32 or an address")
        })?;
    let mapped = match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => (net.addr().to_ipv4_mapped())
            .zip(net.prefix_len().checked_sub(96))
            .and_then(|(addr, length)| Ipv4Net::new(addr, length).ok()),
    };
    Ok(mapped.map_or(net, IpNet::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_a_length_or_is_one_address() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
            ("::ffff:10.1.2.3", "10.1.2.3/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            // more than what is mapped
            ("::ffff:0:0/95", "::ffff:0:0/95"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(parse_net(text), Ok(expected.parse().unwrap()), "{text}");
        }
        for text in ["10.0.0.0/33", "::ffff:10.0.0.0/129", "example.com", ""] {
            assert!(parse_net(text).is_err(), "{text}");
        }
    }
}
