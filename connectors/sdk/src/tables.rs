//! Which tables are captured: globs on `schema.table`, pure and in one place, so that what a connector asks the database
//! for and what it tells cannot disagree.

/// Globs on `schema.table`. A table is captured when at least one glob includes it and none excludes it.
///
/// `*` stands for any run of characters (a dot too), `?` for one; a leading `!` makes a glob exclude. Names are
/// compared as the catalog has them, case and all.
#[derive(Clone, Debug)]
pub struct TableFilter {
    include: Vec<Vec<char>>,
    exclude: Vec<Vec<char>>,
}

impl TableFilter {
    /// Reads the globs, in any order.
    pub fn new<S: AsRef<str>>(globs: &[S]) -> Self {
        let (mut include, mut exclude) = (Vec::new(), Vec::new());
        for glob in globs {
            let glob = glob.as_ref().trim();
            match glob.strip_prefix('!') {
                Some(glob) => exclude.push(glob.chars().collect()),
                None => include.push(glob.chars().collect()),
            }
        }
        Self { include, exclude }
    }

    /// Whether `schema.table` is captured.
    #[must_use]
    pub fn matches(&self, schema: &str, table: &str) -> bool {
        let name: Vec<char> = schema.chars().chain(['.']).chain(table.chars()).collect();
        let any = |globs: &[Vec<char>]| globs.iter().any(|glob| glob_matches(glob, &name));
        any(&self.include) && !any(&self.exclude)
    }
}

/// Whether the whole of `name` matches. Goes back to the last star only, so the worst case is glob times name.
fn glob_matches(glob: &[char], name: &[char]) -> bool {
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&wanted) = name.get(n) {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&c) if c == '?' || c == wanted => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|&c| c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(globs: &[&str], schema: &str, table: &str) -> bool {
        TableFilter::new(globs).matches(schema, table)
    }

    #[test]
    fn includes_and_excludes() {
        assert!(captured(&["public.*"], "public", "orders"));
        assert!(!captured(&["public.*"], "audit", "orders"));
        assert!(!captured(&["*.*", "!audit.*"], "audit", "log"));
        assert!(!captured(&["!audit.*", "*.*"], "audit", "log"));
        assert!(!captured(&["!audit.*"], "public", "orders"), "excluding alone includes nothing");
        assert!(!captured(&[], "public", "orders"));
    }

    #[test]
    fn wildcards() {
        assert!(captured(&["public.order_?"], "public", "order_1"));
        assert!(!captured(&["public.order_?"], "public", "order_12"));
        assert!(captured(&["p*c.*_log"], "public", "a_log_log"));
        assert!(captured(&["*"], "any", "thing"));
        assert!(captured(&["public.Größe"], "public", "Größe"));
        assert!(!captured(&["public.orders"], "public", "Orders"));
        assert!(!captured(&["public.orders"], "public", "orders2"));
    }

    #[test]
    fn many_stars_do_not_explode() {
        let glob = "*a".repeat(64);
        assert!(!captured(&[&glob], "public", &"b".repeat(4096)));
    }
}
