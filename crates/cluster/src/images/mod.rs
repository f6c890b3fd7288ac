//! Operating system images: where they come from, what they are, and how they are unpacked.
//!
//! - [`Catalogue`] names images that suit a Turing Pi's modules, with their addresses and digests.
//! - [`ImageStore`] makes an image be there, whole and proved, in a cache that all clusters share.
//! - [`ImageFile`] is one that is there: its packing, its unpacked size, its content as a stream.
//! - [`Inspection`] says what is inside, without root and without mounting anything.
//!
//! ```no_run
//! # async fn example() -> Result<(), turingpi_engine::Failure> {
//! use turingpi_cluster::{FetchOptions, images::{Catalogue, ImageStore, Unpacking, Want}};
//!
//! let store = ImageStore::new("cache", Catalogue::embedded()?, FetchOptions::default())?;
//! let source = store.resolve("raspios", ".".as_ref())?;
//! let obtained = store.obtain(&source, &Want::default(), &|_, _| ()).await?;
//! let image = obtained.file.measured(&|_, _| ()).await?;
//! println!("{} bytes to write", image.raw_bytes().unwrap_or_default());
//! let mut content = image.unpacked(Unpacking::default()).await?;
//! tokio::io::copy(&mut content, &mut tokio::io::sink()).await.ok();
//! # Ok(()) }
//! ```

mod cache;
mod catalogue;
mod file;
mod inspect;
mod packing;
mod pins;
mod prune;
mod size;
mod source;
mod store;
mod unpack;

pub use cache::{CachedImage, Checked};
pub use catalogue::{Catalogue, CatalogueEntry, DigestSource, Family, Module};
pub use file::ImageFile;
pub use inspect::{
    Content, FileSystem, InspectOptions, Inspection, Partition, PartitionTable, SystemRelease,
};
pub use packing::Packing;
pub use prune::{PruneRule, Pruned};
pub use source::ImageSource;
pub use store::{ImageStore, Listed, Obtained, Trust, Want};
pub use unpack::{Unpacked, Unpacking};
