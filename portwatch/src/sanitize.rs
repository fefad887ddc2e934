//! Text from outside made harmless for a terminal: what could move the cursor, change colours,
//! hide or reorder text is written as a visible escape instead.

use std::fmt::Write as _;

/// Appends `bytes` to `out`: printable text as it is, control characters as `\n`, `\t`, `\x1b`,
/// invisible and reordering characters as `\u{202e}`, bytes that are not UTF-8 as `\xff`.
pub fn push(out: &mut String, bytes: &[u8]) {
    if bytes.iter().all(|&b| (0x20..0x7f).contains(&b)) {
        // All ASCII, as just seen, so this is the whole of it.
        out.push_str(std::str::from_utf8(bytes).unwrap_or_default());
        return;
    }
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() && (c as u32) < 0x100 => escape(out, "\\x", c as u32),
                c if is_deceptive(c) => {
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

/// The same as a new string.
pub fn text(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    push(&mut out, bytes);
    out
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
    use super::*;

    #[test]
    fn hostile_text_is_shown_not_obeyed() {
        for (input, expected) in [
            (&b"nginx"[..], "nginx"),
            (b"a b\\c", "a b\\c"),
            ("Grüße 日本".as_bytes(), "Grüße 日本"),
            (b"\x1b[2J\x07", "\\x1b[2J\\x07"),
            (b"one\ntwo\r\tthree", "one\\ntwo\\r\\tthree"),
            (b"\x7f", "\\x7f"),
            // C1 controls: U+009B is CSI to many terminals
            ("\u{9b}31m".as_bytes(), "\\x9b31m"),
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

    proptest::proptest! {
        #[test]
        fn nothing_a_terminal_would_obey_gets_through(bytes: Vec<u8>) {
            for c in text(&bytes).chars() {
                proptest::prop_assert!(!c.is_control() && !is_deceptive(c), "{c:?}");
            }
        }

        #[test]
        fn printable_ascii_stays_as_it_is(input in "[ -~]*") {
            proptest::prop_assert_eq!(text(input.as_bytes()), input);
        }
    }
}
