//! Programs for Python and what they need from PyPI.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use super::program;

/// An environment of its own.
pub struct Environment(TempDir);

impl Environment {
    /// Makes one with what a file of requirements lists.
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
            // Of large packages little is used: what is, is compiled then.
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
