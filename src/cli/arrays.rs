//! NPY and NPZ files.

use super::client::CliError;
use crate::trajectory::{self, Format};
use npyz::{DType, NpyFile, Order, TypeChar, WriterBuilder};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// An array of numbers in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub numbers: Vec<f64>,
    pub shape: Vec<usize>,
}

/// Positions in a file, in nm: an NPY file's array, the array `positions_nm` or `positions` of an NPZ file, or the frames of
/// a trajectory. What is lost of one that was cut off is said.
pub(super) fn read_positions(path: &Path) -> Result<Array, CliError> {
    if let Some(format) = Format::of_path(path) {
        let bytes = std::fs::read(path).map_err(|e| CliError::file(path, e))?;
        let trajectory = trajectory::read(&bytes, format).map_err(|e| CliError::file(path, e))?;
        if let Some(lost) = &trajectory.lost {
            remark!("warning: {}: {lost}; the whole frames before are used", path.display());
        }
        let shape = vec![trajectory.frames(), trajectory.atoms, 3];
        return Ok(Array { numbers: trajectory.positions, shape });
    }
    if path.extension().is_some_and(|e| e == "npz") {
        for name in ["positions_nm", "positions"] {
            if let Some(array) = read_npz(path, name)? {
                return Ok(array);
            }
        }
        return Err(CliError::file(path, "it has no array positions_nm or positions"));
    }
    read_numbers(path)
}

/// The array of an NPY file.
pub(super) fn read_numbers(path: &Path) -> Result<Array, CliError> {
    let file = File::open(path).map_err(|e| CliError::file(path, e))?;
    let bytes = file.metadata().map_err(|e| CliError::file(path, e))?.len();
    read_npy(BufReader::new(file), bytes).map_err(|e| CliError::file(path, e))
}

/// An array of an NPZ file by name, or nothing if there is none of that name.
pub(super) fn read_npz(path: &Path, name: &str) -> Result<Option<Array>, CliError> {
    let file = File::open(path).map_err(|e| CliError::file(path, e))?;
    read_npz_entry(BufReader::new(file), name).map_err(|e| CliError::file(path, e))
}

/// The same of an NPZ file from anywhere; the error says what is wrong with it.
pub(super) fn read_npz_entry(file: impl Read + Seek, name: &str) -> Result<Option<Array>, String> {
    let mut archive = ZipArchive::new(file).map_err(|e| e.to_string())?;
    let entry = format!("{name}.npy");
    if archive.index_for_name(&entry).is_none() {
        return Ok(None);
    }
    let reader = archive.by_name(&entry).map_err(|e| e.to_string())?;
    read_npy(BufReader::new(reader), 0).map(Some).map_err(|e| format!("{name}: {e}"))
}

/// An array of a file that has so many bytes, as far as it says itself.
fn read_npy(reader: impl Read, bytes: u64) -> Result<Array, String> {
    let file = NpyFile::new(reader).map_err(|e| e.to_string())?;
    if file.order() != Order::C && file.shape().len() > 1 {
        return Err("the array is in Fortran order; save it with numpy.ascontiguousarray".into());
    }
    let shape: Vec<usize> =
        file.shape().iter().map(|&n| usize::try_from(n).map_err(|e| e.to_string())).collect::<Result<_, _>>()?;
    let DType::Plain(plain) = file.dtype() else { return Err("the array is not of plain numbers".into()) };
    let most = (bytes / 4).min(shape.iter().fold(1u64, |n, d| n.saturating_mul(*d as u64)));
    let numbers = match (plain.type_char(), plain.size_field()) {
        (TypeChar::Float, 4) => collect(file.data::<f32>().map_err(|e| e.to_string())?, most, f64::from)?,
        (TypeChar::Float, 8) => collect(file.data::<f64>().map_err(|e| e.to_string())?, most, |x| x)?,
        (TypeChar::Int, 4) => collect(file.data::<i32>().map_err(|e| e.to_string())?, most, f64::from)?,
        (TypeChar::Int, 8) => collect(file.data::<i64>().map_err(|e| e.to_string())?, most, |x| x as f64)?,
        (TypeChar::Uint, 4) => collect(file.data::<u32>().map_err(|e| e.to_string())?, most, f64::from)?,
        (TypeChar::Uint, 8) => collect(file.data::<u64>().map_err(|e| e.to_string())?, most, |x| x as f64)?,
        _ => return Err(format!("its numbers are {plain}; integers and floats of 4 and 8 bytes can be read")),
    };
    Ok(Array { numbers, shape })
}

/// Reads number by number, with room for `most`, which the file's size bounds: a header that promises more than the file holds is an
/// error, not an allocation.
fn collect<T>(
    items: impl Iterator<Item = std::io::Result<T>>,
    most: u64,
    convert: impl Fn(T) -> f64,
) -> Result<Vec<f64>, String> {
    let mut numbers = Vec::with_capacity(usize::try_from(most).unwrap_or(0));
    for item in items {
        numbers.push(convert(item.map_err(|e| format!("it is cut short: {e}"))?));
    }
    Ok(numbers)
}

/// Writes one array as an NPY file.
pub(super) fn write_npy(path: &Path, array: &Array) -> Result<(), CliError> {
    let mut file = BufWriter::new(File::create(path).map_err(|e| CliError::file(path, e))?);
    write_array(&mut file, array.numbers.iter().copied(), &array.shape).map_err(|e| CliError::file(path, e))?;
    file.flush().map_err(|e| CliError::file(path, e))
}

fn write_array(writer: impl Write, numbers: impl Iterator<Item = f64>, shape: &[usize]) -> std::io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&n| n as u64).collect();
    let mut npy = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(writer).begin_nd()?;
    npy.extend(numbers)?;
    npy.finish()
}

/// Writes an NPZ file array by array. It has its name only once it is whole.
pub(super) struct NpzWriter {
    path: std::path::PathBuf,
    part: std::path::PathBuf,
    zip: ZipWriter<BufWriter<File>>,
}

impl NpzWriter {
    pub fn create(path: &Path) -> Result<Self, CliError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = std::path::PathBuf::from(part);
        let file = File::create(&part).map_err(|e| CliError::file(&part, e))?;
        Ok(Self { path: path.to_path_buf(), part, zip: ZipWriter::new(BufWriter::new(file)) })
    }

    /// Adds an array of float64.
    pub fn add(&mut self, name: &str, numbers: impl Iterator<Item = f64>, shape: &[usize]) -> Result<(), CliError> {
        self.begin(name)?;
        write_array(&mut self.zip, numbers, shape).map_err(|e| CliError::file(&self.part, e))
    }

    /// Adds a one-dimensional array of uint64.
    pub fn add_indices(&mut self, name: &str, numbers: impl Iterator<Item = u64>) -> Result<(), CliError> {
        let all: Vec<u64> = numbers.collect();
        self.begin(name)?;
        let write = || -> std::io::Result<()> {
            let options = npyz::WriteOptions::new().default_dtype().shape(&[all.len() as u64]);
            let mut npy = options.writer(&mut self.zip).begin_nd()?;
            npy.extend(all)?;
            npy.finish()
        };
        write().map_err(|e| CliError::file(&self.part, e))
    }

    /// Adds a text file `name`.json beside the arrays; NumPy gives its bytes.
    pub fn add_json(&mut self, name: &str, value: &serde_json::Value) -> Result<(), CliError> {
        let text = serde_json::to_vec_pretty(value).map_err(|e| CliError::failed(e.to_string()))?;
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        self.zip.start_file(format!("{name}.json"), options).map_err(|e| CliError::file(&self.part, e))?;
        self.zip.write_all(&text).map_err(|e| CliError::file(&self.part, e))
    }

    fn begin(&mut self, name: &str) -> Result<(), CliError> {
        let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
        self.zip.start_file(format!("{name}.npy"), options).map_err(|e| CliError::file(&self.part, e))
    }

    pub fn finish(self) -> Result<(), CliError> {
        let file = self.zip.finish().map_err(|e| CliError::file(&self.part, e))?;
        file.into_inner().map_err(|e| CliError::file(&self.part, e.to_string()))?;
        std::fs::rename(&self.part, &self.path).map_err(|e| CliError::file(&self.path, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_survive_files_and_damage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let array = Array { numbers: vec![1.0, -2.5, 3.25, 0.0, 5.0, 6.0], shape: vec![2, 3] };
        let npy = folder.path().join("x.npy");
        write_npy(&npy, &array).unwrap();
        assert_eq!(read_positions(&npy).unwrap(), array);
        let npz = folder.path().join("x.npz");
        let mut writer = NpzWriter::create(&npz).unwrap();
        writer.add("positions", array.numbers.iter().copied(), &array.shape).unwrap();
        writer.add_indices("index", 5..7).unwrap();
        writer.finish().unwrap();
        assert_eq!(read_positions(&npz).unwrap(), array);
        assert!(read_npz(&npz, "other").unwrap().is_none());

        let whole = std::fs::read(&npy).unwrap();
        std::fs::write(&npy, &whole[..whole.len() - 3]).unwrap();
        assert!(read_positions(&npy).unwrap_err().to_string().contains("cut short"));
        let huge = String::from_utf8_lossy(&whole).replace("(2, 3)", "(999999999999, 3)").into_bytes();
        std::fs::write(&npy, huge).unwrap();
        assert!(read_positions(&npy).is_err());
    }
}
