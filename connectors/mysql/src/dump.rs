//! A dump: the server's log as it is written, event by event.
//!
//! The server gives a dump up when its writes block longer than `net_write_timeout`, so a session asks for a day: a broker
//! that stands still costs no connection. Whoever reads must not be late in the other direction either: a server says that it
//! is alive at every heartbeat, and one that is silent three times as long is given up.

use crate::{
    connect::{OK, PATIENCE, Packets, REFUSED, Replication, Target, refusal, sql_fault, unprivileged},
    event::{self, DecodeError, Event, Flavor, Frame, Header, PayloadEvents, Problem},
    executed::Executed,
    history::Start,
    place::Place,
};
use bytes::Bytes;
use headgate_sdk::Fault;
use mysql_async::Error;
use std::{
    io::{self, Cursor},
    time::Duration,
};
use tokio::time::Instant;

/// Seconds that a write of the server may block.
const WRITE_TIMEOUT: u32 = 86_400;
/// How often the server is asked to say that it is alive, at least: a snapshot waits for its word that there is no more of its log.
const QUIET: Duration = Duration::from_secs(1);

/// Commands of the protocol.
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
/// MariaDB sends the statements' texts, ANNOTATE_ROWS, only to who asks for them
/// (<https://mariadb.com/kb/en/com_binlog_dump/>).
const SEND_ANNOTATE_ROWS: u16 = 0x02;
/// What we are called in `SHOW REPLICAS`.
const HOST: &[u8] = b"headgate";
/// First byte of the packet that ends a dump, which is shorter than any other that begins so.
const END: u8 = 0xfe;
const END_LENGTH: usize = 9;
/// Most bytes of an event in a compressed transaction.
const LARGEST_EVENT: u32 = 1 << 30;

/// A running dump.
pub(crate) struct Dump {
    packets: Packets,
    /// The rest of a compressed transaction.
    payload: Option<PayloadEvents<Cursor<Bytes>>>,
    /// Whether events end with a checksum.
    checksums: bool,
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
    body: Bytes,
    /// Whether it comes out of a compressed transaction.
    pub(crate) inside: bool,
}

impl Arrival {
    /// The event without its header and its checksum.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Dump {
    /// Asks for the log.
    pub(crate) async fn start(target: &Target, request: &Request<'_>) -> Result<Self, Broken> {
        let failed = |error| Broken::Fault(sql_fault(error, "cannot ask for the log"));
        let mut session = target.replicate().await.map_err(Broken::Fault)?;
        // A snapshot waits for the server's word that there is no more of its log.
        let period = request.heartbeat.min(QUIET).as_nanos();
        let mut settings = vec![
            format!("SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"),
            format!("SET SESSION net_write_timeout = {WRITE_TIMEOUT}"),
            // Whatever the server has: no checksum is made or taken away for us.
            "SET @master_binlog_checksum = 'ALL'".to_owned(),
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
            session.execute(&setting).await.map_err(failed)?;
        }
        ask(&mut session, request).await?;
        Ok(Self {
            packets: session.packets,
            payload: None,
            checksums: false,
            silence: request.heartbeat * PATIENCE,
            waiting: None,
            first: true,
            flavor: request.flavor,
        })
    }

    /// The next event, if it is there already.
    pub(crate) async fn ready(&mut self) -> Result<Option<Arrival>, Broken> {
        loop {
            if let Some(arrival) = self.cut()? {
                self.waiting = None;
                return Ok(Some(arrival));
            }
            if !self.packets.fill_now().await.map_err(lost)? {
                return Ok(None);
            }
        }
    }

    /// The next event. May be dropped while it waits.
    pub(crate) async fn next(&mut self) -> Result<Arrival, Broken> {
        loop {
            // Only whole events are signs of life: behind a damaged length nothing is one ever again.
            if let Some(arrival) = self.cut()? {
                self.waiting = None;
                return Ok(arrival);
            }
            let since = *self.waiting.get_or_insert_with(Instant::now);
            match tokio::time::timeout_at(since + self.silence, self.packets.fill()).await {
                Ok(filled) => filled.map_err(lost)?,
                Err(_) => {
                    return Err(Broken::Fault(Fault::transient(format!(
                        "the server has said nothing for {:?}, not even that it is alive",
                        self.silence
                    ))));
                }
            }
        }
    }

    /// The server was not listened to for a while, which is not its silence.
    pub(crate) fn forgive(&mut self) {
        self.waiting = None;
    }

    /// The next event of what has been read.
    fn cut(&mut self) -> Result<Option<Arrival>, Broken> {
        if let Some(payload) = &mut self.payload {
            match payload.next_event().map_err(damaged)? {
                Some((header, body)) => {
                    let body = Bytes::copy_from_slice(body);
                    return Ok(Some(Arrival { header, body, inside: true }));
                }
                None => self.payload = None,
            }
        }
        match self.packets.cut().map_err(lost)? {
            Some(packet) => self.arrive(&packet).map(Some),
            None => Ok(None),
        }
    }

    fn arrive(&mut self, packet: &Bytes) -> Result<Arrival, Broken> {
        match packet.first() {
            Some(&OK) => {}
            Some(&REFUSED) => return Err(broken(refusal(packet))),
            Some(&END) if packet.len() < END_LENGTH => {
                return Err(Broken::Fault(Fault::transient("the server ended the dump (it shuts down)")));
            }
            _ => return Err(Broken::Fault(Fault::transient("the server sent something that is no event"))),
        }
        let event = packet.slice(1..);
        let first = std::mem::take(&mut self.first);
        // Nothing has said yet whether there are checksums.
        let frame = Frame::decode(&event, self.checksums && !first).map_err(damaged)?;
        self.checksums = frame.checksums;
        let header = frame.header;
        let mut body = frame.body;
        // The first of MariaDB's has one all the same.
        if first
            && self.flavor == Flavor::MariaDb
            && header.kind == event::kind::ROTATE
            && !ends_in_digit(body)
        {
            body = &body[..body.len().saturating_sub(4)];
        }
        if header.kind == event::kind::TRANSACTION_PAYLOAD
            && let Event::Payload(payload) = Event::decode(&header, body).map_err(damaged)?
        {
            let bytes = Cursor::new(event.slice_ref(payload.bytes));
            let events = PayloadEvents::new(payload.compressed, bytes, LARGEST_EVENT).map_err(damaged)?;
            self.payload = Some(events);
        }
        Ok(Arrival { header, body: event.slice_ref(body), inside: false })
    }
}

/// Whether the name in a ROTATE ends as a file's does, with its number, and not with a checksum.
fn ends_in_digit(body: &[u8]) -> bool {
    // The name without the checksum ends with the file's number; with it, the byte five from the end does.
    let name = body.get(8..).unwrap_or_default();
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

fn lost(error: io::Error) -> Broken {
    broken(error.into())
}

/// Bytes that are no event.
fn damaged(error: DecodeError) -> Broken {
    let what = match error.problem {
        Problem::Checksum => "the checksum of an event is wrong: it was damaged on its way, or is in the log",
        _ => "an event cannot be read: it was damaged on its way, or is in the log",
    };
    Broken::Fault(Fault::transient(what).with_cause(error).with_fix(
        "if it stays: mysqlbinlog --verify-binlog-checksum finds the place; read from a replica whose log is whole",
    ))
}

async fn ask(session: &mut Replication, request: &Request<'_>) -> Result<(), Broken> {
    let id = request.server_id.to_le_bytes();
    // The host's name; no user, password, port, rank and source.
    let mut register = vec![COM_REGISTER_SLAVE];
    register.extend(id);
    register.push(HOST.len() as u8);
    register.extend(HOST);
    register.extend([0; 12]);
    session.command(&register).await.map_err(broken)?;
    session.confirmed().await.map_err(broken)?;
    let flags = match request.flavor {
        Flavor::MySql => 0,
        Flavor::MariaDb => SEND_ANNOTATE_ROWS,
    };
    let (mut command, flags) = (Vec::new(), flags.to_le_bytes());
    match request.start {
        Start::After(Executed::MySql(set)) => {
            let set = set.encode();
            command.push(COM_BINLOG_DUMP_GTID);
            command.extend(flags);
            command.extend(id);
            // The name of no file, and where it begins.
            command.extend(0u32.to_le_bytes());
            command.extend(4u64.to_le_bytes());
            command.extend((set.len() as u32).to_le_bytes());
            command.extend(set);
        }
        start => {
            let (name, offset) = match start {
                Start::At(place) => (file_name(request.log, *place), place.offset()),
                Start::After(_) => (String::new(), 4),
            };
            // The protocol has 32 bits for it.
            let Ok(offset) = u32::try_from(offset) else {
                return Err(Broken::Fault(
                    Fault::definite(format!("cannot go on at {name}:{offset}, beyond what the protocol can ask for"))
                        .with_fix("turn on GTIDs (gtid_mode = ON, enforce_gtid_consistency = ON), and keep max_binlog_size at 1 GiB"),
                ));
            };
            command.push(COM_BINLOG_DUMP);
            command.extend(offset.to_le_bytes());
            command.extend(flags);
            command.extend(id);
            command.extend(name.bytes());
        }
    }
    session.command(&command).await.map_err(broken)
}

/// The name of the file at a place: servers write at least six digits.
pub(crate) fn file_name(log: &str, place: Place) -> String {
    format!("{log}.{:06}", place.file())
}

/// What an error in a dump means. Servers use one number for everything, so the text decides.
fn broken(error: Error) -> Broken {
    let Error::Server(refusal) = &error else {
        return Broken::Fault(sql_fault(error, "the connection to the server was lost"));
    };
    if refusal.code != 1236 {
        let doing = "the server does not send its log";
        return Broken::Fault(unprivileged(refusal, doing).unwrap_or_else(|| sql_fault(error, doing)));
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
    let fault = Fault::transient("the server ended the dump").with_cause(error);
    // The mode was changed while transactions of the former kind were not confirmed yet.
    let mode = if has(&["cannot replicate anonymous transaction"]) {
        Some("ON_PERMISSIVE")
    } else {
        has(&["cannot replicate gtid-transaction"]).then_some("OFF_PERMISSIVE")
    };
    Broken::Fault(match mode {
        Some(mode) => fault.with_fix(format!(
            "SET GLOBAL gtid_mode = {mode}; what it was set to can be set again when the source has confirmed what is read now (confirm_delay)"
        )),
        None => fault,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_mode_that_was_changed_too_early_is_told() {
        let refusal = |message: &str| mysql_async::ServerError {
            code: 1236,
            message: message.to_owned(),
            state: "HY000".to_owned(),
        };
        for (message, mode) in [
            (
                "Cannot replicate anonymous transaction when @@GLOBAL.GTID_MODE = ON, at file",
                "= ON_PERMISSIVE",
            ),
            ("Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF, at file", "= OFF_PERMISSIVE"),
        ] {
            let Broken::Fault(fault) = broken(Error::Server(refusal(message))) else { panic!("{message}") };
            assert!(fault.fix().unwrap().contains(mode), "{fault:?}");
        }
    }

    #[test]
    fn names_of_files() {
        assert_eq!(file_name("binlog", Place::new(7, 4).unwrap()), "binlog.000007");
        assert_eq!(file_name("a.b", Place::new(1_234_567, 4).unwrap()), "a.b.1234567");
    }
}
