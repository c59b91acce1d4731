//! What each sample's events are called. The expected names stand in `names.txt`, one event a line, each of them read against the
//! adapters of the CloudEvents specification where there is one. A change of a name breaks whoever subscribes to it.

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
    let wrong: Vec<_> = actual
        .iter()
        .filter(|(name, line)| expected.get(*name) != Some(*line))
        .map(|(name, line)| format!("{name} = {line}"))
        .collect();
    assert!(wrong.is_empty(), "not as names.txt says:\n{}", wrong.join("\n"));
    assert_eq!(expected.len(), actual.len(), "names.txt has samples that are not there");
}
