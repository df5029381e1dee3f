"""Makes the files of this folder with MDAnalysis and netCDF4: five frames of alanine dipeptide, and of its first five atoms.

python make.py trajectory.npz topology.pdb, the first with positions_nm.
"""

import sys
import warnings

import MDAnalysis as mda
import netCDF4
import numpy as np

warnings.simplefilter("ignore")
x = np.load(sys.argv[1])["positions_nm"][::40][:5].astype(np.float32)
np.save("expected.npy", x.astype(np.float64))
universe = mda.Universe(sys.argv[2])
for name, atoms in (("whole", x.shape[1]), ("few", 5)):
    part = universe.select_atoms(f"index 0:{atoms - 1}")
    for kind in ("xtc", "dcd", "pdb", "ncdf"):
        if kind in ("pdb", "ncdf") and name == "few":
            continue
        options = {} if kind == "pdb" else {"dt": 2.0}
        with mda.Writer(f"{name}.{kind}", n_atoms=atoms, multiframe=True, **options) as writer:
            for k, frame in enumerate(x):
                universe.atoms.positions = 10 * frame
                universe.trajectory.ts.time = 2.0 * k
                universe.trajectory.ts.dimensions = [30, 30, 30, 90, 90, 90]
                writer.write(part)

# The 64-bit variants, with a scale and float64.
for kind in ("NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"):
    with netCDF4.Dataset(f"{kind.lower()}.nc", "w", format=kind) as file:
        file.createDimension("frame", None)
        file.createDimension("atom", x.shape[1])
        file.createDimension("spatial", 3)
        coordinates = file.createVariable("coordinates", "f8", ("frame", "atom", "spatial"))
        coordinates.scale_factor = 2.0
        coordinates.set_auto_scale(False)
        time = file.createVariable("time", "f4", ("frame",))
        coordinates[:] = 5.0 * x
        time[:] = 2.0 * np.arange(len(x))
