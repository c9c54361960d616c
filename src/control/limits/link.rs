//! The connection to a store: Redis, or what speaks its protocol. One connection, on which a whole batch of reports is
//! under way at once; the time is the server's.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, Script};
use redis::{TlsCertificates, TlsMode};

use crate::policy::rate_limit::{Report, StoreSettings};

/// How long it may take to connect and log in.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long a gateway that says nothing counts as alive.
const ALIVE_FOR: Duration = Duration::from_secs(2);

/// The bucket as one instant, in microseconds of the server's clock: the one at which it will have refilled. Takes what was
/// taken, what the bucket lacks at least, and what it may lack at most; returns what it lacks now. Everything is
/// written with %.0f, because Lua's own conversion keeps 14 digits.
const REPORT: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local bucket = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now) + ARGV[1]
bucket = math.min(math.max(bucket, now + ARGV[2]), now + ARGV[3])
if bucket <= now then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], string.format('%.0f', bucket), 'PX', string.format('%.0f', math.ceil((bucket - now) / 1000) + 1000))
return bucket - now
";

/// Notes that a gateway is alive, forgets those that were silent for too long, and counts them.
const BEAT: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
";

/// Why a store failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It refused, broke off, or answered with an error.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// It did not answer in time.
    #[error("no answer within {0:?}")]
    TooSlow(Duration),
}

/// A connection to a store.
pub(super) struct Link {
    connection: Connection,
    timeout: Duration,
    prefix: Box<str>,
    report: Script,
    beat: Script,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Link {
    /// Connects and logs in.
    pub(super) async fn open(settings: &StoreSettings) -> Result<Self, LinkError> {
        let connection = within(CONNECT_WITHIN, connect(settings)).await?;
        Ok(Self {
            connection,
            timeout: settings.timeout,
            prefix: settings.prefix.clone(),
            report: Script::new(REPORT),
            beat: Script::new(BEAT),
        })
    }

    /// Says that `node` is alive; how many are.
    pub(super) async fn beat(&mut self, node: &str) -> Result<u32, LinkError> {
        let key = format!("{}:gateways", self.prefix);
        let mut call = self.beat.prepare_invoke();
        call.key(key).arg(node).arg(millis(ALIVE_FOR));
        let answer = async {
            match &mut self.connection {
                Connection::Single(connection) => call.invoke_async(connection).await,
                Connection::Cluster(connection) => call.invoke_async(connection).await,
            }
        };
        within(self.timeout, answer).await
    }

    /// Tells the store what was taken from buckets of `limit`; how long each takes to refill now.
    pub(super) async fn report(
        &mut self,
        limit: &str,
        longest_debt: Duration,
        reports: &[Report],
    ) -> Result<Vec<Duration>, LinkError> {
        let most = u64::try_from(longest_debt.as_micros()).unwrap_or(u64::MAX);
        let answers = reports.iter().map(|report| {
            let mut call = self.report.prepare_invoke();
            // no hash tag: the buckets of a limit spread over a cluster
            call.key(format!("{}:{limit}:{:032x}", self.prefix, report.key));
            call.arg(report.taken_micros).arg(report.lacks_micros).arg(most);
            let mut connection = self.connection.clone();
            async move {
                let lacks: u64 = match &mut connection {
                    Connection::Single(connection) => call.invoke_async(connection).await?,
                    Connection::Cluster(connection) => call.invoke_async(connection).await?,
                };
                Ok::<_, RedisError>(Duration::from_micros(lacks))
            }
        });
        within(self.timeout, try_join_all(answers)).await
    }
}

async fn within<T>(time: Duration, answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, LinkError> {
    match tokio::time::timeout(time, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(LinkError::TooSlow(time)),
    }
}

async fn connect(settings: &StoreSettings) -> Result<Connection, RedisError> {
    let infos = settings.urls.iter().map(|url| info(url, settings)).collect::<Result<Vec<_>, _>>()?;
    let certificates = || TlsCertificates { client_tls: None, root_cert: settings.ca.as_ref().map(|pem| pem.to_vec()) };
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(None);
    if settings.cluster {
        let mut cluster = ClusterClient::builder(infos).retries(0).connection_timeout(CONNECT_WITHIN);
        if settings.ca.is_some() {
            cluster = cluster.certs(certificates());
        }
        return Ok(Connection::Cluster(cluster.build()?.get_async_connection().await?));
    }
    if let Some(name) = &settings.sentinel {
        let mut client = sentinel(name, &infos, settings.ca.is_some().then(certificates))?.build()?;
        return Ok(Connection::Single(client.get_async_connection_with_config(&config).await?));
    }
    let info = infos.into_iter().next().ok_or((redis::ErrorKind::InvalidClientConfig, "no address"))?;
    let client = match &settings.ca {
        Some(_) => Client::build_with_tls(info, certificates())?,
        None => Client::open(info)?,
    };
    Ok(Connection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
}

fn info(url: &str, settings: &StoreSettings) -> Result<ConnectionInfo, RedisError> {
    let info = url.into_connection_info()?;
    let mut login = info.redis_settings().clone();
    if let Some(username) = &settings.username {
        login = login.set_username(username);
    }
    if let Some(password) = &settings.password {
        login = login.set_password(password);
    }
    Ok(info.set_redis_settings(login))
}

/// Sentinels and the server that they know are spoken to alike.
fn sentinel(
    name: &str,
    infos: &[ConnectionInfo],
    certificates: Option<TlsCertificates>,
) -> Result<SentinelClientBuilder, RedisError> {
    let addresses = infos.iter().map(|info| info.addr().clone());
    let tls = infos.iter().any(|info| matches!(info.addr(), ConnectionAddr::TcpTls { .. }));
    let mut builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master)?;
    if tls {
        builder =
            builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    if let Some(login) = infos.first().map(ConnectionInfo::redis_settings) {
        builder = builder.set_client_to_redis_db(login.db());
        if let Some(username) = login.username() {
            builder = builder.set_client_to_redis_username(username).set_client_to_sentinel_username(username);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password).set_client_to_sentinel_password(password);
        }
    }
    Ok(builder)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
