//! MBAR against exact free energies, pymbar, an independent iteration, its own symmetries, and bad input; and over a server.

mod common;

use boltzflow::contract::v1::solve_mbar_request::{MbarHeader, MbarSamples, Part};
use boltzflow::contract::{array, numbers, v1};
use boltzflow::energy::EnergyScale;
use boltzflow::math::{Purpose, Randoms};
use boltzflow::thermo::{MbarBootstrap, MbarError, MbarSettings, MbarSolution, solve_mbar};
use common::*;
use serde_json::Value;
use tonic::{Code, Status};

/// A harmonic state: centre, stiffness, and how many samples are from it.
type State = (f64, f64, u64);

/// Reduced energies ½k(x − c)² (states, samples).
fn harmonic(states: &[State], seed: u64) -> (Vec<f64>, Vec<u64>) {
    let mut x = Vec::new();
    for (k, &(centre, stiffness, samples)) in states.iter().enumerate() {
        let mut random = Randoms::new(seed, Purpose::Validation, k as u64);
        x.extend((0..samples).map(|_| centre + random.normal() / stiffness.sqrt()));
    }
    let u = states.iter().flat_map(|(c, k, _)| x.iter().map(move |x| 0.5 * k * (x - c) * (x - c))).collect();
    (u, states.iter().map(|s| s.2).collect())
}

/// f_k = −½ log(2π/k), relative to the first.
fn exact(states: &[State]) -> Vec<f64> {
    states.iter().map(|s| 0.5 * (s.1 / states[0].1).ln()).collect()
}

const CHAIN: [State; 6] =
    [(0.0, 1.0, 900), (0.7, 2.0, 1500), (1.1, 4.0, 0), (1.4, 3.0, 700), (2.2, 2.5, 1), (2.4, 5.0, 1200)];

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{a} is not {b}");
    }
}

/// Equation 11, iterated in the plainest way.
fn self_consistent(u: &[f64], n_k: &[u64]) -> Vec<f64> {
    let (k, n) = (n_k.len(), u.len() / n_k.len());
    let mut f = vec![0.0; k];
    for _ in 0..20_000 {
        let mut sums = vec![0.0; k];
        for s in 0..n {
            let density: f64 = (0..k).map(|j| n_k[j] as f64 * (f[j] - u[j * n + s]).exp()).sum();
            (0..k).for_each(|i| sums[i] += (-u[i * n + s]).exp() / density);
        }
        let next: Vec<f64> = sums.iter().map(|z| -z.ln() + sums[0].ln()).collect();
        let change = f.iter().zip(&next).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        f = next;
        if change < 1e-13 {
            return f;
        }
    }
    panic!("the plain iteration did not converge");
}

#[test]
fn free_energies_are_those_of_a_plain_iteration() {
    let (u, n_k) = harmonic(&CHAIN, 1);
    let solved = solve_mbar(&u, &n_k).unwrap();
    assert_close(&solved.f_k, &self_consistent(&u, &n_k), 1e-10);
    assert!(solved.iterations < 20, "{} iterations", solved.iterations);
    let k = n_k.len();
    for row in solved.overlap.chunks(k) {
        assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(row.iter().all(|o| (0.0..=1.0).contains(o)) && row[2] == 0.0);
    }
}

/// Over independent repetitions, deviations from the exact answers divided by their asymptotic errors have mean zero and
/// variance one. With 200 repetitions the bounds are four standard errors: a false alarm is one in 16,000 for each of the
/// five pairs and two bounds.
#[test]
fn errors_are_as_large_as_deviations() {
    let states: Vec<State> = CHAIN.iter().map(|s| (s.0, s.1, if s.2 > 0 { 60 + s.2 / 20 } else { 0 })).collect();
    let truth = exact(&states);
    let (repetitions, k) = (200, states.len());
    let mut moments = vec![(0.0, 0.0); k];
    for seed in 0..repetitions {
        let (u, n_k) = harmonic(&states, 1000 + seed);
        let solved = solve_mbar(&u, &n_k).unwrap();
        for (j, m) in moments.iter_mut().enumerate().skip(1) {
            let (value, error) = solved.difference(0, j).unwrap();
            let z = (value - truth[j]) / error;
            m.0 += z;
            m.1 += z * z;
        }
    }
    let n = repetitions as f64;
    for (j, (sum, squares)) in moments.into_iter().enumerate().skip(1) {
        let (mean, variance) = (sum / n, squares / n);
        assert!(mean.abs() < 4.0 / n.sqrt(), "state {j}: mean {mean}");
        assert!((variance - 1.0).abs() < 4.0 * (2.0 / n).sqrt(), "state {j}: variance {variance}");
    }
}

#[test]
fn shifts_of_a_state_shift_its_free_energy_and_order_does_not_matter() {
    let (u, n_k) = harmonic(&CHAIN, 2);
    let (k, n) = (n_k.len(), u.len() / n_k.len());
    let solved = solve_mbar(&u, &n_k).unwrap();

    let shifts = [1e4, 0.0, -3e3, 700.0, -1e5, 12.5];
    let shifted: Vec<f64> = u.iter().enumerate().map(|(e, u)| u + shifts[e / n]).collect();
    let again = solve_mbar(&shifted, &n_k).unwrap();
    for j in 0..k {
        assert!((again.f_k[j] - solved.f_k[j] - (shifts[j] - shifts[0])).abs() < 1e-9, "state {j}");
    }
    assert_close(&again.overlap, &solved.overlap, 1e-8);

    let order = [4, 2, 0, 5, 1, 3];
    let permuted: Vec<f64> = order.iter().flat_map(|&j| u[j * n..(j + 1) * n].iter().copied()).collect();
    let counts: Vec<u64> = order.iter().map(|&j| n_k[j]).collect();
    let permuted = solve_mbar(&permuted, &counts).unwrap();
    for (i, &from) in order.iter().enumerate() {
        for (j, &to) in order.iter().enumerate() {
            let (a, b) = (permuted.difference(i, j).unwrap(), solved.difference(from, to).unwrap());
            assert!((a.0 - b.0).abs() < 1e-9 && (a.1 - b.1).abs() < 1e-8, "{a:?} is not {b:?}");
        }
    }

    // A constant added to all energies of one sample changes nothing: only ratios of densities count.
    let lifted: Vec<f64> = u.iter().enumerate().map(|(e, u)| u + (e % n) as f64).collect();
    assert_close(&solve_mbar(&lifted, &n_k).unwrap().f_k, &solved.f_k, 1e-9);
}

/// Of two states, the error is that of Bennett's acceptance ratio: 1/Σ p(1 − p) − 1/N₀ − 1/N₁.
#[test]
fn the_error_of_two_states_is_bennetts() {
    let (u, n_k) = harmonic(&[(0.0, 1.0, 400), (1.0, 2.0, 900)], 3);
    let n = u.len() / 2;
    let solved = solve_mbar(&u, &n_k).unwrap();
    let information: f64 = (0..n)
        .map(|s| {
            let ratio = 900.0 / 400.0 * (solved.f_k[1] - u[n + s] + u[s]).exp();
            ratio / (1.0 + ratio).powi(2)
        })
        .sum();
    let bennett = (1.0 / information - 1.0 / 400.0 - 1.0 / 900.0).sqrt();
    assert!((solved.difference(0, 1).unwrap().1 - bennett).abs() < 1e-9);
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let states: Vec<State> = CHAIN.iter().map(|s| (s.0, s.1, 13 * s.2 + 1)).collect();
    let (u, n_k) = harmonic(&states, 4);
    let with = |threads| -> MbarSolution {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| solve_mbar(&u, &n_k).unwrap())
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

#[test]
fn easy_and_hard_cases_end() {
    // One state; two states that are the same; a state far up; infinite energies.
    let solved = solve_mbar(&[1.0, 2.0, 3.0], &[3]).unwrap();
    assert_eq!((solved.difference(0, 0), solved.difference(0, 1)), (Some((0.0, 0.0)), None));
    let (u, _) = harmonic(&[(0.0, 1.0, 500)], 5);
    let same = solve_mbar(&[u.clone(), u.clone()].concat(), &[250, 250]).unwrap();
    let (value, error) = same.difference(0, 1).unwrap();
    assert!(value.abs() < 1e-12 && error < 1e-7);
    let walls: Vec<f64> = u.iter().map(|u| if *u > 1.0 { f64::INFINITY } else { *u }).collect();
    let inside = walls.iter().filter(|u| u.is_finite()).count() as u64;
    let walled = solve_mbar(&[u, walls].concat(), &[500, 0]).unwrap();
    assert!((walled.f_k[1] + (inside as f64 / 500.0).ln()).abs() < 1e-12);
    // A chain of 40 states, three standard deviations from one to the next, with free energies of hundreds of kT.
    let states: Vec<State> = (0..40).map(|k| (3.0 * f64::from(k), 1.0, 400)).collect();
    let (u, n_k) = harmonic(&states, 6);
    let n = u.len() / 40;
    let u: Vec<f64> = u.iter().enumerate().map(|(e, u)| u + 17.0 * (e / n) as f64).collect();
    let solved = solve_mbar(&u, &n_k).unwrap();
    for j in 1..40 {
        let (value, error) = solved.difference(0, j).unwrap();
        assert!((value - 17.0 * j as f64).abs() < 5.0 * error, "state {j}: {value} ± {error}");
    }
}

#[test]
fn bad_input_is_named() {
    let (mut u, n_k) = harmonic(&[(0.0, 1.0, 50), (0.5, 1.0, 50)], 7);
    assert_eq!(solve_mbar(&u, &[50, 49]), Err(MbarError::Counts { counted: 99, samples: 100 }));
    assert!(solve_mbar(&u, &[u64::MAX, 2]).unwrap_err().to_string().contains("add up"));
    assert_eq!(solve_mbar(&u[1..], &n_k), Err(MbarError::Shape { energies: 199, states: 2 }));
    assert_eq!(solve_mbar(&[], &[]), Err(MbarError::Shape { energies: 0, states: 0 }));
    assert_eq!(solve_mbar(&[], &[0]), Err(MbarError::Shape { energies: 0, states: 1 }));
    u[3] = f64::INFINITY;
    u[103] = f64::INFINITY;
    assert_eq!(solve_mbar(&u, &n_k), Err(MbarError::Impossible(3)));
    u[103] = f64::NAN;
    let error = solve_mbar(&u, &n_k).unwrap_err();
    assert!(error.to_string().contains("state 1 at sample 3 is NaN"), "{error}");
    u[100..].fill(f64::INFINITY);
    assert_eq!(solve_mbar(&u, &n_k), Err(MbarError::Unreachable(1)));
}

#[test]
fn groups_of_states_without_overlap_are_named() {
    let states = [(0.0, 1.0, 300), (60.0, 1.0, 300), (0.8, 1.0, 300), (61.0, 2.0, 300), (30.0, 1.0, 0)];
    let (u, n_k) = harmonic(&states, 8);
    assert_eq!(solve_mbar(&u, &n_k), Err(MbarError::Disconnected(vec![vec![0, 2], vec![1, 3]])));
    let error = solve_mbar(&u, &n_k).unwrap_err().to_string();
    assert!(error.contains("[0, 2] and [1, 3]"), "{error}");
    // Also where nothing but walls is between them.
    let walls = [0.0, 0.0, f64::INFINITY, f64::INFINITY, f64::INFINITY, f64::INFINITY, 0.0, 0.0];
    assert_eq!(solve_mbar(&walls, &[2, 2]), Err(MbarError::Disconnected(vec![vec![0], vec![1]])));
}

/// Reduced energies, samples of each state and one observable, with pymbar's answers.
struct Case {
    u: Vec<f64>,
    n_k: Vec<u64>,
    observable: Vec<f64>,
    answers: Value,
}

fn list(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(all) => all.iter().flat_map(list).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

/// What pymbar 4.0.3 was given: harmonic states, one of them without samples and one with a single one, and eight temperatures
/// of replica exchange of alanine dipeptide.
fn cases() -> [Case; 2] {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(test_data(&format!("mbar/{name}.json"))).unwrap()).unwrap()
    };
    let counts = |value: &Value| list(&value["n_k"]).into_iter().map(|n| n as u64).collect();
    let harmonic = read("harmonic");
    let x = list(&harmonic["x"]);
    let states = list(&harmonic["centres"]).into_iter().zip(list(&harmonic["stiffness"]));
    let u = states.flat_map(|(c, k)| x.iter().map(move |x| 0.5 * k * (x - c) * (x - c)).collect::<Vec<_>>()).collect();
    let harmonic = Case { u, n_k: counts(&harmonic), observable: x, answers: harmonic };
    let molecule = read("alanine-dipeptide");
    let energies = list(&molecule["energies"]);
    let kt = list(&molecule["temperatures"]).into_iter().map(|t| EnergyScale::KilojoulePerMole.kt(t));
    let u = kt.flat_map(|kt| energies.iter().map(move |e| e / kt).collect::<Vec<_>>()).collect();
    [harmonic, Case { u, n_k: counts(&molecule), observable: energies, answers: molecule }]
}

#[test]
fn pymbar_has_the_same_answers() {
    for Case { u, n_k, observable, answers } in cases() {
        let solved = solve_mbar(&u, &n_k).unwrap();
        assert_close(&solved.f_k, &list(&answers["f_k"]), 1e-8);
        assert_close(&solved.standard_errors(), &list(&answers["df_ij"]), 1e-6);
        assert_close(&solved.overlap, &list(&answers["overlap"]), 1e-8);
        let averages = solved.averages(&u, &n_k, &observable, &MbarSettings::default()).unwrap();
        assert_close(&averages.iter().map(|a| a.value).collect::<Vec<_>>(), &list(&answers["averages"]), 1e-8);
        let errors: Vec<f64> = averages.iter().map(|a| a.standard_error).collect();
        assert_close(&errors, &list(&answers["average_errors"]), 1e-6);
        // Weights of each state add up to one.
        for (row, f) in u.chunks(observable.len()).zip(&solved.f_k) {
            let sum: f64 = row.iter().zip(&solved.log_densities).map(|(u, d)| (f - u - d).exp()).sum();
            assert!((sum - 1.0).abs() < 1e-10);
        }
    }
}

/// Bootstrap errors are the asymptotic ones within the spread of 400 draws, 3.5 %, and what few samples make of both: 20 % is
/// more than four times that where each state has hundreds. The same seed gives the same bits.
#[test]
fn bootstrap_errors_are_as_large_as_asymptotic_ones() {
    let states: Vec<State> = CHAIN.iter().map(|s| (s.0, s.1, if s.2 > 0 { 400 } else { 0 })).collect();
    let (u, n_k) = harmonic(&states, 11);
    let solved = solve_mbar(&u, &n_k).unwrap();
    let bootstrap = MbarBootstrap { replicates: 400, seed: 5 };
    let errors = bootstrap.standard_errors(&solved, &u, &n_k, &MbarSettings::default()).unwrap();
    for (e, (a, b)) in errors.iter().zip(solved.standard_errors()).enumerate() {
        let same = e % (n_k.len() + 1) == 0;
        assert!(if same { *a == 0.0 } else { (a / b - 1.0).abs() < 0.2 }, "{e}: {a} by bootstrap, {b} asymptotic");
    }
    let again = bootstrap.standard_errors(&solved, &u, &n_k, &MbarSettings::default()).unwrap();
    assert_eq!(errors, again);
    let stopped = MbarSettings { proceed: &|| false, ..MbarSettings::default() };
    assert_eq!(bootstrap.standard_errors(&solved, &u, &n_k, &stopped), Err(MbarError::Stopped));
}

fn samples(rows: Vec<f64>, states: usize, observables: Option<Vec<f64>>) -> Part {
    let column = |numbers: Vec<f64>, width: usize| {
        let n = numbers.len() / width;
        array(numbers, &[n, width], v1::DataType::Float64, v1::ArrayEncoding::Bytes)
    };
    Part::Samples(MbarSamples {
        reduced_energies: Some(column(rows, states)),
        observables: observables.map(|o| column(o, 1)),
    })
}

async fn ask(clients: &mut Clients, parts: Vec<Part>) -> Result<v1::SolveMbarResponse, Status> {
    let messages = parts.into_iter().map(|part| v1::SolveMbarRequest { part: Some(part) });
    Ok(clients.free_energy.solve_mbar(tokio_stream::iter(messages.collect::<Vec<_>>())).await?.into_inner())
}

/// The server, and the command line by itself and through the server, give what the library gives.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_and_the_command_line_solve_it_too() {
    let (folder, server, mut clients) = fresh().await;
    let [Case { u, n_k, observable, .. }, _] = cases();
    let (k, n) = (n_k.len(), observable.len());
    let solved = solve_mbar(&u, &n_k).unwrap();
    let averages = solved.averages(&u, &n_k, &observable, &MbarSettings::default()).unwrap();
    let bootstrap = MbarBootstrap { replicates: 20, seed: 3 };
    let errors = bootstrap.standard_errors(&solved, &u, &n_k, &MbarSettings::default()).unwrap();
    let header = MbarHeader {
        samples_per_state: n_k.iter().map(|n| *n as i64).collect(),
        bootstrap_replicates: 20,
        seed: 3,
        observables: vec!["x".into()],
        include_log_densities: true,
        ..MbarHeader::default()
    };
    let mut parts = vec![Part::Header(header.clone())];
    let places: Vec<usize> = (0..n).collect();
    parts.extend(places.chunks(100).map(|at| {
        let row = |s: &usize| (0..k).map(|state| u[state * n + s]).collect::<Vec<_>>();
        let rows = at.iter().flat_map(row).collect();
        samples(rows, k, Some(at.iter().map(|s| observable[*s]).collect()))
    }));
    let answer = ask(&mut clients, parts.clone()).await.unwrap();
    let of = |message: &Option<v1::Array>| numbers("answer", message.as_ref().unwrap()).unwrap().0;
    assert_eq!(answer.f, solved.f_k);
    assert_eq!(of(&answer.standard_errors), solved.standard_errors());
    assert_eq!(of(&answer.overlap), solved.overlap);
    assert_eq!(of(&answer.log_densities), solved.log_densities);
    assert_eq!(of(&answer.bootstrap_standard_errors), errors);
    assert_eq!(answer.averages[0].values, averages.iter().map(|a| a.value).collect::<Vec<_>>());
    assert_eq!(answer.averages[0].standard_errors, averages.iter().map(|a| a.standard_error).collect::<Vec<_>>());

    let file = |name: &str| folder.path().join(name);
    write_npy(&file("u.npy"), &u, &[k as u64, n as u64]);
    write_npy(&file("n.npy"), &n_k, &[k as u64]);
    write_npy(&file("x.npy"), &observable, &[n as u64]);
    let url = format!("http://{}", server.address);
    for remote in [None, Some(url.as_str())] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_boltzflow"));
        command
            .arg("mbar")
            .args(["--u-kn", "u.npy", "--n-k", "n.npy", "--observables", "x.npy", "--bootstrap", "20", "--seed", "3"])
            .args(["--log-weights", "w.npy", "--json", "f.json"])
            .args(remote.iter().flat_map(|url| ["--server", url]))
            .current_dir(folder.path());
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&std::fs::read(file("f.json")).unwrap()).unwrap();
        assert_eq!(list(&json["f_k"]), solved.f_k);
        assert_eq!(list(&json["df_k"]), solved.standard_errors()[..k]);
        assert_eq!(list(&json["overlap"]), solved.overlap);
        assert_eq!(list(&json["bootstrap_df_ij"]), errors);
        assert_eq!(list(&json["averages"]), averages.iter().map(|a| a.value).collect::<Vec<_>>());
        let log_weights: Vec<f64> =
            npyz::NpyFile::new(&std::fs::read(file("w.npy")).unwrap()[..]).unwrap().into_vec().unwrap();
        let sum: f64 = log_weights[2 * n..3 * n].iter().map(|w| w.exp()).sum();
        assert!(log_weights.len() == k * n && (sum - 1.0).abs() < 1e-10);
        std::fs::remove_file(file("w.npy")).unwrap();
    }

    // What is wrong is named, by its field and its state or sample.
    let with = |change: fn(&mut MbarHeader)| {
        let mut header = header.clone();
        change(&mut header);
        let mut all = parts.clone();
        all[0] = Part::Header(header);
        all
    };
    let two = |u: Vec<f64>| {
        let header = MbarHeader { samples_per_state: vec![2, 2], ..MbarHeader::default() };
        vec![Part::Header(header), samples(u, 2, None)]
    };
    let far = f64::INFINITY;
    let wrong = [
        (parts[1..].to_vec(), "header", "first"),
        (vec![], "header", "first"),
        (parts[..2].to_vec(), "header.samples_per_state", "346 samples, and 100"),
        ([parts.clone(), parts[1..].to_vec()].concat(), "samples.reduced_energies", "more than the 346"),
        (with(|h| h.samples_per_state[0] = -1), "header.samples_per_state", "state 0 is negative"),
        (with(|h| h.samples_per_state.clear()), "header.samples_per_state", "0 states"),
        (with(|h| h.tolerance = f64::NAN), "header.tolerance", "NaN"),
        (with(|h| h.bootstrap_replicates = 1), "header.bootstrap_replicates", "from 2"),
        (with(|h| h.observables = vec!["x".into(); 2]), "header.observables", "twice"),
        (with(|h| h.observables.clear()), "samples.observables", "names none"),
        (two(vec![0.0; 7]), "samples.reduced_energies", "shape"),
        (
            two(vec![0.0, f64::NAN, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            "samples.reduced_energies",
            "state 1 at sample 0 is NaN",
        ),
        (two(vec![0.0, far, 0.0, far, far, 0.0, far, 0.0]), "samples.reduced_energies", "[0] and [1]"),
        (two(vec![0.0, 0.0, far, far, 0.0, 0.0, 0.0, 0.0]), "samples.reduced_energies", "sample 1 has no density"),
    ];
    for (parts, field, words) in wrong {
        let status = ask(&mut clients, parts).await.unwrap_err();
        let as_expected = status.code() == Code::InvalidArgument && reason(&status) == "INVALID_FIELD";
        assert!(as_expected && status.message().starts_with(field) && status.message().contains(words), "{status:?}");
    }
    let status = ask(&mut clients, with(|h| h.samples_per_state[0] = i64::MAX)).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "UPLOAD_TOO_LARGE"));
    server.stop().await;
}

fn write_npy<T: npyz::AutoSerialize + Copy>(path: &std::path::Path, numbers: &[T], shape: &[u64]) {
    use npyz::WriterBuilder;
    let file = std::fs::File::create(path).unwrap();
    let mut npy = npyz::WriteOptions::new().default_dtype().shape(shape).writer(file).begin_nd().unwrap();
    npy.extend(numbers.iter().copied()).unwrap();
    npy.finish().unwrap();
}
