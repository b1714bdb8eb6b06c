//! The weights of two terms that follow their values (Zhao et al., ECCV 2022 and TPAMI 2024: MTARD, B-MTARD).

use tch::{Device, Kind, Tensor, no_grad};

use super::state::{set, zeros};
use crate::config;

/// Both temperatures stay in this range.
const TEMPERATURES: (f64, f64) = (1.0, 10.0);

/// The weights of two terms, their first values, and the temperatures of their targets.
pub struct Balance {
    config: config::Balance,
    /// The second weight, the two first values (0: there was no step), the two temperatures: `[5]`.
    state: Tensor,
    /// The state after the step under way, in memory of its own: a step that is replayed writes it too.
    next: Tensor,
    /// The rates of weights and temperatures, `[2]`.
    rates: Tensor,
}

impl Balance {
    pub(super) fn new(config: config::Balance, device: Device) -> Self {
        let state = Tensor::from_slice(&[0.5, 0.0, 0.0, 1.0, 1.0]).to_device(device);
        let next = state.copy();
        Self { config, state, next, rates: zeros(&[2], device) }
    }

    pub(super) fn begin_epoch(&self, epoch: u64) {
        for (place, rate) in (0..).zip(self.config.rates(epoch)) {
            let _ = no_grad(|| self.rates.get(place).fill_(rate));
        }
    }

    /// The names of the two terms.
    pub fn terms(&self) -> &[String; 2] {
        &self.config.terms
    }

    /// The place of the term of this name among the two.
    pub fn place(&self, term: &str) -> Option<usize> {
        self.config.terms.iter().position(|name| name == term)
    }

    /// The temperature of the target of the term at `place`, float64 scalar.
    pub fn temperature(&self, place: usize) -> Tensor {
        self.state.get(3 + place as i64)
    }

    /// Whether temperatures move.
    pub fn tempers(&self) -> bool {
        self.config.temperature_rate > 0.0
    }

    /// The weights of the two terms in this step, float64 `[2]`, from their values `[2]` and the negative entropies of their
    /// targets `[2]`, all over the global batch.
    pub fn weigh(&self, values: &Tensor, entropies: &Tensor) -> Tensor {
        no_grad(|| {
            let (second, first_values) = (self.state.narrow(0, 0, 1), self.state.narrow(0, 1, 2));
            let first_values = values.where_self(&first_values.eq(0.0), &first_values);
            let progress = values / &first_values;
            let aim = progress.narrow(0, 1, 1) / progress.sum(Kind::Double);
            let second = &second - (&second - aim) * self.rates.get(0);
            // The softer target gets the lower temperature.
            let softer = (entropies / entropies.flip([0]) - 1.0).sign();
            let temperatures = self.state.narrow(0, 3, 2) - softer * self.rates.get(1);
            let temperatures = temperatures.clamp(TEMPERATURES.0, TEMPERATURES.1);
            set(&self.next, &Tensor::cat(&[&second, &first_values, &temperatures], 0));
            Tensor::cat(&[&(1.0 - &second), &second], 0)
        })
    }

    /// Takes in the step where it `moves`.
    pub(super) fn keep(&self, moves: &Tensor) {
        set(&self.state, &self.next.where_self(moves, &self.state));
    }

    pub(super) fn tensors(&self) -> [(&'static str, &Tensor); 1] {
        [("balance", &self.state)]
    }
}
