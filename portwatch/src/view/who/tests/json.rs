//! The answer as JSON.

use expect_test::expect;

use super::*;
use crate::event::Comm;

pub fn json(answer: &Answer<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    answer.put_json(&mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn json_tells_on_what_an_error_depends() {
    let connection = |local: &str| {
        let remote = if local.starts_with('[') {
            "[::1]:443"
        } else {
            "127.0.0.1:443"
        };
        Row::connection(State::Estab, local, remote, 99, "curl")
    };
    let binds = |rows: &[Row]| {
        let json = json(&answer(question(Some("0.0.0.0")), Rules::DEFAULT, rows));
        let mut bind = json["protocols"][0]["binds"][0].clone();
        bind.as_object_mut().unwrap().remove("obstacles");
        bind.to_string()
    };
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[connection("127.0.0.1:8080")]));
    expect![[r#"{"error":"EADDRINUSE","error_if":["a socket there is for IPv4 as well"],"error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there is for IPv4 as well and has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[connection("[::1]:8080")]));
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","error_with_reuseaddr_if":["a socket there is for IPv4 as well and has not set SO_REUSEADDR","a socket there has not set SO_REUSEADDR"],"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[
        connection("[::1]:8080"),
        connection("127.0.0.1:8080"),
    ]));
    expect![[r#"{"error":"EADDRINUSE","error_with_reuseaddr":"EADDRINUSE","laddr":"0.0.0.0"}"#]]
        .assert_eq(&binds(&[
            Row::server(Proto::Tcp, "127.0.0.1:8080", 7, "srv"),
            connection("[::1]:8080"),
        ]));
    expect![[r#"{"laddr":"0.0.0.0"}"#]].assert_eq(&binds(&[]));
}

#[test]
fn json_is_harmless_and_leaves_out_what_is_absent() {
    let local = "127.0.0.1:8080";
    let mut client = client("127.0.0.1:40001", local);
    client.event.pid = None;
    client.event.comm = None;
    let mut evil = python();
    evil.event.comm = Some(Comm::from("\u{202e}\x1b[2J"));
    let rows = [
        evil,
        Row::connection(State::Estab, local, "127.0.0.1:40001", 7262, "python3"),
        client,
    ];
    let mut question = question(None);
    question.netns = None;
    let mut out = Vec::new();
    answer(question, Rules::DEFAULT, &rows).put_json(&mut out);
    let text = String::from_utf8(out).unwrap();
    let deceives = |c| c != '\n' && sanitize::is_deceptive(c) || c == '\x1b';
    assert!(!text.contains(deceives), "{text}");
    assert!(text.contains(r"\u202e\u001b[2J"), "{text}");
    assert!(text.contains(r#""clients":[{"#), "{text}");
    assert!(!text.contains("null"), "{text}");
}

#[test]
fn json_has_the_documented_keys() {
    let rows = [
        python(),
        Row::connection(
            State::Estab,
            "127.0.0.1:8080",
            "127.0.0.1:40001",
            7262,
            "python3",
        ),
    ];
    let json = json(&answer(question(Some("127.0.0.1")), Rules::DEFAULT, &rows));
    expect![[r#"
        {
          "addr": "127.0.0.1",
          "limits": [],
          "netns": 1,
          "port": 8080,
          "protocols": [
            {
              "binds": [
                {
                  "error": "EADDRINUSE",
                  "error_with_reuseaddr": "EADDRINUSE",
                  "laddr": "127.0.0.1",
                  "obstacles": [
                    {
                      "comm": "python3",
                      "laddr": "127.0.0.1",
                      "pid": 7262,
                      "state": "LISTEN",
                      "why": "the same address"
                    },
                    {
                      "comm": "python3",
                      "laddr": "127.0.0.1",
                      "pid": 7262,
                      "state": "ESTAB",
                      "why": "the same address"
                    }
                  ]
                }
              ],
              "clients": [],
              "peers": [
                {
                  "count": 1,
                  "netns": 1,
                  "raddr": "127.0.0.1"
                }
              ],
              "proto": "tcp",
              "servers": [
                {
                  "args": [
                    "python3",
                    "-m",
                    "\u001b[2J"
                  ],
                  "backlog": 128,
                  "comm": "python3",
                  "exe": "/usr/bin/python3.11",
                  "family": "ipv4",
                  "holders": [
                    {
                      "comm": "python3",
                      "pid": 7262
                    },
                    {
                      "comm": "child",
                      "pid": 7300
                    }
                  ],
                  "inode": 726200,
                  "laddr": "127.0.0.1",
                  "lport": 8080,
                  "netns": 1,
                  "parents": [
                    {
                      "comm": "bash",
                      "pid": 7256
                    },
                    {
                      "comm": "init",
                      "pid": 1
                    }
                  ],
                  "pid": 7262,
                  "proto": "tcp",
                  "recv_queue": 0,
                  "send_queue": 128,
                  "sock": 72620,
                  "started": "2023-11-14T22:12:20.000000000Z",
                  "state": "LISTEN",
                  "uid": 0,
                  "unit": "session-3.scope",
                  "user": "root"
                }
              ],
              "states": [
                {
                  "count": 1,
                  "netns": 1,
                  "state": "ESTAB"
                }
              ],
              "verdict": "a bind to 127.0.0.1:8080/tcp fails with EADDRINUSE: python3 (pid 7262) has it"
            },
            {
              "binds": [
                {
                  "laddr": "127.0.0.1",
                  "obstacles": []
                }
              ],
              "clients": [],
              "peers": [],
              "proto": "udp",
              "servers": [],
              "states": [],
              "verdict": "127.0.0.1:8080/udp is free: a bind succeeds"
            }
          ],
          "remarks": []
        }"#]].assert_eq(&serde_json::to_string_pretty(&json).unwrap());
}
