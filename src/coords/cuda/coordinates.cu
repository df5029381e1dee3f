// Coordinate transforms of batches: one thread a configuration.
#include "coordinates.cuh"

__device__ inline uint64_t configuration() { return (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; }

// Positions x (D, n) and ladj (n) of coordinates y (d, n).
extern "C" __global__ void boltzflow_to_positions(uint64_t n, const uint32_t *integers, const double *numbers,
                                                  const double *y, double *x, double *ladj) {
    const uint64_t r = configuration();
    if (r < n) ladj[r] = to_positions({integers, numbers}, {y + r, n}, {x + r, n});
}

// Coordinates y (d, n) and ladj (n) of positions x (D, n).
extern "C" __global__ void boltzflow_to_coordinates(uint64_t n, const uint32_t *integers, const double *numbers,
                                                    const double *x, double *y, double *ladj) {
    const uint64_t r = configuration();
    if (r < n) ladj[r] = to_coordinates({integers, numbers}, {x + r, n}, {y + r, n});
}

// The gradient (d, n) of φ(βU) − ladj from that of U (D, n), which is used up, with a β (n) for each configuration. φ is the identity up to `high`, grows as a
// logarithm from there to `largest`, and is constant beyond.
extern "C" __global__ void boltzflow_pull_back(uint64_t n, const uint32_t *integers, const double *numbers, const double *betas,
                                               double high, double largest, const double *y, const double *x,
                                               const double *energies, double *gradient_x, double *gradient_y) {
    const uint64_t r = configuration();
    if (r >= n) return;
    const double beta = betas[r];
    const double u = beta * energies[r];
    const double slope = u <= high ? 1.0 : u <= largest ? 1.0 / (1.0 + u - high) : 0.0;
    const Transform transform = {integers, numbers};
    const Column of_x = {gradient_x + r, n};
    for (uint32_t k = 0; k < integers[2]; ++k) of_x[k] *= beta * slope;
    pull_back(transform, {y + r, n}, {x + r, n}, of_x, {gradient_y + r, n});
}
