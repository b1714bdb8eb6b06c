//! The end of a run: the final and the averaged weights, and what they achieve on the test set.

use std::sync::Arc;

use anyhow::Result;
use datasets::Pipeline;

use super::active::{Ending, Run};
use crate::config::{ClassMatching, Protocol};
use crate::evaluate::examples::Examples;
use crate::evaluate::finished::{evaluate_weights, remove_journals};
use crate::evaluate::request::{EvaluatedWeights, EvaluationData, EvaluationFiles, EvaluationRequest};
use crate::model::Model;
use crate::run::averages::Average;
use crate::run::events::{Event, RunFinished};
use crate::run::metrics::listener;
use crate::run::networks::student;
use crate::step::batch::Batch;
use crate::step::running_statistics;
use crate::system::Stage;
use crate::system::agreement::agree;
use crate::weights::checkpoint::read_header;

impl Run<'_> {
    /// Keeps the final and the averaged weights, and evaluates the best ones and those on the test set.
    pub(super) fn finish(&mut self, pipeline: &Pipeline) -> Result<Ending> {
        let timing = self.clock.timing();
        let context = self.context;
        self.finish_save()?;
        context.place.activity.begin_next(Stage::Evaluation);
        self.keep_student("final")?;
        let mut evaluated = vec![if self.state.best.is_some() { "best" } else { "final" }];
        let wants_final = context.config.evaluation.last && evaluated[0] != "final";
        let best_is_final = wants_final && self.best_is_final()?;
        if wants_final && !best_is_final {
            evaluated.push("final");
        }
        let mut averaged = vec![];
        for average in self.averages.iter() {
            let Some(model) = self.averaged(average, pipeline)? else { return Ok(Ending::Stopped) };
            averaged.push((average.name, model));
        }
        for (name, model) in averaged {
            self.keep_weights(name, &model)?;
            evaluated.push(name);
        }
        // What is evaluated is read from its file, by all ranks.
        agree(context.ranks(), self.write_kept_weights())?;
        context.place.activity.begin_next(Stage::Evaluation);
        let suite = context.config.suite()?;
        let files: Vec<_> = evaluated
            .iter()
            .enumerate()
            .map(|(index, name)| context.folder.evaluation((index > 0).then_some(name)))
            .collect();
        for (file, name) in files.iter().zip(evaluated).filter(|_| !suite.attacks.is_empty()) {
            let config = context.config;
            let request = EvaluationRequest {
                run: context.folder.name(),
                command: format!("iad-launch eval {} --weights {name}", context.folder.path.display()),
                weights: EvaluatedWeights {
                    name: name.to_string(),
                    file: context.folder.weights(name),
                    selection: config.evaluation.selection.name(),
                    match_classes: ClassMatching::Name,
                },
                data: EvaluationData {
                    source: Arc::clone(&context.prepared.evaluated),
                    file: config.data.test.clone(),
                },
                suite: suite.clone(),
                protocol: Protocol::of(config),
                dtype: config.precision.dtype.of_evaluation(),
                // Several evaluations follow each other. A kept journal saves one that is done from being repeated when a
                // later one is interrupted.
                outputs: EvaluationFiles { results: file.clone(), adversarial: None, keeps_journal: true },
            };
            let (place, requested) = (context.place, context.stop.requested);
            let found = evaluate_weights(&request, place, requested, &mut listener(self.console))?;
            let Some(found) = found else { return Ok(Ending::Stopped) };
            if *file == files[0] {
                self.keep_examples(&request)?;
            }
            if name == "best" && best_is_final && context.ranks().is_leader() {
                let to = context.folder.evaluation(Some("final"));
                found.write_for("final", &context.folder.weights("final"), file, &to)?;
            }
        }
        if context.ranks().is_leader() {
            files.iter().for_each(|file| remove_journals(file));
        }
        self.record(&Event::Finished(RunFinished { step: self.state.progress.step, timing }))?;
        if let Some(journal) = &mut self.journal {
            journal.sync()?;
        }
        context.ranks().barrier()?;
        Ok(Ending::Finished)
    }

    /// The leader attacks a few images and keeps them for people to look at. The run is whole without them.
    fn keep_examples(&mut self, request: &EvaluationRequest) -> Result<()> {
        let context = self.context;
        context.place.activity.begin_next(Stage::Evaluation);
        if !context.ranks().is_leader() {
            return Ok(());
        }
        let kept = Examples::attack(request, &self.step.work.networks, context.place.device);
        if let Err(problem) = kept.and_then(|examples| examples.write(&context.folder.examples())) {
            let message = format!("there are no images under attack for the report: {problem:#}");
            self.console.record(&Event::Warned { message })?;
        }
        Ok(())
    }

    /// Whether the best weights are those of the last step, which need no second evaluation. The leader reads them for all.
    fn best_is_final(&self) -> Result<bool> {
        let ranks = self.context.ranks();
        let step = || Some(read_header(&self.context.folder.weights("best")).ok()?.progress.step);
        let same = ranks.is_leader() && step() == Some(self.state.progress.step);
        Ok(ranks.gather(if same { "same" } else { "" })?[0] == "same")
    }

    /// A network of averaged weights. A mean over epochs measures its running statistics on the training images, as they
    /// would come in one more epoch. Nothing, if any rank was told to stop.
    fn averaged(&self, average: &Average, pipeline: &Pipeline) -> Result<Option<Model>> {
        let model = student(self.context, &self.step.work.networks.timeline);
        average.put_into(&model, &self.step.work.networks.student)?;
        let (ranks, device) = (&self.context.place.ranks, self.context.place.device);
        if average.needs_statistics() {
            let (shape, kind) = (self.context.prepared.form.image, model.kind());
            let batches = pipeline.epoch(self.context.config.epochs, 0);
            let batches = batches.map(|host| Ok(Batch::upload(&host?, shape, kind, device)));
            if !running_statistics::measure(&model, batches, ranks, || Ok(!self.stop_asked()?))? {
                return Ok(None);
            }
        }
        Ok(Some(model))
    }
}
