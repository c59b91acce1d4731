//! Any bytes are an event or refused; its rows are cut and written, or refused. The first byte is the event's type, the second the
//! length of a TABLE_MAP that stands before it.
#![no_main]

use headgate_mysql::{
    event::{Event, Flavor, Header, Images, kind},
    table::Table,
};
use headgate_sdk::Cell;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

fn header(kind: u8) -> Header {
    Header { timestamp: 0, kind, server_id: 1, size: 19, log_pos: 0, flags: 0 }
}

fuzz_target!(|input: &[u8]| {
    let [event, split, rest @ ..] = input else { return };
    let (map, body) = rest.split_at(usize::from(*split).min(rest.len()));
    let decoded = Event::decode(&header(*event), body);
    if let Ok(Event::Payload(payload)) = &decoded
        && let Ok(mut events) = payload.events(1 << 16)
    {
        while let Ok(Some((header, body))) = events.next_event() {
            let _ = Event::decode(&header, body);
        }
    }
    let Ok(Event::TableMap(map)) = Event::decode(&header(kind::TABLE_MAP), map) else { return };
    let flavor = if event % 2 == 0 { Flavor::MySql } else { Flavor::MariaDb };
    let (Ok(table), Ok(Event::Rows(rows))) = (Table::prepare(&map, flavor, None), decoded) else { return };
    let mut scratch = Vec::new();
    let Ok(mut reader) = rows.read(&table, &mut scratch) else { return };
    let mut images = Images::default();
    while let Ok(true) = reader.next_row(&mut images) {
        for (column, cell) in table.relation().columns.iter().zip(images.before.iter().chain(&images.after)) {
            let mut out = Vec::new();
            if let Cell::Value(raw) = cell
                && column.writer.write(raw, &mut out).is_ok()
            {
                serde_json::from_slice::<&RawValue>(&out).expect("not one JSON value");
            }
        }
    }
});
