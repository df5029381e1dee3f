// What all kernels share. Formulas are inline functions that a host compiler can take as well, so that they can be
// tested without a device; kernels are there for nvcc only.
#pragma once

#include <math.h>
#include <stddef.h>

#ifdef __CUDACC__
#define HD __host__ __device__ inline
#else
#define HD inline
#endif

// Conditioners compute in f32 or f64; these pick the function of the argument's precision.
HD float exponential(float x) { return expf(x); }
HD double exponential(double x) { return exp(x); }
HD float hyperbolic_tangent(float x) { return tanhf(x); }
HD double hyperbolic_tangent(double x) { return tanh(x); }
HD float square_root(float x) { return sqrtf(x); }
HD double square_root(double x) { return sqrt(x); }

#ifdef __CUDACC__

// Threads of a block, where kernels do not say otherwise.
#define BLOCK 256

// The elements of [0, n) that a thread works on: neighbouring threads have neighbouring elements.
#define EACH(i, n)                                                                                                     \
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < (n); i += (size_t)gridDim.x * blockDim.x)

// The sum over a group of neighbouring threads of a warp, in the order of a tree, for the same answer every time.
// `group` is a power of two up to 32; all threads of the warp take part.
__device__ inline double group_sum(double value, int group) {
    for (int offset = group / 2; offset > 0; offset /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, offset);
    }
    return value;
}

#endif
