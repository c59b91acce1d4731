//! A sender of webhooks that costs next to nothing: for loads and floods.

use super::hooks::Signed;
use std::ops::Range;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Digits of a delivery's number.
const DIGITS: usize = 10;

/// A sender on one connection. Its delivery is signed once: what makes another delivery of it is its id, in a header that
/// GitHub does not sign, so that the work is to write and to read.
#[derive(Debug)]
pub(crate) struct Sender {
    connection: TcpStream,
    request: Vec<u8>,
    /// Where the id's digits are.
    id: Range<usize>,
    number: usize,
    answer: [u8; 1024],
}

impl Sender {
    /// A sender of `{name}-0000000001` and so on: issues of number `key` with some text in them.
    pub(crate) async fn connect(port: u16, name: &str, key: u64, text: &str, secret: &str) -> Self {
        let connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        connection.set_nodelay(true).unwrap();
        let first = format!("{name}-{:0width$}", 0, width = DIGITS);
        let signed = Signed::issue_with(&first, key, text, secret);
        let mut request = b"POST /webhooks/gh HTTP/1.1\r\nhost: hooks.example.com\r\n".to_vec();
        for (name, value) in &signed.headers {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        request.extend_from_slice(format!("content-length: {}\r\n\r\n", signed.body.len()).as_bytes());
        request.extend_from_slice(&signed.body);
        let at = request.windows(first.len()).position(|window| window == first.as_bytes()).unwrap();
        let id = at + first.len() - DIGITS..at + first.len();
        Self { connection, request, id, number: 0, answer: [0; 1024] }
    }

    /// Sends another delivery and waits for its answer: a head, and a body as long as that says. Tells its status.
    pub(crate) async fn exchange(&mut self) -> u16 {
        self.number += 1;
        let mut rest = self.number;
        for digit in self.request[self.id.clone()].iter_mut().rev() {
            *digit = b'0' + u8::try_from(rest % 10).unwrap();
            rest /= 10;
        }
        self.connection.write_all(&self.request).await.unwrap();
        let mut length = 0;
        loop {
            let read = self.connection.read(&mut self.answer[length..]).await.unwrap();
            assert!(read > 0, "the gateway closed the connection");
            length += read;
            if let Some(status) = whole(&self.answer[..length]) {
                return status;
            }
        }
    }
}

/// The status of an answer, once all of it is there.
fn whole(answer: &[u8]) -> Option<u16> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
    (answer.len() == end + 4 + length).then(|| head["HTTP/1.1 ".len()..][..3].parse().unwrap())
}
