// The device's code as a C++ compiler takes it: reads tables and numbers from a file, writes what the kernels would.
#include "compute/cuda/adam.cuh"
#include "coords/cuda/coordinates.cuh"
#include "energy/cuda/potential.cuh"
#include "flow/cuda/latents.cuh"
#include <cstdio>
#include <cstdlib>
#include <vector>

template <typename T>
static std::vector<T> read(FILE *in) {
    uint64_t count = 0;
    if (fread(&count, sizeof count, 1, in) != 1) exit(1);
    std::vector<T> numbers(count);
    if (fread(numbers.data(), sizeof(T), count, in) != count) exit(1);
    return numbers;
}

static void write(FILE *out, const std::vector<double> &numbers) {
    if (fwrite(numbers.data(), sizeof(double), numbers.size(), out) != numbers.size()) exit(1);
}

// Rows of x (D), ladj, U, U without its gradient, ∂(φ(βU) − ladj)/∂y (d), and y (d) and ladj found from x.
static void target(FILE *in, FILE *out) {
    const auto of_potential = read<uint32_t>(in);
    const auto parameters = read<double>(in);
    const auto of_transform = read<uint32_t>(in);
    const auto coordinates = read<double>(in), phi = read<double>(in), y = read<double>(in);
    const Transform transform = {of_transform.data(), coordinates.data()};
    const size_t d = of_transform[1], dx = of_transform[2], n = y.size() / d;
    for (size_t r = 0; r < n; ++r) {
        std::vector<double> x(dx), gradient(dx), scratch(of_potential[2]), of_y(d), back(d);
        const ConstColumn at_y = {y.data() + r * d, 1}, at_x = {x.data(), 1};
        const double ladj = to_positions(transform, at_y, {x.data(), 1});
        const double energy = potential<true>(of_potential.data(), parameters.data(), at_x, {gradient.data(), 1},
                                              {scratch.data(), 1});
        const double again = potential<false>(of_potential.data(), parameters.data(), at_x, {nullptr, 1},
                                              {scratch.data(), 1});
        const double marked = ladj == -INFINITY ? INFINITY : energy, u = phi[0] * marked;
        const double slope = u <= phi[1] ? 1.0 : u <= phi[2] ? 1.0 / (1.0 + u - phi[1]) : 0.0;
        for (double &g : gradient) g *= phi[0] * slope;
        write(out, x);
        write(out, {ladj, marked, ladj == -INFINITY ? INFINITY : again});
        pull_back(transform, at_y, at_x, {gradient.data(), 1}, {of_y.data(), 1});
        write(out, of_y);
        const double ladj_back = to_coordinates(transform, at_x, {back.data(), 1});
        write(out, back);
        write(out, {ladj_back});
    }
}

// Latents of (seed, purpose, first index, count), of components as the device has them, at (width, constant).
static void latents(FILE *in, FILE *out) {
    const auto address = read<uint64_t>(in);
    const auto components = read<double>(in), scales = read<double>(in);
    const uint32_t d = components.size() / 3;
    for (uint64_t r = 0; r < address[3]; ++r) {
        std::vector<double> z(d + 1);
        z[d] = latent({address[0], (uint32_t)address[1], address[2] + r}, d, components.data(), scales[0], scales[1],
                      {z.data(), 1});
        write(out, z);
    }
}

// Weights (n), both moments of them and the first five numbers of the tally after steps with gradients (steps, n).
static void adam(FILE *in, FILE *out) {
    const auto constants = read<double>(in);
    auto weights = read<double>(in);
    const auto gradients = read<double>(in);
    const size_t n = weights.size();
    std::vector<double> m(n), v(n), tally(CORRECTION2 + 1);
    for (size_t step = 0; step < gradients.size() / n; ++step) {
        const double *g = gradients.data() + step * n;
        double squares = 0.0;
        for (size_t i = 0; i < n; ++i) squares += g[i] * g[i];
        count_step(squares, constants[4], constants[0], constants[1], tally.data());
        if (tally[IN_A_ROW] > 0.0) continue;
        const Update<double> update(constants[0], constants[1], constants[3], constants[2], tally.data());
        for (size_t i = 0; i < n; ++i) update.apply(g[i], &weights[i], &m[i], &v[i]);
    }
    write(out, weights);
    write(out, m);
    write(out, v);
    write(out, {tally.begin(), tally.begin() + SCALE});
}

int main(int arguments, char **argument) {
    if (arguments != 4) return 2;
    FILE *in = fopen(argument[2], "rb"), *out = fopen(argument[3], "wb");
    if (!in || !out) return 3;
    switch (argument[1][0]) {
        case 't': target(in, out); break;
        case 'l': latents(in, out); break;
        default: adam(in, out);
    }
    return fclose(out);
}
