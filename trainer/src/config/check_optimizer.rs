//! The allowed values of `[optimizer]` and `[averages]`.

use datasets::UserError;

use crate::config::{LrPolicy, OneCycleCosine, OptimizerConfig, OptimizerKind, RunConfig};

use super::range::must;

impl RunConfig {
    pub(super) fn check_optimizer(&self) -> Result<(), UserError> {
        self.optimizer.check(self.epochs)
    }

    pub(super) fn check_averages(&self) -> Result<(), UserError> {
        let begins = |name: &str, epoch: u64| {
            let expected = format!("an epoch of the run, 0 to {}", self.epochs - 1);
            must(epoch < self.epochs, format!("averages.{name}.from_epoch"), epoch, &expected)
        };
        if let Some(ema) = &self.averages.ema {
            must((0.0..1.0).contains(&ema.decay), "averages.ema.decay", ema.decay, "0 or more, below 1")?;
            begins("ema", ema.from_epoch)?;
            if let Some(share) = ema.warm_up {
                must((0.0..=1.0).contains(&share), "averages.ema.warm_up", share, "a fraction of the run, 0 to 1")?;
                let expected = "0: averages.ema.warm_up already says when the average begins";
                must(ema.from_epoch == 0, "averages.ema.from_epoch", ema.from_epoch, expected)?;
            }
        }
        self.averages.swa.as_ref().map_or(Ok(()), |swa| begins("swa", swa.from_epoch))
    }
}

impl OptimizerConfig {
    /// Checks an optimizer of a run of so many epochs, under the keys of `[optimizer]`.
    pub(super) fn check(&self, epochs: u64) -> Result<(), UserError> {
        must(positive(self.lr), "optimizer.lr", self.lr, "a positive number")?;
        let (base, warm_up) = (self.lr_base_batch, self.lr_warmup_epochs);
        must((1..=1 << 20).contains(&base), "optimizer.lr_base_batch", base, "1 to 1,048,576 images")?;
        let allowed = format!("0 (none) to epochs, here {epochs}");
        must(warm_up <= epochs, "optimizer.lr_warmup_epochs", warm_up, &allowed)?;
        must((0.0..1.0).contains(&self.momentum), "optimizer.momentum", self.momentum, "0 or more, below 1")?;
        let decay = self.weight_decay;
        must((0.0..=1.0).contains(&decay), "optimizer.weight_decay", decay, "0 to 1")?;
        if let Some(norm) = self.clip_grad_norm {
            must(positive(norm), "optimizer.clip_grad_norm", norm, "a positive norm")?;
        }
        self.check_rule()?;
        self.lr_policy.check()
    }

    fn check_rule(&self) -> Result<(), UserError> {
        let adamw = self.kind == OptimizerKind::AdamW;
        let expected = "false: AdamW has no momentum of that kind";
        must(!(adamw && self.nesterov), "optimizer.nesterov", self.nesterov, expected)?;
        let expected = "false, or a positive optimizer.momentum: Nesterov's step needs one";
        must(!self.nesterov || self.momentum > 0.0, "optimizer.nesterov", self.nesterov, expected)?;
        let cycles = matches!(self.lr_policy, LrPolicy::OneCycleCosine(OneCycleCosine { cycle_momentum: true, .. }));
        let expected = "false: AdamW has no momentum to cycle";
        must(!(adamw && cycles), "optimizer.lr_policy.one_cycle_cosine.cycle_momentum", cycles, expected)?;
        for (index, beta) in self.betas.into_iter().enumerate() {
            must((0.0..1.0).contains(&beta), format!("optimizer.betas[{index}]"), beta, "0 or more, below 1")?;
        }
        must(positive(self.eps), "optimizer.eps", self.eps, "a positive number")
    }
}

impl LrPolicy {
    fn check(&self) -> Result<(), UserError> {
        match self {
            Self::Step { at, factor } => {
                let key = "optimizer.lr_policy.step";
                must(positive(*factor), format!("{key}.factor"), factor, "a positive number")?;
                let ascending = at.windows(2).all(|pair| pair[0] < pair[1]);
                must(ascending, format!("{key}.at"), format!("{at:?}"), "ascending epochs")
            }
            Self::OneCycle { start, peak, end } => {
                let key = "optimizer.lr_policy.one_cycle";
                must(positive(*start), format!("{key}.start"), start, "a positive factor")?;
                must(positive(*end), format!("{key}.end"), end, "a positive factor")?;
                must(*peak > 0.0 && *peak < 1.0, format!("{key}.peak"), peak, "a fraction of the run between 0 and 1")
            }
            Self::Cyclic { base, up, down } => {
                let key = "optimizer.lr_policy.cyclic";
                must((0.0..=1.0).contains(base), format!("{key}.base"), base, "a factor of 0 to 1")?;
                must(*up >= 1, format!("{key}.up"), up, "at least 1 step")?;
                must(*down >= 1, format!("{key}.down"), down, "at least 1 step")
            }
            Self::OneCycleCosine(cycle) => cycle.check(),
            Self::Constant | Self::Reference | Self::Paper | Self::Cosine => Ok(()),
        }
    }
}

impl OneCycleCosine {
    fn check(&self) -> Result<(), UserError> {
        let key = |name: &str| format!("optimizer.lr_policy.one_cycle_cosine.{name}");
        let rise = self.pct_start;
        must(rise > 0.0 && rise < 1.0, key("pct_start"), rise, "a fraction of the run between 0 and 1")?;
        must(positive(self.div_factor), key("div_factor"), self.div_factor, "a positive number")?;
        must(positive(self.final_div_factor), key("final_div_factor"), self.final_div_factor, "a positive number")?;
        for (name, momentum) in [("base_momentum", self.base_momentum), ("max_momentum", self.max_momentum)] {
            must((0.0..1.0).contains(&momentum), key(name), momentum, "0 or more, below 1")?;
        }
        Ok(())
    }
}

fn positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::RunConfig;
    use crate::fixtures;

    fn parse(changes: &[&str]) -> Result<RunConfig, String> {
        let all = [&["averages={ ema = { decay = 0.9 } }"], changes].concat();
        fixtures::parse(&all).map_err(|error| error.to_string())
    }

    #[test]
    fn keys_that_are_not_set_are_not_written() {
        let plain = parse(&[]).unwrap();
        let resolved: toml::Table = toml::from_str(&plain.resolved()).unwrap();
        let keys = |table: &toml::Value| {
            let mut keys: Vec<String> = table.as_table().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        let earlier = ["lr", "lr_base_batch", "lr_policy", "lr_scale", "lr_warmup_epochs", "momentum", "weight_decay"];
        assert_eq!(keys(&resolved["optimizer"]), earlier);
        assert_eq!(keys(&resolved["averages"]["ema"]), ["decay", "from_epoch"]);
        let same =
            ["optimizer.kind=sgd", "optimizer.nesterov=false", "optimizer.betas=[0.9, 0.999]", "optimizer.eps=1e-8"];
        assert_eq!(parse(&same).unwrap().hash(), plain.hash());
    }

    #[test]
    fn keys_that_are_set_are_written_and_read_back() {
        let config = parse(&[
            "optimizer.nesterov=true",
            "optimizer.no_weight_decay=[\"batch_norm\", \"bias\"]",
            "optimizer.clip_grad_norm=1.5",
            "optimizer.lr_policy={ one_cycle_cosine = { pct_start = 0.025, per = \"epoch\" } }",
            "averages.ema.warm_up=0.025",
            "averages.ema.statistics=student",
        ])
        .unwrap();
        let again = RunConfig::parse(&config.resolved(), Path::new("run.toml"), &[]).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn contradictions_are_refused() {
        for (changes, key) in [
            (vec!["optimizer.kind=adamw", "optimizer.nesterov=true"], "optimizer.nesterov"),
            (vec!["optimizer.momentum=0", "optimizer.nesterov=true"], "optimizer.nesterov"),
            (
                vec!["optimizer.kind=adamw", "optimizer.lr_policy={ one_cycle_cosine = {} }"],
                "one_cycle_cosine.cycle_momentum",
            ),
            (vec!["optimizer.clip_grad_norm=0"], "optimizer.clip_grad_norm"),
            (vec!["optimizer.betas=[0.9, 1.0]"], "optimizer.betas[1]"),
            (vec!["optimizer.lr_policy={ cyclic = { base = 0, up = 0, down = 1 } }"], "cyclic.up"),
            (vec!["averages.ema.warm_up=2"], "averages.ema.warm_up"),
            (vec!["averages.ema.warm_up=0.1", "averages.ema.from_epoch=1"], "averages.ema.from_epoch"),
        ] {
            let message = parse(&changes).expect_err(key);
            assert!(message.contains(key), "{changes:?}: {message}");
        }
    }
}
