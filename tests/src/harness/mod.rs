//! What every scenario stands on: traffic makers that know the truth, a portwatch to watch them,
//! and a judge that compares the two.

pub mod bpf;
pub mod event;
pub mod judge;
pub mod meeting;
pub mod netns;
pub mod process;
pub mod ring;
pub mod shared;
pub mod socket;
pub mod stage;
pub mod tracer;
pub mod truth;
