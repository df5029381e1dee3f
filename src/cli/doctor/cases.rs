//! Flows that between them use every kernel.

use crate::compute::bias_activation::Activation;
use crate::flow::{
    AutoregressiveKind, ConditionerKind, ConditionerSpec, CoordinateKind, CouplingSpec, FlowSpec, LayerSpec, Prior,
    Tokens,
};
use CoordinateKind::{Circular as C, Real as R};

/// Wide enough for every path of a vectorised loop: full vectors, and what is left over.
const HIDDEN: [usize; 2] = [67, 40];

/// One bijector a flow, by name, and one flow of several.
pub(super) fn cases() -> Vec<(&'static str, FlowSpec)> {
    let mixed: Vec<CoordinateKind> = [R, C, R, C, C, R, R, R, C, R, R].to_vec();
    let real = vec![R; 11];
    let halves = [vec![0, 1, 4, 6, 9], vec![2, 3, 5, 7, 8, 10]];
    let affine = |activation| LayerSpec::Affine { coupling: coupling(&halves[0], activation), bound: 1.5 };
    let spline =
        |half: usize, bins| LayerSpec::Spline { coupling: coupling(&halves[half], Activation::Silu), bins, bound: 3.0 };
    let residual = |activation| {
        let kind = ConditionerKind::Residual;
        let conditioner = ConditionerSpec { kind, hidden: vec![HIDDEN[0]; 3], activation, tokens: None };
        let coupling = CouplingSpec { transformed: halves[0].clone(), conditioner };
        LayerSpec::Spline { coupling, bins: 8, bound: 3.0 }
    };
    let smooth = LayerSpec::Smooth { coupling: coupling(&halves[0], Activation::Silu), components: 8, bound: 1.5 };
    let autoregressive = LayerSpec::Autoregressive {
        order: (0..11).rev().collect(),
        kind: AutoregressiveKind::Masked,
        conditioner: coupling(&[], Activation::Silu).conditioner,
        bound: 0.5,
    };
    let order = vec![10, 3, 0, 8, 1, 2, 5, 6, 4, 9, 7];
    vec![
        ("permutation", flow(&mixed, vec![LayerSpec::Permutation { order }])),
        ("global affine", flow(&mixed, vec![LayerSpec::GlobalAffine])),
        ("LU", flow(&mixed, vec![LayerSpec::Lu { order: vec![6, 10, 2, 0, 9, 7, 5] }])),
        ("Householder", flow(&mixed, vec![LayerSpec::Householder { reflections: 3 }])),
        ("additive", flow(&real, vec![LayerSpec::Additive { coupling: coupling(&halves[0], Activation::Silu) }])),
        ("affine, SiLU", flow(&real, vec![affine(Activation::Silu)])),
        ("affine, ReLU", flow(&real, vec![affine(Activation::Relu)])),
        ("affine, tanh", flow(&real, vec![affine(Activation::Tanh)])),
        ("GIN", flow(&real, vec![LayerSpec::Gin { coupling: coupling(&halves[0], Activation::Silu), bound: 1.5 }])),
        ("logistic mixture", flow(&real, vec![smooth])),
        ("attention", flow(&[R; 30], attention())),
        ("autoregressive", flow(&real, vec![autoregressive])),
        ("residual, SiLU", flow(&mixed, vec![residual(Activation::Silu)])),
        ("residual, ReLU", flow(&mixed, vec![residual(Activation::Relu)])),
        ("spline, linear", flow(&real, vec![spline(0, 8)])),
        ("spline, circular", flow(&[C; 11], vec![spline(0, 8)])),
        ("spline, mixed, 16 bins", flow(&mixed, vec![spline(1, 16)])),
        ("spline, mixed, 32 bins", flow(&mixed, vec![spline(0, 32)])),
        (
            "spline, unconditional",
            flow(
                &[R, C],
                vec![LayerSpec::Spline { coupling: coupling(&[0, 1], Activation::Silu), bins: 8, bound: 3.0 }],
            ),
        ),
        (
            "four couplings",
            flow(
                &real,
                vec![
                    affine(Activation::Silu),
                    LayerSpec::Affine { coupling: coupling(&halves[1], Activation::Silu), bound: 1.5 },
                    spline(0, 8),
                    spline(1, 8),
                    LayerSpec::GlobalAffine,
                ],
            ),
        ),
    ]
}

/// Couplings between five particles with vectors, and the layer that ends such flows.
fn attention() -> Vec<LayerSpec> {
    let (particles, space) = (5, 3);
    let conditioner = ConditionerSpec {
        kind: ConditionerKind::Attention,
        hidden: vec![24; 2],
        activation: Activation::Silu,
        tokens: Some(Tokens { particles, space, heads: 4 }),
    };
    let coupling = |transformed: std::ops::Range<usize>| CouplingSpec {
        transformed: transformed.collect(),
        conditioner: conditioner.clone(),
    };
    vec![
        LayerSpec::Affine { coupling: coupling(0..15), bound: 1.5 },
        LayerSpec::Spline { coupling: coupling(15..30), bins: 8, bound: 3.0 },
        LayerSpec::Helmert { particles, space, scaled: true },
    ]
}

fn flow(kinds: &[CoordinateKind], layers: Vec<LayerSpec>) -> FlowSpec {
    FlowSpec { coordinates: kinds.to_vec(), prior: Prior::natural(kinds), layers, temperatures: None }
}

fn coupling(transformed: &[usize], activation: Activation) -> CouplingSpec {
    CouplingSpec {
        transformed: transformed.to_vec(),
        conditioner: ConditionerSpec { kind: ConditionerKind::Mlp, hidden: HIDDEN.to_vec(), activation, tokens: None },
    }
}
