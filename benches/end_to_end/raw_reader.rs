//! The ceiling: reads a slot in gulps and throws everything away but the count of rows.
//!
//! It gathers for a millisecond between reads, so that the walsender is not woken for each small message; it decodes
//! nothing, keeps nothing and publishes nothing.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    message::{backend, frontend},
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Reader {
    fn send(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.stream.write_all(&out).unwrap();
    }

    /// Reads one message: its tag and body.
    fn message(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    fn authenticate(&mut self, password: &str) {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        loop {
            let (tag, body) = self.message();
            match (tag, body.get(..4)) {
                (b'R', Some([0, 0, 0, 10])) => {
                    let data = scram.message().to_vec();
                    self.send(|out| frontend::sasl_initial_response(SCRAM_SHA_256, &data, out).unwrap());
                }
                (b'R', Some([0, 0, 0, 11])) => {
                    scram.update(&body[4..]).unwrap();
                    let data = scram.message().to_vec();
                    self.send(|out| frontend::sasl_response(&data, out).unwrap());
                }
                (b'R', Some([0, 0, 0, 12])) => scram.finish(&body[4..]).unwrap(),
                (b'E', _) => panic!("refused: {}", String::from_utf8_lossy(&body)),
                (b'Z', _) => return,
                _ => {}
            }
        }
    }
}

/// Reads `rows` inserts from the slot; how long that took.
#[allow(clippy::disallowed_methods, reason = "it has a thread of its own")]
pub(crate) fn read(port: u16, user: &str, password: &str, slot: &str, rows: u64) -> Duration {
    let began = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut reader = Reader { stream, buffer: vec![0; 1 << 20] };
    let parameters = [("user", user), ("database", "postgres"), ("replication", "database")];
    reader.send(|out| frontend::startup_message(parameters, out).unwrap());
    reader.authenticate(password);
    let start = format!(
        "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'bench', messages 'true')"
    );
    reader.send(|out| frontend::query(&start, out).unwrap());
    let (mut end, mut seen) = (0, 0);
    while seen < rows {
        thread::sleep(Duration::from_millis(1));
        let read = reader.stream.read(&mut reader.buffer[end..]).unwrap();
        assert!(read > 0, "the server closed the connection after {seen} rows");
        end += read;
        let mut at = 0;
        while let Ok(Some(header)) = backend::Header::parse(&reader.buffer[at..end]) {
            let whole = header.len() as usize + 1;
            if at + whole > end {
                break;
            }
            assert_ne!(header.tag(), b'E', "{}", String::from_utf8_lossy(&reader.buffer[at..at + whole]));
            // XLogData that begins with an Insert: 'd', length, 'w', three times 8 bytes, 'I'.
            if header.tag() == b'd'
                && reader.buffer.get(at + 5) == Some(&b'w')
                && reader.buffer.get(at + 30) == Some(&b'I')
            {
                seen += 1;
            }
            at += whole;
        }
        reader.buffer.copy_within(at..end, 0);
        end -= at;
    }
    began.elapsed()
}
