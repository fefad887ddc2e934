//! Text from outside made harmless for a terminal: what could move the cursor, change colours,
//! hide or reorder text is written as a visible escape instead.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Appends `bytes` to `out`: printable text as it is, control characters as `\n`, `\t`, `\x1b`,
/// invisible and reordering characters as `\u{202e}`, bytes that are not UTF-8 as `\xff`; and so that
/// none of these can be taken for text that only looks like it, a backslash as `\\`.
pub fn push(out: &mut String, bytes: &[u8]) {
    put(out, bytes, |_| false);
}

/// The same as a new string.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push(&mut out, bytes);
    out
}

/// The same of what came in as [`utf8`]: what that wrote for bytes that are not UTF-8 stays as it is.
pub fn push_str(out: &mut String, text: &str) {
    put(out, text.as_bytes(), is_byte);
}

/// The same as a new string.
pub fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_str(&mut out, text);
    out
}

/// Text that has escapes in it already, such as a message or JSON, so a backslash stays one.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    put(&mut out, text.as_bytes(), |_| true);
    out
}

/// Bytes from outside as text that is not made harmless: what is UTF-8 as it is, each byte that is not as
/// `\xff`.
pub fn utf8(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(2 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        for &b in chunk.invalid() {
            escape(&mut out, "\\x", u32::from(b));
        }
    }
    Cow::Owned(out)
}

/// Whether a text begins as [`utf8`] writes a byte.
fn is_byte(text: &str) -> bool {
    let [b'\\', b'x', high, low, ..] = text.as_bytes() else {
        return false;
    };
    matches!(high, b'8' | b'9' | b'a'..=b'f') && matches!(low, b'0'..=b'9' | b'a'..=b'f')
}

/// `is_escape`: whether what begins with a backslash is one, to be left as it is.
fn put(out: &mut String, bytes: &[u8], is_escape: impl Fn(&str) -> bool) {
    if bytes
        .iter()
        .all(|&b| (0x20..0x7f).contains(&b) && b != b'\\')
    {
        // All ASCII, as just seen, so this is the whole of it.
        out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for (at, c) in chunk.valid().char_indices() {
            match c {
                '\\' if is_escape(&chunk.valid()[at..]) => out.push('\\'),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_ascii_control() => escape(out, "\\x", c as u32),
                // Others than ASCII not by number only, which would be that of a byte.
                c if c.is_control() || is_deceptive(c) => {
                    out.push_str("\\u{");
                    // Writing to a String cannot fail.
                    let _ = write!(out, "{:x}}}", c as u32);
                }
                c => out.push(c),
            }
        }
        for &b in chunk.invalid() {
            escape(out, "\\x", u32::from(b));
        }
    }
}

fn escape(out: &mut String, prefix: &str, value: u32) {
    out.push_str(prefix);
    // Writing to a String cannot fail.
    let _ = write!(out, "{value:02x}");
}

/// Characters that print nothing, break the line, or change the order or meaning of their
/// neighbours: format controls (bidi overrides and isolates, zero width, tags), line and
/// paragraph separators, variation selectors and private use. See Unicode UAX #9 and UTS #39.
pub fn is_deceptive(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        | '\u{f0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn hostile_text_is_shown_not_obeyed() {
        for (input, expected) in [
            (&b"nginx"[..], "nginx"),
            (b"a b\\c", "a b\\\\c"),
            // not a newline, and not a byte
            (b"\\n\\xff", "\\\\n\\\\xff"),
            ("Grüße 日本".as_bytes(), "Grüße 日本"),
            (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
            (b"one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
            (b"\x7f", "\\x7f"),
            // C1 controls: U+009B is CSI to many terminals
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe"),
            ("a\u{200b}b\u{2066}c".as_bytes(), "a\\u{200b}b\\u{2066}c"),
            ("\u{e0041}".as_bytes(), "\\u{e0041}"),
            (b"caf\xe9", "caf\\xe9"),
            (b"\xff\xfe\x00", "\\xff\\xfe\\x00"),
            // a truncated character
            (b"\xe6\x97", "\\xe6\\x97"),
        ] {
            assert_eq!(text(input), expected);
        }
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_apart() {
        for (input, expected) in [
            (&b"caf\xe9 \xff"[..], "caf\\xe9 \\xff"),
            (b"\xe6\x97|\xef\xbf\xbd", "\\xe6\\x97|\u{fffd}"),
            // harmless it is not
            (b"\x1b[2J\\", "\x1b[2J\\"),
        ] {
            assert_eq!(utf8(input), expected);
        }
    }

    #[test]
    fn what_came_in_as_text_says_once_which_bytes_were_none() {
        for (input, expected) in [
            (&b"caf\xe9 \xff"[..], "caf\\xe9 \\xff"),
            (b"C:\\x \x1b[2J", "C:\\\\x \\x1b[2J"),
            // not what stands for a byte
            (b"\\x1b \\xFF \\xf", "\\\\x1b \\\\xFF \\\\xf"),
            ("\\é".as_bytes(), "\\\\é"),
        ] {
            assert_eq!(string(&utf8(input)), expected);
        }
    }

    /// Much of what has to be told apart.
    fn alike() -> impl Strategy<Value = Vec<u8>> {
        let pieces = [
            "\\", "n", "x", "9b", "u{202e}", "\n", "\u{202e}", "\u{9b}", "é",
        ];
        let piece = select(pieces.to_vec()).prop_map(|x| x.as_bytes().to_vec());
        let byte = any::<u8>().prop_map(|x| vec![x]);
        proptest::collection::vec(prop_oneof![piece, byte], 0..12).prop_map(|x| x.concat())
    }

    /// The bytes that are shown like this.
    fn read(shown: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = shown;
        while let Some(c) = rest.chars().next() {
            let (was, length) = match (c, rest.as_bytes().get(1)) {
                ('\\', Some(b'n')) => (b"\n".to_vec(), 2),
                ('\\', Some(b'r')) => (b"\r".to_vec(), 2),
                ('\\', Some(b't')) => (b"\t".to_vec(), 2),
                ('\\', Some(b'\\')) => (b"\\".to_vec(), 2),
                ('\\', Some(b'x')) => (vec![u8::from_str_radix(&rest[2..4], 16).unwrap()], 4),
                ('\\', Some(b'u')) => {
                    let end = rest.find('}').unwrap();
                    let number = u32::from_str_radix(&rest[3..end], 16).unwrap();
                    let c = char::from_u32(number).unwrap();
                    (c.to_string().into_bytes(), end + 1)
                }
                (c, _) => (c.to_string().into_bytes(), c.len_utf8()),
            };
            bytes.extend(was);
            rest = &rest[length..];
        }
        bytes
    }

    proptest! {
        #[test]
        fn nothing_a_terminal_would_obey_gets_through(bytes: Vec<u8>) {
            for c in text(&bytes).chars() {
                prop_assert!(!c.is_control() && !is_deceptive(c), "{c:?}");
            }
        }

        #[test]
        fn printable_ascii_but_backslashes_stays_as_it_is(input in "[ -\\[\\]-~]*") {
            prop_assert_eq!(text(input.as_bytes()), input);
        }

        #[test]
        fn what_is_shown_says_which_bytes_it_was(bytes in alike()) {
            prop_assert_eq!(read(&text(&bytes)), bytes);
        }

        #[test]
        fn what_came_in_is_shown_as_its_bytes(bytes in alike()) {
            prop_assume!(!bytes.windows(2).any(|x| x == b"\\x"));
            prop_assert_eq!(string(&utf8(&bytes)), text(&bytes));
        }

        #[test]
        fn what_is_escaped_stays_as_it_is(bytes: Vec<u8>) {
            let once = text(&bytes);
            prop_assert_eq!(escaped(&once), once);
        }

        #[test]
        fn what_is_utf8_stays_as_it_is(input: String) {
            prop_assert_eq!(utf8(input.as_bytes()), input.as_str());
        }
    }
}
