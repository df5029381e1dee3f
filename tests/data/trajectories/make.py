"""Writes the files of this folder with other programs.

    python make.py openmm FOLDER       where OpenMM is installed
    python make.py mdanalysis FOLDER   where MDAnalysis, netCDF4 and scipy are

FOLDER has topology.pdb and trajectory-300K.npz (positions_nm) of alanine dipeptide. Positions are its frames 0, 4000, …
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SHARED = Path(sys.argv[2])
STEP_PS, INTERVAL = 0.002, 500


def openmm():
    import openmm as mm
    from openmm import app, unit

    pdb = app.PDBFile(str(SHARED / "topology.pdb"))
    topology = pdb.topology
    frames = np.load(SHARED / "trajectory-300K.npz")["positions_nm"][::4000][:5].astype(np.float64)
    # Far from the origin, so that a mistake in the bounds would show.
    frames[3] += [40.0, -30.0, 7.0]
    np.save(HERE / "positions.npy", frames)

    with open(HERE / "openmm.dcd", "wb") as file:
        dcd = app.DCDFile(file, topology, STEP_PS * unit.picosecond, firstStep=INTERVAL, interval=INTERVAL)
        for x in frames:
            dcd.writeModel(x * unit.nanometer)
    topology.setUnitCellDimensions(mm.Vec3(3, 3, 3) * unit.nanometer)
    with open(HERE / "openmm-cell.dcd", "wb") as file:
        dcd = app.DCDFile(file, topology, STEP_PS * unit.picosecond, firstStep=INTERVAL, interval=INTERVAL)
        for x in frames:
            dcd.writeModel(x * unit.nanometer)
    path = HERE / "openmm.xtc"
    path.unlink(missing_ok=True)
    xtc = app.XTCFile(str(path), topology, STEP_PS * unit.picosecond, firstStep=INTERVAL, interval=INTERVAL)
    for x in frames:
        xtc.writeModel(x * unit.nanometer)
    topology.setUnitCellDimensions(None)
    with open(HERE / "openmm.pdb", "w") as file:
        app.PDBFile.writeHeader(topology, file)
        for i, x in enumerate(frames):
            app.PDBFile.writeModel(topology, x * unit.nanometer, file, modelIndex=i + 1)
        app.PDBFile.writeFooter(topology, file)

    small = app.Topology()
    residue = small.addResidue("UNK", small.addChain())
    for i in range(5):
        small.addAtom(f"C{i}", app.Element.getBySymbol("C"), residue)
    path = HERE / "openmm-5-atoms.xtc"
    path.unlink(missing_ok=True)
    xtc = app.XTCFile(str(path), small, STEP_PS * unit.picosecond, firstStep=INTERVAL, interval=INTERVAL)
    for x in frames:
        xtc.writeModel(x[:5] * unit.nanometer)


def mdanalysis():
    import warnings

    import MDAnalysis as mda
    import netCDF4
    from scipy.io import netcdf_file

    warnings.simplefilter("ignore")
    frames = np.load(HERE / "positions.npy")
    universe = mda.Universe.empty(22, trajectory=True)

    def write(name, x, **options):
        universe = mda.Universe.empty(x.shape[1], trajectory=True)
        with mda.Writer(str(HERE / name), n_atoms=x.shape[1], dt=1.0, **options) as writer:
            for i, row in enumerate(x):
                universe.atoms.positions = 10.0 * row
                universe.trajectory.ts.time = float(i)
                universe.trajectory.ts.frame = i
                universe.dimensions = [30, 30, 30, 90, 90, 90]
                writer.write(universe.atoms)

    write("mdanalysis.xtc", frames)
    write("mdanalysis.dcd", frames)
    write("mdanalysis.nc", frames)
    # Waters in a box: long runs, and differences of a size that changes within a frame.
    random = np.random.default_rng(7)
    oxygens = random.uniform(0.0, 3.0, (3, 60, 1, 3))
    waters = oxygens + np.array([[0, 0, 0], [0.0757, 0.0586, 0], [-0.0757, 0.0586, 0]])
    chain = np.cumsum(random.normal(0.0, 0.02, (3, 100, 3)), axis=1)
    mixed = np.concatenate([waters.reshape(3, 180, 3), chain], axis=1)
    np.save(HERE / "mixed.npy", mixed)
    write("mixed.xtc", mixed)
    # So wide that each coordinate has bits of its own.
    write("wide.xtc", mixed * 1e4)

    # The same file of Amber in the other variants of the format.
    def variant(create, name, dtype, streaming=False):
        file = create(HERE / name)
        file.Conventions, file.ConventionVersion, file.program, file.programVersion = "AMBER", "1.0", "make.py", "1"
        for dimension, size in [("frame", None), ("spatial", 3), ("atom", 22), ("label", 5)]:
            file.createDimension(dimension, size)
        file.createVariable("spatial", "c", ("spatial",))[:] = np.array(list("xyz"), dtype="c")
        time = file.createVariable("time", dtype, ("frame",))
        time.units = "picosecond"
        # A variable whose size is no multiple of four, which pads the records.
        odd = file.createVariable("odd", "h", ("frame",))
        x = file.createVariable("coordinates", dtype, ("frame", "atom", "spatial"))
        x.units = "angstrom"
        x.scale_factor = np.float32(0.5)
        if isinstance(file, netCDF4.Dataset):
            x.set_auto_maskandscale(False)
        for i, row in enumerate(frames):
            time[i], odd[i], x[i] = float(i), i, 20.0 * row
        file.close()

    scipy_file = lambda version: lambda path: netcdf_file(str(path), "w", version=version)
    variant(scipy_file(1), "scipy-cdf1.nc", "f4")
    variant(scipy_file(2), "scipy-cdf2.nc", "f8")
    variant(lambda path: netCDF4.Dataset(str(path), "w", format="NETCDF3_64BIT_DATA"), "netcdf4-cdf5.nc", "f4")


if __name__ == "__main__":
    {"openmm": openmm, "mdanalysis": mdanalysis}[sys.argv[1]]()
