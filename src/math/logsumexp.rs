//! Sums of exponentials that neither overflow nor lose what is small.

/// log Σ exp(x). The sum of nothing is −∞; a NaN makes the result NaN.
pub fn log_sum_exp(values: &[f64]) -> f64 {
    let mut sum = LogSumExp::default();
    values.iter().for_each(|&v| sum.add(v));
    sum.value()
}

/// A running log Σ exp(x): the largest term seen is kept apart, the rest is summed relative to it.
#[derive(Clone, Copy, Debug)]
pub struct LogSumExp {
    max: f64,
    scaled: f64,
}

impl Default for LogSumExp {
    fn default() -> Self {
        Self { max: f64::NEG_INFINITY, scaled: 0.0 }
    }
}

impl LogSumExp {
    pub fn add(&mut self, value: f64) {
        if value == f64::NEG_INFINITY {
            return;
        }
        if value <= self.max {
            self.scaled += (value - self.max).exp();
        } else if value == f64::INFINITY || value.is_nan() {
            self.max = value;
            self.scaled = 1.0;
        } else {
            self.scaled = self.scaled * (self.max - value).exp() + 1.0;
            self.max = value;
        }
    }

    pub fn value(&self) -> f64 {
        if self.max.is_nan() || self.max == f64::INFINITY {
            return self.max;
        }
        self.max + self.scaled.ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_finite_where_exponentials_do_not() {
        assert_eq!(log_sum_exp(&[]), f64::NEG_INFINITY);
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-12);
        assert!((log_sum_exp(&[-1e5, -1e5 - 1.0]) - (-1e5 + (1.0 + (-1f64).exp()).ln())).abs() < 1e-10);
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY, 3.0]), 3.0);
        assert!(log_sum_exp(&[0.0, f64::NAN]).is_nan());
        assert_eq!(log_sum_exp(&[0.0, f64::INFINITY]), f64::INFINITY);
    }
}
