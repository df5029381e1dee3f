//! Frames that a job keeps in files as they come, one pair of them between two checkpoints: positions, and a row of numbers
//! beside each. A checkpoint names the files that belong to it. In the end the files become one.

use super::run_job::hex_digest;
use crate::store::{Artifacts, ArtifactsError, Lease};
use sha2::{Digest, Sha256};

/// Files of frames.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Kept {
    positions: String,
    table: String,
}

/// The frames of a job so far; what is stored of it names those that are in files.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct KeptFrames {
    kept: Vec<Kept>,
    frames: u64,
    /// Bytes of frames since the last checkpoint.
    #[serde(skip)]
    positions: Vec<u8>,
    #[serde(skip)]
    table: Vec<u8>,
}

impl KeptFrames {
    /// The number of frames.
    pub fn count(&self) -> u64 {
        self.frames
    }

    /// Bytes that are in memory.
    pub fn held(&self) -> usize {
        self.positions.len() + self.table.len()
    }

    /// Takes `n` frames: their positions, and what is beside them row by row.
    pub fn add(&mut self, n: usize, positions: &[f64], table: impl Iterator<Item = f64>) {
        self.positions.extend(positions.iter().flat_map(|x| x.to_le_bytes()));
        self.table.extend(table.flat_map(f64::to_le_bytes));
        self.frames += n as u64;
    }

    /// Writes what is in memory into files.
    pub async fn flush(&mut self, artifacts: &Artifacts, lease: &Lease) -> Result<(), ArtifactsError> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let name = |what: &str| format!("jobs/{}/e{}/{}.{what}", lease.job, lease.epoch, self.kept.len());
        let kept = Kept { positions: name("positions"), table: name("table") };
        artifacts.put(&kept.positions, std::mem::take(&mut self.positions)).await?;
        artifacts.put(&kept.table, std::mem::take(&mut self.table)).await?;
        self.kept.push(kept);
        Ok(())
    }

    /// Writes the positions in files as one file of `bytes`; the answer is the hash of what is in it. `see` is shown each part,
    /// and may end it.
    pub async fn join_positions<E: From<ArtifactsError>>(
        &self,
        artifacts: &Artifacts,
        path: &str,
        bytes: u64,
        see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<String, E> {
        join(artifacts, path, bytes, self.kept.iter().map(|kept| kept.positions.as_str()), see).await
    }

    /// The same of what is beside them.
    pub async fn join_table<E: From<ArtifactsError>>(
        &self,
        artifacts: &Artifacts,
        path: &str,
        bytes: u64,
        see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<String, E> {
        join(artifacts, path, bytes, self.kept.iter().map(|kept| kept.table.as_str()), see).await
    }

    /// Shows what is beside the frames in files, part by part; `see` may end it.
    pub async fn read_table<E: From<ArtifactsError>>(
        &self,
        artifacts: &Artifacts,
        mut see: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for kept in &self.kept {
            see(&artifacts.get(&kept.table).await?)?;
        }
        Ok(())
    }
}

/// Where an attempt of a job, by its epoch, makes its dataset's files: "f64" the frames, "table" what is beside them.
pub fn product(dataset: &str, job: &str, epoch: i64, what: &str) -> String {
    format!("datasets/{dataset}/{job}-e{epoch}.{what}")
}

/// Removes what the attempts of a job before `epoch` have left of its dataset, by being broken off between its files and its row.
pub async fn remove_products(
    artifacts: &Artifacts,
    dataset: &str,
    job: &str,
    epoch: i64,
) -> Result<(), ArtifactsError> {
    for attempt in 0..epoch {
        for what in ["f64", "table"] {
            artifacts.delete(&product(dataset, job, attempt, what)).await?;
        }
    }
    Ok(())
}

async fn join<E: From<ArtifactsError>>(
    artifacts: &Artifacts,
    path: &str,
    bytes: u64,
    parts: impl Iterator<Item = &str>,
    mut see: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<String, E> {
    let mut writer = artifacts.writer(path).await?;
    let (mut hash, mut written) = (Sha256::new(), 0);
    let copy = async || -> Result<(), E> {
        for part in parts {
            let part = artifacts.get(part).await?;
            see(&part)?;
            hash.update(&part);
            written += part.len() as u64;
            writer.wait_for_capacity(2).await.map_err(ArtifactsError::from)?;
            writer.write(&part);
        }
        Ok(())
    };
    let copied = copy().await;
    let copied = copied.and_then(|()| match written == bytes {
        true => Ok(()),
        false => Err(ArtifactsError::CutShort(path.to_string()).into()),
    });
    if let Err(e) = copied {
        // Why it was given up is what matters.
        let _ = writer.abort().await;
        return Err(e);
    }
    writer.finish().await.map_err(ArtifactsError::from)?;
    Ok(hex_digest(hash))
}
