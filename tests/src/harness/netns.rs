//! Network namespaces that a test makes for itself, and cables between them.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sched::{CloneFlags, setns, unshare};

use super::process::cannot;
use super::truth;

/// Address without duplicate detection: usable at once.
const IFA_F_NODAD: u8 = 0x02;

/// Kept alive by its open file.
#[derive(Debug)]
pub struct Netns {
    file: File,
    inode: u64,
}

fn own() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("own network namespace")
}

impl Netns {
    /// With its loopback up. The caller stays where it is.
    ///
    /// # Errors
    /// When the kernel or the privileges do not allow it.
    pub fn new() -> Result<Self> {
        let home = own()?;
        unshare(CloneFlags::CLONE_NEWNET).context("unshare(CLONE_NEWNET)")?;
        let made = own().and_then(|file| link_up("lo").map(|()| file));
        setns(&home, CloneFlags::CLONE_NEWNET).context("back to the own network namespace")?;
        let file = made?;
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread there.
    pub fn enter(&self) -> Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("setns")?;
        truth::forget_netns();
        Ok(())
    }
}

fn request(message: RouteNetlinkMessage, flags: u16) -> Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    packet.finalize();
    let mut buffer = vec![0; packet.buffer_len()];
    packet.serialize(&mut buffer);
    socket.send(&buffer, 0)?;
    let mut reply = Vec::with_capacity(8192);
    socket.recv(&mut reply, 0)?;
    let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&reply)?;
    match reply.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io().into()),
        NetlinkPayload::Error(_) => Ok(()),
        other => bail!("unexpected answer {other:?}"),
    }
}

/// Index of an interface of the calling thread's namespace.
pub fn link_index(name: &str) -> Result<u32> {
    nix::net::if_::if_nametoindex(name).with_context(|| format!("interface {name}"))
}

fn link_up(name: &str) -> Result<()> {
    let mut message = LinkMessage::default();
    message.header.index = link_index(name)?;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    request(RouteNetlinkMessage::SetLink(message), 0).with_context(|| format!("{name} up"))
}

/// Gives an interface of the calling thread's namespace an address and sets it up.
pub fn configure(name: &str, addresses: &[(IpAddr, u8)]) -> Result<()> {
    for &(address, prefix) in addresses {
        let mut message = AddressMessage::default();
        message.header.index = link_index(name)?;
        message.header.prefix_len = prefix;
        message.header.family = match address {
            IpAddr::V4(_) => netlink_packet_route::AddressFamily::Inet,
            IpAddr::V6(_) => netlink_packet_route::AddressFamily::Inet6,
        };
        message.header.flags =
            netlink_packet_route::address::AddressHeaderFlags::from_bits_retain(IFA_F_NODAD);
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        request(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
        .with_context(|| format!("address {address} on {name}"))?;
    }
    link_up(name)
}

/// Waits until an interface of the calling thread's namespace carries packets: before that, the
/// kernel drops them silently, and a SYN is only sent again after a second.
pub fn wait_running(name: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        let running = getifaddrs()?.any(|interface| {
            interface.interface_name == name
                && interface.flags.contains(InterfaceFlags::IFF_RUNNING)
        });
        if running {
            return Ok(());
        }
        sleep(Duration::from_millis(5));
    }
    bail!("{name} does not come up")
}

/// Lays a cable from the calling thread's namespace, where its end is called `name`, to another,
/// where it is called the same.
///
/// # Errors
/// "cannot" when the kernel has no veth.
pub fn cable(name: &str, other: &Netns) -> Result<()> {
    use std::os::fd::AsRawFd;
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(name.to_owned()));
    peer.attributes
        .push(LinkAttribute::NetNsFd(other.file.as_raw_fd()));
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(name.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    request(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )
    .map_err(|error| cannot(format!("no veth pair in this kernel: {error:#}")))
}
