//! The daemon's memory cannot be read from outside: no core file, no access for its user.

use std::{
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

/// A user id without rights: the tests may run as root, and root may read any process.
const UNPRIVILEGED: u32 = 65_534;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn no_core_file_can_be_written_of_a_running_daemon() {
    let folder = tempfile::tempdir().unwrap();
    let user = folder.path().metadata().unwrap().uid();
    let (program, config) = (folder.path().join("daemon"), folder.path().join("a.toml"));
    std::fs::copy(env!("CARGO_BIN_EXE_aftertone"), &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let text = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n[media]\nports = \"0-0\"\n\
                [api]\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(&program);
    command.args(["serve", "--config"]).arg(&config).current_dir(folder.path());
    let user = if user == 0 {
        for path in [folder.path(), &program, &config] {
            chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
        }
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
        UNPRIVILEGED
    } else {
        user
    };
    let mut child = Killed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    // The daemon has turned core files off before it is ready.
    assert!(lines.next().unwrap().unwrap().contains("is ready"));
    let proc = format!("/proc/{}", child.0.id());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert_eq!(uid.split_whitespace().next(), Some(user.to_string().as_str()));
    // proc(5): the files of a process that must not be dumped belong to root, not to its user.
    assert_eq!(Path::new(&proc).join("environ").metadata().unwrap().uid(), 0);
}

#[test]
fn systemd_writes_no_core_file_either() {
    let unit = include_str!("../systemd/aftertone.service");
    assert!(unit.lines().any(|line| line == "LimitCORE=0"));
}
