//! Filter flags, the same for events and for rows.

use clap::Args;
use ipnet::IpNet;

use crate::filter::Span;

/// What an event or a row has to be to be shown. Values of one flag are alternatives, flags are
/// joined by and.
#[derive(Clone, Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Process ids, also ranges
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub pid: Vec<Span<u32>>,

    /// Ports of either end, also ranges: 80,8000-8999
    #[arg(short = 'P', long, value_name = "LIST", value_delimiter = ',')]
    pub port: Vec<Span<u16>>,

    /// Users, by name or number
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    pub uid: Vec<String>,

    /// tcp, mptcp included
    #[arg(short, long)]
    pub tcp: bool,

    /// udp
    #[arg(short = 'U', long)]
    pub udp: bool,

    /// Sockets of the family IPv4
    #[arg(short = '4', long)]
    pub ipv4: bool,

    /// Sockets of the family IPv6
    #[arg(short = '6', long)]
    pub ipv6: bool,

    /// Names of processes as in ps -o comm, also with * and ?
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub comm: Vec<String>,

    /// Network namespaces: inode number, name as in `ip netns`, or a path such as /proc/1/ns/net
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub netns: Vec<String>,

    /// Containers, by id or its beginning
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub container: Vec<String>,

    /// Networks that the address of either end is in: 10.0.0.0/8,2001:db8::/32 or one address
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = parse_net)]
    pub net: Vec<IpNet>,

    /// A CEL expression over the names of the fields, such as 'lport < 1024 && uid != 0'
    #[arg(long, value_name = "EXPR")]
    pub filter: Option<String>,
}

/// One address is the network of just that address.
fn parse_net(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| {
            format!("'{text}' is not a network: write 10.0.0.0/8, 2001:db8::/32 or an address")
        })
}
