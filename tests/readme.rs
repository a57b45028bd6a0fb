//! The README's first bot, unchanged except for its ports.

mod support;

use std::{net::TcpListener, process::Stdio, time::Duration};

use aftertone::service::demo::phone::Phone;
use aftertone_core::{
    audio::{
        Rate,
        beep::{BEEP_FRAMES, BEEP_HZ},
        measure::{best_match, tone_level_dbfs},
        wav,
    },
    model::Tone,
};
use support::{Node, eventually, program, speech};
use tokio::process::Command;

const README: &str = include_str!("../README.md");
const PATIENCE: Duration = Duration::from_secs(20);

/// The code block after a line that begins with a file's name.
fn file(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n`{name}`")).expect("the file is there");
    let (_, code) = rest.split_once("```").expect("a block begins");
    let (_, code) = code.split_once('\n').expect("the language ends its line");
    code.split_once("```").expect("the block ends").0
}

/// Whether the phone has heard a beep to its end.
fn is_after_the_beep(phone: &Phone) -> bool {
    let heard = phone.heard();
    let frames = heard.chunks_exact(Rate::Hz8000.frame_len());
    let is_beep = |frame| tone_level_dbfs(frame, 8_000, f64::from(BEEP_HZ)) > -30.0;
    let beep: Vec<bool> = frames.map(is_beep).collect();
    let length = beep.iter().filter(|is_beep| **is_beep).count();
    // The beep's edges are soft: a frame at either end may not count.
    length as u32 + 2 >= BEEP_FRAMES && beep.ends_with(&[false])
}

#[test]
fn the_examples_are_those_of_the_readme() {
    assert_eq!(file("aftertone.toml"), include_str!("../examples/aftertone.toml"));
    assert_eq!(file("bot.py"), include_str!("../examples/bot.py"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bot_writes_what_was_said() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = free.to_string();
    let node = Node::start(&file("aftertone.toml").replace("3978", &port));
    let bot = file("bot.py").replace("3978", &port).replace("http://127.0.0.1:8080", &node.api);
    assert!(bot.contains(&node.api) && bot.contains(&port), "the ports are named");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bot.py"), bot).unwrap();
    let mut bot = Command::new(program("python3", "python3"))
        .arg("bot.py")
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    eventually("the bot", PATIENCE, async || {
        tokio::net::TcpStream::connect(("127.0.0.1", free)).await.ok()
    })
    .await;

    let phone = Phone::call(node.sip, "support").await.expect("the bot takes the call");
    eventually("the beep", PATIENCE, async || is_after_the_beep(&phone).then_some(())).await;
    phone.speak(speech().samples(Rate::Hz8000));
    phone.press(Tone::POUND);
    let message = eventually("message.wav", PATIENCE, async || {
        let bytes = std::fs::read(folder.path().join("message.wav")).ok()?;
        wav::read(&bytes, wav::Limits { max_seconds: 60 }).ok()
    })
    .await;
    let (_, likeness) = best_match(&message.samples, speech().samples(Rate::Hz16000), 16_000);
    assert!(likeness > 0.95, "likeness {likeness}");
    assert!(bot.try_wait().unwrap().is_none(), "the bot still runs");
}
