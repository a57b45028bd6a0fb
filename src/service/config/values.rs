//! Values that are parsed from text: listeners, port ranges, networks, codecs.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de::Error as _};
use url::Url;

use aftertone_core::{
    graph::IdentityType,
    proto::{
        sdp::Codec,
        sip::{digest::Algorithm, path::Transport},
    },
};

/// A SIP listener: `TRANSPORT:ADDRESS:PORT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SipListener {
    /// Transport protocol.
    pub transport: Transport,
    /// Local address and port.
    pub address: SocketAddr,
}

impl FromStr for SipListener {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (transport, address) = text.split_once(':').ok_or_else(|| {
            format!("sip.listen: {text:?} is not TRANSPORT:ADDRESS:PORT, such as udp:0.0.0.0:5060")
        })?;
        let known = Transport::ALL.into_iter().find(|known| written(*known) == transport);
        let transport = known.ok_or_else(|| {
            format!("sip.listen: {text:?}: {transport:?} is none of udp, tcp, tls, ws, wss")
        })?;
        let address = address.parse().map_err(|_| {
            format!(
                "sip.listen: {address:?} is not ADDRESS:PORT, such as 0.0.0.0:5060 or [::]:5060"
            )
        })?;
        Ok(Self { transport, address })
    }
}

/// The name of a transport in the configuration.
fn written(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Ws => "ws",
        Transport::Wss => "wss",
    }
}

/// Ports `first` to `last`, both included. `0-0` means ports that the system chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port; even.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "media.ports: {text:?} is not a range of at least one even and one odd port, such \
                 as \"20000-20999\""
            )
        };
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let first: u16 = first.trim().parse().map_err(|_| wrong())?;
        let last: u16 = last.trim().parse().map_err(|_| wrong())?;
        let chosen_by_system = first == 0 && last == 0;
        if !chosen_by_system && (first == 0 || first % 2 == 1 || last <= first) {
            return Err(wrong());
        }
        Ok(Self { first, last })
    }
}

/// A private network that outgoing requests may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedNetwork {
    /// The addresses.
    pub network: IpNet,
    /// The only allowed port; `None` = all ports.
    pub port: Option<u16>,
}

impl FromStr for AllowedNetwork {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("fetch.allow_networks: {text:?} is neither \"CIDR\" nor \"CIDR:PORT\"");
        if let Ok(network) = text.parse() {
            return Ok(Self { network, port: None });
        }
        let (network, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let network = network.parse().map_err(|_| wrong())?;
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self { network, port: Some(port) })
    }
}

/// The origin of a web page, as browsers send it (RFC 6454 §6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebOrigin(pub String);

impl FromStr for WebOrigin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "sip.web_origins: {text:?} is not the SCHEME://HOST[:PORT] of a page, such as \
                 https://phone.example"
            )
        };
        let is_rest = |rest: &str| rest.contains(['/', '\\', '?', '#', '@', '*', ' ']);
        let (_, host) = text.split_once("://").ok_or_else(wrong)?;
        let url = Url::parse(text).map_err(|_| wrong())?;
        // An origin is the URL of a page, which is never `ws` or `wss`.
        let is_socket = matches!(url.scheme(), "ws" | "wss");
        let name = url.host_str().filter(|_| !is_rest(host) && !is_socket).ok_or_else(wrong)?;
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Self(format!("{}://{name}{port}", url.scheme())))
    }
}

/// Transport of the requests to a trunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkTransport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls,
}

impl fmt::Display for TrunkTransport {
    /// The value of the URI parameter `transport` (RFC 3261 section 19.1.1).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// A built-in line, which answers without an application (interface section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Greeting, beep, recording. Key `1` plays the recording, `#` ends the call.
    Voicemail,
    /// Sends the caller's audio back; `#` ends the call.
    Echo,
}

impl Line {
    /// All lines, in the order in which they are announced.
    pub const ALL: [Self; 2] = [Self::Voicemail, Self::Echo];
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Voicemail => "voicemail",
            Self::Echo => "echo",
        })
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let line = Self::ALL.into_iter().find(|line| line.to_string() == text);
        line.ok_or_else(|| format!("routes.line: {text:?} is none of voicemail, echo"))
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("telemetry.format: {text:?} is neither \"text\" nor \"json\"")),
        }
    }
}

macro_rules! deserialize_from_str {
    ($($name:ty),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

deserialize_from_str!(SipListener, WebOrigin, PortRange, AllowedNetwork, Line, LogFormat);

/// Parses networks; a single address counts as a network of one host.
pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    each(deserializer, |text| {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        text.parse().or(address).map_err(|_| {
            format!(
                "sip.trusted_peers: {text:?} is neither an address nor a network, such as \
                 192.0.2.5 or 192.0.2.0/24"
            )
        })
    })
}

/// Parses the names of codecs.
pub(super) fn codecs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Codec>, D::Error> {
    each(deserializer, |text| match text {
        "opus" => Ok(Codec::Opus),
        "pcma" => Ok(Codec::Pcma),
        "pcmu" => Ok(Codec::Pcmu),
        _ => Err(format!("media.codecs: {text:?} is none of opus, pcma, pcmu")),
    })
}

/// Parses the names of hash algorithms for digest authentication (RFC 7616, RFC 8760).
pub(super) fn digest_algorithms<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Algorithm>, D::Error> {
    each(deserializer, |text| match text.to_ascii_lowercase().as_str() {
        "sha-256" => Ok(Algorithm::Sha256),
        "md5" => Ok(Algorithm::Md5),
        _ => Err(format!("sip.digest: {text:?} is none of sha-256, md5")),
    })
}

fn each<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| parse(text).map_err(D::Error::custom)).collect()
}

/// Parses the type that sets of identities declare in the API.
pub(super) fn identity_type<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<IdentityType, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "identitySet" => Ok(IdentityType::IdentitySet),
        "communicationsIdentitySet" => Ok(IdentityType::CommunicationsIdentitySet),
        _ => Err(D::Error::custom(format!(
            "api.identity_type: {text:?} is neither \"identitySet\" nor \
             \"communicationsIdentitySet\""
        ))),
    }
}

/// Parses the transport of a trunk; empty = none is given.
pub(super) fn transport<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<TrunkTransport>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.as_str() {
        "" => Ok(None),
        "udp" => Ok(Some(TrunkTransport::Udp)),
        "tcp" => Ok(Some(TrunkTransport::Tcp)),
        "tls" => Ok(Some(TrunkTransport::Tls)),
        _ => {
            let message = format!("trunks.transport: {text:?} is none of udp, tcp and tls");
            Err(D::Error::custom(message))
        }
    }
}

/// Parses a path; empty = none is given.
pub(super) fn path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

/// Parses a duration with its unit: `"10m"`, `"1h 30m"`, `"500ms"`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| {
        D::Error::custom(format!("{text:?} is not a time with a unit, such as \"10m\" or \"30s\""))
    })
}
