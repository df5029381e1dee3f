// Any potential, by its tables.
//
// Molecular mechanics has integers (MECHANICS, d, scratch numbers, forces), then of each force its kind, and where its
// integers and its numbers begin.
#pragma once
#include "analytic.cuh"
#include "born.cuh"
#include "mechanics.cuh"

template <bool GRADIENT>
HD double mechanics(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient, Column scratch) {
    const uint32_t d = integers[1], forces = integers[3];
    // An atom at infinity is out of reach of every pair force, so that without this its energy could be finite.
    bool finite = true;
    for (uint32_t k = 0; k < d; ++k) {
        finite = finite && fabs(x[k]) < INFINITY;
        if (GRADIENT) gradient[k] = 0.0;
    }
    double energy = 0.0;
    for (uint32_t f = 0; f < forces; ++f) {
        const uint32_t *force = integers + 4 + 3 * (size_t)f;
        const uint32_t *of_force = integers + force[1];
        const double *parameters = numbers + force[2];
        switch (force[0]) {
        case BONDS: energy += bonds<GRADIENT>(of_force, parameters, x, gradient); break;
        case ANGLES: energy += angles<GRADIENT>(of_force, parameters, x, gradient); break;
        case TORSIONS: energy += torsions<GRADIENT>(of_force, parameters, x, gradient); break;
        case NONBONDED: energy += nonbonded<GRADIENT>(of_force, parameters, x, gradient); break;
        case BORN: energy += generalized_born<GRADIENT>(of_force, parameters, x, gradient, scratch); break;
        default: break;
        }
    }
    if (!finite) {
        energy = NAN;
        for (uint32_t k = 0; GRADIENT && k < d; ++k) gradient[k] = NAN;
    }
    return energy;
}

// U of a configuration x (d); where GRADIENT says so, its gradient (d) is written. `scratch` has as many numbers as the
// tables say, of this configuration alone.
template <bool GRADIENT>
HD double potential(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient, Column scratch) {
    const uint32_t d = integers[1];
    switch (integers[0]) {
    case HARMONIC: return harmonic<GRADIENT>(d, numbers, x, gradient);
    case DOUBLE_WELL: return double_well<GRADIENT>(d, numbers, x, gradient);
    case MULLER_BROWN: return muller_brown<GRADIENT>(d, numbers, x, gradient);
    case MANY_WELL: return many_well<GRADIENT>(d, numbers, x, gradient);
    case GAUSSIAN_MIXTURE: return gaussian_mixture<GRADIENT>(integers[3], numbers, x, gradient);
    case MECHANICS: return mechanics<GRADIENT>(integers, numbers, x, gradient, scratch);
    default: return NAN;
    }
}
