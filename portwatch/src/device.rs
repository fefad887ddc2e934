//! The network device that a socket is bound to: by SO_BINDTODEVICE, or because its address is one of
//! a link (`fe80::1%eth0`).

use std::borrow::Cow;
use std::ffi::{CStr, c_char};

/// Its name as the kernel keeps it: 1 to 15 bytes, not necessarily UTF-8.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device([u8; libc::IF_NAMESIZE]);

impl Device {
    /// `None` when no device can have that name.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; libc::IF_NAMESIZE];
        let fits = (1..bytes.len()).contains(&name.len()) && !name.contains(&0);
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        fits.then_some(Self(bytes))
    }

    /// The one with this number in the network namespace of the calling thread; `if7` when there is none
    /// any more, as `ss` has it.
    pub fn of_index(index: u32) -> Option<Self> {
        let mut name: [c_char; libc::IF_NAMESIZE] = [0; _];
        // SAFETY: there is room for the longest name and its end, which is there before it is read.
        let found = unsafe {
            let name = libc::if_indextoname(index, name.as_mut_ptr());
            (!name.is_null()).then(|| CStr::from_ptr(name).to_bytes())
        };
        match found {
            Some(name) => Self::new(name),
            None => Self::new(format!("if{index}").as_bytes()),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0);
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// As text, with `\xff` for bytes that are not UTF-8.
    pub fn text(&self) -> Cow<'_, str> {
        crate::sanitize::utf8(self.bytes())
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_up_to_15_bytes() {
        for (name, fits) in [
            (&b"lo"[..], true),
            (b"a", true),
            (b"\xff\x1b", true),
            (b"fifteen-letters", true),
            (b"sixteen--letters", false),
            (b"much-more-than-sixteen", false),
            (b"", false),
            (b"a\0b", false),
        ] {
            let device = Device::new(name);
            assert_eq!(device.is_some(), fits, "{name:?}");
            assert!(device.is_none_or(|x| x.bytes() == name), "{device:?}");
        }
    }

    #[test]
    fn numbers_are_those_of_this_namespace() {
        assert_eq!(Device::of_index(1), Device::new(b"lo"));
        assert_eq!(
            Device::of_index(4_000_000_000),
            Device::new(b"if4000000000")
        );
    }
}
