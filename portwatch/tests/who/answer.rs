//! The answer, for a port that somebody has or nobody.

use std::net::{TcpListener, TcpStream};

use serde_json::Value;

use super::{open, own_comm, prints};

pub fn listener() {
    let (_listener, _, port) = open();
    let text = prints(&[&port]);
    let first = text.lines().next().unwrap();
    let start = format!(
        "{port}/tcp: {} (pid {}, user ",
        own_comm(),
        std::process::id()
    );
    assert!(first.starts_with(&start), "{text}");
    assert!(first.contains(") listens on 127.0.0.1"), "{text}");
    let last = text.lines().last().unwrap();
    let verdict = format!("verdict: {port}/tcp is taken on 127.0.0.1 by ");
    assert!(last.starts_with(&verdict), "{text}");
}

pub fn json() {
    let (listener, port, text) = open();
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = listener.accept().unwrap();
    let answer: Value = serde_json::from_str(&prints(&[&text, "-t", "-o", "json"])).unwrap();
    assert_eq!(answer["port"], port);
    let [tcp] = &answer["protocols"].as_array().unwrap()[..] else {
        panic!("more than tcp: {answer}")
    };
    assert_eq!(tcp["servers"][0]["pid"], std::process::id());
    assert_eq!(tcp["states"][0]["state"], "ESTAB");
    assert_eq!(tcp["peers"][0]["raddr"], "127.0.0.1");
    assert_eq!(tcp["clients"][0]["pid"], std::process::id());
    for (bind, addr) in tcp["binds"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["0.0.0.0", "::"])
    {
        assert_eq!(
            (&bind["laddr"], &bind["error"]),
            (&addr.into(), &"EADDRINUSE".into())
        );
    }
    let elsewhere = format!("127.0.0.2:{port}");
    let answer: Value = serde_json::from_str(&prints(&[&elsewhere, "-t", "-o", "json"])).unwrap();
    assert_eq!(answer["addr"], "127.0.0.2");
    assert_eq!(answer["protocols"][0]["binds"][0].get("error"), None);
    drop((client, accepted));
}

pub fn free() {
    let (listener, _, port) = open();
    drop(listener);
    let text = prints(&[&port]);
    let first = format!("{port}/tcp: free, nobody has it");
    assert_eq!(text.lines().next(), Some(first.as_str()));
    let last = format!("verdict: {port}/tcp+udp is free: a bind succeeds");
    assert_eq!(text.lines().last(), Some(last.as_str()));
}

pub fn client() {
    let (listener, at, _) = open();
    let client = TcpStream::connect(("127.0.0.1", at)).unwrap();
    let port = client.local_addr().unwrap().port();
    let text = prints(&[&port.to_string(), "-t"]);
    let verdict = format!(
        "verdict: a bind to {port}/tcp fails with EADDRINUSE unless it and the sockets there set \
         SO_REUSEADDR: nobody listens, but {} (pid {}) has it",
        own_comm(),
        std::process::id()
    );
    assert_eq!(text.lines().last(), Some(verdict.as_str()));
    let json = prints(&[&port.to_string(), "-t", "-o", "json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    for bind in answer["protocols"][0]["binds"].as_array().unwrap() {
        assert_eq!(bind["error"], "EADDRINUSE");
        assert_eq!(bind.get("error_if"), None);
        assert_eq!(bind["error_with_reuseaddr"], "EADDRINUSE");
        let conditions = &bind["error_with_reuseaddr_if"];
        assert_eq!(conditions[0], "a socket there has not set SO_REUSEADDR");
    }
    // The server's end of that connection is no client, whether it is accepted or not.
    assert_eq!(answer["protocols"][0]["clients"], Value::Array(Vec::new()));
    let accepted = listener.accept().unwrap();
    let json = prints(&[&port.to_string(), "-t", "-o", "json"]);
    let answer: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(answer["protocols"][0]["clients"], Value::Array(Vec::new()));
    drop((listener, accepted));
}

pub fn ipv6() {
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect(("::1", port)).unwrap();
    let accepted = listener.accept().unwrap();
    drop(listener);
    let text = prints(&[&format!("0.0.0.0:{port}"), "-t"]);
    let own = format!("{} (pid {})", own_comm(), std::process::id());
    let bind = format!(
        "  bind         0.0.0.0: perhaps EADDRINUSE unless both set SO_REUSEADDR (ESTAB of {own} on \
         [::1], which counts for IPv4 too unless it is for IPv6 only)"
    );
    assert!(text.lines().any(|line| line == bind), "{text}");
    let verdict = format!("verdict: a bind to 0.0.0.0:{port}/tcp may fail with EADDRINUSE unless ");
    assert!(text.lines().last().unwrap().starts_with(&verdict), "{text}");
    drop((client, accepted));
}
