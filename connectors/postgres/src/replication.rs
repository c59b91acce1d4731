//! The replication connection's commands: simple queries, each read to its end even where it fails, so that the next
//! answer is the next question's.

use crate::{
    connect::{Backend, Socket},
    frame::{Frame, Reader},
    lsn::Lsn,
    refusal::Refusal,
};
use bytes::BytesMut;
use headgate_sdk::Fault;
use postgres_protocol::{
    escape::{escape_identifier, escape_literal},
    message::frontend,
};
use std::io;
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

/// A field of a command's result; `None` is NULL.
type Field = Option<String>;

/// What a command may fail with.
pub(crate) enum CommandError {
    /// The server says no, and takes further commands unless it was fatal.
    Refused(Refusal),
    /// The connection is of no more use.
    Broken(Fault),
}

impl CommandError {
    /// As a fault of what was being done.
    pub(crate) fn fault(self, doing: impl Into<String>) -> Fault {
        match self {
            Self::Refused(refusal) => refusal.fault(doing),
            Self::Broken(fault) => fault,
        }
    }
}

/// A connection in replication mode that takes commands.
pub(crate) struct Replication {
    reader: Reader<ReadHalf<Socket>>,
    writer: WriteHalf<Socket>,
    /// The process at the other end.
    pub(crate) backend: Backend,
}

/// `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct System {
    /// The cluster, the same for all its standbys.
    pub(crate) id: String,
    /// Which history of it; rises with each promotion.
    pub(crate) timeline: u32,
    /// The end of its log: flushed, or replayed on a standby.
    pub(crate) log: Lsn,
}

/// Where one timeline ended because the next began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch {
    /// The timeline that ended.
    pub(crate) timeline: u32,
    /// Where.
    pub(crate) at: Lsn,
}

/// The halves of a connection that streams.
pub(crate) struct Streaming {
    pub(crate) reader: Reader<ReadHalf<Socket>>,
    pub(crate) writer: WriteHalf<Socket>,
}

impl Replication {
    /// Takes over a connection that is ready for commands; rows over `max_row` will not be kept.
    pub(crate) fn new(socket: Socket, backend: Backend, max_row: u64) -> Self {
        let unwatcher = socket.unwatcher();
        let (reader, writer) = tokio::io::split(socket);
        // The payload of a row stands behind an `XLogData` header.
        let reader = Reader::new(reader, max_row.saturating_add(25)).leaving_unwatched(unwatcher);
        Self { reader, writer, backend }
    }

    /// `IDENTIFY_SYSTEM`
    pub(crate) async fn identify(&mut self) -> Result<System, Fault> {
        const DOING: &str = "cannot identify the database system";
        let rows = self.command("IDENTIFY_SYSTEM").await.map_err(|error| error.fault(DOING))?;
        let parsed = match rows.first().map(Vec::as_slice) {
            Some([Some(id), Some(timeline), Some(log), ..]) => timeline
                .parse()
                .ok()
                .zip(log.parse().ok())
                .map(|(timeline, log)| System { id: id.clone(), timeline, log }),
            _ => None,
        };
        parsed.ok_or_else(|| unexpected("IDENTIFY_SYSTEM"))
    }

    /// `TIMELINE_HISTORY`: where the timelines before `timeline` ended.
    pub(crate) async fn timeline_history(&mut self, timeline: u32) -> Result<Vec<Switch>, Fault> {
        if timeline <= 1 {
            return Ok(Vec::new());
        }
        let rows = self
            .command(&format!("TIMELINE_HISTORY {timeline}"))
            .await
            .map_err(|error| error.fault(format!("cannot read the history of timeline {timeline}")))?;
        match rows.first().map(Vec::as_slice) {
            Some([_, Some(content), ..]) => Ok(switches(content)),
            _ => Err(unexpected("TIMELINE_HISTORY")),
        }
    }

    /// `CREATE_REPLICATION_SLOT`: waits for every transaction that is open now. Gives the position from which the slot
    /// reads.
    pub(crate) async fn create_slot(&mut self, name: &str, failover: bool) -> Result<Lsn, CommandError> {
        let options = if failover { "(SNAPSHOT 'nothing', FAILOVER true)" } else { "NOEXPORT_SNAPSHOT" };
        let rows = self
            .command(&format!(
                "CREATE_REPLICATION_SLOT {} LOGICAL pgoutput {options}",
                escape_identifier(name)
            ))
            .await?;
        match rows.first().map(Vec::as_slice) {
            Some([_, Some(point), ..]) => {
                point.parse().map_err(|_| CommandError::Broken(unexpected("CREATE_REPLICATION_SLOT")))
            }
            _ => Err(CommandError::Broken(unexpected("CREATE_REPLICATION_SLOT"))),
        }
    }

    /// `ALTER_REPLICATION_SLOT` (PostgreSQL 17 and later): from now on standbys may keep a copy of the slot.
    pub(crate) async fn keep_on_standbys(&mut self, name: &str) -> Result<(), CommandError> {
        self.command(&format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", escape_identifier(name)))
            .await
            .map(drop)
    }

    /// `START_REPLICATION`: from `from`, or from where the slot stands if that is later.
    pub(crate) async fn start(
        mut self,
        slot: &str,
        from: Lsn,
        publications: &[String],
    ) -> Result<Streaming, CommandError> {
        let names = publications.iter().map(|name| escape_identifier(name)).collect::<Vec<_>>().join(",");
        self.send(&format!(
            "START_REPLICATION SLOT {} LOGICAL {from} (\"proto_version\" '1', \"publication_names\" {}, \"messages\" 'true')",
            escape_identifier(slot),
            escape_literal(&names).trim_start(),
        ))
        .await?;
        loop {
            while let Some(frame) =
                self.reader.next().map_err(|error| CommandError::Broken(garbled(error)))?
            {
                match frame {
                    Frame::Whole { tag: b'W', .. } => {
                        return Ok(Streaming { reader: self.reader, writer: self.writer });
                    }
                    Frame::Whole { tag: b'E', body } => {
                        return Err(CommandError::Refused(Refusal::parse(body)));
                    }
                    Frame::Whole { tag: b'N' | b'S', .. } => {}
                    _ => return Err(CommandError::Broken(unexpected("START_REPLICATION"))),
                }
            }
            self.reader.fill().await.map_err(|error| CommandError::Broken(lost(error)))?;
        }
    }

    async fn send(&mut self, command: &str) -> Result<(), CommandError> {
        let mut packet = BytesMut::new();
        frontend::query(command, &mut packet).map_err(|error| {
            CommandError::Broken(
                Fault::definite("a name in the settings holds a NUL character").with_cause(error),
            )
        })?;
        self.writer.write_all(&packet).await.map_err(|error| CommandError::Broken(lost(error)))?;
        self.writer.flush().await.map_err(|error| CommandError::Broken(lost(error)))
    }

    async fn command(&mut self, command: &str) -> Result<Vec<Vec<Field>>, CommandError> {
        self.send(command).await?;
        let (mut rows, mut refusal) = (Vec::new(), None);
        loop {
            while let Some(frame) =
                self.reader.next().map_err(|error| CommandError::Broken(garbled(error)))?
            {
                match frame {
                    Frame::Whole { tag: b'D', body } => {
                        rows.push(fields(body).ok_or_else(|| CommandError::Broken(unexpected(command)))?);
                    }
                    Frame::Whole { tag: b'E', body } => {
                        let error = Refusal::parse(body);
                        if error.severity != "ERROR" {
                            return Err(CommandError::Refused(error));
                        }
                        refusal = Some(error);
                    }
                    Frame::Whole { tag: b'Z', .. } => {
                        return refusal.map_or(Ok(rows), |refusal| Err(CommandError::Refused(refusal)));
                    }
                    Frame::Whole { tag: b'T' | b'C' | b'S' | b'N' | b'I', .. } => {}
                    _ => return Err(CommandError::Broken(unexpected(command))),
                }
            }
            self.reader.fill().await.map_err(|error| CommandError::Broken(lost(error)))?;
        }
    }
}

/// The fields of a DataRow.
fn fields(body: &[u8]) -> Option<Vec<Field>> {
    let (count, mut rest) = body.split_first_chunk::<2>()?;
    let mut fields = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            fields.push(None);
            rest = after;
        } else {
            let (value, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
            fields.push(Some(String::from_utf8_lossy(value).into_owned()));
            rest = after;
        }
    }
    Some(fields)
}

/// The lines of a timeline history file: `timeline <tab> switch point <tab> reason`, comments and blanks between.
fn switches(content: &str) -> Vec<Switch> {
    content
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Switch { timeline: words.next()?.parse().ok()?, at: words.next()?.parse().ok()? })
        })
        .collect()
}

pub(crate) fn lost(error: io::Error) -> Fault {
    Fault::transient("lost the replication connection to the database").with_cause(error)
}

pub(crate) fn garbled(error: crate::frame::FrameError) -> Fault {
    Fault::transient("what came over the replication connection is not PostgreSQL's protocol")
        .with_cause(error)
}

fn unexpected(command: &str) -> Fault {
    let command = command.split(' ').next().unwrap_or_default();
    Fault::definite(format!("the server's answer to {command} is not the one that PostgreSQL 14 to 18 gives"))
        .with_fix("connect to the server itself, not to a proxy")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rows() {
        assert_eq!(
            fields(&[0, 2, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff]),
            Some(vec![Some("x".to_owned()), None])
        );
        for broken in [&[][..], &[0, 1], &[0, 1, 0, 0, 0, 2, b'x'], &[0, 1, 0xff, 0xff, 0xff, 0xfe]] {
            assert_eq!(fields(broken), None);
        }
    }

    #[test]
    fn reads_history_files() {
        let text =
            "1\t0/3000148\tno recovery target specified\n\n# a comment\n2\t16/B374D848\tbefore 2000-01-01\n";
        assert_eq!(
            switches(text),
            [Switch { timeline: 1, at: Lsn(0x300_0148) }, Switch { timeline: 2, at: Lsn(0x16_B374_D848) }]
        );
        assert_eq!(switches("x\t0/0\n3\n\n"), []);
    }
}
