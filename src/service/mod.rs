//! Connects core and drivers: calls, the API, and the process itself.

pub mod api;
pub mod app;
pub mod config;
pub mod demo;
pub mod switchboard;
pub mod telemetry;
