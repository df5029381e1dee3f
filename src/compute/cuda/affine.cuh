// The affine transform of RealNVP (Dinh, Sohl-Dickstein and Bengio 2017): y = x·exp(s) + t with s = b·tanh(raw/b).
//
// The log scale is computed in the conditioner's precision, as a part of it; the transform of it, and ladj, are f64.
#pragma once

#include "common.cuh"

// The transformed value of one column; its part of ladj is added to `ladj`.
template <class T>
HD double affine_value(T bound, T raw, T shift, bool forward, double x, double* ladj) {
    const double s = (double)(bound * hyperbolic_tangent(raw / bound));
    if (forward) {
        *ladj += s;
        return x * exp(s) + (double)shift;
    }
    *ladj -= s;
    return (x - (double)shift) * exp(-s);
}

// The gradient of one column's input, from those of its output and of ladj; `g_raw` and `g_shift` become those of the
// parameters. `x` is the direction's input.
template <class T>
HD double affine_gradient(T bound, T raw, T shift, bool forward, double x, double g, double g_ladj, T* g_raw,
                          T* g_shift) {
    const T squash = hyperbolic_tangent(raw / bound);
    const double s = (double)(bound * squash);
    double dx, ds, dt;
    if (forward) {
        dx = g * exp(s);
        ds = dx * x + g_ladj;
        dt = g;
    } else {
        dx = g * exp(-s);
        ds = -dx * (x - (double)shift) - g_ladj;
        dt = -dx;
    }
    *g_raw = (T)ds * ((T)1 - squash * squash);
    *g_shift = (T)dt;
    return dx;
}

#ifdef __CUDACC__

// A group of threads has a row: each takes some of its columns. `order` has the m transformed columns, then the others.
// `out` is y (n, d), then ladj (n).
template <class T>
__device__ void affine_forward(size_t n, unsigned d, unsigned m, int group, double bound, int forward,
                               const unsigned* order, const double* x, const T* params, double* out) {
    const size_t thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t row = thread / group;
    const unsigned lane = thread % group;
    double ladj = 0.0;
    if (row < n) {
        const double* xs = x + row * d;
        double* ys = out + row * d;
        const T* raw = params + row * 2 * m;
        for (unsigned c = lane; c < d; c += group) {
            const unsigned j = order[c];
            ys[j] = c < m ? affine_value((T)bound, raw[c], raw[m + c], forward, xs[j], &ladj) : xs[j];
        }
    }
    ladj = group_sum(ladj, group);
    if (row < n && lane == 0) {
        out[n * d + row] = ladj;
    }
}

// `g` is the gradient of `out`; gx (n, d) and g_params (n, 2m) become those of x and of the parameters.
template <class T>
__device__ void affine_backward(size_t n, unsigned d, unsigned m, int group, double bound, int forward,
                                const unsigned* order, const double* x, const T* params, const double* g, double* gx,
                                T* g_params) {
    const size_t thread = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    const size_t row = thread / group;
    if (row >= n) {
        return;
    }
    const double g_ladj = g[n * d + row];
    const T* raw = params + row * 2 * m;
    T* g_raw = g_params + row * 2 * m;
    for (unsigned c = thread % group; c < d; c += group) {
        const size_t j = row * d + order[c];
        gx[j] = c < m ? affine_gradient((T)bound, raw[c], raw[m + c], forward, x[j], g[j], g_ladj, g_raw + c,
                                        g_raw + m + c)
                      : g[j];
    }
}

#endif
