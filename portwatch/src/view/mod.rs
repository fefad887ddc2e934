//! What shows events and reports to people and programs.

pub mod answer;
mod columns;
pub mod doctor;
pub mod export;
pub mod human;
pub(crate) mod json;
pub mod lines;
pub mod report;
pub mod rows;
pub mod time;
pub mod top;
pub mod verdict;
pub mod who;
