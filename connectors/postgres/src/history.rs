//! Whether the log that a slot reads goes on where the stream ends. Pure.
//!
//! A position means nothing without the history it counts in: after a failover, a restore or a slot made anew, the same
//! number names other bytes. This is where a hole is found, and said to be one; nothing is ever skipped in silence.

use crate::{
    lsn::Lsn,
    replication::{Switch, System},
};
use headgate_sdk::{Progress, Resume};
use std::fmt;

/// What positions are positions *in*; [`Origin::identity`](headgate_sdk::Origin::identity) is its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) system: String,
    pub(crate) timeline: u32,
    pub(crate) slot: String,
    /// Where the slot began to read in this epoch: nothing before it belongs to the epoch.
    pub(crate) created: Lsn,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "system={};timeline={};slot={};created={}",
            self.system, self.timeline, self.slot, self.created
        )
    }
}

impl Identity {
    /// Reads the text back.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';');
        let mut part = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        Some(Self {
            system: part("system")?.to_owned(),
            timeline: part("timeline")?.parse().ok()?,
            slot: part("slot")?.to_owned(),
            created: part("created")?.parse().ok()?,
        })
    }

    /// The identity that a checkpoint holds for the newest epoch, if it holds one.
    pub(crate) fn of(resume: &Resume) -> Option<Self> {
        let checkpoint = resume.checkpoint.as_ref()?;
        let newest = resume.last.is_none_or(|last| last.position.epoch <= checkpoint.epoch);
        if newest { Self::parse(&checkpoint.identity) } else { None }
    }
}

/// What the server shows.
pub(crate) struct Facts<'a> {
    pub(crate) system: &'a System,
    /// Where the timelines before the server's own ended.
    pub(crate) switches: &'a [Switch],
    /// What the slot has confirmed, if there is a slot.
    pub(crate) confirmed: Option<Lsn>,
    /// Why the slot can never be read (whole) again.
    pub(crate) unusable: Option<&'a str>,
    pub(crate) standby: bool,
}

/// What has to be done to the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotAction {
    /// Read it as it is.
    Keep,
    /// There is none: make it.
    Create,
    /// Drop it and make it anew.
    Recreate,
}

/// How to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The log goes on where the stream ends (or both begin).
    Continue { epoch: u16, slot: SlotAction },
    /// Changes may be missing: a new epoch, which begins at `start` or where the slot stands, if that is later.
    Gap { epoch: u16, from: Option<Progress>, start: Lsn, reason: String, slot: SlotAction },
    /// Not yet: this server has not got as far as the stream.
    Behind { proven: Lsn },
}

/// Compares what is proven with what the server shows.
pub(crate) fn judge(resume: &Resume, facts: &Facts<'_>) -> Verdict {
    let action = match (facts.confirmed, facts.unusable) {
        (_, Some(_)) => SlotAction::Recreate,
        (Some(_), None) => SlotAction::Keep,
        (None, None) => SlotAction::Create,
    };
    let from = resume.proven();
    let known = Identity::of(resume);
    let epoch = from
        .map_or(0, |proven| proven.epoch)
        .max(resume.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch));
    let gap = |reason: String, start: Lsn| Verdict::Gap {
        epoch: epoch.saturating_add(1),
        from,
        start,
        reason,
        slot: action,
    };

    if let Some(reason) = facts.unusable {
        return gap(format!("the slot cannot be read any more: {reason}"), Lsn::default());
    }
    let Some(from) = from else { return Verdict::Continue { epoch: 1, slot: action } };
    // What is proven of the newest epoch. Nothing of an epoch lies before its slot's beginning.
    let proven = if from.epoch == epoch { from.log } else { 0 };
    let proven = Lsn(proven.max(known.as_ref().map_or(0, |identity| identity.created.0)));

    if let Some(known) = &known {
        if known.system != facts.system.id {
            return gap(
                format!(
                    "the server is another one: database system {} instead of {}",
                    facts.system.id, known.system
                ),
                Lsn::default(),
            );
        }
        if facts.system.timeline < known.timeline {
            return gap(
                format!("the server went back from timeline {} to {}", known.timeline, facts.system.timeline),
                Lsn::default(),
            );
        }
        if facts.system.timeline > known.timeline {
            let switch = facts.switches.iter().find(|switch| switch.timeline == known.timeline);
            match switch {
                None => {
                    return gap(
                        format!(
                            "timeline {} does not descend from timeline {}",
                            facts.system.timeline, known.timeline
                        ),
                        Lsn::default(),
                    );
                }
                Some(switch) if proven > switch.at => {
                    return gap(
                        format!(
                            "the server was promoted to timeline {} at {}, before {proven}, up to which its predecessor had been read",
                            facts.system.timeline, switch.at
                        ),
                        switch.at,
                    );
                }
                Some(_) => {}
            }
        }
    }
    if proven > facts.system.log {
        if facts.standby {
            return Verdict::Behind { proven };
        }
        return gap(
            format!(
                "the server's log ends at {}, before {proven}, which was read already: it was restored or rewound",
                facts.system.log
            ),
            Lsn::default(),
        );
    }
    match facts.confirmed {
        None => gap("the slot is missing".to_owned(), Lsn::default()),
        Some(confirmed) if confirmed > proven => gap(
            format!(
                "the slot stands at {confirmed}, but changes are known only up to {proven}: it was advanced or made anew"
            ),
            Lsn::default(),
        ),
        Some(_) => Verdict::Continue { epoch, slot: SlotAction::Keep },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use headgate_sdk::{Checkpoint, LastEvent, Position};

    fn system(id: &str, timeline: u32, log: u64) -> System {
        System { id: id.to_owned(), timeline, log: Lsn(log) }
    }

    fn resume(epoch: u16, log: u64) -> Resume {
        let identity =
            Identity { system: "7".to_owned(), timeline: 1, slot: "s".to_owned(), created: Lsn(100) };
        Resume {
            last: None,
            checkpoint: Some(Checkpoint {
                epoch,
                identity: identity.to_string(),
                progress: Progress { epoch, log },
            }),
        }
    }

    fn judged(resume: &Resume, system: &System, confirmed: Option<u64>) -> Verdict {
        let switches = [Switch { timeline: 1, at: Lsn(1000) }];
        judge(
            resume,
            &Facts {
                system,
                switches: &switches,
                confirmed: confirmed.map(Lsn),
                unusable: None,
                standby: false,
            },
        )
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Gap { epoch: 4, reason, .. } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn identity_reads_back() {
        let identity = Identity {
            system: "7".to_owned(),
            timeline: 3,
            slot: "a_b".to_owned(),
            created: Lsn(0x1_0000_0001),
        };
        assert_eq!(Identity::parse(&identity.to_string()), Some(identity));
        assert_eq!(Identity::parse("system=7;timeline=x;slot=a;created=0/0"), None);
        assert_eq!(Identity::parse(""), None);
    }

    #[test]
    fn goes_on_where_nothing_is_missing() {
        let go_on = Verdict::Continue { epoch: 3, slot: SlotAction::Keep };
        assert_eq!(judged(&resume(3, 500), &system("7", 1, 600), Some(500)), go_on);
        assert_eq!(
            judged(&resume(3, 500), &system("7", 1, 600), Some(200)),
            go_on,
            "a slot fallen back after a crash"
        );
        assert_eq!(
            judged(&resume(3, 0), &system("7", 1, 600), Some(100)),
            go_on,
            "nothing told yet: the slot stands where it was made"
        );
        assert_eq!(
            judged(&resume(3, 1000), &system("7", 2, 2000), Some(900)),
            go_on,
            "promoted behind what was read"
        );
        assert_eq!(
            judged(&Resume::default(), &system("7", 1, 600), Some(500)),
            Verdict::Continue { epoch: 1, slot: SlotAction::Keep }
        );
        assert_eq!(
            judged(&Resume::default(), &system("7", 1, 600), None),
            Verdict::Continue { epoch: 1, slot: SlotAction::Create }
        );
    }

    #[test]
    fn says_what_is_missing() {
        let old = resume(3, 500);
        assert!(reason(judged(&old, &system("7", 1, 600), None)).contains("missing"));
        assert!(reason(judged(&old, &system("8", 1, 600), Some(400))).contains("another"));
        assert!(reason(judged(&old, &system("7", 1, 600), Some(501))).contains("advanced"));
        assert!(reason(judged(&old, &system("7", 1, 499), Some(400))).contains("rewound"));
        assert!(reason(judged(&old, &system("7", 0, 600), Some(400))).contains("went back"));
        let promoted = judged(&resume(3, 1001), &system("7", 2, 2000), Some(900));
        assert!(matches!(promoted, Verdict::Gap { start: Lsn(1000), slot: SlotAction::Keep, .. }));
        let facts = Facts {
            system: &system("7", 1, 600),
            switches: &[],
            confirmed: Some(Lsn(400)),
            unusable: Some("lost"),
            standby: false,
        };
        assert!(matches!(judge(&old, &facts), Verdict::Gap { epoch: 4, slot: SlotAction::Recreate, .. }));
        let facts = Facts {
            system: &system("7", 1, 400),
            switches: &[],
            confirmed: Some(Lsn(300)),
            unusable: None,
            standby: true,
        };
        assert_eq!(judge(&old, &facts), Verdict::Behind { proven: Lsn(500) });
    }

    #[test]
    fn a_stream_without_its_checkpoint_still_proves() {
        let last = LastEvent {
            position: Position { epoch: 3, commit: 450, index: 0 },
            transaction_end: Some(500),
            committed_at: None,
        };
        let alone = Resume { last: Some(last), checkpoint: None };
        assert_eq!(
            judged(&alone, &system("7", 1, 600), Some(500)),
            Verdict::Continue { epoch: 3, slot: SlotAction::Keep }
        );
        assert!(reason(judged(&alone, &system("7", 1, 600), Some(501))).contains("advanced"));
        let newer = Resume { last: Some(last), checkpoint: resume(2, 9999).checkpoint };
        assert_eq!(
            judged(&newer, &system("8", 1, 600), Some(500)),
            Verdict::Continue { epoch: 3, slot: SlotAction::Keep },
            "an older epoch's identity says nothing"
        );
    }
}
