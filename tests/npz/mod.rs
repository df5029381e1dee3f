//! Arrays of NPZ files that tests compare with.

use std::path::Path;

/// An array by name.
pub fn read<T: npyz::Deserialize>(path: impl AsRef<Path>, name: &str) -> Vec<T> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let entry = archive.by_name(&format!("{name}.npy")).unwrap();
    npyz::NpyFile::new(entry).unwrap().into_vec().unwrap()
}
