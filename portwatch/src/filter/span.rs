//! Numbers and ranges of numbers, as users write them: `80`, `8000-8999`.

use std::str::FromStr;

/// What a [`Span`] is made of.
pub trait Number: Copy + Ord + FromStr + std::fmt::Display {
    const MAX: Self;
}

impl Number for u16 {
    const MAX: Self = u16::MAX;
}

impl Number for u32 {
    const MAX: Self = u32::MAX;
}

/// From `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span<T> {
    pub first: T,
    pub last: T,
}

/// One number.
impl<T: Number> From<T> for Span<T> {
    fn from(number: T) -> Self {
        Self {
            first: number,
            last: number,
        }
    }
}

impl<T: Number> FromStr for Span<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |x: &str| {
            x.trim().parse::<T>().map_err(|_| {
                format!(
                    "'{text}' is neither a number from 0 to {} nor a range FIRST-LAST",
                    T::MAX
                )
            })
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        if first > last {
            return Err(format!("the range is empty; write {last}-{first}"));
        }
        Ok(Self { first, last })
    }
}

/// A list of spans; an empty one asks for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spans<T>(pub Vec<Span<T>>);

impl<T> Default for Spans<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Number> Spans<T> {
    /// Whether one of the values that are there is in one of the spans.
    pub fn allow<const N: usize>(&self, values: [Option<T>; N]) -> bool {
        self.0.is_empty()
            || values
                .into_iter()
                .flatten()
                .any(|value| self.0.iter().any(|x| (x.first..=x.last).contains(&value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_read() {
        for (text, expected) in [
            ("80", Ok((80, 80))),
            ("8000-8999", Ok((8000, 8999))),
            ("0-65535", Ok((0, 65535))),
            ("7-7", Ok((7, 7))),
            ("9-8", Err("the range is empty; write 8-9")),
            (
                "65536",
                Err("'65536' is neither a number from 0 to 65535 nor a range FIRST-LAST"),
            ),
            (
                "http",
                Err("'http' is neither a number from 0 to 65535 nor a range FIRST-LAST"),
            ),
            (
                "1-",
                Err("'1-' is neither a number from 0 to 65535 nor a range FIRST-LAST"),
            ),
            (
                "-1",
                Err("'-1' is neither a number from 0 to 65535 nor a range FIRST-LAST"),
            ),
        ] {
            let got = text.parse::<Span<u16>>().map(|x| (x.first, x.last));
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
    }
}
