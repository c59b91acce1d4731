//! The text formats of `/metrics`: OpenMetrics for whoever asks for it, the older text format of Prometheus for everybody
//! else, as Prometheus's own client libraries do it.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

const OPEN_METRICS: &str = "application/openmetrics-text";

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Classic,
}

impl Format {
    /// What a scraper wants, by the values of its `Accept` headers: the format of more weight
    /// (<https://www.rfc-editor.org/rfc/rfc9110#section-12.5.1>). Of equals it is OpenMetrics, if that was named, for who
    /// knows it prefers it. Who accepts neither gets the older one.
    pub fn wanted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges: Vec<(String, f32)> =
            accept.into_iter().flat_map(|value| value.split(',')).map(range).collect();
        let weight = |kinds: [&str; 3]| {
            // The most specific range counts.
            let of = |kind: &&str| ranges.iter().find(|(range, _)| range == kind);
            kinds.iter().find_map(of).map_or(0.0, |(_, weight)| *weight)
        };
        let open_metrics = weight([OPEN_METRICS, "application/*", "*/*"]);
        let classic = weight(["text/plain", "text/*", "*/*"]);
        let is_named = open_metrics > 0.0 && ranges.iter().any(|(range, _)| range == OPEN_METRICS);
        if open_metrics > classic || (is_named && open_metrics >= classic) {
            Self::OpenMetrics
        } else {
            Self::Classic
        }
    }

    /// Its content type.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// A text of OpenMetrics in this format.
    #[must_use]
    pub fn of_open_metrics(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Classic => classic(&text),
        }
    }
}

/// One media range of an `Accept` header, in lower case, and its weight: 1 where none is said, or none that is one.
fn range(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(|part| part.trim().to_ascii_lowercase());
    let range = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok());
    (range, weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(1.0))
}

/// The same families, with counters under the name that their samples have, and without what the older format lacks.
fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len() + 512);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(of_family) = line.strip_prefix("# HELP ") {
            help = of_family.split_once(' ');
        } else if let Some(of_family) = line.strip_prefix("# TYPE ") {
            let Some((name, kind)) = of_family.split_once(' ') else { continue };
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                out.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            }
            out.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_for_those_that_ask() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert_eq!(Format::wanted([prometheus]), Format::OpenMetrics);
        for accept in ["*/*", "text/plain;version=0.0.4", "", "application/openmetrics-textual"] {
            assert_eq!(Format::wanted([accept]), Format::Classic, "{accept}");
        }
        assert_eq!(Format::wanted([]), Format::Classic);
        assert_eq!(Format::wanted(["text/plain", "application/openmetrics-text"]), Format::OpenMetrics);
    }

    #[test]
    fn the_format_of_more_weight_is_wanted() {
        for (accept, expected) in [
            ("application/openmetrics-text;q=0,text/plain", Format::Classic),
            ("application/openmetrics-text;q=0, */*", Format::Classic),
            ("application/openmetrics-text;version=1.0.0;q=0.2,text/plain;q=0.8", Format::Classic),
            ("Application/OpenMetrics-Text ; Q=0.9, text/plain;q=0.8", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.3,*/*;q=0.2", Format::OpenMetrics),
            ("application/openmetrics-text;q=0.3,text/*;q=0.4", Format::Classic),
            ("application/*, text/plain;q=0.1", Format::OpenMetrics),
            ("application/openmetrics-text;q=nan,text/plain;q=0.9", Format::OpenMetrics),
            ("image/png", Format::Classic),
        ] {
            assert_eq!(Format::wanted([accept]), expected, "{accept}");
        }
    }

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let text = "# HELP a_b Two words.\n# TYPE a_b counter\na_b_total{x=\"# y\"} 1\n# HELP g It.\n# TYPE g gauge\n\
                    # UNIT g bytes\ng 2\n# EOF\n";
        assert_eq!(
            Format::Classic.of_open_metrics(text.to_owned()),
            "# HELP a_b_total Two words.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n# HELP g It.\n# TYPE g gauge\ng 2\n"
        );
        assert_eq!(Format::OpenMetrics.of_open_metrics(text.to_owned()), text);
    }
}
