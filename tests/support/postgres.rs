//! A private PostgreSQL cluster in a temporary folder, reached by a Unix socket, deleted at the
//! end.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

/// A running cluster; dropping it stops the server and deletes the folder.
pub struct Cluster {
    folder: TempDir,
    binaries: PathBuf,
}

impl Cluster {
    /// Makes and starts a cluster.
    pub fn start() -> Self {
        let binaries = binaries().expect(
            "PostgreSQL is not installed: this test needs initdb and pg_ctl \
             (Debian: apt-get install postgresql)",
        );
        let folder = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if is_root() {
            // PostgreSQL refuses to run as root.
            run(Command::new("chown").arg("postgres").arg(folder.path()));
        }
        let cluster = Self { folder, binaries };
        run(cluster
            .command("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync", "-D"])
            .arg(cluster.data()));
        cluster.pg_ctl_start();
        cluster
    }

    /// Makes an empty database and returns its address.
    pub fn database(&self, name: &str) -> String {
        run(self
            .command("psql")
            .args(["--no-psqlrc", "--quiet", "--username=postgres", "--host"])
            .arg(self.folder.path())
            .args(["--command", &format!("CREATE DATABASE {name}")]));
        format!("postgres://postgres@localhost/{name}?host={}", self.folder.path().display())
    }

    /// Kills the server without a shutdown: every connection breaks.
    pub fn crash(&self) {
        run(self.command("pg_ctl").args(["stop", "--mode=immediate", "-D"]).arg(self.data()));
    }

    /// Starts the server again after [`Cluster::crash`].
    pub fn restart(&self) {
        self.pg_ctl_start();
    }

    fn pg_ctl_start(&self) {
        // The port is part of the socket's name; nothing listens on it.
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off",
            self.folder.path().display()
        );
        run(self
            .command("pg_ctl")
            .args(["start", "--wait", "--options", &options, "--log"])
            .arg(self.folder.path().join("log"))
            .arg("-D")
            .arg(self.data()));
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, program: &str) -> Command {
        let program = self.binaries.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self
            .command("pg_ctl")
            .args(["stop", "--mode=immediate", "-D"])
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// The folder of Debian's newest PostgreSQL, or the first folder of PATH with all programs.
fn binaries() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    versions.sort();
    let debian = versions.into_iter().rev().map(|(_, folder)| folder);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let listed: Vec<PathBuf> = std::env::split_paths(&path).collect();
    debian.chain(listed).find(|folder| {
        ["initdb", "pg_ctl", "psql"].iter().all(|program| folder.join(program).exists())
    })
}

fn is_root() -> bool {
    // The owner of our own process folder: asking the system directly would need unsafe code.
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|own| own.uid() == 0)
}

/// Runs a program to its end. It gets no pipe: the server would inherit it and keep it open.
fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    match status {
        Ok(status) => assert!(status.success(), "{command:?} failed with {status}"),
        Err(error) => panic!("{command:?} cannot be run: {error}"),
    }
}
