//! Configuration: defaults, file, environment; checked once.
