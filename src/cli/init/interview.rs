//! The questions, on a terminal. They go to standard error, and an empty answer takes what stands in brackets.

use super::{Choices, Database, address, parse_budget, render};
use crate::cli::{Failure, paint::Paint};
use headgate_sdk::Fault;
use std::io::{BufRead as _, Write as _};

/// Asks for what the defaults only guess.
pub(super) fn ask(defaults: Choices, database: &Database) -> Result<Choices, Failure> {
    say(&format!(
        "{} at {}, {}\n\n{}\n",
        database.name(),
        database.place(),
        database.product(),
        render::tables(database, &["*.*".to_owned()], Paint::plain())
    ));
    let name = question("Name of the source", &defaults.name, |answer| {
        (address::source_name(answer) == answer).then_some(()).ok_or("a-z, 0-9, - and _, please")
    })?;
    let globs = question("Tables, as globs on schema.table", &defaults.tables.join(" "), |answer| {
        let sound = answer.split_whitespace().all(|glob| glob.contains('.'));
        sound.then_some(()).ok_or("schema and table, please: public.* !public.secrets")
    })?;
    let nats = question("NATS, its URL or embedded", &defaults.nats, |_| Ok(()))?;
    let role = if let Some(ruler) = database.ruler() {
        say(&format!("{} is {ruler}; reading the log needs far less.\n", database.user()));
        question("Role of the gateway", "headgate", |_| Ok(()))?
    } else {
        defaults.role
    };
    let outage_budget = question("How long may the gateway be away", &defaults.outage_budget, |answer| {
        parse_budget(answer).map(|_| ()).map_err(|_| "a duration, please: 8h, 2d, 30m")
    })?;
    Ok(Choices {
        name,
        tables: globs.split_whitespace().map(str::to_owned).collect(),
        nats,
        role,
        outage_budget,
    })
}

fn say(text: &str) {
    let mut err = std::io::stderr();
    let _ = err.write_all(text.as_bytes());
    let _ = err.flush();
}

fn question(
    text: &str,
    default: &str,
    sound: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<String, Failure> {
    loop {
        say(&format!("{text} [{default}]: "));
        let line = line()?;
        let answer = if line.trim().is_empty() { default } else { line.trim() };
        match sound(answer) {
            Ok(()) => return Ok(answer.to_owned()),
            Err(why) => say(&format!("  {why}\n")),
        }
    }
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Ok(line),
        Ok(0) | Err(_) => Err(Failure::refused("nothing was written: nobody answers")),
    }
}

/// Asks for the password, without showing it.
pub(super) fn password(wanted: &Fault) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let shown = |error: rustix::io::Errno| Failure::internal(format!("cannot hide the password: {error}"));
    let before = tcgetattr(&stdin).map_err(shown)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // Hidden before it is asked for, and nothing is flushed: whoever answers at once is neither shown nor lost.
    tcsetattr(&stdin, OptionalActions::Now, &hidden).map_err(shown)?;
    say(&format!("{wanted}\nPassword: "));
    let answer = line();
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    say("\n");
    restored.map_err(shown)?;
    Ok(answer?.trim_end_matches(['\n', '\r']).to_owned())
}
