//! Reads the kernel's type information (BTF): member offsets, and which functions and tracepoints exist.
//! Format: `Documentation/bpf/btf.rst`. Only names asked for beforehand are looked up, in one pass
//! over the types, because that pass is part of every start.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::ops::Deref;

use anyhow::{Context, Result, bail, ensure};
use memmap2::{Mmap, MmapOptions};

/// Where the running kernel describes its types.
pub const KERNEL: &str = "/sys/kernel/btf/vmlinux";

/// Kinds of type, numbered as in the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    Struct = 4,
    Enum = 6,
    Typedef = 8,
    Func = 12,
    /// A per-CPU variable.
    Var = 14,
}

/// How an argument is passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passed {
    Pointer,
    Value,
}

/// What is in [`KERNEL`], some megabytes.
pub enum Data {
    /// Needs no copy; since Linux 6.16.
    Mapped(Mmap),
    Read(Vec<u8>),
}

/// Type information of the running kernel, unparsed.
///
/// # Errors
/// When it has none, or /sys is not mounted.
pub fn kernel() -> std::io::Result<Data> {
    let mut file = File::open(KERNEL)?;
    // SAFETY: what the kernel was built with does not change. It maps it only as a private copy.
    if let Ok(map) = unsafe { MmapOptions::new().map_copy_read_only(&file) } {
        return Ok(Data::Mapped(map));
    }
    let mut data = Vec::new();
    file.read_to_end(&mut data)?;
    Ok(Data::Read(data))
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::Mapped(map) => map,
            Data::Read(data) => data,
        }
    }
}

/// Type information and where the wanted types lie in it.
pub struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Where in `types` each one starts, by id, and where the last one ends. Id 0 is `void`, which is
    /// not there.
    starts: Vec<u32>,
    found: HashMap<(Kind, &'a str), u32>,
}

/// Head of each type: name, info (length, kind) and size or referenced type.
const HEAD: usize = 12;

impl<'a> Btf<'a> {
    /// Reads `data` and finds the types in `wanted`.
    ///
    /// # Errors
    /// When `data` is not BTF, is cut short, or has a kind of type this reader does not know.
    pub fn parse(data: &'a [u8], wanted: &[(Kind, &str)]) -> Result<Self> {
        ensure!(
            data.get(..2) == Some(&0xeb9fu16.to_ne_bytes()),
            "not BTF: no magic number"
        );
        let part = |at: usize, len: usize| -> Result<&'a [u8]> {
            let from = word(data, 4)? as usize + word(data, at)? as usize;
            let size = word(data, len)? as usize;
            data.get(from..from.saturating_add(size))
                .context("BTF is cut short")
        };
        let strings = part(16, 20)?;
        let types = part(8, 12)?;
        // A kernel has more than 100,000.
        let mut starts = Vec::with_capacity(types.len() / HEAD / 2);
        starts.push(0);
        let mut btf = Self {
            strings,
            types,
            starts,
            found: HashMap::new(),
        };
        let names: HashMap<(u8, &[u8]), Kind> = wanted
            .iter()
            .map(|&(kind, name)| ((kind as u8, name.as_bytes()), kind))
            .collect();
        let mut hints = [false; HINTS];
        for (kind, name) in names.keys() {
            hints[hint(*kind, name)] = true;
        }
        let mut rest = types;
        while !rest.is_empty() {
            let id = btf.starts.len() as u32;
            btf.starts.push((types.len() - rest.len()) as u32);
            let info = word(rest, 4)?;
            let kind = (info >> 24 & 0x1f) as u8;
            let size = HEAD + extra(kind, (info & 0xffff) as usize)?;
            let (this, next) = rest.split_at_checked(size).context("BTF is cut short")?;
            if matches!(kind, 4 | 6 | 8 | 12 | 14) {
                let at = word(this, 0)?;
                let text = strings.get(at as usize..).unwrap_or(&[]);
                if hints[hint(kind, text)]
                    && let name = btf.string(at)
                    && let Some(&kind) = names.get(&(kind, name))
                {
                    let name = std::str::from_utf8(name).context("BTF name is not UTF-8")?;
                    btf.found.entry((kind, name)).or_insert(id);
                }
            }
            rest = next;
        }
        btf.starts.push(types.len() as u32);
        Ok(btf)
    }

    /// Whether a wanted type exists.
    pub fn has(&self, kind: Kind, name: &str) -> bool {
        self.found.contains_key(&(kind, name))
    }

    /// Number of a wanted type; `None` when there is none.
    pub fn id(&self, kind: Kind, name: &str) -> Option<u32> {
        self.found.get(&(kind, name)).copied()
    }

    /// Byte offset of a member, written `outer.inner` for one in a member; `None` when there is none.
    pub fn offset(&self, structure: &str, member: &str) -> Option<u32> {
        let mut id = *self.found.get(&(Kind::Struct, structure))?;
        let mut bits = 0;
        for name in member.split('.') {
            let (at, kind) = self.member(id, name.as_bytes())?;
            bits += at;
            id = kind;
        }
        Some(bits / 8)
    }

    /// How a raw tracepoint passes its argument `n`, from 0; `None` when it has none.
    pub fn tracepoint_arg(&self, name: &str, n: usize) -> Option<Passed> {
        let id = *self
            .found
            .get(&(Kind::Typedef, &*format!("btf_trace_{name}")))?;
        // typedef → pointer → prototype, whose first parameter is the tracer's own.
        let pointer = self.kind_of(id)?.1;
        let prototype = self.kind_of(pointer)?.1;
        let parameters = self.data(prototype)?.get(HEAD..)?;
        let parameter = parameters.chunks_exact(8).nth(n + 1)?;
        let (kind, _) = self.kind_of(self.resolve(word(parameter, 4).ok()?)?)?;
        Some(if kind == 2 {
            Passed::Pointer
        } else {
            Passed::Value
        })
    }

    /// Names and values of an enumeration.
    pub fn enumerators(&self, name: &str) -> Vec<(u32, &'a str)> {
        let Some(&id) = self.found.get(&(Kind::Enum, name)) else {
            return Vec::new();
        };
        let body = self.data(id).and_then(|data| data.get(HEAD..));
        body.unwrap_or_default()
            .chunks_exact(8)
            .filter_map(|entry| {
                let name = self.string(word(entry, 0).ok()?);
                Some((word(entry, 4).ok()?, std::str::from_utf8(name).ok()?))
            })
            .collect()
    }

    /// The bytes of a type.
    fn data(&self, id: u32) -> Option<&'a [u8]> {
        let at = id as usize;
        let (from, to) = (*self.starts.get(at)?, *self.starts.get(at + 1)?);
        // Of `void` there is nothing.
        self.types
            .get(from as usize..to as usize)
            .filter(|_| id != 0)
    }

    fn string(&self, at: u32) -> &'a [u8] {
        let text = self.strings.get(at as usize..).unwrap_or(&[]);
        let end = text.iter().position(|&b| b == 0).unwrap_or(text.len());
        &text[..end]
    }

    /// Kind of a type, and the type it refers to (or its size).
    fn kind_of(&self, id: u32) -> Option<(u8, u32)> {
        let data = self.data(id)?;
        Some((
            (word(data, 4).ok()? >> 24 & 0x1f) as u8,
            word(data, 8).ok()?,
        ))
    }

    /// The type behind typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        // typedef, volatile, const, restrict, type_tag; a cycle cannot be longer than this
        for _ in 0..32 {
            match self.kind_of(id)? {
                (8..=11 | 18, next) => id = next,
                _ => return Some(id),
            }
        }
        None
    }

    /// Offset in bits and type of a member, also of one in an anonymous member.
    fn member(&self, id: u32, wanted: &[u8]) -> Option<(u32, u32)> {
        let id = self.resolve(id)?;
        let data = self.data(id)?;
        let info = word(data, 4).ok()?;
        if !matches!(info >> 24 & 0x1f, 4 | 5) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        data[HEAD..].chunks_exact(12).find_map(|member| {
            let (name, kind) = (self.string(word(member, 0).ok()?), word(member, 4).ok()?);
            let offset = word(member, 8).ok()?;
            let offset = if bitfields {
                offset & 0xff_ffff
            } else {
                offset
            };
            if name == wanted {
                Some((offset, kind))
            } else if name.is_empty() {
                let (inner, kind) = self.member(kind, wanted)?;
                Some((offset + inner, kind))
            } else {
                None
            }
        })
    }
}

/// How many kinds and beginnings of names are told apart, see [`hint`].
const HINTS: usize = 4096;

/// A number that kind and first bytes of a name give: nearly all types are told by it to be none of
/// those that are wanted, at a fraction of what looking up their names takes.
fn hint(kind: u8, text: &[u8]) -> usize {
    let mut first = [0; 4];
    let bytes = text.iter().take_while(|&&b| b != 0);
    (first.iter_mut().zip(bytes)).for_each(|(to, &from)| *to = from);
    let mixed = (u32::from_ne_bytes(first) ^ u32::from(kind) << 8).wrapping_mul(0x9e37_79b1);
    (mixed >> 20) as usize % HINTS
}

/// Bytes after the head of a type of this kind with `count` parts.
fn extra(kind: u8, count: usize) -> Result<usize> {
    Ok(match kind {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        4 | 5 | 15 | 19 => count * 12,
        6 | 13 => count * 8,
        _ => bail!("BTF has a type of the unknown kind {kind}"),
    })
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let bytes = data.get(at..at + 4).context("BTF is cut short")?;
    Ok(u32::from_ne_bytes(bytes.try_into().context("four bytes")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds BTF from raw words of types and a string table.
    fn build(types: &[u32], strings: &[u8]) -> Vec<u8> {
        let type_bytes: Vec<u8> = types.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut data = Vec::new();
        data.extend(0xeb9fu16.to_ne_bytes());
        data.extend([1, 0]);
        let lengths = [24, 0, type_bytes.len(), type_bytes.len(), strings.len()];
        data.extend(lengths.iter().flat_map(|&n| (n as u32).to_ne_bytes()));
        data.extend(type_bytes);
        data.extend(strings);
        data
    }

    #[test]
    fn a_member_of_an_anonymous_union_in_a_structure_is_found_at_its_offset() {
        // int; union { int b; }; struct s { int a; union; }
        let strings = b"\0int\0a\0b\0s\0";
        let types = [
            1,
            1 << 24,
            4,
            32, // 1: int
            0,
            5 << 24 | 1,
            4,
            7,
            1,
            0, // 2: anonymous union with b
            9,
            4 << 24 | 2,
            8,
            5,
            1,
            0,
            0,
            2,
            32, // 3: struct s
        ];
        let data = build(&types, strings);
        let btf = Btf::parse(&data, &[(Kind::Struct, "s")]).unwrap();
        assert_eq!(btf.offset("s", "a"), Some(0));
        assert_eq!(btf.offset("s", "b"), Some(4));
        assert_eq!(btf.offset("s", "c"), None);
        assert_eq!(btf.offset("t", "a"), None);
    }

    #[test]
    fn a_type_is_found_by_its_kind_and_all_of_its_name() {
        // names that begin alike, one that is the beginning of another, one of a single letter
        let strings = b"\0sock\0socket\0sock_common\0s\0";
        let structure = |name: u32| [name, 4 << 24, 0];
        let function = |name: u32| [name, 12 << 24, 0];
        let types = [
            structure(6),
            function(1),
            structure(13),
            structure(25),
            structure(1),
        ];
        let wanted = [
            (Kind::Struct, "sock"),
            (Kind::Struct, "s"),
            (Kind::Func, "socket"),
        ];
        let data = build(types.as_flattened(), strings);
        let btf = Btf::parse(&data, &wanted).unwrap();
        assert_eq!(btf.id(Kind::Struct, "sock"), Some(5));
        assert_eq!(btf.id(Kind::Struct, "s"), Some(4));
        assert_eq!(btf.id(Kind::Func, "socket"), None);
        assert_eq!(btf.id(Kind::Struct, "socket"), None);
    }

    #[test]
    fn damaged_data_is_an_error_and_never_a_panic() {
        let data = build(&[1, 1 << 24, 4, 32], b"\0int\0");
        assert!(Btf::parse(b"", &[]).is_err());
        assert!(Btf::parse(b"not btf at all, but long enough for a header", &[]).is_err());
        for cut in 0..data.len() {
            let _ = Btf::parse(&data[..cut], &[(Kind::Struct, "int")]);
        }
        for at in 0..data.len() {
            let mut bad = data.clone();
            bad[at] = 0xff;
            let _ = Btf::parse(&bad, &[(Kind::Struct, "int")]);
        }
    }
}
