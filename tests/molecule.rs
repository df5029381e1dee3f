//! A chemist's real input, end to end over gRPC: System XML, PDB file and trajectory of alanine dipeptide in implicit
//! solvent go in; weighted samples and a free-energy profile come out.
//!
//! The run is short, so its weights are poor and said to be. `boltzflow quickstart --molecule` is the long one, which
//! compares the profiles with replica exchange dynamics.

mod common;

use boltzflow::contract::v1::{self, upload_dataset_request::Part};
use boltzflow::contract::{array, numbers, variable_message};
use boltzflow::coords::dihedral;
use boltzflow::energy::MOLAR_GAS_CONSTANT;
use common::*;
use std::f64::consts::PI;
use std::io::Read;

const FRAMES: usize = 4000;

fn example(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/alanine-dipeptide").join(name)
}

/// The first frames of the trajectory, as rows of 66.
fn trajectory() -> Vec<f64> {
    let file = std::fs::File::open(example("trajectory-300K.npz")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let entry = archive.by_name("positions_nm.npy").unwrap();
    let npy = npyz::NpyFile::new(entry.take(FRAMES as u64 * 66 * 4 + 1000)).unwrap();
    npy.data::<f32>().unwrap().take(FRAMES * 66).map(|x| f64::from(x.unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn alanine_dipeptide() {
    let (_folder, server, mut clients) = fresh().await;
    let read = |name: &str| std::fs::read_to_string(example(name)).unwrap();
    let definition = v1::system::Definition::Openmm(v1::OpenMmSystem {
        system_xml: read("system.xml"),
        topology_pdb: read("topology.pdb"),
    });
    let system = v1::System { definition: Some(definition), ..v1::System::default() };
    let request = v1::CreateSystemRequest {
        system: Some(system),
        system_id: "alanine-dipeptide".into(),
        ..v1::CreateSystemRequest::default()
    };
    let system = clients.systems.create_system(request).await.unwrap().into_inner();
    assert_eq!((system.atoms, system.dimension), (22, 66));
    assert!(system.forces.contains(&"CustomGBForce".to_string()), "{:?}", system.forces);

    let frames = trajectory();
    let header = v1::UploadHeader {
        dataset: Some(v1::Dataset { system: system.name.clone(), temperature: 300.0, ..v1::Dataset::default() }),
        ..v1::UploadHeader::default()
    };
    let mut messages = vec![Part::Header(header)];
    for chunk in frames.chunks(500 * 66) {
        let shape = [chunk.len() / 66, 22, 3];
        let positions = array(chunk.to_vec(), &shape, v1::DataType::Float32, v1::ArrayEncoding::Bytes);
        messages.push(Part::Frames(v1::FrameChunk { positions: Some(positions) }));
    }
    let messages = messages.into_iter().map(|part| v1::UploadDatasetRequest { part: Some(part) });
    let dataset = clients.datasets.upload_dataset(tokio_stream::iter(messages)).await.unwrap().into_inner();
    assert_eq!(dataset.frames, FRAMES as i64);
    // ⟨U⟩ of the two reference runs at 300 K is −98.2 kJ/mol.
    assert!((dataset.energy_mean + 98.2).abs() < 2.0, "⟨U⟩ is {}", dataset.energy_mean);

    let ramp = |value| Some(v1::Ramp { start: value, end: value, shape: 0 });
    let stage = |steps, ml, kl| v1::TrainingStage {
        steps,
        batch: 256,
        maximum_likelihood: ramp(ml),
        reverse_kl: ramp(kl),
        learning_rate: ramp(1e-3),
        ..v1::TrainingStage::default()
    };
    let task = v1::TrainingTask {
        system: system.name.clone(),
        dataset: dataset.name,
        architecture: Some(v1::FlowArchitecture { couplings: 4, hidden: vec![64], ..v1::FlowArchitecture::default() }),
        stages: vec![stage(120, 1.0, 0.0), stage(60, 0.3, 1.0)],
        validation_every: 60,
        validation_samples: 1024,
        ..v1::TrainingTask::default()
    };
    let job = clients.create(task.clone()).await;
    let job = clients.finish(&job.name).await;
    assert_eq!(job.state(), v1::JobState::Succeeded, "{:?}", job.error);
    let progress = job.progress.unwrap();
    // A perfect model has ⟨log p⟩ = −⟨U⟩/kT − log Z, about 218; one of independent coordinates about 200.
    assert!(progress.held_out_log_prob.unwrap() > 205.0, "{progress:?}");
    assert!(progress.reverse_kl.is_some() && progress.non_finite < 1000);

    let request =
        v1::StreamSamplesRequest { model: job.model.clone(), count: 1500, ..v1::StreamSamplesRequest::default() };
    let samples = clients.sample(request).await.unwrap();
    assert_eq!(samples.shape[1..], [22, 3]);
    let header = samples.header.unwrap();
    assert_eq!((header.temperature, header.energy_unit()), (300.0, v1::EnergyUnit::KjPerMol));
    assert_eq!(header.energy_digest, system.energy_digest);
    // After so few steps the flow is far from the held-out frames, and the answer says so.
    let summary = samples.summary.unwrap();
    assert_eq!(summary.coverage(), v1::Coverage::Incomplete);
    assert!(summary.weights.unwrap().warning.contains("held-out"));

    // The energies that weights are made of are those that the service evaluates.
    let request = v1::EvaluateEnergyRequest {
        system: system.name,
        positions: Some(array(
            samples.positions.clone(),
            &[1500, 22, 3],
            v1::DataType::Float64,
            v1::ArrayEncoding::Bytes,
        )),
        ..v1::EvaluateEnergyRequest::default()
    };
    let energies = clients.systems.evaluate_energy(request).await.unwrap().into_inner().energies.unwrap();
    let kt = MOLAR_GAS_CONSTANT * 300.0;
    for (u, reduced) in numbers("energies", &energies).unwrap().0.iter().zip(&samples.reduced_energies) {
        if u.is_finite() && reduced.is_finite() {
            assert!((u / kt - reduced).abs() < 1e-9 * (1.0 + reduced.abs()));
        }
    }
    // L-alanine stays L-alanine: N–CA–C–CB winds one way in every sample, as in every frame.
    let winding = |x: &[f64]| {
        let atom = |i: usize| [x[3 * i], x[3 * i + 1], x[3 * i + 2]];
        dihedral(atom(6), atom(14), atom(10), atom(8)).signum()
    };
    assert!(samples.positions.chunks(66).chain(frames.chunks(66)).all(|x| winding(x) == winding(&frames[..66])));

    // The same in mixed coordinates, with the atoms around the alpha carbon as their core.
    let coordinates = v1::Coordinates { scheme: v1::CoordinateScheme::Mixed.into(), core_atoms: vec![6, 8, 9, 10, 14] };
    let mixed = clients.create(v1::TrainingTask { coordinates: Some(coordinates.clone()), ..task }).await;
    let Some(v1::job::Task::Training(task)) = &mixed.task else { panic!("{mixed:?}") };
    assert_eq!(task.coordinates.as_ref(), Some(&coordinates));
    let mixed = clients.finish(&mixed.name).await;
    assert_eq!(mixed.state(), v1::JobState::Succeeded, "{:?}", mixed.error);
    let progress = mixed.progress.unwrap();
    assert!(progress.held_out_log_prob.unwrap() > 205.0, "{progress:?}");
    let request = v1::StreamSamplesRequest { model: mixed.model, count: 500, ..v1::StreamSamplesRequest::default() };
    let samples = clients.sample(request).await.unwrap();
    assert!(samples.header.unwrap().coordinates.contains("core of 5 atoms"));
    assert!(samples.positions.chunks(66).all(|x| winding(x) == winding(&frames[..66])));

    let phi = variable_message(&"dihedral(4,6,8,14)".parse().unwrap());
    let request = v1::EstimateFreeEnergyRequest {
        model: job.model,
        profiles: vec![v1::ProfileSpec {
            variable: Some(phi.clone()),
            low: -PI,
            high: PI,
            bins: 18,
            ..v1::ProfileSpec::default()
        }],
        states: vec![v1::State {
            name: "across the seam".into(),
            intervals: vec![v1::Interval { variable: Some(phi), low: 2.9, high: -1.5 }],
        }],
        samples: 4000,
        ..v1::EstimateFreeEnergyRequest::default()
    };
    let answer = clients.estimate(request).await.unwrap();
    let estimate = &answer.estimates[0];
    assert!((estimate.profiles[0].covered - 1.0).abs() < 1e-9);
    let fullest = estimate.profiles[0].free_energy.iter().position(|f| f.value == 0.0).unwrap();
    let centre = -PI + (fullest as f64 + 0.5) * PI / 9.0;
    assert!((-3.0..-0.9).contains(&centre), "the fullest bin of φ is at {centre}");
    assert!(estimate.states[0].probability.unwrap().value > 0.3);
    server.stop().await;
}
