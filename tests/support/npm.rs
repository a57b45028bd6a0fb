//! Programs for Node and their packages from npm.

use std::path::Path;

use tokio::process::Command;

use super::program;

/// Copies the program in the folder `from` to `to`, and installs its locked dependencies there.
pub async fn install(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
    let output = Command::new(program("npm", "npm"))
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(to)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let from = from.display();
    assert!(output.status.success(), "this test needs what {from} lists from npm: {said}");
}
