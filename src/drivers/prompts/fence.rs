//! Which addresses outgoing requests may reach: public ones, and those that the configuration
//! lists.
//!
//! Prompt and callback URIs come from bots, and a server that fetches any URI is a way into its
//! internal network. So every address is checked: that of the URI, those that its name resolves to,
//! and those of each redirect. A name is resolved once, by the connection itself, and the
//! connection is made only to addresses that are allowed at that port.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use crate::drivers::http::Connection;

/// The allowed addresses; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fence {
    allowed: Arc<[(IpNet, Option<u16>)]>,
}

/// Why an address may not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FenceError {
    /// Neither http nor https.
    #[error("the scheme {0:?} is not http or https")]
    Scheme(String),
    /// The URL has no host.
    #[error("the URI has no host")]
    NoHost,
    /// The URL carries a user or password.
    #[error("a URI with a user or password is not fetched")]
    Credentials,
    /// The text is no URI.
    #[error("it is not a URI: {0}")]
    NoUri(url::ParseError),
    /// A control character: URI parsers may drop it, and a database may refuse it.
    #[error("it holds a control character")]
    Control,
    /// A private address that is not listed.
    #[error("{address} is a private address; list it in [fetch] allow_networks to allow it")]
    Private {
        /// The address and port.
        address: SocketAddr,
    },
    /// The name has no address.
    #[error("the host {host:?} cannot be resolved: {message}")]
    Unresolved {
        /// The name.
        host: String,
        /// What the resolver says.
        message: String,
    },
}

impl FenceError {
    /// The fence's own error among the causes of a client's error.
    pub(super) fn cause_of(error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        let causes = std::iter::successors(Some(error), |error| error.source());
        causes.filter_map(|cause| cause.downcast_ref::<Self>()).next().cloned()
    }
}

impl Fence {
    /// A fence with gates: allowed networks, each for one port or for all.
    pub fn new(allowed: impl Iterator<Item = (IpNet, Option<u16>)>) -> Self {
        Self { allowed: allowed.collect() }
    }

    /// Checks a URL, as far as that is possible without resolving its name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_url(&self, url: &Url) -> Result<(), FenceError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FenceError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FenceError::Credentials);
        }
        let port = url.port_or_known_default().ok_or(FenceError::NoHost)?;
        match url.host().ok_or(FenceError::NoHost)? {
            Host::Ipv4(ip) => self.check_address(SocketAddr::new(ip.into(), port)),
            Host::Ipv6(ip) => self.check_address(SocketAddr::new(ip.into(), port)),
            Host::Domain(name) if is_localhost(name) && !self.has_gate_on_loopback(port) => {
                Err(FenceError::Private { address: (Ipv4Addr::LOCALHOST, port).into() })
            }
            Host::Domain(_) => Ok(()),
        }
    }

    /// Checks the text of a URI that is only stored for now, as far as that is possible without
    /// resolving its name: whether a request to it could ever be sent.
    ///
    /// # Errors
    /// What is wrong with it. The error does not repeat the text, which may hold a password.
    pub fn check_text(&self, text: &str) -> Result<(), FenceError> {
        if text.contains(char::is_control) {
            return Err(FenceError::Control);
        }
        self.check_url(&Url::parse(text).map_err(FenceError::NoUri)?)
    }

    /// A client that connects only to allowed addresses. It follows no redirects: each target must
    /// be checked first.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn client(
        &self,
        connect: Duration,
        total: Duration,
    ) -> Result<FencedClient, reqwest::Error> {
        let client = |port: Option<u16>, idle_connections: usize| {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .connect_timeout(connect)
                .timeout(total)
                .pool_idle_timeout(Duration::from_secs(30))
                .pool_max_idle_per_host(idle_connections)
                .user_agent(concat!("aftertone/", env!("CARGO_PKG_VERSION")))
                .dns_resolver(AtPort { fence: self.clone(), port })
                .build()
        };
        let clients = |port| -> Result<Clients, reqwest::Error> {
            Ok(Clients { keeping: client(port, usize::MAX)?, closing: client(port, 0)? })
        };
        let ports = self.allowed.iter().filter_map(|(_, port)| *port);
        let at_gates = ports.map(|port| Ok((port, clients(Some(port))?)));
        let at_gates = at_gates.collect::<Result<_, reqwest::Error>>()?;
        let other = clients(None)?;
        Ok(FencedClient { fence: self.clone(), at_gates: Arc::new(at_gates), other })
    }

    fn check_address(&self, address: SocketAddr) -> Result<(), FenceError> {
        if self.is_open(address.ip(), Some(address.port())) {
            Ok(())
        } else {
            Err(FenceError::Private { address })
        }
    }

    /// Whether any loopback address may be reached at a port. Which of them `localhost` means is
    /// known only after it is resolved.
    fn has_gate_on_loopback(&self, port: u16) -> bool {
        let is_loopback = |network: &IpNet| network.addr().to_canonical().is_loopback();
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        self.allowed.iter().any(|(network, at)| {
            at.is_none_or(|at| at == port)
                && (is_loopback(network) || loopback.iter().any(|ip| network.contains(ip)))
        })
    }

    /// Whether an address may be reached at a port; `None` stands for every port that no gate
    /// names.
    fn is_open(&self, ip: IpAddr, at: Option<u16>) -> bool {
        let ip = ip.to_canonical();
        let passes = |(network, port): &(IpNet, Option<u16>)| {
            network.contains(&ip) && (port.is_none() || *port == at)
        };
        is_public(ip) || self.allowed.iter().any(passes)
    }
}

/// A client that connects only to allowed addresses; cheap to clone.
///
/// A DNS resolver of a client is not told the port. So each port that a gate names has its own
/// client, and all other ports share one.
#[derive(Debug, Clone)]
pub struct FencedClient {
    fence: Fence,
    at_gates: Arc<HashMap<u16, Clients>>,
    other: Clients,
}

#[derive(Debug, Clone)]
struct Clients {
    /// Keeps connections for further requests.
    keeping: reqwest::Client,
    /// Uses each connection once.
    closing: reqwest::Client,
}

impl FencedClient {
    /// The client for a URL. The URL's name is checked when it is resolved.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn to(&self, url: &Url, connection: Connection) -> Result<&reqwest::Client, FenceError> {
        self.fence.check_url(url)?;
        let port = url.port_or_known_default().ok_or(FenceError::NoHost)?;
        let clients = self.at_gates.get(&port).unwrap_or(&self.other);
        Ok(match connection {
            Connection::Kept => &clients.keeping,
            Connection::New => &clients.closing,
        })
    }
}

/// Resolves names for connections to one port, or to all ports that no gate names.
struct AtPort {
    fence: Fence,
    port: Option<u16>,
}

impl Resolve for AtPort {
    fn resolve(&self, name: Name) -> Resolving {
        let (fence, port) = (self.fence.clone(), self.port);
        Box::pin(async move {
            let unresolved = |message: String| FenceError::Unresolved {
                host: name.as_str().to_owned(),
                message,
            };
            let found = tokio::net::lookup_host((name.as_str(), port.unwrap_or(0)))
                .await
                .map_err(|error| unresolved(error.to_string()))?;
            let (open, closed): (Vec<_>, Vec<_>) =
                found.partition(|address| fence.is_open(address.ip(), port));
            match (open.is_empty(), closed.first()) {
                (false, _) => Ok(Box::new(open.into_iter()) as Addrs),
                (true, Some(&address)) => Err(FenceError::Private { address }.into()),
                (true, None) => Err(unresolved("it has no address".to_owned()).into()),
            }
        })
    }
}

/// RFC 6761 section 6.3: names that mean this machine, whatever the DNS answers.
fn is_localhost(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.rsplit('.').next().is_some_and(|last| last.eq_ignore_ascii_case("localhost"))
}

/// Whether an address belongs to the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = match (a, b, c) {
        // This network, loopback, private use, shared address space (RFC 6598).
        (0 | 10 | 127, ..) | (172, 16..=31, _) | (192, 168, _) | (100, 64..=127, _) => true,
        // Link-local, IETF protocol assignments, documentation, 6to4 relays, benchmarking.
        (169, 254, _) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) => true,
        (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224..=255, ..) => true,
        _ => false,
    };
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    // An embedded IPv4 address is checked as an IPv4 address.
    let embedded = match segments {
        // NAT64 (RFC 6052) and the deprecated compatible form.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => Some((high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        let bits = (u32::from(high) << 16) | u32::from(low);
        return is_public_v4(Ipv4Addr::from_bits(bits));
    }
    // Global unicast is 2000::/3, except documentation and Teredo.
    let is_global = segments[0] & 0xe000 == 0x2000;
    let is_documentation = segments[0] == 0x2001 && segments[1] == 0xdb8 || segments[0] == 0x3fff;
    let is_teredo = segments[0] == 0x2001 && segments[1] == 0;
    is_global && !is_documentation && !is_teredo
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fence(gates: &[(&str, Option<u16>)]) -> Fence {
        Fence::new(gates.iter().map(|(network, port)| (network.parse().unwrap(), *port)))
    }

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn public_addresses_may_be_reached_and_others_not() {
        let fence = fence(&[]);
        for text in
            ["http://93.184.216.34/a", "https://[2606:2800::1]:8443/", "http://name.example/"]
        {
            assert_eq!(fence.check_url(&url(text)), Ok(()), "{text}");
        }
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "198.18.0.1",
            "2130706433",
            "0x7f.1",
            "[::1]",
            "[::]",
            "[fe80::1]",
            "[fc00::1]",
            "[ff02::1]",
            "[2001:db8::1]",
            "[::ffff:10.0.0.1]",
            "[64:ff9b::a00:1]",
            "[2002:a00:1::]",
            "[::7f00:1]",
        ] {
            let error = fence.check_url(&url(&format!("http://{host}/x"))).unwrap_err();
            assert!(error.to_string().contains("allow_networks"), "{host}: {error}");
        }
    }

    #[test]
    fn a_gate_is_for_its_network_and_port() {
        let fence = fence(&[("127.0.0.0/8", Some(8080)), ("10.0.0.0/8", None)]);
        assert!(fence.check_url(&url("http://127.0.0.1:8080/")).is_ok());
        assert!(fence.check_url(&url("http://127.0.0.1:8081/")).is_err());
        assert!(fence.check_url(&url("http://10.9.8.7:1234/")).is_ok());
        assert!(fence.check_url(&url("http://[::ffff:10.0.0.1]/")).is_ok());
        assert!(fence.check_url(&url("http://192.168.0.1/")).is_err());
    }

    #[test]
    fn localhost_is_a_loopback_address_whatever_the_dns_says() {
        let closed = fence(&[("10.0.0.0/8", None), ("127.0.0.0/8", Some(8080))]);
        for text in ["http://localhost/", "http://LOCALHOST.:81/", "http://bot.localhost:81/"] {
            let error = closed.check_url(&url(text)).unwrap_err();
            assert!(matches!(error, FenceError::Private { .. }), "{text}: {error}");
        }
        assert_eq!(closed.check_url(&url("http://localhost:8080/")), Ok(()));
        for network in ["127.0.0.0/8", "127.0.0.2/32", "::1/128", "0.0.0.0/0"] {
            let open = fence(&[(network, None)]);
            assert_eq!(open.check_url(&url("http://localhost/")), Ok(()), "{network}");
        }
        assert_eq!(closed.check_url(&url("http://localhost.example/")), Ok(()));
    }

    #[test]
    fn a_text_that_can_never_be_called_is_refused() {
        let fence = fence(&[]);
        for (text, error) in [
            ("https://bot.example/\0", FenceError::Control),
            ("https://bot.exa\nmple/", FenceError::Control),
            ("https://bot.example/\u{85}", FenceError::Control),
            ("https://u:p@bot.example/", FenceError::Credentials),
            ("https://u@bot.example/", FenceError::Credentials),
            ("ftp://bot.example/", FenceError::Scheme("ftp".to_owned())),
        ] {
            assert_eq!(fence.check_text(text), Err(error), "{text:?}");
        }
        assert!(matches!(fence.check_text("bot"), Err(FenceError::NoUri(_))));
        assert!(matches!(fence.check_text("http://10.1/"), Err(FenceError::Private { .. })));
        assert_eq!(fence.check_text("https://bot.example/a?b#c"), Ok(()));
    }

    #[test]
    fn other_schemes_and_credentials_are_refused() {
        let fence = fence(&[]);
        assert!(matches!(fence.check_url(&url("ftp://x/")), Err(FenceError::Scheme(_))));
        assert_eq!(fence.check_url(&url("http://u:p@x/")), Err(FenceError::Credentials));
    }

    /// The fence's refusal of a request, if there is one.
    async fn refusal(client: &FencedClient, text: &str) -> Option<FenceError> {
        let url = url(text);
        let client = match client.to(&url, Connection::Kept) {
            Ok(client) => client,
            Err(refusal) => return Some(refusal),
        };
        FenceError::cause_of(&client.get(url).send().await.err()?)
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to_and_by_the_port() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = |listener: &tokio::net::TcpListener| listener.local_addr().unwrap().port();
        let (port, other) = (port(&open), port(&closed));
        let second = Duration::from_secs(1);
        let gates = [("127.0.0.0/8", Some(port)), ("::1/128", Some(port)), ("10.0.0.0/8", None)];
        let client = fence(&gates).client(second, second).unwrap();
        for host in ["localhost", "127.0.0.1"] {
            let refused = refusal(&client, &format!("http://{host}:{other}/")).await;
            assert!(matches!(refused, Some(FenceError::Private { .. })), "{host}: {refused:?}");
            // The fence allows it; no HTTP server answers.
            assert_eq!(refusal(&client, &format!("http://{host}:{port}/")).await, None, "{host}");
        }
        let nobody = fence(&[]).client(second, second).unwrap();
        let refused = refusal(&nobody, &format!("http://localhost:{other}/")).await;
        assert!(matches!(refused, Some(FenceError::Private { .. })), "{refused:?}");
        tokio::time::timeout(second, open.accept()).await.unwrap().unwrap();
        let seen = std::future::poll_fn(|context| {
            std::task::Poll::Ready(closed.poll_accept(context).is_ready())
        });
        assert!(!seen.await, "the closed port has seen a connection");
    }
}
