//! The answer of a session.

use expect_test::expect;

use super::*;

#[test]
fn a_session_tells_what_was_before() {
    let events = crate::view::lines::samples::typical();
    let wanted = |event: &Event| event.rport.is_none() && event.laddr.is_some();
    let mut answer = answer(question(None), Rules::DEFAULT, &[]);
    answer.past = Some(Past {
        at: NOW + 60_000_000_000,
        history: events.into_iter().filter(wanted).collect(),
    });
    expect![[r#"
        8080/tcp: free, nobody has it
        8080/udp: free, nobody has it
        before, on this port:
          2023-11-14 22:13:20.124 listen tcp 0.0.0.0 by nginx(812)
          2023-11-14 22:13:20.125 bind   tcp 0.0.0.0 EADDRINUSE by \x1b]0;x\x07\xff(4242), held by nginx(812)
          2023-11-14 22:13:20.130 close  tcp 0.0.0.0 by nginx(812), open for 1h02m
        verdict: 8080/tcp+udp is free: a bind succeeds
    "#]].assert_eq(&answer.text(&Style::sample()));
    let json = json::json(&answer);
    assert_eq!(json["at"], "2023-11-14T22:14:20.000000000Z");
    assert_eq!(json["history"][1]["error"], "EADDRINUSE");
    assert_eq!(json["history"][1].get("seq"), None);
}
