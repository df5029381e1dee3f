//! What an estimation from samples and frames together has gathered, and its solution.

use super::Engine;
use super::estimation::TemperatureEstimate;
use super::frames::{Frames, is_same};
use super::joint::{JointItem, JointRequest, JointState, UsedFrames};
use super::models::LoadedModel;
use super::outlet::{Outlet, StreamError};
use super::sampling::StopCause;
use crate::math::Purpose;
use crate::sample::{Method, SampleKey, WeightedBatch};
use crate::thermo::{
    FreeEnergyAccumulator, JointEstimate, JointReport, JointSamples, JointTarget, MbarError, StateQuery,
    WeightAccumulator, joint, statistical_inefficiency,
};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Frames that are read at a time.
const CHUNK: usize = 4096;

/// Between the seeds of two densities: 2⁶⁴ over the golden ratio.
const SEED_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Samples of one density.
#[derive(Default)]
struct Group {
    energies: Vec<f64>,
    /// log q of each flow density (flows, n); −∞ where it makes nothing.
    log_q: Vec<Vec<f64>>,
    /// A flow's samples outside of the coordinates' domain.
    outside: Vec<bool>,
    /// Whether each sample is in each state asked for (states, n).
    members: Vec<Vec<bool>>,
}

impl Group {
    fn new(flows: usize, states: usize) -> Self {
        Self { log_q: vec![Vec::new(); flows], members: vec![Vec::new(); states], ..Self::default() }
    }

    fn len(&self) -> usize {
        self.energies.len()
    }

    fn add_members(&mut self, states: &[StateQuery], positions: &[f64], d: usize) {
        for (members, state) in self.members.iter_mut().zip(states) {
            let inside = |x: &[f64]| {
                state.intervals.iter().all(|(cv, low, high)| cv.description().contains(*low, *high, cv.value(x)))
            };
            members.extend(positions.chunks_exact(d.max(1)).map(inside));
        }
    }

    /// A sample's reduced energy in a state, where the group is of the state `own`; +∞ where it has no density.
    fn reduced_energy(&self, i: usize, state: State, own: State, kt: f64) -> f64 {
        let is_own = matches!((state, own), (State::Flow(a), State::Flow(b)) if a == b);
        if self.outside.get(i).copied().unwrap_or(false) {
            // Of its own flow alone; with any energy, since none other is compared.
            return if is_own { 0.0 } else { f64::INFINITY };
        }
        let (reduced, of_frame) = match state {
            State::Flow(flow) => (-self.log_q.get(flow).and_then(|q| q.get(i)).copied().unwrap_or(f64::NAN), false),
            State::Temperature(_) => {
                let energy = self.energies.get(i).copied().unwrap_or(f64::NAN);
                (energy / kt, matches!(own, State::Temperature(_)))
            }
        };
        // A frame's energy that is no number is refused; a sample's has no weight, as everywhere.
        if reduced.is_finite() || of_frame { reduced } else { f64::INFINITY }
    }

    /// Appends the samples of another that are `apart` from each other: those nearest to the multiples of it, which is at least 1.
    fn append(&mut self, other: &Self, apart: f64) {
        let n = other.len();
        let which: Vec<usize> = (0..n).map(|i| (i as f64 * apart).round() as usize).take_while(|i| *i < n).collect();
        fn some<T: Copy>(to: &mut Vec<T>, from: &[T], which: &[usize]) {
            to.extend(which.iter().filter_map(|&i| from.get(i).copied()));
        }
        some(&mut self.energies, &other.energies, &which);
        some(&mut self.outside, &other.outside, &which);
        self.log_q.iter_mut().zip(&other.log_q).for_each(|(to, from)| some(to, from, &which));
        self.members.iter_mut().zip(&other.members).for_each(|(to, from)| some(to, from, &which));
    }
}

/// A row of u_kn.
#[derive(Clone, Copy)]
enum State {
    /// The flow density of this number.
    Flow(usize),
    Temperature(f64),
}

/// Frames of one temperature.
struct Data {
    temperature: f64,
    group: Group,
}

/// The joint estimates.
#[derive(Default)]
pub(super) struct Solved {
    pub bar: Vec<JointEstimate>,
    pub mbar: Option<(JointReport, Vec<JointState>)>,
}

impl Solved {
    pub fn errors(&self) -> impl Iterator<Item = f64> {
        let of_mbar = self.mbar.iter().flat_map(|(report, _)| &report.estimates);
        self.bar.iter().chain(of_mbar).map(|e| e.asymptotic_error)
    }
}

/// An estimation on its way.
pub(super) struct Run<'a> {
    engine: &'a Engine,
    model: &'a Arc<LoadedModel>,
    request: &'a JointRequest,
    methods: Vec<Method>,
    /// The model's densities, each once, and which of them each temperature has.
    flows: Vec<SampleKey>,
    flow_of: Vec<usize>,
    samples: Vec<Group>,
    data: Vec<Data>,
    used: Vec<UsedFrames>,
    importance: Vec<(WeightAccumulator, FreeEnergyAccumulator)>,
}

impl<'a> Run<'a> {
    pub fn begin(
        engine: &'a Engine,
        model: &'a Arc<LoadedModel>,
        request: &'a JointRequest,
        outlet: &Outlet<JointItem>,
    ) -> Result<Self, StreamError> {
        let mut run = Self {
            engine,
            model,
            request,
            methods: Vec::new(),
            flows: Vec::new(),
            flow_of: Vec::new(),
            samples: Vec::new(),
            data: Vec::new(),
            used: Vec::new(),
            importance: Vec::new(),
        };
        for &temperature in &request.temperatures {
            let least = request.least_effective_fraction;
            let (method, _) = engine.method_for(outlet, model, temperature, request.method, least)?;
            let key = SampleKey { temperature, method, seed: request.seed, purpose: Purpose::Sample };
            let known = run.flows.iter().position(|known| model.generator.is_same_density(known, &key));
            run.flow_of.push(known.unwrap_or(run.flows.len()));
            if known.is_none() {
                // Latents of one seed would make samples of all densities depend on each other, and MBAR takes none to.
                let seed = request.seed.wrapping_add((run.flows.len() as u64).wrapping_mul(SEED_STEP));
                run.flows.push(SampleKey { seed, ..key });
            }
            run.methods.push(method);
            let sums = FreeEnergyAccumulator::new(request.query.clone(), model.generator.kt(temperature), 1);
            run.importance.push((WeightAccumulator::default(), sums));
        }
        run.samples = run.flows.iter().map(|_| run.group()).collect();
        Ok(run)
    }

    fn group(&self) -> Group {
        Group::new(self.flows.len(), self.request.query.states.len())
    }

    /// The addresses of the samples of each density.
    pub fn flows(&self) -> &[SampleKey] {
        &self.flows
    }

    /// Samples of each density so far.
    pub fn drawn(&self) -> usize {
        self.samples.first().map_or(0, Group::len)
    }

    /// Reads frames, and keeps those that are independent of each other.
    pub fn read(
        &mut self,
        frames: &Frames,
        draining: &CancellationToken,
        outlet: &Outlet<JointItem>,
    ) -> Result<(), StreamError> {
        let system = self.model.generator.target.system();
        let mut all = self.group();
        while all.len() < frames.len() {
            Engine::check_wanted(outlet, draining)?;
            let positions = outlet.wait(frames.read(all.len(), CHUNK))?;
            all.energies.extend(self.engine.energies(outlet, system, &positions)?);
            for (log_q, key) in all.log_q.iter_mut().zip(&self.flows) {
                log_q.extend(self.engine.log_densities(outlet, self.model, key, &positions)?);
            }
            all.add_members(&self.request.query.states, &positions, system.dimension());
        }
        all.outside = vec![false; all.len()];
        let kt = self.model.generator.kt(frames.temperature);
        let mut inefficiency = statistical_inefficiency(&all.energies);
        for log_q in &all.log_q {
            let works: Vec<f64> = log_q.iter().zip(&all.energies).map(|(q, u)| q + u / kt).collect();
            inefficiency = inefficiency.max(statistical_inefficiency(&works));
        }
        // A state that is seldom left is known worse than the energy.
        for members in &all.members {
            let series: Vec<f64> = members.iter().map(|is_in| f64::from(u8::from(*is_in))).collect();
            inefficiency = inefficiency.max(statistical_inefficiency(&series));
        }
        let beyond = all.log_q.first().map_or(0, |q| q.iter().filter(|q| **q == f64::NEG_INFINITY).count() as u64);
        let mut kept = self.group();
        kept.append(&all, inefficiency.max(1.0));
        let used = kept.len() as u64;
        match self.data.iter_mut().find(|data| is_same(data.temperature, frames.temperature)) {
            Some(data) => data.group.append(&kept, 1.0),
            None => self.data.push(Data { temperature: frames.temperature, group: kept }),
        }
        self.used.push(UsedFrames {
            dataset: frames.id.clone(),
            temperature: frames.temperature,
            frames: frames.of_temperature,
            used,
            inefficiency,
            looked_at_every: frames.stride,
            beyond,
        });
        Ok(())
    }

    /// Samples of a flow density.
    pub fn add(&mut self, flow: usize, batch: &WeightedBatch, outlet: &Outlet<JointItem>) -> Result<(), StreamError> {
        let generator = &self.model.generator;
        let wanted = self.flow_of.iter().zip(&self.request.temperatures).zip(&mut self.importance);
        for ((_, temperature), (weights, sums)) in wanted.filter(|((of, _), _)| **of == flow) {
            let kt = generator.kt(*temperature);
            let weight = |(u, log_p): (&f64, &f64)| {
                let log_w = -u / kt - log_p;
                if log_w.is_finite() { log_w } else { f64::NEG_INFINITY }
            };
            let log_weights: Vec<f64> = batch.energies.iter().zip(&batch.log_probs).map(weight).collect();
            log_weights.iter().for_each(|w| weights.add(*w));
            let reduced: Vec<f64> = batch.energies.iter().map(|energy| energy / kt).collect();
            weights.count_beyond(&reduced, generator.card.energy_cut);
            if self.request.importance {
                sums.add(&log_weights, &batch.energies, &batch.positions);
            }
        }
        let group = &mut self.samples[flow];
        group.energies.extend(&batch.energies);
        group.outside.extend(batch.log_probs.iter().map(|log_p| !log_p.is_finite()));
        for (other, key) in self.flows.iter().enumerate() {
            match other == flow {
                true => group.log_q[other].extend(&batch.log_probs),
                false => {
                    let log_q = self.engine.log_densities(outlet, self.model, key, &batch.positions)?;
                    group.log_q[other].extend(log_q);
                }
            }
        }
        group.add_members(&self.request.query.states, &batch.positions, generator.target.system().dimension());
        Ok(())
    }

    pub fn solve(&self, replicates: usize, proceed: impl Fn() -> bool + Sync) -> Result<Solved, StreamError> {
        let mut solved = Solved::default();
        if self.request.bar {
            for (&temperature, &flow) in self.request.temperatures.iter().zip(&self.flow_of) {
                let data = self.data.iter().find(|data| is_same(data.temperature, temperature));
                let Some(data) = data else { return Err(MbarError::Unreachable(1).into()) };
                let states = [State::Flow(flow), State::Temperature(temperature)];
                let target = JointTarget { state: 1, reference: 0, kt: self.model.generator.kt(temperature) };
                let groups = [&self.samples[flow], &data.group];
                solved.bar.extend(self.weighted(&states, &groups, &[target], replicates, &proceed)?.estimates);
            }
        }
        if self.request.mbar {
            solved.mbar = Some(self.solve_all(replicates, &proceed)?);
        }
        Ok(solved)
    }

    /// MBAR of all densities together.
    fn solve_all(
        &self,
        replicates: usize,
        proceed: &(impl Fn() -> bool + Sync),
    ) -> Result<(JointReport, Vec<JointState>), StreamError> {
        let drawn = self.drawn() as u64;
        let of_flow =
            |key: &SampleKey| JointState { method: Some(key.method), temperature: key.temperature, samples: drawn };
        let of_temperature = |temperature: f64, samples: u64| JointState { method: None, temperature, samples };
        let mut facts: Vec<JointState> = self.flows.iter().map(of_flow).collect();
        let mut states: Vec<State> = (0..self.flows.len()).map(State::Flow).collect();
        for data in &self.data {
            facts.push(of_temperature(data.temperature, data.group.len() as u64));
            states.push(State::Temperature(data.temperature));
        }
        let groups: Vec<&Group> = self.samples.iter().chain(self.data.iter().map(|data| &data.group)).collect();
        let mut targets = Vec::with_capacity(self.flow_of.len());
        for (&temperature, &reference) in self.request.temperatures.iter().zip(&self.flow_of) {
            let is_it = |fact: &JointState| fact.method.is_none() && is_same(fact.temperature, temperature);
            let state = facts.iter().position(is_it).unwrap_or(facts.len());
            if state == facts.len() {
                facts.push(of_temperature(temperature, 0));
                states.push(State::Temperature(temperature));
            }
            targets.push(JointTarget { state, reference, kt: self.model.generator.kt(temperature) });
        }
        Ok((self.weighted(&states, &groups, &targets, replicates, proceed)?, facts))
    }

    /// The answers at some of the states, of which the first ones are those that the groups are samples of.
    fn weighted(
        &self,
        states: &[State],
        groups: &[&Group],
        targets: &[JointTarget],
        replicates: usize,
        proceed: &(impl Fn() -> bool + Sync),
    ) -> Result<JointReport, StreamError> {
        let samples: usize = groups.iter().map(|group| group.len()).sum();
        let mut u_kn = Vec::with_capacity(samples * states.len());
        for state in states {
            for (group, own) in groups.iter().zip(states) {
                let kt = match state {
                    State::Flow(_) => 1.0,
                    State::Temperature(temperature) => self.model.generator.kt(*temperature),
                };
                u_kn.extend((0..group.len()).map(|i| group.reduced_energy(i, *state, *own, kt)));
            }
        }
        let n_k: Vec<u64> = (0..states.len()).map(|k| groups.get(k).map_or(0, |group| group.len() as u64)).collect();
        let energies: Vec<f64> = groups.iter().flat_map(|group| &group.energies).copied().collect();
        let of_state = |s: usize| groups.iter().filter_map(|group| group.members.get(s)).flatten().copied().collect();
        let members: Vec<Vec<bool>> = (0..self.request.query.states.len()).map(of_state).collect();
        let joint_samples = JointSamples { u_kn: &u_kn, n_k: &n_k, energies: &energies, members: &members };
        Ok(joint(&joint_samples, targets, replicates, self.request.seed, proceed)?)
    }

    fn frame_shares(&self, temperature: f64) -> Option<Vec<f64>> {
        let data = self.data.iter().find(|data| is_same(data.temperature, temperature))?;
        let share =
            |members: &Vec<bool>| members.iter().filter(|is_in| **is_in).count() as f64 / members.len().max(1) as f64;
        Some(data.group.members.iter().map(share).collect())
    }

    /// What there is to answer.
    pub fn item(&self, finished: Option<StopCause>, replicates: usize, begin: Instant, solved: Solved) -> JointItem {
        let importance = self.request.temperatures.iter().zip(&self.methods).zip(&self.importance);
        let importance =
            importance.filter(|_| self.request.importance).map(|((temperature, method), (weights, sums))| {
                TemperatureEstimate {
                    temperature: *temperature,
                    method: *method,
                    decision: None,
                    weights: weights.summary(),
                    report: sums.report(replicates, self.request.seed),
                }
            });
        let importance = importance.collect();
        let weights = self.importance.iter().map(|(weights, _)| weights.summary()).collect();
        let (report, states) = solved.mbar.map_or((None, Vec::new()), |(report, states)| (Some(report), states));
        let (solution, mbar) = report.map_or((None, Vec::new()), |r| (Some(r.solution), r.estimates));
        JointItem {
            importance,
            bar: solved.bar,
            mbar,
            states,
            solution,
            methods: self.methods.clone(),
            weights,
            data: self.used.clone(),
            frame_shares: self.request.temperatures.iter().map(|t| self.frame_shares(*t)).collect(),
            finished,
            seconds: begin.elapsed().as_secs_f64(),
        }
    }
}
