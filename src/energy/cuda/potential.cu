// Energies and gradients of batches: one thread a configuration, so that sums have one order and runs repeat to the bit.
#include "potential.cuh"

// Energies (n) of positions x (D, n). Where ladj (n) is −∞, outside of the coordinates' domain, they are infinite. With
// WITH_GRADIENT, gradients (D, n) are written too.
template <bool WITH_GRADIENT>
__device__ void energies_of(uint64_t n, const uint32_t *integers, const double *numbers, const double *x,
                            const double *ladj, double *energies, double *gradients, double *scratch) {
    const uint64_t r = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= n) return;
    const double energy =
        potential<WITH_GRADIENT>(integers, numbers, {x + r, n}, {gradients + r, n}, {scratch + r, n});
    energies[r] = ladj[r] == -INFINITY ? INFINITY : energy;
}

extern "C" __global__ void boltzflow_energies(uint64_t n, const uint32_t *integers, const double *numbers,
                                              const double *x, const double *ladj, double *energies, double *scratch) {
    energies_of<false>(n, integers, numbers, x, ladj, energies, energies, scratch);
}

extern "C" __global__ void boltzflow_energies_with_gradients(uint64_t n, const uint32_t *integers,
                                                             const double *numbers, const double *x,
                                                             const double *ladj, double *energies, double *gradients,
                                                             double *scratch) {
    energies_of<true>(n, integers, numbers, x, ladj, energies, gradients, scratch);
}
