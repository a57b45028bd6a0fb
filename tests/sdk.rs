//! Microsoft's own clients, unmodified, from PyPI and npm: each runs a whole bot against the
//! running daemon over HTTPS, with tokens for its client secret, and with phones on the other side.

mod support;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use aftertone::service::demo::phone::Phone;
use aftertone_core::{
    audio::{Rate, measure::best_match, wav},
    model::Tone,
};
use serde_json::{Value, json};
use support::{
    Node,
    baresip::{self, Baresip},
    npm,
    peer::Peer,
    program,
    python::Environment,
    sipp::{Called, raw_speech},
    speech, spoken,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const TENANT: &str = "00000000-0000-0000-0000-000000000001";
const APP: &str = "11111111-1111-1111-1111-111111111111";
const SECRET: &str = "a secret: 100% + more";

/// A bot in a process of its own.
struct Script {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Script {
    fn start(mut command: Command, folder: &Path) -> Self {
        let prompt = aftertone::drivers::prompts::bundled_wav("spoken").unwrap();
        std::fs::write(folder.join("prompt.wav"), prompt).unwrap();
        let mut child = command
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("errors")).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, said }
    }

    /// The next line of its output; `None` when it has ended.
    async fn said(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(Duration::from_secs(60), self.said.next_line()).await;
        let line = line.expect("the bot says something in time").unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}")))
    }

    async fn tell(&mut self, what: &Value) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{what}\n").as_bytes()).await.unwrap();
    }

    /// Starts a daemon that knows the bot, with `api` in that section, and tells the bot its
    /// address. `None` if the bot has ended.
    async fn node(
        &mut self,
        folder: TempDir,
        authority: &Path,
        api: &str,
        trunks: &str,
    ) -> Option<Node> {
        let said = self.said().await?;
        let node = Node::start_in(
            folder,
            &format!(
                "[api]\nlisten = \"127.0.0.1:0\"\ntls_certificate = \"development\"\n{api}\
                 [[applications]]\nname = \"sdk\"\nid = \"{APP}\"\nsecrets = [{SECRET:?}]\n\
                 roles = [\"Calls.AccessMedia.All\", \"Calls.Initiate.All\"]\n\
                 callback_uri = {}\n\
                 [[routes]]\nto = \"bot\"\napplication = \"sdk\"\npublic = true\n{trunks}",
                said["callback"],
            ),
        );
        let info = json!({
            "api": node.api, "authority": authority, "tenant": TENANT, "app": APP, "secret": SECRET,
        });
        self.tell(&info).await;
        Some(node)
    }
}

fn trunk(host: &str, allow: &str) -> String {
    format!(
        "[[trunks]]\nname = {host:?}\nhost = {host:?}\ntransport = \"udp\"\nallow = [{allow:?}]\n"
    )
}

/// Makes the certificate that the daemon will use, because clients need it when they start; returns
/// its folder and path.
fn certificate() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let hosts = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let recordings = folder.path().join("recordings");
    std::fs::create_dir(&recordings).unwrap();
    let made = aftertone::drivers::tls::development(&recordings, &hosts).unwrap();
    (folder, made.authority)
}

/// Runs a bot that answers a phone's call and places another call; checks what the phones hear and
/// send.
async fn plays_a_whole_bot(command: impl FnOnce(&Path) -> Command) {
    let (folder, authority) = certificate();
    let phone_folder = tempfile::tempdir().unwrap();
    let script = tempfile::tempdir().unwrap();
    let mut bot = Script::start(command(&authority), script.path());
    let errors = || std::fs::read_to_string(script.path().join("errors")).unwrap();
    let called = Called::start("transferred", "u1", &[]);
    let trunks = trunk(&called.address.to_string(), "2*");
    // The models of the beta SDK have the members of this type; the other bots use the documented
    // type.
    let api = "identity_type = \"communicationsIdentitySet\"\n";
    let node =
        bot.node(folder, &authority, api, &trunks).await.unwrap_or_else(|| panic!("{}", errors()));
    let account = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMU/8000/1";
    let dial = format!("/dial sip:bot@{}", node.sip);
    let phone = Baresip::start(phone_folder.path(), account, "PCMU", &[&dial]);

    let mut steps = Vec::new();
    while let Some(said) = bot.said().await {
        if let Some(key) = said["press"].as_str() {
            phone.press(key).await;
        }
        steps.extend(said["step"].as_str().map(str::to_owned));
    }
    let status = bot.child.wait().await.unwrap();
    assert!(status.success(), "after {steps:?}: {}\n{}", errors(), node.log_text());
    assert_eq!(steps, ["established", "played", "recorded", "transferred"]);
    called.finish().await;

    let clip = std::fs::read(script.path().join("clip.wav")).unwrap();
    let clip = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
    let spoken = spoken::likeness(phone_folder.path(), &clip);
    assert!(spoken >= 0.95, "the clip is like what was said by {spoken}");
    let heard = baresip::heard(phone_folder.path());
    assert!(heard >= 0.9, "what the phone heard is like the prompt by {heard}");
}

/// Phones whose calls are refused, redirected, or get prompts and tones; calls to a peer that only
/// rings and to one that speaks.
async fn plays_what_only_the_beta_has(command: Command) {
    let (folder, authority) = certificate();
    let script = tempfile::tempdir().unwrap();
    let mut bot = Script::start(command, script.path());
    let errors = || std::fs::read_to_string(script.path().join("errors")).unwrap();
    let rings = Peer::start().await;
    let raw = raw_speech(script.path());
    let speaks = Called::start("called", "u1", &[("WAIT_MS", "800"), ("SPEECH", &raw)]);
    let trunks =
        trunk(&rings.address.to_string(), "2*") + &trunk(&speaks.address.to_string(), "3*");
    let node =
        bot.node(folder, &authority, "", &trunks).await.unwrap_or_else(|| panic!("{}", errors()));

    let (mut steps, mut dialing, mut phone) = (Vec::new(), Vec::new(), None);
    while let Some(said) = bot.said().await {
        if let Some(user) = said["dial"].as_str() {
            let (sip, user) = (node.sip, user.to_owned());
            dialing.push(tokio::spawn(async move { Phone::call(sip, &user).await }));
        }
        if let Some(key) = said["press"].as_str() {
            let answered = dialing.pop().unwrap().await.unwrap().expect("answered");
            answered.press(Tone::parse(key).unwrap());
            phone = Some(answered);
        }
        steps.extend(said["step"].as_str().map(str::to_owned));
    }
    let status = bot.child.wait().await.unwrap();
    assert!(status.success(), "after {steps:?}: {}\n{}", errors(), node.log_text());
    let wanted = [
        "rejected",
        "redirected",
        "recorded and deleted",
        "held and sent keys",
        "unanswered",
        "recorded whom it called",
    ];
    assert_eq!(steps, wanted);
    for (refused, status) in dialing.into_iter().zip(["486", "302"]) {
        let refused = refused.await.unwrap().err().expect("refused").to_string();
        assert!(refused.contains(status), "{refused}");
    }
    let keys: String = phone.unwrap().keys().iter().map(|key| key.as_char()).collect();
    assert_eq!(keys, "4*", "what the phone heard");
    speaks.finish().await;
    let clip = std::fs::read(script.path().join("clip.wav")).unwrap();
    let clip = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
    let (_, likeness) = best_match(speech().samples(Rate::Hz16000), &clip, 16_000);
    assert!(likeness >= 0.95, "the clip is like what was said by {likeness}");
}

/// One test, since the packages are large.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_for_python_run_bots_here() {
    let environment = Environment::new("tests/sdk/python/requirements.txt").await;
    let command = |script: &str| {
        let mut command = Command::new(environment.program("python"));
        command.arg(Path::new("tests/sdk/python").join(script).canonicalize().unwrap());
        command
    };
    plays_a_whole_bot(|_| command("bot.py")).await;
    plays_what_only_the_beta_has(command("beta.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_graph_client_for_javascript_runs_a_bot_here() {
    let program_folder = tempfile::tempdir().unwrap();
    npm::install(Path::new("tests/sdk/javascript"), program_folder.path()).await;
    plays_a_whole_bot(|authority| {
        let mut command = Command::new(program("node", "nodejs"));
        command.arg(program_folder.path().join("bot.mjs"));
        command.env("NODE_EXTRA_CA_CERTS", authority);
        command
    })
    .await;
}
