// y = activation(x + bias), the end of a dense layer, and its gradients.
#pragma once

#include "common.cuh"

// Numbers of the activations, as the host passes them.
#define IDENTITY 0
#define RELU 1
#define SILU 2
#define TANH 3

template <class T>
HD T activate(T z, int activation) {
    switch (activation) {
    case RELU:
        return z < (T)0 ? (T)0 : z; // a NaN stays one
    case SILU:
        return z / ((T)1 + exponential(-z));
    case TANH:
        return hyperbolic_tangent(z);
    default:
        return z;
    }
}

template <class T>
HD T activation_derivative(T z, int activation) {
    switch (activation) {
    case RELU:
        return z > (T)0 ? (T)1 : (T)0;
    case SILU: {
        const T s = (T)1 / ((T)1 + exponential(-z));
        return s * ((T)1 + z * ((T)1 - s));
    }
    case TANH: {
        const T t = hyperbolic_tangent(z);
        return (T)1 - t * t;
    }
    default:
        return (T)1;
    }
}

#ifdef __CUDACC__

// Rows that a block sums over together.
#define SUM_ROWS 8

template <class T>
__device__ void bias_activation_forward(size_t n, unsigned m, int activation, const T* x, const T* bias, T* y) {
    EACH(i, n * m) { y[i] = activate(x[i] + bias[i % m], activation); }
}

// dz = g·activation'(x + bias), unless dz is null, and its sum over `rows` rows from blockIdx.y·rows on, for 32
// columns: partial (gridDim.y, m). Sums are f64 and in a fixed order. Blocks are (32, SUM_ROWS).
template <class T>
__device__ void bias_activation_backward(size_t n, unsigned m, int activation, size_t rows, const T* x, const T* bias,
                                         const T* g, T* dz, double* partial) {
    __shared__ double sums[SUM_ROWS][32];
    const unsigned column = blockIdx.x * 32 + threadIdx.x;
    const size_t first = blockIdx.y * rows;
    const size_t end = first + rows < n ? first + rows : n;
    double sum = 0.0;
    if (column < m) {
        const T b = bias[column];
        for (size_t row = first + threadIdx.y; row < end; row += SUM_ROWS) {
            const size_t i = row * m + column;
            T value = g[i];
            if (dz) {
                value *= activation_derivative(x[i] + b, activation);
                dz[i] = value;
            }
            sum += (double)value;
        }
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && column < m) {
        for (int y = 1; y < SUM_ROWS; y++) {
            sum += sums[y][threadIdx.x];
        }
        partial[(size_t)blockIdx.y * m + column] = sum;
    }
}

// The sums over rows of partial (parts, m), in their order.
template <class T>
__device__ void column_sum(unsigned parts, unsigned m, const double* partial, T* out) {
    EACH(column, m) {
        double sum = 0.0;
        for (unsigned part = 0; part < parts; part++) {
            sum += partial[(size_t)part * m + column];
        }
        out[column] = (T)sum;
    }
}

#endif
