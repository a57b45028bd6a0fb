//! Offer and answer (RFC 3264) for one audio stream.
//!
//! In: the offer of the peer, and what we support. Out: our answer and a [`StreamPlan`] for the
//! media. The first audio line that we support is accepted; every other line is answered with port
//! 0.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
};

use super::description::{Attribute, Description, Media, ParseError, trim, words};
use crate::{audio::Codec, proto::rtp::PayloadType};

/// Our side of a session.
#[derive(Debug, Clone)]
pub struct LocalMedia {
    /// The address in our description.
    pub address: IpAddr,
    /// Our RTP port; RTCP uses the next one.
    pub port: u16,
    /// The codecs in our order of preference.
    pub codecs: Vec<Codec>,
    /// Session id of our `o=` line.
    pub session_id: u64,
    /// The version of our `o=` line; grows by one with each new description.
    pub session_version: u64,
}

/// The result of offer and answer for the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    /// The codec that we send.
    pub codec: Codec,
    /// Its payload type.
    pub payload_type: PayloadType,
    /// The payload type with which we send telephone events (RFC 4733), if agreed.
    pub telephone_event: Option<PayloadType>,
    /// What the peer may send, by payload type. This includes each codec in an answer of the peer,
    /// which it may use at any time, possibly under a number other than the one that we send with.
    /// It also includes codecs that either side offered under a static number, and telephone events
    /// that the peer offered, even if they were not answered.
    pub heard: Vec<(PayloadType, Payload)>,
    /// The payload types of the peer's line, each once, with their meaning; `None` if we do not
    /// support it. Our later offers give none of these numbers another meaning.
    pub named: Vec<(PayloadType, Option<Payload>)>,
    /// Where our RTP goes; `None` if the description names no usable IP address (hold by 0.0.0.0, a
    /// host name, multicast).
    pub remote: Option<SocketAddr>,
    /// The RTP port on the host that the peer's SIP comes from. RTP goes there if the description
    /// gives a host name, which RFC 8866 section 5.7 allows, or no address at all. The name is not
    /// resolved: a peer could choose any host by it.
    pub port_at_sip_host: Option<u16>,
    /// Where our RTCP goes.
    pub remote_rtcp: Option<SocketAddr>,
    /// The direction, as seen from our side.
    pub direction: Direction,
    /// The packet duration that the peer wants, 10 to 60 ms.
    pub ptime_ms: u32,
    /// Whether RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
}

impl StreamPlan {
    /// What the peer may send under this payload type.
    pub fn meaning_of(&self, payload_type: PayloadType) -> Option<Payload> {
        let heard = self.heard.iter().find(|(number, _)| *number == payload_type);
        heard.map(|(_, payload)| *payload)
    }
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Audio.
    Sound(Codec),
    /// Telephone events.
    Event,
}

/// The direction of the media, as seen from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// From us only.
    SendOnly,
    /// From the peer only.
    RecvOnly,
    /// Neither way.
    Inactive,
}

/// Why no session can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// No audio line at all, or refused ones only.
    #[error("no audio was offered")]
    NoAudio,
    /// Audio over a transport that we do not support.
    #[error("audio was offered by {0} only, RTP/AVP or RTP/AVPF is needed")]
    Transport(String),
    /// No codec that we support.
    #[error("no codec in common; offered were {0}")]
    NoCodec(String),
    /// The answer does not fit our offer.
    #[error("the answer does not fit the offer")]
    BadAnswer,
    /// The `c=` line of the audio cannot be read.
    #[error(transparent)]
    BadAddress(#[from] ParseError),
}

/// Answers an offer.
///
/// # Errors
/// The offer contains nothing that we support.
pub fn negotiate(
    offer: &Description,
    local: &LocalMedia,
) -> Result<(Description, StreamPlan), NegotiationError> {
    let mut refusal = NegotiationError::NoAudio;
    let mut chosen = None;
    for (index, media) in offer.media.iter().enumerate() {
        match choose(offer, media, &local.codecs) {
            Ok(plan) => {
                chosen = Some((index, plan));
                break;
            }
            // The first audio line that fails gives the reason; later ones help less.
            Err(error) if refusal == NegotiationError::NoAudio => refusal = error,
            Err(_) => {}
        }
    }
    let (index, plan) = chosen.ok_or(refusal)?;
    let media = offer
        .media
        .iter()
        .enumerate()
        .map(|(at, offered)| {
            if at == index {
                accepted(local, &plan, MediaLine::of(offer, offered))
            } else {
                refused(offered)
            }
        })
        .collect();
    Ok((description(local, media), plan))
}

/// Answers an offer that suspends the audio of a session: its audio line has port 0 (RFC 3264
/// section 8.2), and no other line could take its place. `plan` is the agreed plan, `described` our
/// last description. Our line keeps its payload types, because a later offer may resume it. `None`
/// if this is any other offer: a peer that wants fax in place of audio, for example, has to be
/// refused.
pub fn suspend(
    offer: &Description,
    local: &LocalMedia,
    plan: &StreamPlan,
    described: &Description,
) -> Option<(Description, StreamPlan)> {
    let ours = our_line(described);
    // A line that we have refused before and still cannot use is no proposal: peers repeat it.
    let was_refused =
        |at| Some(at) != ours && described.media.get(at).is_some_and(|line: &Media| !is_ours(line));
    let may_carry_audio = |(at, line): (usize, &Media)| {
        let is_usable = || choose(offer, line, &local.codecs).is_ok();
        let is_audio = line.is_audio() && (!was_refused(at) || is_usable());
        line.port != 0 && (is_audio || is_image(line))
    };
    let is_silent = offer.media.iter().any(|line| line.is_audio() && line.port == 0);
    if !is_silent || offer.media.iter().enumerate().any(may_carry_audio) {
        return None;
    }
    let media = offer.media.iter().enumerate().map(|(at, offered)| {
        let line = described.media.get(at).filter(|_| Some(at) == ours && offered.is_audio());
        line.map_or_else(|| refused(offered), |line| Media { port: 0, ..line.clone() })
    });
    Some((description(local, media.collect()), suspended(plan)))
}

/// The plan of a suspended session.
fn suspended(plan: &StreamPlan) -> StreamPlan {
    StreamPlan {
        remote: None,
        port_at_sip_host: None,
        remote_rtcp: None,
        direction: Direction::Inactive,
        ..plan.clone()
    }
}

/// Whether a line may carry fax (T.38 annex D) in place of audio.
fn is_image(line: &Media) -> bool {
    line.kind.eq_ignore_ascii_case("image")
}

/// Makes the first offer of a session: all that we support.
pub fn make_offer(local: &LocalMedia) -> Description {
    let mut offered: Vec<(PayloadType, Codec)> = Vec::new();
    for (codec, free) in local.codecs.iter().zip(PayloadType::dynamic()) {
        if offered.iter().all(|(_, other)| other != codec) {
            offered.push((codec.static_payload_type().unwrap_or(free), *codec));
        }
    }
    let event = Some((PayloadType::TELEPHONE_EVENT, EVENT_CLOCK));
    let media = offered_audio(audio(local, AVP), &offered, event);
    description(local, vec![media])
}

/// Makes a later offer: as many lines as our last description `before`, in the same order, and no
/// payload type with a new meaning (RFC 3264 sections 8 and 8.3.2). `named` are the payload types
/// of the peer, which may have used numbers in a part that our answer did not accept. A codec that
/// would need a new number is left out.
pub fn make_offer_again(
    local: &LocalMedia,
    before: &Description,
    named: &[(PayloadType, Option<Payload>)],
) -> Description {
    let index = our_line(before);
    let media = before
        .media
        .iter()
        .enumerate()
        .map(|(at, line)| {
            if Some(at) == index {
                offered_audio_again(local, MediaLine::of(before, line), named)
            } else {
                refused(line)
            }
        })
        .collect();
    description(local, media)
}

/// Accepts the answer to our offer. It may contain several codecs, and the peer may switch among
/// them without signalling (RFC 3264 sections 5.1 and 6.1). We send the first one.
///
/// # Errors
/// The answer does not fit the offer, or has no audio or no codec that we offered.
pub fn accept_answer(
    offer: &Description,
    answer: &Description,
) -> Result<StreamPlan, NegotiationError> {
    let (ours, theirs) = audio_lines(offer, answer)?;
    let ours = MediaLine::of(offer, ours);
    let codecs: Vec<Codec> = ours.formats().filter_map(|format| format.codec()).collect();
    let plan = choose(answer, theirs, &codecs)?;
    Ok(StreamPlan { heard: heard(ours, MediaLine::of(answer, theirs)), ..plan })
}

/// Accepts the answer to a later offer of ours; `plan` is the agreed plan. An answer that refuses
/// the audio by port 0 suspends the session, as an offer does by [`suspend`].
///
/// # Errors
/// The answer does not fit the offer, or has no codec that we offered.
pub fn accept_answer_again(
    offer: &Description,
    answer: &Description,
    plan: &StreamPlan,
) -> Result<StreamPlan, NegotiationError> {
    match audio_lines(offer, answer)? {
        (_, theirs) if theirs.is_audio() && theirs.port == 0 => Ok(suspended(plan)),
        _ => accept_answer(offer, answer),
    }
}

/// Our active line, and the line of the answer that belongs to it. An answer has as many lines as
/// the offer (RFC 3264 section 6). Some peers add refused lines for media that they know; these do
/// no harm and are passed over, wherever they stand.
fn audio_lines<'a>(
    offer: &'a Description,
    answer: &'a Description,
) -> Result<(&'a Media, &'a Media), NegotiationError> {
    const BAD: NegotiationError = NegotiationError::BadAnswer;
    let mut surplus = answer.media.len().checked_sub(offer.media.len()).ok_or(BAD)?;
    let mut rest = &answer.media[..];
    let mut found = None;
    for ours in &offer.media {
        let fits = |line: &Media| line.kind.eq_ignore_ascii_case(&ours.kind);
        let (theirs, after) = loop {
            let (line, after) = rest.split_first().ok_or(BAD)?;
            let is_better = |line: &Media| fits(line) && line.port != 0;
            let is_extra = !fits(line) || is_ours(ours) && after.iter().any(is_better);
            if surplus == 0 || line.port != 0 || !is_extra {
                break (line, after);
            }
            surplus -= 1;
            rest = after;
        };
        rest = after;
        if is_ours(ours) && found.is_none() {
            found = Some((ours, theirs));
        }
    }
    if rest.iter().all(|line| line.port == 0) { found.ok_or(BAD) } else { Err(BAD) }
}

/// What the peer may send after its answer. It has to use the payload types of our offer; those of
/// the answer are for what we send (RFC 3264 section 5.1). Some peers use their own for both
/// directions, so those are accepted too where our offer has no other use for them. A static number
/// has a fixed meaning, so it is accepted as soon as it was offered. Each number occurs once,
/// however long the answer is.
fn heard(ours: MediaLine<'_>, theirs: MediaLine<'_>) -> Vec<(PayloadType, Payload)> {
    let offered: Vec<(PayloadType, Payload)> = ours.payloads().collect();
    let answered: Vec<(PayloadType, Payload)> = theirs.payloads().collect();
    let is_answered = |payload| answered.iter().any(|(_, answered)| *answered == payload);
    let is_offered = |payload| offered.iter().any(|(_, offered)| *offered == payload);
    let mut heard = offered.clone();
    heard.retain(|(_, payload)| is_answered(*payload));
    for &(number, payload) in &answered {
        let is_free = offered.iter().chain(&heard).all(|(taken, _)| *taken != number);
        if is_free && is_offered(payload) {
            heard.push((number, payload));
        }
    }
    add_free(&mut heard, ours.payloads().filter(is_static));
    heard
}

/// Whether the payload type has this meaning by RFC 3551, without `rtpmap`.
fn is_static((number, payload): &(PayloadType, Payload)) -> bool {
    matches!(payload, Payload::Sound(codec) if codec.static_payload_type() == Some(*number))
}

/// Adds payload types to the list that are not in it yet.
fn add_free(
    heard: &mut Vec<(PayloadType, Payload)>,
    more: impl Iterator<Item = (PayloadType, Payload)>,
) {
    for (number, payload) in more {
        if heard.iter().all(|(taken, _)| *taken != number) {
            heard.push((number, payload));
        }
    }
}

/// The index of our active line in our own description; if the session is suspended, of its audio
/// line. That line keeps its attributes; refused lines have none.
fn our_line(described: &Description) -> Option<usize> {
    let lines = &described.media;
    let is_suspended = |line: &Media| line.is_audio() && !line.attributes.is_empty();
    lines.iter().position(is_ours).or_else(|| lines.iter().position(is_suspended))
}

/// Whether a line of our own description is the active one: all others are refused.
fn is_ours(line: &Media) -> bool {
    line.port != 0
}

/// Our line in a later offer. Each payload type occurs once, and keeps its meaning.
fn offered_audio_again(
    local: &LocalMedia,
    before: MediaLine<'_>,
    named: &[(PayloadType, Option<Payload>)],
) -> Media {
    let mut meanings: BTreeMap<PayloadType, Option<Payload>> = before.meanings().collect();
    for (number, meaning) in named {
        meanings.entry(*number).or_insert(*meaning);
    }
    let mut offered: Vec<(PayloadType, Codec)> = before
        .formats()
        .filter_map(|format| Some((format.payload_type, format.codec()?)))
        .filter(|(_, codec)| local.codecs.contains(codec))
        .collect();
    for codec in &local.codecs {
        let is_new = offered.iter().all(|(_, other)| other != codec);
        let Some(number) = codec.static_payload_type().filter(|_| is_new) else { continue };
        let meaning = meanings.entry(number).or_insert(Some(Payload::Sound(*codec)));
        if *meaning == Some(Payload::Sound(*codec)) {
            offered.push((number, *codec));
        }
    }
    let agreed =
        before.formats().find_map(|format| Some((format.payload_type, format.event_clock()?)));
    let dynamic = iter::once(PayloadType::TELEPHONE_EVENT).chain(PayloadType::dynamic());
    let free = || dynamic.clone().find(|number| !meanings.contains_key(number));
    let event = agreed.or_else(|| Some((free()?, EVENT_CLOCK)));
    offered_audio(audio(local, transport(before.media).unwrap_or(AVP)), &offered, event)
}

fn offered_audio(
    mut media: Media,
    codecs: &[(PayloadType, Codec)],
    event: Option<(PayloadType, u32)>,
) -> Media {
    for (pt, codec) in codecs {
        media.formats.push(pt.to_string());
        media.attributes.push(Attribute::valued("rtpmap", format!("{pt} {}", codec.encoding())));
    }
    if let Some((number, clock)) = event {
        add_event(&mut media, number, clock);
    }
    media.attributes.push(Attribute::valued("ptime", "20"));
    media.attributes.push(Attribute::flag("sendrecv"));
    media
}

/// Adds telephone events for all keys (RFC 4733 section 2.5.1).
fn add_event(media: &mut Media, event: PayloadType, clock: u32) {
    media.formats.push(event.to_string());
    let map = format!("{event} {EVENT}/{clock}");
    media.attributes.push(Attribute::valued("rtpmap", map));
    media.attributes.push(Attribute::valued("fmtp", format!("{event} 0-15")));
}

/// The transports that we support. What RTP/AVPF adds is allowed but not required (RFC 4585 section
/// 5).
const AVP: &str = "RTP/AVP";
const AVPF: &str = "RTP/AVPF";

/// The transport of a line, if we support it.
fn transport(media: &Media) -> Option<&'static str> {
    [AVP, AVPF].into_iter().find(|known| media.protocol.eq_ignore_ascii_case(known))
}

/// The usual clock rate of telephone events, in Hz.
const EVENT_CLOCK: u32 = 8_000;
/// The encoding name of telephone events.
const EVENT: &str = "telephone-event";
/// The clock rates that audio has, in Hz. RFC 8866 section 9 allows positive integers only; other
/// rates are taken for mistakes.
const CLOCKS: RangeInclusive<u32> = 8_000..=192_000;
const PTIME_MS: u32 = 20;

impl Codec {
    fn encoding(self) -> &'static str {
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
    fn static_payload_type(self) -> Option<PayloadType> {
        match self {
            Self::Opus => None,
            Self::Pcma => Some(PayloadType::PCMA),
            Self::Pcmu => Some(PayloadType::PCMU),
        }
    }
}

impl Direction {
    /// Whether media flows from us to the peer.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether media flows from the peer to us.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same direction without our sending.
    pub fn without_sending(self) -> Self {
        if self.receives() { Self::RecvOnly } else { Self::Inactive }
    }

    fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    fn from_attribute(name: &str) -> Option<Self> {
        let all = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];
        all.into_iter().find(|direction| direction.attribute().eq_ignore_ascii_case(name))
    }

    /// The same direction, as seen from the other side.
    fn mirrored(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same @ (Self::SendRecv | Self::Inactive) => same,
        }
    }
}

/// Lines of audio in a description of which the attributes of the session count.
const MAX_AUDIO_WITH_SESSION: usize = 4;

/// A media line with the attributes of its session.
#[derive(Clone, Copy)]
struct MediaLine<'a> {
    media: &'a Media,
    session: &'a [Attribute],
}

impl<'a> MediaLine<'a> {
    /// The attributes of the session are read anew for each line, so they count only in
    /// descriptions with few lines of audio.
    fn of(description: &'a Description, media: &'a Media) -> Self {
        let audio = description.media.iter().filter(|media| media.is_audio() && media.port != 0);
        let session: &[Attribute] =
            if audio.count() > MAX_AUDIO_WITH_SESSION { &[] } else { &description.attributes };
        Self { media, session }
    }

    /// The values of the attributes with this name: those of the medium, then those of the session,
    /// which count where the medium has none.
    fn values(self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let attributes = self.media.attributes.iter().chain(self.session);
        attributes
            .filter(move |attribute| attribute.name.eq_ignore_ascii_case(name))
            .filter_map(|attribute| attribute.value.as_deref())
    }

    /// The payload types of the line, each once, in the order of the line. Each format and each
    /// `rtpmap` of the line is read once, and those of the session for at most
    /// [`MAX_AUDIO_WITH_SESSION`] lines, so the time grows with the length of the description.
    fn formats(self) -> impl Iterator<Item = Format<'a>> {
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
    fn meanings(self) -> impl Iterator<Item = (PayloadType, Option<Payload>)> {
        self.formats().map(|format| (format.payload_type, format.payload()))
    }

    /// The payload types of the line that we support.
    fn payloads(self) -> impl Iterator<Item = (PayloadType, Payload)> {
        self.meanings().filter_map(|(number, payload)| Some((number, payload?)))
    }
}

/// One payload type of a media line.
struct Format<'a> {
    payload_type: PayloadType,
    /// The encoding by `rtpmap`; without it, that of the static number, or the number itself.
    encoding: &'a str,
}

impl Format<'_> {
    fn codec(&self) -> Option<Codec> {
        let encoding = Encoding::parse(self.encoding)?;
        let all = [Codec::Opus, Codec::Pcma, Codec::Pcmu];
        all.into_iter().find(|codec| encoding.is_of(*codec))
    }

    /// The clock rate of telephone events. They have no channels, but some peers write `/1`.
    fn event_clock(&self) -> Option<u32> {
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

/// The plan for a media line, if we accept it.
fn choose(
    description: &Description,
    media: &Media,
    codecs: &[Codec],
) -> Result<StreamPlan, NegotiationError> {
    if !media.is_audio() || media.port == 0 {
        return Err(NegotiationError::NoAudio);
    }
    if transport(media).is_none() {
        return Err(NegotiationError::Transport(media.protocol.clone()));
    }
    let line = MediaLine::of(description, media);
    let chosen = line
        .formats()
        .find_map(|format| {
            let codec = format.codec().filter(|codec| codecs.contains(codec))?;
            Some((codec, format.payload_type))
        })
        .ok_or_else(|| {
            let offered: Vec<_> = line.formats().map(|format| format.encoding).take(8).collect();
            NegotiationError::NoCodec(offered.join(", "))
        })?;
    let (codec, payload_type) = chosen;
    // RFC 4733 section 2.1 requires the clock rate of the audio. Softphones that offer Opus often
    // offer events at 8,000 Hz only, and still send them with the clock rate of the audio.
    let events: Vec<(PayloadType, u32)> = line
        .formats()
        .filter_map(|format| Some((format.payload_type, format.event_clock()?)))
        .collect();
    let event = |clock| events.iter().find(|(_, offered)| *offered == clock);
    let telephone_event = event(codec.clock_rate())
        .or_else(|| event(EVENT_CLOCK))
        .or(events.first())
        .map(|(number, _)| *number);
    let address = description.address_of(media)?;
    let is_hold = address.is_some_and(is_nowhere);
    let address: Option<IpAddr> = address.and_then(|address| address.parse().ok());
    let port_at_sip_host = (address.is_none() && !is_hold).then_some(media.port);
    let remote =
        address.filter(|address| is_usable(*address)).map(|ip| SocketAddr::new(ip, media.port));
    let rtcp_mux = media.has("rtcp-mux");
    let remote_rtcp = remote.and_then(|remote| {
        let own = media.values("rtcp").find_map(|value| words(value).next()?.parse().ok());
        let port = if rtcp_mux {
            Some(remote.port())
        } else {
            own.filter(|port| *port != 0).or(remote.port().checked_add(1))
        };
        Some(SocketAddr::new(remote.ip(), port?))
    });
    let direction = media
        .attributes
        .iter()
        .rev()
        .chain(description.attributes.iter().rev())
        .find_map(|attribute| Direction::from_attribute(&attribute.name))
        .unwrap_or(Direction::SendRecv);
    let direction = if is_hold { Direction::Inactive } else { direction.mirrored() };
    let event = telephone_event.map(|number| (number, Payload::Event));
    let mut heard = Vec::from_iter(iter::once((payload_type, Payload::Sound(codec))).chain(event));
    // Some peers send the other G.711 law, or their other payload type for keys, than was answered.
    let is_certain =
        |offered: &(PayloadType, Payload)| is_static(offered) || offered.1 == Payload::Event;
    add_free(&mut heard, line.payloads().filter(is_certain));
    Ok(StreamPlan {
        codec,
        payload_type,
        telephone_event,
        heard,
        named: line.meanings().collect(),
        remote,
        port_at_sip_host,
        remote_rtcp,
        direction,
        ptime_ms: ptime(line),
        rtcp_mux,
    })
}

/// The packet duration that the peer wants: a multiple of 10 from 10 to 60 ms. A fraction is
/// allowed, zero is not (RFC 8866 section 6.4).
fn ptime(line: MediaLine<'_>) -> u32 {
    let mut wanted = line.values("ptime").filter_map(milliseconds);
    let wanted = wanted.find(|wanted| *wanted != 0).unwrap_or(PTIME_MS);
    let most = line.values("maxptime").find_map(milliseconds).unwrap_or(60).clamp(10, 60);
    let fits = wanted.clamp(10, most);
    fits - fits % 10
}

/// The whole milliseconds of a number that may have a fraction.
fn milliseconds(value: &str) -> Option<u32> {
    let word = words(value).next()?;
    let (whole, fraction) = word.split_once('.').unwrap_or((word, ""));
    let is_number = fraction.bytes().all(|byte| byte.is_ascii_digit());
    whole.parse().ok().filter(|_| is_number)
}

/// Whether an address means hold: the unspecified address of either family (RFC 2543), or a name
/// under `.invalid` (RFC 6761 section 6.4), used because IPv6 defines no such address.
fn is_nowhere(address: &str) -> bool {
    let is_zero = address.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_unspecified());
    let end = address.trim_end_matches('.').rsplit('.').next();
    is_zero || end.is_some_and(|label| label.eq_ignore_ascii_case("invalid"))
}

/// Whether RTP may be sent to the address: not if it is multicast, broadcast or unspecified.
fn is_usable(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4 == Ipv4Addr::BROADCAST);
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

fn accepted(local: &LocalMedia, plan: &StreamPlan, offered: MediaLine<'_>) -> Media {
    let mut media = audio(local, transport(offered.media).unwrap_or(AVP));
    let pt = plan.payload_type;
    media.formats.push(pt.to_string());
    media.attributes.push(Attribute::valued("rtpmap", format!("{pt} {}", plan.codec.encoding())));
    if plan.codec == Codec::Opus {
        media.attributes.push(Attribute::valued("fmtp", format!("{pt} useinbandfec=1")));
    }
    let event = plan.telephone_event.and_then(|number| {
        let mut formats = offered.formats();
        let clock = formats.find(|format| format.payload_type == number)?.event_clock()?;
        Some((number, clock))
    });
    if let Some((number, clock)) = event {
        add_event(&mut media, number, clock);
    }
    media.attributes.push(Attribute::valued("ptime", plan.ptime_ms.to_string()));
    if plan.rtcp_mux {
        media.attributes.push(Attribute::flag("rtcp-mux"));
    }
    media.attributes.push(Attribute::flag(plan.direction.attribute()));
    media
}

/// RFC 3264 section 6: a refused line keeps its kind, its transport and at least one format. If it
/// has no format, one is added (RFC 8866 section 9).
fn refused(offered: &Media) -> Media {
    let format = offered.formats.first().map_or("0", String::as_str);
    Media {
        kind: offered.kind.clone(),
        port: 0,
        protocol: offered.protocol.clone(),
        formats: vec![format.to_owned()],
        connection: None,
        unreadable_connection: None,
        attributes: Vec::new(),
    }
}

fn audio(local: &LocalMedia, transport: &str) -> Media {
    Media {
        kind: "audio".to_owned(),
        port: local.port,
        protocol: transport.to_owned(),
        formats: Vec::new(),
        connection: None,
        unreadable_connection: None,
        attributes: Vec::new(),
    }
}

fn description(local: &LocalMedia, media: Vec<Media>) -> Description {
    let family = if local.address.is_ipv4() { "IP4" } else { "IP6" };
    let LocalMedia { session_id, session_version, address, .. } = local;
    Description {
        origin: format!("aftertone {session_id} {session_version} IN {family} {address}"),
        connection: Some(address.to_string()),
        unreadable_connection: None,
        attributes: Vec::new(),
        media,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pt(number: u8) -> PayloadType {
        PayloadType::new(number).unwrap()
    }

    fn local() -> LocalMedia {
        LocalMedia {
            address: "198.51.100.7".parse().unwrap(),
            port: 20_000,
            codecs: vec![Codec::Opus, Codec::Pcma, Codec::Pcmu],
            session_id: 1,
            session_version: 1,
        }
    }

    fn offer(lines: &str) -> Description {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}"
        );
        Description::parse(text.as_bytes()).unwrap()
    }

    fn answer(lines: &str) -> (String, StreamPlan) {
        let (answer, plan) = negotiate(&offer(lines), &local()).unwrap();
        (answer.to_string(), plan)
    }

    #[test]
    fn the_offerers_order_and_numbers_are_kept() {
        let (text, plan) = answer(
            "m=audio 4000 RTP/AVP 97 8 0 120\r\na=rtpmap:97 iLBC/8000\r\n\
             a=rtpmap:120 telephone-event/8000\r\na=ptime:30\r\n",
        );
        assert_eq!((plan.codec, plan.payload_type), (Codec::Pcma, pt(8)));
        assert_eq!(plan.telephone_event, Some(pt(120)));
        assert_eq!(plan.remote, Some("192.0.2.1:4000".parse().unwrap()));
        assert_eq!(plan.remote_rtcp, Some("192.0.2.1:4001".parse().unwrap()));
        assert_eq!(plan.ptime_ms, 30);
        assert!(text.contains("m=audio 20000 RTP/AVP 8 120\r\n"), "{text}");
        assert!(text.contains("a=rtpmap:120 telephone-event/8000\r\n"), "{text}");
        assert!(text.contains("a=sendrecv\r\n"), "{text}");
    }

    #[test]
    fn opus_goes_with_events_of_its_own_clock() {
        let (text, plan) = answer(
            "m=audio 4000 RTP/AVP 111 0 101 102\r\na=rtpmap:111 opus/48000/2\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n",
        );
        assert_eq!((plan.codec, plan.payload_type), (Codec::Opus, pt(111)));
        assert_eq!(plan.telephone_event, Some(pt(102)));
        assert!(text.contains("m=audio 20000 RTP/AVP 111 102\r\n"), "{text}");
    }

    #[test]
    fn events_of_the_wrong_clock_are_better_than_none() {
        let (text, plan) = answer(
            "m=audio 4000 RTP/AVP 111 101\r\na=rtpmap:111 opus/48000/2\r\n\
             a=rtpmap:101 telephone-event/8000\r\n",
        );
        assert_eq!(plan.telephone_event, Some(pt(101)));
        assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\n"), "{text}");
    }

    #[test]
    fn other_lines_are_answered_with_port_0_in_their_order() {
        let (text, _) = answer(
            "m=video 5000 RTP/AVP 96\r\nm=audio 0 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 0\r\n\
             m=audio 4002 RTP/AVP 8\r\n",
        );
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(
            lines,
            [
                "m=video 0 RTP/AVP 96",
                "m=audio 0 RTP/AVP 0",
                "m=audio 20000 RTP/AVP 0",
                "m=audio 0 RTP/AVP 8"
            ]
        );
    }

    #[test]
    fn the_three_styles_of_hold() {
        for (lines, direction, attribute) in [
            ("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", Direction::RecvOnly, "a=recvonly"),
            ("m=audio 4000 RTP/AVP 0\r\na=inactive\r\n", Direction::Inactive, "a=inactive"),
            ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n", Direction::Inactive, "a=inactive"),
            ("a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n", Direction::RecvOnly, "a=recvonly"),
            (
                "a=sendonly\r\nm=audio 4 RTP/AVP 0\r\na=sendrecv\r\n",
                Direction::SendRecv,
                "a=sendrecv",
            ),
        ] {
            let (text, plan) = answer(lines);
            assert_eq!(plan.direction, direction, "{lines}");
            assert!(text.contains(attribute), "{lines}: {text}");
        }
        let (_, plan) = answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
        assert_eq!(plan.remote, None);
    }

    #[test]
    fn nothing_is_sent_to_many_or_to_a_name() {
        for address in ["224.2.1.1/127", "255.255.255.255", "phone.example"] {
            let (_, plan) = answer(&format!("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 {address}\r\n"));
            assert_eq!((plan.remote, plan.remote_rtcp), (None, None), "{address}");
            let port = address.starts_with("phone").then_some(4000);
            assert_eq!(plan.port_at_sip_host, port, "{address}: a name has the host of SIP");
        }
        let (_, plan) = answer("m=audio 65535 RTP/AVP 0\r\n");
        assert_eq!(plan.remote_rtcp, None);
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        let refused = |lines: &str| negotiate(&offer(lines), &local()).unwrap_err().to_string();
        assert!(refused("m=audio 4000 RTP/AVP 3 18\r\na=rtpmap:18 G729/8000\r\n").contains("G729"));
        assert!(refused("m=audio 4000 RTP/SAVP 0\r\n").contains("RTP/SAVP"));
        assert!(refused("m=video 4000 RTP/AVP 0\r\n").contains("no audio"));
        assert!(refused("m=audio 4000 RTP/AVP 200 abc\r\n").contains("no codec"));
    }

    #[test]
    fn odd_packet_times_are_brought_into_range() {
        for (lines, expected) in [
            ("a=ptime:5\r\n", 10),
            ("a=ptime:200\r\n", 60),
            ("a=ptime:60\r\na=maxptime:40\r\n", 40),
            ("a=ptime:25\r\n", 20),
            ("a=maxptime:0\r\n", 10),
            ("a=ptime:x\r\n", 20),
        ] {
            let (_, plan) = answer(&format!("m=audio 4000 RTP/AVP 0\r\n{lines}"));
            assert_eq!(plan.ptime_ms, expected, "{lines}");
        }
    }

    #[test]
    fn a_later_offer_has_the_lines_and_the_numbers_of_the_session() {
        let (text, _) = answer(
            "m=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 115 97\r\n\
             a=rtpmap:115 opus/48000/2\r\na=rtpmap:97 telephone-event/48000\r\n",
        );
        let before = Description::parse(text.as_bytes()).unwrap();
        let again = make_offer_again(&local(), &before, &[]);
        let text = again.to_string();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
        assert_eq!(lines, ["m=video 0 RTP/AVP 96", "m=audio 20000 RTP/AVP 115 8 0 97"]);
        assert!(text.contains("a=rtpmap:115 opus/48000/2\r\n"), "{text}");
        assert!(text.contains("a=rtpmap:97 telephone-event/48000\r\n"), "{text}");
        assert!(text.contains("a=sendrecv\r\n"), "{text}");
        let theirs = offer(
            "m=video 0 RTP/AVP 96\r\nm=audio 4002 RTP/AVP 8 97\r\n\
             a=rtpmap:97 telephone-event/8000\r\n",
        );
        let plan = accept_answer(&again, &theirs).unwrap();
        assert_eq!((plan.codec, plan.telephone_event), (Codec::Pcma, Some(pt(97))));
        assert_eq!(plan.remote, Some("192.0.2.1:4002".parse().unwrap()));
        // The same again, from our last description.
        let third = make_offer_again(&local(), &again, &[]).to_string();
        assert_eq!(third.matches("m=").count(), 2, "{third}");
        assert!(third.contains("m=audio 20000 RTP/AVP 115 8 0 97\r\n"), "{third}");
    }

    #[test]
    fn a_codec_without_a_number_in_the_session_is_not_offered_later() {
        let (text, _) = answer("m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 iLBC/8000\r\n");
        let before = Description::parse(text.as_bytes()).unwrap();
        let again = make_offer_again(&local(), &before, &[]).to_string();
        assert!(again.contains("m=audio 20000 RTP/AVP 0 8 101\r\n"), "{again}");
    }

    #[test]
    fn all_that_an_answer_takes_of_our_offer_may_come() {
        let local = LocalMedia { codecs: vec![Codec::Opus, Codec::Pcmu], ..local() };
        let theirs = offer(
            "m=audio 4000 RTP/AVP 0 8 96 101\r\na=rtpmap:96 opus/48000/2\r\n\
             a=rtpmap:101 telephone-event/8000\r\n",
        );
        let plan = accept_answer(&make_offer(&local), &theirs).unwrap();
        assert_eq!((plan.codec, plan.payload_type), (Codec::Pcmu, pt(0)));
        let sound = Payload::Sound;
        let heard =
            [(pt(96), sound(Codec::Opus)), (pt(0), sound(Codec::Pcmu)), (pt(101), Payload::Event)];
        assert_eq!(plan.heard, heard, "A-law was not offered");
    }

    #[test]
    fn static_numbers_of_the_offer_may_come_whatever_was_answered() {
        let (mu, a) = ((pt(0), Payload::Sound(Codec::Pcmu)), (pt(8), Payload::Sound(Codec::Pcma)));
        let (_, plan) = answer("m=audio 4000 RTP/AVP 0 8\r\n");
        assert_eq!((plan.codec, plan.heard), (Codec::Pcmu, vec![mu, a]));
        let (_, plan) = answer(
            "m=audio 4000 RTP/AVP 111 8 101 102\r\na=rtpmap:111 opus/48000/2\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n",
        );
        let opus = (pt(111), Payload::Sound(Codec::Opus));
        assert_eq!(plan.heard, [opus, (pt(102), Payload::Event), a, (pt(101), Payload::Event)]);
        // Not accepted: payload types that were not offered, and those with another meaning in the
        // offer.
        let (_, plan) = answer("m=audio 4000 RTP/AVP 0\r\n");
        assert_eq!(plan.heard, [mu]);
        let (_, plan) = answer("m=audio 4000 RTP/AVP 8 0\r\na=rtpmap:0 telephone-event/8000\r\n");
        assert_eq!(plan.heard, [a, (pt(0), Payload::Event)]);
        // The same for our own offer.
        let plan = accept_answer(&make_offer(&local()), &offer("m=audio 4000 RTP/AVP 8\r\n"));
        assert_eq!(plan.unwrap().heard, [a, mu]);
    }

    #[test]
    fn numbers_of_an_answer_are_for_what_we_send() {
        let local = LocalMedia { codecs: vec![Codec::Opus, Codec::Pcmu], ..local() };
        let (opus, event) = (Payload::Sound(Codec::Opus), Payload::Event);
        let mu = (pt(0), Payload::Sound(Codec::Pcmu));
        for (numbers, heard) in [
            ((96, 101), vec![(96, opus), (101, event)]),
            ((111, 99), vec![(96, opus), (101, event), (111, opus), (99, event)]),
            // Payload types that have another meaning in our offer.
            ((101, 96), vec![(96, opus), (101, event)]),
        ] {
            let (sound, keys) = numbers;
            let theirs = offer(&format!(
                "m=audio 4000 RTP/AVP {sound} {keys}\r\na=rtpmap:{sound} opus/48000/2\r\n\
                 a=rtpmap:{keys} telephone-event/8000\r\n",
            ));
            let plan = accept_answer(&make_offer(&local), &theirs).unwrap();
            assert_eq!((plan.payload_type, plan.telephone_event), (pt(sound), Some(pt(keys))));
            let heard = heard.into_iter().map(|(number, payload)| (pt(number), payload));
            assert_eq!(plan.heard, Vec::from_iter(heard.chain([mu])));
        }
    }

    #[test]
    fn our_offer_is_answered_and_taken() {
        let ours = make_offer(&local());
        let peer = LocalMedia { codecs: vec![Codec::Pcmu], ..local() };
        let (theirs, plan) = negotiate(&ours, &peer).unwrap();
        assert_eq!(plan.codec, Codec::Pcmu);
        let accepted = accept_answer(&ours, &theirs).unwrap();
        assert_eq!((accepted.codec, accepted.payload_type), (Codec::Pcmu, pt(0)));
        assert_eq!(accepted.telephone_event, Some(pt(101)));
        let (mu, a) = (Payload::Sound(Codec::Pcmu), Payload::Sound(Codec::Pcma));
        assert_eq!(accepted.heard, [(pt(0), mu), (pt(101), Payload::Event), (pt(8), a)]);
        let refused = offer("m=audio 0 RTP/AVP 0\r\n");
        assert_eq!(accept_answer(&ours, &refused), Err(NegotiationError::NoAudio));
        assert_eq!(accept_answer(&ours, &offer("")), Err(NegotiationError::BadAnswer));
    }
}
