//! Names as the system resolves them: `/etc/hosts`, `localhost`, then the servers of `/etc/resolv.conf`.

use std::fs::File;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tracing::warn;

use super::{Answer, LookupError, NameService};

/// How long an answer from `/etc/hosts` is good for: its file is read again then.
const HOSTS_TTL: Duration = Duration::from_secs(10);

/// The system's name service. `/etc/resolv.conf` is read once; `/etc/hosts` with each lookup.
pub struct SystemNames {
    resolver: TokioResolver,
    hosts: PathBuf,
}

impl SystemNames {
    /// What the system is set up for. Without a readable `/etc/resolv.conf`, `localhost` and the names in
    /// `/etc/hosts` can be resolved all the same.
    pub fn new() -> Result<Self, LookupError> {
        let (config, options) = read_system_conf().unwrap_or_else(|error| {
            warn!(%error, "no name servers: only localhost and /etc/hosts can be resolved");
            (ResolverConfig::from_parts(None, Vec::new(), Vec::new()), ResolverOpts::default())
        });
        Self::with(config, options, "/etc/hosts".into())
    }

    /// A service with these servers and this file of hosts.
    fn with(config: ResolverConfig, mut options: ResolverOpts, hosts: PathBuf) -> Result<Self, LookupError> {
        // the last answers are kept by the caller, for as long as their TTL says
        options.cache_size = 0;
        // a name in the file is not asked for elsewhere, not even its other address family: see `lookup`
        options.use_hosts_file = ResolveHosts::Never;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = builder.build().map_err(|error| LookupError::Failed(error.to_string()))?;
        Ok(Self { resolver, hosts })
    }

    async fn in_hosts_file(&self, name: &Name) -> Option<Answer> {
        let (path, name) = (self.hosts.clone(), name.clone());
        let read = move || {
            let mut hosts = Hosts::default();
            hosts.read_hosts_conf(File::open(path).ok()?).ok()?;
            let find = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
            let (v4, v6) = (find(RecordType::A), find(RecordType::AAAA));
            let found = v4.is_some() || v6.is_some();
            found.then(|| Answer { ttl: HOSTS_TTL, ..answer(v4.as_ref(), v6.as_ref()) })
        };
        // a file system that hangs must not hold up a worker
        tokio::task::spawn_blocking(read).await.ok().flatten()
    }
}

#[async_trait]
impl NameService for SystemNames {
    async fn lookup(&self, name: &str) -> Result<Answer, LookupError> {
        // underscores are allowed here, unlike in `from_utf8`
        let name = Name::from_ascii(name).map_err(|error| LookupError::Failed(error.to_string()))?;
        let mut found = match self.in_hosts_file(&name).await {
            Some(answer) => answer,
            None => self.ask_servers(name).await?,
        };
        if found.v4.as_ref().is_some_and(|v4| !v4.is_empty()) {
            // where there is IPv4 too, an IPv6 address without a route would only fail every other attempt
            found.v6 = found.v6.map(|v6| v6.into_iter().filter(has_route).collect());
        }
        Ok(found)
    }
}

impl SystemNames {
    async fn ask_servers(&self, name: Name) -> Result<Answer, LookupError> {
        let (v4, v6) = tokio::join!(
            self.resolver.lookup(name.clone(), RecordType::A),
            self.resolver.lookup(name, RecordType::AAAA),
        );
        let (v4, mut v6) = match (known(v4), known(v6)) {
            (Err(error), Err(_)) => return Err(LookupError::Failed(error.to_string())),
            both => both,
        };
        if let (Ok(Some(one)), Ok(Some(other))) = (&v4, &v6)
            && one.query().name() != other.query().name()
        {
            // found in two search domains, so these are two hosts
            v6 = Ok(None);
        }
        let found = |lookup: &Result<Option<Lookup>, NetError>| lookup.as_ref().ok().cloned().flatten();
        let all = answer(found(&v4).as_ref(), found(&v6).as_ref());
        Ok(Answer { v4: all.v4.filter(|_| v4.is_ok()), v6: all.v6.filter(|_| v6.is_ok()), ..all })
    }
}

/// That a name has no address of a family is knowledge; everything else that goes wrong is not.
fn known(result: Result<Lookup, NetError>) -> Result<Option<Lookup>, NetError> {
    match result {
        Ok(lookup) => Ok(Some(lookup)),
        Err(error) if error.is_no_records_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn answer(v4: Option<&Lookup>, v6: Option<&Lookup>) -> Answer {
    let records = |lookup: Option<&Lookup>| lookup.map(|lookup| lookup.answers().to_vec()).unwrap_or_default();
    let (v4, v6) = (records(v4), records(v6));
    // the aliases on the way (CNAME) limit it too
    let ttl = v4.iter().chain(&v6).map(|record| record.ttl).min().unwrap_or(0);
    let a = |data: &RData| if let RData::A(address) = data { Some(address.0) } else { None };
    let aaaa = |data: &RData| if let RData::AAAA(address) = data { Some(address.0) } else { None };
    Answer {
        v4: Some(v4.iter().filter_map(|record| a(&record.data)).collect()),
        v6: Some(v6.iter().filter_map(|record| aaaa(&record.data)).collect()),
        ttl: Duration::from_secs(ttl.into()),
    }
}

/// Whether this machine could send to the address. Connecting a UDP socket looks up the route and sends nothing.
fn has_route(address: &Ipv6Addr) -> bool {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    UdpSocket::bind(any).and_then(|socket| socket.connect((*address, 9))).is_ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{IpAddr, Ipv4Addr};

    use hickory_resolver::config::NameServerConfig;
    use hickory_resolver::proto::op::{Message, ResponseCode};
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
    use tokio::net::UdpSocket as AsyncUdpSocket;

    use super::*;

    /// Records as owner, TTL and data.
    type Records = Vec<(&'static str, u32, RData)>;

    /// A name server on a port of the loopback's: what it answers to each question.
    async fn server(answers: fn(&str, RecordType) -> Result<Records, ResponseCode>) -> ResolverConfig {
        let socket = AsyncUdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut packet = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut packet).await {
                let query = Message::from_vec(&packet[..length]).expect("a query");
                let question = query.queries.first().expect("a question").clone();
                let name = question.name().to_ascii().to_ascii_lowercase();
                let mut response = query.into_response();
                match answers(&name, question.query_type()) {
                    Ok(records) => {
                        let owner = |name| Name::from_ascii(name).expect("a name");
                        let record = |(name, ttl, data)| Record::from_rdata(owner(name), ttl, data);
                        response.add_answers(records.into_iter().map(record));
                    }
                    Err(code) => response.metadata.response_code = code,
                }
                socket.send_to(&response.to_vec().expect("fits"), client).await.expect("sent");
            }
        });
        let mut server = NameServerConfig::udp(address.ip());
        server.connections.iter_mut().for_each(|connection| connection.port = address.port());
        ResolverConfig::from_parts(None, Vec::new(), vec![server])
    }

    fn no_servers() -> ResolverConfig {
        ResolverConfig::from_parts(None, Vec::new(), Vec::new())
    }

    async fn look_up(config: ResolverConfig, hosts: &str, name: &str) -> Result<Answer, LookupError> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(hosts.as_bytes()).expect("written");
        let mut options = ResolverOpts::default();
        (options.attempts, options.timeout) = (0, Duration::from_secs(1));
        let names = SystemNames::with(config, options, file.path().into()).expect("a resolver");
        names.lookup(name).await
    }

    fn v4(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[tokio::test]
    async fn all_addresses_come_with_the_shortest_ttl_on_the_way() {
        let config = server(|_, kind| {
            let alias = RData::CNAME(CNAME(Name::from_ascii("real.test.").expect("a name")));
            let mut records = vec![("api.test.", 20, alias)];
            if kind == RecordType::A {
                records.extend([1, 2].map(|last| ("real.test.", 60, RData::A(A(v4(last))))));
            }
            Ok(records)
        });
        let expected = Answer { v4: Some(vec![v4(1), v4(2)]), v6: Some(Vec::new()), ttl: Duration::from_secs(20) };
        assert_eq!(look_up(config.await, "", "api.test").await, Ok(expected));
    }

    #[tokio::test]
    async fn a_name_may_have_ipv6_addresses_only() {
        let config = server(|_, kind| match kind {
            RecordType::AAAA => Ok(vec![("api.test.", 30, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))]),
            _ => Ok(Vec::new()),
        });
        let answer = look_up(config.await, "", "api.test").await.expect("an answer");
        assert_eq!((answer.v4, answer.v6), (Some(Vec::new()), Some(vec![Ipv6Addr::LOCALHOST])));
    }

    #[tokio::test]
    async fn a_family_without_records_is_known_to_be_empty() {
        let config = server(|_, kind| match kind {
            RecordType::A => Ok([1, 2].map(|last| ("my_service.test.", 30, RData::A(A(v4(last))))).to_vec()),
            _ => Ok(Vec::new()),
        });
        let expected = Answer { v4: Some(vec![v4(1), v4(2)]), v6: Some(Vec::new()), ttl: Duration::from_secs(30) };
        assert_eq!(look_up(config.await, "", "my_service.test").await, Ok(expected));
    }

    #[tokio::test]
    async fn a_family_that_could_not_be_asked_is_unknown() {
        let config = server(|_, kind| match kind {
            RecordType::A => Ok(vec![("api.test.", 30, RData::A(A(v4(1))))]),
            _ => Err(ResponseCode::ServFail),
        });
        let expected = Answer { v4: Some(vec![v4(1)]), v6: None, ttl: Duration::from_secs(30) };
        assert_eq!(look_up(config.await, "", "api.test").await, Ok(expected));
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_has_no_addresses() {
        let config = server(|_, _| Err(ResponseCode::NXDomain)).await;
        let answer = look_up(config, "", "nowhere.test").await.expect("it is known");
        assert_eq!((answer.v4, answer.v6), (Some(Vec::new()), Some(Vec::new())));
    }

    #[tokio::test]
    async fn a_server_that_fails_is_an_error() {
        let config = server(|_, _| Err(ResponseCode::ServFail)).await;
        assert!(matches!(look_up(config, "", "api.test").await, Err(LookupError::Failed(_))));
    }

    #[tokio::test]
    async fn hosts_of_two_search_domains_are_not_mixed() {
        let config = server(|name, kind| match (name, kind) {
            ("api.one.test.", RecordType::A) => Ok(vec![("api.one.test.", 30, RData::A(A(v4(1))))]),
            ("api.two.test.", RecordType::AAAA) => {
                Ok(vec![("api.two.test.", 30, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))])
            }
            ("api.one.test.", _) => Ok(Vec::new()),
            _ => Err(ResponseCode::NXDomain),
        });
        let search = ["one.test.", "two.test."].map(|name| Name::from_ascii(name).expect("a name"));
        let config = ResolverConfig::from_parts(None, search.to_vec(), config.await.name_servers().to_vec());
        let expected = Answer { v4: Some(vec![v4(1)]), v6: Some(Vec::new()), ttl: Duration::from_secs(30) };
        assert_eq!(look_up(config, "", "api").await, Ok(expected));
    }

    #[tokio::test]
    async fn the_hosts_file_comes_first_and_alone() {
        let config = server(|_, _| Ok(vec![("api.test.", 30, RData::AAAA(AAAA(Ipv6Addr::LOCALHOST)))])).await;
        let hosts = "10.0.0.7 Api.Test other # comment\n10.0.0.8 api.test\n";
        let expected = Answer { v4: Some(vec![v4(7), v4(8)]), v6: Some(Vec::new()), ttl: HOSTS_TTL };
        assert_eq!(look_up(config, hosts, "api.test").await, Ok(expected));
    }

    #[tokio::test]
    async fn localhost_needs_no_server() {
        for name in ["localhost", "app.localhost"] {
            let answer = look_up(no_servers(), "", name).await.expect("an answer");
            assert_eq!(answer.v4, Some(vec![Ipv4Addr::LOCALHOST]));
            assert!(answer.v6.is_some_and(|v6| v6.iter().all(|ip| IpAddr::from(*ip).is_loopback())));
        }
        assert!(look_up(no_servers(), "", "api.test").await.is_err());
    }

    #[tokio::test]
    async fn the_system_service_is_there_on_any_machine() {
        let names = SystemNames::new().expect("a resolver");
        assert!(names.lookup("localhost").await.is_ok_and(|answer| answer.v4.is_some_and(|v4| !v4.is_empty())));
    }
}
