//! Rows of a distributed transaction, read again when its commit has come.
//!
//! The log has them where it was prepared, which may be long before. A second dump begins there and ends with them; meanwhile
//! the first one waits.

use super::stream::Stream;
use crate::{
    apply::{Halt, Replay},
    dump::{Broken, Dump, Request},
    event::Event,
    executed::Executed,
    history::Start,
    place::Place,
};
use headgate_sdk::{Fault, Outlet};

impl Stream {
    /// Reads the rows of a prepared transaction again, and tells them as those of the open one.
    pub(super) async fn replay<O: Outlet>(&mut self, replay: &Replay, outlet: &mut O) -> Result<(), Halt> {
        let prepared = &replay.prepared;
        let wanted = prepared.gtid.clone();
        let by_name = match (self.apply.executed(), wanted.as_ref().and_then(|gtid| gtid.parse().ok())) {
            (Some(Executed::MySql(set)), Some(gtid)) => {
                let mut alone = crate::gtid::mysql::GtidSet::default();
                alone.add(&gtid);
                Some(Start::After(Executed::MySql(set.subtract(&alone))))
            }
            _ => None,
        };
        let start = by_name.unwrap_or(Start::At(Place(prepared.place)));
        let request = Request {
            flavor: self.apply.flavor(),
            // Two dumps under one id would end each other.
            server_id: self.server_id ^ 1 << 30,
            heartbeat: self.heartbeat,
            log: &self.log,
            start: &start,
        };
        let unread = |reason: String| {
            Halt::Fault(Fault::definite(format!(
                "the rows of the distributed transaction {} cannot be read again: {reason}",
                replay.name
            )))
        };
        let mut dump = match Dump::start(&self.target, &request).await {
            Ok(dump) => dump,
            Err(Broken::Fault(fault)) => return Err(fault.into()),
            Err(Broken::Lost(reason)) => return Err(unread(reason)),
        };
        let mut found = false;
        loop {
            let arrival = match dump.next().await {
                Ok(arrival) => arrival,
                Err(Broken::Fault(fault)) => return Err(fault.into()),
                Err(Broken::Lost(reason)) => return Err(unread(reason)),
            };
            if !found {
                let name = match Event::decode(&arrival.header, arrival.body()) {
                    Ok(Event::Gtid(gtid)) => gtid.id.map(|id| id.to_string()),
                    Ok(Event::MariaGtid(gtid)) => Some(gtid.id.to_string()),
                    _ => continue,
                };
                if name != wanted {
                    return Err(unread(format!("the log has {name:?} where {wanted:?} should be")));
                }
                found = true;
                continue;
            }
            if self.apply.replayed(&arrival.header, arrival.body(), outlet).await? {
                return self.apply.replay_ended(outlet);
            }
            if outlet.is_full() {
                outlet.flush().await?;
            }
        }
    }
}
