//! A cluster, read from a file, and the time of an all-reduce over its GPUs.

use std::path::Path;

use anyhow::Result;
use datasets::UserError;
use serde::Deserialize;
use trainer::system::files::{in_words, read_text};

/// A cluster of equal nodes with equal GPUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    /// Its description.
    pub(crate) name: String,
    /// The number of GPUs (ranks) per node.
    pub(crate) gpus_per_node: usize,
    /// A GPU.
    pub(crate) gpu: Gpu,
    /// The link between the GPUs of a node.
    pub(crate) inside: Link,
    /// The link between nodes, for each GPU.
    pub(crate) between: Link,
    /// The algorithm of an all-reduce.
    #[serde(default)]
    pub(crate) algorithm: Algorithm,
    /// The standard deviation of a rank's computing time from step to step, as a share of it.
    #[serde(default)]
    pub(crate) jitter: f64,
    /// The source of the figures.
    pub(crate) sources: Vec<String>,
}

/// A GPU.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Gpu {
    /// Peak in the type of the computation, 10^12 operations a second.
    pub(crate) peak_tflops: f64,
    /// The share of the peak that a step reaches; an assumption unless it is measured.
    pub(crate) utilisation: f64,
}

/// A link between GPUs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Link {
    /// 10^9 bytes per second in one direction, for each GPU.
    pub(crate) gigabytes_per_second: f64,
    /// Latency of a message in microseconds.
    pub(crate) microseconds: f64,
}

/// The algorithm of an all-reduce.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Algorithm {
    /// The fastest for the size, as NCCL chooses.
    #[default]
    Auto,
    /// A ring over all GPUs, passed twice.
    Ring,
    /// A tree over the nodes, up and down, with a chain inside each node.
    Tree,
    /// Inside each node, then between nodes for each GPU's part, then inside each node again.
    Hierarchical,
}

impl Link {
    fn latency(&self) -> f64 {
        self.microseconds * 1e-6
    }

    fn rate(&self) -> f64 {
        self.gigabytes_per_second * 1e9
    }
}

impl Cluster {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// It cannot be read, or holds a value outside its range.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = read_text(file).map_err(|error| {
            UserError::expected("a readable cluster file").file(file).key("the file").value(in_words(&error))
        })?;
        Self::parse(&text, file)
    }

    /// Reads and checks a text that came from `file`.
    ///
    /// # Errors
    /// It holds a value outside its range.
    pub(crate) fn parse(text: &str, file: &Path) -> Result<Self> {
        let cluster: Self = toml::from_str(text).map_err(|error| {
            UserError::expected(format!("a cluster: {}", error.message()))
                .file(file)
                .hint("configs/clusters/ has examples")
        })?;
        cluster.check().map_err(|error| error.file(file))?;
        Ok(cluster)
    }

    fn check(&self) -> Result<(), UserError> {
        let positive = [
            ("gpu.peak_tflops", self.gpu.peak_tflops),
            ("gpu.utilisation", self.gpu.utilisation),
            ("inside.gigabytes_per_second", self.inside.gigabytes_per_second),
            ("between.gigabytes_per_second", self.between.gigabytes_per_second),
        ];
        for (key, value) in positive {
            if value.is_nan() || value <= 0.0 {
                return Err(UserError::expected("a number above 0").key(key).value(value));
            }
        }
        let not_negative = [
            ("inside.microseconds", self.inside.microseconds),
            ("between.microseconds", self.between.microseconds),
            ("jitter", self.jitter),
        ];
        for (key, value) in not_negative {
            if !value.is_finite() || value < 0.0 {
                return Err(UserError::expected("0 or more").key(key).value(value));
            }
        }
        if self.gpu.utilisation > 1.0 {
            return Err(UserError::expected("a share of the peak, up to 1")
                .key("gpu.utilisation")
                .value(self.gpu.utilisation));
        }
        if self.gpus_per_node == 0 {
            return Err(UserError::expected("at least 1").key("gpus_per_node").value(0));
        }
        Ok(())
    }

    /// Seconds of an all-reduce of `bytes` over the first `ranks` GPUs, filling node after node.
    pub(crate) fn seconds_of_sum(&self, bytes: f64, ranks: usize) -> f64 {
        let of = |algorithm| self.seconds_by(algorithm, bytes, ranks);
        match self.algorithm {
            _ if ranks < 2 => 0.0,
            Algorithm::Auto => [Algorithm::Ring, Algorithm::Tree, Algorithm::Hierarchical]
                .map(of)
                .into_iter()
                .fold(f64::INFINITY, f64::min),
            algorithm => of(algorithm),
        }
    }

    fn seconds_by(&self, algorithm: Algorithm, bytes: f64, ranks: usize) -> f64 {
        let nodes = ranks.div_ceil(self.gpus_per_node) as f64;
        let inside = ranks.min(self.gpus_per_node) as f64;
        let all = ranks as f64;
        // A ring or tree over all GPUs of a node uses the links of all of them.
        let out = self.between.rate() * inside;
        let slowest = if nodes > 1.0 { self.inside.rate().min(out) } else { self.inside.rate() };
        match algorithm {
            Algorithm::Ring | Algorithm::Auto => {
                let steps = 2.0 * (all - 1.0);
                let crossing = if nodes > 1.0 { nodes / all } else { 0.0 };
                let latency = crossing * self.between.latency() + (1.0 - crossing) * self.inside.latency();
                steps * latency + 2.0 * (all - 1.0) / all * bytes / slowest
            }
            Algorithm::Tree => {
                let up = (inside - 1.0) * self.inside.latency() + nodes.log2().ceil() * self.between.latency();
                // Pipelined: each link carries all bytes once up and once down.
                2.0 * up + 2.0 * bytes / slowest
            }
            Algorithm::Hierarchical => {
                let within =
                    (inside - 1.0) * self.inside.latency() + (inside - 1.0) / inside * bytes / self.inside.rate();
                let part = bytes / inside;
                let across = 2.0 * (nodes - 1.0) * self.between.latency()
                    + 2.0 * (nodes - 1.0) / nodes * part / self.between.rate();
                2.0 * within + across
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(algorithm: Algorithm) -> Cluster {
        Cluster {
            name: "two links".into(),
            gpus_per_node: 8,
            gpu: Gpu { peak_tflops: 100.0, utilisation: 0.5 },
            inside: Link { gigabytes_per_second: 400.0, microseconds: 2.0 },
            between: Link { gigabytes_per_second: 50.0, microseconds: 5.0 },
            algorithm,
            jitter: 0.0,
            sources: vec![],
        }
    }

    #[test]
    fn sums_take_what_their_formulas_say() {
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9, "{found} {expected}");
        // One node: 7/8 of the bytes twice around; 14 messages.
        close(cluster(Algorithm::Ring).seconds_of_sum(4e9, 8), 14.0 * 2e-6 + 2.0 * 7.0 / 8.0 * 4e9 / 400e9);
        // Two nodes: the outer links of 8 GPUs together are as fast as the inner ones.
        let ring = 30.0 * (2.0 / 16.0 * 5e-6 + 14.0 / 16.0 * 2e-6) + 2.0 * 15.0 / 16.0 * 4e9 / 400e9;
        close(cluster(Algorithm::Ring).seconds_of_sum(4e9, 16), ring);
        let hierarchical = 2.0 * (7.0 * 2e-6 + 7.0 / 8.0 * 4e9 / 400e9) + 2.0 * 5e-6 + 2.0 / 2.0 * 0.5e9 / 50e9;
        close(cluster(Algorithm::Hierarchical).seconds_of_sum(4e9, 16), hierarchical);
        let tree = 2.0 * (7.0 * 2e-6 + 5e-6) + 2.0 * 4e9 / 400e9;
        close(cluster(Algorithm::Tree).seconds_of_sum(4e9, 16), tree);
        assert_eq!(cluster(Algorithm::Auto).seconds_of_sum(4e9, 16), ring.min(hierarchical).min(tree));
        assert_eq!(cluster(Algorithm::Auto).seconds_of_sum(4e9, 1), 0.0);
    }

    #[test]
    fn small_sums_over_many_nodes_take_a_tree() {
        let auto = cluster(Algorithm::Auto).seconds_of_sum(8.0, 4096);
        assert_eq!(auto, cluster(Algorithm::Tree).seconds_of_sum(8.0, 4096));
    }
}
