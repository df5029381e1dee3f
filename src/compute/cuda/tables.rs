//! Tables of columns in device memory. They are few, small, and the same from one call to the next: each is uploaded
//! once for a device, whatever stream it is used on, and kept.

use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use candle_core::{CudaDevice, DeviceLocation, Result};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

type Tables = HashMap<DeviceLocation, HashMap<Box<[u32]>, Arc<CudaSlice<u32>>>>;

static TABLES: LazyLock<Mutex<Tables>> = LazyLock::new(Mutex::default);

/// The table with these numbers on the device. An empty one has a number that nobody reads.
pub(super) fn table(device: &CudaDevice, numbers: &[u32]) -> Result<Arc<CudaSlice<u32>>> {
    let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
    let tables = tables.entry(device.location()).or_default();
    if let Some(table) = tables.get(numbers) {
        return Ok(Arc::clone(table));
    }
    let stream = device.cuda_stream();
    let uploaded: &[u32] = if numbers.is_empty() { &[0] } else { numbers };
    let table = Arc::new(stream.clone_htod(uploaded).w()?);
    // Jobs have streams of their own; from here on the table is there for all of them.
    stream.synchronize().w()?;
    tables.insert(numbers.into(), Arc::clone(&table));
    Ok(table)
}
