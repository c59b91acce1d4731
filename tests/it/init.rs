//! `headgate init`: what it writes can be run by the role that it proposes, and shows no secret.

use crate::support::{
    eventually,
    gateway::{Gateway, Settings},
    nats::Nats,
    postgres::{PASSWORD, Postgres, Version},
    shop::STREAM,
    stream,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::{
    ffi::OsStr,
    fs::File,
    io::{Read as _, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

fn init(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
    command.current_dir(directory).env_remove("HEADGATE_CONFIG").env_remove("PGPASSWORD").arg("init");
    let output = command.args(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!stdout.contains(PASSWORD) && !stderr.contains(PASSWORD), "{stdout}{stderr}");
    (output.status.code(), stdout, stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_that_it_proposes_can_run_what_it_writes() {
    for version in [Version::Pg15, Version::Pg18] {
        let postgres = Postgres::start(version, &[]).await;
        postgres
            .execute(
                "CREATE TABLE orders (id int PRIMARY KEY, status text); CREATE TABLE \"Odd \"\"name\" (id int PRIMARY KEY); \
                 CREATE TABLE bare (id int); CREATE SCHEMA secret; CREATE TABLE secret.keys (id int PRIMARY KEY)",
            )
            .await;
        let nats = Nats::start().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config.toml");
        let bus = nats.urls().join(",");
        let arguments =
            [&postgres.url(), "--role", "least", "--table", "public.*", "--nats", &bus, "--name", "shop"];
        let (code, stdout, stderr) = init(directory.path(), &arguments);
        assert_eq!(code, Some(0), "{stderr}");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(stdout, text, "in a pipe the configuration is printed too");
        assert!(text.contains("url = \"postgres://least:${SHOP_PASSWORD}@"), "{text}");

        let (code, _, stderr) = init(directory.path(), &arguments);
        assert_eq!(code, Some(78), "a file that is there stays: {stderr}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        assert_eq!(init(directory.path(), &[&arguments[..], &["--force"]].concat()).0, Some(0));

        // Exactly the statements that it names, and nothing else.
        let statements =
            text.lines().filter_map(|line| line.strip_prefix("#   ")).filter(|line| line.ends_with(';'));
        for statement in statements {
            assert!(!statement.contains("secret"), "{statement}");
            postgres.execute(&statement.replace('…', "sesame")).await;
        }
        let mut check = Command::new(env!("CARGO_BIN_EXE_headgate"));
        let output = check
            .current_dir(directory.path())
            .env_remove("HEADGATE_CONFIG")
            .env("SHOP_PASSWORD", "sesame")
            .args(["check", "--json"])
            .output()
            .unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{answer}");

        let url = postgres.url().replace(&format!("postgres:{PASSWORD}"), "least:sesame");
        let lines =
            text.lines().filter(|line| line.starts_with("tables =") || line.starts_with("publication ="));
        let source_lines = lines.collect::<Vec<_>>().join("\n");
        let settings = Settings { source_lines, ..Settings::new(&nats, url) };
        let gateway = Gateway::start(&settings).await;
        postgres
            .execute(
                "INSERT INTO orders VALUES (1, 'new'); UPDATE orders SET status = 'paid'; INSERT INTO \"Odd \"\"name\" VALUES (1); \
                 INSERT INTO bare VALUES (1); UPDATE bare SET id = 2; INSERT INTO secret.keys VALUES (1)",
            )
            .await;
        eventually("the events of the proposed tables", Duration::from_secs(30), || async {
            let events = stream::read(&nats, STREAM).await;
            let told: Vec<&str> = events.iter().map(|event| event.attribute("type")).collect();
            let expected = ["shop.orders.created", "shop.orders.updated", "shop.Odd%20\"name.created"];
            if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
        drop(gateway);
    }
}

/// `init` on a terminal, where somebody answers: each text that is waited for, and what is typed then. What the terminal showed.
fn talk(directory: &Path, url: &str, answers: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut controller: File = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap().into();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal =
        File::options().read(true).write(true).open(Path::new(OsStr::from_bytes(name.as_bytes()))).unwrap();
    let mut child = {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headgate"));
        command.current_dir(directory).env_remove("HEADGATE_CONFIG").env_remove("PGPASSWORD");
        command
            .args(["init", url])
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap());
        command.stderr(terminal).spawn().unwrap()
    };
    let (mut shown, mut heard) = (String::new(), 0);
    let mut answers = answers.iter();
    let mut next = answers.next();
    let mut bytes = [0; 4096];
    // Once the program has ended, reading fails.
    while let Ok(read @ 1..) = controller.read(&mut bytes) {
        shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        if let Some((_, answer)) = next.filter(|(question, _)| shown[heard..].contains(question)) {
            heard = shown.len();
            controller.write_all(answer.as_bytes()).unwrap();
            next = answers.next();
        }
    }
    let code = child.wait().unwrap().code();
    assert!(next.is_none(), "it did not ask {next:?}: {shown}");
    (code, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn it_interviews_whoever_sits_at_the_terminal() {
    let postgres = Postgres::start(Version::Pg18, &[]).await;
    postgres
        .execute(
            "CREATE TABLE orders (id int PRIMARY KEY, status text); INSERT INTO orders SELECT generate_series(1, 500); \
             CREATE SCHEMA secret; CREATE TABLE secret.keys (id int PRIMARY KEY); ANALYZE",
        )
        .await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let url = postgres.url().replace(&format!(":{PASSWORD}"), "");
    let password = format!("{PASSWORD}\n");
    let (code, shown) =
        talk(directory.path(), &url, &[("Password: ", &password), ("Name of the source", "\u{4}")]);
    assert_eq!(code, Some(78), "{shown}");
    assert!(shown.contains("nobody answers") && !file.exists(), "{shown}");

    let answers = [
        ("Password: ", password.as_str()),
        ("Name of the source [postgres]: ", "Shop!\n"),
        ("a-z, 0-9, - and _, please", "shop\n"),
        ("Tables, as globs on schema.table", "orders\n"),
        ("schema and table, please", "public.* !public.old_*\n"),
        ("NATS, its URL or embedded [embedded]: ", "\n"),
        ("Role of the gateway [headgate]: ", "least\n"),
        ("How long may the gateway be away [8h]: ", "soon\n"),
        ("a duration, please", "2d\n"),
    ];
    let (code, shown) = talk(directory.path(), &url, &answers);
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains(PASSWORD), "the password was shown: {shown}");
    assert!(shown.contains("public.orders") && shown.contains("500"), "tables and their sizes: {shown}");
    let text = std::fs::read_to_string(&file).unwrap();
    for line in [
        "[sources.shop]",
        "url = \"postgres://least:${SHOP_PASSWORD}@",
        "tables = [\"public.*\", \"!public.old_*\"]",
        "outage_budget = \"2d\"",
    ] {
        assert!(text.contains(line), "no {line} in {text}");
    }
    assert!(!text.contains(PASSWORD) && !text.contains("secret.keys"), "{text}");
}

#[test]
fn what_it_cannot_use_is_refused_without_repeating_it() {
    let directory = tempfile::tempdir().unwrap();
    let secret = format!("postgres://u:{PASSWORD}@127.0.0.1:1/d");
    assert_eq!(init(directory.path(), &[&secret]).0, Some(69));
    let no_user = format!("postgres://127.0.0.1/d?password={PASSWORD}");
    let another = format!("oracle://u:{PASSWORD}@h/d");
    for arguments in [
        &[no_user.as_str()][..],
        &[&another],
        &[&secret, "--name", "Shop!"],
        &[&secret, "--table", "orders"],
        &[&secret, "--outage-budget", "soon"],
    ] {
        assert_eq!(init(directory.path(), arguments).0, Some(64), "{arguments:?}");
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "nothing is written");
}
