// Bonds, angles, torsions and nonbonded forces of src/energy/openmm, one configuration at a time.
//
// Every force adds to the gradient. A force reads its numbers one after another, in the order that the host wrote them in;
// each says which.
#pragma once
#include "column.cuh"

enum ForceKind : uint32_t { NO_FORCE, BONDS, ANGLES, TORSIONS, NONBONDED, BORN };

// integers: count, then the two atoms of each bond. numbers: length in nm, stiffness.
template <bool GRADIENT>
HD double bonds(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient) {
    const uint32_t count = *integers++;
    double energy = 0.0;
    for (uint32_t b = 0; b < count; ++b, integers += 2, numbers += 2) {
        const uint32_t i = integers[0], j = integers[1];
        const Vec3 d = atom(x, i) - atom(x, j);
        const double r = sqrt(dot(d, d)), stretch = r - numbers[0];
        energy += stretch * stretch * (0.5 * numbers[1]);
        if (GRADIENT) {
            // Where the atoms coincide the bond has no direction, and pulls in none.
            const Vec3 pull = d * (r > 0.0 ? stretch * numbers[1] / r : 0.0);
            add(gradient, i, pull);
            subtract(gradient, j, pull);
        }
    }
    return energy;
}

// integers: count, then the three atoms of each angle, the vertex second. numbers: equilibrium in radian, stiffness.
template <bool GRADIENT>
HD double angles(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient) {
    const uint32_t count = *integers++;
    double energy = 0.0;
    for (uint32_t a = 0; a < count; ++a, integers += 3, numbers += 2) {
        const uint32_t i = integers[0], j = integers[1], k = integers[2];
        const Vec3 vertex = atom(x, j), u = atom(x, i) - vertex, v = atom(x, k) - vertex, w = cross(u, v);
        const double sine = sqrt(dot(w, w));
        const double bend = atan2(sine, dot(u, v)) - numbers[0];
        energy += bend * bend * (0.5 * numbers[1]);
        if (GRADIENT) {
            // A straight angle has no plane to bend in.
            const double slope = bend * numbers[1] / (sine < 1e-6 ? 1e-6 : sine);
            const Vec3 pull_i = cross(u, w) * (slope / dot(u, u));
            const Vec3 pull_k = cross(w, v) * (slope / dot(v, v));
            add(gradient, i, pull_i);
            add(gradient, k, pull_k);
            subtract(gradient, j, pull_i + pull_k);
        }
    }
    return energy;
}

// cos φ + i·sin φ.
struct Complex {
    double re, im;
};

HD Complex operator*(Complex a, Complex b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

// The power of a positive exponent, by repeated squaring.
HD Complex power_of(Complex base, uint32_t exponent) {
    int bit = 31;
    while (bit > 0 && !(exponent >> bit & 1)) --bit;
    Complex result = base;
    while (bit-- > 0) {
        result = result * result;
        if (exponent >> bit & 1) result = result * base;
    }
    return result;
}

// integers: count, then of each dihedral its four atoms, its number of terms, and their periodicities, ascending.
// numbers: the constant, then the cosine's and the sine's coefficient of each term.
template <bool GRADIENT>
HD double torsions(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient) {
    const uint32_t count = *integers++;
    double energy = *numbers++;
    for (uint32_t dihedral = 0; dihedral < count; ++dihedral) {
        const uint32_t i = integers[0], j = integers[1], k = integers[2], l = integers[3], terms = integers[4];
        integers += 5;
        const Vec3 at_j = atom(x, j), at_k = atom(x, k);
        const Vec3 u = at_j - atom(x, i), v = at_k - at_j, w = atom(x, l) - at_k;
        const Vec3 m = cross(u, v), n = cross(v, w);
        const double mm = dot(m, m), nn = dot(n, n), length = sqrt(dot(v, v)), norm = 1.0 / sqrt(mm * nn);
        const Complex phi = {dot(m, n) * norm, length * dot(u, n) * norm};
        Complex power = phi;
        uint32_t reached = 1;
        double slope = 0.0;
        for (uint32_t t = 0; t < terms; ++t, ++integers, numbers += 2) {
            const uint32_t periodicity = *integers;
            if (periodicity != reached) power = power * power_of(phi, periodicity - reached);
            reached = periodicity;
            energy += power.re * numbers[0] + power.im * numbers[1];
            slope += (power.re * numbers[1] - power.im * numbers[0]) * (double)periodicity;
        }
        if (GRADIENT) {
            // Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), equation 27.
            const double slope_m = slope / mm, slope_n = slope / nn;
            const Vec3 pull_i = m * -(slope_m * length), pull_l = n * (slope_n * length);
            const Vec3 along = m * (slope_m * (dot(u, v) / length)) + n * (slope_n * (dot(w, v) / length));
            add(gradient, i, pull_i);
            add(gradient, l, pull_l);
            add(gradient, j, along - pull_i);
            subtract(gradient, k, pull_l + along);
        }
    }
    return energy;
}

// The energy of two atoms at a squared distance, and (dU/dr)/r.
struct PairEnergy {
    double energy, slope;
};

HD PairEnergy pair_energy(double rr, double coulomb, double sigma_squared, double four_epsilon) {
    const double inverse = 1.0 / rr;
    const double charges = sqrt(inverse) * coulomb;
    const double two = inverse * sigma_squared, six = two * two * two;
    const double dispersion = six * four_epsilon, repulsion = dispersion * six;
    return {charges + (repulsion - dispersion), -((repulsion * 12.0 - dispersion * 6.0 + charges) * inverse)};
}

// integers: atoms, then of each atom its number of runs of partners and the (start, end) of each; then the number of
// exceptions and the two atoms of each. numbers: (charge, σ/2, 2√ε) of each atom, then (coulomb, σ², 4ε) of each exception.
template <bool GRADIENT>
HD double nonbonded(const uint32_t *integers, const double *numbers, ConstColumn x, Column gradient) {
    const uint32_t atoms = *integers++;
    double energy = 0.0;
    for (uint32_t i = 0; i < atoms; ++i) {
        const double *of_i = numbers + 3 * (size_t)i;
        const Vec3 at_i = atom(x, i);
        Vec3 pull_i = {0.0, 0.0, 0.0};
        for (uint32_t runs = *integers++; runs > 0; --runs, integers += 2) {
            for (uint32_t j = integers[0]; j < integers[1]; ++j) {
                const double *of_j = numbers + 3 * (size_t)j;
                const double sigma = of_i[1] + of_j[1];
                const Vec3 d = at_i - atom(x, j);
                const PairEnergy pair = pair_energy(dot(d, d), of_i[0] * of_j[0], sigma * sigma, of_i[2] * of_j[2]);
                energy += pair.energy;
                if (GRADIENT) {
                    const Vec3 pull = d * pair.slope;
                    pull_i = pull_i + pull;
                    subtract(gradient, j, pull);
                }
            }
        }
        if (GRADIENT) add(gradient, i, pull_i);
    }
    numbers += 3 * (size_t)atoms;
    for (uint32_t exceptions = *integers++; exceptions > 0; --exceptions, integers += 2, numbers += 3) {
        const uint32_t i = integers[0], j = integers[1];
        const Vec3 d = atom(x, i) - atom(x, j);
        const PairEnergy pair = pair_energy(dot(d, d), numbers[0], numbers[1], numbers[2]);
        energy += pair.energy;
        if (GRADIENT) {
            const Vec3 pull = d * pair.slope;
            add(gradient, i, pull);
            subtract(gradient, j, pull);
        }
    }
    return energy;
}
