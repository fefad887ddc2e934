//! Records from the ring buffer: checked bytes in, typed values out.

use portwatch_common::{Kind, ProcessRecord, SocketRecord, TextRecord};

use crate::sanitize;

/// A record of any kind.
#[derive(Debug)]
pub enum Record<'a> {
    Socket(Kind, SocketRecord),
    Fork(ProcessRecord),
    Exit(ProcessRecord),
    Exec {
        head: TextRecord,
        exe: String,
        args: &'a [u8],
    },
    Cgroup {
        id: u64,
        path: String,
    },
}

/// What the bytes say; `None` when they are no record of this version.
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let kind = Kind::from_wire(*bytes.first()?)?;
    Some(match kind {
        Kind::Fork => Record::Fork(read(bytes)?),
        Kind::Exit => Record::Exit(read(bytes)?),
        Kind::Exec | Kind::Cgroup => {
            let head: TextRecord = read(bytes)?;
            let text = &bytes[size_of::<TextRecord>()..];
            let (first, rest) = text.split_at_checked(head.exe_len.into())?;
            let args = rest.get(..head.args_len as usize)?;
            if kind == Kind::Exec {
                Record::Exec {
                    head,
                    exe: path(first),
                    args,
                }
            } else {
                Record::Cgroup {
                    id: head.cgroup,
                    path: components(first).next()?,
                }
            }
        }
        _ => Record::Socket(kind, read(bytes)?),
    })
}

/// Structures that consist of integers only: every bit pattern is a value.
///
/// # Safety
/// No padding, no pointers, no enumerations.
unsafe trait Plain: Copy {}
// SAFETY: integers only; their sizes are asserted in portwatch-common.
unsafe impl Plain for SocketRecord {}
unsafe impl Plain for ProcessRecord {}
unsafe impl Plain for TextRecord {}

fn read<T: Plain>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: as many bytes as T has, and any of them make a T.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Texts that end with NUL each.
fn components(text: &[u8]) -> impl DoubleEndedIterator<Item = String> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    text.split(|&b| b == 0)
        .map(|part| sanitize::utf8(part).into_owned())
}

/// A path from its names, last one first.
fn path(names: &[u8]) -> String {
    let mut path = String::with_capacity(names.len() + 1);
    for name in components(names).rev().filter(|name| !name.is_empty()) {
        path.push('/');
        path.push_str(&name);
    }
    path
}

/// Splits arguments as they lie in memory.
pub fn args(text: &[u8]) -> Vec<String> {
    if text.is_empty() {
        Vec::new()
    } else {
        components(text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exec(names: &[u8], arguments: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; size_of::<TextRecord>()];
        bytes[0] = Kind::Exec as u8;
        bytes[2..4].copy_from_slice(&(names.len() as u16).to_ne_bytes());
        bytes[4..8].copy_from_slice(&(arguments.len() as u32).to_ne_bytes());
        bytes.extend(names);
        bytes.extend(arguments);
        bytes
    }

    #[test]
    fn an_exec_record_gives_the_path_in_order_and_empty_arguments_too() {
        let bytes = exec(b"nginx\0sbin\0usr\0", b"nginx\0\0-g\0");
        let Some(Record::Exec {
            exe, args: text, ..
        }) = decode(&bytes)
        else {
            panic!()
        };
        assert_eq!(exe, "/usr/sbin/nginx");
        assert_eq!(args(text), ["nginx", "", "-g"]);
    }

    #[test]
    fn lengths_that_do_not_fit_are_refused() {
        let mut bytes = exec(b"a\0", b"b\0");
        bytes[2] = 200;
        assert!(decode(&bytes).is_none());
        assert!(decode(&[]).is_none());
        assert!(decode(&[99; 300]).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0u8..12) {
            let mut bytes = bytes;
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            let _ = decode(&bytes);
        }
    }
}
