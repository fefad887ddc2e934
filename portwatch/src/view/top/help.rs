//! What `?` shows.

/// `playing`: of a session. Both fit on a screen of 24 lines.
pub fn help(playing: bool) -> Vec<&'static str> {
    let parts = match playing {
        true => [KEYS, PLAYED, NOTES, &[]],
        false => [KEYS, LIVE, NOTES, NOW_AND_THEN],
    };
    parts.concat()
}

const KEYS: &[&str] = &[
    "Tab, Shift-Tab   next, previous pane",
    "Up Down j k      select; PgUp PgDn g G: further",
    "Enter            details of the selected socket",
    "/                filter as you type: words, all of them have to match;",
    "                 Enter keeps it, Esc takes it back",
    "Esc              show all again",
    "s  S             sort by the next, previous column",
    "r                the other way round",
    "z                only this pane, all panes",
    "?  h             this help",
    "q  Ctrl-C        quit",
];

const LIVE: &[&str] = &["Space  p         freeze and go on"];

const PLAYED: &[&str] = &[
    "Space  p         stop and go on",
    "+  -             faster, slower",
    ".                stop at the next event",
    "Left Right       10 s back, ahead; with Shift a minute",
    "Home  End        beginning, end of the session; g G of a list",
];

const NOTES: &[&str] = &[
    "",
    "Dim rows are closed; they stay for some seconds. AGE of those is how",
    "long they were open. QUEUE: connections that wait to be accepted, of how",
    "many may; \"bound\" does not listen. LATENCY: of the handshake, or of the",
    "wait in the accept queue. \"nginx +3\": three more sockets share the",
    "address; the line is of all of them.",
];

const NOW_AND_THEN: &[&str] = &[
    "Queues, bytes, RTT, holders and states such as CLOSE-WAIT are read now",
    "and then, all else as it happens.",
];
