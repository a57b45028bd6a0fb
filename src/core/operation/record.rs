//! Plays a prompt and a beep, then records the caller until there is a reason to stop (contract
//! sections 2.6 and 5.1).
//!
//! The clip begins at the end of the beep and ends at the reason to stop, exact to the sample: it
//! contains no beep, no stop tone, and nothing that the caller said before. What playout delivers
//! in a frame was sent a little earlier: when the beep ends, as many frames as playout is deep
//! ([`Heard::behind`]) are still to come from before. These are skipped, whether playout delivers
//! them or leaves them out ([`Heard::advance`]). Without prompt and beep nothing is skipped, and
//! the first frame is kept.
//!
//! All times are counted in frames of the clip. A pause counts from the last voiced frame; the
//! hysteresis of the detector does not shorten it.

use super::{ClipFigures, Ended, Heard, Interruption, Said, player::Player};
use crate::{
    audio::{
        Clip, Rate, Speech,
        beep::{BEEP_FRAMES, beep},
        frame::FRAMES_PER_SECOND,
    },
    model::{OperationEnd, RecordRequest, Tone},
};

/// A record operation.
#[derive(Debug)]
pub struct Record {
    rate: Rate,
    play_beep: bool,
    stop_tones: Vec<Tone>,
    limits: RecordLimits,
    clip: ClipMeter,
    state: RecordState,
}

/// The three times of a request, in frames.
#[derive(Debug, Clone, Copy)]
struct RecordLimits {
    initial_silence: u32,
    max_silence: u32,
    max_duration: u32,
}

/// ```text
/// Prompting -> Beeping -> CatchingUp -> Listening -> Speaking <-> Pausing
///     \___________\____________\____________\___________\____________\____> Ended(reason)
/// ```
/// Prompt and beep are left out if the request has none. Stop tones, and the limit of the clip's
/// length, end the last three states; cancel, hang-up and a failed disk end any state.
#[derive(Debug)]
enum RecordState {
    Prompting(Player),
    /// `next` is the next frame of the beep.
    Beeping {
        next: u32,
    },
    /// The beep is sent. This many frames are still to come that the peer sent before its end.
    CatchingUp {
        frames: u32,
    },
    /// No speech yet; the whole clip is silent.
    Listening,
    Speaking,
    /// `silent` frames since the last voiced one.
    Pausing {
        silent: u32,
    },
    Ended(OperationEnd),
}

impl Record {
    /// A new operation; `prompt` is the request's prompt as audio.
    pub fn new(request: &RecordRequest, prompt: Option<Clip>, rate: Rate) -> Self {
        let times = request.prompt.as_ref().map_or(1, |prompt| prompt.times);
        let prompts = prompt.into_iter().map(|clip| (clip, times)).collect();
        let player = Player::new(prompts, false, rate);
        let state = if !player.is_at_end() {
            RecordState::Prompting(player)
        } else if request.play_beep {
            RecordState::Beeping { next: 0 }
        } else {
            RecordState::Listening
        };
        let frames = |seconds: u32| seconds.saturating_mul(FRAMES_PER_SECOND);
        Self {
            rate,
            play_beep: request.play_beep,
            stop_tones: request.stop_tones.clone(),
            limits: RecordLimits {
                initial_silence: frames(request.initial_silence_seconds),
                max_silence: frames(request.max_silence_seconds),
                max_duration: frames(request.max_duration_seconds),
            },
            clip: ClipMeter::default(),
            state,
        }
    }

    pub(super) fn tick(&mut self, heard: &Heard<'_>, said: &mut Said<'_>) -> Option<Ended> {
        match &mut self.state {
            RecordState::Prompting(player) => {
                player.fill(said.frame.samples_mut());
                if player.is_at_end() {
                    self.state = if self.play_beep {
                        RecordState::Beeping { next: 0 }
                    } else {
                        catch_up(heard.behind)
                    };
                }
                return None;
            }
            RecordState::Beeping { next } => {
                let sound = beep(self.rate).chunks_exact(self.rate.frame_len());
                for frame in sound.skip(*next as usize).take(1) {
                    said.frame.samples_mut().copy_from_slice(frame);
                }
                *next += 1;
                if *next == BEEP_FRAMES {
                    self.state = catch_up(heard.behind);
                }
                return None;
            }
            RecordState::CatchingUp { frames } => {
                if let Some(left) = frames.checked_sub(heard.advance) {
                    self.state = catch_up(left);
                    return None;
                }
                // The last of these frames was left out, and this one was sent after the beep.
                self.state = RecordState::Listening;
            }
            RecordState::Listening | RecordState::Speaking | RecordState::Pausing { .. } => {}
            RecordState::Ended(_) => return None,
        }
        let end = self.keep(heard, said)?;
        self.state = RecordState::Ended(end.clone());
        Some(Ended { end, clip: Some(self.clip.figures(self.rate)) })
    }

    pub(super) fn interrupt(self, interruption: Interruption) -> Ended {
        let end = match (self.state, interruption) {
            (RecordState::Ended(end), _) => end,
            (_, Interruption::Cancel) => OperationEnd::Canceled,
            (_, Interruption::HangUp) if self.clip.samples > 0 => OperationEnd::HungUpWithAudio,
            (_, Interruption::HangUp) => OperationEnd::HungUpWithoutAudio,
            (_, Interruption::DiskFailed) if self.clip.samples > 0 => {
                OperationEnd::DiskFailedWithAudio
            }
            (_, Interruption::DiskFailed) => OperationEnd::DiskFailedWithoutAudio,
        };
        Ended { end, clip: Some(self.clip.figures(self.rate)) }
    }

    pub(super) fn is_recording(&self) -> bool {
        match self.state {
            RecordState::Listening | RecordState::Speaking | RecordState::Pausing { .. } => true,
            RecordState::Prompting(_)
            | RecordState::Beeping { .. }
            | RecordState::CatchingUp { .. }
            | RecordState::Ended(_) => false,
        }
    }

    /// Adds one frame to the clip. Returns why the recording ends with it, if it does.
    fn keep(&mut self, heard: &Heard<'_>, said: &mut Said<'_>) -> Option<OperationEnd> {
        if let Some(key) = heard.tone
            && self.stop_tones.contains(&key.tone)
        {
            let before = &heard.samples[..key.offset.min(heard.samples.len())];
            said.kept.extend_from_slice(before);
            self.clip.add_rest(before.len());
            return Some(OperationEnd::StopToneDetected);
        }
        said.kept.extend_from_slice(heard.samples);
        // A key is not speech, even if its sound is in the audio.
        let speech = if heard.tone.is_some() { Speech::None } else { heard.speech };
        self.clip.add_frame(heard.samples.len(), speech);
        self.state = match self.clip.speech_end {
            None => RecordState::Listening,
            Some(_) if speech.is_speech() => RecordState::Speaking,
            Some(end) => RecordState::Pausing { silent: self.clip.frames - end },
        };
        self.limit_reached()
    }

    fn limit_reached(&self) -> Option<OperationEnd> {
        let (frames, limits) = (self.clip.frames, &self.limits);
        // This limit comes before the longest duration: by default both are 5 s, and a caller that
        // said nothing has left no message.
        if matches!(self.state, RecordState::Listening) && frames >= limits.initial_silence {
            Some(OperationEnd::InitialSilenceTimeout)
        } else if frames >= limits.max_duration {
            Some(OperationEnd::MaxRecordDurationReached)
        } else if let RecordState::Pausing { silent } = self.state
            && silent >= limits.max_silence
        {
            Some(OperationEnd::MaxSilenceTimeout)
        } else {
            None
        }
    }
}

fn catch_up(behind: u32) -> RecordState {
    match behind {
        0 => RecordState::Listening,
        frames => RecordState::CatchingUp { frames },
    }
}

/// Counts how much has been kept, and how much of it was speech.
#[derive(Debug, Default)]
struct ClipMeter {
    samples: u64,
    frames: u32,
    speech_frames: u32,
    /// The frame after the last voiced one.
    speech_end: Option<u32>,
}

impl ClipMeter {
    fn add_frame(&mut self, samples: usize, speech: Speech) {
        self.samples += samples as u64;
        self.frames += 1;
        let Speech::Run { frames, quiet } = speech else { return };
        // A run may have begun, and even ended, before the clip began; and part of it may have been
        // counted with earlier frames.
        let counted = self.speech_end.unwrap_or(0);
        let begin = self.frames.saturating_sub(frames).max(counted);
        let end = self.frames.saturating_sub(quiet);
        if end > begin {
            self.speech_frames += end - begin;
            self.speech_end = Some(end);
        }
    }

    fn add_rest(&mut self, samples: usize) {
        self.samples += samples as u64;
    }

    fn figures(&self, rate: Rate) -> ClipFigures {
        let ms = |frames: u32| u64::from(frames) * 1_000 / u64::from(FRAMES_PER_SECOND);
        ClipFigures {
            duration_ms: self.samples * 1_000 / u64::from(rate.hz()),
            speech_ms: ms(self.speech_frames),
            speech_ended_at_ms: self.speech_end.map(ms),
        }
    }
}
