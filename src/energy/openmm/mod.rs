//! Molecular mechanics from an OpenMM System XML, evaluated natively.
