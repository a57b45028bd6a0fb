//! linphone as a phone: plays the bundled speech four times and writes what it hears to a file.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use super::{eventually, program, spoken};

/// A running linphonec, which answers calls by itself.
pub struct Linphone {
    folder: PathBuf,
    child: Child,
    console: ChildStdin,
}

impl Linphone {
    /// Starts it in `folder` as a user of a registrar.
    pub async fn start(folder: &Path, user: &str, registrar: SocketAddr, transport: &str) -> Self {
        Self::start_with(folder, user, registrar, transport, "").await
    }

    /// Starts it with more lines in the section `[sip]` of its configuration.
    pub async fn start_with(
        folder: &Path,
        user: &str,
        registrar: SocketAddr,
        transport: &str,
        sip: &str,
    ) -> Self {
        // -1 is any free port; -2 is no listener, but outgoing connections. Without UDP it does not
        // work at all.
        let tcp = if transport == "udp" { 0 } else { -2 };
        let config = format!(
            "[sip]\nsip_port=-1\nsip_tcp_port={tcp}\nsip_tls_port=0\nguess_hostname=0\n\
             auto_net_state_mon=0\nregister_only_when_network_is_up=0\ndefault_proxy=0\n{sip}\
             [auth_info_0]\nusername={user}\npasswd=secret\nrealm=127.0.0.1\n\
             [proxy_0]\nreg_proxy=<sip:{registrar};transport={transport}>\n\
             reg_identity=sip:{user}@127.0.0.1\nreg_sendregister=1\nreg_expires=600\n\
             [rtp]\naudio_rtp_port=-1\n\
             [video]\nenabled=0\nautomatically_initiate=0\nautomatically_accept=0\n"
        );
        std::fs::write(folder.join("linphonerc"), config).unwrap();
        // It keeps a database there, but does not create the folder.
        std::fs::create_dir_all(folder.join(".local/share/linphone")).unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = Command::new(program("linphonec", "linphone-cli"))
            .args(["-a", "-c", "linphonerc"])
            .current_dir(folder)
            .env("HOME", folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("linphonec runs");
        let console = child.stdin.take().unwrap();
        let mut phone = Self { folder: folder.to_owned(), child, console };
        phone.say("soundcard use files").await;
        let input = spoken::write(folder, 16_000, 1);
        phone.say(&format!("play {}", input.display())).await;
        let output = phone.output();
        phone.say(&format!("record {}", output.display())).await;
        phone
    }

    /// Types a line into the console.
    pub async fn say(&mut self, line: &str) {
        self.console.write_all(format!("{line}\n").as_bytes()).await.expect("linphonec reads");
        self.console.flush().await.unwrap();
    }

    fn output(&self) -> PathBuf {
        self.folder.join("heard.wav")
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Waits until its output contains `words` so many times.
    pub async fn says(&self, words: &str, times: usize) {
        let said = async || (self.log().matches(words).count() >= times).then_some(());
        let what = format!("linphone says {times} times: {words}");
        eventually(&what, Duration::from_secs(10), said).await;
    }

    /// Quits; returns how well the bundled speech is found in what it heard.
    pub async fn quit(mut self) -> f64 {
        self.say("quit").await;
        let status = timeout(Duration::from_secs(20), self.child.wait()).await;
        assert!(status.expect("linphonec leaves").unwrap().success(), "{}", self.log());
        spoken::heard_by_seconds(&self.output())
    }
}
