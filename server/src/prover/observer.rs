//! Passes the stages of the mathematics on to the service.

use std::sync::{Mutex, PoisonError};

use zkinfer_circuits::pipeline::{Cancelled, Observer, Stage};

use super::{ProgressSink, StageEdge, StageEvent, StagePlan, Stopped};

/// Passes stages on to the service.
pub(super) struct Reporter<'a> {
    sink: &'a dyn ProgressSink,
    totals: Mutex<Vec<(Stage, usize)>>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(sink: &'a dyn ProgressSink) -> Self {
        Self { sink, totals: Mutex::new(Vec::new()) }
    }

    fn event(&self, stage: Stage, step: usize, edge: StageEdge) -> Result<(), Cancelled> {
        let totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let total = totals.iter().find(|(known, _)| *known == stage).map_or(1, |(_, total)| *total);
        let event = StageEvent { name: stage.name(), index: step as u32, total: total as u32, edge };
        self.sink.report(event).map_err(|Stopped| Cancelled)
    }
}

/// Expected time of one step, measured on two cores; only the proportions matter.
fn step_cost_ms(stage: Stage) -> u64 {
    match stage {
        Stage::Witness | Stage::Bind => 2,
        Stage::Verify | Stage::Commit => 15,
        Stage::Weights => 60,
        Stage::Layer => 80,
        Stage::Leaf | Stage::Join => 2_000,
        Stage::Outer => 2_500,
    }
}

impl Observer for Reporter<'_> {
    fn plan(&self, stages: &[(Stage, usize)]) {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = stages.to_vec();
        let plan: Vec<StagePlan> = stages
            .iter()
            .filter(|(_, total)| *total > 0)
            .map(|&(stage, total)| StagePlan { name: stage.name(), total: total as u32, cost_ms: step_cost_ms(stage) * total as u64 })
            .collect();
        self.sink.plan(&plan);
    }

    fn begin(&self, stage: Stage, step: usize) -> Result<(), Cancelled> {
        self.event(stage, step, StageEdge::Begin)
    }

    fn end(&self, stage: Stage, step: usize) {
        // A stop is noticed at the next begin.
        let _ = self.event(stage, step, StageEdge::End);
    }
}
