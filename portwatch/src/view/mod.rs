//! What shows events and reports to people and programs.

mod columns;
pub mod doctor;
pub mod human;
pub mod lines;
pub mod report;
pub mod rows;
mod time;
pub mod top;
pub mod who;
