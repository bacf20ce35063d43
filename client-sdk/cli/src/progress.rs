//! Progress on standard error: one bar per stage with time left, plain lines where there is no terminal, nothing with `--json`.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use zkinfer_client::proto::job_event::Detail;
use zkinfer_client::proto::{JobEvent, Progress, Stage, TaskNote};

use crate::output::Output;
use crate::table;

/// Steps of the bar for the whole.
const WHOLE: u64 = 1000;

/// Shows the progress of one registration or job.
pub(crate) struct ProgressView {
    kind: Kind,
    seen: Vec<Seen>,
}

enum Kind {
    Bars { bars: MultiProgress, whole: ProgressBar },
    Lines,
    Silent,
}

/// A stage, in the service's order.
struct Seen {
    done: u32,
    bar: Option<ProgressBar>,
}

impl ProgressView {
    /// Starts a view.
    pub(crate) fn new(output: &Output) -> Self {
        let kind = if output.is_json() {
            Kind::Silent
        } else if std::io::stderr().is_terminal() {
            let bars = MultiProgress::new();
            let whole = bars.add(ProgressBar::new(WHOLE));
            whole.set_style(style("  {prefix:<12} {bar:28.cyan} {percent:>3} %   {msg}"));
            whole.set_prefix("waiting");
            Kind::Bars { bars, whole }
        } else {
            Kind::Lines
        };
        Self { kind, seen: Vec::new() }
    }

    /// Shows what is known now.
    pub(crate) fn update(&mut self, progress: Option<&Progress>) {
        let Some(progress) = progress else { return };
        for (index, stage) in progress.stages.iter().enumerate() {
            self.update_stage(index, stage);
        }
        if let Kind::Bars { whole, .. } = &self.kind {
            whole.set_position((progress.fraction.clamp(0.0, 1.0) * WHOLE as f64) as u64);
            whole.set_prefix("in all");
            whole.set_message(whole_message(progress));
        }
    }

    /// Shows how far a job is, and what happened to one of its tasks.
    pub(crate) fn job(&mut self, event: &JobEvent) {
        self.update(event.progress.as_ref());
        for note in notes(event) {
            match &self.kind {
                Kind::Bars { bars, .. } => drop(bars.println(note_line(note))),
                Kind::Lines => drop(writeln!(std::io::stderr(), "{}", note_line(note))),
                Kind::Silent => {}
            }
        }
    }

    fn update_stage(&mut self, index: usize, stage: &Stage) {
        if index >= self.seen.len() {
            let bar = self.add_bar(stage);
            self.seen.push(Seen { done: 0, bar });
        }
        let Some(seen) = self.seen.get_mut(index) else { return };
        if let Some(bar) = &seen.bar {
            bar.set_length(u64::from(stage.total).max(1));
            bar.set_position(stage.done.into());
            bar.set_message(stage_message(stage));
            if stage.done >= stage.total && !bar.is_finished() {
                bar.finish();
            }
        } else if matches!(self.kind, Kind::Lines) && stage.done > seen.done {
            let line = format!("  {:<12} {}/{}   {}", stage.name, stage.done, stage.total, stage_message(stage));
            // Progress is lost if nobody reads it.
            let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
        }
        seen.done = stage.done;
    }

    fn add_bar(&self, stage: &Stage) -> Option<ProgressBar> {
        let Kind::Bars { bars, whole } = &self.kind else { return None };
        let bar = bars.insert_before(whole, ProgressBar::new(u64::from(stage.total).max(1)));
        bar.set_style(style("  {prefix:<12} {bar:28} {pos:>3}/{len:<3} {msg}"));
        bar.set_prefix(stage.name.clone());
        Some(bar)
    }

    /// Ends the view; the bars stay.
    pub(crate) fn finish(self) {
        for bar in self.seen.iter().filter_map(|seen| seen.bar.as_ref()) {
            if !bar.is_finished() {
                bar.abandon();
            }
        }
        if let Kind::Bars { whole, .. } = &self.kind {
            whole.finish_and_clear();
        }
    }
}

/// The template is a constant, and the default style is as good if it ever is not valid.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━ ")
}

fn duration(elapsed: Option<&zkinfer_client::WireDuration>) -> Duration {
    elapsed.and_then(|elapsed| Duration::try_from(*elapsed).ok()).unwrap_or_default()
}

/// Time spent, or time left while the stage runs.
fn stage_message(stage: &Stage) -> String {
    let elapsed = duration(stage.elapsed.as_ref());
    match stage.total.saturating_sub(stage.done) {
        0 => table::time(elapsed),
        left if stage.done > 0 => format!("{} left", table::time(elapsed * left / stage.done)),
        _ => String::new(),
    }
}

/// What happened to tasks: of the first event, until then.
pub(crate) fn notes(event: &JobEvent) -> &[TaskNote] {
    match &event.detail {
        Some(Detail::Snapshot(job)) => &job.notes,
        Some(Detail::Note(note)) => std::slice::from_ref(note),
        _ => &[],
    }
}

fn note_line(note: &TaskNote) -> String {
    format!("  {:<12} {}, attempt {}: {}", note.task, note.outcome, note.attempt, note.message)
}

fn whole_message(progress: &Progress) -> String {
    match progress.eta.as_ref() {
        Some(eta) => format!("{} left", table::time(duration(Some(eta)))),
        None if progress.queue_position > 0 => format!("{} ahead in the queue", progress.queue_position),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(done: u32, total: u32, seconds: i64) -> Stage {
        let elapsed = Some(zkinfer_client::WireDuration { seconds, nanos: 0 });
        Stage { name: "layer".into(), total, done, elapsed }
    }

    #[test]
    fn a_running_stage_shows_time_left_and_a_finished_one_time_spent() {
        assert_eq!(stage_message(&stage(0, 4, 3)), "");
        assert_eq!(stage_message(&stage(1, 4, 3)), "9.00 s left");
        assert_eq!(stage_message(&stage(4, 4, 3)), "3.00 s");
    }

    #[test]
    fn a_note_says_what_happened_to_which_task() {
        let note = TaskNote { task: "layer-0007".into(), attempt: 2, outcome: "TOO_LARGE".into(), message: "it needs 9 GiB".into() };
        assert_eq!(note_line(&note), "  layer-0007   TOO_LARGE, attempt 2: it needs 9 GiB");
    }
}
