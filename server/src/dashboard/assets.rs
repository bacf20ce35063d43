//! Pages, scripts and styles, compiled in.

use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Name, type and text of each file.
const ASSETS: &[(&str, &str, &str)] = &[
    ("app.js", SCRIPT, include_str!("assets/app.js")),
    ("chart.js", SCRIPT, include_str!("assets/chart.js")),
    ("dom.js", SCRIPT, include_str!("assets/dom.js")),
    ("format.js", SCRIPT, include_str!("assets/format.js")),
    ("gantt.js", SCRIPT, include_str!("assets/gantt.js")),
    ("job.js", SCRIPT, include_str!("assets/job.js")),
    ("jobs.js", SCRIPT, include_str!("assets/jobs.js")),
    ("login.js", SCRIPT, include_str!("assets/login.js")),
    ("models.js", SCRIPT, include_str!("assets/models.js")),
    ("overview.js", SCRIPT, include_str!("assets/overview.js")),
    ("server.js", SCRIPT, include_str!("assets/server.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// The only page; what it shows is in the part of its address after `#`.
pub(super) async fn page() -> Response {
    file("text/html; charset=utf-8", include_str!("assets/index.html"))
}

/// A file of the page.
pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, _, _)| *known == name) {
        Some((_, content_type, text)) => file(content_type, text),
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

/// Kept by nobody, so that a page and its scripts are of one version.
fn file(content_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::placement::TaskKind;

    /// A step that the script does not know gets the colour of another one.
    #[test]
    fn the_chart_has_a_colour_for_each_step_of_the_engine() {
        let script = include_str!("assets/gantt.js");
        let (_, rest) = script.split_once("const STEPS = [").unwrap();
        let (list, _) = rest.split_once(']').unwrap();
        let drawn: Vec<&str> = list.split(',').map(|name| name.trim().trim_matches('"')).collect();
        // Registrations have no page with a chart.
        let steps: BTreeSet<&str> = TaskKind::ALL.iter().filter(|&&kind| kind != TaskKind::Register).map(|kind| kind.name()).collect();
        assert_eq!((drawn.len(), drawn.into_iter().collect::<BTreeSet<_>>()), (steps.len(), steps));
    }
}
