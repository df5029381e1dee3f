#!/usr/bin/env python3
"""Times what a user would pick instead, on the workloads that the project's own benchmark must also run.

    pip install torch zuko jax flowjax optax openmm numpy
    python peers.py [--threads N] [--json FILE] [WORKLOAD ...]

Each row is the median of repeated calls in one process, after a warm-up, in items per second. Figures move from
machine to machine and from hour to hour: quote only ratios of runs made side by side.

workload            shape
realnvp-2           2 dims,  8 affine couplings, conditioner 64-64 ReLU,   batch 8192, f32: sample + log q
realnvp-60          60 dims, 8 affine couplings, conditioner 128-128 ReLU, batch 4096, f32: sample + log q
realnvp-60-train    the same, batch 1024: one reverse-KL step (unit-normal target), Adam
spline-60           60 dims, 12 rational-quadratic couplings, 8 bins, conditioner 256-256 ReLU, batch 1024: sample + log q
spline-60-train     the same, batch 1024: one maximum-likelihood step, Adam
ala2-energy         alanine dipeptide ff96 + OBC1 (../examples/alanine-dipeptide): energy and forces of 1024 configurations
ala2-weighted       realnvp-60, then 60 internal coordinates' worth of work replaced by the OpenMM energy of 1024
                    configurations: the cost of one weighted sample, flow and energy together
ala2-exchange       the same molecule: steps of Langevin dynamics (1 fs), which replicas of a ladder would share
peptide-energy      a peptide of 147 atoms, amber14 + OBC2 (../examples/peptide): energy and forces
sgemm               2048 x 2048 x 2048 f32 matrix product, in GFLOP/s: the ceiling for everything above
"""
import argparse, json, multiprocessing, os, statistics, sys, time


def rate(call, items, seconds=4.0):
    for _ in range(3):
        call()
    times, stop = [], time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times) < 5:
        t = time.perf_counter()
        call()
        times.append(time.perf_counter() - t)
    return items / statistics.median(times)


def openmm_rate(work, threads):
    import numpy as np, openmm as mm
    examples = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../examples")
    folder, file = ("alanine-dipeptide", "openmm-reference") if work == "steps" else ("peptide", "reference")
    system = mm.XmlSerializer.deserialize(open(f"{examples}/{folder}/system.xml").read())
    x = np.load(f"{examples}/{folder}/{file}.npz")["positions_nm"]
    integrator = mm.LangevinMiddleIntegrator(300, 2, 0.001)
    context = mm.Context(system, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": str(threads)})
    context.setPositions(x[0])

    def energies():
        for i in range(64):
            context.setPositions(x[i % len(x)])
            s = context.getState(getEnergy=True, getForces=True)
            s.getPotentialEnergy()._value, s.getForces(asNumpy=True)._value
    return rate(lambda: integrator.step(200), 200) if work == "steps" else rate(energies, 64)


def realnvp(torch, dims, layers, hidden):
    half = dims // 2

    class Coupling(torch.nn.Module):
        def __init__(self):
            super().__init__()
            n = torch.nn
            self.net = n.Sequential(n.Linear(half, hidden), n.ReLU(), n.Linear(hidden, hidden), n.ReLU(),
                                    n.Linear(hidden, 2 * (dims - half)))

        def forward(self, x):
            a, b = x[:, :half], x[:, half:]
            log_scale, shift = self.net(a).chunk(2, -1)
            log_scale = torch.tanh(log_scale)
            return torch.cat([b * torch.exp(log_scale) + shift, a], -1), log_scale.sum(-1)

    class Flow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList([Coupling() for _ in range(layers)])

        def forward(self, z):
            log_det = torch.zeros(len(z))
            for layer in self.layers:
                z, d = layer(z)
                log_det = log_det + d
            return z, log_det

    return Flow()


def spline_jax(want, put):
    """The same spline flow in flowjax, compiled by jax.jit. In flowjax, invert=False makes sampling the one-pass
    direction and invert=True makes log_prob the one-pass direction; both are one pass for a coupling flow."""
    import equinox as eqx, jax, jax.numpy as jnp, optax
    from flowjax.bijections import RationalQuadraticSpline
    from flowjax.distributions import Normal
    from flowjax.flows import coupling_flow
    key = jax.random.key(0)

    def build(invert):
        return coupling_flow(key, base_dist=Normal(jnp.zeros(60)), flow_layers=12, nn_width=256, nn_depth=2,
                             transformer=RationalQuadraticSpline(knots=8, interval=5), invert=invert)

    if want("spline-60"):
        flow = build(False)
        sample = eqx.filter_jit(lambda f, k: f.sample_and_log_prob(k, (1024,)))
        put("spline-60", "flowjax (jit)", rate(lambda: jax.block_until_ready(sample(flow, key)), 1024))
    if want("spline-60-train"):
        params, static = eqx.partition(build(True), eqx.is_inexact_array)
        adam, data = optax.adam(1e-4), jax.random.normal(key, (1024, 60))
        state = [params, adam.init(params)]

        @eqx.filter_jit
        def update(params, opt_state):
            loss, grads = eqx.filter_value_and_grad(lambda q: -eqx.combine(q, static).log_prob(data).mean())(params)
            updates, opt_state = adam.update(grads, opt_state, params)
            return eqx.apply_updates(params, updates), opt_state, loss

        def step():
            state[0], state[1], loss = update(*state)
            jax.block_until_ready(loss)

        put("spline-60-train", "flowjax (jit)", rate(step, 1024))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("workloads", nargs="*")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--json")
    a = p.parse_args()
    import torch
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    out = {}

    def want(name):
        return not a.workloads or name in a.workloads

    def put(name, peer, value):
        out.setdefault(name, {})[peer] = value
        print(f"{name:18} {peer:16} {value:14,.0f} /s", flush=True)

    if want("sgemm"):
        x, y = torch.randn(2048, 2048), torch.randn(2048, 2048)
        put("sgemm", "torch", rate(lambda: x @ y, 2 * 2048**3 / 1e9))
    for name, dims, hidden, batch in (("realnvp-2", 2, 64, 8192), ("realnvp-60", 60, 128, 4096)):
        if not want(name):
            continue
        flow = realnvp(torch, dims, 8, hidden)

        def sample(f):
            with torch.no_grad():
                z = torch.randn(batch, dims)
                x, ld = f(z)
                return x, -0.5 * (z * z).sum(-1) - ld

        put(name, "torch eager", rate(lambda: sample(flow), batch))
        put(name, "torch.compile", rate(lambda f=torch.compile(flow): sample(f), batch))
    if want("realnvp-60-train"):
        for peer in ("torch eager", "torch.compile"):
            flow = realnvp(torch, 60, 8, 128)
            f = torch.compile(flow) if peer == "torch.compile" else flow
            adam = torch.optim.Adam(flow.parameters(), 1e-4)

            def step():
                adam.zero_grad(set_to_none=True)
                x, ld = f(torch.randn(1024, 60))
                (0.5 * (x * x).sum(-1) - ld).mean().backward()
                adam.step()

            put("realnvp-60-train", peer, rate(step, 1024))
    if want("spline-60") or want("spline-60-train"):
        import zuko
        flow = zuko.flows.NSF(60, transforms=12, bins=8, hidden_features=(256, 256), passes=2)
        if want("spline-60"):
            def sample_spline():
                with torch.no_grad():
                    return flow().rsample_and_log_prob((1024,))
            put("spline-60", "zuko", rate(sample_spline, 1024))
        if want("spline-60-train"):
            adam, data = torch.optim.Adam(flow.parameters(), 1e-4), torch.randn(1024, 60)

            def step_spline():
                adam.zero_grad(set_to_none=True)
                (-flow().log_prob(data)).mean().backward()
                adam.step()
            put("spline-60-train", "zuko", rate(step_spline, 1024))
        spline_jax(want, put)
    if want("ala2-energy") or want("ala2-weighted"):
        import numpy as np, openmm as mm
        d = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../examples/alanine-dipeptide")
        system = mm.XmlSerializer.deserialize(open(d + "/system.xml").read())
        x = np.load(d + "/openmm-reference.npz")["positions_nm"]
        context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("CPU"),
                             {"Threads": str(a.threads)})

        def energies(n=64):
            for i in range(n):
                context.setPositions(x[i % len(x)])
                s = context.getState(getEnergy=True, getForces=True)
                s.getPotentialEnergy()._value, s.getForces(asNumpy=True)._value
        per_second = rate(energies, 64)
        if want("ala2-energy"):
            put("ala2-energy", "openmm CPU", per_second)
        if want("ala2-weighted"):
            flow = realnvp(torch, 60, 8, 128)

            def weighted():
                with torch.no_grad():
                    flow(torch.randn(64, 60))
                energies()
            put("ala2-weighted", "torch + openmm", rate(weighted, 64))
    for workload, work in (("ala2-exchange", "steps"), ("peptide-energy", "energies")):
        if want(workload):
            put(workload, "openmm CPU", openmm_rate(work, a.threads))
            with multiprocessing.Pool(a.threads) as pool:
                put(workload, "openmm CPU, a process a thread", sum(pool.starmap(openmm_rate, a.threads * [(work, 1)])))
    if a.json:
        json.dump(dict(threads=a.threads, items_per_second=out), open(a.json, "w"), indent=1)


if __name__ == "__main__":
    sys.exit(main())
