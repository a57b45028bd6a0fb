//! The record operation from outside: every start and every end, to the sample.
//!
//! The line carries samples that say when they were sent, so that the kept audio shows where it
//! begins and ends.

use aftertone_core::{
    audio::{
        Clip, Frame, Rate, Speech,
        beep::{BEEP_FRAMES, beep},
    },
    model::{OperationEnd, PromptSource, RecordAction, RecordRequest, Tone},
    operation::{ClipFigures, Ended, Heard, HeardTone, Operation, Record, Said},
};
use proptest::prelude::*;

const FRAMES_PER_SECOND: usize = 50;
/// The prompt does not end at the end of a frame.
const PROMPT_FRAMES: f64 = 3.5;
const PROMPT_SAMPLE: i16 = 77;
const PROMPT_TIMES: u32 = 2;
const RATES: [Rate; 2] = [Rate::Hz8000, Rate::Hz16000];

const POUND: Tone = Tone::POUND;

fn other_tone() -> Tone {
    Tone::parse("5").unwrap()
}

/// How an operation begins.
#[derive(Debug, Clone, Copy)]
struct Setup {
    rate: Rate,
    prompt: bool,
    beep: bool,
    /// Frames that lie in the jitter buffer.
    behind: u32,
}

impl Setup {
    fn all() -> impl Iterator<Item = Self> {
        let flags = [(false, false), (false, true), (true, false), (true, true)];
        RATES.into_iter().flat_map(move |rate| {
            flags.into_iter().flat_map(move |(prompt, beep)| {
                [0, 1, 4].into_iter().map(move |behind| Self { rate, prompt, beep, behind })
            })
        })
    }

    fn prompt_frames(self) -> usize {
        if self.prompt { (PROMPT_FRAMES * f64::from(PROMPT_TIMES)).ceil() as usize } else { 0 }
    }

    /// Frames until the prompt and the beep before the clip have been played.
    fn preamble(self) -> usize {
        self.prompt_frames() + if self.beep { BEEP_FRAMES as usize } else { 0 }
    }

    /// The tick in which the first frame of the clip is heard.
    fn first_kept_tick(self) -> usize {
        match self.preamble() {
            0 => 0,
            preamble => preamble + self.behind as usize,
        }
    }

    fn start(self, request: RecordRequest) -> Line {
        let clip = |rate: Rate| {
            vec![PROMPT_SAMPLE; (PROMPT_FRAMES * rate.frame_len() as f64) as usize].into()
        };
        let prompt = self.prompt.then(|| Clip::new(clip(Rate::Hz8000), clip(Rate::Hz16000)));
        let source = || PromptSource {
            uri: "file:prompt.wav".to_owned(),
            resource_id: None,
            times: PROMPT_TIMES,
        };
        let request =
            RecordRequest { prompt: self.prompt.then(source), play_beep: self.beep, ..request };
        Line {
            setup: self,
            operation: Operation::Record(Record::new(&request, prompt, self.rate)),
            tick: 0,
            said: Vec::new(),
            kept: Vec::new(),
        }
    }
}

/// Initial silence 2 s, pause 1 s, clip 4 s, `#` and `1` stop.
fn request() -> RecordRequest {
    RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed: false,
        initial_silence_seconds: 2,
        max_silence_seconds: 1,
        max_duration_seconds: 4,
        play_beep: true,
        stop_tones: vec![POUND, Tone::parse("1").unwrap()],
    }
}

/// The line with its running operation.
struct Line {
    setup: Setup,
    operation: Operation,
    tick: usize,
    said: Vec<i16>,
    kept: Vec<i16>,
}

impl Line {
    fn hear(&mut self, speech: Speech, tone: Option<(Tone, usize)>) -> Option<Ended> {
        let samples: Vec<i16> = self.sent(self.tick, self.setup.rate.frame_len());
        let mut frame = Frame::silence(self.setup.rate);
        let heard = Heard {
            samples: &samples,
            speech,
            tone: tone.map(|(tone, offset)| HeardTone { tone, offset }),
            advance: 1,
            behind: self.setup.behind,
        };
        let said = &mut Said::new(&mut frame, &mut self.kept);
        let ended = self.operation.tick(&heard, said);
        self.said.extend(frame.samples());
        self.tick += 1;
        ended
    }

    /// The samples that are heard from `tick` on: each one says its place.
    fn sent(&self, tick: usize, samples: usize) -> Vec<i16> {
        let begin = tick * self.setup.rate.frame_len();
        (begin..begin + samples).map(|place| (place % 30_011) as i16).collect()
    }

    /// Continues for `frames` with silence.
    fn pass(&mut self, frames: usize) {
        for _ in 0..frames {
            assert_eq!(self.hear(Speech::None, None), None, "tick {}", self.tick);
        }
    }

    /// Continues up to the first frame of the clip.
    fn pass_preamble(&mut self) {
        self.pass(self.setup.first_kept_tick());
        assert!(self.kept.is_empty());
    }

    /// Speech of `frames`, reported as `Voice` reports it: late at the start and late at the end.
    fn speak(&mut self, frames: u32) {
        for n in 1..=frames {
            let speech = if n < 3 { Speech::None } else { Speech::Run { frames: n, quiet: 0 } };
            assert_eq!(self.hear(speech, None), None, "tick {}", self.tick);
        }
    }

    /// Frame `silent` (from 1) after a run of speech of `frames`.
    fn after_speech(&mut self, frames: u32, silent: u32) -> Option<Ended> {
        let run = Speech::Run { frames: frames + silent, quiet: silent };
        self.hear(if silent <= 8 { run } else { Speech::None }, None)
    }

    /// The kept audio is the line from the clip's first frame on, with the expected length.
    fn assert_kept(&self, samples: usize, ended: &Ended) {
        let expected = self.sent(self.setup.first_kept_tick(), samples);
        assert!(self.kept == expected, "{:?}: kept {}", self.setup, self.kept.len());
        let clip = ended.clip.expect("a record operation has figures");
        assert_eq!(clip.duration_ms, samples as u64 * 1_000 / u64::from(self.setup.rate.hz()));
    }

    fn frames(&self, frames: usize) -> usize {
        frames * self.setup.rate.frame_len()
    }
}

fn figures(frames: u64, speech: u64, speech_ended_at: Option<u64>) -> Option<ClipFigures> {
    Some(ClipFigures {
        duration_ms: 20 * frames,
        speech_ms: 20 * speech,
        speech_ended_at_ms: speech_ended_at.map(|frames| 20 * frames),
    })
}

#[test]
fn prompt_and_beep_are_said_whole_and_then_nothing() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        line.pass(setup.first_kept_tick() + 20);
        let frame = setup.rate.frame_len();
        let prompt = if setup.prompt {
            (PROMPT_FRAMES * f64::from(PROMPT_TIMES) * frame as f64) as usize
        } else {
            0
        };
        let mut expected = vec![PROMPT_SAMPLE; prompt];
        expected.resize(setup.prompt_frames() * frame, 0);
        if setup.beep {
            expected.extend(beep(setup.rate));
        }
        expected.resize(line.said.len(), 0);
        assert!(line.said == expected, "{setup:?}");
    }
}

#[test]
fn a_stop_tone_ends_the_clip_where_the_key_begins() {
    for setup in Setup::all() {
        let frame = setup.rate.frame_len();
        for offset in [0, 1, frame / 2, frame - 1, frame, usize::MAX] {
            let within = offset.min(frame);
            // While listening, in its first frame and later.
            for before in [0, 30] {
                let mut line = setup.start(request());
                line.pass_preamble();
                line.pass(before);
                let ended = line.hear(Speech::None, Some((POUND, offset))).unwrap();
                assert_eq!(ended.end, OperationEnd::StopToneDetected);
                line.assert_kept(line.frames(before) + within, &ended);
            }
            // While speaking, and in a pause.
            for silent in [0, 5, 20] {
                let mut line = setup.start(request());
                line.pass_preamble();
                line.speak(40);
                for n in 1..=silent {
                    assert_eq!(line.after_speech(40, n), None);
                }
                let key = Some((Tone::parse("1").unwrap(), offset));
                let ended = line.hear(Speech::Run { frames: 41 + silent, quiet: 0 }, key).unwrap();
                assert_eq!(ended.end, OperationEnd::StopToneDetected);
                line.assert_kept(line.frames(40 + silent as usize) + within, &ended);
                let clip = ended.clip.unwrap();
                assert_eq!((clip.speech_ms, clip.speech_ended_at_ms), (800, Some(800)));
            }
        }
    }
}

#[test]
fn a_stop_tone_before_the_clip_is_ignored() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        for _ in 0..setup.first_kept_tick() {
            assert_eq!(line.hear(Speech::None, Some((POUND, 0))), None);
        }
        assert!(line.kept.is_empty());
        let ended = line.hear(Speech::None, Some((POUND, 0))).unwrap();
        assert_eq!(ended.end, OperationEnd::StopToneDetected);
        line.assert_kept(0, &ended);
    }
}

#[test]
fn another_tone_neither_stops_nor_speaks() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        line.pass_preamble();
        for n in 1..100 {
            let run = Speech::Run { frames: n, quiet: 0 };
            assert_eq!(line.hear(run, Some((other_tone(), 3))), None);
        }
        let ended = line.hear(Speech::None, Some((other_tone(), 3))).unwrap();
        assert_eq!(ended.end, OperationEnd::InitialSilenceTimeout);
        assert_eq!(ended.clip, figures(100, 0, None));
    }
}

#[test]
fn initial_silence_counts_from_the_end_of_prompt_and_beep() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        line.pass_preamble();
        line.pass(2 * FRAMES_PER_SECOND - 1);
        let ended = line.hear(Speech::None, None).unwrap();
        assert_eq!(ended.end, OperationEnd::InitialSilenceTimeout);
        assert_eq!(ended.clip, figures(100, 0, None));
        line.assert_kept(line.frames(100), &ended);
    }
}

#[test]
fn a_pause_counts_from_the_last_voiced_frame() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        line.pass_preamble();
        line.pass(60);
        line.speak(30);
        // Speech that begins again in time ends a pause. Three frames later would be too late: the
        // detector is not certain by then.
        for n in 1..=47 {
            assert_eq!(line.after_speech(30, n), None);
        }
        line.speak(5);
        for n in 1..50 {
            assert_eq!(line.after_speech(5, n), None);
        }
        let ended = line.after_speech(5, 50).unwrap();
        assert_eq!(ended.end, OperationEnd::MaxSilenceTimeout);
        // The trailing silence is part of the clip.
        assert_eq!(ended.clip, figures(60 + 30 + 47 + 5 + 50, 35, Some(60 + 30 + 47 + 5)));
        line.assert_kept(line.frames(192), &ended);
    }
}

#[test]
fn the_longest_duration_is_exact_to_the_sample() {
    for setup in Setup::all() {
        let mut line = setup.start(request());
        line.pass_preamble();
        line.speak(199);
        let ended = line.hear(Speech::Run { frames: 200, quiet: 0 }, None).unwrap();
        assert_eq!(ended.end, OperationEnd::MaxRecordDurationReached);
        assert_eq!(ended.clip, figures(200, 200, Some(200)));
        line.assert_kept(line.frames(200), &ended);
    }
}

#[test]
fn by_default_who_says_nothing_has_left_no_message() {
    for (initial, expected) in
        [(4, OperationEnd::InitialSilenceTimeout), (5, OperationEnd::MaxRecordDurationReached)]
    {
        for setup in Setup::all() {
            let request = RecordRequest { initial_silence_seconds: initial, ..request() };
            let mut line = setup.start(request);
            line.pass_preamble();
            line.pass(4 * FRAMES_PER_SECOND - 1);
            assert_eq!(line.hear(Speech::None, None).unwrap().end, expected);
        }
    }
}

#[test]
fn cancel_and_hang_up_end_it_in_every_state() {
    for setup in Setup::all() {
        let preamble = setup.first_kept_tick();
        // Frames of speech, and of silence after it, that follow the preamble.
        let within = [(0, 0), (0, 20), (30, 0), (30, 5), (30, 20)];
        let before = (0..preamble).map(|ticks| (ticks, 0, 0));
        let points = before.chain(within.map(|(speech, silent)| (preamble, speech, silent)));
        for (ticks, speech, silent) in points {
            for hang_up in [false, true] {
                let mut line = setup.start(request());
                line.pass(ticks);
                assert_eq!(line.operation.is_recording(), ticks == preamble, "{setup:?} {ticks}");
                line.speak(speech);
                for n in 1..=silent {
                    let ended = match speech {
                        0 => line.hear(Speech::None, None),
                        _ => line.after_speech(speech, n),
                    };
                    assert_eq!(ended, None);
                }
                let operation = std::mem::replace(
                    &mut line.operation,
                    Operation::Echo(aftertone_core::operation::Echo::new()),
                );
                let ended = if hang_up { operation.hang_up() } else { operation.cancel() };
                let frames = (speech + silent) as usize;
                let expected = match (hang_up, frames) {
                    (false, _) => OperationEnd::Canceled,
                    (true, 0) => OperationEnd::HungUpWithoutAudio,
                    (true, _) => OperationEnd::HungUpWithAudio,
                };
                assert_eq!(ended.end, expected, "{setup:?} after {ticks}+{speech}+{silent}");
                line.assert_kept(line.frames(frames), &ended);
            }
        }
    }
}

#[test]
fn speech_that_began_before_the_clip_counts_from_its_start() {
    for setup in Setup::all().filter(|setup| setup.beep) {
        let mut line = setup.start(request());
        let preamble = setup.first_kept_tick() as u32;
        line.speak(preamble);
        assert!(line.kept.is_empty());
        assert_eq!(line.hear(Speech::Run { frames: preamble + 1, quiet: 0 }, None), None);
        assert_eq!(line.operation.cancel().clip, figures(1, 1, Some(1)));
    }
}

#[test]
fn speech_that_ended_before_the_clip_is_not_in_it() {
    for setup in Setup::all().filter(|setup| setup.beep) {
        let mut line = setup.start(request());
        line.pass_preamble();
        // The detector has not decided yet.
        for quiet in 1..=8 {
            assert_eq!(line.hear(Speech::Run { frames: 20 + quiet, quiet }, None), None);
        }
        line.pass(91);
        let ended = line.hear(Speech::None, None).unwrap();
        assert_eq!(ended.end, OperationEnd::InitialSilenceTimeout);
        assert_eq!(ended.clip, figures(100, 0, None));
    }
}

fn any_speech() -> impl Strategy<Value = Speech> {
    prop_oneof![
        2 => Just(Speech::None),
        2 => (1u32..400, 0u32..9).prop_map(|(frames, quiet)| Speech::Run { frames, quiet }),
        1 => (any::<u32>(), any::<u32>()).prop_map(|(frames, quiet)| Speech::Run { frames, quiet }),
    ]
}

fn any_tone() -> impl Strategy<Value = Option<(Tone, usize)>> {
    let tone = (0u8..16).prop_map(|code| Tone::from_event_code(code).unwrap());
    proptest::option::weighted(0.01, (tone, prop_oneof![0usize..320, any::<usize>()]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_heard_it_ends_once_and_in_time(
        (wide, prompt, beep, behind) in (any::<bool>(), any::<bool>(), any::<bool>(), 0u32..6),
        (initial, silence, duration) in (1u32..6, 1u32..6, 1u32..6),
        heard in proptest::collection::vec((any_speech(), any_tone()), 300),
        hang_up in any::<bool>(),
        give_up_after in 0usize..600,
    ) {
        let setup = Setup { rate: RATES[usize::from(wide)], prompt, beep, behind };
        let mut line = setup.start(RecordRequest {
            initial_silence_seconds: initial,
            max_silence_seconds: silence,
            max_duration_seconds: duration,
            ..request()
        });
        let longest = setup.first_kept_tick() + duration as usize * FRAMES_PER_SECOND;
        let mut ended = None;
        for (speech, tone) in heard.into_iter().take(give_up_after) {
            prop_assert!(line.tick < longest);
            ended = line.hear(speech, tone);
            if ended.is_some() {
                break;
            }
        }
        let kept = line.kept.len();
        if let Some(first) = &ended {
            // An ended operation that is fed by mistake neither ends again nor keeps anything.
            for _ in 0..10 {
                prop_assert_eq!(line.hear(Speech::Run { frames: 5, quiet: 0 }, Some((POUND, 0))), None);
            }
            prop_assert!(!line.operation.is_recording());
            prop_assert_eq!(line.kept.len(), kept);
            prop_assert!(!matches!(first.end, OperationEnd::Canceled | OperationEnd::Done));
        }
        let outcome = match hang_up {
            true => line.operation.hang_up(),
            false => line.operation.cancel(),
        };
        if let Some(first) = ended {
            prop_assert_eq!(&outcome, &first);
        }
        let clip = outcome.clip.unwrap();
        prop_assert_eq!(clip.duration_ms, kept as u64 * 1_000 / u64::from(setup.rate.hz()));
        prop_assert!(clip.speech_ms <= clip.duration_ms);
        prop_assert!(clip.speech_ended_at_ms.unwrap_or(0) <= clip.duration_ms);
        prop_assert!(clip.speech_ms <= clip.speech_ended_at_ms.unwrap_or(0));
        prop_assert!(kept <= duration as usize * setup.rate.hz() as usize);
    }
}
