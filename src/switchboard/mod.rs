//! Joins the pure call with the drivers: one task per call.
