// Rational-quadratic splines and their gradients, in both directions.
//
// Durkan, Bekasov, Murray and Papamakarios, "Neural spline flows" (2019), equations 4 to 8; on the circle, Rezende et
// al., "Normalizing flows on tori and spheres" (2020). With u = (x - x_k)/w, s = h/w and D = s + (d0 + d1 - 2s)u(1-u),
//
//     g(x) = y_k + h (s u^2 + d0 u(1-u))/D,  g'(x) = s^2 (d1 u^2 + 2s u(1-u) + d0 (1-u)^2)/D^2.
//
// Exponentials of the sizes' logits are in the conditioner's precision, as a part of it; knots, and all that is made of
// them, are f64. The formulas are those of the CPU's kernels, operation by operation.
#pragma once

#include "common.cuh"

// Smallest size of a bin as a fraction of the domain, and smallest slope at a knot.
#define MIN_BIN 1e-3
#define MIN_SLOPE 1e-3
#define PI 3.14159265358979323846

// A spline's shape: half the length of its domain, and whether that is a circle.
struct Shape {
    int bins;
    double half;
    bool circular;
};

// What is shared out among the bins beyond their smallest size.
HD double free_length(Shape shape) { return 2.0 * shape.half * (1.0 - shape.bins * MIN_BIN); }
HD double least_length(Shape shape) { return 2.0 * shape.half * MIN_BIN; }
HD int parameter_count(Shape shape) { return 3 * shape.bins + (shape.circular ? 1 : -1); }

// The parameter of a knot's slope; -1 at the ends of a line, where the slope is one, as of a parameter of zero.
HD int slope_parameter(Shape shape, int knot) {
    if (shape.circular) {
        return 2 * shape.bins + (knot == shape.bins ? 0 : knot);
    }
    return knot == 0 || knot == shape.bins ? -1 : 2 * shape.bins + knot - 1;
}

// A knot's slope from its parameter (the "squareplus" of Barron 2021).
HD double slope(double p) { return MIN_SLOPE + (1.0 - MIN_SLOPE) * 0.5 * (p + sqrt(p * p + 4.0)); }
HD double slope_derivative(double p) { return (1.0 - MIN_SLOPE) * 0.5 * (1.0 + p / sqrt(p * p + 4.0)); }

// The angle in [-pi, pi).
HD double wrap(double angle) {
    const double turned = angle - (2.0 * PI) * floor(angle * (1.0 / (2.0 * PI)) + 0.5);
    return turned >= PI ? turned - 2.0 * PI : turned; // rounding may have made it pi
}

HD double unit(double u) {
    u = u < 0.0 ? 0.0 : u;
    return u > 1.0 ? 1.0 : u;
}

// Logits of sizes are turned into sizes by exp(logit - largest)·scale·free + least.
template <class T>
struct Sizes {
    const T* logits;
    T largest;
    double scale;

    HD double share(int k) const { return (double)exponential(logits[k] - largest) * scale; }
};

template <class T>
HD Sizes<T> sizes(const T* logits, int bins) {
    T largest = logits[0];
    for (int k = 1; k < bins; k++) {
        largest = logits[k] > largest ? logits[k] : largest;
    }
    double sum = 0.0;
    for (int k = 0; k < bins; k++) {
        sum += (double)exponential(logits[k] - largest);
    }
    return {logits, largest, 1.0 / sum};
}

// The value, within the domain (zero where it is outside), and the bin that it lies in. q0 and q1 are the parameters of
// the slopes at the bin's two knots.
template <class T>
struct Located {
    double value;
    bool inside;
    int index;
    double x0, y0, w, h, q0, q1;
    Sizes<T> widths, heights;
};

template <class T>
HD Located<T> locate(Shape shape, const T* params, bool forward, double input) {
    Located<T> at;
    if (shape.circular) {
        at.inside = true;
        at.value = forward ? wrap(input) : wrap(input - (double)params[3 * shape.bins]);
    } else {
        at.inside = input >= -shape.half && input < shape.half;
        at.value = at.inside ? input : 0.0;
    }
    at.widths = sizes(params, shape.bins);
    at.heights = sizes(params + shape.bins, shape.bins);
    const double least = least_length(shape), free = free_length(shape);
    double x = -shape.half, y = -shape.half;
    for (int k = 0; k < shape.bins; k++) {
        if (k > 0 && !(at.value >= (forward ? x : y))) {
            break;
        }
        at.index = k;
        at.x0 = x;
        at.y0 = y;
        at.w = at.widths.share(k) * free + least;
        at.h = at.heights.share(k) * free + least;
        x += at.w;
        y += at.h;
    }
    const int before = slope_parameter(shape, at.index), after = slope_parameter(shape, at.index + 1);
    at.q0 = before < 0 ? 0.0 : (double)params[before];
    at.q1 = after < 0 ? 0.0 : (double)params[after];
    return at;
}

HD double log_slope(double u, double uv, double s, double d0, double d1, double den) {
    const double v = 1.0 - u, ratio = s / den;
    return log(ratio * ratio * (d1 * u * u + (2.0 * s * uv + d0 * v * v)));
}

// (g(x), log g'(x)).
template <class T>
HD double evaluate(const Located<T>& at, double* log_slope_out) {
    const double d0 = slope(at.q0), d1 = slope(at.q1);
    const double u = unit((at.value - at.x0) / at.w);
    const double s = at.h / at.w, uv = u * (1.0 - u);
    const double den = (d0 + d1 - 2.0 * s) * uv + s;
    const double num = s * u * u + d0 * uv;
    *log_slope_out = log_slope(u, uv, s, d0, d1, den);
    return at.y0 + at.h * num / den;
}

// (x, log g'(x)) where g(x) is the value. The discriminant is never negative for slopes and heights that are positive;
// rounding can make it so.
template <class T>
HD double invert(const Located<T>& at, double* log_slope_out) {
    const double w = at.w, h = at.h, d0 = slope(at.q0), d1 = slope(at.q1);
    const double s = h / w;
    double rise = at.value - at.y0;
    rise = rise < 0.0 ? 0.0 : rise;
    rise = rise > h ? h : rise;
    const double curvature = d0 + d1 - 2.0 * s;
    const double a = h * (s - d0) + rise * curvature;
    const double b = h * d0 - rise * curvature;
    const double c = -s * rise;
    const double square = b * b - 4.0 * a * c;
    const double root = sqrt(square < 0.0 ? 0.0 : square);
    // b is positive where rise is zero: no division of zero by zero
    const double u = unit(2.0 * c / (-b - root));
    const double uv = u * (1.0 - u);
    *log_slope_out = log_slope(u, uv, s, d0, d1, curvature * uv + s);
    return u * w + at.x0;
}

// The transformed value of one column; its part of ladj is added to `ladj`.
template <class T>
HD double spline_value(Shape shape, const T* params, bool forward, double x, double* ladj) {
    const Located<T> at = locate(shape, params, forward, x);
    if (!at.inside) {
        return x;
    }
    double log_slope;
    if (forward) {
        const double y = evaluate(at, &log_slope);
        *ladj += log_slope;
        return shape.circular ? wrap(y + (double)params[3 * shape.bins]) : y;
    }
    const double y = invert(at, &log_slope);
    *ladj -= log_slope;
    return shape.circular ? wrap(y) : y;
}

// Gradients of a·g(x) + b·log g'(x) with respect to x and to the bin's shape. (That of y0 is a.)
struct BinGradient {
    double x, x0, w, h, d0, d1;
};

HD BinGradient bin_gradient(double u, double w, double h, double d0, double d1, double a, double b) {
    const double v = 1.0 - u, s = h / w, uv = u * v;
    const double curvature = d0 + d1 - 2.0 * s;
    const double den = curvature * uv + s;
    const double num = s * u * u + d0 * uv;
    const double p = d1 * u * u + (2.0 * s * uv + d0 * v * v);
    const double inv_den = 1.0 / den, inv_p = 1.0 / p, inv_w = 1.0 / w;
    const double inv2 = inv_den * inv_den, tilt = 1.0 - 2.0 * u, ah = a * h;
    const double g_u =
        ah * s * p * inv2 + b * (2.0 * (d1 * u + s * tilt - d0 * v) * inv_p - 2.0 * curvature * tilt * inv_den);
    const double g_s = ah * (u * u * den - num * (1.0 - 2.0 * uv)) * inv2 +
                       b * (2.0 / s + 2.0 * uv * inv_p - 2.0 * (1.0 - 2.0 * uv) * inv_den);
    const double g_d0 = ah * uv * (den - num) * inv2 + b * (v * v * inv_p - 2.0 * uv * inv_den);
    const double g_d1 = -ah * num * uv * inv2 + b * (u * u * inv_p - 2.0 * uv * inv_den);
    return {g_u * inv_w, -g_u * inv_w, -(g_u * u + g_s * s) * inv_w, a * num * inv_den + g_s * inv_w, g_d0, g_d1};
}

// The gradient through the softmax of sizes, where sizes before the bin have gradient `before`, and the bin's own has
// `own`. The mean gradient follows from where the bin begins, `start` from the domain's beginning, and from its `length`.
template <class T>
HD void softmax_gradient(Shape shape, const Sizes<T>& sizes, int index, double start, double length, double before,
                         double own, T* out) {
    const double least = least_length(shape), free = free_length(shape);
    const double mean = (before * (start - index * least) + own * (length - least)) / free;
    for (int k = 0; k < shape.bins; k++) {
        const double g = k < index ? before : (k == index ? own : 0.0);
        out[k] = (T)(sizes.share(k) * free * (g - mean));
    }
}

// The gradient of one column's input, from those of its output and of ladj; `g_params` become those of the parameters.
// `x` is the direction's input. The gradients may take the parameters' place.
template <class T>
HD double spline_gradient(Shape shape, const T* params, bool forward, double x, double g, double g_ladj, T* g_params) {
    const Located<T> at = locate(shape, params, forward, x);
    if (!at.inside) {
        for (int k = 0; k < parameter_count(shape); k++) {
            g_params[k] = (T)0;
        }
        return g;
    }
    const double d0 = slope(at.q0), d1 = slope(at.q1);
    BinGradient bin;
    double gy, to_input;
    if (forward) {
        bin = bin_gradient(unit((at.value - at.x0) / at.w), at.w, at.h, d0, d1, g, g_ladj);
        gy = g;
        to_input = bin.x;
    } else {
        // with x = g^-1(y) and ladj = -log g'(x): dx = (dy - dg/dtheta dtheta)/g'
        double log_slope;
        const double inverse = invert(at, &log_slope);
        const double u = unit((inverse - at.x0) / at.w);
        const double slope_change = bin_gradient(u, at.w, at.h, d0, d1, 0.0, 1.0).x;
        to_input = (g - g_ladj * slope_change) * exp(-log_slope);
        gy = -to_input;
        bin = bin_gradient(u, at.w, at.h, d0, d1, gy, -g_ladj);
    }
    const int bins = shape.bins;
    softmax_gradient(shape, at.widths, at.index, at.x0 + shape.half, at.w, bin.x0, bin.w, g_params);
    softmax_gradient(shape, at.heights, at.index, at.y0 + shape.half, at.h, gy, bin.h, g_params + bins);
    for (int k = 2 * bins; k < parameter_count(shape); k++) {
        g_params[k] = (T)0;
    }
    const int before = slope_parameter(shape, at.index), after = slope_parameter(shape, at.index + 1);
    if (before >= 0) {
        g_params[before] = (T)(bin.d0 * slope_derivative(at.q0));
    }
    if (after >= 0) {
        g_params[after] = (T)(bin.d1 * slope_derivative(at.q1));
    }
    if (shape.circular) {
        g_params[3 * bins] = (T)gy;
    }
    return to_input;
}

#ifdef __CUDACC__

// The shape of the spline that a table's entry (column, first parameter, whether it is a circle) is of.
__device__ inline Shape shape_of(const unsigned* entry, int bins, double bound) {
    return entry[2] ? Shape{bins, PI, true} : Shape{bins, bound, false};
}

// The parameters of some columns of a block's rows, in shared memory: a thread's are one after another, so that
// neighbouring threads would have theirs far apart in device memory, where they are copied from and to all together.
struct Staged {
    unsigned first; // of a row's parameters
    unsigned count; // of each row
};

// The parameters of the columns [c, c + group) of the m that have entries in the table.
__device__ inline Staged staged(const unsigned* table, unsigned m, unsigned width, unsigned c, unsigned group) {
    const unsigned first = table[3 * c + 1];
    const unsigned end = c + group < m ? table[3 * (c + group) + 1] : width;
    return {first, end - first};
}

// Calls `copy(shared index, device index)` for each number of `rows` rows from `row` on; the block's threads share the
// work.
template <class F>
__device__ inline void each_staged(Staged part, size_t row, unsigned rows, unsigned width, F copy) {
    for (unsigned i = threadIdx.x; i < rows * part.count; i += blockDim.x) {
        copy(i, (row + i / part.count) * width + part.first + i % part.count);
    }
}

// Rows of a block of groups, from `row` on.
__device__ inline unsigned rows_of_block(size_t n, size_t row, unsigned group) {
    const unsigned rows = blockDim.x / group;
    return n - row < rows ? (unsigned)(n - row) : rows;
}

// A group of threads has a row: each takes some of its columns. `table` has an entry for each of the m transformed
// columns, in the order of their parameters, then the other columns. `out` is y (n, d), then ladj (n); a row has
// `width` parameters. Shared memory has room for those of one column a thread.
template <class T>
__device__ void spline_forward(size_t n, unsigned d, unsigned m, unsigned width, unsigned group, int bins,
                               double bound, int forward, const unsigned* table, const double* x, const T* params,
                               double* out, T* shared) {
    const size_t first_row = (size_t)blockIdx.x * (blockDim.x / group);
    const unsigned rows = rows_of_block(n, first_row, group);
    const unsigned own_row = threadIdx.x / group, lane = threadIdx.x % group;
    const size_t row = first_row + own_row;
    const bool working = own_row < rows;
    double ladj = 0.0;
    for (unsigned start = 0; start < m; start += group) {
        const Staged part = staged(table, m, width, start, group);
        each_staged(part, first_row, rows, width, [&](unsigned i, size_t at) { shared[i] = params[at]; });
        __syncthreads();
        const unsigned c = start + lane;
        if (working && c < m) {
            const unsigned* entry = table + 3 * c;
            const T* own = shared + own_row * part.count + (entry[1] - part.first);
            const size_t j = row * d + entry[0];
            out[j] = spline_value(shape_of(entry, bins, bound), own, forward, x[j], &ladj);
        }
        __syncthreads();
    }
    for (unsigned c = lane; working && c < d - m; c += group) {
        const size_t j = row * d + table[3 * m + c];
        out[j] = x[j];
    }
    ladj = group_sum(ladj, group);
    if (working && lane == 0) {
        out[n * d + row] = ladj;
    }
}

// `g` is the gradient of `out`; gx (n, d) and g_params (n, width) become those of x and of the parameters.
template <class T>
__device__ void spline_backward(size_t n, unsigned d, unsigned m, unsigned width, unsigned group, int bins,
                                double bound, int forward, const unsigned* table, const double* x, const T* params,
                                const double* g, double* gx, T* g_params, T* shared) {
    const size_t first_row = (size_t)blockIdx.x * (blockDim.x / group);
    const unsigned rows = rows_of_block(n, first_row, group);
    const unsigned own_row = threadIdx.x / group, lane = threadIdx.x % group;
    const size_t row = first_row + own_row;
    const bool working = own_row < rows;
    const double g_ladj = working ? g[n * d + row] : 0.0;
    for (unsigned start = 0; start < m; start += group) {
        const Staged part = staged(table, m, width, start, group);
        each_staged(part, first_row, rows, width, [&](unsigned i, size_t at) { shared[i] = params[at]; });
        __syncthreads();
        const unsigned c = start + lane;
        if (working && c < m) {
            const unsigned* entry = table + 3 * c;
            T* own = shared + own_row * part.count + (entry[1] - part.first);
            const size_t j = row * d + entry[0];
            gx[j] = spline_gradient(shape_of(entry, bins, bound), own, forward, x[j], g[j], g_ladj, own);
        }
        __syncthreads();
        each_staged(part, first_row, rows, width, [&](unsigned i, size_t at) { g_params[at] = shared[i]; });
        __syncthreads();
    }
    for (unsigned c = lane; working && c < d - m; c += group) {
        const size_t j = row * d + table[3 * m + c];
        gx[j] = g[j];
    }
}

#endif
