//! The generalized Born model of Onufriev, Bashford and Case, Proteins 55, 383 (2004), in its two parametrisations.
//!
//! With the descreening integral I_i = Σ_j H(r_ij; ρ_i, s_j) of Hawkins, Cramer and Truhlar, J. Phys. Chem. 100, 19824
//! (1996), and ψ_i = ρ_i·I_i, the Born radius of an atom is
//!
//! B_i⁻¹ = ρ_i⁻¹ − tanh(αψ_i − βψ_i² + γψ_i³)/R_i,
//!
//! where R_i is the intrinsic radius, ρ_i is R_i less an offset, and s_j is ρ_j times a scale. The energy is
//!
//! U = −½·κ·Σ_ij q_i·q_j/f_ij + Σ_i a_i·(R_i + R_w)²·(R_i/B_i)⁶, f_ij² = r_ij² + B_i·B_j·exp(−r_ij²/(4·B_i·B_j)),
//!
//! with κ = (1/ε_solute − 1/ε_solvent)/(4πε₀); its second sum stands for the surface area.

use super::lanes::{Lanes, Vector};
use super::vector::{add, difference, dot, scaled, subtract};
use super::workspace::BornScratch;
use crate::energy::tables::ForceTables;

/// The most pairs whose slopes are kept from the first loop over pairs to the last; for more, they are computed twice.
const MOST_KEPT_PAIRS: usize = 1 << 16;

/// A generalized Born model whose energy is that of one OpenMM force.
#[derive(Debug)]
pub(super) struct GeneralizedBorn {
    pub atoms: Vec<Atom>,
    /// α, β and γ.
    pub rescaling: [f64; 3],
    /// −κ in kJ·nm/(mol·e²).
    pub pair_energy: f64,
    /// Where pairs end, if they do.
    pub cutoff: Option<Cutoff>,
    /// Whether H of an atom that is inside another one has the term that Hawkins, Cramer and Truhlar leave out.
    pub engulfed_term: bool,
}

/// From `distance` on pairs have no part in anything; nearer, 1/f is less by `shift`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cutoff {
    /// In nm.
    pub distance: f64,
    /// In nm⁻¹.
    pub shift: f64,
}

/// What the model knows of an atom.
#[derive(Debug)]
pub(super) struct Atom {
    /// q in elementary charges.
    pub charge: f64,
    /// ρ in nm.
    pub offset_radius: f64,
    /// s in nm.
    pub scaled_radius: f64,
    /// R in nm, as tanh is divided by it.
    pub radius: f64,
    /// The energy of the charge in its own field times B, in kJ·nm/mol.
    pub self_energy: f64,
    /// The surface area term times B⁶, in kJ·nm⁶/mol.
    pub surface: f64,
}

/// H and (dH/dr)/r.
struct Descreening {
    value: Lanes,
    slope: Lanes,
}

impl GeneralizedBorn {
    /// The numbers of scratch space that [`GeneralizedBorn::tables`] need for one configuration.
    pub fn table_scratch(&self) -> usize {
        4 * self.atoms.len()
    }

    pub fn scratch(&self) -> BornScratch {
        BornScratch::new(self.atoms.len(), self.kept_pairs())
    }

    /// The number of pairs that a workspace has to have a place for.
    fn kept_pairs(&self) -> usize {
        let n = self.atoms.len();
        let pairs = n * n.saturating_sub(1) / 2;
        if pairs <= MOST_KEPT_PAIRS { pairs } else { 0 }
    }

    /// The force as tables, of which there are none with a cutoff; `energy/cuda/born.cuh` says how they are laid out.
    pub fn tables(&self) -> Option<ForceTables> {
        if self.cutoff.is_some() {
            return None;
        }
        let integers = vec![self.atoms.len() as u32, u32::from(self.engulfed_term)];
        let [alpha, beta, gamma] = self.rescaling;
        let mut numbers = vec![alpha, beta, gamma, self.pair_energy];
        for a in &self.atoms {
            numbers.extend([a.charge, a.offset_radius, a.scaled_radius, a.radius, a.self_energy, a.surface]);
        }
        Some(ForceTables { integers, numbers })
    }

    #[inline(always)]
    pub fn evaluate<const GRADIENT: bool>(
        &self,
        at: &[Vector],
        gradient: &mut [Vector],
        scratch: &mut BornScratch,
    ) -> Lanes {
        self.integrals::<GRADIENT>(at, scratch);
        let mut energy = self.radii::<GRADIENT>(scratch);
        energy += self.pairs::<GRADIENT>(at, gradient, scratch);
        if GRADIENT {
            self.descreening_gradient(at, gradient, scratch);
        }
        energy
    }

    /// The integrals I.
    #[inline(always)]
    fn integrals<const GRADIENT: bool>(&self, at: &[Vector], scratch: &mut BornScratch) {
        let keep = GRADIENT && self.kept_pairs() > 0;
        scratch.integral.fill(Lanes::ZERO);
        let mut pair = 0;
        for (i, atom) in self.atoms.iter().enumerate() {
            let mut sum = Lanes::ZERO;
            for (j, other) in self.atoms.iter().enumerate().skip(i + 1) {
                let [of_i, of_j] = self.descreenings::<GRADIENT>(&difference(&at[i], &at[j]), atom, other);
                sum += of_i.value;
                scratch.integral[j] += of_j.value;
                if keep {
                    scratch.slopes[pair] = [of_i.slope, of_j.slope];
                    pair += 1;
                }
            }
            scratch.integral[i] += sum;
        }
    }

    /// The Born radii and dB/dI; returns the energy of the single atoms and starts dU/dB with it.
    #[inline(always)]
    fn radii<const GRADIENT: bool>(&self, scratch: &mut BornScratch) -> Lanes {
        let [alpha, beta, gamma] = self.rescaling;
        let mut energy = Lanes::ZERO;
        for (i, atom) in self.atoms.iter().enumerate() {
            let psi = scratch.integral[i] * atom.offset_radius;
            let tanh = (((psi * gamma - beta) * psi + alpha) * psi).tanh();
            let inverse = Lanes::all(1.0 / atom.offset_radius) - tanh / atom.radius;
            let radius = inverse.recip();
            let own = inverse * atom.self_energy;
            let cube = inverse * inverse * inverse;
            let surface = cube * cube * atom.surface;
            energy += own + surface;
            scratch.radius[i] = radius;
            scratch.inverse_radius[i] = inverse;
            if GRADIENT {
                scratch.radius_gradient[i] = -((own + surface * 6.0) * inverse);
                let polynomial = (psi * (3.0 * gamma) - 2.0 * beta) * psi + alpha;
                let sech_squared = -(tanh * tanh) + 1.0;
                scratch.chain[i] = radius * radius * sech_squared * polynomial * (atom.offset_radius / atom.radius);
            }
        }
        energy
    }

    /// The energy of pairs of charges, its gradient at constant Born radii, and its part of dU/dB.
    #[inline(always)]
    fn pairs<const GRADIENT: bool>(&self, at: &[Vector], gradient: &mut [Vector], scratch: &mut BornScratch) -> Lanes {
        let mut energy = Lanes::ZERO;
        for (i, atom) in self.atoms.iter().enumerate() {
            let prefactor = self.pair_energy * atom.charge;
            let (radius, quarter_inverse) = (scratch.radius[i], scratch.inverse_radius[i] * 0.25);
            let mut radius_gradient = Lanes::ZERO;
            let mut pull_i = [Lanes::ZERO; 3];
            for (j, other) in self.atoms.iter().enumerate().skip(i + 1) {
                let d = difference(&at[i], &at[j]);
                let rr = dot(&d, &d);
                let exponent = rr * quarter_inverse * scratch.inverse_radius[j];
                let exp = (-exponent).exp();
                let ff = rr + radius * scratch.radius[j] * exp;
                let inverse_ff = ff.recip();
                let mut pair_energy = inverse_ff.sqrt() * (prefactor * other.charge);
                let mut slope = -(pair_energy * inverse_ff);
                if let Some(cutoff) = self.cutoff {
                    let within = -rr + cutoff.distance * cutoff.distance;
                    pair_energy = (pair_energy - prefactor * other.charge * cutoff.shift).zero_unless(within, 0.0);
                    slope = slope.zero_unless(within, 0.0);
                }
                energy += pair_energy;
                if GRADIENT {
                    let of_product = slope * exp * (exponent + 1.0) * 0.5;
                    radius_gradient += of_product * scratch.radius[j];
                    scratch.radius_gradient[j] += of_product * radius;
                    let pull = scaled(&d, slope * (-(exp * 0.25) + 1.0));
                    add(&mut pull_i, &pull);
                    subtract(&mut gradient[j], &pull);
                }
            }
            if GRADIENT {
                scratch.radius_gradient[i] += radius_gradient;
                add(&mut gradient[i], &pull_i);
            }
        }
        energy
    }

    /// The gradient that comes from the Born radii's dependence on the positions.
    #[inline(always)]
    fn descreening_gradient(&self, at: &[Vector], gradient: &mut [Vector], scratch: &mut BornScratch) {
        let keep = self.kept_pairs() > 0;
        for (chain, gradient) in scratch.chain.iter_mut().zip(&scratch.radius_gradient) {
            *chain = *chain * *gradient;
        }
        let mut pair = 0;
        for (i, atom) in self.atoms.iter().enumerate() {
            let mut pull_i = [Lanes::ZERO; 3];
            for (j, other) in self.atoms.iter().enumerate().skip(i + 1) {
                let d = difference(&at[i], &at[j]);
                let [of_i, of_j] = if keep {
                    pair += 1;
                    scratch.slopes[pair - 1]
                } else {
                    self.descreenings::<true>(&d, atom, other).map(|h| h.slope)
                };
                let pull = scaled(&d, scratch.chain[i] * of_i + scratch.chain[j] * of_j);
                add(&mut pull_i, &pull);
                subtract(&mut gradient[j], &pull);
            }
            add(&mut gradient[i], &pull_i);
        }
    }

    /// What atom `j` adds to the integral of `i`, and `i` to that of `j`.
    #[inline(always)]
    fn descreenings<const GRADIENT: bool>(&self, d: &Vector, i: &Atom, j: &Atom) -> [Descreening; 2] {
        let r = dot(d, d).sqrt();
        let inverse_r = r.recip();
        let both = [self.descreening::<GRADIENT>(r, inverse_r, i, j), self.descreening::<GRADIENT>(r, inverse_r, j, i)];
        let Some(cutoff) = self.cutoff else { return both };
        let within = -r + cutoff.distance;
        both.map(|Descreening { value, slope }| Descreening {
            value: value.zero_unless(within, 0.0),
            slope: slope.zero_unless(within, 0.0),
        })
    }

    #[inline(always)]
    fn descreening<const GRADIENT: bool>(&self, r: Lanes, inverse_r: Lanes, of: &Atom, by: &Atom) -> Descreening {
        let (rho, s) = (of.offset_radius, by.scaled_radius);
        let upper = r + s;
        let lower = (r - s).abs().at_least(rho);
        // One division serves both reciprocals, and the ratio besides.
        let inverse_both = (lower * upper).recip();
        let (inverse_lower, inverse_upper) = (upper * inverse_both, lower * inverse_both);
        let squares = inverse_upper * inverse_upper - inverse_lower * inverse_lower;
        let half_log = (lower * inverse_upper).ln() * inverse_r * 0.5;
        let ss = inverse_r * (s * s);
        let mut value = (inverse_lower - inverse_upper + (r - ss) * squares * 0.25 + half_log) * 0.5;
        // An atom inside another one: r < s − ρ.
        let inside = -r + (s - rho);
        if self.engulfed_term {
            value += (-inverse_lower + 1.0 / rho).zero_unless(inside, 0.0);
        }
        // An atom that is wholly inside ρ descreens nothing.
        let outside = upper - rho;
        let value = value.zero_unless(outside, 0.0);
        let mut slope = Lanes::ZERO;
        if GRADIENT {
            slope = ((ss * inverse_r + 1.0) * squares * 0.25 - half_log * inverse_r) * 0.5;
            if !self.engulfed_term {
                slope += (inverse_lower * inverse_lower).zero_unless(inside, 0.0);
            }
            slope = (slope * inverse_r).zero_unless(outside, 0.0);
        }
        Descreening { value, slope }
    }
}
