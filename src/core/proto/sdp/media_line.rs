//! One `m=` line with the attributes that count for it, and its payload types.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use super::{
    description::{Attribute, Description, Media, trim, words},
    plan::Payload,
};
use crate::{audio::Codec, proto::rtp::PayloadType};

/// The usual clock rate of telephone events, in Hz.
pub(super) const EVENT_CLOCK: u32 = 8_000;
/// The encoding name of telephone events.
pub(super) const EVENT: &str = "telephone-event";
/// The clock rates that audio has, in Hz. RFC 8866 section 9 allows positive integers only; other
/// rates are taken for mistakes.
const CLOCKS: RangeInclusive<u32> = 8_000..=192_000;

impl Codec {
    pub(super) fn encoding(self) -> &'static str {
        match self {
            Self::Opus => "opus/48000/2",
            Self::Pcma => "PCMA/8000",
            Self::Pcmu => "PCMU/8000",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcma => "PCMA",
            Self::Pcmu => "PCMU",
        }
    }

    /// Whether an encoding with this many channels is the codec. Opus always has two (RFC 7587
    /// section 7), but some peers leave the number out or write 1, and mean the same.
    fn may_have(self, channels: u32) -> bool {
        match self {
            Self::Opus => matches!(channels, 1 | 2),
            Self::Pcma | Self::Pcmu => channels == 1,
        }
    }

    /// RFC 3551 section 6, table 4.
    pub(super) fn static_payload_type(self) -> Option<PayloadType> {
        match self {
            Self::Opus => None,
            Self::Pcma => Some(PayloadType::PCMA),
            Self::Pcmu => Some(PayloadType::PCMU),
        }
    }
}

/// Lines of audio in a description of which the attributes of the session count.
const MAX_AUDIO_WITH_SESSION: usize = 4;

/// A media line with the attributes of its session.
#[derive(Clone, Copy)]
pub(super) struct MediaLine<'a> {
    pub(super) media: &'a Media,
    session: &'a [Attribute],
}

impl<'a> MediaLine<'a> {
    /// The attributes of the session are read anew for each line, so they count only in
    /// descriptions with few lines of audio.
    pub(super) fn of(description: &'a Description, media: &'a Media) -> Self {
        let audio = description.media.iter().filter(|media| media.is_audio() && media.port != 0);
        let session: &[Attribute] =
            if audio.count() > MAX_AUDIO_WITH_SESSION { &[] } else { &description.attributes };
        Self { media, session }
    }

    /// The values of the attributes with this name: those of the medium, then those of the session,
    /// which count where the medium has none.
    pub(super) fn values(self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let attributes = self.media.attributes.iter().chain(self.session);
        attributes
            .filter(move |attribute| attribute.name.eq_ignore_ascii_case(name))
            .filter_map(|attribute| attribute.value.as_deref())
    }

    /// The payload types of the line, each once, in the order of the line. Each format and each
    /// `rtpmap` of the line is read once, and those of the session for at most
    /// [`MAX_AUDIO_WITH_SESSION`] lines, so the time grows with the length of the description.
    pub(super) fn formats(self) -> impl Iterator<Item = Format<'a>> {
        let mut maps = BTreeMap::new();
        for map in self.values("rtpmap") {
            let number = words(map).next().unwrap_or_default();
            let encoding = map.get(number.len()..).unwrap_or_default();
            let number = payload_type(number.trim_end_matches([',', ';', ':']));
            if let (Some(number), Some(_)) = (number, words(encoding).next()) {
                maps.entry(number).or_insert(trim(encoding));
            }
        }
        let mut seen = BTreeSet::new();
        self.media.formats.iter().filter_map(move |format| {
            let payload_type = payload_type(format).filter(|number| seen.insert(*number))?;
            let known = maps.get(&payload_type).copied().or(match payload_type {
                PayloadType::PCMU => Some(Codec::Pcmu.encoding()),
                PayloadType::PCMA => Some(Codec::Pcma.encoding()),
                _ => None,
            });
            Some(Format { payload_type, encoding: known.unwrap_or(format) })
        })
    }

    /// The payload types of the line with their meaning; `None` if we do not support it.
    pub(super) fn meanings(self) -> impl Iterator<Item = (PayloadType, Option<Payload>)> {
        self.formats().map(|format| (format.payload_type, format.payload()))
    }

    /// The payload types of the line that we support.
    pub(super) fn payloads(self) -> impl Iterator<Item = (PayloadType, Payload)> {
        self.meanings().filter_map(|(number, payload)| Some((number, payload?)))
    }
}

/// One payload type of a media line.
pub(super) struct Format<'a> {
    pub(super) payload_type: PayloadType,
    /// The encoding by `rtpmap`; without it, that of the static number, or the number itself.
    pub(super) encoding: &'a str,
}

impl Format<'_> {
    pub(super) fn codec(&self) -> Option<Codec> {
        let encoding = Encoding::parse(self.encoding)?;
        let all = [Codec::Opus, Codec::Pcma, Codec::Pcmu];
        all.into_iter().find(|codec| encoding.is_of(*codec))
    }

    /// The clock rate of telephone events. They have no channels, but some peers write `/1`.
    pub(super) fn event_clock(&self) -> Option<u32> {
        let encoding = Encoding::parse(self.encoding)?;
        encoding.is_named(EVENT).then_some(encoding.clock.unwrap_or(EVENT_CLOCK))
    }

    fn payload(&self) -> Option<Payload> {
        let event = || self.event_clock().map(|_| Payload::Event);
        self.codec().map(Payload::Sound).or_else(event)
    }
}

/// The parts of an encoding such as `opus/48000/2`.
#[derive(Debug)]
struct Encoding<'a> {
    name: &'a str,
    /// `None` if it is missing, or no clock rate of audio.
    clock: Option<u32>,
    channels: u32,
}

impl<'a> Encoding<'a> {
    /// What follows a semicolon or a comma belongs into `fmtp`. One channel need not be named.
    fn parse(text: &'a str) -> Option<Self> {
        let number = |part: Option<&str>| words(part?).next()?.parse::<u32>().ok();
        let mut parts = text.split([';', ',']).next()?.split('/');
        let name = words(parts.next()?).next()?;
        let clock = number(parts.next()).filter(|clock| CLOCKS.contains(clock));
        let channels = number(parts.next()).filter(|channels| *channels != 0).unwrap_or(1);
        Some(Self { name, clock, channels })
    }

    /// RFC 8866 section 6.6: names are compared without case.
    fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn is_of(&self, codec: Codec) -> bool {
        let has_clock = self.clock.is_none_or(|clock| clock == codec.clock_rate());
        self.is_named(codec.name()) && has_clock && codec.may_have(self.channels)
    }
}

/// RFC 3551 section 6: a payload type has seven bits.
fn payload_type(word: &str) -> Option<PayloadType> {
    word.parse().ok().and_then(PayloadType::new)
}
