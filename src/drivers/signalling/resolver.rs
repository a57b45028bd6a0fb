//! Resolves SIP URIs: asks the DNS the questions of the locator (RFC 3263).

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::LookupIpStrategy,
    proto::rr::{RData, RecordType},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tracing::{debug, warn};

use aftertone_core::proto::sip::{
    locate::{Available, Locator, Naptr, Question, Reply, Srv, Target},
    uri::Uri,
};

/// Time limit for all questions of one URI.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time limit of one server for one question.
const SERVER_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Why a URI leads to no peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// The DNS knows no address, or none that a listener of ours can send to.
    #[error("no address that could be sent to")]
    NoWay,
    /// The DNS did not answer in time.
    #[error("the DNS did not answer within {} s", DEADLINE.as_secs())]
    TooSlow,
}

/// Asks the DNS, and caches answers for their TTL; cheap to clone.
#[derive(Clone)]
pub(super) struct Resolver {
    /// `None` when the system names no DNS servers: then only IP addresses can be called.
    dns: Option<TokioResolver>,
    rng: Arc<Mutex<StdRng>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("dns", &self.dns.is_some()).finish()
    }
}

impl Resolver {
    /// Uses the DNS servers of the system; its hosts file comes first.
    pub(super) fn of_the_system() -> Self {
        let built = TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
            // One silent server must not use up the time of all questions.
            options.timeout = SERVER_TIMEOUT;
            options.attempts = 1;
            builder.build()
        });
        let dns = built
            .map_err(|error| warn!(%error, "no DNS: only addresses can be called, no names"))
            .ok();
        Self::new(dns)
    }

    fn new(dns: Option<TokioResolver>) -> Self {
        Self { dns, rng: Arc::new(Mutex::new(StdRng::from_os_rng())) }
    }

    /// The targets of a URI, the best first; never empty.
    ///
    /// # Errors
    /// No target can be reached by `available`, or the DNS does not answer.
    pub(super) async fn locate(
        &self,
        uri: &Uri,
        available: &[Available],
    ) -> Result<Vec<Target>, LocateError> {
        let deadline = Instant::now() + DEADLINE;
        let mut locator = Locator::new(uri, available);
        let mut in_time = true;
        while let Some(question) = locator.question() {
            // The targets that were found before the deadline are used.
            let Ok(reply) = tokio::time::timeout_at(deadline, self.ask(question)).await else {
                in_time = false;
                break;
            };
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            locator.answer(reply, &mut rng);
        }
        let targets = locator.finish();
        match (targets.is_empty(), in_time) {
            (false, _) => Ok(targets),
            (true, true) => Err(LocateError::NoWay),
            (true, false) => Err(LocateError::TooSlow),
        }
    }

    /// Asks one question. A failure gives an empty reply, because the other questions may still be
    /// answered.
    async fn ask(&self, question: Question) -> Reply {
        match question {
            Question::Naptr(name) => Reply::Naptr(
                self.look_up(&name, RecordType::NAPTR)
                    .await
                    .into_iter()
                    .filter_map(|data| match data {
                        RData::NAPTR(naptr) => Some(Naptr {
                            order: naptr.order,
                            preference: naptr.preference,
                            service: String::from_utf8_lossy(&naptr.services).into_owned(),
                            replacement: naptr.replacement.to_ascii(),
                        }),
                        _ => None,
                    })
                    .collect(),
            ),
            Question::Srv(name) => Reply::Srv(
                self.look_up(&name, RecordType::SRV)
                    .await
                    .into_iter()
                    .filter_map(|data| match data {
                        RData::SRV(srv) => Some(Srv {
                            priority: srv.priority,
                            weight: srv.weight,
                            port: srv.port,
                            target: srv.target.to_ascii(),
                        }),
                        _ => None,
                    })
                    .collect(),
            ),
            Question::Addresses(name) => Reply::Addresses(self.addresses(&name).await),
        }
    }

    async fn look_up(&self, name: &str, kind: RecordType) -> Vec<RData> {
        let Some(dns) = &self.dns else { return Vec::new() };
        // Absolute: a name of the configuration is not searched below our own domain.
        let name = format!("{}.", name.trim_end_matches('.'));
        match dns.lookup(name.as_str(), kind).await {
            Ok(lookup) => lookup.answers().iter().map(|record| record.data.clone()).collect(),
            Err(error) => {
                debug!(name, %kind, %error, "nothing in the DNS");
                Vec::new()
            }
        }
    }

    async fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let Some(dns) = &self.dns else { return Vec::new() };
        match dns.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await {
            Ok(found) => found.iter().collect(),
            Err(error) => {
                debug!(name, %error, "no address in the DNS");
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, str::FromStr};

    use hickory_resolver::{
        config::{ConnectionConfig, NameServerConfig, ResolverConfig},
        net::runtime::TokioRuntimeProvider,
        proto::{
            op::{Message, OpCode, ResponseCode},
            rr::{Name, RData, Record, rdata},
        },
    };
    use tokio::net::UdpSocket;

    use super::*;
    use aftertone_core::proto::sip::path::Transport;

    fn by(transport: Transport) -> Available {
        Available { transport, by_ipv4: true, by_ipv6: false }
    }

    /// A DNS server on loopback that knows one domain.
    async fn dns_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            loop {
                let (length, peer) = socket.recv_from(&mut buffer).await.unwrap();
                let query = Message::from_vec(&buffer[..length]).unwrap();
                socket.send_to(&reply_to(&query).to_vec().unwrap(), peer).await.unwrap();
            }
        });
        address
    }

    fn reply_to(query: &Message) -> Message {
        let mut reply = Message::response(query.metadata.id, OpCode::Query);
        let asked = &query.queries[0];
        reply.add_query(asked.clone());
        let name = |text: &str| Name::from_str(text).unwrap();
        let data = match (asked.name().to_ascii().as_str(), asked.query_type()) {
            ("trunk.test.", RecordType::NAPTR) => Some(RData::NAPTR(rdata::NAPTR::new(
                10,
                10,
                b"s".to_vec().into(),
                b"SIP+D2T".to_vec().into(),
                Box::default(),
                name("_sip._tcp.trunk.test."),
            ))),
            ("_sip._tcp.trunk.test.", RecordType::SRV) => {
                Some(RData::SRV(rdata::SRV::new(1, 1, 5070, name("edge.trunk.test."))))
            }
            ("edge.trunk.test.", RecordType::A) => {
                Some(RData::A(rdata::A(std::net::Ipv4Addr::new(192, 0, 2, 77))))
            }
            _ => None,
        };
        match data {
            Some(data) => {
                reply.add_answer(Record::from_rdata(asked.name().clone(), 60, data));
            }
            None => reply.metadata.response_code = ResponseCode::NXDomain,
        }
        reply
    }

    async fn resolver() -> Resolver {
        let server = dns_server().await;
        let mut connection = ConnectionConfig::udp();
        connection.port = server.port();
        let servers = vec![NameServerConfig::new(server.ip(), true, vec![connection])];
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Resolver::new(Some(builder.build().unwrap()))
    }

    #[tokio::test]
    async fn a_trunk_is_found_by_its_services() {
        let resolver = resolver().await;
        let uri: Uri = "sip:trunk.test".parse().unwrap();
        let found = resolver.locate(&uri, &[by(Transport::Udp), by(Transport::Tcp)]).await.unwrap();
        let address = "192.0.2.77:5070".parse().unwrap();
        let host = "trunk.test".to_owned();
        assert_eq!(found, [Target { address, transport: Transport::Tcp, host }]);
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_leads_nowhere() {
        let resolver = resolver().await;
        let uri: Uri = "sip:nobody.test;transport=udp".parse().unwrap();
        let found = resolver.locate(&uri, &[by(Transport::Udp)]).await;
        assert_eq!(found, Err(LocateError::NoWay));
    }
}
