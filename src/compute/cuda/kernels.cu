// The flow's kernels, by the names that the host launches them by. `build.rs` compiles them to PTX.
//
// Kernels of two precisions end in that of the conditioner; coordinates are always f64.

#include "adam.cuh"
#include "affine.cuh"
#include "bias_activation.cuh"
#include "features.cuh"
#include "spline.cuh"

#define KERNELS(T, SUFFIX)                                                                                             \
    extern "C" __global__ void features_forward_##SUFFIX(size_t n, unsigned d, unsigned width, unsigned entries,       \
                                                         const unsigned* table, const double* x, T* out) {             \
        features_forward(n, d, width, entries, table, x, out);                                                         \
    }                                                                                                                  \
    extern "C" __global__ void features_backward_##SUFFIX(size_t n, unsigned d, unsigned width, const unsigned* table, \
                                                          const double* x, const T* g, double* gx) {                   \
        features_backward(n, d, width, table, x, g, gx);                                                               \
    }                                                                                                                  \
    extern "C" __global__ void bias_activation_forward_##SUFFIX(size_t n, unsigned m, int activation, const T* x,      \
                                                                const T* bias, T* y) {                                 \
        bias_activation_forward(n, m, activation, x, bias, y);                                                         \
    }                                                                                                                  \
    extern "C" __global__ void bias_activation_backward_##SUFFIX(size_t n, unsigned m, int activation, size_t rows,    \
                                                                 const T* x, const T* bias, const T* g, T* dz,         \
                                                                 double* partial) {                                    \
        bias_activation_backward(n, m, activation, rows, x, bias, g, dz, partial);                                     \
    }                                                                                                                  \
    extern "C" __global__ void column_sum_##SUFFIX(unsigned parts, unsigned m, const double* partial, T* out) {        \
        column_sum(parts, m, partial, out);                                                                            \
    }                                                                                                                  \
    extern "C" __global__ void affine_forward_##SUFFIX(size_t n, unsigned d, unsigned m, int group, double bound,      \
                                                       int forward, const unsigned* order, const double* x,            \
                                                       const T* params, double* out) {                                 \
        affine_forward(n, d, m, group, bound, forward, order, x, params, out);                                         \
    }                                                                                                                  \
    extern "C" __global__ void affine_backward_##SUFFIX(size_t n, unsigned d, unsigned m, int group, double bound,     \
                                                        int forward, const unsigned* order, const double* x,           \
                                                        const T* params, const double* g, double* gx, T* g_params) {   \
        affine_backward(n, d, m, group, bound, forward, order, x, params, g, gx, g_params);                            \
    }                                                                                                                  \
    extern "C" __global__ void spline_forward_##SUFFIX(size_t n, unsigned d, unsigned m, unsigned width,               \
                                                       unsigned group, int bins, double bound, int forward,            \
                                                       const unsigned* table, const double* x, const T* params,        \
                                                       double* out) {                                                  \
        extern __shared__ double shared[];                                                                             \
        spline_forward(n, d, m, width, group, bins, bound, forward, table, x, params, out, (T*)shared);                \
    }                                                                                                                  \
    extern "C" __global__ void spline_backward_##SUFFIX(size_t n, unsigned d, unsigned m, unsigned width,              \
                                                        unsigned group, int bins, double bound, int forward,           \
                                                        const unsigned* table, const double* x, const T* params,       \
                                                        const double* g, double* gx, T* g_params) {                    \
        extern __shared__ double shared[];                                                                             \
        spline_backward(n, d, m, width, group, bins, bound, forward, table, x, params, g, gx, g_params, (T*)shared);   \
    }                                                                                                                  \
    extern "C" __global__ void adam_step_##SUFFIX(size_t n, double beta1, double beta2, double learning_rate,          \
                                                  double epsilon, const double* tally, const T* g, T* weight, T* m,    \
                                                  T* v) {                                                              \
        adam_step(n, beta1, beta2, learning_rate, epsilon, tally, g, weight, m, v);                                    \
    }                                                                                                                  \
    extern "C" __global__ void squares_##SUFFIX(size_t n, const T* x, double* partial) { squares(n, x, partial); }

KERNELS(float, f32)
KERNELS(double, f64)

extern "C" __global__ void count_step_f64(size_t n, const double* partial, double clip, double beta1, double beta2,
                                          double* tally) {
    count_step_of(n, partial, clip, beta1, beta2, tally);
}
