//! The REST face: requests to commands, results to Graph JSON.
