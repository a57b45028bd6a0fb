//! Why a session has no media, in words for the log, the trace and the API.

use std::{fmt, net::SocketAddr};

use aftertone_core::proto::srtp::CryptoSuite;

/// The step at which a session has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecureFailure {
    /// No good ICE check has come to our addresses.
    NoCheck {
        /// Our addresses, as the description gives them.
        at: Vec<SocketAddr>,
        /// Checks with other credentials.
        wrong: u64,
        /// Checks of a peer that believes to be the controlled agent.
        conflicts: u64,
    },
    /// The peer, which is the DTLS client, has not begun the handshake.
    NoClientHello {
        /// Where the peer is; `None` if nothing has come from there.
        peer: Option<SocketAddr>,
    },
    /// The handshake was begun and not finished in time.
    HandshakeTimeout {
        /// Where the peer is.
        peer: SocketAddr,
        /// Whether the peer has answered at all.
        has_answered: bool,
    },
    /// The peer has ended the handshake with this alert (RFC 5246 section 7.2).
    Alert(DtlsAlert),
    /// The peer's certificate is not the one of the description.
    FingerprintDiffers {
        /// The value of `fingerprint` in the description.
        described: String,
        /// The same of the certificate that the peer has shown.
        shown: String,
    },
    /// The peer has not shown a certificate that we can verify.
    NoCertificate,
    /// The handshake came to its end without an SRTP profile (RFC 5764 section 4.1.2).
    NoProfile,
    /// The handshake failed for another reason.
    Handshake(String),
    /// The last packets did not pass authentication, and none before them did.
    Authentication {
        /// How many.
        packets: u64,
        /// The suite.
        suite: CryptoSuite,
    },
}

/// The number of a DTLS alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DtlsAlert(pub(super) u8);

impl DtlsAlert {
    /// Its name in RFC 5246 section 7.2 and RFC 8446 section 6.
    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "close_notify",
            10 => "unexpected_message",
            20 => "bad_record_mac",
            22 => "record_overflow",
            40 => "handshake_failure",
            42 => "bad_certificate",
            43 => "unsupported_certificate",
            44 => "certificate_revoked",
            45 => "certificate_expired",
            46 => "certificate_unknown",
            47 => "illegal_parameter",
            48 => "unknown_ca",
            49 => "access_denied",
            50 => "decode_error",
            51 => "decrypt_error",
            70 => "protocol_version",
            71 => "insufficient_security",
            80 => "internal_error",
            86 => "inappropriate_fallback",
            90 => "user_canceled",
            100 => "no_renegotiation",
            109 => "missing_extension",
            110 => "unsupported_extension",
            112 => "unrecognized_name",
            113 => "bad_certificate_status_response",
            115 => "unknown_psk_identity",
            116 => "certificate_required",
            120 => "no_application_protocol",
            _ => return None,
        })
    }
}

impl fmt::Display for DtlsAlert {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl fmt::Display for SecureFailure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCheck { at, wrong, conflicts } => {
                formatter.write_str("no ICE check arrived at ")?;
                for (index, address) in at.iter().enumerate() {
                    let before = if index == 0 { "" } else { " or " };
                    write!(formatter, "{before}{address}")?;
                }
                if *wrong > 0 {
                    write!(formatter, "; {wrong} with wrong user name or password")?;
                }
                if *conflicts > 0 {
                    write!(formatter, "; {conflicts} from a peer that would not take control")?;
                }
                Ok(())
            }
            Self::NoClientHello { peer: Some(peer) } => {
                write!(formatter, "no DTLS ClientHello arrived from {peer}")
            }
            Self::NoClientHello { peer: None } => {
                formatter.write_str("no DTLS ClientHello arrived")
            }
            Self::HandshakeTimeout { peer, has_answered: true } => {
                write!(formatter, "the DTLS handshake with {peer} was not finished in time")
            }
            Self::HandshakeTimeout { peer, has_answered: false } => {
                write!(formatter, "{peer} did not answer the DTLS ClientHello")
            }
            Self::Alert(alert) => write!(formatter, "the peer sent the DTLS alert {alert}"),
            Self::FingerprintDiffers { described, shown } => write!(
                formatter,
                "the fingerprint differs: the description says {described}, the certificate has \
                 {shown}"
            ),
            Self::NoCertificate => formatter.write_str(
                "the peer has shown no certificate; ECDSA with P-256, or RSA, is needed",
            ),
            Self::NoProfile => formatter.write_str("the peer offered no SRTP profile by DTLS"),
            Self::Handshake(reason) => write!(formatter, "the DTLS handshake failed: {reason}"),
            Self::Authentication { packets, suite } => {
                write!(formatter, "{packets} packets failed authentication with {}", suite.name())
            }
        }
    }
}

impl std::error::Error for SecureFailure {}
