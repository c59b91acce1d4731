#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use headgate_sdk::Cell;
use proptest::prelude::*;

/// A message's bytes, put together field by field.
struct Bytes(Vec<u8>);

impl Bytes {
    fn tag(tag: u8) -> Self {
        Self(vec![tag])
    }
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn name(mut self, value: &str) -> Self {
        self.0.extend(value.as_bytes());
        self.u8(0)
    }
    fn text(self, value: &str) -> Self {
        let mut bytes = self.u8(b't').u32(u32::try_from(value.len()).unwrap());
        bytes.0.extend(value.as_bytes());
        bytes
    }
}

/// Decodes, and checks that every shorter and every longer payload is refused.
fn check<'a>(bytes: &'a Bytes, images: &mut Images<'a>) -> Message<'a> {
    for end in 0..bytes.0.len() {
        assert!(decode(&bytes.0[..end], &mut Images::default()).is_err(), "cut at {end}");
    }
    let mut longer = bytes.0.clone();
    longer.push(0);
    assert_eq!(decode(&longer, &mut Images::default()).unwrap_err().problem, Problem::Trailing(1));
    decode(&bytes.0, images).unwrap()
}

fn refused(bytes: &Bytes) -> String {
    decode(&bytes.0, &mut Images::default()).unwrap_err().to_string()
}

#[test]
fn transaction_frame() {
    let begin = Bytes::tag(b'B').u64(0x16B_3748).u64(7).u32(731);
    assert_eq!(
        check(&begin, &mut Images::default()),
        Message::Begin(Begin { final_lsn: 0x16B_3748, committed_at: 7, xid: 731 })
    );
    let commit = Bytes::tag(b'C').u8(0).u64(1).u64(2).u64(u64::MAX);
    assert_eq!(
        check(&commit, &mut Images::default()),
        Message::Commit(Commit { commit_lsn: 1, end_lsn: 2, committed_at: -1 })
    );
    let origin = Bytes::tag(b'O').u64(9).name("far");
    assert_eq!(
        check(&origin, &mut Images::default()),
        Message::Origin(Origin { commit_lsn: 9, name: "far" })
    );
    assert_eq!(
        refused(&Bytes::tag(b'C').u8(4).u64(1).u64(2).u64(3)),
        "Commit message, flags: unknown value 0x04"
    );
}

#[test]
fn shape() {
    let relation = Bytes::tag(b'R').u32(16384).name("public").name("orders").u8(b'd').u16(2);
    let relation = relation.u8(1).name("id").u32(20).u32(u32::MAX).u8(0).name("été").u32(25).u32(24);
    assert_eq!(
        check(&relation, &mut Images::default()),
        Message::Relation(Relation {
            oid: 16384,
            schema: "public",
            table: "orders",
            identity: ReplicaIdentity::Default,
            columns: vec![
                Column { identity: true, name: "id", type_oid: 20, modifier: -1 },
                Column { identity: false, name: "été", type_oid: 25, modifier: 24 },
            ],
        })
    );
    let kind = Bytes::tag(b'Y').u32(16390).name("").name("numeric");
    assert_eq!(
        check(&kind, &mut Images::default()),
        Message::Type(Type { oid: 16390, schema: "", name: "numeric" })
    );
    let head = || Bytes::tag(b'R').u32(1).name("s").name("t");
    assert_eq!(refused(&head().u8(b'x').u16(0)), "Relation message, replica identity: unknown value 0x78");
    assert_eq!(
        refused(&head().u8(b'f').u16(1665)),
        "Relation message, number of columns: 1665 is more than the server can have"
    );
    assert_eq!(
        refused(&head().u8(b'f').u16(1).u8(2).name("c").u32(1).u32(1)),
        "Relation message, column flags: unknown value 0x02"
    );
}

#[test]
fn rows() {
    let mut images = Images::default();
    let insert = Bytes::tag(b'I').u32(5).u8(b'N').u16(3).text("42").u8(b'n').text("");
    assert_eq!(check(&insert, &mut images), Message::Insert(Insert { relation: 5 }));
    assert_eq!(images.new, [Cell::Value(b"42"), Cell::Null, Cell::Value(b"")]);

    let update = Bytes::tag(b'U').u32(5).u8(b'N').u16(2).text("42").u8(b'u');
    assert_eq!(check(&update, &mut images), Message::Update(Update { relation: 5, old: None }));
    assert_eq!(images.new, [Cell::Value(b"42"), Cell::Unavailable]);

    for (kind, old) in [(b'K', OldImage::Key), (b'O', OldImage::Full)] {
        let mut images = Images::default();
        let update = Bytes::tag(b'U').u32(5).u8(kind).u16(1).text("1").u8(b'N').u16(1).text("2");
        assert_eq!(check(&update, &mut images), Message::Update(Update { relation: 5, old: Some(old) }));
        assert_eq!((images.old, images.new), (vec![Cell::Value(b"1")], vec![Cell::Value(b"2")]));

        let mut images = Images::default();
        let delete = Bytes::tag(b'D').u32(5).u8(kind).u16(1).text("1");
        assert_eq!(check(&delete, &mut images), Message::Delete(Delete { relation: 5, old }));
        assert_eq!(images.old, [Cell::Value(b"1")]);
    }
}

#[test]
fn hostile_rows_are_refused() {
    let head = || Bytes::tag(b'I').u32(5).u8(b'N');
    assert_eq!(
        refused(&head().u16(1).u8(b'b').u32(0)),
        "Insert message, kind of value: binary format, which was not asked for"
    );
    assert_eq!(refused(&head().u16(1).u8(b'z')), "Insert message, kind of value: unknown value 0x7a");
    assert_eq!(
        refused(&head().u16(u16::MAX)),
        "Insert message, number of columns: 65535 is more than the server can have"
    );
    assert_eq!(
        refused(&head().u16(1).u8(b't').u32(u32::MAX)),
        "Insert message, value: the payload ends too early"
    );
    assert_eq!(
        refused(&Bytes::tag(b'I').u32(5).u8(b'K').u16(0)),
        "Insert message, kind of tuple: unknown value 0x4b"
    );
    assert_eq!(
        refused(&Bytes::tag(b'D').u32(5).u8(b'N').u16(0)),
        "Delete message, kind of tuple: unknown value 0x4e"
    );
    assert_eq!(
        refused(&Bytes::tag(b'U').u32(5).u8(b'K').u16(0).u8(b'K').u16(0)),
        "Update message, kind of tuple: unknown value 0x4b"
    );
    assert_eq!(refused(&Bytes::tag(b'S').u32(5)), "unknown message, tag: unknown value 0x53");
}

#[test]
fn truncate_and_messages() {
    let truncate = Bytes::tag(b'T').u32(2).u8(3).u32(10).u32(11);
    assert_eq!(
        check(&truncate, &mut Images::default()),
        Message::Truncate(Truncate { relations: vec![10, 11], cascade: true, restart_identity: true })
    );
    assert_eq!(
        refused(&Bytes::tag(b'T').u32(1).u8(4).u32(1)),
        "Truncate message, options: unknown value 0x04"
    );
    assert_eq!(
        refused(&Bytes::tag(b'T').u32(u32::MAX).u8(0).u32(1)),
        "Truncate message, relations: the payload ends too early"
    );

    let message = Bytes::tag(b'M').u8(1).u64(9).name("audit").u32(2).u8(0xff).u8(0);
    assert_eq!(
        check(&message, &mut Images::default()),
        Message::Logical(Logical { transactional: true, end_lsn: 9, prefix: "audit", content: &[0xff, 0] })
    );
    assert_eq!(
        refused(&Bytes::tag(b'M').u8(2).u64(9).name("x").u32(0)),
        "Message message, flags: unknown value 0x02"
    );
    let mut bytes = Bytes::tag(b'Y').u32(1).u8(0xff);
    bytes = bytes.u8(0).name("x");
    assert!(refused(&bytes).starts_with("Type message, schema: not UTF-8"));
}

#[test]
fn images_keep_their_memory() {
    let images = Images { old: Vec::new(), new: Vec::with_capacity(64) };
    let memory = images.new.as_ptr().addr();
    let images = images.recycle();
    assert_eq!((images.new.as_ptr().addr(), images.new.capacity()), (memory, 64));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(tag in prop::sample::select(&b"BCORYIUDTMxS"[..]), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut payload = vec![tag];
        payload.extend(body);
        let _ = decode(&payload, &mut Images::default());
    }

    #[test]
    fn no_row_like_bytes_make_it_panic(tag in prop::sample::select(&b"IUD"[..]), body in prop::collection::vec(prop::sample::select(&b"\0\0\0\x01\x02\x03tnuNKOb"[..]), 0..64)) {
        let mut payload = vec![tag, 0, 0, 0, 1];
        payload.extend(body);
        let _ = decode(&payload, &mut Images::default());
    }
}
