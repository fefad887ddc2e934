//! Which kinds of event the kernel has to make.

use crate::event::Kind;

/// Those that are wanted, and those by which they are told, which are to be hidden.
pub fn made(wanted: &[Kind]) -> Vec<Kind> {
    let binds = wanted.contains(&Kind::Bind);
    let ends = wanted.contains(&Kind::Close) || wanted.contains(&Kind::Reset);
    let made = |kind: &Kind| match kind {
        _ if wanted.contains(kind) => true,
        // Who has the port that a bind found taken, or left it.
        Kind::Listen | Kind::Close if binds => true,
        // What the owner was when the socket became its own, remembered until its close.
        Kind::Bind | Kind::Listen | Kind::Connect | Kind::Accept | Kind::Close => ends,
        Kind::Reset | Kind::Lost => false,
    };
    Kind::ALL.iter().copied().filter(made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_made_with_those_that_tell_of_them() {
        use Kind::{Accept, Bind, Close, Connect, Listen, Reset};
        for (wanted, expected) in [
            (Kind::ALL, Kind::ALL),
            (&[Accept, Connect], &[Connect, Accept]),
            (&[Bind], &[Bind, Listen, Close]),
            (&[Close], &[Bind, Listen, Connect, Accept, Close]),
            (&[Reset], &[Bind, Listen, Connect, Accept, Close, Reset]),
        ] {
            assert_eq!(made(wanted), expected);
        }
    }
}
