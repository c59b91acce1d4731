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

/// A connection that streams a slot.
pub(crate) struct Reader {
    stream: TcpStream,
    buffer: Vec<u8>,
    end: usize,
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

impl Reader {
    /// Connects, and begins to stream `slot`.
    pub(crate) fn start(port: u16, user: &str, password: &str, slot: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reader = Self { stream, buffer: vec![0; 1 << 20], end: 0 };
        let parameters = [("user", user), ("database", "postgres"), ("replication", "database")];
        reader.send(|out| frontend::startup_message(parameters, out).unwrap());
        reader.authenticate(password);
        let start = format!(
            "START_REPLICATION SLOT \"{slot}\" LOGICAL 0/0 (proto_version '1', publication_names 'bench', messages 'true')"
        );
        reader.send(|out| frontend::query(&start, out).unwrap());
        reader
    }

    /// Waits for more, and hands over the payload of each XLogData that it completes.
    pub(crate) fn gulp(&mut self, mut each: impl FnMut(&[u8])) {
        let read = self.stream.read(&mut self.buffer[self.end..]).unwrap();
        assert!(read > 0, "the server closed the connection");
        self.end += read;
        let mut at = 0;
        while let Ok(Some(header)) = backend::Header::parse(&self.buffer[at..self.end]) {
            let whole = header.len() as usize + 1;
            if at + whole > self.end {
                break;
            }
            let message = &self.buffer[at..at + whole];
            assert_ne!(header.tag(), b'E', "{}", String::from_utf8_lossy(message));
            // 'd', length, 'w', three times 8 bytes.
            if header.tag() == b'd' && message.get(5) == Some(&b'w') {
                each(&message[30..]);
            }
            at += whole;
        }
        self.buffer.copy_within(at..self.end, 0);
        self.end -= at;
    }
}

/// Reads `rows` inserts from the slot; how long that took.
#[allow(clippy::disallowed_methods, reason = "it has a thread of its own")]
pub(crate) fn read(port: u16, user: &str, password: &str, slot: &str, rows: u64) -> Duration {
    let began = Instant::now();
    let mut reader = Reader::start(port, user, password, slot);
    let mut seen = 0;
    while seen < rows {
        thread::sleep(Duration::from_millis(1));
        reader.gulp(|payload| seen += u64::from(payload.first() == Some(&b'I')));
    }
    began.elapsed()
}
