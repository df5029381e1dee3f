// The generalized Born model of src/energy/openmm/born.rs, one configuration at a time; the symbols are defined there.
//
// integers: atoms, whether the term of engulfed atoms is there. numbers: α, β, γ, −κ, then of each atom its charge, offset
// radius ρ, scaled radius s, radius R, self energy and surface term.
#pragma once
#include "column.cuh"

// Numbers of scratch space that the model needs for each atom.
const uint32_t BORN_SCRATCH = 4;

struct BornAtom {
    double charge, offset_radius, scaled_radius, radius, self_energy, surface;
};

struct Born {
    uint32_t atoms;
    bool engulfed_term;
    double alpha, beta, gamma, pair_energy;
    const double *of_atoms;

    HD BornAtom of(uint32_t i) const {
        const double *a = of_atoms + 6 * (size_t)i;
        return {a[0], a[1], a[2], a[3], a[4], a[5]};
    }
};

// H and (dH/dr)/r.
struct Descreening {
    double value, slope;
};

template <bool GRADIENT>
HD Descreening descreening(double r, double inverse_r, double rho, double s, bool engulfed_term) {
    const double upper = r + s, inner = fabs(r - s), lower = inner < rho ? rho : inner;
    const double inverse_both = 1.0 / (lower * upper);
    const double inverse_lower = upper * inverse_both, inverse_upper = lower * inverse_both;
    const double squares = inverse_upper * inverse_upper - inverse_lower * inverse_lower;
    const double half_log = log(lower * inverse_upper) * inverse_r * 0.5;
    const double ss = inverse_r * (s * s);
    // An atom inside another one, and one that is wholly inside ρ and descreens nothing.
    const bool inside = s - rho - r > 0.0, outside = upper - rho > 0.0;
    double value = (inverse_lower - inverse_upper + (r - ss) * squares * 0.25 + half_log) * 0.5;
    if (engulfed_term && inside) value += 1.0 / rho - inverse_lower;
    double slope = 0.0;
    if (GRADIENT) {
        slope = ((ss * inverse_r + 1.0) * squares * 0.25 - half_log * inverse_r) * 0.5;
        if (!engulfed_term && inside) slope += inverse_lower * inverse_lower;
        slope = outside ? slope * inverse_r : 0.0;
    }
    return {outside ? value : 0.0, slope};
}

// The integrals I.
HD void born_integrals(const Born &born, ConstColumn x, Column integral) {
    for (uint32_t i = 0; i < born.atoms; ++i) integral[i] = 0.0;
    for (uint32_t i = 0; i < born.atoms; ++i) {
        const BornAtom of_i = born.of(i);
        const Vec3 at_i = atom(x, i);
        double sum = 0.0;
        for (uint32_t j = i + 1; j < born.atoms; ++j) {
            const BornAtom of_j = born.of(j);
            const Vec3 d = at_i - atom(x, j);
            const double r = sqrt(dot(d, d)), inverse_r = 1.0 / r;
            sum += descreening<false>(r, inverse_r, of_i.offset_radius, of_j.scaled_radius, born.engulfed_term).value;
            integral[j] +=
                descreening<false>(r, inverse_r, of_j.offset_radius, of_i.scaled_radius, born.engulfed_term).value;
        }
        integral[i] += sum;
    }
}

// The Born radii, and dB/dI in place of the integrals; returns the energy of the single atoms and starts dU/dB with it.
template <bool GRADIENT>
HD double born_radii(const Born &born, Column integral, Column radius, Column inverse_radius, Column radius_gradient) {
    double energy = 0.0;
    for (uint32_t i = 0; i < born.atoms; ++i) {
        const BornAtom of_i = born.of(i);
        const double psi = integral[i] * of_i.offset_radius;
        const double argument = ((psi * born.gamma - born.beta) * psi + born.alpha) * psi;
        const double tangent = 1.0 - 2.0 / (exp(2.0 * argument) + 1.0);
        const double inverse = 1.0 / of_i.offset_radius - tangent / of_i.radius, r = 1.0 / inverse;
        const double own = inverse * of_i.self_energy, cube = inverse * inverse * inverse;
        const double surface = cube * cube * of_i.surface;
        energy += own + surface;
        radius[i] = r;
        inverse_radius[i] = inverse;
        if (GRADIENT) {
            radius_gradient[i] = -((own + surface * 6.0) * inverse);
            const double polynomial = (psi * (3.0 * born.gamma) - 2.0 * born.beta) * psi + born.alpha;
            integral[i] = r * r * (1.0 - tangent * tangent) * polynomial * (of_i.offset_radius / of_i.radius);
        }
    }
    return energy;
}

// The energy of pairs of charges, its gradient at constant Born radii, and its part of dU/dB.
template <bool GRADIENT>
HD double born_pairs(const Born &born, ConstColumn x, Column gradient, Column radius, Column inverse_radius,
                     Column radius_gradient) {
    double energy = 0.0;
    for (uint32_t i = 0; i < born.atoms; ++i) {
        const double prefactor = born.pair_energy * born.of(i).charge;
        const double radius_i = radius[i], quarter_inverse = inverse_radius[i] * 0.25;
        const Vec3 at_i = atom(x, i);
        double gradient_i = 0.0;
        Vec3 pull_i = {0.0, 0.0, 0.0};
        for (uint32_t j = i + 1; j < born.atoms; ++j) {
            const Vec3 d = at_i - atom(x, j);
            const double rr = dot(d, d), radius_j = radius[j];
            const double exponent = rr * quarter_inverse * inverse_radius[j], e = exp(-exponent);
            const double inverse_ff = 1.0 / (rr + radius_i * radius_j * e);
            const double energy_ij = sqrt(inverse_ff) * (prefactor * born.of(j).charge);
            energy += energy_ij;
            if (GRADIENT) {
                const double slope = -(energy_ij * inverse_ff);
                const double of_product = slope * e * (exponent + 1.0) * 0.5;
                gradient_i += of_product * radius_j;
                radius_gradient[j] += of_product * radius_i;
                const Vec3 pull = d * (slope * (1.0 - e * 0.25));
                pull_i = pull_i + pull;
                subtract(gradient, j, pull);
            }
        }
        if (GRADIENT) {
            radius_gradient[i] += gradient_i;
            add(gradient, i, pull_i);
        }
    }
    return energy;
}

// The gradient that comes from the Born radii's dependence on the positions; `chain` holds dU/dI. Slopes are computed
// again, since keeping those of all pairs of all configurations would cost more memory traffic than arithmetic.
HD void born_descreening_gradient(const Born &born, ConstColumn x, Column gradient, Column chain) {
    for (uint32_t i = 0; i < born.atoms; ++i) {
        const BornAtom of_i = born.of(i);
        const Vec3 at_i = atom(x, i);
        const double chain_i = chain[i];
        Vec3 pull_i = {0.0, 0.0, 0.0};
        for (uint32_t j = i + 1; j < born.atoms; ++j) {
            const BornAtom of_j = born.of(j);
            const Vec3 d = at_i - atom(x, j);
            const double r = sqrt(dot(d, d)), inverse_r = 1.0 / r;
            const double slope_i =
                descreening<true>(r, inverse_r, of_i.offset_radius, of_j.scaled_radius, born.engulfed_term).slope;
            const double slope_j =
                descreening<true>(r, inverse_r, of_j.offset_radius, of_i.scaled_radius, born.engulfed_term).slope;
            const Vec3 pull = d * (chain_i * slope_i + chain[j] * slope_j);
            pull_i = pull_i + pull;
            subtract(gradient, j, pull);
        }
        add(gradient, i, pull_i);
    }
}

template <bool GRADIENT>
HD double generalized_born(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient,
                           Column scratch) {
    const Born born = {integers[0], integers[1] != 0, numbers[0], numbers[1], numbers[2], numbers[3], numbers + 4};
    const Column integral = scratch, radius = scratch.from(born.atoms), inverse_radius = radius.from(born.atoms),
                 radius_gradient = inverse_radius.from(born.atoms);
    born_integrals(born, x, integral);
    double energy = born_radii<GRADIENT>(born, integral, radius, inverse_radius, radius_gradient);
    energy += born_pairs<GRADIENT>(born, x, gradient, radius, inverse_radius, radius_gradient);
    if (GRADIENT) {
        for (uint32_t i = 0; i < born.atoms; ++i) integral[i] *= radius_gradient[i];
        born_descreening_gradient(born, x, gradient, integral);
    }
    return energy;
}
