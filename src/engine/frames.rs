//! Frames of a dataset as samples of a Boltzmann distribution, read a piece at a time.

use crate::energy::System;
use crate::store::{Artifacts, ArtifactsError, DatasetDocument, ResourceKind, Store, StoreError};
use std::ops::Range;

/// Frames that are used of one temperature; of more, every second or third and so on.
pub const MOST_FRAMES: usize = 200_000;

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// Bytes of a row of a simulation's table: its temperature and its energy.
const TABLE_ROW: u64 = 16;

/// Temperatures that are the same, up to this part of them: some programs write them in single precision.
const SAME: f64 = 1e-6;

/// Temperatures of a dataset that an error names.
const NAMED: usize = 8;

/// Why a dataset's frames cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the frames of dataset '{id}' cannot be read: {source}")]
    Artifacts { id: String, source: ArtifactsError },
    #[error("dataset '{id}': its file has fewer bytes than its {frames} frames need")]
    Short { id: String, frames: u64 },
    #[error(
        "datasets/{id} is of another energy than the system at its end: its frames are no samples of that; upload them to the \
         system that they were simulated with"
    )]
    OtherEnergy { id: String },
    #[error(
        "datasets/{id} has samples of a model with weights, which are no samples of a Boltzmann distribution; name the model instead"
    )]
    Weighted { id: String },
    #[error("datasets/{id} does not say at which temperature its frames were sampled; give the temperature")]
    NoTemperature { id: String },
    #[error("datasets/{id} has frames of several temperatures ({known}); say which")]
    Several { id: String, known: String },
    #[error("datasets/{id} has no frames of the temperature {wanted}; its frames are of {known}")]
    OtherTemperature { id: String, wanted: f64, known: String },
}

/// Frames of one temperature, in the order of their trajectory.
#[derive(Clone, Debug)]
pub struct Frames {
    artifacts: Artifacts,
    /// The dataset.
    pub id: String,
    /// SHA-256 of its positions.
    pub digest: String,
    path: String,
    /// Frames in the file.
    stored: u64,
    dimension: usize,
    pub temperature: f64,
    /// Frames of this temperature.
    pub of_temperature: u64,
    /// Every so-manieth of them is used.
    pub stride: u64,
    /// Which frames of the file are.
    rows: Vec<u64>,
}

impl Frames {
    /// The frames of a dataset that were sampled at a temperature from a system, or at the dataset's own if none is given.
    pub async fn open(
        store: &dyn Store,
        artifacts: &Artifacts,
        id: &str,
        system: &System,
        temperature: Option<f64>,
    ) -> Result<Self, FramesError> {
        let document: DatasetDocument = store.get_resource(ResourceKind::Dataset, id).await?.read()?;
        let id = id.to_string();
        if document.energy_digest != system.digest() || document.dimension != system.dimension() {
            return Err(FramesError::OtherEnergy { id });
        }
        if document.weighted.is_some() {
            return Err(FramesError::Weighted { id });
        }
        let known: Vec<f64> = match &document.simulated {
            Some(simulated) => simulated.temperatures.clone(),
            None => Some(document.temperature).filter(|t| *t > 0.0).into_iter().collect(),
        };
        let temperature = match (temperature, known.as_slice()) {
            (Some(wanted), []) => wanted,
            (Some(wanted), known) => *known
                .iter()
                .find(|t| is_same(**t, wanted))
                .ok_or_else(|| FramesError::OtherTemperature { id: id.clone(), wanted, known: listed(known) })?,
            (None, [only]) => *only,
            (None, []) => return Err(FramesError::NoTemperature { id }),
            (None, several) => return Err(FramesError::Several { id, known: listed(several) }),
        };
        let mut frames = Self {
            artifacts: artifacts.clone(),
            id,
            digest: document.digest,
            path: document.artifact,
            stored: document.frames,
            dimension: document.dimension,
            temperature,
            of_temperature: 0,
            stride: 1,
            rows: Vec::new(),
        };
        match &document.simulated {
            None => {
                frames.of_temperature = document.frames;
                frames.stride = document.frames.div_ceil(MOST_FRAMES as u64).max(1);
                frames.rows = (0..document.frames).step_by(frames.stride as usize).collect();
            }
            Some(simulated) => frames.choose(&simulated.table).await?,
        }
        Ok(frames)
    }

    /// [`Frames::open`] for each temperature of a dataset, if none is given.
    pub async fn open_all(
        store: &dyn Store,
        artifacts: &Artifacts,
        id: &str,
        system: &System,
        temperature: Option<f64>,
    ) -> Result<Vec<Self>, FramesError> {
        let document: DatasetDocument = store.get_resource(ResourceKind::Dataset, id).await?.read()?;
        let mut all = Vec::new();
        match (temperature, document.simulated) {
            (None, Some(simulated)) => {
                for temperature in simulated.temperatures {
                    all.push(Self::open(store, artifacts, id, system, Some(temperature)).await?);
                }
            }
            _ => all.push(Self::open(store, artifacts, id, system, temperature).await?),
        }
        Ok(all)
    }

    /// The frames that a simulation's table has of the temperature.
    async fn choose(&mut self, table: &str) -> Result<(), FramesError> {
        let step = PIECE / TABLE_ROW;
        let mut first = 0;
        while first < self.stored {
            let end = self.stored.min(first + step);
            let bytes = self.bytes(table, first * TABLE_ROW..end * TABLE_ROW).await?;
            for (i, temperature) in numbers(&bytes).step_by(2).enumerate() {
                if is_same(temperature, self.temperature) {
                    self.take(first + i as u64);
                }
            }
            first = end;
        }
        Ok(())
    }

    /// Takes a frame, or leaves it out by the stride, which doubles when there are too many.
    fn take(&mut self, row: u64) {
        let number = self.of_temperature;
        self.of_temperature += 1;
        if !number.is_multiple_of(self.stride) {
            return;
        }
        if self.rows.len() >= MOST_FRAMES {
            let mut kept = 0;
            self.rows.retain(|_| {
                kept += 1;
                kept % 2 == 1
            });
            self.stride *= 2;
            if !number.is_multiple_of(self.stride) {
                return;
            }
        }
        self.rows.push(row);
    }

    /// Whether the frames are of a temperature.
    pub fn is_of(&self, temperature: f64) -> bool {
        is_same(self.temperature, temperature)
    }

    /// The number of frames that are used.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every `n`-th of the frames only.
    pub fn thinned(&self, n: usize) -> Self {
        let n = n.max(1);
        Self {
            rows: self.rows.iter().copied().step_by(n).collect(),
            stride: self.stride.saturating_mul(n as u64),
            ..self.clone()
        }
    }

    /// Positions (n, D) of the next frames from frame `from` of those used on, and their number n, which is as many as are near
    /// each other in the file, at most `most`; nothing at the end.
    pub async fn read(&self, from: usize, most: usize) -> Result<Vec<f64>, FramesError> {
        let rows = self.rows.get(from..).unwrap_or_default();
        let Some(&first) = rows.first() else { return Ok(Vec::new()) };
        let width = 8 * self.dimension.max(1) as u64;
        let near = (PIECE / width).max(1);
        let together = rows.iter().take(most.max(1)).take_while(|row| **row - first < near).count();
        let rows = rows.get(..together).unwrap_or_default();
        let end = rows.last().map_or(first, |last| last + 1);
        let bytes = self.bytes(&self.path, first * width..end * width).await?;
        let mut positions = Vec::with_capacity(rows.len() * self.dimension);
        for row in rows {
            let at = ((row - first) * width) as usize;
            positions.extend(numbers(bytes.get(at..at + width as usize).unwrap_or_default()));
        }
        Ok(positions)
    }

    async fn bytes(&self, path: &str, range: Range<u64>) -> Result<Vec<u8>, FramesError> {
        let expected = range.end - range.start;
        let read = self.artifacts.get_range(path, range).await;
        let bytes = read.map_err(|source| FramesError::Artifacts { id: self.id.clone(), source })?;
        if bytes.len() as u64 != expected {
            return Err(FramesError::Short { id: self.id.clone(), frames: self.stored });
        }
        Ok(bytes.to_vec())
    }
}

/// Whether two temperatures are the same.
pub(super) fn is_same(a: f64, b: f64) -> bool {
    (a / b - 1.0).abs() <= SAME
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b))
}

fn listed(temperatures: &[f64]) -> String {
    let mut text = temperatures.iter().take(NAMED).map(f64::to_string).collect::<Vec<_>>().join(", ");
    if temperatures.len() > NAMED {
        text.push_str(", …");
    }
    text
}
