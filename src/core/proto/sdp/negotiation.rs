//! Offer and answer (RFC 3264) for one audio stream.
//!
//! In: the offer of the peer, and what we support. Out: our answer and a [`StreamPlan`] for the
//! media. The first audio line that we support is accepted, an encrypted one before others; every
//! other line is answered with port 0. An answer has the transport of its offer, and a call that is
//! encrypted stays so.

use std::{
    collections::BTreeMap,
    iter,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    crypto::{CryptoLine, MediaSecret, SrtpKeys, SrtpPolicy},
    description::{Attribute, Description, Media, ParseError, words},
    media_line::{EVENT, EVENT_CLOCK, MediaLine},
    plan::{Direction, Payload, StreamPlan},
};
use crate::{audio::Codec, model::EncryptionFault, proto::rtp::PayloadType};

/// Our side of a session.
#[derive(Debug, Clone)]
pub struct LocalMedia {
    /// The address in our description.
    pub address: IpAddr,
    /// Our RTP port; RTCP uses the next one.
    pub port: u16,
    /// The codecs in our order of preference.
    pub codecs: Vec<Codec>,
    /// Whether the audio is encrypted, and by which keys.
    pub security: LocalSecurity,
    /// Session id of our `o=` line.
    pub session_id: u64,
    /// The version of our `o=` line; grows by one with each new description.
    pub session_version: u64,
}

/// Our side of the encryption of a session.
#[derive(Debug, Clone)]
pub struct LocalSecurity {
    /// Whether audio is encrypted.
    pub policy: SrtpPolicy,
    /// Whether the session is encrypted already: then it stays so.
    pub is_encrypted: bool,
    /// Whether third parties cannot read our descriptions on the way. If they can, an offer with
    /// [`SrtpPolicy::Optional`] has no keys: they would protect nothing.
    pub is_signalling_encrypted: bool,
    /// What our keys are derived from.
    pub secret: MediaSecret,
}

impl LocalSecurity {
    /// For a new session over SIP that others can read.
    pub fn new(policy: SrtpPolicy, secret: MediaSecret) -> Self {
        Self { policy, is_encrypted: false, is_signalling_encrypted: false, secret }
    }
}

/// Why no session can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NegotiationError {
    /// No audio line at all, or refused ones only.
    #[error("no audio was offered")]
    NoAudio,
    /// Audio over a transport that we do not support.
    #[error("audio was offered by {0} only, RTP/AVP, AVPF, SAVP or SAVPF is needed")]
    Transport(String),
    /// The encryption of the audio cannot be agreed on.
    #[error("{0}")]
    Encryption(EncryptionFault),
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
    let mut chosen: Option<(usize, StreamPlan, Option<Attribute>)> = None;
    for (index, media) in offer.media.iter().enumerate() {
        match acceptable(offer, media, local) {
            Ok((plan, crypto)) => {
                let is_better = plan.srtp.is_some()
                    && chosen.as_ref().is_some_and(|(_, plan, _)| plan.srtp.is_none());
                if chosen.is_none() || is_better {
                    chosen = Some((index, plan, crypto));
                }
            }
            // The first audio line that fails gives the reason; later ones help less.
            Err(error) if refusal == NegotiationError::NoAudio => refusal = error,
            Err(_) => {}
        }
    }
    let (index, plan, crypto) = chosen.ok_or(refusal)?;
    let media = offer
        .media
        .iter()
        .enumerate()
        .map(|(at, offered)| {
            if at == index {
                accepted(local, &plan, crypto.clone(), MediaLine::of(offer, offered))
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
        let is_usable = || acceptable(offer, line, local).is_ok();
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
    let LocalSecurity { policy, is_signalling_encrypted, .. } = local.security;
    let (profile, has_keys) = match policy {
        SrtpPolicy::Off => (Profile::Avp, false),
        // RFC 8643: a peer that does not know the keys answers without them.
        SrtpPolicy::Optional => (Profile::Avp, is_signalling_encrypted),
        SrtpPolicy::Required => (Profile::Savp, true),
    };
    let mut media = offered_audio(audio(local, profile), &offered, event);
    if has_keys {
        let lines = CryptoLine::offered(&local.security.secret);
        media.attributes.extend(lines.map(|line| line.attribute()));
    }
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
    let srtp = answered_keys(ours, theirs)?;
    let ours = MediaLine::of(offer, ours);
    let codecs: Vec<Codec> = ours.formats().filter_map(|format| format.codec()).collect();
    let plan = choose(answer, theirs, &codecs)?;
    Ok(StreamPlan { heard: heard(ours, MediaLine::of(answer, theirs)), srtp, ..plan })
}

/// The keys of an answer to our offer. It repeats the tag and the suite of one of our lines
/// (RFC 4568 section 5.1.3). Without encryption in the offer there is none in the answer.
fn answered_keys(ours: &Media, theirs: &Media) -> Result<Option<SrtpKeys>, NegotiationError> {
    let profile = Profile::of(ours).ok_or(NegotiationError::BadAnswer)?;
    let their_profile = Profile::of(theirs);
    let transport = || NegotiationError::Transport(theirs.protocol.clone());
    let mut offered = CryptoLine::ours(ours).peekable();
    if theirs.port == 0 {
        return Ok(None);
    }
    if offered.peek().is_none() {
        let is_clear = their_profile.is_some_and(|profile| !profile.is_secure());
        return if is_clear { Ok(None) } else { Err(transport()) };
    }
    match CryptoLine::first_usable(theirs) {
        Ok(answered) => {
            let is_answered =
                |ours: &CryptoLine| ours.tag == answered.tag && ours.suite == answered.suite;
            let ours = offered
                .find(is_answered)
                .ok_or(NegotiationError::Encryption(EncryptionFault::NoCommonSuite))?;
            Ok(Some(ours.agreed_with(answered)))
        }
        Err(EncryptionFault::KeysMissing) if !profile.is_secure() => match their_profile {
            Some(theirs) if !theirs.is_secure() => Ok(None),
            Some(_) | None => Err(transport()),
        },
        Err(fault) => Err(NegotiationError::Encryption(fault)),
    }
}

/// Accepts the answer to a later offer of ours; `plan` is the agreed plan. An answer that refuses
/// the audio by port 0 suspends the session, as an offer does by [`suspend`].
///
/// # Errors
/// The answer does not fit the offer, has no codec that we offered, or would end the encryption.
pub fn accept_answer_again(
    offer: &Description,
    answer: &Description,
    plan: &StreamPlan,
) -> Result<StreamPlan, NegotiationError> {
    match audio_lines(offer, answer)? {
        (_, theirs) if theirs.is_audio() && theirs.port == 0 => Ok(suspended(plan)),
        _ => {
            let answered = accept_answer(offer, answer)?;
            if plan.srtp.is_some() && answered.srtp.is_none() {
                return Err(NegotiationError::Encryption(EncryptionFault::Downgrade));
            }
            Ok(answered)
        }
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
    let profile = Profile::of(before.media).unwrap_or(Profile::Avp);
    let mut media = offered_audio(audio(local, profile), &offered, event);
    media.attributes.extend(CryptoLine::ours(before.media).map(|line| line.attribute()));
    media
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

/// The transports that we support. What AVPF and SAVPF add is allowed but not required (RFC 4585
/// section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Profile {
    Avp,
    Avpf,
    Savp,
    Savpf,
}

impl Profile {
    const ALL: [Self; 4] = [Self::Avp, Self::Avpf, Self::Savp, Self::Savpf];

    /// The transport of a line, if we support it.
    fn of(media: &Media) -> Option<Self> {
        let is_named = |profile: &Self| media.protocol.eq_ignore_ascii_case(profile.name());
        Self::ALL.into_iter().find(is_named)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Avp => "RTP/AVP",
            Self::Avpf => "RTP/AVPF",
            Self::Savp => "RTP/SAVP",
            Self::Savpf => "RTP/SAVPF",
        }
    }

    /// Whether the audio must be encrypted (RFC 3711, RFC 5124).
    fn is_secure(self) -> bool {
        matches!(self, Self::Savp | Self::Savpf)
    }
}

/// The plan for a media line of an offer, and the `crypto` line of our answer, if we accept it.
fn acceptable(
    offer: &Description,
    media: &Media,
    local: &LocalMedia,
) -> Result<(StreamPlan, Option<Attribute>), NegotiationError> {
    let plan = choose(offer, media, &local.codecs)?;
    let theirs = offered_keys(media, &local.security)?;
    let ours = theirs.as_ref().map(|line| line.answered(&local.security.secret));
    let attribute = ours.as_ref().map(CryptoLine::attribute);
    let srtp = ours.zip(theirs).map(|(ours, theirs)| ours.agreed_with(theirs));
    Ok((StreamPlan { srtp, ..plan }, attribute))
}

/// The keys of an offered line that we use; `None` for audio that is not encrypted.
fn offered_keys(
    media: &Media,
    security: &LocalSecurity,
) -> Result<Option<CryptoLine>, NegotiationError> {
    let is_demanded = Profile::of(media).is_some_and(Profile::is_secure);
    let fault = match (security.policy, CryptoLine::first_usable(media)) {
        (SrtpPolicy::Off, _) if is_demanded => EncryptionFault::SwitchedOff,
        (SrtpPolicy::Off, _) => return Ok(None),
        (SrtpPolicy::Optional | SrtpPolicy::Required, Ok(line)) => return Ok(Some(line)),
        (SrtpPolicy::Optional | SrtpPolicy::Required, Err(fault)) if is_demanded => fault,
        (SrtpPolicy::Optional | SrtpPolicy::Required, Err(_)) if security.is_encrypted => {
            EncryptionFault::Downgrade
        }
        (SrtpPolicy::Required, Err(_)) => EncryptionFault::Required,
        // RFC 8643 section 3.1: keys that we cannot use are no obstacle.
        (SrtpPolicy::Optional, Err(_)) => return Ok(None),
    };
    Err(NegotiationError::Encryption(fault))
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
    if Profile::of(media).is_none() {
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
        srtp: None,
    })
}

const PTIME_MS: u32 = 20;

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

fn accepted(
    local: &LocalMedia,
    plan: &StreamPlan,
    crypto: Option<Attribute>,
    offered: MediaLine<'_>,
) -> Media {
    let mut media = audio(local, Profile::of(offered.media).unwrap_or(Profile::Avp));
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
    media.attributes.extend(crypto);
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

fn audio(local: &LocalMedia, profile: Profile) -> Media {
    Media {
        kind: "audio".to_owned(),
        port: local.port,
        protocol: profile.name().to_owned(),
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
mod tests;
