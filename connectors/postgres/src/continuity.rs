//! Asks a server whether its log goes on where the stream ends: for a run that begins, and for `check`.

use crate::{
    Config,
    connect::{Server, Target},
    facilities::Facilities,
    history::{Facts, Identity, Verdict, judge},
    monitor,
    publication::Publications,
    replication::{Replication, System},
    slot::{self, Slot},
};
use headgate_sdk::{Fault, Resume};

/// What has been looked at already.
pub(crate) struct Seen<'a> {
    pub(crate) system: &'a System,
    /// The source's slot, if there is one.
    pub(crate) slot: Option<&'a Slot>,
    /// Publications that did not exist.
    pub(crate) missing: &'a [String],
    /// What an earlier run lost.
    pub(crate) lost: Option<String>,
    pub(crate) standby: bool,
}

/// Compares what `resume` proves with what the server shows.
pub(crate) async fn verdict(
    replication: &mut Replication,
    resume: &Resume,
    seen: Seen<'_>,
) -> Result<Verdict, Fault> {
    let Seen { system, slot, missing, lost, standby } = seen;
    let switches = match Identity::of(resume) {
        Some(known) if known.system == system.id && known.timeline < system.timeline => {
            replication.timeline_history(system.timeline).await?
        }
        _ => Vec::new(),
    };
    // A slot finds no publication in the log before the publication was made.
    let unpublished = || (!missing.is_empty()).then(|| monitor::lost(missing));
    let unusable = slot.and_then(|slot| slot.unusable.clone().or_else(unpublished).or(lost));
    let facts = Facts {
        system,
        switches: &switches,
        confirmed: slot.map(|slot| slot.confirmed.unwrap_or_default()),
        unusable: unusable.as_deref(),
        standby,
    };
    Ok(judge(resume, &facts))
}

/// Why changes after `resume` are lost to the stream; `None` where they are not, or where somebody reads the slot, and so moves it on.
/// Changes nothing.
///
/// # Errors
/// The database cannot be asked.
pub async fn missing(source: &str, config: &Config, resume: &Resume) -> Result<Option<String>, Fault> {
    let (server, control) = Server::find(Target::new(config, source)?).await?;
    let facilities = Facilities::of(&control.client).await?;
    let slot = slot::inspect(&control.client, &slot::name(source, config)).await?;
    if slot.as_ref().is_some_and(|slot| slot.active_pid.is_some()) {
        return Ok(None);
    }
    let publications = Publications::new(source, config, facilities.version);
    let missing = if publications.are_kept() {
        publications.plan(&control.client).await?.missing
    } else {
        // One that somebody else keeps is waited for.
        Vec::new()
    };
    let (socket, backend) = server.replication(facilities.encoding()).await?;
    let mut replication = Replication::new(socket, backend, config.max_row);
    let system = replication.identify().await?;
    let seen = Seen {
        system: &system,
        slot: slot.as_ref(),
        missing: &missing,
        lost: None,
        standby: facilities.standby,
    };
    Ok(match verdict(&mut replication, resume, seen).await? {
        Verdict::Gap { reason, .. } => Some(reason),
        Verdict::Continue { .. } | Verdict::Behind { .. } => None,
    })
}
