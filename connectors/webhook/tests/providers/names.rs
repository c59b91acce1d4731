//! What each sample's events are called. The expected names stand in `names.txt`, one event a line, written by hand from the
//! adapters of the CloudEvents specification where there is one.

use crate::vectors;
use std::collections::BTreeMap;

#[test]
fn every_sample_gets_its_events_and_their_names() {
    let mut actual = BTreeMap::new();
    for vector in vectors::all() {
        for (index, delivery) in vector.deliveries().iter().enumerate() {
            let time = delivery.time.map_or("-".to_owned(), |time| time.to_string());
            let line = [
                delivery.event_type.clone(),
                delivery.entity.clone(),
                delivery.verb.clone(),
                delivery.subject.clone().unwrap_or("-".to_owned()),
                delivery.source.clone().unwrap_or("-".to_owned()),
                delivery.id.clone(),
                time,
                delivery.sequence.clone().unwrap_or("-".to_owned()),
            ];
            actual.insert(format!("{} {}#{index}", vector.provider, vector.sample), line.join(" "));
        }
    }
    let expected: BTreeMap<_, _> = include_str!("names.txt")
        .lines()
        .filter(|line| !line.starts_with("//") && !line.is_empty())
        .map(|line| line.split_once(" = ").map(|(name, line)| (name.to_owned(), line.to_owned())).unwrap())
        .collect();
    for (name, line) in &actual {
        assert_eq!(Some(line), expected.get(name), "{name}");
    }
    assert_eq!(expected.len(), actual.len());
}
