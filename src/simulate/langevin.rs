//! Langevin dynamics by BAOAB, with constraints by g-BAOAB.
//!
//! Between steps the velocities are those before the first half kick (B), so that the last half kick of one step and the
//! first of the next are one. With constraints a velocity's part along them is not taken out after a kick: restoring
//! the constraints after the drift (A) that follows takes it out too.

use super::cell::{Cell, Failure, Setting};
use super::noise::fill_normals;
use crate::compute::fused::{InstructionSet, Kernel, Number, Portable, dispatch};
use crate::math::Purpose;

/// Coordinates that are moved together.
const WIDTH: usize = 8;

/// The numbers of a step.
#[derive(Debug)]
pub struct Langevin {
    pub timestep: f64,
    /// exp(−γ·dt).
    decay: f64,
    /// √(kT·(1 − decay²)) of each temperature.
    noise: Vec<f64>,
    /// dt/m of each coordinate.
    kick: Vec<f64>,
}

impl Langevin {
    pub fn new(timestep: f64, friction: f64, kt: &[f64], inverse_mass: &[f64]) -> Self {
        let decay = (-friction * timestep).exponential::<Portable>();
        // As long as γ·dt is small, 1 − decay² has few digits left.
        let gain = if friction * timestep < 1e-5 {
            2.0 * friction * timestep * (1.0 - friction * timestep)
        } else {
            1.0 - decay * decay
        };
        Self {
            timestep,
            decay,
            noise: kt.iter().map(|kt| (kt * gain).sqrt()).collect(),
            kick: inverse_mass.iter().map(|w| timestep * w).collect(),
        }
    }

    /// Carries a cell through steps `first + 1` to `first + steps`.
    pub fn advance(&self, cell: &mut Cell, setting: &Setting, first: u64, steps: u64) -> Result<(), Failure> {
        cell.scratch.held.fill(true);
        for step in first..first.saturating_add(steps) {
            match setting.mechanics.constraints {
                None => dispatch(Fused { langevin: self, cell, setting, step }),
                Some(_) => self.constrained(cell, setting, step),
            }
            cell.evaluate(setting)?;
            cell.check(step + 1)?;
        }
        Ok(())
    }

    /// A step but for the evaluation at its end, part by part.
    fn constrained(&self, cell: &mut Cell, setting: &Setting, step: u64) {
        let (mechanics, d) = (setting.mechanics, setting.mechanics.dimension);
        let noise = &mut cell.scratch.noise[..cell.velocities.len()];
        setting.source.normals(Purpose::SimulationNoise, step, cell.first_row, d, noise);
        let rows = cell.velocities.chunks_exact_mut(d).zip(cell.gradients.chunks_exact(d));
        for ((v, g), (tally, &rung)) in rows.zip(cell.tallies.iter_mut().zip(cell.rungs)) {
            tally.looks += 1.0;
            tally.twice_kinetic += mechanics.twice_kinetic(v) / setting.kt[rung as usize];
            v.iter_mut().zip(g).zip(&self.kick).for_each(|((v, g), kick)| *v -= kick * g);
        }
        cell.scratch.times.fill(0.5 * self.timestep);
        cell.drift(mechanics);
        cell.project(mechanics);
        let rows = cell.velocities.chunks_exact_mut(d).zip(cell.scratch.noise.chunks_exact(d));
        for (r, (v, z)) in rows.enumerate() {
            cell.heat[r] -= 0.5 * mechanics.twice_kinetic(v);
            let noise = self.noise[cell.rungs[r] as usize];
            let random = z.iter().zip(&mechanics.root_inverse_mass);
            v.iter_mut().zip(random).for_each(|(v, (z, w))| *v = self.decay * *v + noise * w * z);
        }
        cell.project(mechanics);
        for (heat, v) in cell.heat.iter_mut().zip(cell.velocities.chunks_exact(d)) {
            *heat += 0.5 * mechanics.twice_kinetic(v);
        }
        cell.drift(mechanics);
        cell.project(mechanics);
    }
}

/// A step without constraints but for the evaluation at its end, in one pass.
struct Fused<'a, 'b, 'c> {
    langevin: &'a Langevin,
    cell: &'a mut Cell<'b>,
    setting: &'a Setting<'c>,
    step: u64,
}

impl Kernel for Fused<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: InstructionSet>(self) {
        let Self { langevin, cell, setting, step } = self;
        let mechanics = setting.mechanics;
        let d = mechanics.dimension;
        let noise = &mut cell.scratch.noise[..cell.velocities.len()];
        fill_normals(&setting.source, Purpose::SimulationNoise, step, cell.first_row, d, noise);
        let rows = cell.positions.chunks_exact_mut(d).zip(cell.velocities.chunks_exact_mut(d));
        let rows = rows.zip(cell.gradients.chunks_exact(d).zip(noise.chunks_exact(d)));
        let tallies = cell.heat.iter_mut().zip(cell.tallies.iter_mut()).zip(cell.rungs);
        for (((x, v), (g, z)), ((heat, tally), &rung)) in rows.zip(tallies) {
            let row =
                Row { half: 0.5 * langevin.timestep, decay: langevin.decay, noise: langevin.noise[rung as usize] };
            let mut sums = Sums::default();
            let ((x, x_rest), (v, v_rest)) = (x.as_chunks_mut::<WIDTH>(), v.as_chunks_mut::<WIDTH>());
            let ((g, g_rest), (z, z_rest)) = (g.as_chunks::<WIDTH>(), z.as_chunks::<WIDTH>());
            let (kick, kick_rest) = langevin.kick.as_chunks::<WIDTH>();
            let (mass, mass_rest) = mechanics.mass.as_chunks::<WIDTH>();
            let (spread, spread_rest) = mechanics.root_inverse_mass.as_chunks::<WIDTH>();
            for i in 0..x.len() {
                row.step(&mut x[i], &mut v[i], &g[i], &z[i], [&kick[i], &mass[i], &spread[i]], &mut sums);
            }
            for i in 0..x_rest.len() {
                let one = |list: &[f64]| [list[i]];
                let (mut x, mut v) = ([x_rest[i]], [v_rest[i]]);
                let constants = [&one(kick_rest), &one(mass_rest), &one(spread_rest)];
                row.step(&mut x, &mut v, &one(g_rest), &one(z_rest), constants, &mut sums);
                ([x_rest[i]], [v_rest[i]]) = (x, v);
            }
            *heat += 0.5 * total(&sums.gained);
            tally.looks += 1.0;
            tally.twice_kinetic += total(&sums.kinetic) / setting.kt[rung as usize];
        }
    }
}

/// The numbers of a row's step.
struct Row {
    half: f64,
    decay: f64,
    noise: f64,
}

/// Sums over a row, lane by lane.
#[derive(Default)]
struct Sums {
    /// m·v² before the step.
    kinetic: [f64; WIDTH],
    /// What the thermostat (O) adds to m·v².
    gained: [f64; WIDTH],
}

impl Row {
    #[inline(always)]
    fn step<const N: usize>(
        &self,
        x: &mut [f64; N],
        v: &mut [f64; N],
        g: &[f64; N],
        z: &[f64; N],
        [kick, mass, spread]: [&[f64; N]; 3],
        sums: &mut Sums,
    ) {
        for l in 0..N {
            let before = v[l];
            let kicked = before - kick[l] * g[l];
            let thermal = self.decay * kicked + self.noise * spread[l] * z[l];
            x[l] = (x[l] + self.half * kicked) + self.half * thermal;
            v[l] = thermal;
            sums.kinetic[l] += mass[l] * before * before;
            sums.gained[l] += mass[l] * (thermal * thermal - kicked * kicked);
        }
    }
}

/// From the halves inwards.
#[inline(always)]
fn total(lanes: &[f64; WIDTH]) -> f64 {
    let four: [f64; 4] = std::array::from_fn(|l| lanes[l] + lanes[l + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}
