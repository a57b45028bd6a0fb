//! The media session of one call: its offers and answers, and what was agreed (RFC 3264).

use std::net::{IpAddr, SocketAddr};

use rand::{CryptoRng, Rng};

use super::Refusal;
use crate::{
    model::{MediaLoss, MediaState, Silence, UnauthenticatedMedia},
    proto::sdp::{
        self, Codec, Description, Direction, LocalMedia, LocalSecurity, MediaSecret,
        NegotiationError, SrtpPolicy, StreamPlan,
    },
};

/// What we can agree on with a peer.
#[derive(Debug, Clone)]
pub struct MediaTerms {
    /// Our codecs, in order of preference.
    pub codecs: Vec<Codec>,
    /// Whether the audio is encrypted.
    pub srtp: SrtpPolicy,
    /// Whether the SIP of the peer is encrypted, so that keys in an offer of ours are secret.
    pub is_signalling_encrypted: bool,
}

/// Our address for the audio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalAudio {
    /// The address in our session description.
    pub address: IpAddr,
    /// The RTP port.
    pub port: u16,
}

/// Offer, answer and what follows from them.
#[derive(Debug)]
pub struct Session {
    terms: MediaTerms,
    secret: MediaSecret,
    /// For the next peer; no peer has a key of it yet.
    next_secret: MediaSecret,
    /// That of our last proposal to another party.
    proposed: Option<MediaSecret>,
    id: u64,
    version: u64,
    local: Option<LocalAudio>,
    /// Our last description, offer or answer.
    described: Option<Description>,
    state: SessionState,
    plan: Option<StreamPlan>,
}

#[derive(Debug)]
enum SessionState {
    /// The peer's offer waits for our answer.
    Offered(Box<Description>),
    /// The peer asked us to make the offer.
    Asked,
    /// Our offer waits for the peer's answer.
    WeOffered {
        offer: Box<Description>,
        /// Whether a session with the peer exists, so that an answer can suspend it.
        is_agreed: bool,
    },
    /// Agreed.
    Agreed,
}

impl Session {
    /// Begins with the offer of an INVITE, or with none.
    ///
    /// # Errors
    /// The offer cannot be read, or contains nothing that we could agree to.
    pub fn new(
        offer: Option<&[u8]>,
        terms: MediaTerms,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, Refusal> {
        let id = rng.next_u32();
        let secret = MediaSecret::new(rng.random());
        let mut session = Self {
            terms,
            next_secret: secret.for_next_peer(),
            secret,
            proposed: None,
            id: u64::from(id),
            version: u64::from(id),
            local: None,
            described: None,
            state: SessionState::Asked,
            plan: None,
        };
        if let Some(offer) = offer {
            let offer = parse(offer)?;
            // The port is not known yet; what can be agreed does not depend on it.
            let provisional = LocalAudio { address: IpAddr::from([127, 0, 0, 1]), port: 9 };
            negotiate(&offer, &session.media(provisional))?;
            session.state = SessionState::Offered(Box::new(offer));
        }
        Ok(session)
    }

    /// Our description for the 200: the answer, or an offer if the peer made none.
    ///
    /// # Errors
    /// The two sides have nothing in common.
    pub fn describe(&mut self, local: LocalAudio) -> Result<Vec<u8>, Refusal> {
        self.local = Some(local);
        let media = self.media(local);
        match &self.state {
            SessionState::Offered(offer) => {
                let (answer, plan) = negotiate(offer, &media)?;
                self.plan = Some(plan);
                self.state = SessionState::Agreed;
                Ok(self.say(answer))
            }
            SessionState::Asked | SessionState::WeOffered { .. } | SessionState::Agreed => {
                let offer = sdp::make_offer(&media);
                self.state =
                    SessionState::WeOffered { offer: Box::new(offer.clone()), is_agreed: false };
                Ok(self.say(offer))
            }
        }
    }

    fn say(&mut self, description: Description) -> Vec<u8> {
        let text = description.to_string().into_bytes();
        self.described = Some(description);
        text
    }

    /// Takes the peer's answer to our offer. In an existing session, an answer that refuses the
    /// audio puts the call on hold, as an offer does.
    ///
    /// # Errors
    /// The answer is missing, or does not fit the offer.
    pub fn accept(&mut self, answer: Option<&[u8]>) -> Result<(), Refusal> {
        let SessionState::WeOffered { offer, is_agreed } = &self.state else { return Ok(()) };
        let answer = answer.ok_or_else(|| Refusal::BadOffer("the answer is missing".to_owned()))?;
        let answer = parse(answer)?;
        let plan = match self.plan.as_ref().filter(|_| *is_agreed) {
            Some(plan) => sdp::accept_answer_again(offer, &answer, plan),
            None => sdp::accept_answer(offer, &answer),
        }
        .map_err(refusal)?;
        self.plan = Some(plan);
        self.state = SessionState::Agreed;
        Ok(())
    }

    /// Takes a re-INVITE, with or without an offer, and returns our description for the 200.
    ///
    /// # Errors
    /// No new session can be agreed; the old one stays as it is.
    pub fn reoffered(&mut self, offer: Option<&[u8]>) -> Result<Vec<u8>, Refusal> {
        let before = self.described.clone();
        self.describe_anew(offer, before.as_ref())
    }

    /// Takes the INVITE of another peer that replaces the current one, with or without an offer,
    /// and returns our description for the 200. `terms` are those for that peer.
    ///
    /// # Errors
    /// No new session can be agreed; the old one stays as it is.
    pub fn replaced(
        &mut self,
        offer: Option<&[u8]>,
        terms: MediaTerms,
    ) -> Result<Vec<u8>, Refusal> {
        let before = std::mem::replace(&mut self.terms, terms);
        let described = self.describe_anew(offer, None);
        if described.is_err() {
            self.terms = before;
        }
        described
    }

    /// Our next description: an answer, or an offer. `before` is our last description in the same
    /// session.
    fn describe_anew(
        &mut self,
        offer: Option<&[u8]>,
        before: Option<&Description>,
    ) -> Result<Vec<u8>, Refusal> {
        let Some(local) = self.local else { return Err(Refusal::Internal) };
        let mut media = match before {
            Some(_) => self.media(local),
            None => self.media_for_next_peer(local, &self.terms),
        };
        media.session_version += 1;
        let text = match offer {
            Some(offer) => {
                let offer = parse(offer)?;
                // Only an existing session can be suspended.
                let suspended = before
                    .zip(self.plan.as_ref())
                    .and_then(|(described, plan)| sdp::suspend(&offer, &media, plan, described));
                let (answer, plan) = match suspended {
                    Some(suspended) => suspended,
                    None => negotiate(&offer, &media)?,
                };
                self.plan = Some(plan);
                self.state = SessionState::Agreed;
                self.say(answer)
            }
            None => {
                let named = self.plan.as_ref().map_or(&[][..], |plan| &plan.named);
                let offer = match before {
                    Some(before) => sdp::make_offer_again(&media, before, named),
                    None => sdp::make_offer(&media),
                };
                let is_agreed = before.is_some();
                self.state = SessionState::WeOffered { offer: Box::new(offer.clone()), is_agreed };
                self.say(offer)
            }
        };
        self.version = media.session_version;
        if before.is_none() {
            self.secret = self.take_next_secret();
        }
        Ok(text)
    }

    /// Takes the peer's answer to our last description, which we sent again to refresh the session
    /// (RFC 4028 section 7.4).
    ///
    /// # Errors
    /// The answer does not fit; the old session stays as it is.
    pub fn refreshed(&mut self, answer: &[u8]) -> Result<(), Refusal> {
        let Some(described) = &self.described else { return Err(Refusal::Internal) };
        let answer = parse(answer)?;
        let plan = match &self.plan {
            Some(plan) => sdp::accept_answer_again(described, &answer, plan),
            None => sdp::accept_answer(described, &answer),
        }
        .map_err(refusal)?;
        self.plan = Some(plan);
        Ok(())
    }

    /// Our offer to another party that is to replace the peer, on these terms; the session does not
    /// change. `None` before our address for the audio is known.
    pub fn propose(&mut self, terms: &MediaTerms) -> Option<Description> {
        let mut media = self.media_for_next_peer(self.local?, terms);
        media.session_version += 1;
        // A party that declines knows the keys, so the next one gets others.
        self.proposed = Some(self.take_next_secret());
        Some(sdp::make_offer(&media))
    }

    /// Takes the answer of another party to this proposal on these terms. The session is with that
    /// party from now on.
    ///
    /// # Errors
    /// The answer is missing or does not fit; the session stays as it is.
    pub fn move_to(
        &mut self,
        offer: &Description,
        terms: &MediaTerms,
        answer: Option<&[u8]>,
    ) -> Result<(), Refusal> {
        let answer = answer.ok_or_else(|| Refusal::BadOffer("the answer is missing".to_owned()))?;
        let plan = sdp::accept_answer(offer, &parse(answer)?).map_err(refusal)?;
        self.plan = Some(plan);
        self.state = SessionState::Agreed;
        self.described = Some(offer.clone());
        self.version += 1;
        self.secret = self.proposed.take().unwrap_or_else(|| self.take_next_secret());
        self.terms = terms.clone();
        Ok(())
    }

    /// Whether our offer waits for the peer's answer.
    pub fn awaits_answer(&self) -> bool {
        matches!(self.state, SessionState::WeOffered { .. })
    }

    /// The plan that was agreed last.
    pub fn plan(&self) -> Option<StreamPlan> {
        self.plan.clone()
    }

    /// Whether keys in the descriptions of both sides are secret: no third party can read the SIP
    /// of the peer.
    pub fn are_keys_secret(&self) -> bool {
        self.terms.is_signalling_encrypted
    }

    /// The loss of media after this silence, with the addresses of both sides; `unauthenticated`
    /// packets came that were not protected with the agreed key.
    pub fn loss(&self, silence: Silence, unauthenticated: u64) -> MediaLoss {
        let srtp = self.plan.as_ref().and_then(|plan| plan.srtp.as_ref());
        let refused = srtp.filter(|_| unauthenticated > 0).map(|keys| UnauthenticatedMedia {
            packets: unauthenticated,
            suite: keys.suite(),
            tag: keys.tag,
        });
        let ours = self.local.map(|local| SocketAddr::new(local.address, local.port));
        let theirs = self.plan.as_ref().and_then(|plan| plan.remote);
        MediaLoss { silence, ours, theirs, refused }
    }

    /// Whether audio flows in both directions; if not, the peer has put us on hold.
    pub fn media_state(&self) -> MediaState {
        match self.plan.as_ref().map(|plan| plan.direction) {
            Some(Direction::SendRecv) => MediaState::Active,
            // A peer that only listens, or only speaks, has put us on hold.
            Some(Direction::SendOnly | Direction::RecvOnly | Direction::Inactive) | None => {
                MediaState::Inactive
            }
        }
    }

    /// Our side towards the present peer.
    fn media(&self, local: LocalAudio) -> LocalMedia {
        let is_encrypted = self.plan.as_ref().is_some_and(|plan| plan.srtp.is_some());
        self.media_with(local, &self.terms, is_encrypted, self.secret.clone())
    }

    /// Our side towards a peer that is to take the place of the present one, and must not get the
    /// same keys.
    fn media_for_next_peer(&self, local: LocalAudio, terms: &MediaTerms) -> LocalMedia {
        self.media_with(local, terms, false, self.next_secret.clone())
    }

    /// The secret for the next peer; from now on there is another one.
    fn take_next_secret(&mut self) -> MediaSecret {
        let following = self.next_secret.for_next_peer();
        std::mem::replace(&mut self.next_secret, following)
    }

    fn media_with(
        &self,
        local: LocalAudio,
        terms: &MediaTerms,
        is_encrypted: bool,
        secret: MediaSecret,
    ) -> LocalMedia {
        LocalMedia {
            address: local.address,
            port: local.port,
            codecs: terms.codecs.clone(),
            security: LocalSecurity {
                policy: terms.srtp,
                is_encrypted,
                is_signalling_encrypted: terms.is_signalling_encrypted,
                secret,
            },
            session_id: self.id,
            session_version: self.version,
        }
    }
}

fn parse(text: &[u8]) -> Result<Description, Refusal> {
    Description::parse(text).map_err(|error| Refusal::BadOffer(error.to_string()))
}

fn negotiate(
    offer: &Description,
    media: &LocalMedia,
) -> Result<(Description, StreamPlan), Refusal> {
    sdp::negotiate(offer, media).map_err(refusal)
}

fn refusal(error: NegotiationError) -> Refusal {
    match error {
        NegotiationError::BadAddress(error) => Refusal::BadOffer(error.to_string()),
        NegotiationError::Encryption(fault) => Refusal::NotEncrypted(fault),
        NegotiationError::NoAudio
        | NegotiationError::Transport(_)
        | NegotiationError::NoCodec(_)
        | NegotiationError::BadAnswer => Refusal::NotAcceptable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn keys(description: &[u8]) -> BTreeSet<String> {
        let text = String::from_utf8_lossy(description);
        let keys = text.lines().filter_map(|line| line.split_once("inline:"));
        keys.map(|(_, key)| key.to_owned()).collect()
    }

    #[test]
    fn no_party_gets_the_keys_of_another_even_if_it_declines() {
        let terms = MediaTerms {
            codecs: vec![Codec::Pcmu],
            srtp: SrtpPolicy::Required,
            is_signalling_encrypted: true,
        };
        let mut session = Session::new(None, terms.clone(), &mut StdRng::seed_from_u64(1)).unwrap();
        let local = LocalAudio { address: IpAddr::from([192, 0, 2, 1]), port: 4_000 };
        let mut given = vec![keys(&session.describe(local).unwrap())];
        for _ in 0..2 {
            given.push(keys(session.propose(&terms).unwrap().to_string().as_bytes()));
        }
        given.push(keys(&session.replaced(None, terms.clone()).unwrap()));
        given.push(keys(session.propose(&terms).unwrap().to_string().as_bytes()));
        let all: BTreeSet<_> = given.iter().flatten().collect();
        assert!(given.iter().all(|keys| keys.len() == 5), "{given:?}");
        assert_eq!(all.len(), 25, "{given:?}");
    }
}
