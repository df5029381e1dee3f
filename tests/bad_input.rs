//! What is wrong is answered with the right code, a reason, and a sentence that names the field; and changes nothing.

mod common;

use boltzflow::contract::{array, v1};
use bytes::{Buf, BufMut, Bytes};
use common::*;
use std::fmt::Write;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// (answer, code, reason, a word of the sentence).
type Case = (Result<(), Status>, Code, &'static str, &'static str);

fn check(cases: Vec<Case>) {
    let mut wrong = String::new();
    for (i, (answer, code, expected_reason, word)) in cases.into_iter().enumerate() {
        match answer {
            Ok(()) => writeln!(wrong, "case {i} ({word}): accepted").unwrap(),
            Err(status) => {
                let as_expected =
                    status.code() == code && reason(&status) == expected_reason && status.message().contains(word);
                if !as_expected {
                    writeln!(wrong, "case {i} ({word}): {:?} {} {}", status.code(), reason(&status), status.message())
                        .unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

macro_rules! case {
    ($call:expr, $code:ident, $reason:literal, $word:literal) => {
        ($call.await.map(|_| ()), Code::$code, $reason, $word)
    };
}

/// Everything that is stored, to see that nothing changed.
async fn inventory(clients: &mut Clients) -> String {
    let systems = clients.systems.list_systems(v1::ListSystemsRequest::default()).await.unwrap().into_inner();
    let jobs = clients.jobs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner();
    let models = clients.models.list_models(v1::ListModelsRequest::default()).await.unwrap().into_inner();
    let datasets = clients.datasets.list_datasets(v1::ListDatasetsRequest::default()).await.unwrap().into_inner();
    format!("{systems:?} {jobs:?} {models:?} {datasets:?}")
}

fn double_well(change: impl FnOnce(&mut v1::analytic_potential::DoubleWell)) -> v1::System {
    let mut potential = v1::analytic_potential::DoubleWell::default();
    change(&mut potential);
    let potential = v1::analytic_potential::Potential::DoubleWell(potential);
    v1::System {
        definition: Some(v1::system::Definition::Analytic(v1::AnalyticPotential { potential: Some(potential) })),
        ..v1::System::default()
    }
}

fn molecule(system_xml: String, topology_pdb: String) -> v1::System {
    v1::System {
        definition: Some(v1::system::Definition::Openmm(v1::OpenMmSystem { system_xml, topology_pdb })),
        ..v1::System::default()
    }
}

fn create(system: v1::System) -> v1::CreateSystemRequest {
    v1::CreateSystemRequest { system: Some(system), ..v1::CreateSystemRequest::default() }
}

fn system_of(particles: usize, forces: &str) -> String {
    let masses = "<Particle mass=\"1\"/>".repeat(particles);
    format!("<System version=\"1\"><Particles>{masses}</Particles><Constraints/><Forces>{forces}</Forces></System>")
}

/// Two megabytes of text that ask for 20 GB of memory: each variable has a force on every atom.
fn many_variables() -> String {
    let bond = "<Force type=\"HarmonicBondForce\" version=\"2\"><Bonds><Bond p1=\"0\" p2=\"1\" d=\"1\" k=\"1\"/></Bonds></Force>";
    let variables: String =
        (0..256).map(|k| format!("<CollectiveVariable name=\"v{k}\">{bond}</CollectiveVariable>")).collect();
    system_of(
        100_000,
        &format!(
            "<Force type=\"CustomCVForce\" version=\"1\" energy=\"v0\"><GlobalParameters/><EnergyParameterDerivatives/>\
             <CollectiveVariables>{variables}</CollectiveVariables><TabulatedFunctions/></Force>"
        )
        .repeat(4),
    )
}

/// Expressions whose derivatives would take minutes.
fn long_expressions() -> String {
    let pairs = (1..65).flat_map(|i| (1..65).map(move |j| (i, j))).filter(|(i, j)| i != j);
    let sum: Vec<String> = pairs.map(|(i, j)| format!("distance(p{i},p{j})")).collect();
    let particles: String = (1..65).map(|k| format!(" p{k}=\"{}\"", k - 1)).collect();
    let force = format!(
        "<Force type=\"CustomCompoundBondForce\" version=\"3\" particles=\"64\" energy=\"{}\"><PerBondParameters/>\
         <GlobalParameters/><EnergyParameterDerivatives/><Bonds><Bond{particles}/></Bonds><Functions/></Force>",
        sum.join("+")
    );
    system_of(64, &force.repeat(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn systems() {
    let (_folder, server, mut c) = fresh().await;
    let read = |path: &str| std::fs::read_to_string(test_data(path)).unwrap();
    let xml = read("openmm/alanine-dipeptide-vacuum/system.xml");
    let pdb = read("openmm/alanine-dipeptide-vacuum/topology.pdb");
    let other_pdb = read("openmm/ace-aaa-nme/topology.pdb");
    let truncated = xml[..xml.len() / 2].to_string();
    let entities =
        r#"<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><System>&b;</System>"#;
    let nested = "<a>".repeat(5 << 20);
    let before = inventory(&mut c).await;
    let mut s = c.systems.clone();
    let positions =
        |shape: &[usize], n: usize| Some(array(vec![0.1; n], shape, v1::DataType::Float64, v1::ArrayEncoding::Bytes));
    let energy = |system: &str, positions| v1::EvaluateEnergyRequest {
        system: system.into(),
        positions,
        ..v1::EvaluateEnergyRequest::default()
    };
    check(vec![
        case!(s.create_system(v1::CreateSystemRequest::default()), InvalidArgument, "INVALID_FIELD", "system"),
        case!(s.create_system(create(v1::System::default())), InvalidArgument, "INVALID_FIELD", "system.definition"),
        case!(
            s.create_system(create(double_well(|p| p.a4 = Some(f64::NAN)))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "a4"
        ),
        case!(
            s.create_system(create(double_well(|p| p.k = Some(-1.0)))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "k is -1"
        ),
        case!(
            s.create_system(create(double_well(|p| p.dimension = -3))),
            InvalidArgument,
            "INVALID_FIELD",
            "dimension"
        ),
        case!(
            s.create_system(create(double_well(|p| p.dimension = i64::MAX))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "dimension"
        ),
        case!(
            s.create_system(create(molecule(truncated, String::new()))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "system.openmm"
        ),
        case!(
            s.create_system(create(molecule(entities.into(), String::new()))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "system.openmm"
        ),
        case!(s.create_system(create(molecule(nested, String::new()))), InvalidArgument, "MALFORMED_SYSTEM", "system"),
        case!(
            s.create_system(create(molecule("<a>".repeat(30 << 20), String::new()))),
            OutOfRange,
            "MESSAGE_TOO_LARGE",
            "too large"
        ),
        case!(s.create_system(create(molecule(xml.clone(), other_pdb))), InvalidArgument, "MALFORMED_SYSTEM", "atoms"),
        case!(
            s.create_system(create(molecule(many_variables(), String::new()))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "collective variables of 100000 atoms"
        ),
        case!(
            s.create_system(create(molecule(long_expressions(), String::new()))),
            InvalidArgument,
            "MALFORMED_SYSTEM",
            "expressions that are longer"
        ),
        case!(
            s.create_system(create(molecule(read("openmm/refused/pme.xml"), String::new()))),
            InvalidArgument,
            "UNSUPPORTED_FORCE",
            "NonbondedForce"
        ),
        case!(
            s.create_system(create(molecule(read("openmm/refused/barostat.xml"), String::new()))),
            InvalidArgument,
            "UNSUPPORTED_FORCE",
            "MonteCarloBarostat"
        ),
        case!(
            s.create_system(v1::CreateSystemRequest { system_id: "Bad/Id".into(), ..create(double_well(|_| {})) }),
            InvalidArgument,
            "INVALID_FIELD",
            "system_id"
        ),
        case!(
            s.create_system(v1::CreateSystemRequest { system_id: "double-well".into(), ..create(double_well(|_| {})) }),
            AlreadyExists,
            "RESOURCE_EXISTS",
            "double-well"
        ),
        case!(
            s.create_system(v1::CreateSystemRequest { request_id: "a b".into(), ..create(double_well(|_| {})) }),
            InvalidArgument,
            "INVALID_FIELD",
            "request_id"
        ),
        case!(
            s.get_system(v1::GetSystemRequest { name: "systems/nothing".into(), full: false }),
            NotFound,
            "RESOURCE_NOT_FOUND",
            "nothing"
        ),
        case!(
            s.get_system(v1::GetSystemRequest { name: "../etc/passwd".into(), full: false }),
            InvalidArgument,
            "INVALID_FIELD",
            "name"
        ),
        case!(
            s.delete_system(v1::DeleteSystemRequest { name: "systems/double-well".into() }),
            FailedPrecondition,
            "READ_ONLY_RESOURCE",
            "double-well"
        ),
        case!(
            s.list_systems(v1::ListSystemsRequest { page_size: -1, page_token: String::new() }),
            InvalidArgument,
            "INVALID_FIELD",
            "page_size"
        ),
        case!(
            s.list_systems(v1::ListSystemsRequest { page_size: 1, page_token: "x".into() }),
            InvalidArgument,
            "INVALID_FIELD",
            "page_token"
        ),
        case!(s.evaluate_energy(energy("systems/double-well", None)), InvalidArgument, "INVALID_FIELD", "positions"),
        case!(
            s.evaluate_energy(energy("systems/double-well", positions(&[2, 3], 6))),
            InvalidArgument,
            "INVALID_FIELD",
            "(n, 2)"
        ),
        case!(
            s.evaluate_energy(v1::EvaluateEnergyRequest {
                encoding: 9,
                ..energy("systems/double-well", positions(&[1, 2], 2))
            }),
            InvalidArgument,
            "INVALID_FIELD",
            "encoding"
        ),
        case!(
            s.evaluate_energy(energy(
                "systems/double-well",
                Some(array(vec![0.0, f64::NAN], &[1, 2], v1::DataType::Float64, v1::ArrayEncoding::Bytes))
            )),
            InvalidArgument,
            "INVALID_FIELD",
            "configuration 0"
        ),
        case!(s.evaluate_energy(energy("systems/none", positions(&[1, 2], 2))), NotFound, "RESOURCE_NOT_FOUND", "none"),
    ]);
    assert_eq!(inventory(&mut c).await, before);

    // The good one beside them is accepted, and its energies are those of OpenMM.
    let system = s.create_system(create(molecule(xml, pdb))).await.unwrap().into_inner();
    assert_eq!((system.atoms, system.energy_unit()), (22, v1::EnergyUnit::KjPerMol));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs() {
    let (_folder, server, mut c) = fresh().await;
    let plain = std::fs::read_to_string(test_data("openmm/alanine-dipeptide-vacuum/system.xml")).unwrap();
    let plain_pdb = std::fs::read_to_string(test_data("openmm/alanine-dipeptide-vacuum/topology.pdb")).unwrap();
    let bare = create(molecule(plain.clone(), String::new()));
    let without_structure = c.systems.create_system(bare).await.unwrap().into_inner().name;
    let whole = c.systems.create_system(create(molecule(plain, plain_pdb))).await.unwrap().into_inner().name;
    let before = inventory(&mut c).await;
    let mut j = c.jobs.clone();
    let with = |change: fn(&mut v1::TrainingTask)| {
        let mut task = small_task(10);
        change(&mut task);
        job_request(task)
    };
    let annealed = |change: fn(&mut v1::Annealing, &mut v1::TrainingTask)| {
        let (mut task, mut annealing) = (small_task(10), v1::Annealing::default());
        task.stages[0].replay = Some(v1::Replay::default());
        change(&mut annealing, &mut task);
        task.stages[0].replay.as_mut().unwrap().annealing = Some(annealing);
        job_request(task)
    };
    let on = |system: &str| {
        let mut task = small_task(10);
        task.system = system.to_string();
        job_request(task)
    };
    let simulate = |change: fn(&mut v1::SimulationTask)| {
        let mut task = v1::SimulationTask { system: "systems/double-well".into(), ..v1::SimulationTask::default() };
        change(&mut task);
        let task = Some(v1::job::Task::Simulation(task));
        v1::CreateJobRequest { job: Some(v1::Job { task, ..v1::Job::default() }), ..v1::CreateJobRequest::default() }
    };
    let simulate_without = {
        let mut request = simulate(|_| {});
        if let Some(v1::job::Task::Simulation(task)) = &mut request.job.as_mut().unwrap().task {
            task.system = without_structure.clone();
        }
        request
    };
    let mut realnvp = small_task(10);
    realnvp.system = whole;
    realnvp.architecture.as_mut().unwrap().kind = v1::FlowKind::Realnvp.into();
    let mut autoregressive = realnvp.clone();
    autoregressive.architecture.as_mut().unwrap().kind = v1::FlowKind::Autoregressive.into();
    let get = |name: &str| v1::GetJobRequest { name: name.into() };
    check(vec![
        case!(j.create_job(v1::CreateJobRequest::default()), InvalidArgument, "INVALID_FIELD", "job"),
        case!(
            j.create_job(v1::CreateJobRequest { job: Some(v1::Job::default()), ..v1::CreateJobRequest::default() }),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training"
        ),
        case!(j.create_job(simulate(|t| t.system.clear())), InvalidArgument, "INVALID_FIELD", "job.simulation.system"),
        case!(j.create_job(simulate(|t| t.system = "systems/none".into())), NotFound, "RESOURCE_NOT_FOUND", "none"),
        case!(
            j.create_job(with(|t| t.coordinates = Some(v1::Coordinates { scheme: 0, core_atoms: vec![1] }))),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.coordinates.core_atoms"
        ),
        case!(
            j.create_job(with(|t| t.coordinates = Some(v1::Coordinates { scheme: 1, core_atoms: vec![-1] }))),
            InvalidArgument,
            "INVALID_FIELD",
            "-1 is negative"
        ),
        case!(
            j.create_job(with(|t| t.coordinates = Some(v1::Coordinates { scheme: 1, core_atoms: vec![] }))),
            FailedPrecondition,
            "UNSUITABLE_SYSTEM",
            "mixed coordinates are for molecules"
        ),
        case!(
            j.create_job(simulate(|t| t.start = "datasets/none".into())),
            NotFound,
            "RESOURCE_NOT_FOUND",
            "dataset 'none'"
        ),
        case!(j.create_job(simulate_without), FailedPrecondition, "UNSUITABLE_SYSTEM", "topology_pdb"),
        case!(j.create_job(simulate(|t| t.method = 9)), InvalidArgument, "INVALID_FIELD", "job.simulation.method"),
        case!(j.create_job(simulate(|t| t.walkers = -1)), InvalidArgument, "INVALID_FIELD", "job.simulation.walkers"),
        case!(j.create_job(simulate(|t| t.walkers = i64::MAX)), InvalidArgument, "INVALID_FIELD", "walkers"),
        case!(j.create_job(simulate(|t| t.steps = i64::MAX)), InvalidArgument, "INVALID_FIELD", "steps: it is"),
        case!(
            j.create_job(simulate(|t| t.stride = 1 << 40)),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.stride"
        ),
        case!(
            j.create_job(simulate(|t| (t.steps, t.stride) = (1_000_000_000, 1))),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.stride"
        ),
        case!(
            j.create_job(simulate(|t| t.equilibration_steps = -2)),
            InvalidArgument,
            "INVALID_FIELD",
            "equilibration_steps"
        ),
        case!(
            j.create_job(simulate(|t| t.temperatures = vec![1.0, f64::NAN])),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.temperatures"
        ),
        case!(j.create_job(simulate(|t| t.temperatures = vec![2.0, 1.0])), InvalidArgument, "INVALID_FIELD", "ascend"),
        case!(
            j.create_job(simulate(|t| t.time_step = f64::INFINITY)),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.time_step"
        ),
        case!(
            j.create_job(simulate(|t| t.friction = -1.0)),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.friction"
        ),
        case!(
            j.create_job(simulate(|t| {
                t.ladder = Some(v1::TemperatureLadder { low: 2.0, high: 1.0, ..v1::TemperatureLadder::default() });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "job.simulation.ladder.high"
        ),
        case!(j.create_job(with(|t| t.system.clear())), InvalidArgument, "INVALID_FIELD", "job.training.system"),
        case!(j.create_job(on("systems/none")), NotFound, "RESOURCE_NOT_FOUND", "none"),
        case!(j.create_job(on(&without_structure)), FailedPrecondition, "UNSUITABLE_SYSTEM", "topology_pdb"),
        case!(j.create_job(job_request(realnvp)), InvalidArgument, "INVALID_FIELD", "circular"),
        case!(j.create_job(job_request(autoregressive)), InvalidArgument, "INVALID_FIELD", "circular"),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().conditioner = 42)),
            InvalidArgument,
            "INVALID_FIELD",
            "architecture.conditioner"
        ),
        case!(
            j.create_job(with(|t| {
                let architecture = t.architecture.as_mut().unwrap();
                architecture.conditioner = v1::ConditionerKind::Residual.into();
                architecture.hidden = vec![16, 16];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "hidden"
        ),
        case!(
            j.create_job(with(|t| t.dataset = "datasets/none".into())),
            NotFound,
            "RESOURCE_NOT_FOUND",
            "dataset 'none'"
        ),
        case!(j.create_job(with(|t| t.temperature = f64::NAN)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(j.create_job(with(|t| t.temperature = f64::INFINITY)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(j.create_job(with(|t| t.temperature = -1.0)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(
            j.create_job(with(|t| t.temperature_range = Some(v1::TemperatureRange { low: 2.0, high: 0.5 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature_range"
        ),
        case!(
            j.create_job(with(|t| t.temperature_range = Some(v1::TemperatureRange { low: f64::NAN, high: 2.0 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature_range.low"
        ),
        case!(
            j.create_job(with(|t| t.temperature_range = Some(v1::TemperatureRange { low: -1.0, high: f64::INFINITY }))),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature_range.low"
        ),
        case!(
            j.create_job(with(|t| {
                t.temperature = 3.0;
                t.temperature_range = Some(v1::TemperatureRange { low: 0.5, high: 2.0 });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature is 3"
        ),
        case!(j.create_job(with(|t| t.recipe = "alchemy".into())), InvalidArgument, "INVALID_FIELD", "transport"),
        case!(j.create_job(with(|t| t.weight_average = 1.0)), InvalidArgument, "INVALID_FIELD", "weight_average"),
        case!(j.create_job(with(|t| t.weight_average = f64::NAN)), InvalidArgument, "INVALID_FIELD", "weight_average"),
        case!(
            j.create_job(with(|t| t.stages[0].own_samples = Some(v1::Ramp { start: f64::NAN, end: 1.0, shape: 0 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "own_samples"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { generation: -1, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.generation"
        ),
        case!(
            j.create_job(with(
                |t| t.stages[0].replay = Some(v1::Replay { generation: i64::MAX, ..v1::Replay::default() })
            )),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.generation"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { trust: f64::NAN, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.trust"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { entropy: -1.0, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.entropy"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { batches: 65537, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "batches"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { batches: -1, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "batches"
        ),
        case!(
            j.create_job(with(
                |t| t.stages[0].replay = Some(v1::Replay { wide_share: f64::NAN, ..v1::Replay::default() })
            )),
            InvalidArgument,
            "INVALID_FIELD",
            "wide_share"
        ),
        case!(
            j.create_job(with(|t| {
                let annealing = Some(v1::Annealing::default());
                t.stages[0].replay = Some(v1::Replay { annealing, wide_share: 0.1, ..v1::Replay::default() });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "wide_share"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { wide_share: 0.95, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "wide_share"
        ),
        case!(
            j.create_job(with(|t| {
                t.stages[0].own_samples = Some(v1::Ramp { start: 1.0, end: 1.0, shape: 0 });
                t.stages[0].batch = 65536;
                t.stages[0].replay = Some(v1::Replay { generation: 100_000, ..v1::Replay::default() });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.generation"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].log_variance = Some(v1::Ramp { start: -1.0, end: 1.0, shape: 0 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].log_variance"
        ),
        case!(
            j.create_job(with(|t| {
                t.temperature_range = None;
                t.stages[0].temperature_gradient = Some(v1::Ramp { start: 1.0, end: 1.0, shape: 0 });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].temperature_gradient"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].coordinate_entropy = Some(v1::Ramp { start: 1.0, end: 0.0, shape: 0 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].coordinate_entropy"
        ),
        case!(
            j.create_job(with(|t| {
                t.stages[0].coordinate_entropy = Some(v1::Ramp { start: 1.0, end: 0.0, shape: 0 });
                t.collective_variable = Some(v1::VariableRange { variable: None, low: 0.0, high: 1.0 });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.collective_variable.variable"
        ),
        case!(
            j.create_job(with(|t| {
                t.stages[0].coordinate_entropy = Some(v1::Ramp { start: 1.0, end: 0.0, shape: 0 });
                t.collective_variable = Some(variable_range(99, 0.0, 1.0));
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.collective_variable.variable"
        ),
        case!(
            j.create_job(with(|t| {
                t.stages[0].coordinate_entropy = Some(v1::Ramp { start: 1.0, end: 0.0, shape: 0 });
                t.collective_variable = Some(variable_range(0, f64::NEG_INFINITY, 1.0));
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.collective_variable.low"
        ),
        case!(
            j.create_job(with(|t| t.collective_variable = Some(variable_range(0, 0.0, 1.0)))),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.collective_variable"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].replay = Some(v1::Replay { every: 65, ..v1::Replay::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.every"
        ),
        case!(
            j.create_job(annealed(|a, _| a.distributions = -1)),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.annealing.distributions"
        ),
        case!(
            j.create_job(annealed(|a, _| a.moves = i64::MAX)),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.annealing.moves"
        ),
        case!(
            j.create_job(annealed(|a, _| (a.distributions, a.moves) = (1000, 1000))),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.annealing.distributions"
        ),
        case!(
            j.create_job(annealed(|_, t| t.stages[0].batch = 65536)),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.annealing.distributions"
        ),
        case!(
            j.create_job(annealed(|a, _| a.step_size = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.annealing.step_size"
        ),
        case!(
            j.create_job(annealed(|_, t| t.stages[0].replay.as_mut().unwrap().entropy = 0.5)),
            InvalidArgument,
            "INVALID_FIELD",
            "replay.entropy"
        ),
        case!(
            j.create_job(annealed(|_, t| {
                t.stages[0].own_samples = Some(v1::Ramp { start: 1.0, end: 1.0, shape: 0 });
                t.stages[0].temperature_factor = Some(v1::Ramp { start: 2.0, end: 1.0, shape: 0 });
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature_factor"
        ),
        case!(j.create_job(with(|t| t.stages[0].steps = 0)), InvalidArgument, "INVALID_FIELD", "stages[0].steps"),
        case!(
            j.create_job(with(|t| t.stages[0].steps = i64::MAX)),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].steps"
        ),
        case!(j.create_job(with(|t| t.stages[0].steps = -5)), InvalidArgument, "INVALID_FIELD", "stages[0].steps"),
        case!(
            j.create_job(with(|t| t.stages[0].batch = i64::MAX)),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].batch"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].learning_rate.as_mut().unwrap().start = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].learning_rate"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].learning_rate.as_mut().unwrap().shape = 77)),
            InvalidArgument,
            "INVALID_FIELD",
            "shape"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].maximum_likelihood = t.stages[0].reverse_kl)),
            InvalidArgument,
            "INVALID_FIELD",
            "job.training.dataset"
        ),
        case!(j.create_job(with(|t| t.stages[0].reverse_kl = None)), InvalidArgument, "INVALID_FIELD", "reverse_kl"),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().kind = 42)),
            InvalidArgument,
            "INVALID_FIELD",
            "architecture.kind"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().bins = 1000)),
            InvalidArgument,
            "INVALID_FIELD",
            "bins"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().hidden = vec![8192; 16])),
            InvalidArgument,
            "INVALID_FIELD",
            "weights"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().log_scale_bound = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "log_scale_bound"
        ),
        case!(
            j.create_job(with(|t| t.energy_cut = Some(v1::EnergyCut { high: 1.0, max: f64::INFINITY }))),
            InvalidArgument,
            "INVALID_FIELD",
            "energy_cut"
        ),
        case!(
            j.create_job(with(|t| t.stages[0].learning_rate.as_mut().unwrap().end = 1e300)),
            InvalidArgument,
            "INVALID_FIELD",
            "stages[0].learning_rate"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().hidden = vec![1 << 40])),
            InvalidArgument,
            "INVALID_FIELD",
            "hidden"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().couplings = i64::MAX)),
            InvalidArgument,
            "INVALID_FIELD",
            "couplings"
        ),
        case!(
            j.create_job(with(|t| t.architecture.as_mut().unwrap().spline_bound = f64::INFINITY)),
            InvalidArgument,
            "INVALID_FIELD",
            "bound"
        ),
        case!(
            j.create_job(with(|t| t.adam = Some(v1::Adam { beta1: 2.0, ..v1::Adam::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "adam.beta1"
        ),
        case!(
            j.create_job(with(|t| t.budget = Some(v1::Budget { seconds: -1.0, ..v1::Budget::default() }))),
            InvalidArgument,
            "INVALID_FIELD",
            "budget.seconds"
        ),
        case!(j.create_job(with(|t| t.gradient_clip = f64::NAN)), InvalidArgument, "INVALID_FIELD", "gradient_clip"),
        case!(j.create_job(with(|t| t.validation_samples = 1)), InvalidArgument, "INVALID_FIELD", "validation_samples"),
        case!(j.create_job(with(|t| t.model_id = "-".into())), InvalidArgument, "INVALID_FIELD", "model_id"),
        case!(j.get_job(get("jobs/none")), NotFound, "RESOURCE_NOT_FOUND", "none"),
        case!(j.get_job(get("")), InvalidArgument, "INVALID_FIELD", "name"),
        case!(
            j.watch_job(v1::WatchJobRequest { name: "jobs/none".into(), after_sequence: 0 }),
            NotFound,
            "RESOURCE_NOT_FOUND",
            "none"
        ),
        case!(j.cancel_job(v1::CancelJobRequest { name: "jobs/none".into() }), NotFound, "RESOURCE_NOT_FOUND", "none"),
        case!(
            j.list_jobs(v1::ListJobsRequest { states: vec![99], ..v1::ListJobsRequest::default() }),
            InvalidArgument,
            "INVALID_FIELD",
            "states"
        ),
    ]);
    assert_eq!(inventory(&mut c).await, before);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_and_free_energies() {
    let (_folder, server, mut c) = fresh().await;
    let model = c.train(small_task(10)).await;
    let (mut s, mut f) = (c.sampling.clone(), c.free_energy.clone());
    let with = |change: fn(&mut v1::StreamSamplesRequest)| {
        let mut request =
            v1::StreamSamplesRequest { model: model.clone(), count: 10, ..v1::StreamSamplesRequest::default() };
        change(&mut request);
        request
    };
    let annealed = |change: fn(&mut v1::StreamSamplesRequest, &mut v1::AnnealedPaths)| {
        let (mut request, mut paths) =
            (with(|r| r.method = v1::SamplingMethod::Annealed.into()), v1::AnnealedPaths::default());
        change(&mut request, &mut paths);
        request.annealed = Some(paths);
        request
    };
    let windows = |window| v1::StreamSamplesRequest {
        resampling: Some(v1::Resampling { window }),
        ..with(|r| r.method = v1::SamplingMethod::Resampled.into())
    };
    let populations = |change: fn(&mut v1::SequentialMonteCarlo)| {
        let mut message = v1::SequentialMonteCarlo::default();
        change(&mut message);
        let mut request = with(|r| r.method = v1::SamplingMethod::SequentialMonteCarlo.into());
        request.sequential_monte_carlo = Some(message);
        request
    };
    let chains = |change: fn(&mut v1::StreamSamplesRequest, &mut v1::MarkovChains)| {
        let (mut request, mut message) =
            (with(|r| r.method = v1::SamplingMethod::Chain.into()), v1::MarkovChains::default());
        change(&mut request, &mut message);
        request.chains = Some(message);
        request
    };
    let x = |text: &str| Some(boltzflow::contract::variable_message(&text.parse().unwrap()));
    let ask = |change: &dyn Fn(&mut v1::EstimateFreeEnergyRequest)| {
        let mut request = v1::EstimateFreeEnergyRequest {
            model: model.clone(),
            samples: 1000,
            ..v1::EstimateFreeEnergyRequest::default()
        };
        change(&mut request);
        request
    };
    let state = |name: &str, variable, low, high| v1::State {
        name: name.into(),
        intervals: vec![v1::Interval { variable, low, high }],
    };
    let profile = |text: &str, bins| v1::ProfileSpec {
        variable: x(text),
        low: 0.0,
        high: 1.0,
        bins,
        ..v1::ProfileSpec::default()
    };
    let axis = |low, bins| Some(v1::ProfileAxis { variable: x("coordinate(1)"), low, high: 1.0, bins });
    let rmsd = Some(v1::CollectiveVariable {
        variable: Some(v1::collective_variable::Variable::Rmsd(v1::collective_variable::Rmsd::default())),
    });
    check(vec![
        case!(s.stream_samples(with(|r| r.model = "models/none".into())), NotFound, "RESOURCE_NOT_FOUND", "none"),
        case!(s.stream_samples(with(|r| r.model = "none".into())), InvalidArgument, "INVALID_FIELD", "model"),
        case!(s.stream_samples(with(|r| r.temperature = f64::NAN)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(
            s.stream_samples(with(|r| r.temperature = f64::INFINITY)),
            InvalidArgument,
            "INVALID_FIELD",
            "temperature"
        ),
        case!(s.stream_samples(with(|r| r.temperature = -0.5)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(s.stream_samples(with(|r| r.temperature = 1e-300)), InvalidArgument, "INVALID_FIELD", "temperature"),
        case!(s.stream_samples(with(|r| r.count = 0)), InvalidArgument, "INVALID_FIELD", "count"),
        case!(s.stream_samples(with(|r| r.count = 1 << 63)), InvalidArgument, "INVALID_FIELD", "count"),
        case!(s.stream_samples(with(|r| r.first_index = u64::MAX)), OutOfRange, "INDEX_OVERFLOW", "index"),
        case!(
            s.stream_samples(with(|r| r.method = v1::SamplingMethod::Conditioned.into())),
            InvalidArgument,
            "INVALID_FIELD",
            "range of temperatures"
        ),
        case!(
            s.stream_samples(with(|r| r.least_effective_fraction = 1.5)),
            InvalidArgument,
            "INVALID_FIELD",
            "least_effective_fraction"
        ),
        case!(
            s.stream_samples(with(|r| r.least_effective_fraction = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "least_effective_fraction"
        ),
        case!(s.stream_samples(with(|r| r.method = 77)), InvalidArgument, "INVALID_FIELD", "method"),
        case!(
            s.stream_samples(with(|r| r.resampling = Some(v1::Resampling::default()))),
            InvalidArgument,
            "INVALID_FIELD",
            "RESAMPLED"
        ),
        case!(s.stream_samples(windows(15)), InvalidArgument, "INVALID_FIELD", "resampling.window"),
        case!(s.stream_samples(windows(i64::MIN)), InvalidArgument, "INVALID_FIELD", "resampling.window"),
        case!(
            s.stream_samples(populations(|p| p.population = 1 << 40)),
            InvalidArgument,
            "INVALID_FIELD",
            "population"
        ),
        case!(s.stream_samples(populations(|p| p.moves = 1025)), InvalidArgument, "INVALID_FIELD", "moves"),
        case!(
            s.stream_samples(populations(|p| (p.moves, p.leapfrog_steps) = (100, 100))),
            InvalidArgument,
            "INVALID_FIELD",
            "10000"
        ),
        case!(
            s.stream_samples(populations(|p| p.conditional_fraction = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "conditional_fraction"
        ),
        case!(
            s.stream_samples(populations(|p| p.exponents = vec![0.5, 0.5])),
            InvalidArgument,
            "INVALID_FIELD",
            "ascend"
        ),
        case!(
            s.stream_samples(populations(|p| p.exponents = vec![0.5, 1.0])),
            InvalidArgument,
            "INVALID_FIELD",
            "below 1"
        ),
        case!(
            s.stream_samples(populations(|p| (p.exponents, p.moves) = (vec![0.5], 1))),
            InvalidArgument,
            "INVALID_FIELD",
            "step_sizes"
        ),
        case!(
            s.stream_samples(populations(|p| (p.exponents, p.step_sizes) = (vec![0.5], vec![0.1]))),
            InvalidArgument,
            "INVALID_FIELD",
            "step_sizes"
        ),
        case!(s.stream_samples(populations(|p| p.leapfrog_steps = 3)), InvalidArgument, "INVALID_FIELD", "set moves"),
        case!(s.stream_samples(populations(|p| p.latent_moves = -1)), InvalidArgument, "INVALID_FIELD", "latent_moves"),
        case!(
            s.stream_samples(populations(|p| p.step_sizes = vec![0.5])),
            InvalidArgument,
            "INVALID_FIELD",
            "exponents"
        ),
        case!(s.stream_samples(chains(|_, c| c.chains = -1)), InvalidArgument, "INVALID_FIELD", "chains.chains"),
        case!(s.stream_samples(chains(|_, c| c.length = 15)), InvalidArgument, "INVALID_FIELD", "chains.length"),
        case!(
            s.stream_samples(chains(|_, c| c.exponents = vec![0.5, 1.0])),
            InvalidArgument,
            "INVALID_FIELD",
            "REPLICA_EX"
        ),
        case!(
            s.stream_samples(chains(|r, c| {
                r.method = v1::SamplingMethod::ReplicaExchange.into();
                c.exponents = vec![0.5];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "must be 1"
        ),
        case!(
            s.stream_samples(chains(|_, c| (c.without_moves, c.moves) = (true, 1))),
            InvalidArgument,
            "INVALID_FIELD",
            "without_moves"
        ),
        case!(
            s.stream_samples(chains(|_, c| (c.latent_moves, c.step_sizes) = (2, vec![0.1]))),
            InvalidArgument,
            "INVALID_FIELD",
            "set chains.moves"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                (r.changed_weights, r.method) = (true, v1::SamplingMethod::SequentialMonteCarlo.into());
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "changed_weights"
        ),
        case!(
            s.stream_samples(chains(|r, _| r.representation = v1::Representation::Latent.into())),
            InvalidArgument,
            "INVALID_FIELD",
            "latents"
        ),
        case!(
            s.stream_samples(chains(|r, _| r.least_effective_fraction = 0.1)),
            InvalidArgument,
            "INVALID_FIELD",
            "least_effective_fraction"
        ),
        case!(
            s.stream_samples(with(|r| r.annealed = Some(v1::AnnealedPaths::default()))),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed"
        ),
        case!(
            s.stream_samples(annealed(|r, _| r.least_effective_fraction = 0.5)),
            InvalidArgument,
            "INVALID_FIELD",
            "least_effective_fraction"
        ),
        case!(
            s.stream_samples(annealed(|_, a| a.distributions = -1)),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed.distributions"
        ),
        case!(
            s.stream_samples(annealed(|_, a| a.leapfrog_steps = i64::MAX)),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed.leapfrog_steps"
        ),
        case!(
            s.stream_samples(annealed(|_, a| (a.distributions, a.moves) = (1000, 1000))),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed.distributions"
        ),
        case!(
            s.stream_samples(annealed(|_, a| a.step_sizes = vec![f64::NAN])),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed.step_sizes"
        ),
        case!(
            s.stream_samples(annealed(|_, a| a.step_sizes = vec![0.1; 3])),
            InvalidArgument,
            "INVALID_FIELD",
            "annealed.step_sizes"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.method = v1::SamplingMethod::Chain.into())),
            InvalidArgument,
            "INVALID_FIELD",
            "no log Z"
        ),
        case!(s.stream_samples(with(|r| r.representation = 9)), InvalidArgument, "INVALID_FIELD", "representation"),
        case!(s.stream_samples(with(|r| r.encoding = -1)), InvalidArgument, "INVALID_FIELD", "encoding"),
        case!(s.stream_samples(with(|r| r.position_dtype = 9)), InvalidArgument, "INVALID_FIELD", "position_dtype"),
        case!(
            s.stream_samples(with(|r| r.target_effective_samples = f64::NAN)),
            InvalidArgument,
            "INVALID_FIELD",
            "target_effective_samples"
        ),
        case!(
            s.stream_samples(with(|r| r.max_duration = Some(prost_types::Duration { seconds: -1, nanos: 0 }))),
            InvalidArgument,
            "INVALID_FIELD",
            "max_duration"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.temperatures = vec![1.0, 0.0])),
            InvalidArgument,
            "INVALID_FIELD",
            "temperatures[1]"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.temperatures = vec![1.0; 65])),
            InvalidArgument,
            "INVALID_FIELD",
            "temperatures"
        ),
        case!(f.estimate_free_energy(ask(&|r| r.samples = 1 << 63)), InvalidArgument, "INVALID_FIELD", "samples"),
        case!(
            f.estimate_free_energy(ask(&|r| r.bootstrap_replicates = -3)),
            InvalidArgument,
            "INVALID_FIELD",
            "bootstrap_replicates"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", x("coordinate(2)"), 0.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "states[0].intervals[0].variable"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", x("distance(0,1)"), 0.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "not made of atoms"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", x("coordinate(0)"), 1.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "not an interval"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("", x("coordinate(0)"), 0.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "states[0].name"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", x("coordinate(0)"), 0.0, 1.0); 2])),
            InvalidArgument,
            "INVALID_FIELD",
            "twice"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", rmsd.clone(), 0.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "states[0].intervals[0].variable.rmsd.reference"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.states = vec![state("a", x("radius_of_gyration()"), 0.0, 1.0)])),
            InvalidArgument,
            "INVALID_FIELD",
            "not made of atoms"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.states = vec![state("a", x("expression(a-b;a=coordinate(0))"), 0.0, 1.0)];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "'b' is not defined"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| r.profiles = vec![profile("coordinate(0)", 2000)])),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].bins"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.profiles = vec![v1::ProfileSpec { second: axis(0.0, 0), ..profile("coordinate(0)", 10) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].second.bins"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.profiles = vec![v1::ProfileSpec { second: axis(f64::NAN, 9), ..profile("coordinate(0)", 10) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].second.low"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.profiles = vec![v1::ProfileSpec { second: axis(0.0, 65), ..profile("coordinate(0)", 64) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "4160 bins"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                let kernel_density = Some(v1::KernelDensity::default());
                r.profiles = vec![v1::ProfileSpec { kernel_density, ..profile("coordinate(0)", 64) }; 4];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "4096 cells of kernel densities"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                let kernel_density = Some(v1::KernelDensity { bandwidth: f64::NAN });
                r.profiles = vec![v1::ProfileSpec { kernel_density, ..profile("coordinate(0)", 64) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].kernel_density.bandwidth"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                let (second, kernel_density) = (axis(0.0, 9), Some(v1::KernelDensity::default()));
                r.profiles = vec![v1::ProfileSpec { second, kernel_density, ..profile("coordinate(0)", 64) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].kernel_density"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                let turn = v1::ProfileSpec { high: 1.2, ..profile("expression(a;a=coordinate(0);period=1)", 10) };
                r.profiles = vec![turn];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].high"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.profiles = vec![profile("coordinate(0)", 0)];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].bins"
        ),
        case!(
            f.estimate_free_energy(ask(&|r| {
                r.profiles = vec![v1::ProfileSpec { low: f64::NEG_INFINITY, ..profile("coordinate(0)", 5) }];
            })),
            InvalidArgument,
            "INVALID_FIELD",
            "profiles[0].low"
        ),
    ]);
    server.stop().await;
}

/// Sends bytes as they are.
#[derive(Clone, Default)]
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Bytes that are no message are the client's fault, and a method that does not exist is said so; a field that this
/// version does not know is passed over, as proto3 has it.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message() {
    let (_folder, server, c) = fresh().await;
    let mut raw = tonic::client::Grpc::new(c.channel.clone());
    let mut call = async |path: &'static str, bytes: &'static [u8]| {
        raw.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static(path);
        raw.unary(tonic::Request::new(Bytes::from_static(bytes)), path, RawCodec).await.map(|_| ())
    };
    let get = "/boltzflow.v1.SystemService/GetSystem";
    let known: &[u8] = b"\x0a\x13systems/double-well";
    let with_unknown: &[u8] = b"\x0a\x13systems/double-well\xfa\x3f\x03abc";
    call(get, known).await.unwrap();
    call(get, with_unknown).await.unwrap();
    check(vec![
        case!(call(get, b"\xff\xff\xff"), InvalidArgument, "INVALID_FIELD", "malformed"),
        case!(call(get, b"\x0a\x03\xff\xfe\xfd"), InvalidArgument, "INVALID_FIELD", "name"),
        case!(call(get, b"\x0a\x7fabc"), InvalidArgument, "INVALID_FIELD", "name"),
        case!(call("/boltzflow.v1.JobService/CreateJob", b"\x0a\x01\xff"), InvalidArgument, "INVALID_FIELD", "job"),
        case!(call("/boltzflow.v1.JobService/Nothing", b""), Unimplemented, "NOT_IMPLEMENTED", ""),
        case!(call("/no.such.Service/Nothing", b""), Unimplemented, "NOT_IMPLEMENTED", ""),
    ]);
    let (_, metrics) = http_get(server.admin, "/metrics").await;
    assert!(metrics.contains("grpc_method=\"unknown\"") && !metrics.contains("no.such.Service"), "{metrics}");
    server.stop().await;
}

fn variable_range(index: i64, low: f64, high: f64) -> v1::VariableRange {
    use v1::collective_variable::{Coordinate, Variable};
    let variable = v1::CollectiveVariable { variable: Some(Variable::Coordinate(Coordinate { index })) };
    v1::VariableRange { variable: Some(variable), low, high }
}
