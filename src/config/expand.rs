//! `${NAME}` and `${NAME:-default}` in strings; `$${` is a plain `${`.

/// The text with its variables filled in.
///
/// # Errors
/// A variable that is not set and has no default, or a reference that is not whole. The error holds names only.
pub(crate) fn expand(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &reference[2..];
            continue;
        }
        out.push_str(before);
        let Some((inside, after)) = reference[2..].split_once('}') else {
            return Err("`${` without its `}`".to_owned());
        };
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err("`${…}` does not hold the name of a variable".to_owned());
        }
        match (env(name), default) {
            // As in a shell, the default also stands in for an empty value.
            (Some(value), Some(default)) if value.is_empty() => out.push_str(default),
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(format!("the environment variable {name} is not set")),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_in_variables_and_defaults() {
        let env = |name: &str| match name {
            "HOST" => Some("db".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${HOST}".to_owned()),
            _ => None,
        };
        let ok = |text: &str| expand(text, &env);
        assert_eq!(ok("plain $5 {x}"), Ok("plain $5 {x}".to_owned()));
        assert_eq!(ok("a${HOST}b${HOST}"), Ok("adbbdb".to_owned()));
        assert_eq!(ok("${NONE:-x:-y}${EMPTY:-z}[${EMPTY}]${NONE:-}"), Ok("x:-yz[]".to_owned()));
        assert_eq!(
            ok("$${HOST} ${NESTED}"),
            Ok("${HOST} ${HOST}".to_owned()),
            "values are not expanded again"
        );
        assert_eq!(ok("${NONE}"), Err("the environment variable NONE is not set".to_owned()));
        assert!(ok("${HOST").is_err() && ok("${}").is_err() && ok("${A B}").is_err());
    }
}
