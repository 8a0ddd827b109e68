//! The head of a snapshot: what there is in its folder, and what must fit for it to be used.

use std::path::{Path, PathBuf};

use maslite_core::{Digest, SimDuration, SimTime};
use serde::{Deserialize, Serialize};

use crate::error::snapshot::{LeftOut, SnapshotError};
use crate::links::codec::{self, Misread};
use crate::snapshot::blocks::{self, Kind, Sum};

/// The name of its file. It is written last.
const FILE: &str = "head";

/// The head of a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The version of the program that wrote it.
    pub(crate) version: String,
    /// When it was written, since 1970 \[ns, wall\].
    pub(crate) saved_at: u64,
    /// Where the simulation stood.
    pub(crate) time: SimTime,
    pub(crate) superstep: u64,
    pub(crate) seed: u64,
    pub(crate) digest: Option<Digest>,
    pub(crate) content: bool,
    /// The digest of the state.
    pub(crate) state: Digest,
    /// The message type, and the agent types, each with its shape.
    pub(crate) message: Shape,
    pub(crate) kinds: Vec<Shape>,
    pub(crate) sections: Vec<Section>,
    /// All names that the simulation has heard of.
    pub(crate) names: Vec<String>,
    /// What main knows, which is read with the types of the program.
    #[serde(with = "serde_bytes")]
    pub(crate) main: Vec<u8>,
    /// Agents whose states are not in it: they stand behind the rest, since version 2.
    #[serde(skip)]
    pub(crate) left_out: Vec<LeftOut>,
}

/// A type, and a number for its fields and variants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) shape: u64,
}

/// The state of one cluster, in a file of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    /// The name of the cluster.
    pub(crate) cluster: String,
    pub(crate) lookahead: Option<SimDuration>,
    pub(crate) agents: u64,
    pub(crate) sum: Sum,
}

/// The file of a cluster.
pub(crate) fn section(folder: &Path, place: usize) -> PathBuf {
    folder.join(format!("cluster-{place}"))
}

impl Head {
    /// Writes the head of a snapshot.
    pub(crate) fn write(&self, folder: &Path) -> Result<Sum, SnapshotError> {
        let path = folder.join(FILE);
        let failed = |source| SnapshotError::io(&path, "write", source);
        let mut bytes = Vec::new();
        let put =
            codec::put(self, &mut bytes).and_then(|()| codec::put(&self.left_out, &mut bytes));
        put.map_err(|why| failed(std::io::Error::other(why)))?;
        blocks::write(&path, Kind::Head, &bytes).map_err(failed)
    }

    /// The head from the contents of its file, in a version of the format.
    pub(crate) fn decode(version: u32, bytes: &[u8]) -> Result<Self, Misread> {
        if version == 1 {
            return codec::decode(bytes);
        }
        let (head, left_out): (Self, Vec<LeftOut>) = codec::decode(bytes)?;
        Ok(Self { left_out, ..head })
    }

    /// Reads the head of a snapshot, and looks through all its files.
    pub(crate) fn read(folder: &Path) -> Result<Self, SnapshotError> {
        let path = folder.join(FILE);
        let (version, bytes) = match blocks::read_with_version(&path, Kind::Head) {
            Err(SnapshotError::Missing { .. }) => {
                return Err(SnapshotError::Missing {
                    path: folder.into(),
                });
            }
            other => other?,
        };
        let head = Self::decode(version, &bytes).map_err(|why| SnapshotError::Format {
            path,
            why: format!("its head has other parts than this program knows ({why})"),
        })?;
        for (place, of) in head.sections.iter().enumerate() {
            let file = section(folder, place);
            if blocks::check(&file, Kind::Cluster)? != of.sum {
                return Err(SnapshotError::Corrupt {
                    file,
                    offset: 0,
                    why: "it is a file of another snapshot",
                });
            }
        }
        Ok(head)
    }
}
