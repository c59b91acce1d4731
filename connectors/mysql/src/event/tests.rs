#![allow(clippy::unwrap_used, clippy::panic)]

use super::{Event, Frame, Header, Problem, Query, compressed::inflate_column, kind};
use proptest::prelude::*;

fn header(kind: u8) -> Header {
    Header { timestamp: 0, kind, server_id: 1, size: 19, log_pos: 0, flags: 0 }
}

#[test]
fn a_type_that_is_not_known_is_refused_unless_the_server_marks_it() {
    let error = Event::decode(&header(172), &[]).unwrap_err();
    assert_eq!(error.problem, Problem::Unknown(172));
    let marked = Header { flags: super::header::IGNORABLE, ..header(172) };
    assert_eq!(Event::decode(&marked, &[]), Ok(Event::Aside(172)));
}

#[test]
fn a_damaged_event_is_found_by_its_checksum() {
    let mut event = vec![0; Header::LEN + 8 + 4];
    event[4] = kind::XID;
    event[9] = 31;
    let mut crc = flate2::Crc::new();
    crc.update(&event[..27]);
    event[27..].copy_from_slice(&crc.sum().to_le_bytes());
    let frame = Frame::decode(&event, true).unwrap();
    assert_eq!(Event::decode(&frame.header, frame.body), Ok(Event::Xid(0)));
    event[20] = 1;
    assert_eq!(Frame::decode(&event, true).unwrap_err().problem, Problem::Checksum);
    assert_eq!(Frame::decode(&event[..30], true).unwrap_err().problem, Problem::Contradiction);
}

#[test]
fn the_clients_character_set_is_found_behind_other_variables() {
    let status = [0, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4, 33, 0, 45, 0, 8, 0];
    let query = Query { thread_id: 1, error: 0, schema: b"", status: &status, text: b"BEGIN"[..].into() };
    assert_eq!(query.charset(), Some(33));
    assert_eq!(Query { status: &status[..18], ..query }.charset(), None);
}

#[test]
fn compressed_columns_say_their_length() {
    assert_eq!(inflate_column(b"\0plain").unwrap(), b"plain");
    assert_eq!(inflate_column(b"").unwrap(), b"");
    for bad in [&b"\x91\x05"[..], b"\x8f", b"\x81\xff\x01\x02"] {
        assert_eq!(inflate_column(bad), None);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_refused(kind: u8, body in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(Event::Payload(payload)) = Event::decode(&header(kind), &body) {
            let mut events = payload.events(1 << 16).unwrap();
            while let Ok(Some(_)) = events.next_event() {}
        }
    }
}
