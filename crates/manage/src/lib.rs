//! `nova-manage`: what an administrator does by hand.
//!
//! One file per category of commands, as in `nova-manage <category> <action>`. What old scripts read from stdout is
//! kept to the letter; what is meant for people goes to stderr. Commands work on the database and the state folder
//! alone, so they work before any daemon runs.

mod check;
mod cli;
mod context;
mod credentials;
mod db;
mod doctor;
mod fixed;
mod floating;
mod host;
mod host_check;
mod image;
mod instance;
mod network;
mod output;
mod project;
mod quota;
mod role;
mod service;
mod user;
mod vpn;
mod words;

pub use cli::{categories, run};
pub use context::Surface;

#[cfg(test)]
mod tests;
