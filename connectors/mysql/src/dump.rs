//! A dump: the server's log as it is written, event by event.
//!
//! The server gives a dump up when its writes block longer than `net_write_timeout`, so a session asks for a day: a broker
//! that stands still costs no connection. Whoever reads must not be late in the other direction either: a server says that it
//! is alive at every heartbeat, and one that is silent three times as long is given up.

use crate::{
    connect::{PATIENCE, Target, sql_fault},
    event::{Flavor, Header},
    executed::Executed,
    history::Start,
    place::Place,
};
use futures_util::{FutureExt as _, StreamExt as _};
use headgate_sdk::Fault;
use mysql_async::{
    BinlogStream, BinlogStreamRequest, Conn, Error, GnoInterval, Sid,
    binlog::{BinlogChecksumAlg, events},
    prelude::Queryable as _,
};
use std::time::Duration;
use tokio::time::Instant;

/// Seconds that a write of the server may block.
const WRITE_TIMEOUT: u32 = 86_400;
/// How often the server is asked to say that it is alive, at least: a snapshot waits for its word that there is no more of its log.
const QUIET: Duration = Duration::from_secs(1);

/// A running dump.
pub(crate) struct Dump {
    stream: BinlogStream,
    silence: Duration,
    /// Since when the server has been waited for.
    waiting: Option<Instant>,
    /// Whether the first event of a dump, a made-up ROTATE, is still to come.
    first: bool,
    flavor: Flavor,
}

impl std::fmt::Debug for Dump {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dump").field("silence", &self.silence).finish_non_exhaustive()
    }
}

/// What a dump asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) flavor: Flavor,
    pub(crate) server_id: u32,
    pub(crate) heartbeat: Duration,
    /// What log files' names begin with.
    pub(crate) log: &'a str,
    pub(crate) start: &'a Start,
}

/// Why a dump did not begin, or ended.
#[derive(Debug)]
pub(crate) enum Broken {
    Fault(Fault),
    /// The server no longer has what was asked for.
    Lost(String),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// One event.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) header: Header,
    event: events::Event,
    /// Bytes to leave off the body.
    surplus: usize,
    /// Whether it comes out of a compressed transaction.
    pub(crate) inside: bool,
}

impl Arrival {
    /// The event without its header and its checksum.
    pub(crate) fn body(&self) -> &[u8] {
        let body = self.event.data();
        &body[..body.len().saturating_sub(self.surplus)]
    }
}

impl Dump {
    /// Asks for the log.
    pub(crate) async fn start(target: &Target, request: &Request<'_>) -> Result<Self, Broken> {
        let failed = |error| Broken::Fault(sql_fault(error, "cannot ask for the log"));
        let mut session = target.connect().await.map_err(Broken::Fault)?;
        // A snapshot waits for the server's word that there is no more of its log.
        let period = request.heartbeat.min(QUIET).as_nanos();
        let mut settings = vec![
            format!("SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"),
            format!("SET SESSION net_write_timeout = {WRITE_TIMEOUT}"),
        ];
        if request.flavor == Flavor::MariaDb {
            // 4: knows GTIDs. The server leaves events as they are for it.
            settings.push("SET @mariadb_slave_capability = 4".to_owned());
            if let Start::After(executed) = request.start {
                // Digits, commas and hyphens.
                settings.push(format!(
                    "SET @slave_connect_state = '{executed}', @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"
                ));
            }
        }
        for setting in settings {
            session.query_drop(setting).await.map_err(failed)?;
        }
        let stream = ask(session, request).await?;
        Ok(Self {
            stream,
            silence: request.heartbeat * PATIENCE,
            waiting: None,
            first: true,
            flavor: request.flavor,
        })
    }

    /// The next event, if it is there already.
    pub(crate) fn ready(&mut self) -> Result<Option<Arrival>, Broken> {
        match self.stream.next().now_or_never() {
            Some(arrived) => self.arrive(arrived).map(Some),
            None => Ok(None),
        }
    }

    /// The next event. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Arrival, Broken> {
        let since = *self.waiting.get_or_insert_with(Instant::now);
        match tokio::time::timeout_at(since + self.silence, self.stream.next()).await {
            Ok(arrived) => self.arrive(arrived),
            Err(_) => Err(Broken::Fault(Fault::transient(format!(
                "the server has said nothing for {:?}, not even that it is alive",
                self.silence
            )))),
        }
    }

    /// The server was not listened to for a while, which is not its silence.
    pub(crate) fn forgive(&mut self) {
        self.waiting = None;
    }

    fn arrive(&mut self, arrived: Option<Result<events::Event, Error>>) -> Result<Arrival, Broken> {
        self.waiting = None;
        let event = match arrived {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(broken(error)),
            None => return Err(Broken::Fault(Fault::transient("the server ended the dump (it shuts down)"))),
        };
        let header = event.header();
        let header = Header {
            timestamp: header.timestamp(),
            kind: header.event_type_raw(),
            server_id: header.server_id(),
            size: header.event_size(),
            log_pos: header.log_pos(),
            flags: header.flags_raw(),
        };
        let inside = !event.footer().get_checksum_enabled();
        let mut surplus = 0;
        if self.first {
            self.first = false;
            // MariaDB's has a checksum before any event could say so; the driver takes it for part of the file's name.
            if self.flavor == Flavor::MariaDb
                && header.kind == crate::event::kind::ROTATE
                && !ends_in_digit(&event)
            {
                surplus = 4;
            }
        } else if !inside {
            verify(&event)?;
        }
        Ok(Arrival { header, event, surplus, inside })
    }
}

fn ends_in_digit(event: &events::Event) -> bool {
    // The name without the checksum ends with the file's number; with it, the byte five from the end does.
    let data = event.data();
    let name = data.get(8..).unwrap_or_default();
    let digits = |name: &[u8]| {
        name.iter()
            .rposition(|byte| *byte == b'.')
            .is_some_and(|dot| dot + 1 < name.len() && name[dot + 1..].iter().all(u8::is_ascii_digit))
    };
    // Four bytes of a checksum may be digits by chance: a server's numbers have six.
    digits(name)
        && !name.len().checked_sub(4).is_some_and(|cut| {
            digits(&name[..cut])
                && name[..cut].iter().rev().take_while(|byte| byte.is_ascii_digit()).count() >= 6
        })
}

/// Compares the event with its checksum.
fn verify(event: &events::Event) -> Result<(), Broken> {
    if event.footer().get_checksum_alg() != Ok(Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32)) {
        return Ok(());
    }
    let Some(told) = event.checksum() else { return Ok(()) };
    if event.calc_checksum(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32) == u32::from_le_bytes(told) {
        return Ok(());
    }
    Err(Broken::Fault(Fault::transient("the checksum of an event is wrong: it was damaged on its way, or is in the log")
        .with_fix("if it stays: mysqlbinlog --verify-binlog-checksum finds the place; read from a replica whose log is whole")))
}

async fn ask(session: Conn, request: &Request<'_>) -> Result<BinlogStream, Broken> {
    let asked = BinlogStreamRequest::new(request.server_id).with_hostname(b"headgate");
    let name;
    let asked = match request.start {
        Start::After(Executed::MySql(set)) => asked.with_gtid().with_gtid_set(sids(set)?),
        Start::After(Executed::MariaDb(_)) => asked.with_pos(4),
        Start::At(place) => {
            name = file_name(request.log, *place);
            // The protocol has 32 bits for it, and the server would take what is left of the number.
            if place.offset() > u64::from(u32::MAX) {
                return Err(Broken::Fault(
                    Fault::definite(format!("cannot go on at {name}:{}, beyond what the protocol can ask for", place.offset()))
                        .with_fix("turn on GTIDs (gtid_mode = ON, enforce_gtid_consistency = ON), and keep max_binlog_size at 1 GiB"),
                ));
            }
            asked.with_filename(name.as_bytes()).with_pos(place.offset())
        }
    };
    session.get_binlog_stream(asked).await.map_err(broken)
}

/// The name of the file at a place: servers write at least six digits.
pub(crate) fn file_name(log: &str, place: Place) -> String {
    format!("{log}.{:06}", place.file())
}

/// The set as the driver has it: one entry for each server and tag.
fn sids(set: &crate::gtid::mysql::GtidSet) -> Result<Vec<Sid<'static>>, Broken> {
    let mut sids: Vec<(crate::gtid::mysql::Source, Sid<'static>)> = Vec::new();
    for (source, first, last) in set.ranges() {
        let interval = GnoInterval::new(first, last.saturating_add(1));
        match sids.last_mut() {
            Some((of, sid)) if *of == source => {
                let extended = std::mem::replace(sid, Sid::new([0; 16])).with_interval(interval);
                *sid = extended;
            }
            _ => {
                let sid = if source.tag.is_empty() {
                    Sid::new(source.uuid.bytes())
                } else {
                    // The driver's type for a tag has no name outside of it; its text form has.
                    let text = format!("{source}:{first}-{last}");
                    let sid = text.parse::<Sid<'_>>().map_err(|error| {
                        Broken::Fault(
                            Fault::definite(format!("cannot ask for the GTIDs {text}")).with_cause(error),
                        )
                    })?;
                    sids.push((source, sid));
                    continue;
                };
                sids.push((source, sid.with_interval(interval)));
            }
        }
    }
    Ok(sids.into_iter().map(|(_, sid)| sid).collect())
}

/// What an error in a dump means. Servers use one number for everything, so the text decides.
fn broken(error: Error) -> Broken {
    let Error::Server(refusal) = &error else {
        return Broken::Fault(sql_fault(error, "the connection to the server was lost"));
    };
    if refusal.code != 1236 {
        return Broken::Fault(sql_fault(error, "the server ended the dump"));
    }
    let text = refusal.message.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if has(&["same server_uuid/server_id", "same server_id", "same server_uuid"]) {
        return Broken::Fault(
            Fault::busy("another reader has connected with our server id")
                .with_cause(error)
                .with_fix("give the source, or the other reader, a server_id of its own"),
        );
    }
    if has(&[
        "could not find first log file",
        "purged required binary logs",
        "purged binary logs",
        "have been purged",
        "not in the master's binlog",
        "could not find gtid state",
        "diverged",
        "more gtids than",
        "impossible position",
        "log file size",
        "binlog truncated in the middle of event",
        "no such file",
        "could not find entry",
    ]) {
        return Broken::Lost(refusal.message.clone());
    }
    if has(&["max_allowed_packet"]) {
        return Broken::Fault(
            Fault::definite("the server cannot send an event of its log: it is larger than the largest packet, or the log is damaged there")
                .with_cause(error)
                .with_fix("SET GLOBAL max_allowed_packet = 1073741824"),
        );
    }
    Broken::Fault(Fault::transient("the server ended the dump").with_cause(error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sets_become_one_entry_for_each_server_and_tag() {
        const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let set = format!("{A}:1-5:9,{A}:mine:1-3").parse().unwrap();
        let sids: Vec<String> = sids(&set).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(sids, [format!("{A}:1-5:9"), format!("{A}:mine:1-3")]);
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name("binlog", Place::new(7, 4).unwrap()), "binlog.000007");
        assert_eq!(file_name("a.b", Place::new(1_234_567, 4).unwrap()), "a.b.1234567");
    }
}
