//! Whether the log that a server shows goes on where the stream ends. Pure.
//!
//! A place in a log means nothing on another server, or after `RESET`; a GTID means the same everywhere. So the checkpoint
//! holds both: the place, and the transactions before it. Where the log is still the same, events keep the positions that
//! they had, and the stream's end says what it holds. Where another server took over, a new epoch begins, and what the
//! stream holds is known by its transactions' names. Where neither proves anything there is a gap, and it is said to be one.

use crate::{executed::Executed, place::Place};
use headgate_sdk::{Position, Progress, Resume};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What positions are positions *in*, and the transactions before a place; [`Origin::identity`](headgate_sdk::Origin::identity)
/// is its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The server: MySQL's UUID; for MariaDB, which has none, its id, host, port and data folder.
    pub(crate) server: String,
    /// What its log files' names begin with.
    pub(crate) log: String,
    /// The place that the rest is about: everything before it is in the stream, or needed no event.
    pub(crate) place: u64,
    /// When the file at `place` was begun, in seconds since 1970-01-01 UTC; 0 where it is not known.
    #[serde(default)]
    pub(crate) born: u32,
    /// A time, in microseconds since 1970-01-01 UTC, before which the file at `place` was not ended; 0 where none is known.
    #[serde(default)]
    pub(crate) confirmed_at: i64,
    /// The transactions before `place`; `None` where the server gives them no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) executed: Option<String>,
    /// Distributed transactions that are prepared before `place` and not ended: where each begins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) prepared: BTreeMap<String, Prepared>,
    /// A transaction that the stream holds a part of, under an earlier epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partial: Option<Partial>,
    /// The event of an earlier epoch up to which `executed` counts on the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) relies_on: Option<String>,
}

/// A prepared transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Prepared {
    /// Where it begins in the log.
    pub(crate) place: u64,
    /// Its name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gtid: Option<String>,
}

/// A transaction of which the stream holds the first events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Partial {
    /// Its name.
    pub(crate) transaction: String,
    /// How many.
    pub(crate) events: u32,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Strings and numbers always serialize.
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}

impl Identity {
    /// The identity that a checkpoint holds for the newest epoch, if it holds one.
    pub(crate) fn of(resume: &Resume) -> Option<Self> {
        let checkpoint = resume.checkpoint.as_ref()?;
        let newest = resume.last.is_none_or(|last| last.position.epoch <= checkpoint.epoch);
        if newest { serde_json::from_str(&checkpoint.identity).ok() } else { None }
    }
}

/// What the server shows.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// See [`Identity::server`].
    pub(crate) server: String,
    /// See [`Identity::log`].
    pub(crate) log: String,
    /// Numbers and sizes of its log files, oldest first.
    pub(crate) files: Vec<(u64, u64)>,
    /// Where its log ends.
    pub(crate) end: Place,
    /// The transactions in its log or before it; `None` where it gives them no names.
    pub(crate) executed: Option<Executed>,
    /// The transactions before its log; `None` where it does not say.
    pub(crate) purged: Option<Executed>,
    /// Whether it replays another server's log, and so may yet get what it lacks.
    pub(crate) replica: bool,
}

impl Facts {
    /// The beginning of the oldest file.
    fn oldest(&self) -> Place {
        self.files.first().and_then(|(file, _)| Place::new(*file, 4)).unwrap_or(self.end)
    }

    /// Where to begin to get everything that the server still has: what is certain not to have been told is told.
    fn all(&self) -> Start {
        match &self.purged {
            Some(purged) => Start::After(purged.clone()),
            None => Start::At(self.oldest()),
        }
    }

    fn holds(&self, place: Place) -> bool {
        self.files.iter().any(|(file, size)| *file == place.file() && place.offset() <= *size)
    }
}

/// From where the server is asked for its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// After these transactions.
    After(Executed),
    /// From a place.
    At(Place),
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A new source: from where the log ends now.
    Begin { start: Start },
    /// The log goes on where the stream ends.
    Continue { epoch: u16, start: Start },
    /// Another server, of the same history perhaps: what is done has to be completed by what the stream holds, and judged
    /// again ([`judge_failover`]).
    Failover { done: Executed },
    /// Changes may be missing: a new epoch.
    Gap { epoch: u16, from: Option<Progress>, start: Start, reason: String },
    /// Not yet: this server has not got as far as the stream.
    Behind { missing: String },
}

/// Whether `known` may be relied on: the stream and the checkpoint prove all that it counts as done.
fn doubt(resume: &Resume, known: &Identity, proven: Progress) -> Option<String> {
    let epoch = resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
    let told = resume.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.progress.log > 0)
        || resume.last.is_some_and(|last| last.position.epoch == epoch);
    if told && proven.epoch == epoch && proven.log < known.place {
        return Some(format!(
            "the stream ends at {}, before {}, up to which the log was released: it lost what was confirmed",
            Place(proven.log),
            Place(known.place)
        ));
    }
    let relied: Position = known.relies_on.as_ref()?.parse().ok()?;
    let last = resume.last.map(|last| last.position);
    // With events of the newer epoch behind them, those before may have aged out.
    (!told && last.is_none_or(|last| last < relied)).then(|| {
        format!("the stream ends before event {relied}, which it held when another server took over")
    })
}

/// Compares what is proven with what the server shows. `lost`: why the server refused to go on where we asked it to.
/// `foreign`: the log turned out to be another one than its names said.
pub(crate) fn judge(resume: &Resume, facts: &Facts, lost: Option<&str>, foreign: bool) -> Verdict {
    let now = || match &facts.executed {
        Some(executed) => Start::After(executed.clone()),
        None => Start::At(facts.end),
    };
    let Some(proven) = resume.proven() else { return Verdict::Begin { start: now() } };
    let known = Identity::of(resume);
    let epoch = proven.epoch.max(resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch));
    let gap = |reason: String, start: Start| Verdict::Gap {
        epoch: epoch.saturating_add(1),
        from: Some(proven),
        start,
        reason,
    };
    let Some(known) = known else {
        return gap(
            "the checkpoint that says where to go on is missing or unreadable".to_owned(),
            facts.all(),
        );
    };
    if let Some(reason) = doubt(resume, &known, proven) {
        return gap(reason, facts.all());
    }
    if let Some(reason) = lost {
        return gap(reason.to_owned(), facts.all());
    }
    let place = Place(known.place.max(if proven.epoch == epoch { proven.log } else { 0 }));
    let same = !foreign && known.server == facts.server && known.log == facts.log;
    let done = known.executed.as_deref().and_then(|text| match &facts.executed {
        Some(Executed::MySql(_)) => Executed::parse(crate::event::Flavor::MySql, text).ok(),
        Some(Executed::MariaDb(_)) => Executed::parse(crate::event::Flavor::MariaDb, text).ok(),
        None => None,
    });
    let (Some(done), Some(executed)) = (done, &facts.executed) else {
        if !same {
            return gap(
                format!(
                    "the server is another one: {} instead of {}, and its transactions have no names (GTIDs) to go on by",
                    facts.server, known.server
                ),
                facts.all(),
            );
        }
        let start = Place(known.place);
        if facts.holds(start) && (facts.holds(place) || place.offset() <= 4) {
            return Verdict::Continue { epoch, start: Start::At(start) };
        }
        return gap(
            format!("the server's log does not have {place} any more: purged, or reset"),
            facts.all(),
        );
    };
    if same {
        return compare(&done, executed, facts, epoch, &gap);
    }
    // Its names are no proof either: a server that was reset, or restored from a copy of itself, gives them again. Only of what
    // is before its log is it certain that it is the same.
    let begun_anew = foreign && known.server == facts.server && known.log == facts.log;
    if begun_anew && !facts.purged.as_ref().is_some_and(|purged| purged.includes(&done)) {
        return gap(
            "the server's log was begun anew since it was read: it was reset, or restored from a copy"
                .to_owned(),
            facts.all(),
        );
    }
    Verdict::Failover { done }
}

/// Compares what is done with what another server of the same history has; to be asked when `done` has all that the stream
/// holds.
pub(crate) fn judge_failover(resume: &Resume, facts: &Facts, done: &Executed) -> Verdict {
    let proven = resume.proven();
    let epoch = proven
        .map_or(0, |proven| proven.epoch)
        .max(resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch))
        .saturating_add(1);
    let gap = |reason: String, start: Start| Verdict::Gap { epoch, from: proven, start, reason };
    match &facts.executed {
        Some(executed) => compare(done, executed, facts, epoch, &gap),
        None => gap("the server's transactions have no names (GTIDs) to go on by".to_owned(), facts.all()),
    }
}

/// Whether a log has all that comes after `done`, and nothing before it is missing from the log's own history.
fn compare(
    done: &Executed,
    executed: &Executed,
    facts: &Facts,
    epoch: u16,
    gap: &dyn Fn(String, Start) -> Verdict,
) -> Verdict {
    let complete = executed.includes(done);
    if let Some(purged) = &facts.purged
        && !done.includes(purged)
    {
        let reason =
            format!("the server has purged transactions that were not read: {}", purged.missing_in(done));
        let mut start = done.clone();
        start.merge(purged);
        return gap(reason, if complete { Start::After(start) } else { facts.all() });
    }
    if complete {
        return Verdict::Continue { epoch, start: Start::After(done.clone()) };
    }
    let missing = done.missing_in(executed);
    if facts.replica {
        return Verdict::Behind { missing };
    }
    gap(
        format!(
            "the server lacks transactions that were read ({missing}): it was reset, restored, or took over too early"
        ),
        facts.all(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::event::Flavor;
    use headgate_sdk::{Checkpoint, LastEvent};

    const A: &str = "11111111-1111-1111-1111-111111111111";

    fn set(ranges: &str) -> Executed {
        let text = if ranges.is_empty() { String::new() } else { format!("{A}:{ranges}") };
        Executed::parse(Flavor::MySql, &text).unwrap()
    }

    fn at(file: u64, offset: u64) -> Place {
        Place::new(file, offset).unwrap()
    }

    fn facts(server: &str, executed: &str, purged: &str) -> Facts {
        Facts {
            server: server.to_owned(),
            log: "binlog".to_owned(),
            files: vec![(3, 1000), (4, 500)],
            end: at(4, 500),
            executed: Some(set(executed)),
            purged: Some(set(purged)),
            replica: false,
        }
    }

    fn resume(executed: Option<&str>, place: Place, proven: Place) -> Resume {
        let identity = Identity {
            server: "a".to_owned(),
            log: "binlog".to_owned(),
            place: place.0,
            executed: executed.map(|ranges| set(ranges).to_string()),
            ..Identity::default()
        };
        Resume {
            last: None,
            checkpoint: Some(Checkpoint {
                epoch: 2,
                identity: identity.to_string(),
                progress: Progress { epoch: 2, log: proven.0 },
            }),
        }
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Gap { epoch: 3, reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn goes_on_by_name_where_it_can() {
        let old = resume(Some("1-10"), at(3, 200), at(3, 400));
        assert_eq!(
            judge(&old, &facts("a", "1-20", "1-5"), None, false),
            Verdict::Continue { epoch: 2, start: Start::After(set("1-10")) }
        );
        assert_eq!(
            judge(&old, &facts("b", "1-20", "1-10"), None, false),
            Verdict::Failover { done: set("1-10") }
        );
        assert_eq!(
            judge(&old, &facts("a", "1-20", "1-10"), None, true),
            Verdict::Failover { done: set("1-10") }
        );
        let go_on = Verdict::Continue { epoch: 3, start: Start::After(set("1-12")) };
        assert_eq!(judge_failover(&old, &facts("b", "1-20", "1-12"), &set("1-12")), go_on);
        assert_eq!(
            judge(&Resume::default(), &facts("a", "1-20", ""), None, false),
            Verdict::Begin { start: Start::After(set("1-20")) }
        );
    }

    #[test]
    fn goes_on_by_place_where_there_are_no_names() {
        let old = resume(None, at(3, 200), at(3, 400));
        let nameless = |server| Facts { executed: None, purged: None, ..facts(server, "1", "") };
        let go_on = Verdict::Continue { epoch: 2, start: Start::At(at(3, 200)) };
        assert_eq!(judge(&old, &nameless("a"), None, false), go_on);
        assert!(reason(judge(&old, &nameless("b"), None, false)).contains("another"));
        let purged = Facts { files: vec![(4, 500)], ..nameless("a") };
        assert!(reason(judge(&old, &purged, None, false)).contains("purged"));
        let reset = Facts { files: vec![(3, 150)], ..nameless("a") };
        assert!(reason(judge(&old, &reset, None, false)).contains("reset"));
    }

    #[test]
    fn says_what_is_missing() {
        let old = resume(Some("1-10"), at(3, 200), at(3, 400));
        let purged = judge(&old, &facts("a", "1-20", "1-15"), None, false);
        assert!(matches!(&purged, Verdict::Gap { start: Start::After(start), .. } if *start == set("1-15")));
        assert!(reason(purged).contains("11-15"));
        assert!(reason(judge(&old, &facts("a", "1-4", ""), None, false)).contains("lacks"));
        assert!(reason(judge(&old, &facts("a", "1-20", ""), Some("refused"), false)).contains("refused"));
        let replica = Facts { replica: true, ..facts("b", "1-8", "") };
        assert!(matches!(judge_failover(&old, &replica, &set("1-10")), Verdict::Behind { .. }));
        assert!(reason(judge(&old, &facts("a", "1-20", "1-5"), None, true)).contains("begun anew"));
        let shrunk = resume(Some("1-10"), at(3, 200), at(3, 100));
        assert!(reason(judge(&shrunk, &facts("a", "1-20", ""), None, false)).contains("lost"));
    }

    #[test]
    fn after_a_failover_the_stream_has_to_hold_what_it_held() {
        let held = Position { epoch: 1, commit: 77, index: 3 };
        let mut old = resume(Some("1-10"), at(3, 200), Place(0));
        let checkpoint = old.checkpoint.as_mut().unwrap();
        let mut identity: Identity = serde_json::from_str(&checkpoint.identity).unwrap();
        identity.relies_on = Some(held.to_string());
        checkpoint.identity = identity.to_string();
        assert!(reason(judge(&old, &facts("a", "1-20", ""), None, false)).contains("took over"));
        old.last = Some(LastEvent { position: held, transaction_end: None, committed_at: None });
        assert!(matches!(
            judge(&old, &facts("a", "1-20", ""), None, false),
            Verdict::Continue { epoch: 2, .. }
        ));
    }
}
