"""Makes system.xml and reference.npz with OpenMM: a peptide of 147 atoms, AYDPETATWA with charged ends, in amber14 and OBC2.

python make.py

topology.pdb is its minimised structure. The configurations are eight of a short simulation at 300 K; energies and forces
are those of the Reference platform, each force in a force group of its own.
"""

import numpy as np
import openmm as mm
from openmm import app, unit

pdb = app.PDBFile("topology.pdb")
field = app.ForceField("amber14-all.xml", "implicit/obc2.xml")
system = field.createSystem(pdb.topology, nonbondedMethod=app.NoCutoff, constraints=None)
xml = mm.XmlSerializer.serialize(system)
with open("system.xml", "w") as file:
    file.write("\n".join(line.strip() for line in xml.splitlines()))

integrator = mm.LangevinMiddleIntegrator(300, 1, 0.001)
integrator.setRandomNumberSeed(5)
simulation = app.Simulation(pdb.topology, system, integrator, mm.Platform.getPlatformByName("CPU"), {"Threads": "1"})
simulation.context.setPositions(pdb.positions)
simulation.context.setVelocitiesToTemperature(300, 3)
frames = []
for _ in range(8):
    simulation.step(1500)
    state = simulation.context.getState(getPositions=True)
    frames.append(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer))

reference = mm.XmlSerializer.deserialize(xml)
for group, force in enumerate(reference.getForces()):
    force.setForceGroup(group)
context = mm.Context(reference, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
names = [force.getName() for force in reference.getForces()]
energies, by_force, forces = [], [], []
for frame in frames:
    context.setPositions(frame)
    state = context.getState(getEnergy=True, getForces=True)
    energies.append(state.getPotentialEnergy()._value)
    forces.append(state.getForces(asNumpy=True)._value)
    groups = range(len(names))
    by_force.append([context.getState(getEnergy=True, groups={g}).getPotentialEnergy()._value for g in groups])
np.savez_compressed(
    "reference.npz",
    positions_nm=np.array(frames),
    energy_kj_mol=np.array(energies),
    forces_kj_mol_nm=np.array(forces),
    energy_by_force_kj_mol=np.array(by_force),
    force_names=np.array(names),
)
