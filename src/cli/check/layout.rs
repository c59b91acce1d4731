//! Findings for people: a mark, the subject, what was found; why it matters and what fixes it below.
//!
//! On a terminal lines are broken at words so that they stay in their column; in a pipe a text is one line, for grep.

use super::Found;
use crate::cli::paint::Paint;
use headgate_sdk::{Finding, Severity};

/// The widest column of subjects.
const WIDEST: usize = 34;
/// A column of text that is narrower than this is not worth breaking lines for.
const NARROWEST: usize = 30;

/// How findings are laid out.
pub(super) struct Layout {
    paint: Paint,
    /// Characters a line; `None` for lines as long as they are.
    columns: Option<usize>,
}

impl Layout {
    /// As standard output wants it.
    pub(super) fn of_terminal(paint: Paint) -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        Self { paint, columns: size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0) }
    }

    /// All findings, by their scope.
    pub(super) fn table(&self, found: &[Found]) -> String {
        let width = width(found.iter().map(|found| &found.finding));
        let mut out = String::new();
        let mut scope = "";
        for Found { scope: of, finding } in found {
            if of != scope {
                out.push_str(if scope.is_empty() { "" } else { "\n" });
                out.push_str(&self.paint.bold(of));
                out.push('\n');
                scope = of;
            }
            self.finding(finding, width, &mut out);
        }
        out
    }

    fn finding(&self, finding: &Finding, width: usize, out: &mut String) {
        let paint = self.paint;
        let mark = match finding.severity {
            Severity::Good => paint.green("✓"),
            Severity::Warning => paint.yellow("!"),
            Severity::Error => paint.red("✗"),
        };
        let subject = plain(&finding.subject);
        let first = format!("  {mark} {subject:<width$}  ");
        let indent = " ".repeat(width + 6);
        // A subject that is too long for its column has a line for itself.
        let lead =
            if subject.chars().count() > width { format!("{}\n{indent}", first.trim_end()) } else { first };
        let mut lead = Some(lead);
        let mut put = |text: &str, style: &dyn Fn(&str) -> String| {
            for line in self.broken(text, width + 6) {
                out.push_str(&lead.take().unwrap_or_else(|| indent.clone()));
                out.push_str(&style(&line));
                out.push('\n');
            }
        };
        put(&plain(&finding.what), &str::to_owned);
        if !finding.why.is_empty() {
            put(&plain(&finding.why), &|line| paint.dim(line));
        }
        for line in finding.fix.iter().flat_map(|fix| fix.lines()) {
            put(&format!("fix: {}", plain(line)), &|line| paint.bold(line));
        }
    }

    /// The text in lines that fit beside an indent.
    fn broken(&self, text: &str, indent: usize) -> Vec<String> {
        let Some(room) = self.columns.and_then(|columns| columns.checked_sub(indent)) else {
            return vec![text.to_owned()];
        };
        if room < NARROWEST {
            return vec![text.to_owned()];
        }
        let mut lines = vec![String::new()];
        for word in text.split(' ') {
            let line = lines.last().map_or(0, |line| line.chars().count());
            if line > 0 && line + 1 + word.chars().count() > room {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            }
        }
        lines
    }
}

/// Findings of one scope, in lines as long as they are.
pub(in crate::cli) fn list<'a>(findings: impl Iterator<Item = &'a Finding> + Clone, paint: Paint) -> String {
    let layout = Layout { paint, columns: None };
    let width = width(findings.clone());
    let mut out = String::new();
    for finding in findings {
        layout.finding(finding, width, &mut out);
    }
    out
}

/// The last line: how many, and what that means.
pub(super) fn summary(found: &[Found], paint: Paint) -> String {
    let count = |severity| found.iter().filter(|found| found.finding.severity == severity).count();
    match (count(Severity::Error), count(Severity::Warning)) {
        (0, 0) => paint.green("all is well"),
        (0, warnings) => paint.yellow(&format!("the run will work; {warnings} to look at")),
        (errors, warnings) => paint.red(&format!("{errors} to fix first, {warnings} to look at")),
    }
}

fn width<'a>(findings: impl Iterator<Item = &'a Finding>) -> usize {
    let widths = findings.map(|finding| finding.subject.chars().count());
    widths.filter(|width| *width <= WIDEST).max().unwrap_or(0)
}

/// Without control characters: names come from databases, and must not move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> [Found; 3] {
        [
            ("config", Finding::good("configuration", "config.toml is sound")),
            (
                "shop",
                Finding::error("wal_level", "replica", "no changes can be read")
                    .with_fix("ALTER SYSTEM SET wal_level = logical;\n-- then restart"),
            ),
            (
                "shop",
                Finding::warning(
                    format!("replica identity of public.{}", "x".repeat(20)),
                    "none\u{1b}[2J",
                    "its updates and deletes are not captured at all, as it happens",
                ),
            ),
        ]
        .map(|(scope, finding)| Found { scope: scope.to_owned(), finding })
    }

    #[test]
    fn findings_are_aligned_with_why_and_fix_below() {
        let layout = Layout { paint: Paint::plain(), columns: None };
        assert_eq!(
            layout.table(&found()[..2]),
            "config\n  ✓ configuration  config.toml is sound\n\n\
             shop\n  ✗ wal_level      replica\n                   no changes can be read\n\
             \x20                  fix: ALTER SYSTEM SET wal_level = logical;\n                   fix: -- then restart\n"
        );
        assert_eq!(summary(&found(), Paint::plain()), "1 to fix first, 1 to look at");
    }

    #[test]
    fn lines_fit_a_terminal_and_nothing_steers_it() {
        let layout = Layout { paint: Paint::plain(), columns: Some(60) };
        let text = layout.table(&found());
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert!(text.contains("\n  ! replica identity of public.xxxxxxxxxxxxxxxxxxxx\n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }
}
