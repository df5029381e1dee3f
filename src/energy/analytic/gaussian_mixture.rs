//! Mixtures of isotropic Gaussians of equal weight in two dimensions.

use super::finite;
use crate::compute::fused::{InstructionSet, Lane, Number, ROWS, ln};
use crate::energy::lanewise::Lanewise;
use crate::energy::potential::EnergyError;
use crate::energy::tables::{PotentialKind, PotentialTables};
use crate::math::special::HALF_LOG_TWO_PI;

const MAX_COMPONENTS: usize = 10_000;

/// u(x) = −log p(x) of a normalised mixture: log Z(τ = 1) = 0.
///
/// The published code of the 40-component benchmark sets log p to −∞ where it is below −10⁴; here it stays finite, which
/// changes no weight (exp(−10⁴) is zero in f64) and keeps the gradient.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianMixture {
    pub means: Vec<[f64; 2]>,
    pub standard_deviation: f64,
}

impl GaussianMixture {
    /// The 40-component benchmark of Midgley et al. (ICLR 2023): means as their seed 0 draws them, uniform in
    /// [−40, 40]², standard deviation softplus(1).
    pub fn forty() -> Self {
        Self { means: FORTY_MEANS.to_vec(), standard_deviation: 1.313_261_687_518_222_8 }
    }

    /// The nine components of fab-jax (Midgley et al., its target GMM_v1): means on the grid {−5, 0, 5}², variance 0.3.
    pub fn nine() -> Self {
        let grid = [-5.0, 0.0, 5.0];
        let means = grid.iter().flat_map(|&x| grid.map(|y| [x, y])).collect();
        Self { means, standard_deviation: 0.3f64.sqrt() }
    }

    pub(super) fn checked(self) -> Result<Self, EnergyError> {
        if self.means.is_empty() || self.means.len() > MAX_COMPONENTS {
            return Err(EnergyError::Definition(format!(
                "means has {} rows; it must have from 1 to {MAX_COMPONENTS}",
                self.means.len()
            )));
        }
        self.means.iter().flatten().try_for_each(|&m| finite("means", m, false))?;
        finite("standard_deviation", self.standard_deviation, true)?;
        Ok(self)
    }

    /// log(components) + log(2πσ²).
    fn constant(&self) -> f64 {
        (self.means.len() as f64).ln() + 2.0 * (HALF_LOG_TWO_PI + self.standard_deviation.ln())
    }

    pub(super) fn extent(&self) -> Vec<(f64, f64)> {
        let n = self.means.len() as f64;
        (0..2)
            .map(|axis| {
                let mean = self.means.iter().map(|m| m[axis]).sum::<f64>() / n;
                let variance = self.means.iter().map(|m| (m[axis] - mean).powi(2)).sum::<f64>() / n;
                (mean, (variance + self.standard_deviation.powi(2)).sqrt())
            })
            .collect()
    }
}

impl Lanewise for GaussianMixture {
    fn name(&self) -> &'static str {
        "GaussianMixture"
    }

    fn dimension(&self) -> usize {
        2
    }

    fn tables(&self) -> Option<PotentialTables> {
        self.clone().checked().ok()?;
        let mut numbers = vec![self.standard_deviation.powi(-2), self.constant()];
        numbers.extend(self.means.iter().flatten());
        Some(PotentialTables::analytic(PotentialKind::GaussianMixture, 2, &[self.means.len() as u32], numbers))
    }

    #[inline(always)]
    fn evaluate<I: InstructionSet>(&self, x: &[Lane<f64>], energy: &mut Lane<f64>, gradient: Option<&mut [Lane<f64>]>) {
        let precision = self.standard_deviation.powi(-2);
        let exponent = |m: &[f64; 2], r: usize| {
            let (dx, dy) = (x[0][r] - m[0], x[1][r] - m[1]);
            -0.5 * precision * (dx * dx + dy * dy)
        };
        let mut largest = [f64::NEG_INFINITY; ROWS];
        for m in &self.means {
            for r in 0..ROWS {
                let e = exponent(m, r);
                largest[r] = if e > largest[r] { e } else { largest[r] };
            }
        }
        let (mut sum, mut pull_x, mut pull_y) = ([0.0; ROWS], [0.0; ROWS], [0.0; ROWS]);
        for m in &self.means {
            for r in 0..ROWS {
                let weight = (exponent(m, r) - largest[r]).exponential::<I>();
                sum[r] += weight;
                pull_x[r] += weight * (x[0][r] - m[0]);
                pull_y[r] += weight * (x[1][r] - m[1]);
            }
        }
        let constant = self.constant();
        for r in 0..ROWS {
            energy[r] = constant - largest[r] - ln::<I>(sum[r]);
        }
        if let Some(gradient) = gradient {
            for r in 0..ROWS {
                gradient[0][r] = precision * pull_x[r] / sum[r];
                gradient[1][r] = precision * pull_y[r] / sum[r];
            }
        }
    }
}

#[rustfmt::skip]
const FORTY_MEANS: [[f64; 2]; 40] = [
    [-0.2994728088378906, 21.457744598388672],
    [-32.92180633544922, -29.43756103515625],
    [-15.406174659729004, 10.72629451751709],
    [-0.7925271987915039, 31.715579986572266],
    [-3.5497617721557617, 10.584502220153809],
    [-12.088522911071777, -7.862615585327148],
    [-38.21393966674805, -26.491283416748047],
    [-16.488924026489258, 1.4817428588867188],
    [15.813407897949219, 24.000911712646484],
    [-27.117643356323242, -17.418514251708984],
    [14.528684616088867, 33.215518951416016],
    [-8.232007026672363, 29.932470321655273],
    [-6.447334289550781, 4.2325639724731445],
    [36.21904754638672, -37.106815338134766],
    [-25.1815185546875, -10.126609802246094],
    [-15.591998100280762, 34.56003189086914],
    [-25.92718505859375, -18.413314819335938],
    [-27.94561767578125, -37.462440490722656],
    [-23.349618911743164, 34.3839225769043],
    [17.848735809326172, 19.38690185546875],
    [2.1036624908447266, -20.507339477539062],
    [6.767387390136719, -37.3477897644043],
    [-28.90264892578125, -20.621200561523438],
    [25.237518310546875, 23.452850341796875],
    [-17.73980140686035, -1.4432954788208008],
    [25.582427978515625, 39.765323638916016],
    [15.875287055969238, 5.403714179992676],
    [26.819454193115234, -23.552093505859375],
    [7.453761100769043, -31.01222038269043],
    [-27.723445892333984, -20.663341522216797],
    [18.098922729492188, 16.086416244506836],
    [-23.69409942626953, 12.084283828735352],
    [21.958881378173828, -5.048694610595703],
    [1.527261734008789, 9.2681884765625],
    [24.8150634765625, 38.40776443481445],
    [-30.82494354248047, -14.65878963470459],
    [15.720396041870117, 33.14197540283203],
    [34.808292388916016, 35.29426956176758],
    [7.9605817794799805, -34.78330612182617],
    [3.6796998977661133, -25.024213790893555],
];
