// Adam's update (Kingma and Ba, ICLR 2015, algorithm 1), and sums of squares.
#pragma once

#include "common.cuh"

// Updates both moments with a gradient, and a weight with the moments. The constants are those of the CPU's kernel.
template <class T>
HD void adam_update(T keep1, T add1, T keep2, T add2, T rate, T root, T epsilon, T g, T* weight, T* m, T* v) {
    const T first = *m * keep1 + g * add1;
    const T second = *v * keep2 + g * g * add2;
    *m = first;
    *v = second;
    *weight -= rate * first / (square_root(second * root) + epsilon);
}

#ifdef __CUDACC__

template <class T>
__device__ void adam_step(size_t n, double keep1, double add1, double keep2, double add2, double rate, double root,
                          double epsilon, const T* g, T* weight, T* m, T* v) {
    EACH(i, n) {
        adam_update((T)keep1, (T)add1, (T)keep2, (T)add2, (T)rate, (T)root, (T)epsilon, g[i], weight + i, m + i, v + i);
    }
}

// The sum over a block of BLOCK threads, in the order of a tree, on its first thread.
__device__ inline double block_sum(double value) {
    __shared__ double sums[BLOCK / 32];
    value = group_sum(value, 32);
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = value;
    }
    __syncthreads();
    double sum = 0.0;
    if (threadIdx.x == 0) {
        for (int w = 0; w < BLOCK / 32; w++) {
            sum += sums[w];
        }
    }
    return sum;
}

// One sum a block. A number belongs to the same thread whatever else runs, so that sums are always the same.
template <class T>
__device__ void squares(size_t n, const T* x, double* partial) {
    double sum = 0.0;
    EACH(i, n) { sum += (double)x[i] * (double)x[i]; }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
    }
}

// The sum of n numbers, by one block.
__device__ inline void total(size_t n, const double* x, double* out) {
    double sum = 0.0;
    EACH(i, n) { sum += x[i]; }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        *out = sum;
    }
}

#endif
