//! What a command does whose traffic is followed.

/// Opens, connects, accepts and closes one connection, says so on stdout, and exits with 7.
pub const NETWORK: &str = r#"
import socket, sys
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(s.getsockname()); a, _ = s.accept()
print("hello from the command"); sys.exit(7)
"#;
