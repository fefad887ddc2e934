//! What is on the screen while sockets come and go, keys are pressed, and its size changes.

use std::net::{TcpListener, TcpStream};

use super::terminal::Top;

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Arguments that show only this process.
fn own() -> String {
    format!("--pid={}", std::process::id())
}

pub fn come_and_go() {
    let (early, early_address) = listener();
    let top = Top::start(&["--from", "poll", "--keep", "2s", &own()]);
    top.until("what was open before", |text| text.contains(&early_address));
    let (late, late_address) = listener();
    top.until("a listener", |text| text.contains(&late_address));
    assert!(!top.is_dim(&late_address));
    let port = late_address.split(':').next_back().unwrap().to_owned();
    let client = TcpStream::connect(&late_address).unwrap();
    let server = late.accept().unwrap();
    top.until("both ends of a connection", |text| {
        text.matches("ESTAB").count() >= 2 && text.matches(&port).count() >= 3
    });
    drop(late);
    top.until("it is closed", |text| {
        (text.lines()).any(|line| line.contains(&late_address) && line.contains("closed"))
    });
    top.until("it is gone", |text| {
        let (table, _) = text.split_once("CONNECTIONS").unwrap();
        table.contains(&early_address) && !table.contains(&late_address)
    });
    drop((early, client, server));
    top.signal(libc::SIGTERM);
    top.ended();
}

pub fn short_life() {
    let top = Top::start(&["--keep", "1h", &own()]);
    top.until("that it traces", |text| text.contains(" probes"));
    let (listener, address) = listener();
    drop(listener);
    top.until("it was there", |text| {
        (text.lines()).any(|line| line.contains(&address) && line.contains("closed"))
    });
    assert!(top.is_dim(&address));
    top.signal(libc::SIGINT);
    top.ended();
}

pub fn keys() {
    let ((_one, first), (_other, second)) = (listener(), listener());
    let mut top = Top::start(&["--from", "poll", &own()]);
    top.until("both", |text| {
        text.contains(&first) && text.contains(&second)
    });
    top.press(&format!("/{first}"));
    top.until("only one", |text| {
        text.contains(&first) && !text.contains(&second)
    });
    top.press("\r\r");
    let text = top.until("details", |text| text.contains("history of port"));
    let own = format!("({})", std::process::id());
    assert!(text.contains(&own) && text.contains("LISTEN"), "{text}");
    // Esc alone: a key of its own only when nothing comes right after it.
    top.press("x");
    top.until("the table", |text| text.contains("filter: "));
    top.press("\x1b");
    top.until("both again", |text| text.contains(&second));
    top.press(" ");
    top.until("frozen", |text| text.contains("FROZEN"));
    top.press(" ?");
    top.until("help", |text| {
        text.contains("this help") && !text.contains("FROZEN")
    });
    top.press("qq");
    top.ended();
}

pub fn resized() {
    let (_listener, address) = listener();
    let top = Top::start(&["--from", "poll", &own()]);
    top.until("it", |text| text.contains(&address));
    for (rows, columns, shown) in [(8, 40, false), (30, 132, true)] {
        top.resize(rows, columns);
        top.until("the picture of that size", |text| {
            text.contains(&address) && text.contains("CONNECTIONS") == shown
        });
    }
    top.signal(libc::SIGTERM);
    top.ended();
}
