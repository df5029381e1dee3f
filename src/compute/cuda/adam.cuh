// Adam's update (Kingma and Ba, ICLR 2015, algorithm 1), and the gradient's norm that comes before it.
#pragma once

#include "common.cuh"

// Places in a tally of steps. What the host reads comes first, in its order; then what the next update multiplies by.
enum { NORM, UPDATES, SKIPPED, IN_A_ROW, MOST_IN_A_ROW, SCALE, CORRECTION1, CORRECTION2 };

// Counts a step whose gradient's squares have this sum. It is skipped where that is not finite.
HD void count_step(double squares, double clip, double beta1, double beta2, double* tally) {
    const double norm = sqrt(squares);
    tally[NORM] = norm;
    // Neither infinite nor NaN.
    if (!(norm - norm == 0.0)) {
        tally[SKIPPED] += 1.0;
        tally[IN_A_ROW] += 1.0;
        tally[MOST_IN_A_ROW] = fmax(tally[MOST_IN_A_ROW], tally[IN_A_ROW]);
        return;
    }
    tally[IN_A_ROW] = 0.0;
    tally[UPDATES] += 1.0;
    tally[SCALE] = fmin(clip / norm, 1.0);
    tally[CORRECTION1] = 1.0 - pow(beta1, tally[UPDATES]);
    tally[CORRECTION2] = 1.0 - pow(beta2, tally[UPDATES]);
}

// What an update multiplies by. The constants are those of the CPU's kernel.
template <class T>
struct Update {
    T keep1, add1, keep2, add2, rate, root, epsilon;

    HD Update(double beta1, double beta2, double learning_rate, double epsilon, const double* tally)
        : keep1((T)beta1), add1((T)((1.0 - beta1) * tally[SCALE])), keep2((T)beta2),
          add2((T)((1.0 - beta2) * tally[SCALE] * tally[SCALE])), rate((T)(learning_rate / tally[CORRECTION1])),
          root((T)(1.0 / tally[CORRECTION2])), epsilon((T)epsilon) {}

    // Both moments with a gradient, and a weight with the moments.
    HD void apply(T g, T* weight, T* m, T* v) const {
        const T first = *m * keep1 + g * add1;
        const T second = *v * keep2 + g * g * add2;
        *m = first;
        *v = second;
        *weight -= rate * first / (square_root(second * root) + epsilon);
    }
};

#ifdef __CUDACC__

template <class T>
__device__ void adam_step(size_t n, double beta1, double beta2, double learning_rate, double epsilon,
                          const double* tally, const T* g, T* weight, T* m, T* v) {
    if (tally[IN_A_ROW] > 0.0) {
        return;
    }
    const Update<T> update(beta1, beta2, learning_rate, epsilon, tally);
    EACH(i, n) { update.apply(g[i], weight + i, m + i, v + i); }
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

// Counts a step whose gradient's squares have these n sums, by one block.
__device__ inline void count_step_of(size_t n, const double* partial, double clip, double beta1, double beta2,
                                     double* tally) {
    double sum = 0.0;
    EACH(i, n) { sum += partial[i]; }
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        count_step(sum, clip, beta1, beta2, tally);
    }
}

#endif
