//! What a REGISTER asks for, read before anything is changed.

use std::time::Duration;

use super::binding::{Binding, MOST_PREFERRED, Outbound, RegistrarConfig};
use crate::proto::sip::{
    Status,
    message::{NameAddr, Request, Uri, parse_number},
    path::Path,
    uri::split_top_level,
};

/// RFC 3261 §10.3: an expiry that cannot be read counts as one hour.
const UNREADABLE_EXPIRES: Duration = Duration::from_secs(3_600);
/// Longest Contact, Path or instance that is kept, in bytes.
const MAX_KEPT: usize = 512;
/// Most proxies between a phone and us.
const MAX_ROUTES: usize = 10;

/// Why a REGISTER is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) reason: &'static str,
    pub(super) header: Option<(&'static str, String)>,
}

impl Refusal {
    pub(super) fn new(status: Status, reason: &'static str) -> Self {
        Self { status, reason, header: None }
    }
}

/// What a REGISTER asks for.
#[derive(Debug)]
pub(super) enum Wanted {
    /// Nothing but the list of bindings.
    Nothing,
    /// Removal of all bindings: `Contact: *`.
    RemoveAll,
    /// Some contacts to bind, refresh or remove; never empty.
    Changes(Vec<Change>),
}

/// One Contact of a REGISTER.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) uri: Uri,
    pub(super) q: u16,
    /// Zero removes the contact.
    pub(super) expires: Duration,
    pub(super) outbound: Option<Outbound>,
    pub(super) instance: Option<String>,
}

impl Change {
    /// The path of calls to this contact, when the REGISTER came over `path`. It is the path back,
    /// or, for a phone that sends from another port than it listens on, the path to the port in its
    /// Contact. A flow is always the path of the REGISTER (RFC 5626 §5.3), and a Path begins there
    /// (RFC 3327 §5.4).
    pub(super) fn way(&self, routes: &[NameAddr], path: Path) -> Path {
        match path.to_named_port(&self.uri) {
            _ if self.outbound.is_some() => Path { peer: path.source(), sender: None, ..path },
            Some(named) if routes.is_empty() => named,
            Some(_) | None => path,
        }
    }

    /// Index of the binding to change: that of the same flow of the same phone (RFC 5626 §6), else
    /// that of the same contact.
    pub(super) fn target(&self, bindings: &[Binding]) -> Option<usize> {
        let is_same_flow = |it: &Binding| self.outbound.is_some() && self.outbound == it.outbound;
        let is_same_contact = |it: &Binding| {
            let is_other_flow = self.outbound.is_some() && it.outbound.is_some();
            !is_other_flow && self.uri.is_equivalent(&it.contact)
        };
        let by_flow = bindings.iter().position(is_same_flow);
        by_flow.or_else(|| bindings.iter().position(is_same_contact))
    }
}

/// Reads the Contacts of a REGISTER. `routes` are its Path header fields.
pub(super) fn read(
    request: &Request,
    routes: &[NameAddr],
    config: &RegistrarConfig,
) -> Result<Wanted, Refusal> {
    if request.headers("Contact").any(|contact| contact == "*") {
        // RFC 3261 §10.2.2: `*` stands alone, and with `Expires: 0`.
        let is_alone = request.headers("Contact").count() == 1;
        let is_over = request.header("Expires").and_then(parse_number) == Some(0);
        return if is_alone && is_over {
            Ok(Wanted::RemoveAll)
        } else {
            Err(Refusal::new(Status::BAD_REQUEST, "Contact * Without Expires 0"))
        };
    }
    let wants_outbound = has_option(request, "outbound");
    let changes = request
        .contacts()
        .iter()
        .map(|contact| read_change(request, contact, wants_outbound, config))
        .collect::<Result<Vec<_>, _>>()?;
    if changes.is_empty() {
        return Ok(Wanted::Nothing);
    }
    let flows = changes.iter().filter(|it| it.outbound.is_some() && !it.expires.is_zero()).count();
    if flows > 1 {
        return Err(Refusal::new(Status::BAD_REQUEST, "More Than One Contact With reg-id"));
    }
    // RFC 5626 §6: the flow ends at the first hop, which has to keep it. That is either us or the
    // proxy that wrote the first Path, which confirms it by `ob`.
    let first_hop_keeps_flow =
        request.vias().len() == 1 || routes.last().is_some_and(|route| route.uri().has_param("ob"));
    if flows > 0 && !first_hop_keeps_flow {
        return Err(Refusal::new(
            Status::FIRST_HOP_LACKS_OUTBOUND_SUPPORT,
            "First Hop Lacks Outbound Support",
        ));
    }
    Ok(Wanted::Changes(changes))
}

/// Reads the Path header fields: the proxies to the phone, the next one first (RFC 3327 §5.3).
pub(super) fn read_routes(request: &Request) -> Result<Vec<NameAddr>, Refusal> {
    let malformed = Refusal::new(Status::BAD_REQUEST, "Malformed Path");
    let mut routes = Vec::new();
    for value in request.headers("Path").flat_map(|value| split_top_level(value, ',')) {
        if value.len() > MAX_KEPT || routes.len() >= MAX_ROUTES {
            return Err(Refusal::new(Status::BAD_REQUEST, "Path Too Long"));
        }
        routes.push(value.parse().map_err(|_| malformed.clone())?);
    }
    Ok(routes)
}

fn read_change(
    request: &Request,
    contact: &NameAddr,
    wants_outbound: bool,
    config: &RegistrarConfig,
) -> Result<Change, Refusal> {
    let uri = contact.uri().clone();
    if !matches!(uri.scheme(), "sip" | "sips") {
        return Err(Refusal::new(Status::BAD_REQUEST, "Contact Is No SIP URI"));
    }
    if uri.to_string().len() > MAX_KEPT {
        return Err(Refusal::new(Status::BAD_REQUEST, "Contact Too Long"));
    }
    let asked = contact.param("expires").or(request.header("Expires"));
    let expires = match asked {
        Some(seconds) => parse_seconds(seconds).unwrap_or(UNREADABLE_EXPIRES),
        None => config.default_expires,
    };
    if !expires.is_zero() && expires < config.min_expires {
        let least = config.min_expires.as_secs().to_string();
        let header = Some(("Min-Expires", least));
        return Err(Refusal {
            header,
            ..Refusal::new(Status::INTERVAL_TOO_BRIEF, "Interval Too Brief")
        });
    }
    Ok(Change {
        uri,
        q: contact.param("q").and_then(parse_q).unwrap_or(MOST_PREFERRED),
        expires: expires.min(config.max_expires),
        outbound: if wants_outbound { read_outbound(contact)? } else { None },
        instance: contact
            .param("+sip.instance")
            .filter(|instance| instance.len() <= MAX_KEPT)
            .map(str::to_owned),
    })
}

/// RFC 5626 §6: without an instance, a `reg-id` has no meaning.
fn read_outbound(contact: &NameAddr) -> Result<Option<Outbound>, Refusal> {
    let (Some(instance), Some(reg_id)) = (contact.param("+sip.instance"), contact.param("reg-id"))
    else {
        return Ok(None);
    };
    let reg_id = parse_number(reg_id).filter(|reg_id| *reg_id > 0);
    let is_quoted = instance.len() > 2 && instance.starts_with('"') && instance.ends_with('"');
    match reg_id {
        Some(reg_id) if is_quoted && instance.len() <= MAX_KEPT => {
            Ok(Some(Outbound { instance: instance.to_owned(), reg_id }))
        }
        _ => Err(Refusal::new(Status::BAD_REQUEST, "Malformed reg-id Or Instance")),
    }
}

/// Whether the phone supports an extension, or requires it.
fn has_option(request: &Request, tag: &str) -> bool {
    let mut tags = request.headers("Supported").chain(request.headers("Require"));
    tags.any(|known| known.eq_ignore_ascii_case(tag))
}

/// Parses decimal digits as seconds; a number above `u32::MAX` becomes `u32::MAX`.
fn parse_seconds(text: &str) -> Option<Duration> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()))
}

/// Parses `0`, `1`, or up to three decimals (RFC 3261 §25.1), into thousandths.
fn parse_q(text: &str) -> Option<u16> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let whole = parse_number(whole).filter(|whole| *whole <= 1)?;
    if decimals.len() > 3 {
        return None;
    }
    let thousandths = parse_number(&format!("{decimals:0<3}"))?;
    u16::try_from(whole * 1_000 + thousandths).ok().filter(|q| *q <= MOST_PREFERRED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preference_is_read_in_thousandths() {
        for (text, q) in
            [("1", 1_000), ("1.000", 1_000), ("0", 0), ("0.", 0), ("0.5", 500), ("0.034", 34)]
        {
            assert_eq!(parse_q(text), Some(q), "{text}");
        }
        for text in ["", "2", "1.1", "0.1234", "-1", ".5", "0.5.5", "0.x", "1e0"] {
            assert_eq!(parse_q(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_has_an_end() {
        assert_eq!(
            parse_seconds("99999999999999999999"),
            Some(Duration::from_secs(u32::MAX.into()))
        );
        assert_eq!(parse_seconds("+1"), None);
        assert_eq!(parse_seconds(""), None);
    }
}
