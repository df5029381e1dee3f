//! Philox4x32-10, the counter-based random generator of Salmon, Moraes, Dror and Shaw,
//! "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
//!
//! A random number is a pure function of (seed, purpose, index, position): sample number `i` of a seed is the same in
//! any batch, on any thread, after any restart. Logarithms and circular functions come from `libm`, so that the same
//! numbers come out on every platform.

const MULTIPLIERS: (u32, u32) = (0xD251_1F53, 0xCD9E_8D57);
const WEYL: (u32, u32) = (0x9E37_79B9, 0xBB67_AE85);
const ROUNDS: usize = 10;

/// The bijection from a counter to four random words, under a 64-bit key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Philox {
    key: [u32; 2],
}

impl Philox {
    pub fn new(key: [u32; 2]) -> Self {
        Self { key }
    }

    /// The ten-round block function.
    #[inline(always)]
    pub fn block(&self, counter: [u32; 4]) -> [u32; 4] {
        let mut c = counter;
        let mut k = self.key;
        for round in 0..ROUNDS {
            if round > 0 {
                k[0] = k[0].wrapping_add(WEYL.0);
                k[1] = k[1].wrapping_add(WEYL.1);
            }
            let p0 = u64::from(MULTIPLIERS.0) * u64::from(c[0]);
            let p1 = u64::from(MULTIPLIERS.1) * u64::from(c[2]);
            let (hi0, lo0) = ((p0 >> 32) as u32, p0 as u32);
            let (hi1, lo1) = ((p1 >> 32) as u32, p1 as u32);
            c = [hi1 ^ c[1] ^ k[0], lo1, hi0 ^ c[3] ^ k[1], lo0];
        }
        c
    }
}

/// What a random number is for. Streams of different purposes under one seed are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Latent variables of samples that a user receives.
    Sample = 1,
    /// Latent variables of the pilot batch that picks a sampling method.
    Pilot = 2,
    /// Latent variables of training batches.
    TrainingLatent = 3,
    /// Choice of data frames for training batches.
    TrainingData = 4,
    /// Latent variables on which progress is measured.
    Validation = 5,
    /// Initial weights of conditioners.
    Initialisation = 6,
    /// Bootstrap resampling.
    Bootstrap = 7,
    /// Which coordinates a coupling layer transforms.
    Architecture = 8,
    /// Temperatures of the samples of training batches.
    TrainingTemperature = 9,
    /// Latent variables of the samples that a flow is trained on by their weights.
    OwnSample = 10,
    /// Which of these have latents that are wider, and these.
    WideOwnSample = 31,
    /// Which of these are in a training batch.
    OwnBatch = 11,
    /// Latents that flow matching draws lines from.
    MatchingLatent = 23,
    /// Times on these lines.
    MatchingTime = 24,
    /// Latent variables of the samples whose log weights are to vary little.
    LogVariance = 20,
    /// Latent variables of the samples that temperature gradients are held against.
    TemperatureGradient = 21,
    /// The pairs of temperatures of these.
    TemperaturePair = 22,
    /// The moves that these are annealed by.
    OwnMove = 25,
    /// The moves of annealed samples that a user receives.
    SampleMove = 26,
    /// The moves of the pilots that tune these.
    PilotMove = 27,
    /// Latent variables of probes for what a flow does not make.
    Probe = 30,
    /// Auxiliary variables of positions that come from elsewhere.
    Auxiliary = 28,
    /// Auxiliary variables of the data in a training batch.
    BatchAuxiliary = 29,
    /// Which of a population or a window of samples that a user receives are taken on.
    SampleResampling = 12,
    /// The same of pilots.
    PilotResampling = 13,
    /// Whether exchanges and jumps of the Markov chains that a user receives are accepted.
    ChainExchange = 14,
    /// The same of pilots.
    PilotExchange = 15,
    /// The order of samples that were computed together.
    SampleOrder = 16,
    /// The noise of Langevin dynamics, new velocities, and the moves of Metropolis Monte Carlo. The pilots of simulations
    /// have the same four purposes and 8 more.
    SimulationNoise = 32,
    /// Velocities at the start of a simulation.
    SimulationStart = 33,
    /// Whether a Monte Carlo move is accepted.
    SimulationAccept = 34,
    /// Whether an exchange of temperatures is.
    SimulationExchange = 35,
}

/// The random numbers of one (seed, purpose, index): an address, and a position that moves along it.
#[derive(Clone, Debug)]
pub struct Randoms {
    philox: Philox,
    counter: [u32; 4],
    words: [u32; 4],
    used: usize,
    spare_normal: Option<f64>,
}

impl Randoms {
    pub fn new(seed: u64, purpose: Purpose, index: u64) -> Self {
        Self {
            philox: Philox::new([seed as u32, (seed >> 32) as u32]),
            counter: [0, purpose as u32, index as u32, (index >> 32) as u32],
            words: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            self.words = self.philox.block(self.counter);
            self.counter[0] = self.counter[0].wrapping_add(1);
            self.used = 0;
        }
        let word = self.words[self.used];
        self.used += 1;
        word
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | (u64::from(self.next_u32()) << 32)
    }

    /// Uniform in the open interval (0, 1), on a grid of 2⁻⁵².
    pub fn uniform(&mut self) -> f64 {
        open_uniform(self.next_u64())
    }

    /// Uniform integer below `n` (which must not be zero), by Lemire's multiplication; its bias is below n/2⁶⁴.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal, by the transformation of Box and Muller (1958).
    pub fn normal(&mut self) -> f64 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        let radius = libm::sqrt(-2.0 * libm::log(self.uniform()));
        let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * self.uniform());
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// A random permutation of 0..n (Fisher and Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

/// A number in (0, 1) of a random word: (m + ½)·2⁻⁵² with its upper 52 bits m, which are the bits of a number in [1, 2), less
/// one. As kernels make it: without a conversion of integers.
#[inline(always)]
pub fn open_uniform(word: u64) -> f64 {
    const ONE: u64 = 1023 << 52;
    const HALF_A_STEP: f64 = 1.0 / (1u64 << 53) as f64;
    (f64::from_bits(word >> 12 | ONE) - 1.0) + HALF_A_STEP
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors of the Random123 distribution for philox4x32 with 10 rounds.
    #[test]
    fn random123_known_answers() {
        let cases: [([u32; 4], [u32; 2], [u32; 4]); 3] = [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(Philox::new(key).block(counter), expected);
        }
    }

    /// Moments and quantile counts of 400,000 draws; each bound is five standard errors (false alarms below 1e-5).
    #[test]
    fn uniforms_and_normals_have_their_moments() {
        let n = 400_000u64;
        let (mut u1, mut z1, mut z2, mut z4, mut tail) = (0.0, 0.0, 0.0, 0.0, 0u32);
        for i in 0..n {
            let mut r = Randoms::new(11, Purpose::Sample, i);
            u1 += r.uniform();
            let z = r.normal();
            z1 += z;
            z2 += z * z;
            z4 += z.powi(4);
            tail += u32::from(z.abs() > 1.959963984540054);
        }
        let n = n as f64;
        let five = 5.0 / n.sqrt();
        assert!((u1 / n - 0.5).abs() < five * (1.0f64 / 12.0).sqrt());
        assert!((z1 / n).abs() < five);
        assert!((z2 / n - 1.0).abs() < five * 2f64.sqrt());
        assert!((z4 / n - 3.0).abs() < five * 96f64.sqrt());
        assert!((f64::from(tail) / n - 0.05).abs() < five * (0.05f64 * 0.95).sqrt());
    }

    #[test]
    fn addresses_are_independent_of_order_and_differ() {
        let draw = |seed, purpose, index| Randoms::new(seed, purpose, index).next_u64();
        let base = draw(1, Purpose::Sample, 5);
        assert_eq!(base, draw(1, Purpose::Sample, 5));
        assert_ne!(base, draw(2, Purpose::Sample, 5));
        assert_ne!(base, draw(1, Purpose::Pilot, 5));
        assert_ne!(base, draw(1, Purpose::Sample, 5 + (1 << 32)));
    }
}
