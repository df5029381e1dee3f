"""Makes the files of this folder with OpenMM: each form of force that the other cases do not have.

python make.py ../ace-aaa-nme/topology.pdb

The molecule is that of ace-aaa-nme; its energy means nothing. Every force is evaluated by OpenMM's Reference platform, in
a force group of its own.
"""

import sys

import numpy as np
import openmm as mm
from openmm import app, unit

pdb = app.PDBFile(sys.argv[1])
rng = np.random.default_rng(20261125)
system = app.ForceField("amber14-all.xml").createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None)
n = system.getNumParticles()
bonds = next(f for f in system.getForces() if isinstance(f, mm.HarmonicBondForce))
bonds = [bonds.getBondParameters(i)[:2] for i in range(bonds.getNumBonds())]
neighbours = {i: sorted({b for a, b in bonds if a == i} | {a for a, b in bonds if b == i}) for i in range(n)}
angles = [(i, j, k) for j in range(n) for i in neighbours[j] for k in neighbours[j] if i < k]
torsions = [(i, j, k, l) for j, k in bonds for i in neighbours[j] for l in neighbours[k] if i != k and l != j and i != l]
charges = rng.uniform(-0.5, 0.5, n)


def add(force, name):
    force.setName(name)
    system.addForce(force)


def gb(model, **arguments):
    """The CustomGBForce that a force field file of OpenMM makes."""
    field = app.ForceField("amber14-all.xml", f"implicit/{model}.xml")
    made = field.createSystem(pdb.topology, **arguments)
    return mm.XmlSerializer.clone(next(f for f in made.getForces() if isinstance(f, mm.CustomGBForce)))


# Functions that the language has, on angles that stay inside of their domains.
force = mm.CustomAngleForce(
    "a*(sin(theta)+cos(2*theta)*tan(theta/4)+sec(theta/5)+csc(theta)+cot(theta/3)+asin(s)+acos(s)*atan(theta)"
    "+sinh(s)+cosh(s)+tanh(theta)+erf(theta)+erfc(s)+square(s)-cube(s)+atan2(theta,s)+floor(3*s)+ceil(2*s)"
    "+theta^1.7+2^s+s^-2.5+exp(-s^2)*log(1+theta)+recip(theta)+delta(theta-5)); s=0.3*theta"
)
force.addPerAngleParameter("a")
for angle in angles:
    force.addAngle(*angle, [rng.uniform(0.5, 2)])
add(force, "functions")

force = mm.CustomTorsionForce("k*(1+cos(m*theta-shift))+select(step(theta),up*theta^2,-down*theta)")
for name in ("k", "m", "shift"):
    force.addPerTorsionParameter(name)
force.addGlobalParameter("up", 1.25)
force.addGlobalParameter("down", -0.75)
for torsion in torsions[::3]:
    force.addTorsion(*torsion, [rng.uniform(1, 3), int(rng.integers(1, 5)), rng.uniform(-3, 3)])
add(force, "piecewise-torsion")

# A chiral centre, a hydrogen bond and coordinates.
force = mm.CustomCompoundBondForce(
    4,
    "k*(dihedral(p1,p2,p3,p4)-0.3)^2+5*exp(-distance(p1,p4)/w)*cos(angle(p2,p3,p4))"
    "+c*(x1*y2-z3+pointdistance(x1,y1,z1,x3,y3,z3)*pointangle(x1,y1,z1,x2,y2,z2,x3,y3,z3)"
    "+pointdihedral(x1,y1,z1,x2,y2,z2,x3,y3,z3,x4,y4,z4)^2)+well(distance(p1,p3))+flat(distance(p1,p4),angle(p1,p2,p3))",
)
force.addPerBondParameter("k")
force.addPerBondParameter("c")
force.addGlobalParameter("w", 0.4)
force.addTabulatedFunction("well", mm.Continuous1DFunction(rng.normal(size=9), 0.1, 0.4))
force.addTabulatedFunction("flat", mm.Continuous2DFunction(5, 6, rng.normal(size=30), 0.1, 0.45, 1.0, 2.4))
for torsion in torsions[1::9]:
    force.addBond(torsion, [rng.uniform(1, 3), rng.uniform(-1, 1)])
add(force, "compound")

# Periodic tables of one, two and three angles.
turn = 2 * np.pi
force = mm.CustomCompoundBondForce(
    5,
    "one(dihedral(p1,p2,p3,p4))+two(dihedral(p1,p2,p3,p4),dihedral(p2,p3,p4,p5))"
    "+three(angle(p1,p2,p3),angle(p2,p3,p4),distance(p1,p5))+solid(dihedral(p1,p2,p3,p4),angle(p1,p2,p3),angle(p2,p3,p4))",
)
closed = rng.normal(size=13)
closed[-1] = closed[0]
force.addTabulatedFunction("one", mm.Continuous1DFunction(closed, -np.pi, np.pi, True))
square = rng.normal(size=(7, 8))
square[-1] = square[0]
square[:, -1] = square[:, 0]
force.addTabulatedFunction(
    "two", mm.Continuous2DFunction(7, 8, square.T.flatten(), -np.pi, np.pi, -np.pi, np.pi, True)
)
force.addTabulatedFunction(
    "three", mm.Continuous3DFunction(4, 5, 6, rng.normal(size=120), 1.0, 2.5, 1.0, 2.5, 0.1, 0.7)
)
cube = rng.normal(size=(5, 4, 6))
cube[-1] = cube[0]
cube[:, -1] = cube[:, 0]
cube[:, :, -1] = cube[:, :, 0]
force.addTabulatedFunction(
    "solid",
    mm.Continuous3DFunction(5, 4, 6, cube.transpose(2, 1, 0).flatten(), -np.pi, np.pi, 0.5, 2.5, 0.5, 2.5, True),
)
chains = [t + (m,) for t in torsions for m in neighbours[t[3]] if m not in t]
for chain in chains[::7]:
    force.addBond(chain, [])
add(force, "tables")

# Pairs: groups that overlap, exclusions, computed values, a cutoff with switching, tables of types.
force = mm.CustomNonbondedForce("scale(kind1,kind2)*own1*own2*(0.3/r)^4+strength*pairwise(r); own=q1*0+own0*0+1")
force.setEnergyFunction("scale(kind1,kind2)*own1*own2*(0.3/r)^4+strength*pairwise(r)")
force.addPerParticleParameter("kind")
force.addPerParticleParameter("q")
force.addGlobalParameter("strength", 0.7)
force.addComputedValue("own", "1+strength*q^2")
force.addTabulatedFunction("scale", mm.Discrete2DFunction(3, 3, [1, 2, 3, 2, 4, 5, 3, 5, 6]))
force.addTabulatedFunction("pairwise", mm.Continuous1DFunction(rng.normal(size=12), 0.1, 1.0))
for i in range(n):
    force.addParticle([i % 3, charges[i]])
for a, b in bonds:
    force.addExclusion(a, b)
force.addInteractionGroup(range(0, 20), range(10, 30))
force.addInteractionGroup([3, 7, 9], range(20, 42))
force.setNonbondedMethod(mm.CustomNonbondedForce.CutoffNonPeriodic)
force.setCutoffDistance(0.8)
force.setUseSwitchingFunction(True)
force.setSwitchingDistance(0.5)
add(force, "groups")

force = mm.CustomNonbondedForce("min(max(a1-a2,-r),r^2)*delta3(t1,t2,0)*delta1(t1)")
force.addPerParticleParameter("a")
force.addPerParticleParameter("t")
force.addTabulatedFunction("delta1", mm.Discrete1DFunction([0.5, 1.5]))
force.addTabulatedFunction("delta3", mm.Discrete3DFunction(2, 2, 1, [1.0, 2.0, 3.0, 4.0]))
for i in range(n):
    force.addParticle([charges[i], i % 2])
add(force, "asymmetric-pairs")

force = mm.NonbondedForce()
for i in range(n):
    force.addParticle(charges[i], rng.uniform(0.2, 0.3), rng.uniform(0.1, 0.5))
force.createExceptionsFromBonds(bonds, 0.8, 0.5)
force.setNonbondedMethod(mm.NonbondedForce.CutoffNonPeriodic)
force.setCutoffDistance(0.7)
force.setReactionFieldDielectric(40)
force.setUseSwitchingFunction(True)
force.setSwitchingDistance(0.45)
add(force, "reaction-field")

force = mm.GBSAOBCForce()
for i in range(n):
    force.addParticle(charges[i], rng.uniform(0.11, 0.2), rng.uniform(0.7, 0.9))
force.setNonbondedMethod(mm.GBSAOBCForce.CutoffNonPeriodic)
force.setCutoffDistance(0.75)
add(force, "obc2-cutoff")

salt = dict(implicitSolventKappa=0.7 / unit.nanometer)
add(gb("hct"), "hct")
add(gb("hct", **salt), "hct-salt")
add(gb("obc1", nonbondedMethod=app.CutoffNonPeriodic, nonbondedCutoff=0.8 * unit.nanometer), "obc1-cutoff")
add(gb("obc2", **salt, nonbondedMethod=app.CutoffNonPeriodic, nonbondedCutoff=0.8 * unit.nanometer), "obc2-salt-cutoff")
add(gb("gbn"), "gbn")
add(gb("gbn2"), "gbn2")
add(gb("gbn2", **salt), "gbn2-salt")

# Values of pairs without excluded ones, values of values, coordinates, and energies of both kinds.
force = mm.CustomGBForce()
force.addPerParticleParameter("q")
force.addGlobalParameter("field", 0.4)
force.addComputedValue("density", "q2*exp(-2*r)+0.1*q1*r", mm.CustomGBForce.ParticlePair)
force.addComputedValue("soft", "tanh(density)+field*x", mm.CustomGBForce.SingleParticle)
force.addComputedValue("mixed", "soft*density+q*y*z", mm.CustomGBForce.SingleParticle)
force.addEnergyTerm("mixed^2+field*soft*z", mm.CustomGBForce.SingleParticle)
force.addEnergyTerm("mixed1*soft2*exp(-r)", mm.CustomGBForce.ParticlePair)
force.addEnergyTerm("q1*q2*density1/(r+0.1)+density2*q2", mm.CustomGBForce.ParticlePairNoExclusions)
for i in range(n):
    force.addParticle([charges[i]])
for a, b in bonds:
    force.addExclusion(a, b)
add(force, "embedded")

# Collective variables: forces of several kinds, one of them collective itself.
inner = mm.CustomCVForce("depth*sin(d)")
distance = mm.CustomBondForce("r")
distance.addBond(0, 30)
inner.addCollectiveVariable("d", distance)
inner.addGlobalParameter("depth", 1.5)
outer = mm.CustomCVForce("weight*(phi-1)^2+table(pull)*bend")
dihedral = mm.CustomTorsionForce("theta")
dihedral.addTorsion(*torsions[5])
bend = mm.HarmonicAngleForce()
bend.addAngle(*angles[7], 1.8, 3.0)
outer.addCollectiveVariable("phi", dihedral)
outer.addCollectiveVariable("pull", inner)
outer.addCollectiveVariable("bend", bend)
outer.addGlobalParameter("weight", 2.0)
outer.addTabulatedFunction("table", mm.Continuous1DFunction([0.0, 1.0, -1.0, 2.0], -2, 2))
add(outer, "collective")

force = mm.CustomExternalForce("scale*(x-x0)^2+exp(-y^2)*z+abs(x)")
force.addPerParticleParameter("x0")
force.addPerParticleParameter("scale")
for i in range(0, n, 5):
    force.addParticle(i, [0.1 * i, 1.0 + 0.1 * i])
add(force, "external")

maps = mm.CMAPTorsionForce()
maps.addMap(5, rng.normal(size=25))
maps.addMap(24, rng.normal(size=576))
for k, chain in enumerate(chains[1::11]):
    maps.addTorsion(k % 2, *chain[:4], *chain[1:])
add(maps, "maps")

# Starting from the structure of the file, relaxed, and shaken.
for group, force in enumerate(system.getForces()):
    force.setForceGroup(group)
names = [force.getName() for force in system.getForces()]
context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
start = np.array(pdb.positions.value_in_unit(unit.nanometer))
frames = [start + rng.normal(scale=0.006, size=start.shape) for _ in range(6)]
energies, by_force, forces = [], [], []
for frame in frames:
    context.setPositions(frame)
    state = context.getState(energy=True, forces=True)
    energies.append(state.getPotentialEnergy()._value)
    forces.append(state.getForces(asNumpy=True)._value)
    by_force.append([context.getState(energy=True, groups={g}).getPotentialEnergy()._value for g in range(len(names))])
with open("system.xml", "w") as file:
    file.write(mm.XmlSerializer.serialize(system))
np.savez_compressed(
    "reference.npz",
    positions_nm=np.array(frames),
    energy_kj_mol=np.array(energies),
    energy_by_force_kj_mol=np.array(by_force),
    force_names=np.array(names),
    forces_kj_mol_nm=np.array(forces),
)
for name, energy in zip(names, by_force[0]):
    print(f"{name:24s} {energy:12.4f}")
