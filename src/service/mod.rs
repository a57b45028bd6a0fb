//! Puts core and drivers together: calls, the API, the process itself.

pub mod api;
pub mod app;
pub mod config;
pub mod demo;
pub mod switchboard;
pub mod telemetry;
