//! The database's URL: what it is reached by, and what of it may be written into a file. Pure.

use percent::encode;

/// A URL in its parts. `Debug` is left out on purpose: it holds a password.
#[derive(Clone)]
pub(super) struct Address {
    scheme: String,
    user: String,
    /// As it stands in the URL, percent-encoded.
    password: Option<Password>,
    /// From after the `@`: hosts, database, parameters.
    rest: String,
    /// `rest` with its variables filled in.
    expanded_rest: String,
}

#[derive(Clone)]
struct Password {
    /// With its variables filled in.
    value: String,
    /// The text that names variables for it, if that is what was given.
    reference: Option<String>,
}

const FORM: &str = "write the url as postgres://user:password@host:5432/database or mysql://user:password@host:3306/database, with special characters percent-encoded";

impl Address {
    /// Reads a URL; `${NAME}` in it is filled in for reaching the database, and kept for the file.
    pub(super) fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let expand = |part: &str| crate::config::expand(part, env);
        let (scheme, after) = text.split_once("://").ok_or(FORM)?;
        let variable = match scheme {
            "postgres" | "postgresql" => "PGPASSWORD",
            "mysql" | "mariadb" => "MYSQL_PWD",
            _ => return Err(FORM.to_owned()),
        };
        // Variables may hold a slash or an at; those of the URL itself stand outside of braces.
        let end = outside(after, &['/', '?']).unwrap_or(after.len());
        let (login, rest) = match after.get(..end).and_then(|authority| authority.rfind('@')) {
            Some(at) => (&after[..at], &after[at + 1..]),
            None => return Err(format!("the url names no user; {FORM}")),
        };
        if rest.split(['?', '&']).skip(1).any(|parameter| parameter.starts_with("password=")) {
            return Err(format!("the password belongs before the @; {FORM}"));
        }
        let (user, password) = match outside(login, &[':']) {
            Some(at) => (&login[..at], Some(&login[at + 1..])),
            None => (login, None),
        };
        let password = match password.filter(|password| !password.is_empty()) {
            Some(text) => Some(Password {
                value: expand(text)?,
                reference: text.contains("${").then(|| text.to_owned()),
            }),
            None => env(variable)
                .filter(|password| !password.is_empty())
                .map(|password| Password { value: encode(&password), reference: None }),
        };
        if user.is_empty() {
            return Err(format!("the url names no user; {FORM}"));
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            user: user.to_owned(),
            password,
            expanded_rest: expand(rest)?,
            rest: rest.to_owned(),
        })
    }

    /// The URL to connect with. Holds the password.
    pub(super) fn reach(&self) -> String {
        let Self { scheme, user, expanded_rest, .. } = self;
        match &self.password {
            Some(password) => format!("{scheme}://{user}:{}@{expanded_rest}", password.value),
            None => format!("{scheme}://{user}@{expanded_rest}"),
        }
    }

    /// The URL to write: with `role` for the user and, where a password is needed, a variable for it.
    pub(super) fn written(&self, role: &str, same_user: bool, variable: &str) -> String {
        let Self { scheme, rest, .. } = self;
        let user = if same_user { self.user.clone() } else { encode(role) };
        match &self.password {
            Some(Password { reference: Some(reference), .. }) if same_user => {
                format!("{scheme}://{user}:{reference}@{rest}")
            }
            // A role that is yet to be made gets a password.
            Some(_) => format!("{scheme}://{user}:${{{variable}}}@{rest}"),
            None if !same_user => format!("{scheme}://{user}:${{{variable}}}@{rest}"),
            None => format!("{scheme}://{user}@{rest}"),
        }
    }

    /// Whether it is MySQL or MariaDB that it names.
    pub(super) fn is_mysql(&self) -> bool {
        matches!(self.scheme.as_str(), "mysql" | "mariadb")
    }

    /// Whether there is a password.
    pub(super) fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// The same with a password that somebody typed.
    pub(super) fn with_password(mut self, password: &str) -> Self {
        self.password = Some(Password { value: encode(password), reference: None });
        self
    }
}

/// Where one of these characters stands first outside of `${…}`.
fn outside(text: &str, wanted: &[char]) -> Option<usize> {
    let mut inside = false;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match c {
            '{' if before == '$' => inside = true,
            '}' => inside = false,
            c if !inside && wanted.contains(&c) => return Some(at),
            _ => {}
        }
        before = c;
    }
    None
}

/// A name for a source, made of what a database is called.
pub(super) fn source_name(text: &str) -> String {
    let kept: String = text
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' { c } else { '_' })
        .collect();
    let name: String = kept.trim_start_matches(['_', '-']).chars().take(40).collect();
    match name.as_str() {
        "" | "dlq" => "db".to_owned(),
        _ => name,
    }
}

/// The variable that holds a source's password.
pub(super) fn variable(name: &str) -> String {
    let letters: String = name.chars().map(|c| if c == '-' { '_' } else { c.to_ascii_uppercase() }).collect();
    // A variable does not begin with a digit.
    if letters.starts_with(|c: char| c.is_ascii_digit()) {
        format!("DB_{letters}_PASSWORD")
    } else {
        format!("{letters}_PASSWORD")
    }
}

mod percent {
    /// Percent-encodes everything that has a meaning in a URL, or in a string of the configuration.
    pub(super) fn encode(text: &str) -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    char::from(byte).to_string()
                }
                byte => format!("%{byte:02X}"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn address(text: &str) -> Result<Address, String> {
        Address::parse(text, &|name| (name == "PW").then(|| "s3cret".to_owned()))
    }

    #[test]
    fn a_password_is_reached_by_and_never_written() {
        let given = address("postgres://cdc:s3cret@db:5432/shop?sslmode=require").unwrap();
        assert_eq!(given.reach(), "postgres://cdc:s3cret@db:5432/shop?sslmode=require");
        assert_eq!(
            given.written("cdc", true, "SHOP_PASSWORD"),
            "postgres://cdc:${SHOP_PASSWORD}@db:5432/shop?sslmode=require"
        );
        let named = address("postgres://cdc:${PW}@db/shop").unwrap();
        assert_eq!(named.reach(), "postgres://cdc:s3cret@db/shop");
        assert_eq!(named.written("cdc", true, "X"), "postgres://cdc:${PW}@db/shop");
        assert_eq!(named.written("head gate", false, "X"), "postgres://head%20gate:${X}@db/shop");
        let none = address("postgres://cdc@db/shop").unwrap();
        assert!(!none.has_password());
        assert_eq!(none.written("cdc", true, "X"), "postgres://cdc@db/shop");
        let typed = none.with_password("p@ss/w${0}");
        assert_eq!(typed.reach(), "postgres://cdc:p%40ss%2Fw%24%7B0%7D@db/shop");
        assert!(!typed.written("cdc", true, "X").contains("p%40"));
    }

    #[test]
    fn what_cannot_be_kept_secret_is_refused_without_repeating_it() {
        for text in [
            "postgres://db/shop",
            "postgres://cdc@db/shop?password=s3cret",
            "host=db password=s3cret",
            "oracle://u:s3cret@db/shop",
            "postgres://:s3cret@db/shop",
            "postgres://u:${NONE}s3cret@db/shop",
        ] {
            let error = address(text).err().unwrap();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn names_are_made_of_what_a_database_is_called() {
        let names = ["Shop DB", "_x", "dlq", "", "a.b", "größe"].map(source_name);
        assert_eq!(names, ["shop_db", "x", "db", "db", "a_b", "gr__e"]);
        assert_eq!(
            (variable("my-shop"), variable("1st")),
            ("MY_SHOP_PASSWORD".to_owned(), "DB_1ST_PASSWORD".to_owned())
        );
    }
}
