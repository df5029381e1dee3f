// What a conditioner sees of the coordinates that its layer leaves alone: real ones as they are, angles as cosine and
// sine.
#pragma once

#include "common.cuh"

// Marks a column of x that no feature comes from.
#define UNSEEN 0xffffffffu

HD double feature_gradient_of_angle(double angle, double g_cos, double g_sin) {
    return cos(angle) * g_sin - sin(angle) * g_cos;
}

#ifdef __CUDACC__

// `table` has (column, first feature, whether it is an angle) of each of `entries` columns that are seen.
template <class T>
__device__ void features_forward(size_t n, unsigned d, unsigned width, unsigned entries, const unsigned* table,
                                 const double* x, T* out) {
    EACH(i, n * entries) {
        const size_t row = i / entries;
        const unsigned* entry = table + 3 * (i % entries);
        const double value = x[row * d + entry[0]];
        T* feature = out + row * width + entry[1];
        if (entry[2]) {
            double s, c;
            sincos(value, &s, &c);
            feature[0] = (T)c;
            feature[1] = (T)s;
        } else {
            feature[0] = (T)value;
        }
    }
}

// `table` has (first feature or UNSEEN, whether it is an angle) of each of the d columns.
template <class T>
__device__ void features_backward(size_t n, unsigned d, unsigned width, const unsigned* table, const double* x,
                                  const T* g, double* gx) {
    EACH(i, n * d) {
        const size_t row = i / d;
        const unsigned* entry = table + 2 * (i % d);
        double gradient = 0.0;
        if (entry[0] != UNSEEN) {
            const T* feature = g + row * width + entry[0];
            gradient = entry[1] ? feature_gradient_of_angle(x[i], (double)feature[0], (double)feature[1])
                                : (double)feature[0];
        }
        gx[i] = gradient;
    }
}

#endif
