//! Calls that applications place: whom, by which trunk, as whom.

use crate::{
    config::TrunkConfig,
    proto::sip::{
        digest::Credentials,
        endpoint::{OutgoingCall, TrunkAccount},
        message::NameAddr,
        path::Path,
        registrar::Binding,
        uri::{Uri, escape_user},
    },
};

use super::routes::matches;

/// RFC 3323 section 4.1.1.3: the user part of a caller who is not told.
const ANONYMOUS: &str = "anonymous";

/// The way out to one provider or PBX.
#[derive(Debug, Clone)]
pub struct Trunk {
    pub(super) name: String,
    /// Calls at a time; `None` = no limit of its own.
    pub(super) max_calls: Option<usize>,
    /// Its host: the domain of what is called.
    host: String,
    /// The user part of our From; empty: nobody is told who calls.
    caller: String,
    /// Who vouches for us within the trunk (RFC 3325).
    asserted: Option<Uri>,
    allow: Vec<String>,
    credentials: Option<Credentials>,
    /// Where requests go to.
    next_hop: Uri,
    /// Whether the next hop is a proxy that wants to see itself in Route.
    is_proxied: bool,
}

/// What is to be called, before any name is resolved.
#[derive(Debug, Clone)]
pub(super) struct Itinerary {
    /// The trunk that it goes by; `None` to a registered phone.
    pub trunk: Option<String>,
    /// Where the first request goes.
    pub way: Way,
    request_uri: Uri,
    from: NameAddr,
    to: NameAddr,
    routes: Vec<NameAddr>,
    headers: Vec<(String, String)>,
    credentials: Option<Credentials>,
}

/// Where the first request goes.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// To whoever this URI leads to (RFC 3263).
    Uri(Uri),
    /// To a phone that has registered from there.
    Paths(Vec<Path>),
}

impl Trunk {
    /// The trunk of a section `[[trunks]]`; `None` when its host is none, which the load refuses.
    pub fn new(config: &TrunkConfig) -> Option<Self> {
        let proxy = config.outbound_proxy.as_str();
        let transport = match config.transport.as_str() {
            "" => String::new(),
            name => format!(";transport={name}"),
        };
        let next_hop = match proxy {
            "" => &config.host,
            proxy => proxy,
        };
        let asserted = match config.asserted_identity.as_str() {
            "" => None,
            user => Some(Uri::sip_user(user, &config.host).ok()?),
        };
        Some(Self {
            name: config.name.clone(),
            max_calls: (config.max_calls > 0).then_some(config.max_calls),
            host: config.host.clone(),
            caller: match config.caller.as_str() {
                "" => config.username.clone(),
                caller => caller.to_owned(),
            },
            asserted,
            allow: config.allow.clone(),
            credentials: (!config.username.is_empty()).then(|| Credentials {
                username: config.username.clone(),
                password: config.password.clone(),
                realm: Some(match config.realm.as_str() {
                    "" => without_port(&config.host).to_owned(),
                    realm => realm.to_owned(),
                }),
            }),
            next_hop: format!("sip:{next_hop}{transport};lr").parse().ok()?,
            is_proxied: !proxy.is_empty(),
        })
    }

    /// Our account there, and where it is kept.
    pub fn account(&self) -> Option<(TrunkAccount, Uri)> {
        let credentials = self.credentials.clone()?;
        let account = TrunkAccount {
            name: self.name.clone(),
            targets: Vec::new(),
            registrar: format!("sip:{}", self.host).parse().ok()?,
            address_of_record: NameAddr::from(
                Uri::sip_user(&credentials.username, &self.host).ok()?,
            ),
            contact_user: escape_user(&credentials.username),
            routes: self.is_proxied.then(|| self.next_hop.clone().into()).into_iter().collect(),
            credentials,
        };
        Some((account, self.next_hop.clone()))
    }

    /// The way to `target` by this trunk, if the trunk allows it.
    ///
    /// A number, or a user at the trunk's own host, is matched alone; anybody elsewhere by patterns
    /// that say so, with an `@`.
    pub(super) fn way_to(&self, target: &Uri, placed: &Placed<'_>) -> Option<Itinerary> {
        let user = dialled(target)?;
        let elsewhere = target.host().filter(|host| !host.eq_ignore_ascii_case(&self.host));
        let (called, request_uri) = match elsewhere {
            Some(host) => (format!("{user}@{host}"), target.clone()),
            None => (user.clone(), Uri::sip_user(&user, &self.host).ok()?),
        };
        let is_allowed = self
            .allow
            .iter()
            .filter(|pattern| pattern.contains('@') == elsewhere.is_some())
            .any(|pattern| matches(pattern, &called));
        if !is_allowed {
            return None;
        }
        let caller = if self.caller.is_empty() { ANONYMOUS } else { &self.caller };
        let from = Uri::sip_user(caller, &self.host).ok()?;
        let mut headers = placed.headers();
        if let Some(asserted) = &self.asserted {
            headers.push(("P-Asserted-Identity".to_owned(), format!("<{asserted}>")));
        }
        if caller == ANONYMOUS {
            headers.push(("Privacy".to_owned(), "id".to_owned()));
        }
        let through_proxy = self.is_proxied || elsewhere.is_some();
        Some(Itinerary {
            trunk: Some(self.name.clone()),
            way: Way::Uri(self.next_hop.clone()),
            to: NameAddr::from(request_uri.clone()),
            request_uri,
            from: NameAddr::from(from).named(placed.display_name),
            routes: through_proxy
                .then(|| NameAddr::from(self.next_hop.clone()))
                .into_iter()
                .collect(),
            headers,
            credentials: self.credentials.clone(),
        })
    }
}

/// What an application says of a call that it places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    /// The name to show to the called party.
    pub display_name: Option<&'a str>,
    /// What the call is about.
    pub subject: Option<&'a str>,
}

impl Placed<'_> {
    fn headers(&self) -> Vec<(String, String)> {
        self.subject.iter().map(|text| ("Subject".to_owned(), (*text).to_owned())).collect()
    }
}

impl Itinerary {
    /// The way to a phone of a user of ours, as it registered.
    pub fn to_phone(phone: Binding, user: &Uri, placed: &Placed<'_>) -> Self {
        let host = user.host().unwrap_or_default();
        // A user part of ASCII letters at a host that was read before.
        let from = Uri::sip_user("aftertone", host).unwrap_or_else(|_| user.clone());
        Self {
            trunk: None,
            way: Way::Paths(vec![phone.path]),
            request_uri: phone.contact,
            from: NameAddr::from(from).named(placed.display_name),
            to: NameAddr::from(user.clone()),
            routes: phone.routes,
            headers: placed.headers(),
            credentials: None,
        }
    }

    /// With one more header field.
    pub fn with(mut self, name: &str, value: Option<String>) -> Self {
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
        self
    }

    /// Whom it leads to.
    pub fn request_uri(&self) -> &Uri {
        &self.request_uri
    }

    /// The call, now that it is known which ways lead there.
    pub fn call(&self, call_id: String, targets: Vec<Path>, offer: Vec<u8>) -> OutgoingCall {
        OutgoingCall {
            call_id,
            targets,
            request_uri: self.request_uri.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            routes: self.routes.clone(),
            headers: self.headers.clone(),
            credentials: self.credentials.clone(),
            offer,
        }
    }
}

/// The host of `HOST:PORT`; an IPv6 address stays in its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The user part of a SIP URI, or the number of a tel URI without what only separates digits
/// (RFC 3966 section 5.1.1).
fn dialled(target: &Uri) -> Option<String> {
    let user = target.user().filter(|user| !user.is_empty())?;
    match target.scheme() {
        "tel" => Some(user.chars().filter(|c| !matches!(c, '-' | '.' | '(' | ')')).collect()),
        _ => Some(user),
    }
}
