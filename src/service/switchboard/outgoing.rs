//! Outgoing calls: the target, the trunk, and the identity that we show.

use crate::service::config::{TrunkConfig, TrunkTransport};
use aftertone_core::proto::sdp::SrtpPolicy;
use aftertone_core::proto::sip::{
    digest::Credentials,
    endpoint::{OutgoingCall, Place, TrunkAccount},
    message::NameAddr,
    path::{Path, Transport},
    registrar::Binding,
    uri::{Uri, escape_user},
};

use super::dialled::Dialled;

/// Maximum number of redirects that one call follows.
const MAX_REDIRECTS: usize = 3;
/// Scheme of targets that must be reached over TLS.
const SIPS: &str = "sips";
/// RFC 3323 section 4.1.1.3: the From of an anonymous caller.
const ANONYMOUS: &str = "sip:anonymous@anonymous.invalid";
const ANONYMOUS_NAME: &str = "Anonymous";

/// A provider or PBX that carries outgoing calls.
#[derive(Debug, Clone)]
pub struct Trunk {
    pub(super) name: String,
    /// Maximum number of simultaneous calls; `None` = no limit of its own.
    pub(super) max_calls: Option<usize>,
    /// Host of the trunk: the domain of called numbers.
    host: String,
    /// User part of our From; when empty, our calls are anonymous.
    caller: String,
    /// Identity for P-Asserted-Identity within the trunk (RFC 3325).
    asserted: Option<Uri>,
    allow: Vec<String>,
    /// Whether audio is encrypted, if the trunk has a setting of its own.
    pub(super) srtp: Option<SrtpPolicy>,
    follow_redirects: bool,
    credentials: Option<Credentials>,
    /// URI of the next hop for requests.
    next_hop: Uri,
    /// Next hop for targets that must be reached over TLS; `None` when the trunk has another
    /// transport.
    secure_hop: Option<Uri>,
    /// Whether the next hop is an outbound proxy, which expects its own URI in a Route header.
    is_proxied: bool,
}

/// The plan of an outgoing call, before any host name is resolved.
#[derive(Debug, Clone)]
pub(super) struct RoutePlan {
    /// The trunk that carries the call; `None` when the target is a registered phone.
    pub trunk: Option<String>,
    /// Destination of the first request.
    pub way: Way,
    /// Whether audio is encrypted, if the called user or the trunk has a setting of its own.
    pub srtp: Option<SrtpPolicy>,
    request_uri: Uri,
    from: NameAddr,
    to: NameAddr,
    routes: Vec<NameAddr>,
    /// Other phones of the called user.
    further: Vec<Place>,
    redirects: Option<Redirects>,
    headers: Vec<(String, String)>,
    credentials: Option<Credentials>,
}

/// State for following redirects of a call.
#[derive(Debug, Clone)]
struct Redirects {
    /// The trunk that carries the call; it must allow the new target as well.
    trunk: Box<Trunk>,
    /// Request-URIs called so far, including the first.
    called: Vec<Uri>,
}

/// Result of a trunk's check of a target: what to call, and how.
struct Allowed {
    request_uri: Uri,
    next_hop: Uri,
    routes: Vec<NameAddr>,
}

/// Destination of the first request.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// The URI of a next hop, to be resolved by RFC 3263.
    Uri(Uri),
    /// The path of a registered phone; empty when the user has no phone that fits.
    Paths(Vec<Path>),
}

impl Trunk {
    /// Creates a trunk from a section `[[trunks]]`. `None` when its host is invalid; loading the
    /// configuration refuses such a host.
    pub fn new(config: &TrunkConfig) -> Option<Self> {
        let proxy = config.outbound_proxy.as_str();
        let transport = match config.transport {
            None => String::new(),
            Some(transport) => format!(";transport={transport}"),
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
            srtp: config.srtp,
            follow_redirects: config.follow_redirects,
            credentials: (!config.username.is_empty()).then(|| Credentials {
                username: config.username.clone(),
                password: config.password.clone(),
                realm: Some(match config.realm.as_str() {
                    "" => without_port(&config.host).to_owned(),
                    realm => realm.to_owned(),
                }),
            }),
            next_hop: format!("sip:{next_hop}{transport};lr").parse().ok()?,
            secure_hop: match config.transport {
                None | Some(TrunkTransport::Tls) => {
                    Some(format!("sips:{next_hop};lr").parse().ok()?)
                }
                Some(TrunkTransport::Udp | TrunkTransport::Tcp) => None,
            },
            is_proxied: !proxy.is_empty(),
        })
    }

    /// Our account at the trunk, and the URI where we register it.
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

    /// Request-URI, next hop and Route headers for `target`, if the trunk allows it. The parts that
    /// are matched are the parts that are sent.
    ///
    /// For a telephone number, or a user at the trunk's own host, only the user part is matched. A
    /// user at another host must match a pattern with an `@`. A SIPS URI stays a SIPS URI, and goes
    /// over TLS or not at all (RFC 3261 section 26.2.2).
    fn allowed(&self, target: &Uri) -> Option<Allowed> {
        let dialled = Dialled::read(target)?;
        let own_host = without_port(&self.host);
        let is_elsewhere = dialled.host().is_some_and(|host| !host.eq_ignore_ascii_case(own_host));
        let next_hop =
            if dialled.is_secure { self.secure_hop.clone()? } else { self.next_hop.clone() };
        let (request_uri, is_allowed) = if is_elsewhere {
            let mut patterns = self.allow.iter();
            (dialled.uri()?, patterns.any(|pattern| dialled.is_matched_elsewhere_by(pattern)))
        } else {
            let mut patterns = self.allow.iter();
            (dialled.at(&self.host)?, patterns.any(|pattern| dialled.is_matched_by(pattern)))
        };
        let through_proxy = self.is_proxied || is_elsewhere;
        let routes = through_proxy.then(|| NameAddr::from(next_hop.clone())).into_iter().collect();
        is_allowed.then_some(Allowed { request_uri, next_hop, routes })
    }

    /// Plans a call to `target` over this trunk, if the trunk allows it.
    pub(super) fn way_to(&self, target: &Uri, placed: &Placed<'_>) -> Option<RoutePlan> {
        let Allowed { request_uri, next_hop, routes } = self.allowed(target)?;
        let from = match self.caller.as_str() {
            "" => NameAddr::from(ANONYMOUS.parse::<Uri>().ok()?).named(Some(ANONYMOUS_NAME)),
            caller => {
                let from = Uri::sip_user(caller, &self.host).ok()?;
                NameAddr::from(from).named(placed.display_name)
            }
        };
        let mut headers = placed.headers();
        if let Some(asserted) = &self.asserted {
            headers.push(("P-Asserted-Identity".to_owned(), format!("<{asserted}>")));
        }
        if self.caller.is_empty() {
            headers.push(("Privacy".to_owned(), "id".to_owned()));
        }
        let redirects = self.follow_redirects.then(|| Redirects {
            trunk: Box::new(self.clone()),
            called: vec![request_uri.clone()],
        });
        Some(RoutePlan {
            trunk: Some(self.name.clone()),
            way: Way::Uri(next_hop),
            srtp: self.srtp,
            to: NameAddr::from(request_uri.clone()),
            request_uri,
            from,
            routes,
            further: Vec::new(),
            redirects,
            headers,
            credentials: self.credentials.clone(),
        })
    }
}

/// What an application says about a call that it places.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed<'a> {
    /// The display name to show to the called party.
    pub display_name: Option<&'a str>,
    /// Subject of the call.
    pub subject: Option<&'a str>,
}

impl Placed<'_> {
    fn headers(&self) -> Vec<(String, String)> {
        self.subject.iter().map(|text| ("Subject".to_owned(), (*text).to_owned())).collect()
    }
}

impl RoutePlan {
    /// Plans a call to the registered phones of one of our users, in the given order, the preferred
    /// phone first. For a SIPS URI, only phones that are reached over TLS count. `srtp` is the
    /// user's own setting.
    pub(super) fn to_phones(
        phones: Vec<Binding>,
        user: &Uri,
        placed: &Placed<'_>,
        srtp: Option<SrtpPolicy>,
    ) -> Self {
        // The target addresses a user by user and host only; the rest of the URI is dropped.
        let user: Uri = user.without_parameters().parse().unwrap_or_else(|_| user.clone());
        let is_insecure_fit = user.scheme() != SIPS;
        let is_fit = |phone: &Binding| is_insecure_fit || phone.path.transport.is_secure();
        let mut places = phones.into_iter().filter(is_fit).map(|phone| Place {
            targets: phone.paths(),
            request_uri: phone.contact,
            routes: phone.routes,
        });
        let first = places.next().unwrap_or_else(|| Place {
            targets: Vec::new(),
            request_uri: user.clone(),
            routes: Vec::new(),
        });
        let host = user.host().unwrap_or_default();
        // Cannot fail: a user part of ASCII letters, and a host that has been parsed before.
        let from = Uri::sip_user("aftertone", host).unwrap_or_else(|_| user.clone());
        Self {
            trunk: None,
            way: Way::Paths(first.targets),
            srtp,
            request_uri: first.request_uri,
            from: NameAddr::from(from).named(placed.display_name),
            to: NameAddr::from(user),
            routes: first.routes,
            further: places.collect(),
            redirects: None,
            headers: placed.headers(),
            credentials: None,
        }
    }

    /// Adds one more header field.
    pub(super) fn with(mut self, name: &str, value: Option<String>) -> Self {
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
        self
    }

    /// Whether the INVITE certainly leaves over TLS.
    pub(super) fn is_encrypted(&self) -> bool {
        match &self.way {
            Way::Uri(hop) => {
                let transport = hop.param("transport").and_then(Transport::from_name);
                hop.is_sips() || transport.is_some_and(Transport::is_secure)
            }
            Way::Paths(first) => {
                let further = self.further.iter().flat_map(|place| &place.targets);
                first.iter().chain(further).all(|path| path.transport.is_secure())
            }
        }
    }

    /// Whether the target is one of our users and has no phone that can be called.
    pub(super) fn leads_nowhere(&self) -> bool {
        matches!(&self.way, Way::Paths(paths) if paths.is_empty())
    }

    /// Handles the Contacts of a 3xx (RFC 3261 section 8.1.3.4). Returns true when one of them is
    /// to be called next: the same trunk allows it over the same next hop, it has not been called
    /// before, and the limit of redirects is not reached.
    pub(super) fn redirect(&mut self, contacts: &[NameAddr]) -> bool {
        let (Some(Redirects { trunk, called }), Way::Uri(hop)) = (&mut self.redirects, &self.way)
        else {
            return false;
        };
        if called.len() > MAX_REDIRECTS {
            return false;
        }
        let mut contacts: Vec<&NameAddr> = contacts.iter().collect();
        let preference =
            |contact: &NameAddr| contact.param("q").and_then(|q| q.parse::<f32>().ok());
        contacts.sort_by(|one, other| {
            let of = |contact| preference(contact).unwrap_or(1.0);
            of(*other).total_cmp(&of(*one))
        });
        let is_new = |uri: &Uri| called.iter().all(|known| !known.is_equivalent(uri));
        let next = contacts
            .into_iter()
            .filter(|contact| contact.uri().headers().is_empty())
            .filter_map(|contact| trunk.allowed(contact.uri()))
            .find(|allowed| allowed.next_hop == *hop && is_new(&allowed.request_uri));
        let Some(Allowed { request_uri, routes, .. }) = next else { return false };
        called.push(request_uri.clone());
        self.request_uri = request_uri;
        self.routes = routes;
        true
    }

    /// Other phones of the called user.
    pub(super) fn further(&self) -> &[Place] {
        &self.further
    }

    /// Request-URI of the next INVITE.
    pub(super) fn request_uri(&self) -> &Uri {
        &self.request_uri
    }

    /// The command to place the call, once the targets are resolved. Our RTP is bound to one local
    /// address, so only those further phones stay that are reached from this address.
    pub(super) fn call(&self, call_id: String, targets: Vec<Path>, offer: Vec<u8>) -> OutgoingCall {
        let local = targets.first().map(|target| target.local.ip());
        let is_near =
            |place: &&Place| place.targets.iter().all(|target| Some(target.local.ip()) == local);
        OutgoingCall {
            call_id,
            request_uri: self.request_uri.clone(),
            from: self.from.clone(),
            to: self.to.clone(),
            routes: self.routes.clone(),
            further: self.further.iter().filter(is_near).cloned().collect(),
            targets,
            headers: self.headers.clone(),
            credentials: self.credentials.clone(),
            offer,
        }
    }
}

/// The host of `HOST:PORT`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::service::config::Config;
    use aftertone_core::proto::sip::path::Transport;

    const NAMED: Placed<'_> = Placed { display_name: Some("Support"), subject: None };

    /// The trunk of a configuration that also has these lines.
    fn trunk(lines: &str) -> Trunk {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        let text = format!("[[trunks]]\nname = \"t\"\nallow = [\"+49*\", \"bob\"]\n{lines}");
        std::fs::write(&path, text).unwrap();
        let config = Config::load(Some(&path), std::iter::empty()).unwrap();
        Trunk::new(&config.trunks[0]).unwrap()
    }

    fn way(trunk: &Trunk, target: &str) -> Option<RoutePlan> {
        trunk.way_to(&target.parse().unwrap(), &NAMED)
    }

    fn header<'a>(route_plan: &'a RoutePlan, name: &str) -> Option<&'a str> {
        let mut all = route_plan.headers.iter();
        all.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn who_is_not_told_has_neither_a_name_nor_a_host() {
        let trunk = trunk("host = \"provider.example\"\nasserted_identity = \"+4930\"\n");
        let call = way(&trunk, "tel:+4940").unwrap();
        assert_eq!(call.from.to_string(), "\"Anonymous\" <sip:anonymous@anonymous.invalid>");
        assert_eq!(header(&call, "Privacy"), Some("id"));
        let asserted = header(&call, "P-Asserted-Identity");
        assert_eq!(asserted, Some("<sip:+4930@provider.example>"));
    }

    #[test]
    fn who_is_told_is_told_as_configured() {
        let trunk = trunk("host = \"provider.example\"\ncaller = \"+4930\"\n");
        let call = way(&trunk, "tel:+4940").unwrap();
        assert_eq!(call.from.to_string(), "\"Support\" <sip:+4930@provider.example>");
        assert_eq!((header(&call, "Privacy"), header(&call, "P-Asserted-Identity")), (None, None));
    }

    fn contacts(uris: &[&str]) -> Vec<NameAddr> {
        uris.iter().map(|uri| uri.parse().unwrap()).collect()
    }

    #[test]
    fn a_redirect_is_followed_where_the_trunk_says_so_and_allows_it() {
        let lines = "host = \"provider.example\"\nfollow_redirects = true\n";
        let mut call = way(&trunk(lines), "tel:+4930").unwrap();
        for elsewhere in ["<sip:+88@provider.example>", "<sip:+4931@elsewhere.example>"] {
            assert!(!call.redirect(&contacts(&[elsewhere])), "{elsewhere}");
        }
        let secure = "<sips:+4931@provider.example>";
        assert!(!call.redirect(&contacts(&[secure])), "that is another way");
        let with_header = "<sip:+4931@provider.example?Replaces=x>";
        assert!(!call.redirect(&contacts(&[with_header])));
        let two = ["<sip:+4932@provider.example>;q=0.2", "<sip:+4931@provider.example>;q=0.5"];
        assert!(call.redirect(&contacts(&two)));
        assert_eq!(call.request_uri().to_string(), "sip:+4931@provider.example");
        assert_eq!(call.to.uri().to_string(), "sip:+4930@provider.example", "as it began");

        let silent = trunk("host = \"provider.example\"\n");
        let mut call = way(&silent, "tel:+4930").unwrap();
        assert!(!call.redirect(&contacts(&["<sip:+4931@provider.example>"])));
    }

    #[test]
    fn redirects_do_not_go_on_for_ever() {
        let lines = "host = \"provider.example\"\nfollow_redirects = true\n";
        let mut call = way(&trunk(lines), "tel:+4930").unwrap();
        let to = |number: u8| contacts(&[&format!("<sip:+49{number}@provider.example>")]);
        assert!(!call.redirect(&to(30)), "back to where it began");
        assert!(call.redirect(&to(31)) && !call.redirect(&to(31)));
        assert!(call.redirect(&to(32)) && call.redirect(&to(33)) && !call.redirect(&to(34)));
    }

    /// RFC 4694 and RFC 3966: parameters that would route the call to another number, host or
    /// method.
    #[test]
    fn what_no_pattern_has_seen_is_not_sent() {
        let lines = "host = \"provider.example\"\nfollow_redirects = true\n";
        let trunk = trunk(lines);
        for target in [
            "sip:+4930;npdi;rn=+19005551234@provider.example",
            "sip:+4930;phone-context=%2B1900@provider.example",
            "sip:+4930%3brn=+19005551234@provider.example",
            "sip:+4930:secret@provider.example;maddr=192.0.2.1;method=MESSAGE?Replaces=x",
            "tel:+49-30;npdi;rn=+19005551234;phone-context=+1900",
        ] {
            let call = way(&trunk, target).unwrap();
            assert_eq!(call.request_uri().to_string(), "sip:+4930@provider.example", "{target}");
            assert_eq!(call.to.to_string(), "<sip:+4930@provider.example>", "{target}");

            let mut call = way(&trunk, "tel:+4999").unwrap();
            let contact = format!("<{}>", target.split('?').next().unwrap());
            assert!(call.redirect(&contacts(&[&contact])), "{target}");
            assert_eq!(call.request_uri().to_string(), "sip:+4930@provider.example", "{target}");
        }
        for target in [
            "sip:+4930%253brn=+1900@provider.example",
            "sip:+4930,rn=+1900@provider.example",
            "sip:+4930%00@provider.example",
            "sip:bob%40+1900@provider.example",
        ] {
            assert!(way(&trunk, target).is_none(), "{target}");
        }
    }

    #[test]
    fn a_user_elsewhere_is_sent_as_it_was_matched() {
        let host = "host = \"provider.example\"\n";
        let mut trunk = trunk(host);
        trunk.allow = vec!["*@pbx.example".to_owned(), "*@pbx.example:5070".to_owned()];
        for (target, sent) in [
            ("sip:bob:pw@pbx.example;maddr=192.0.2.1;transport=tcp?Replaces=x", "bob@pbx.example"),
            ("sip:+4930;rn=+1900@pbx.example:5070", "+4930@pbx.example:5070"),
        ] {
            let call = way(&trunk, target).unwrap();
            assert_eq!(call.request_uri().to_string(), format!("sip:{sent}"), "{target}");
        }
        assert!(way(&trunk, "sip:bob@pbx.example:25").is_none());
    }

    #[test]
    fn a_phone_is_not_told_what_else_stood_in_the_target() {
        let user = "sip:alice:pw@pbx.example;maddr=192.0.2.1?Replaces=x".parse().unwrap();
        let call = RoutePlan::to_phones(Vec::new(), &user, &NAMED, None);
        assert_eq!(call.to.to_string(), "<sip:alice@pbx.example>");
    }

    #[test]
    fn the_port_of_a_trunk_is_no_part_of_its_domain() {
        let trunk = trunk("host = \"provider.example:5070\"\n");
        let call = way(&trunk, "sip:bob@provider.example").unwrap();
        assert_eq!(call.request_uri().to_string(), "sip:bob@provider.example:5070");
        assert!(way(&trunk, "sip:bob@elsewhere.example").is_none());
    }

    #[test]
    fn a_secure_target_goes_over_tls_or_not_at_all() {
        for (transport, is_way) in [("", true), ("tls", true), ("tcp", false), ("udp", false)] {
            let lines = format!("host = \"provider.example\"\ntransport = \"{transport}\"\n");
            let call = way(&trunk(&lines), "sips:bob@provider.example");
            assert_eq!(call.is_some(), is_way, "{transport}");
            let Some(call) = call else { continue };
            assert_eq!(call.request_uri().to_string(), "sips:bob@provider.example");
            let Way::Uri(next_hop) = &call.way else { panic!("{call:?}") };
            assert_eq!(next_hop.scheme(), "sips");
        }
    }

    #[test]
    fn all_phones_of_a_user_are_places_to_call_but_not_insecurely() {
        let phone = |transport| {
            let local = "192.0.2.1:5060".parse().unwrap();
            let peer = "192.0.2.7:5062".parse().unwrap();
            let path = Path { transport, ..Path::udp(local, peer) };
            let contact = format!("sip:{}@192.0.2.7", transport.name()).parse().unwrap();
            Binding::new(contact, path, Instant::now())
        };
        let to = |user: &str| {
            let phones = vec![phone(Transport::Udp), phone(Transport::Tls)];
            RoutePlan::to_phones(phones, &user.parse().unwrap(), &NAMED, None)
        };
        let both = to("sip:alice@pbx.example");
        assert_eq!(both.request_uri().to_string(), "sip:UDP@192.0.2.7");
        let Way::Paths(targets) = both.way.clone() else { panic!("{both:?}") };
        let call = both.call("id".to_owned(), targets, Vec::new());
        assert_eq!(call.further.len(), 1);
        assert_eq!(call.further[0].request_uri.to_string(), "sip:TLS@192.0.2.7");

        let secure = to("sips:alice@pbx.example");
        assert!(secure.is_encrypted() && !both.is_encrypted());
        assert_eq!(secure.request_uri().to_string(), "sip:TLS@192.0.2.7");
        assert!(secure.further().is_empty() && !secure.leads_nowhere());
        let nobody = RoutePlan::to_phones(
            Vec::new(),
            &"sip:alice@pbx.example".parse().unwrap(),
            &NAMED,
            None,
        );
        assert!(nobody.leads_nowhere());
    }
}
