//! Arrays of numbers on the wire.

use super::FieldError;
use super::v1::{Array, ArrayEncoding, DataType};
use bytes::Bytes;

/// The numbers of an array, and the length of each dimension.
pub fn numbers(field: &str, array: &Array) -> Result<(Vec<f64>, Vec<usize>), FieldError> {
    let invalid = |reason: String| FieldError::invalid(field, reason);
    let mut count = 1usize;
    let mut shape = Vec::with_capacity(array.shape.len().min(8));
    if array.shape.is_empty() || array.shape.len() > 8 {
        return Err(invalid("shape must have from 1 to 8 dimensions".into()));
    }
    for &length in &array.shape {
        let length = usize::try_from(length).map_err(|_| invalid(format!("shape has a negative length, {length}")))?;
        count = count.checked_mul(length).ok_or_else(|| invalid("shape is too large".into()))?;
        shape.push(length);
    }
    let found = |n: usize, unit: &str| {
        invalid(format!("shape {:?} needs {count} numbers, but there are {n} {unit}", array.shape))
    };
    let data_type = DataType::try_from(array.dtype)
        .map_err(|_| invalid(format!("dtype {} does not exist; use DATA_TYPE_FLOAT64", array.dtype)))?;
    if !array.values.is_empty() {
        if !array.data.is_empty() {
            return Err(invalid("it has both data and values; send one of them".into()));
        }
        if array.values.len() != count {
            return Err(found(array.values.len(), "values"));
        }
        return Ok((array.values.clone(), shape));
    }
    let numbers = match data_type {
        DataType::Unspecified if array.data.is_empty() && count == 0 => Vec::new(),
        DataType::Unspecified => {
            return Err(invalid("data needs a dtype: DATA_TYPE_FLOAT32 or DATA_TYPE_FLOAT64".into()));
        }
        DataType::Float32 => read(&array.data, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        DataType::Float64 => read(&array.data, f64::from_le_bytes),
    };
    let width = if data_type == DataType::Float32 { 4 } else { 8 };
    if numbers.len() != count || !array.data.len().is_multiple_of(width) {
        return Err(found(array.data.len(), "bytes"));
    }
    Ok((numbers, shape))
}

fn read<const N: usize>(data: &[u8], decode: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    data.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)).collect()
}

/// Configurations of a system: the numbers of an array of shape (n, dimension) or (n, atoms, 3).
pub fn rows(
    field: &str,
    array: Option<&Array>,
    dimension: usize,
    atoms: Option<usize>,
) -> Result<Vec<f64>, FieldError> {
    let Some(array) = array else { return Err(FieldError::invalid(field, "it is missing")) };
    let (numbers, shape) = numbers(field, array)?;
    let fits = match shape[..] {
        [_, width] => width == dimension,
        [_, n, 3] => atoms == Some(n),
        _ => false,
    };
    if fits {
        return Ok(numbers);
    }
    let expected = match atoms {
        Some(atoms) => format!("(n, {atoms}, 3) or (n, {dimension})"),
        None => format!("(n, {dimension})"),
    };
    Err(FieldError::invalid(field, format!("its shape is {shape:?}; the system needs {expected}")))
}

/// [`rows`] of which every number is finite.
pub fn finite_rows(
    field: &str,
    array: Option<&Array>,
    dimension: usize,
    atoms: Option<usize>,
) -> Result<Vec<f64>, FieldError> {
    let numbers = rows(field, array, dimension, atoms)?;
    match numbers.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(numbers),
        Some((i, x)) => {
            let reason = format!("configuration {} holds {x}; all must be finite", i / dimension.max(1));
            Err(FieldError::invalid(field, reason))
        }
    }
}

/// An encoding that exists.
pub fn check_encoding(encoding: i32) -> Result<ArrayEncoding, FieldError> {
    match ArrayEncoding::try_from(encoding) {
        Ok(ArrayEncoding::Unspecified) => Ok(ArrayEncoding::Bytes),
        Ok(encoding) => Ok(encoding),
        Err(_) => Err(FieldError::invalid("encoding", format!("{encoding} is not an ArrayEncoding"))),
    }
}

/// An array to send.
pub fn array(numbers: Vec<f64>, shape: &[usize], data_type: DataType, encoding: ArrayEncoding) -> Array {
    let shape = shape.iter().map(|&n| n as i64).collect();
    if encoding == ArrayEncoding::Values {
        return Array { shape, values: numbers, ..Array::default() };
    }
    let (dtype, data) = match data_type {
        DataType::Float32 => {
            let bytes: Vec<_> = numbers.iter().map(|&x| (x as f32).to_le_bytes()).collect();
            (DataType::Float32, Bytes::from(bytes.into_flattened()))
        }
        _ => (DataType::Float64, little_endian(numbers)),
    };
    Array { dtype: dtype.into(), shape, data, values: Vec::new() }
}

/// The numbers as bytes; where the processor has them in that order already, without a copy.
fn little_endian(numbers: Vec<f64>) -> Bytes {
    struct Numbers(Vec<f64>);
    impl AsRef<[u8]> for Numbers {
        fn as_ref(&self) -> &[u8] {
            bytemuck::cast_slice(&self.0)
        }
    }
    if cfg!(target_endian = "little") {
        Bytes::from_owner(Numbers(numbers))
    } else {
        Bytes::from(numbers.iter().map(|x| x.to_le_bytes()).collect::<Vec<_>>().into_flattened())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_in_every_encoding() {
        let x = [1.5, -2.25, f64::INFINITY, 0.0, 1e-300, 3.0];
        for encoding in [ArrayEncoding::Bytes, ArrayEncoding::Values] {
            let message = array(x.to_vec(), &[2, 3], DataType::Float64, encoding);
            assert_eq!(numbers("x", &message).unwrap(), (x.to_vec(), vec![2, 3]));
        }
        let single = array(x[..2].to_vec(), &[2], DataType::Float32, ArrayEncoding::Bytes);
        assert_eq!(numbers("x", &single).unwrap().0, x[..2]);
    }

    #[test]
    fn misfits_are_named() {
        let good = array(vec![1.0; 6], &[2, 3], DataType::Float64, ArrayEncoding::Bytes);
        let bad = |change: fn(&mut Array), expected: &str| {
            let mut array = good.clone();
            change(&mut array);
            let error = rows("positions", Some(&array), 3, None).unwrap_err().to_string();
            assert!(error.starts_with("positions") && error.contains(expected), "{error}");
        };
        bad(|a| a.shape = vec![3, 2], "(n, 3)");
        bad(|a| a.shape = vec![2, -3], "negative");
        bad(|a| a.shape = vec![i64::MAX, i64::MAX], "too large");
        bad(|a| a.shape = vec![], "dimensions");
        bad(|a| a.dtype = 77, "77");
        bad(|a| a.dtype = 0, "dtype");
        bad(|a| a.values = vec![1.0], "both");
        bad(|a| a.data = a.data.slice(..47), "47 bytes");
        assert!(rows("positions", None, 3, None).is_err());
    }
}
