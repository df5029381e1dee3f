// The coordinate transforms of src/coords, one configuration at a time.
//
// integers: (kind, d, D); for internal coordinates also the three atoms of the frame, then (atom, bond, angle, torsion, other)
// of each row, `other` being the row of an atom that it is equivalent to or NONE, then what each coordinate measures and which
// of the flow's it is, NONE if it is fixed. numbers: the constant part of ladj, then (centre, scale, middle, reach)
// of each coordinate, where a torsion that is not circular has to be within `reach` of `middle`.
#pragma once
#include "../../energy/cuda/column.cuh"

enum TransformKind : uint32_t { CARTESIAN, INTERNAL };
enum CoordinateMeasure : uint32_t { BOND, ANGLE, CIRCULAR_TORSION, REAL_TORSION, FIXED };

#define NONE 0xffffffffu

#define PI_F64 3.141592653589793

// The angle equal to `a` modulo 2π, in [−π, π).
HD double wrap_angle(double a) {
    if (a >= -PI_F64 && a < PI_F64) return a;
    const double wrapped = a - 2.0 * PI_F64 * floor((a + PI_F64) / (2.0 * PI_F64));
    if (wrapped >= PI_F64) return wrapped - 2.0 * PI_F64;
    // Rounding went an ulp too far.
    return wrapped < -PI_F64 ? -PI_F64 : wrapped;
}

struct Transform {
    const uint32_t *integers;
    const double *numbers;

    HD uint32_t kind() const { return integers[0]; }
    HD uint32_t dimension() const { return integers[1]; }
    HD double constant() const { return numbers[0]; }
    HD double centre(uint32_t k) const { return numbers[1 + 4 * (size_t)k]; }
    HD double scale(uint32_t k) const { return numbers[2 + 4 * (size_t)k]; }
    HD double middle(uint32_t k) const { return numbers[3 + 4 * (size_t)k]; }
    HD double reach(uint32_t k) const { return numbers[4 + 4 * (size_t)k]; }
    HD uint32_t frame(uint32_t k) const { return integers[3 + k]; }
    HD uint32_t rows() const { return integers[2] / 3 - 3; }
    HD const uint32_t *row(uint32_t i) const { return integers + 6 + 5 * (size_t)i; }
    HD uint32_t measure(uint32_t k) const { return integers[6 + 5 * (size_t)rows() + 2 * (size_t)k]; }
    HD uint32_t place(uint32_t k) const { return integers[7 + 5 * (size_t)rows() + 2 * (size_t)k]; }
    HD double raw(uint32_t k, ConstColumn y) const {
        return place(k) == NONE ? centre(k) : centre(k) + scale(k) * y[place(k)];
    }

    // The value of an internal coordinate, or its centre if y is outside of its domain, which `inside` is then told.
    HD double value(uint32_t k, ConstColumn y, bool &inside) const {
        const double value = raw(k, y);
        bool within = true;
        switch (measure(k)) {
        case BOND: within = value > 0.0; break;
        case ANGLE: within = value > 0.0 && value < PI_F64; break;
        case REAL_TORSION: within = fabs(value - middle(k)) < reach(k); break;
        default: break;
        }
        inside = inside && within;
        return within ? value : centre(k);
    }

    HD double coordinate(uint32_t k, double value) const {
        const double shifted = value - centre(k);
        switch (measure(k)) {
        case CIRCULAR_TORSION: return wrap_angle(shifted / scale(k));
        case REAL_TORSION: return wrap_angle(shifted) / scale(k);
        default: return shifted / scale(k);
        }
    }
};

// Where a row's atom is placed, and the frame that it is placed in.
struct Placement {
    Vec3 a, e1, m, n, p;
    double n_length, q_length;
    // Whether the atoms that a torsion is measured from are not on a line.
    bool sound;
};

template <typename T>
HD Placement placement(ColumnOf<T> x, const uint32_t *row) {
    Placement at;
    const Vec3 b = atom(x, row[2]), c = atom(x, row[3]);
    at.a = atom(x, row[1]);
    const Vec3 q = at.a - b;
    at.q_length = sqrt(dot(q, q));
    at.e1 = q * (1.0 / at.q_length);
    at.p = b - c;
    const Vec3 w = cross(at.p, at.e1);
    at.n_length = sqrt(dot(w, w));
    at.n = w * (1.0 / at.n_length);
    at.m = cross(at.n, at.e1);
    at.sound = at.n_length > 1e-9 * sqrt(dot(at.p, at.p));
    return at;
}

HD double internal_to_positions(const Transform &transform, ConstColumn y, Column x) {
    bool inside = true;
    const double r2 = transform.value(0, y, inside), r3 = transform.value(1, y, inside);
    const double angle = transform.value(2, y, inside);
    put(x, transform.frame(0), {0.0, 0.0, 0.0});
    put(x, transform.frame(1), {0.0, 0.0, r2});
    put(x, transform.frame(2), {r3 * sin(angle), 0.0, r3 * cos(angle)});
    double measure = r2 * r2 * r3 * r3 * sin(angle), log_measure = 0.0;
    for (uint32_t i = 0; i < transform.rows(); ++i) {
        const double r = transform.value(3 * i + 3, y, inside), theta = transform.value(3 * i + 4, y, inside);
        const double phi = transform.value(3 * i + 5, y, inside);
        const uint32_t *row = transform.row(i);
        const Placement at = placement(x, row);
        const double s = sin(theta), c = cos(theta);
        inside = inside && at.sound;
        put(x, row[0],
            at.sound ? at.a + at.e1 * (-r * c) + at.m * (r * s * cos(phi)) + at.n * (r * s * sin(phi))
                     : at.a + Vec3{r, 0.0, 0.0});
        measure *= r * r * s;
        // Eight factors of about 0.01 are far from underflow; a logarithm for each atom is not needed.
        if (i % 8 == 7) {
            log_measure += log(measure);
            measure = 1.0;
        }
    }
    return inside ? transform.constant() + log_measure + log(measure) : -INFINITY;
}

HD double distance(Vec3 a, Vec3 b) {
    const Vec3 d = a - b;
    return sqrt(dot(d, d));
}

// The angle a–b–c in [0, π].
HD double angle_between(Vec3 a, Vec3 b, Vec3 c) {
    const Vec3 u = a - b, v = c - b, w = cross(u, v);
    return atan2(sqrt(dot(w, w)), dot(u, v));
}

// The dihedral a–b–c–d in [−π, π], IUPAC sign.
HD double dihedral(Vec3 a, Vec3 b, Vec3 c, Vec3 d) {
    const Vec3 u = b - a, v = c - b, w = d - c, n = cross(v, w);
    return atan2(dot(u, n) * sqrt(dot(v, v)), dot(cross(u, v), n));
}

HD double internal_to_coordinates(const Transform &transform, ConstColumn x, Column y) {
    const Vec3 root = atom(x, transform.frame(0)), second = atom(x, transform.frame(1));
    const Vec3 third = atom(x, transform.frame(2));
    const double r2 = distance(root, second), r3 = distance(root, third), theta = angle_between(second, root, third);
    // Of a fixed coordinate the constraint's value counts, whatever x has.
    const auto take = [&](uint32_t k, double value) {
        if (transform.place(k) == NONE) return transform.centre(k);
        y[transform.place(k)] = transform.coordinate(k, value);
        return value;
    };
    double ladj = transform.constant() + 2.0 * log(take(0, r2)) + 2.0 * log(take(1, r3)) + log(sin(take(2, theta)));
    for (uint32_t i = 0; i < transform.rows(); ++i) {
        const uint32_t *row = transform.row(i), k = 3 * i + 3;
        const Vec3 at = atom(x, row[0]), a = atom(x, row[1]), b = atom(x, row[2]), c = atom(x, row[3]);
        const double r = distance(at, a), bend = angle_between(at, a, b);
        take(k + 2, dihedral(at, a, b, c));
        ladj += 2.0 * log(take(k, r)) + log(sin(take(k + 1, bend)));
    }
    // Equivalent atoms in the other order are put into this one. The measure is the same.
    for (uint32_t i = 0; i < transform.rows(); ++i) {
        const uint32_t *row = transform.row(i), j = row[4];
        if (j == NONE) continue;
        const Vec3 a = atom(x, row[1]), b = atom(x, row[2]), c = atom(x, row[3]);
        const Vec3 first = atom(x, row[0]), second = atom(x, transform.row(j)[0]);
        const double torsion = dihedral(first, a, b, c), other = dihedral(second, a, b, c);
        if (!(torsion < 0.0 && other > 0.0)) continue;
        const auto put_in = [&](uint32_t k, Vec3 at, double torsion) {
            take(k, distance(at, a));
            take(k + 1, angle_between(at, a, b));
            take(k + 2, torsion);
        };
        put_in(3 * i + 3, second, other);
        put_in(3 * j + 3, first, torsion);
    }
    return ladj;
}

// The gradient goes back through the placements in reverse order; `gradient_x` gathers what later atoms leave.
HD void internal_pull_back(const Transform &transform, ConstColumn y, ConstColumn x, Column gradient_x,
                           Column gradient_y) {
    const auto write = [&](uint32_t k, double gradient) {
        if (transform.place(k) != NONE) gradient_y[transform.place(k)] = transform.scale(k) * gradient;
    };
    for (uint32_t i = transform.rows(); i-- > 0;) {
        const uint32_t *row = transform.row(i), k = 3 * i + 3;
        const double r = transform.raw(k, y), theta = transform.raw(k + 1, y);
        const double phi = transform.raw(k + 2, y);
        const double s = sin(theta), c = cos(theta), sin_phi = sin(phi), cos_phi = cos(phi);
        const Placement at = placement(x, row);
        if (!at.sound) {
            write(k, 0.0);
            write(k + 1, 0.0);
            write(k + 2, 0.0);
            continue;
        }
        const Vec3 g = atom(gradient_x, row[0]);
        const double d1 = -r * c, d2 = r * s * cos_phi, d3 = r * s * sin_phi;
        const double g1 = dot(g, at.e1), g2 = dot(g, at.m), g3 = dot(g, at.n);
        const double of_r = -c * g1 + s * cos_phi * g2 + s * sin_phi * g3;
        const double of_theta = r * (s * g1 + c * cos_phi * g2 + c * sin_phi * g3);
        write(k, of_r - 2.0 / r);
        write(k + 1, of_theta - c / s);
        write(k + 2, d2 * g3 - d3 * g2);

        // Reverse of: e1 = q/|q|, n = (p × e1)/|p × e1|, m = n × e1, atom = a + d1 e1 + d2 m + d3 n.
        const Vec3 of_m = g * d2, of_n = g * d3 + cross(at.e1, of_m);
        const Vec3 of_w = (of_n - at.n * dot(at.n, of_n)) * (1.0 / at.n_length);
        const Vec3 of_p = cross(at.e1, of_w);
        const Vec3 of_e = g * d1 + cross(of_m, at.n) + cross(of_w, at.p);
        const Vec3 of_q = (of_e - at.e1 * dot(at.e1, of_e)) * (1.0 / at.q_length);
        add(gradient_x, row[1], g + of_q);
        add(gradient_x, row[2], of_p - of_q);
        subtract(gradient_x, row[3], of_p);
    }
    const Vec3 g2 = atom(gradient_x, transform.frame(1)), g3 = atom(gradient_x, transform.frame(2));
    const double r2 = transform.raw(0, y), r3 = transform.raw(1, y), theta = transform.raw(2, y);
    const double s = sin(theta), c = cos(theta);
    write(0, g2.z - 2.0 / r2);
    write(1, g3.x * s + g3.z * c - 2.0 / r3);
    write(2, r3 * (g3.x * c - g3.z * s) - c / s);
}

// Writes positions x (D) of y (d); returns ladj of the map, −∞ outside of its domain.
HD double to_positions(const Transform &transform, ConstColumn y, Column x) {
    if (transform.kind() == INTERNAL) return internal_to_positions(transform, y, x);
    for (uint32_t k = 0; k < transform.dimension(); ++k) x[k] = transform.centre(k) + transform.scale(k) * y[k];
    return transform.constant();
}

// Writes coordinates y (d) of x (D); returns ladj of the map from y to x.
HD double to_coordinates(const Transform &transform, ConstColumn x, Column y) {
    if (transform.kind() == INTERNAL) return internal_to_coordinates(transform, x, y);
    for (uint32_t k = 0; k < transform.dimension(); ++k) y[k] = (x[k] - transform.centre(k)) / transform.scale(k);
    return transform.constant();
}

// Turns ∂E/∂x (`gradient_x`, used as scratch space) at x = x(y) into ∂(E − ladj)/∂y.
HD void pull_back(const Transform &transform, ConstColumn y, ConstColumn x, Column gradient_x, Column gradient_y) {
    if (transform.kind() == INTERNAL) return internal_pull_back(transform, y, x, gradient_x, gradient_y);
    for (uint32_t k = 0; k < transform.dimension(); ++k) gradient_y[k] = gradient_x[k] * transform.scale(k);
}
