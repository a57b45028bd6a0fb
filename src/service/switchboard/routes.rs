//! Maps a called address to the application or built-in line that owns the call.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::{
    outgoing::{Placed, RoutePlan, Trunk},
    pattern::matches,
};
use crate::service::config::{Config, Line, RouteTarget};
use aftertone_core::{
    call::{LineScript, Owner, Refusal},
    model::role,
    proto::sdp::SrtpPolicy,
    proto::sip::{
        path::Path,
        standing::is_trusted_over,
        uri::{Uri, escape_user},
    },
};

/// Routes, users, trunks and applications: the part of the configuration that a reload replaces.
#[derive(Debug, Clone)]
pub struct Directory {
    routes: Vec<Route>,
    applications: BTreeMap<String, Application>,
    trunks: Vec<Trunk>,
    /// The users, with their own setting for encrypted audio.
    users: BTreeMap<String, Option<SrtpPolicy>>,
    domain: String,
    trusted_peers: Vec<IpNet>,
    anonymous_calls: bool,
}

#[derive(Debug, Clone)]
struct Application {
    id: String,
    callback_uri: String,
    may_call: bool,
}

#[derive(Debug, Clone)]
struct Route {
    to: String,
    target: RouteTarget,
    public: bool,
}

impl Directory {
    /// Creates the directory of a configuration. When no application is configured, the built-in
    /// lines are reachable by their names.
    pub fn new(config: &Config) -> Self {
        let mut routes: Vec<Route> = config
            .routes
            .iter()
            .filter_map(|route| {
                let target = route.target()?;
                Some(Route { to: route.to.clone(), target, public: route.public })
            })
            .collect();
        if config.applications.is_empty() {
            routes.extend(Line::ALL.map(|line| Route {
                to: line.to_string(),
                target: RouteTarget::Line(line),
                public: true,
            }));
        }
        let applications = config
            .applications
            .iter()
            .map(|application| {
                let (id, callback_uri) = (&application.id, &application.callback_uri);
                let may_call = application.roles.iter().any(|role| role == role::INITIATE);
                let callback_uri = callback_uri.clone();
                let known = Application { id: id.clone(), callback_uri, may_call };
                (application.name.clone(), known)
            })
            .collect();
        Self {
            routes,
            applications,
            trunks: config.trunks.iter().filter_map(Trunk::new).collect(),
            users: config.users.iter().map(|user| (user.name.clone(), user.srtp)).collect(),
            domain: config.sip.domain.clone(),
            trusted_peers: config.sip.trusted_peers.clone(),
            anonymous_calls: config.sip.anonymous_calls,
        }
    }

    /// Id and default callback URI of an application.
    pub fn application(&self, name: &str) -> Option<(&str, &str)> {
        let known = self.applications.get(name)?;
        Some((&known.id, &known.callback_uri))
    }

    /// Whether the application has the role to place calls, for itself or at a peer's request.
    pub(super) fn may_call(&self, name: &str) -> bool {
        self.applications.get(name).is_some_and(|application| application.may_call)
    }

    /// Interprets the target of a peer's REFER. At our own domain, a user part that is not one of
    /// our users is taken as a telephone number to call.
    pub(super) fn meant(&self, uri: &Uri, is_ours: impl Fn(IpAddr) -> bool) -> Option<Uri> {
        if !self.is_home(uri, &is_ours) || self.user_of(uri, &is_ours).is_some() {
            return Some(uri.clone());
        }
        format!("tel:{}", escape_user(&uri.user()?)).parse().ok()
    }

    /// Whether a URI is at our domain; without a configured domain, whether it is at one of our
    /// addresses (`is_ours`).
    fn is_home(&self, uri: &Uri, is_ours: impl Fn(IpAddr) -> bool) -> bool {
        match self.domain.as_str() {
            "" => uri.ip_addr().is_some_and(is_ours),
            domain => uri.host().is_some_and(|host| host.eq_ignore_ascii_case(domain)),
        }
    }

    /// Plans a call to `target` over the first trunk that allows it; also returns that trunk's
    /// limit of simultaneous calls.
    pub(super) fn way_out(
        &self,
        target: &Uri,
        placed: &Placed<'_>,
    ) -> Option<(RoutePlan, Option<usize>)> {
        self.trunks.iter().find_map(|trunk| Some((trunk.way_to(target, placed)?, trunk.max_calls)))
    }

    /// The setting for encrypted audio that this user, or else this trunk, has of its own.
    pub(super) fn srtp_of(&self, user: Option<&str>, trunk: Option<&str>) -> Option<SrtpPolicy> {
        let of_user = user.and_then(|name| self.users.get(name).copied().flatten());
        let is_meant = |known: &&Trunk| Some(known.name.as_str()) == trunk;
        of_user.or_else(|| self.trunks.iter().find(is_meant)?.srtp)
    }

    /// Name of our user that a URI addresses, if any.
    pub(super) fn user_of(&self, uri: &Uri, is_ours: impl Fn(IpAddr) -> bool) -> Option<String> {
        uri.user().filter(|user| self.users.contains_key(user) && self.is_home(uri, is_ours))
    }

    /// Finds the owner of a call to `user` over `path`. `caller` is the authenticated user or the
    /// trunk, if there is one.
    ///
    /// A stranger gets the same answer for a number that does not exist as for one that is not
    /// public.
    ///
    /// # Errors
    /// No route matches, or the caller may not use the route.
    pub fn find(&self, user: &str, path: Path, caller: Option<&str>) -> Result<Owner, Refusal> {
        let route = self.routes.iter().find(|route| matches(&route.to, user));
        let is_known = caller.is_some() || self.is_trusted(path);
        let is_open = |route: &&Route| is_known || (route.public && self.anonymous_calls);
        let route = match route.filter(is_open) {
            Some(route) => route,
            None if is_known => return Err(Refusal::NoRoute(user.to_owned())),
            None if !self.users.is_empty() => return Err(Refusal::NotAuthenticated),
            None => return Err(Refusal::NotAllowed(user.to_owned())),
        };
        match &route.target {
            RouteTarget::Line(Line::Voicemail) => Ok(Owner::Line(LineScript::voicemail())),
            RouteTarget::Line(Line::Echo) => Ok(Owner::Line(LineScript::Echo)),
            RouteTarget::Application(name) => {
                let (_, callback_uri) = self.application(name).ok_or(Refusal::Internal)?;
                let callback_uri = callback_uri.to_owned();
                Ok(Owner::Application { name: name.clone(), callback_uri })
            }
        }
    }
}

impl Directory {
    /// Whether a peer is in a trusted network and so may call any route. A WebSocket that a web
    /// page has opened is never trusted.
    pub(super) fn is_trusted(&self, path: Path) -> bool {
        is_trusted_over(&self.trusted_peers, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(environment: &[(&str, &str)], file: &str) -> Directory {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, file).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Directory::new(&Config::load(Some(&path), environment).unwrap())
    }

    fn from(ip: &str) -> Path {
        let local = "192.0.2.9:5060".parse().unwrap();
        Path::udp(local, std::net::SocketAddr::new(ip.parse().unwrap(), 5060))
    }

    #[test]
    fn without_an_application_the_lines_answer_to_their_names() {
        let directory = directory(&[], "");
        let peer = from("192.0.2.1");
        assert!(matches!(directory.find("echo", peer, None), Ok(Owner::Line(LineScript::Echo))));
        assert!(matches!(directory.find("voicemail", peer, None), Ok(Owner::Line(_))));
        assert!(matches!(directory.find("support", peer, None), Err(Refusal::NotAllowed(_))));
    }

    #[test]
    fn strangers_reach_only_what_is_public() {
        let bot = "[[applications]]\nname = \"b\"\nid = \"1\"\ncallback_uri = \"http://127.0.0.1/\"\n\
                   [[routes]]\nto = \"open\"\napplication = \"b\"\npublic = true\n\
                   [[routes]]\nto = \"closed\"\napplication = \"b\"\n";
        let trusted = [("AFTERTONE__SIP__TRUSTED_PEERS", "10.0.0.0/8")];
        let stranger = from("192.0.2.1");
        let friend = from("10.1.2.3");
        let open = directory(&trusted, bot);
        assert!(open.find("open", stranger, None).is_ok());
        assert!(matches!(open.find("closed", stranger, None), Err(Refusal::NotAllowed(_))));
        assert!(open.find("closed", friend, None).is_ok());
        let page = Path { is_foreign: true, ..friend };
        assert!(matches!(open.find("closed", page, None), Err(Refusal::NotAllowed(_))));
        assert!(matches!(open.find("echo", friend, None), Err(Refusal::NoRoute(_))));
        let closed = directory(&[trusted[0], ("AFTERTONE__SIP__ANONYMOUS_CALLS", "false")], bot);
        assert!(matches!(closed.find("open", stranger, None), Err(Refusal::NotAllowed(_))));
    }

    #[test]
    fn with_users_a_stranger_is_asked_who_it_is_whatever_it_calls() {
        let users = "[[users]]\nname = \"alice\"\npassword = \"x\"\n\
                     [[routes]]\nto = \"echo\"\nline = \"echo\"\n\
                     [[routes]]\nto = \"open\"\nline = \"echo\"\npublic = true\n";
        let directory = directory(&[("AFTERTONE__SIP__DOMAIN", "pbx.example")], users);
        let peer = from("192.0.2.1");
        for number in ["echo", "nobody"] {
            let found = directory.find(number, peer, None);
            assert!(matches!(found, Err(Refusal::NotAuthenticated)), "{number}");
        }
        assert!(directory.find("open", peer, None).is_ok());
        assert!(directory.find("echo", peer, Some("alice")).is_ok());
        let nobody = directory.find("nobody", peer, Some("alice"));
        assert!(matches!(nobody, Err(Refusal::NoRoute(_))));
        let user = |uri: &str| directory.user_of(&uri.parse().unwrap(), |_| false);
        assert_eq!(user("sip:alice@PBX.example").as_deref(), Some("alice"));
        assert_eq!(user("sip:alice@elsewhere.example"), None);
        assert_eq!(user("sip:bob@pbx.example"), None);
    }

    #[test]
    fn without_a_domain_our_own_address_is_home_and_no_other() {
        let directory = directory(&[], "[[users]]\nname = \"alice\"\npassword = \"x\"\n");
        let is_ours = |ip: IpAddr| ip == IpAddr::from([192, 0, 2, 1]);
        let user = |uri: &str| directory.user_of(&uri.parse().unwrap(), is_ours);
        assert_eq!(user("sip:alice@192.0.2.1:5070").as_deref(), Some("alice"));
        assert_eq!(user("sip:alice@192.0.2.2"), None);
        assert_eq!(user("sip:alice@pbx.example"), None);
    }
}
