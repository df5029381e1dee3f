// Latents of consecutive indices: one thread a latent. Compile with -fmad=false.
#include "latents.cuh"

// Latents z (n, d) and their log q in column d of out (n, d + 1), of indices first_index, first_index + 1, …
extern "C" __global__ void boltzflow_latents(uint64_t n, uint32_t d, const double *prior, uint64_t seed,
                                             uint32_t purpose, uint64_t first_index, double width, double constant,
                                             double *out) {
    const uint64_t r = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= n) return;
    double *row = out + r * ((uint64_t)d + 1);
    row[d] = latent({seed, purpose, first_index + r}, d, prior, width, constant, {row, 1});
}
