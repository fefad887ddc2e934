//! `portwatch top` as a program on a terminal: what it shows of sockets that these tests opened, and
//! that it leaves the terminal as it was.

mod ends;
mod played;
#[path = "../promises/mod.rs"]
mod promises;
mod shown;
mod terminal;

use std::process::Stdio;

use promises::{root, run};

fn main() {
    let root = root();
    let unshares = ends::inside().arg("true").stderr(Stdio::null()).status();
    let inside = (!unshares.is_ok_and(|x| x.success())).then_some("root and unshare");
    run(
        &[
            ("sockets_come_and_go", None, shown::come_and_go),
            ("a_short_life_is_seen", root, shown::short_life),
            ("keys_filter_freeze_and_explain", None, shown::keys),
            ("another_size_is_another_picture", None, shown::resized),
            ("every_end_gives_the_terminal_back", None, ends::ends),
            ("a_stop_gives_the_terminal_to_the_shell", None, ends::stops),
            (
                "a_terminal_that_goes_away_is_a_normal_end",
                None,
                ends::gone,
            ),
            (
                "what_cannot_be_seen_is_told_at_the_end",
                inside,
                ends::unseen,
            ),
            ("a_session_is_played", None, played::played),
            (
                "without_a_terminal_it_says_what_to_do",
                None,
                ends::no_terminal,
            ),
        ],
        false,
    )
}
