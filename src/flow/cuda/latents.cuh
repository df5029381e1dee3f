// Standard normal and uniform numbers by their address: the bits of src/compute/fused/latents.rs.
//
// No product and sum may be fused here (compile with -fmad=false), so that a GPU draws the same bits as every CPU.
#pragma once
#include "../../energy/cuda/column.cuh"

// Seed, purpose and index of a draw, as Philox takes them.
struct Address {
    uint64_t seed;
    uint32_t purpose;
    uint64_t index;
};

struct Words {
    uint32_t w[4];
};

// Philox4x32-10 of Salmon, Moraes, Dror and Shaw (SC 2011).
HD Words philox(uint64_t seed, Words c) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        if (round > 0) {
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const uint64_t p0 = (uint64_t)0xD2511F53u * c.w[0], p1 = (uint64_t)0xCD9E8D57u * c.w[2];
        c = {{(uint32_t)(p1 >> 32) ^ c.w[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c.w[3] ^ k1, (uint32_t)p0}};
    }
    return c;
}

HD uint64_t bits_of(double x) {
#ifdef __CUDA_ARCH__
    return (uint64_t)__double_as_longlong(x);
#else
    union { double x; uint64_t bits; } u = {x};
    return u.bits;
#endif
}

HD double of_bits(uint64_t bits) {
#ifdef __CUDA_ARCH__
    return __longlong_as_double((long long)bits);
#else
    union { uint64_t bits; double x; } u = {bits};
    return u.x;
#endif
}

// (m + ½)·2⁻⁵² with the upper 52 bits m of two words.
HD double uniform_of(uint32_t low, uint32_t high) {
    const uint64_t m = ((uint64_t)high << 32 | low) >> 12;
    return (of_bits(m | 1023ull << 52) - 1.0) + 1.0 / 9007199254740992.0;
}

struct Two {
    double of[2];
};

HD Two uniform_block(const Address &a, uint32_t block) {
    const Words words = philox(a.seed, {{block, a.purpose, (uint32_t)a.index, (uint32_t)(a.index >> 32)}});
    return {{uniform_of(words.w[0], words.w[1]), uniform_of(words.w[2], words.w[3])}};
}

// ln x of src/compute/fused/number.rs, for positive normal x.
HD double portable_ln(double x) {
    const uint64_t one = 1023ull << 52, two_to_52 = 0x4330000000000000ull, root_half = 0x3FE6A09E667F3BCDull;
    const uint64_t bits = bits_of(x), exponent = (bits + (one - root_half)) >> 52;
    const double mantissa = of_bits(bits - (exponent << 52) + one);
    const double n = of_bits(exponent | two_to_52) - (of_bits(two_to_52) + 1023.0);
    const double s = (mantissa - 1.0) / (mantissa + 1.0), ss = s * s;
    double series = 1.0 / 21.0;
    for (int k = 19; k >= 1; k -= 2) series = series * ss + 1.0 / (double)k;
    return n * 0.6931471803691238 + (2.0 * s * series + n * 1.9082149292705877e-10);
}

// (sin, cos) of r plus so many quarter turns, for |r| up to an eighth of a turn.
HD Two quadrant_sin_cos(double r, uint64_t quarters) {
    const double rr = r * r;
    double s = -1.0 / 1307674368000.0;
    s = s * rr + 1.0 / 6227020800.0;
    s = s * rr + -1.0 / 39916800.0;
    s = s * rr + 1.0 / 362880.0;
    s = s * rr + -1.0 / 5040.0;
    s = s * rr + 1.0 / 120.0;
    s = s * rr + -1.0 / 6.0;
    s = s * rr * r + r;
    double c = 1.0 / 20922789888000.0;
    c = c * rr + -1.0 / 87178291200.0;
    c = c * rr + 1.0 / 479001600.0;
    c = c * rr + -1.0 / 3628800.0;
    c = c * rr + 1.0 / 40320.0;
    c = c * rr + -1.0 / 720.0;
    c = c * rr + 1.0 / 24.0;
    c = c * rr + -0.5;
    c = c * rr + 1.0;
    const double sine = quarters & 1 ? c : s, cosine = quarters & 1 ? s : c;
    return {{of_bits(bits_of(sine) ^ (quarters >> 1 & 1) << 63),
             of_bits(bits_of(cosine) ^ ((quarters >> 1 ^ quarters) & 1) << 63)}};
}

// Blocks from here on are for uniform numbers.
const uint32_t UNIFORM_BLOCKS = 1u << 31;

// Standard normal numbers 2·pair and 2·pair + 1, by the transformation of Box and Muller (1958).
HD Two normals(const Address &a, uint32_t pair) {
    const Two u = uniform_block(a, pair & ~UNIFORM_BLOCKS);
    const double radius = sqrt(-2.0 * portable_ln(u.of[0]));
    // Adding 1.5·2⁵² rounds to whole quarter turns.
    const double rounder = 6755399441055744.0, turns = 4.0 * u.of[1], quarters = turns + rounder;
    const Two sin_cos = quadrant_sin_cos((turns - (quarters - rounder)) * 1.5707963267948966, bits_of(quarters));
    return {{radius * sin_cos.of[1], radius * sin_cos.of[0]}};
}

// A latent z (d) at temperature τ = width², and its log q. Of each component, `prior` has (low, width, log density) if it
// is uniform, and if it is Gaussian a width of zero. `constant` is −½ log τ − ½ log 2π.
HD double latent(const Address &a, uint32_t d, const double *prior, double width, double constant, Column z) {
    double log_prob = 0.0;
    for (uint32_t pair = 0; 2 * pair < d; ++pair) {
        const uint32_t count = d - 2 * pair < 2 ? 1 : 2;
        const double *components = prior + 6 * (size_t)pair;
        const bool first = components[1] == 0.0, second = count == 2 && components[4] == 0.0;
        Two gaussian = {{0.0, 0.0}}, uniform = {{0.0, 0.0}};
        if (first || second) gaussian = normals(a, pair);
        if (!first || (count == 2 && !second)) uniform = uniform_block(a, pair | UNIFORM_BLOCKS);
        for (uint32_t k = 0; k < count; ++k) {
            const double *component = components + 3 * k;
            if (component[1] == 0.0) {
                const double x = gaussian.of[k];
                z[2 * pair + k] = width * x;
                log_prob += constant - 0.5 * x * x;
            } else {
                z[2 * pair + k] = component[0] + component[1] * uniform.of[k];
                log_prob += component[2];
            }
        }
    }
    return log_prob;
}
