//! `aftertone demo`: a complete call without any preparation, with a report of each step.
//!
//! Starts a daemon on free loopback ports with a database in a temporary folder, an application
//! that uses only the public API and notifications, and a softphone that plays a bundled clip over
//! real SIP and RTP sockets. The demo succeeds only if the downloaded clip matches the played one
//! and is gone afterwards.

mod bot;
pub mod phone;
mod story;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use tokio::time::{sleep, timeout};

use crate::{
    drivers::prompts::bundled,
    service::{app, config::Config},
};
use aftertone_core::{
    audio::{
        Clip, Rate,
        beep::{BEEP_FRAMES, BEEP_HZ},
        measure::{best_match, tone_level_dbfs},
        wav,
    },
    model::Tone,
};
use bot::Bot;
use phone::Phone;
use story::Story;

const CLIP_FILE: &str = "aftertone-demo.wav";
const RETENTION: Duration = Duration::from_secs(3);
/// Minimum similarity of the clip to the played audio, after G.711.
const LIKENESS: f64 = 0.95;

/// Runs the demo and writes `aftertone-demo.wav` to the current folder. With `tls` the application
/// uses HTTPS with a development certificate.
///
/// # Errors
/// A step fails; the message says which.
pub async fn run(tls: bool) -> anyhow::Result<()> {
    let story = Story::begin();
    let folder = TemporaryFolder::create()?;
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));

    let bot = Bot::start(any, story).await?;
    let config = config(folder.path(), &bot, tls)?;
    story.tell("start", "a daemon on free loopback ports, an embedded database, a bot");
    let daemon = app::Daemon::start(config).await?;
    let sip = daemon.sip_listeners().first().context("no SIP address")?.address;
    let api = format!("{}://{}", daemon.api_scheme(), daemon.api_address());
    let authority = daemon.authority();
    bot.knows_api(&api, authority)?;
    story.tell("start", &format!("dial sip:demo@{sip}; the API is {api}"));
    if let Some(authority) = authority {
        story.tell("start", &format!("the bot trusts {}", authority.display()));
    }

    let spoken = bundled("spoken").context("no bundled clip")?;
    let mut phone = Phone::call(sip, "demo").await?;
    let mut told = 0;
    told = story.tell_sip(&phone, told);

    let beep_end = timeout(Duration::from_secs(20), heard_beep(&phone))
        .await
        .context("the phone never heard the beep")?;
    story.tell("phone", "heard the prompt and the beep; speaks, then presses #");
    phone.speak(spoken.samples(Rate::Hz8000));
    phone.press(Tone::POUND);
    while !phone.is_quiet() {
        sleep(Duration::from_millis(20)).await;
    }
    let key_pressed = Instant::now();

    let clip = timeout(Duration::from_secs(10), bot.clip())
        .await
        .context("the bot was never told of the recording")??;
    story.tell(
        "bot",
        &format!(
            "downloaded {} bytes {} after the key",
            clip.bytes.len(),
            ms(key_pressed.elapsed())
        ),
    );
    std::fs::write(CLIP_FILE, &clip.bytes).with_context(|| format!("cannot write {CLIP_FILE}"))?;
    compare(&clip.bytes, &spoken, &phone, beep_end, story)?;

    bot.hang_up().await?;
    timeout(Duration::from_secs(5), phone.ended()).await.context("no BYE came")?;
    story.tell_sip(&phone, told);
    timeout(Duration::from_secs(10), bot.call_ended()).await.context("the end was not told")?;

    let gone = timeout(RETENTION + Duration::from_secs(10), bot.recording_gone(&clip)).await;
    let lived = gone.context("the recording was not purged")??;
    story.tell("purge", &format!("the recording answers 404, {} after hang-up", ms(lived)));
    no_clip_is_left(&folder.path().join("recordings")).await?;
    daemon.stop().await;
    println!("\nAll as promised. The clip is in {CLIP_FILE}; the daemon has forgotten it.");
    Ok(())
}

/// Waits until the folder contains no clip: the API answers 404 shortly before the file is deleted.
async fn no_clip_is_left(folder: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let left = std::fs::read_dir(folder)?
            .filter_map(Result::ok)
            .filter(|entry| entry.path().extension().is_some_and(|e| e == "wav" || e == "part"))
            .count();
        if left == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{left} clip files are still in the folder");
        sleep(Duration::from_millis(50)).await;
    }
}

fn config(folder: &Path, bot: &Bot, tls: bool) -> anyhow::Result<Config> {
    let file = folder.join("demo.toml");
    let text = format!(
        r#"
        [sip]
        listen = ["udp:127.0.0.1:0"]
        [media]
        ports = "0-0"
        [api]
        listen = "127.0.0.1:0"
        tls_certificate = "{certificate}"
        [storage]
        database = "sqlite:{folder}/aftertone.db"
        recordings = "{folder}/recordings"
        retention = "{retention}ms"
        [fetch]
        allow_networks = ["127.0.0.1/32:{port}"]
        [[applications]]
        name = "demo"
        id = "d3300000-0000-4000-8000-000000000001"
        tokens = ["{token}"]
        roles = ["Calls.AccessMedia.All"]
        callback_uri = "http://{bot}/api/calls"
        [[routes]]
        to = "demo"
        application = "demo"
        public = true
        "#,
        folder = folder.display(),
        certificate = if tls { "development" } else { "" },
        retention = RETENTION.as_millis(),
        port = bot.address().port(),
        bot = bot.address(),
        token = bot.token(),
    );
    std::fs::write(&file, text)?;
    Ok(Config::load(Some(&file), std::iter::empty())?)
}

/// Waits for the end of the beep; returns the position of its end in the received audio.
async fn heard_beep(phone: &Phone) -> usize {
    let frame = Rate::Hz8000.frame_len();
    loop {
        sleep(Duration::from_millis(20)).await;
        let heard = phone.heard();
        let is_beep = |frame: &[i16]| tone_level_dbfs(frame, 8_000, f64::from(BEEP_HZ)) > -30.0;
        let mut run = 0;
        for (index, piece) in heard.chunks_exact(frame).enumerate() {
            match is_beep(piece) {
                true => run += 1,
                // The beep fades in and out, so one frame at either end may not count.
                false if run + 2 >= BEEP_FRAMES => return index * frame,
                false => run = 0,
            }
        }
    }
}

/// Fails unless the clip matches the played audio, from the end of the beep to the key press.
fn compare(
    bytes: &[u8],
    spoken: &Clip,
    phone: &Phone,
    beep_end: usize,
    story: Story,
) -> anyhow::Result<()> {
    let decoded = wav::read(bytes, wav::Limits { max_seconds: 600 })?;
    ensure!(decoded.rate_hz == 16_000, "the clip has {} Hz", decoded.rate_hz);
    let reference = spoken.samples(Rate::Hz16000);
    let (lag, likeness) = best_match(reference, &decoded.samples, 16_000);
    // The played audio begins some time after the beep; the clip contains that silence.
    let Some(beep_ended) = phone.heard_at(beep_end) else { bail!("nothing was heard") };
    let Some(began) = phone.first_spoken_at() else { bail!("nothing was spoken") };
    let lead_ms = began.saturating_duration_since(beep_ended).as_secs_f64() * 1000.0;
    let start_ms = lead_ms - lag as f64 / 16.0;
    let after = decoded.samples.len() as isize - lag - reference.len() as isize;
    let end_ms = after as f64 / 16.0;
    let lead = &decoded.samples[..decoded.samples.len().min(1600)];
    let beep_left = tone_level_dbfs(lead, 16_000, f64::from(BEEP_HZ));
    story.tell(
        "check",
        &format!(
            "likeness {likeness:.4}; the clip starts {start_ms:+.1} ms from the beep's end and ends \
             {end_ms:+.1} ms from the key; beep left in it {beep_left:.0} dBFS"
        ),
    );
    ensure!(likeness >= LIKENESS, "the clip is not what was spoken: likeness {likeness:.3}");
    ensure!(beep_left < -50.0, "the beep is in the clip");
    ensure!(end_ms.abs() <= 40.0, "the clip does not end at the key");
    Ok(())
}

fn ms(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A temporary folder that is deleted when the value is dropped.
struct TemporaryFolder(std::path::PathBuf);

impl TemporaryFolder {
    fn create() -> anyhow::Result<Self> {
        let name = format!("aftertone-demo-{:016x}", rand::random::<u64>());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // A leftover stays in the system's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
