// The analytic potentials of src/energy/analytic, one configuration at a time.
//
// `integers` begins with (kind, d, scratch numbers); what `numbers` holds is said at each potential. A gradient is written, not added to.
#pragma once
#include "column.cuh"

enum PotentialKind : uint32_t { HARMONIC, DOUBLE_WELL, MULLER_BROWN, MANY_WELL, GAUSSIAN_MIXTURE, MECHANICS };

// numbers: stiffness (d), centre (d).
template <bool GRADIENT>
HD double harmonic(uint32_t d, const double *numbers, ConstColumn x, Column gradient) {
    double energy = 0.0;
    for (uint32_t k = 0; k < d; ++k) {
        const double stiffness = numbers[k], stretch = x[k] - numbers[d + k];
        energy += 0.5 * stiffness * stretch * stretch;
        if (GRADIENT) gradient[k] = stiffness * stretch;
    }
    return energy;
}

// numbers: a4, a2, a1, k.
template <bool GRADIENT>
HD double double_well(uint32_t d, const double *numbers, ConstColumn x, Column gradient) {
    const double a4 = numbers[0], a2 = numbers[1], a1 = numbers[2], stiffness = numbers[3], q = x[0];
    double energy = ((a4 * q * q - a2) * q + a1) * q;
    if (GRADIENT) gradient[0] = (4.0 * a4 * q * q - 2.0 * a2) * q + a1;
    for (uint32_t k = 1; k < d; ++k) {
        const double y = x[k];
        energy += 0.5 * stiffness * y * y;
        if (GRADIENT) gradient[k] = stiffness * y;
    }
    return energy;
}

// numbers: scale, then (amplitude, xx, xy, yy, x, y) of each of four Gaussians.
template <bool GRADIENT>
HD double muller_brown(uint32_t d, const double *numbers, ConstColumn x, Column gradient) {
    const double scale = numbers[0], x0 = x[0], x1 = x[1];
    double v = 0.0, vx = 0.0, vy = 0.0;
    for (int j = 0; j < 4; ++j) {
        const double *g = numbers + 1 + 6 * j;
        const double dx = x0 - g[4], dy = x1 - g[5];
        const double term = g[0] * exp(g[1] * dx * dx + g[2] * dx * dy + g[3] * dy * dy);
        v += term;
        vx += term * (2.0 * g[1] * dx + g[2] * dy);
        vy += term * (g[2] * dx + 2.0 * g[3] * dy);
    }
    if (GRADIENT) {
        gradient[0] = scale * vx;
        gradient[1] = scale * vy;
    }
    for (uint32_t k = 2; k < d; ++k) {
        const double z = x[k];
        v += 0.5 * z * z;
        if (GRADIENT) gradient[k] = scale * z;
    }
    return scale * v;
}

// numbers: the quartic, the quadratic and the linear coefficient.
template <bool GRADIENT>
HD double many_well(uint32_t d, const double *numbers, ConstColumn x, Column gradient) {
    const double quartic = numbers[0], quadratic = numbers[1], linear = numbers[2];
    double energy = 0.0;
    for (uint32_t k = 0; k + 1 < d; k += 2) {
        const double q = x[k], y = x[k + 1];
        energy += ((quartic * q * q + quadratic) * q + linear) * q + 0.5 * y * y;
        if (GRADIENT) {
            gradient[k] = (4.0 * quartic * q * q + 2.0 * quadratic) * q + linear;
            gradient[k + 1] = y;
        }
    }
    return energy;
}

// numbers: 1/σ², the constant log(components) + log(2πσ²), then the means (components, 2).
template <bool GRADIENT>
HD double gaussian_mixture(uint32_t components, const double *numbers, ConstColumn x, Column gradient) {
    const double precision = numbers[0], constant = numbers[1], x0 = x[0], x1 = x[1];
    const double *means = numbers + 2;
    double largest = -INFINITY;
    for (uint32_t m = 0; m < components; ++m) {
        const double dx = x0 - means[2 * m], dy = x1 - means[2 * m + 1];
        const double e = -0.5 * precision * (dx * dx + dy * dy);
        largest = e > largest ? e : largest;
    }
    double sum = 0.0, pull_x = 0.0, pull_y = 0.0;
    for (uint32_t m = 0; m < components; ++m) {
        const double dx = x0 - means[2 * m], dy = x1 - means[2 * m + 1];
        const double weight = exp(-0.5 * precision * (dx * dx + dy * dy) - largest);
        sum += weight;
        pull_x += weight * dx;
        pull_y += weight * dy;
    }
    if (GRADIENT) {
        gradient[0] = precision * pull_x / sum;
        gradient[1] = precision * pull_y / sum;
    }
    return constant - largest - log(sum);
}
