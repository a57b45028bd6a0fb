//! The command as a user sees it: arguments, exit codes, messages.

use std::process::{Command, Output};

use aftertone::drivers::recordings::AccessKey;

fn aftertone(words: &[&str], folder: &std::path::Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aftertone"))
        .args(words)
        .current_dir(folder)
        .output()
        .expect("the command runs")
}

fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout);
    format!("{out}{}", String::from_utf8_lossy(&output.stderr))
}

#[test]
fn help_and_version_are_as_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let help = aftertone(&["--help"], folder.path());
    assert_eq!(help.status.code(), Some(0));
    for word in ["serve", "demo", "token", "--config"] {
        assert!(said(&help).contains(word), "{}", said(&help));
    }
    let version = aftertone(&["--version"], folder.path());
    assert_eq!(version.status.code(), Some(0));
    assert_eq!(said(&version).trim(), format!("aftertone {}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_words_are_64_and_a_wrong_configuration_78() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), "[sip]\nlisen = []\n").unwrap();
    std::fs::write(folder.path().join("b.toml"), "[telemetry]\nlog = \"a=b=c\"\n").unwrap();
    std::fs::write(folder.path().join("c.toml"), "[telemetry]\nlog = \"warning\"\n").unwrap();
    for (words, code, part) in [
        (&["dance"][..], 64, "dance"),
        (&["serve", "--confg", "x"], 64, "--config"),
        (&["token"], 64, "--app"),
        (&["demo", "--config", "a.toml"], 64, "--config"),
        (&["--config", "a.toml", "demo"], 64, "--config"),
        (&["serve", "--config", "none.toml"], 78, "none.toml"),
        (&["serve", "--config", "a.toml"], 78, "a.toml:2"),
        (&["--config", "a.toml"], 78, "did you mean `sip.listen`?"),
        (&["serve", "--config", "b.toml"], 78, "telemetry.log"),
        (&["serve", "--config", "c.toml"], 78, "\"warning\" is none of off, error, warn"),
        (&["token", "--app", "nobody", "--config", "/dev/null"], 78, "nobody"),
    ] {
        let output = aftertone(words, folder.path());
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{words:?}: {}", said(&output));
    }
}

#[test]
fn the_configuration_may_be_named_before_or_after_the_command() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), "[sip]\nlisen = []\n").unwrap();
    for words in [
        &["serve", "--config", "a.toml"][..],
        &["--config", "a.toml", "serve"],
        &["token", "--app", "bot", "--config", "a.toml"],
        &["--config", "a.toml", "token", "--app", "bot"],
    ] {
        let output = aftertone(words, folder.path());
        assert_eq!(output.status.code(), Some(78), "{words:?}: {}", said(&output));
        assert!(said(&output).contains("a.toml:2"), "{words:?}: {}", said(&output));
    }
}

#[test]
fn a_port_that_is_taken_is_1_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[sip]\nlisten = [\"udp:{}\"]\n[api]\nlisten = \"127.0.0.1:0\"\n",
        taken.local_addr().unwrap()
    );
    std::fs::write(folder.path().join("a.toml"), config).unwrap();
    let output = aftertone(&["serve", "--config", "a.toml"], folder.path());
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("sip.listen"), "{}", said(&output));
}

fn bot_at(callback_uri: &str) -> String {
    format!("[[applications]]\nname = \"bot\"\nid = \"1\"\ncallback_uri = \"{callback_uri}\"\n")
}

/// An error that only the operator can correct is reported once, with its key, and with the exit
/// code that keeps a supervisor from restarting the daemon.
#[test]
fn what_only_the_start_shows_to_be_wrong_is_78_as_well() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        let key = made.signing_key.serialize_pem();
        std::fs::write(folder.path().join(format!("{name}.key")), key).unwrap();
    }
    let tls = |certificate: &str, key: &str| {
        format!("tls_certificate = \"{certificate}\"\ntls_key = \"{key}\"\n")
    };
    let sip = "[api]\nlisten = \"127.0.0.1:0\"\n[sip]\nlisten = [\"tls:127.0.0.1:0\"]\n";
    let api = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n[api]\nlisten = \"127.0.0.1:0\"\n";
    let ours = tls("one.pem", "one.key");
    for (config, said_once) in [
        (format!("{sip}{}", tls("gone.pem", "one.key")), "sip.tls_certificate: gone.pem: No such"),
        (format!("{sip}{}", tls("one.pem", "gone.key")), "sip.tls_key: gone.key: No such"),
        (format!("{sip}{}", tls("one.pem", "one.pem")), "one.pem: there is no key in it"),
        (format!("{sip}{}", tls("one.key", "one.pem")), "sip.tls_certificate: one.key: there is"),
        (
            format!("{sip}{}", tls("one.pem", "two.key")),
            "sip.tls_certificate: one.pem: the key is not that of the certificate",
        ),
        (format!("{sip}{ours}tls_client_ca = \"ca.pem\"\n"), "sip.tls_client_ca: ca.pem: No such"),
        (format!("{sip}{ours}tls_server_ca = \"ca.pem\"\n"), "sip.tls_server_ca: ca.pem: No such"),
        (format!("{api}{}", tls("one.pem", "gone.key")), "api.tls_key: gone.key: No such"),
        (
            format!("{api}{}", tls("one.pem", "two.key")),
            "api.tls_certificate: one.pem: the key is not that of the certificate",
        ),
        (format!("{api}[storage]\ndatabase = \"mysql://me:pw@h/d\"\n"), "storage.database: the"),
        (format!("{api}[storage]\ndatabase = \"sqlite:\"\n"), "storage.database: the"),
        (
            format!("{api}{}", bot_at("http://10.1.2.3/")),
            "applications.callback_uri: nothing could be sent to that of \"bot\": 10.1.2.3:80 is",
        ),
        (format!("{api}{}", bot_at("https://me:pw@bot.example/")), "applications.callback_uri: no"),
        (format!("{api}{}", bot_at("http://localhost:1/")), "applications.callback_uri: nothing"),
        (format!("{api}{}", bot_at("http://[::1]:1/")), "(see fetch.allow_networks)"),
        (format!("{api}{}", bot_at("http://bot.example/\\u0000")), "applications.callback_uri: "),
        (
            format!("{api}[fetch]\nprompt_folder = \"prompts\"\n"),
            "fetch.prompt_folder: prompts: No such",
        ),
    ] {
        std::fs::write(folder.path().join("a.toml"), &config).unwrap();
        let output = aftertone(&["--config", "a.toml"], folder.path());
        assert_eq!(output.status.code(), Some(78), "{config}{}", said(&output));
        let told = said(&output);
        let line = told.lines().find(|line| line.starts_with("aftertone: ")).unwrap();
        assert!(line.contains(said_once), "{config}{line}");
        assert_eq!(line.matches("No such file").count(), usize::from(line.contains("No such")));
        assert!(!line.contains("pw"), "{line}");
    }
}

#[test]
fn a_database_that_is_not_there_is_1_and_told_once_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[storage]\ndatabase = \"postgres://me:secret@127.0.0.1:1/calls\"\n";
    std::fs::write(folder.path().join("a.toml"), config).unwrap();
    let output = aftertone(&["--config", "a.toml"], folder.path());
    let told = said(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("postgres://me:***@127.0.0.1:1/calls"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    assert_eq!(told.matches("refused").count(), 1, "{told}");
}

const BOT: &str = "[[applications]]\nname = \"bot\"\nid = \"b07\"\n\
                   roles = [\"Calls.AccessMedia.All\"]\ncallback_uri = \"http://127.0.0.1:1/\"\n";

#[test]
fn a_token_opens_the_api_of_the_daemon_with_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), BOT).unwrap();
    AccessKey::load_or_create(&folder.path().join("recordings")).unwrap();
    for role in [&[][..], &["--role", "calls.accessmedia.all"]] {
        let words = ["token", "--app", "bot", "--ttl", "5m", "--config", "a.toml"];
        let output = aftertone(&[&words[..], role].concat(), folder.path());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert_eq!(said(&output).trim().split('.').count(), 3, "a signed token");
    }
}

#[test]
fn no_token_is_made_that_nobody_would_believe() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.toml"), BOT).unwrap();
    let recordings = folder.path().join("recordings");
    let token = |words: &[&str]| {
        aftertone(&[&["token", "--config", "a.toml"], words].concat(), folder.path())
    };
    for (words, code, part) in [
        (&["--app", "bot"][..], 1, recordings.to_str().unwrap()),
        (&["--app", "bot"], 1, "start the daemon first"),
        (&["--app", "bto"], 78, "a.toml has: bot"),
        (&["--app", "bot", "--role", "Calls.Initiate.All"], 64, "it has: Calls.AccessMedia.All"),
        (&["--app", "bot", "--role", "Calls.AccessMedia"], 64, "\"Calls.AccessMedia\""),
    ] {
        let output = token(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{words:?}: {}", said(&output));
    }
    assert!(!recordings.exists(), "nothing was made");
}

#[test]
fn the_demo_over_https_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let output = aftertone(&["demo", "--tls"], folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("https://"), "{}", said(&output));
    assert!(folder.path().join("aftertone-demo.wav").is_file());
}
