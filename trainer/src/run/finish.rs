//! The end of a run: the final and the averaged weights, and what they achieve on the test set.

use anyhow::Result;
use datasets::Pipeline;

use super::{Ending, Run};
use crate::averages::Average;
use crate::batch::Batch;
use crate::evaluate::{Protocol, Suite};
use crate::evaluation::{Request, evaluate_weights, remove_journals};
use crate::metrics::Event;
use crate::model::Model;
use crate::statistics;
use crate::views::student;

impl Run<'_> {
    /// Keeps the final and the averaged weights, and evaluates the best ones and those on the test set.
    pub(super) fn finish(&mut self, pipeline: &Pipeline) -> Result<Ending> {
        let seconds = self.clock.timing();
        self.save_weights("final", &self.step.networks.student)?;
        let mut evaluated = vec![if self.header.best.is_some() { "best" } else { "final" }];
        if self.config.evaluation.last && evaluated[0] != "final" {
            evaluated.push("final");
        }
        for average in self.averages.iter() {
            let Some(model) = self.averaged(average, pipeline)? else { return Ok(Ending::Stopped) };
            self.save_weights(average.name, &model)?;
            evaluated.push(average.name);
        }
        self.place.ranks.barrier()?;
        let suite = Suite::named(self.config.evaluation.suite.iter().map(String::as_str));
        let suite = suite.map_err(|name| anyhow::anyhow!("no attack {name}"))?;
        let files: Vec<_> = evaluated
            .iter()
            .enumerate()
            .map(|(index, name)| self.folder.evaluation((index > 0).then_some(name)))
            .collect();
        for (file, name) in files.iter().zip(evaluated).filter(|_| !suite.attacks.is_empty()) {
            let (config, place) = (self.config, self.place);
            let request = Request {
                run: self.folder.name(),
                name,
                weights: &self.folder.weights(name),
                source: self.prepared.test.as_ref(),
                data: &config.data.test,
                suite: &suite,
                protocol: Protocol::of(config),
                dtype: config.precision.dtype.of_evaluation(),
                selection: config.evaluation.selection.name(),
                file: file.clone(),
                adversarial: None,
                // Several evaluations follow each other: one that is done is not done again when a later one is interrupted.
                keeps_journal: true,
            };
            if evaluate_weights(&request, place, self.stop.requested, self.console)?.is_none() {
                return Ok(Ending::Stopped);
            }
        }
        if self.place.ranks.is_leader() {
            files.iter().for_each(|file| remove_journals(file));
        }
        self.record(&Event::Finished { step: self.header.progress.step, timing: seconds })?;
        if let Some(journal) = &mut self.journal {
            journal.sync()?;
        }
        self.place.ranks.barrier()?;
        Ok(Ending::Finished)
    }

    /// A network of averaged weights. A mean over epochs measures its running statistics on the training images, as they
    /// would come in one more epoch. Nothing, if any rank was told to stop.
    fn averaged(&self, average: &Average, pipeline: &Pipeline) -> Result<Option<Model>> {
        let model = student(self.config, self.prepared, self.place, &self.step.networks.timeline);
        average.put_into(&model, &self.step.networks.student)?;
        let (ranks, device) = (self.place.ranks.as_ref(), self.place.device);
        if average.needs_statistics() {
            let (shape, kind) = (self.prepared.form.image, model.kind());
            let batches = pipeline.epoch(self.config.epochs, 0);
            let batches = batches.map(|host| Ok(Batch::upload(&host?, shape, kind, device)));
            if !statistics::measure(&model, batches, ranks, || Ok(!self.stop_asked()?))? {
                return Ok(None);
            }
        }
        Ok(Some(model))
    }
}
