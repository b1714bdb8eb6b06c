//! Files to host batches: images, labels, shards and augmentation.
//!
//! An importer turns the files of a data set into one HDF5 file, a [`Container`] reads a [`Split`] of it, and a
//! [`Pipeline`] makes the batches of one rank from any [`Source`]. The batches depend only on the source,
//! the seed, the epoch and its [`Shard`]: the ranks' batches together are the same for any number of ranks.
//!
//! The folders, in order; each uses only those before it: `ground` (errors, randomness, sources), `formats` (archives,
//! pickles, pictures), `schema` (description of a data set file), `hdf5` (its storage), `container`
//! (whole data set files), `fetch`, `import`, `sheet` (pictures of a container) and `batches`.

mod batches;
mod container;
mod fetch;
mod formats;
mod ground;
mod hdf5;
mod import;
mod schema;
mod sheet;

pub use batches::augment::Augment;
pub use batches::augment::policy::Policy;
pub use batches::extra::Extra;
pub use batches::loader::{HostBatch, Loader, Mixture, Pipeline};
pub use batches::shard::Shard;
pub use batches::subset::{Choice, Subset, hold_out};
pub use container::read::Container;
pub use container::verify::{summarise, verify};
pub use container::write::{refuse_existing, write, write_from};
pub use fetch::official::{OFFICIAL, OfficialFile};
pub use fetch::options::{Fetch, Progress};
pub use fetch::{default_cache, fetch};
pub use formats::pickled_array::NAMES as PICKLED_ARRAY_NAMES;
pub use formats::recognise::{FileKind, kind_of_file};
pub use formats::{pickle, zip};
pub use ground::damage;
pub use ground::error::UserError;
pub use ground::memory::Memory;
pub use ground::nearest::nearest;
pub use ground::random::{self, Draws, Purpose};
pub use ground::regular::{ensure_regular, in_words, open_regular, read_regular, read_text};
pub use ground::source::{Source, per_class};
pub use hdf5::adversarial::AdversarialFile;
pub use hdf5::hdf5_version;
pub use import::left_out::LeftOut;
pub use import::splits::SplitNames;
pub use import::{DATASETS, ImportOptions, ImportReport, import};
pub use schema::about::{About, Coarse, Split};
pub use schema::layout::Layout;
pub use schema::summary::{SplitSummary, Summary};
pub use sheet::attacked::{AttackPictures, AttackRow, AttackedImage, attack_sheet, attacked_images};
pub use sheet::{short_name, write_sheet};
