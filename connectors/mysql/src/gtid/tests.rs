#![allow(clippy::unwrap_used, clippy::panic)]

use super::{
    mariadb::{self, GtidList},
    mysql::{Gtid, GtidSet, MAX_NUMBER, Source, Tag, Uuid},
};
use crate::event::{Event, Header, kind};
use proptest::prelude::*;
use std::collections::BTreeSet;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

fn set(text: &str) -> GtidSet {
    text.parse().unwrap()
}

#[test]
fn the_servers_form_is_read_and_printed() {
    for (text, printed) in [
        ("", String::new()),
        (&format!("{A}:1-5"), format!("{A}:1-5")),
        (&format!("{A}:5:1-4:7"), format!("{A}:1-5:7")),
        (&format!("{B}:1,\n{A}:3"), format!("{A}:3,\n{B}:1")),
        (&format!("{A}:1-200063:mytag:1"), format!("{A}:1-200063:mytag:1")),
        (&format!("{A}:MyTag:3 : 4 ,{A}:9:a_1:1"), format!("{A}:9:a_1:1:mytag:3-4")),
        (&A.to_uppercase().replace('-', ""), String::new()),
        (&format!("{A}:7-3"), String::new()),
        (&format!("{A}:{MAX_NUMBER}"), format!("{A}:{MAX_NUMBER}")),
    ] {
        assert_eq!(set(text).to_string(), printed, "{text}");
    }
}

#[test]
fn what_no_server_prints_is_refused() {
    for text in [
        "x",
        "1-5",
        &format!("{A}:0"),
        &format!("{A}:-1"),
        &format!("{A}:1a"),
        &format!("{A}:1:"),
        &format!("{A}:{}", MAX_NUMBER + 1),
        &format!("{A}:9tag:1"),
        &format!("{A}:{}:1", "t".repeat(33)),
        &A[1..],
    ] {
        assert!(text.parse::<GtidSet>().is_err(), "{text}");
    }
    for text in ["0-1", "0-1-2-3", "a-1-2", "0-1-", "4294967296-1-1", "+1-1-1", "-1-1-1"] {
        assert!(text.parse::<mariadb::Gtid>().is_err(), "{text}");
    }
}

#[test]
fn a_gtid_is_one_transaction() {
    let gtid: Gtid = format!("{A}:tag:7").parse().unwrap();
    assert_eq!(gtid.to_string(), format!("{A}:tag:7"));
    assert!(format!("{A}:1-2").parse::<Gtid>().is_err());
}

#[test]
fn a_domain_remembers_each_server() {
    let mut list: GtidList = "0-10-7,5-1-2".parse().unwrap();
    list.advance("0-20-3".parse().unwrap());
    assert_eq!(list.to_string(), "0-20-3,5-1-2");
    assert!(list.contains(&"0-10-7".parse().unwrap()));
    assert!(!list.contains(&"0-10-8".parse().unwrap()));
    assert!(!list.contains(&"0-20-4".parse().unwrap()));
    list.advance("0-10-4".parse().unwrap());
    assert_eq!(list.latest_of(0), Some("0-10-4".parse().unwrap()));
}

/// A few sources with small numbers, so that intervals touch, overlap and split.
fn numbers() -> impl Strategy<Value = Vec<(bool, u64, u64)>> {
    proptest::collection::vec((any::<bool>(), 1..60_u64, 0..8_u64), 0..12)
}

fn source(tagged: bool) -> Source {
    let tag = if tagged { Tag::from_bytes(b"t").unwrap() } else { Tag::default() };
    Source { uuid: Uuid::new([7; 16]), tag }
}

fn build(numbers: &[(bool, u64, u64)]) -> (GtidSet, BTreeSet<(bool, u64)>) {
    let (mut set, mut model) = (GtidSet::default(), BTreeSet::new());
    for &(tagged, first, more) in numbers {
        set.add_range(&source(tagged), first, first + more);
        model.extend((first..=first + more).map(|number| (tagged, number)));
    }
    (set, model)
}

proptest! {
    #[test]
    fn sets_are_as_sets_of_numbers(left in numbers(), right in numbers()) {
        let ((mut left, left_model), (right, right_model)) = (build(&left), build(&right));
        let minus = left.subtract(&right);
        prop_assert_eq!(left.includes(&right), left_model.is_superset(&right_model));
        for tagged in [false, true] {
            for number in 1..70 {
                let gtid = Gtid { source: source(tagged), number };
                let (in_left, in_right) = (left_model.contains(&(tagged, number)), right_model.contains(&(tagged, number)));
                prop_assert_eq!(left.contains(&gtid), in_left);
                prop_assert_eq!(minus.contains(&gtid), in_left && !in_right);
            }
        }
        prop_assert_eq!(&set(&left.to_string()), &left);
        let header = Header { timestamp: 0, kind: kind::PREVIOUS_GTIDS, server_id: 1, size: 19, log_pos: 0, flags: 0 };
        let encoded = left.encode();
        prop_assert_eq!(Event::decode(&header, &encoded), Ok(Event::PreviousGtids(left.clone())));
        let mut back = minus;
        back.merge(&right);
        left.merge(&right);
        prop_assert_eq!(back, left);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9a-f:,\\- _]{0,80}") {
        let _ = text.parse::<GtidSet>();
        let _ = text.parse::<GtidList>();
    }
}
