//! Files: model files, checkpoints and frames of datasets, by path in a bucket or a folder.

use bytes::Bytes;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use std::ops::Range;
use std::sync::Arc;

/// The size of the parts that a long file is written in.
const PART: usize = 8 << 20;

/// Why a file could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactsError {
    #[error("'{url}' is not a place for artifacts: {reason}")]
    Url { url: String, reason: String },
    #[error("artifact '{0}' does not exist")]
    Missing(String),
    /// It is shorter than it was.
    #[error("artifact '{0}' is cut short")]
    CutShort(String),
    #[error("the artifact store failed: {0}")]
    Store(object_store::Error),
}

impl From<object_store::Error> for ArtifactsError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { path, .. } => Self::Missing(path),
            other => Self::Store(other),
        }
    }
}

/// A place for files. A file is written whole or not at all.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
}

impl Artifacts {
    /// From `file:///absolute/path` or `file://relative/path`; the folder is made if it does not exist.
    pub fn open(url: &str) -> Result<Self, ArtifactsError> {
        let fail = |reason: String| ArtifactsError::Url { url: url.to_string(), reason };
        let Some(path) = url.strip_prefix("file://").filter(|p| !p.is_empty()) else {
            return Err(fail("it must be file:///path".into()));
        };
        std::fs::create_dir_all(path).map_err(|e| fail(e.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(path).map_err(|e| fail(e.to_string()))?.with_fsync(true);
        Ok(Self { store: Arc::new(store) })
    }

    /// Writes a file.
    pub async fn put(&self, path: &str, bytes: impl Into<Bytes>) -> Result<(), ArtifactsError> {
        self.store.put(&Path::from(path), PutPayload::from(bytes.into())).await?;
        Ok(())
    }

    /// Begins a long file, which appears when it is finished.
    pub async fn writer(&self, path: &str) -> Result<WriteMultipart, ArtifactsError> {
        let upload = self.store.put_multipart(&Path::from(path)).await?;
        Ok(WriteMultipart::new_with_chunk_size(upload, PART))
    }

    /// Reads a whole file.
    pub async fn get(&self, path: &str) -> Result<Bytes, ArtifactsError> {
        Ok(self.store.get(&Path::from(path)).await?.bytes().await?)
    }

    /// The bytes of a file.
    pub async fn size(&self, path: &str) -> Result<u64, ArtifactsError> {
        Ok(self.store.head(&Path::from(path)).await?.size)
    }

    /// Reads part of a file, all of it or nothing.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, ArtifactsError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = self.store.get_range(&Path::from(path), range).await?;
        if bytes.len() as u64 == wanted { Ok(bytes) } else { Err(ArtifactsError::CutShort(path.to_string())) }
    }

    /// Removes a file; one that is not there is no error.
    pub async fn delete(&self, path: &str) -> Result<(), ArtifactsError> {
        match self.store.delete(&Path::from(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Removes all files whose path begins with `prefix`, a folder.
    pub async fn delete_folder(&self, prefix: &str) -> Result<(), ArtifactsError> {
        use futures::TryStreamExt;
        let files: Vec<_> = self.store.list(Some(&Path::from(prefix))).try_collect().await?;
        for file in files {
            self.delete(file.location.as_ref()).await?;
        }
        Ok(())
    }
}
