// One configuration's numbers in an array that holds many configurations side by side.
#pragma once
#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define HD __host__ __device__ inline
#else
#define HD inline
#endif

// Number k of configuration r of an array (m, n) is at[k * n] for at = array + r and stride = n: threads side by side read
// numbers side by side. A row of a row-major array is a column of stride 1.
template <typename T>
struct ColumnOf {
    T *at;
    size_t stride;
    HD T &operator[](size_t k) const { return at[k * stride]; }
    HD ColumnOf from(size_t k) const { return {at + k * stride, stride}; }
};
using Column = ColumnOf<double>;
using ConstColumn = ColumnOf<const double>;

// A vector in space.
struct Vec3 {
    double x, y, z;
};

HD Vec3 operator+(Vec3 a, Vec3 b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
HD Vec3 operator-(Vec3 a, Vec3 b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
HD Vec3 operator*(Vec3 a, double s) { return {a.x * s, a.y * s, a.z * s}; }
HD double dot(Vec3 a, Vec3 b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
HD Vec3 cross(Vec3 a, Vec3 b) { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; }

template <typename T>
HD Vec3 atom(ColumnOf<T> x, uint32_t i) {
    return {x[3 * (size_t)i], x[3 * (size_t)i + 1], x[3 * (size_t)i + 2]};
}

HD void put(Column x, uint32_t i, Vec3 a) {
    x[3 * (size_t)i] = a.x;
    x[3 * (size_t)i + 1] = a.y;
    x[3 * (size_t)i + 2] = a.z;
}

HD void add(Column x, uint32_t i, Vec3 a) {
    x[3 * (size_t)i] += a.x;
    x[3 * (size_t)i + 1] += a.y;
    x[3 * (size_t)i + 2] += a.z;
}

HD void subtract(Column x, uint32_t i, Vec3 a) {
    x[3 * (size_t)i] -= a.x;
    x[3 * (size_t)i + 1] -= a.y;
    x[3 * (size_t)i + 2] -= a.z;
}
