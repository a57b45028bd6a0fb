//! Programs for Python and their packages from PyPI.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::program;

/// A virtual environment.
pub struct Environment(TempDir);

impl Environment {
    /// Creates one with the packages of a requirements file.
    pub async fn new(requirements: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let make = Command::new(program("python3", "python3"))
            .args(["-m", "venv"])
            .arg(folder.path())
            .status()
            .await;
        assert!(make.unwrap().success(), "this test needs the Debian package python3-venv");
        let environment = Self(folder);
        let install = Command::new(environment.program("pip"))
            // The tests use little of the large packages; that part is compiled when it is
            // imported.
            .args(["install", "--quiet", "--no-compile", "--disable-pip-version-check"])
            .arg("--requirement")
            .arg(Path::new(requirements))
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&install.stderr);
        assert!(install.status.success(), "this test needs {requirements} from PyPI: {said}");
        environment
    }

    /// A program of the environment.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.path().join("bin").join(name)
    }
}
