//! Events in the schemas of others: documents for Elasticsearch, OCSF events, columns of parquet.

mod document;
pub mod ecs;
mod flow;
pub mod ocsf;
#[cfg(feature = "parquet")]
pub mod parquet;
#[cfg(test)]
mod tests;

pub use ecs::Ecs;
pub use ocsf::Ocsf;
