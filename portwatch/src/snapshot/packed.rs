//! Sockets in about 40 bytes each, as long as a snapshot is on its way to whom it is for: 100,000 of
//! them are a small part of the memory that a running `top` may take.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::socket::{Socket, Traffic};
use crate::device::Device;
use crate::event::{Family, Proto};
use crate::row::State;

/// A list of sockets, and of each a mark of the reader's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    bytes: Vec<u8>,
}

/// Where in the list a socket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u32);

impl Packed {
    pub fn push(&mut self, socket: &Socket, mark: bool) {
        let (local, remote) = (socket.local.0, socket.remote.map(|(address, _)| address));
        let flags = [
            socket.family == Family::Ipv6,
            mark,
            local.is_ipv6(),
            remote.is_some(),
            remote.is_some_and(|address| address.is_ipv6()),
            socket.v6only.is_some(),
            socket.v6only == Some(true),
            socket.traffic.is_some(),
        ];
        let flags = flags
            .iter()
            .rev()
            .fold(0, |all, &flag| all << 1 | u8::from(flag));
        (self.bytes).extend([flags, (socket.proto as u8) << 4 | socket.state as u8]);
        for (address, port) in std::iter::once(socket.local).chain(socket.remote) {
            self.bytes.extend(port.to_ne_bytes());
            match address {
                IpAddr::V4(address) => self.bytes.extend(address.octets()),
                IpAddr::V6(address) => self.bytes.extend(address.octets()),
            }
        }
        let device = socket.device.as_ref().map_or(&[][..], Device::bytes);
        self.bytes.push(device.len() as u8);
        self.bytes.extend(device);
        // No number of the kernel's is so high that it would be taken for none.
        let maybe = |number: Option<u64>| number.map_or(0, |number| number.wrapping_add(1));
        self.number(maybe(socket.netns.map(u64::from)));
        self.number(maybe(socket.sock));
        self.number(maybe(socket.inode));
        self.number(socket.uid.into());
        self.number(socket.recv_queue.into());
        self.number(maybe(socket.send_queue.map(u64::from)));
        if let Some(traffic) = socket.traffic {
            self.number(traffic.rtt_us.into());
            self.number(traffic.retrans.into());
            self.number(traffic.rx_bytes);
            self.number(traffic.tx_bytes);
        }
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
    fn number(&mut self, mut number: u64) {
        while number > 0x7f {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Appends all of another list.
    pub fn append(&mut self, mut others: Self) {
        if self.bytes.is_empty() {
            *self = others;
        } else {
            self.bytes.append(&mut others.bytes);
        }
    }

    /// The place behind the last one.
    pub fn end(&self) -> Place {
        // It would be a hundred million sockets.
        Place(u32::try_from(self.bytes.len()).expect("no machine has as many sockets"))
    }

    /// Forgets what is at this place and behind.
    pub fn truncate(&mut self, end: Place) {
        self.bytes.truncate(end.0 as usize);
    }

    /// The socket at a place of this list, its mark, and the next place; `None` at the end.
    pub fn get(&self, place: Place) -> Option<(Socket, bool, Place)> {
        let mut rest = self.bytes.get(place.0 as usize..)?;
        let (socket, mark) = unpack(&mut rest)?;
        let next = Place((self.bytes.len() - rest.len()) as u32);
        Some((socket, mark, next))
    }

    /// All of them with their places and marks.
    pub fn places(&self) -> impl Iterator<Item = (Place, Socket, bool)> {
        let mut place = Place::default();
        std::iter::from_fn(move || {
            let (socket, mark, next) = self.get(place)?;
            Some((std::mem::replace(&mut place, next), socket, mark))
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = Socket> {
        self.places().map(|(_, socket, _)| socket)
    }
}

fn unpack(rest: &mut &[u8]) -> Option<(Socket, bool)> {
    let [flags, kind] = *take(rest)?;
    let flag = |bit: u8| flags >> bit & 1 == 1;
    let local = endpoint(rest, flag(2))?;
    let remote = match flag(3) {
        true => Some(endpoint(rest, flag(4))?),
        false => None,
    };
    let [length] = *take(rest)?;
    let (device, others) = rest.split_at_checked(length.into())?;
    *rest = others;
    let maybe = |number: u64| number.checked_sub(1);
    let socket = Socket {
        proto: *Proto::ALL.get(usize::from(kind >> 4))?,
        family: if flag(0) { Family::Ipv6 } else { Family::Ipv4 },
        state: *State::ALL.get(usize::from(kind & 0xf))?,
        local,
        remote,
        device: Device::new(device),
        netns: maybe(number(rest)?).map(|x| x as u32),
        sock: maybe(number(rest)?),
        inode: maybe(number(rest)?),
        v6only: flag(5).then_some(flag(6)),
        uid: number(rest)? as u32,
        recv_queue: number(rest)? as u32,
        send_queue: maybe(number(rest)?).map(|x| x as u32),
        traffic: match flag(7) {
            true => Some(Traffic {
                rtt_us: number(rest)? as u32,
                retrans: number(rest)? as u32,
                rx_bytes: number(rest)?,
                tx_bytes: number(rest)?,
            }),
            false => None,
        },
    };
    Some((socket, flag(1)))
}

fn endpoint(rest: &mut &[u8], is_ipv6: bool) -> Option<(IpAddr, u16)> {
    let port = u16::from_ne_bytes(*take(rest)?);
    let address = match is_ipv6 {
        true => IpAddr::V6(Ipv6Addr::from(*take::<16>(rest)?)),
        false => IpAddr::V4(Ipv4Addr::from(*take::<4>(rest)?)),
    };
    Some((address, port))
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let [byte] = *take(rest)?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some(number)
}

fn take<'a, const COUNT: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; COUNT]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(first)
}

impl Extend<Socket> for Packed {
    fn extend<I: IntoIterator<Item = Socket>>(&mut self, sockets: I) {
        sockets
            .into_iter()
            .for_each(|socket| self.push(&socket, false));
    }
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    prop_compose! {
        fn traffic()(rtt_us: u32, retrans: u32, rx_bytes: u64, tx_bytes: u64) -> Traffic {
            Traffic { rtt_us, retrans, rx_bytes, tx_bytes }
        }
    }

    prop_compose! {
        fn device()(name in proptest::collection::vec(1_u8.., 1..16)) -> Device {
            Device::new(&name).unwrap()
        }
    }

    prop_compose! {
        fn socket()(
            proto in select(Proto::ALL),
            family in select(Family::ALL),
            state in select(State::ALL),
            local: (IpAddr, u16),
            remote: Option<(IpAddr, u16)>,
            device in option::of(device()),
            netns: Option<u32>,
            sock in option::of(0..u64::MAX),
            inode in option::of(0..u64::MAX),
            (v6only, uid, recv_queue, send_queue) in any::<(Option<bool>, u32, u32, Option<u32>)>(),
            traffic in option::of(traffic()),
        ) -> Socket {
            Socket {
                proto, family, state, local, remote, device, netns, sock, inode, v6only, uid,
                recv_queue, send_queue, traffic,
            }
        }
    }

    #[test]
    fn a_connection_takes_less_than_64_bytes() {
        let mut packed = Packed::default();
        let socket = Socket {
            proto: Proto::Tcp,
            family: Family::Ipv4,
            state: State::Estab,
            local: (Ipv4Addr::new(192, 0, 2, 1).into(), 443),
            remote: Some((Ipv4Addr::new(198, 51, 100, 7).into(), 40_000)),
            device: None,
            netns: Some(4_026_531_840),
            sock: Some(5_000_000),
            inode: Some(80_000_000),
            v6only: None,
            uid: 65_534,
            recv_queue: 0,
            send_queue: Some(100_000),
            traffic: Some(Traffic {
                rtt_us: 250_000,
                retrans: 3,
                rx_bytes: 10_000_000,
                tx_bytes: 9_000_000_000,
            }),
        };
        packed.push(&socket, false);
        assert!(packed.end() < Place(64), "{:?}", packed.end());
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(
            sockets in proptest::collection::vec((socket(), any::<bool>()), 0..20)
        ) {
            let mut packed = Packed::default();
            let mut places = Vec::new();
            for (socket, mark) in &sockets {
                places.push(packed.end());
                packed.push(socket, *mark);
            }
            let out: Vec<_> = packed.places().collect();
            let expected = (places.into_iter().zip(sockets))
                .map(|(place, (socket, mark))| (place, socket, mark));
            prop_assert_eq!(out, expected.collect::<Vec<_>>());
        }
    }
}
