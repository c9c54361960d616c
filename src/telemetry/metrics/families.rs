//! The table of all metric families: name, type, labels and help. The reference manual is generated from it, and a
//! test holds it against what `/metrics` says.

use std::fmt;

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyDoc {
    /// Full name.
    pub name: &'static str,
    /// What its samples mean.
    pub kind: Kind,
    /// Label names in the order of the exposition; a histogram's `le` is not listed.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
}

/// The type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends or the owner of its labels is removed from the configuration.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets, with `_sum` and `_count`.
    Histogram,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

/// Every family in the order of their names, which is the order of the exposition.
#[must_use]
pub const fn families() -> &'static [FamilyDoc] {
    FAMILIES
}

/// Declares the families as constants and lists them all.
macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $constant: FamilyDoc =
            FamilyDoc { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+
        const FAMILIES: &[FamilyDoc] = &[$($constant,)+];
    };
}

families! {
    LOG_DROPPED: Counter "portcullis_access_log_dropped_total" []
        "Access log lines that were dropped because the destination did not keep up.";
    LOG_LINES: Counter "portcullis_access_log_lines_total" []
        "Access log lines that were written.";
    LOG_ERRORS: Counter "portcullis_access_log_write_errors_total" []
        "Failed writes to the access log's destination; each is tried again.";
    KEY_REFRESHES: Counter "portcullis_auth_jwks_refreshes_total" ["result"]
        "Fetches of the keys of token issuers.";
    BUILD: Gauge "portcullis_build_info" ["version"]
        "Always 1; the label carries the version.";
    GENERATION: Gauge "portcullis_config_generation" []
        "Number of the configuration in force, counted from 1 at the start of the process; 0 before the first.";
    LAST_RELOAD_OK: Gauge "portcullis_config_last_reload_successful" []
        "Whether the last attempt to load a configuration succeeded (1) or was refused (0).";
    LAST_SUCCESS: Gauge "portcullis_config_last_success_timestamp_seconds" []
        "When the configuration in force was loaded, in seconds since the Unix epoch.";
    RELOADS: Counter "portcullis_config_reloads_total" ["result"]
        "Attempts to load a configuration, the first one included.";
    CONNECTIONS_ACTIVE: Gauge "portcullis_connections_active" ["listener"]
        "Client connections that are open.";
    CONNECTIONS_REFUSED: Counter "portcullis_connections_refused_total" ["listener", "reason"]
        "Client connections that were turned away before anything was read from them.";
    CONNECTIONS: Counter "portcullis_connections_total" ["listener"]
        "Client connections that were accepted.";
    RESOLUTIONS: Counter "portcullis_dns_resolutions_total" ["result"]
        "Resolutions of upstream names.";
    DRAINING: Gauge "portcullis_draining" []
        "Whether the gateway is draining (1): it accepts no connections and ends when the last request has.";
    FALLBACKS: Counter "portcullis_fallbacks_total" ["route", "kind"]
        "Responses that a fallback gave instead of the route's upstream.";
    NON_REQUESTS: Counter "portcullis_non_requests_total" ["listener", "reason"]
        "Connections and streams that ended without becoming a request.";
    DECISIONS: Counter "portcullis_policy_decisions_total" ["route", "policy", "verdict"]
        "Decisions of policies.";
    LIMIT_KEYS: Gauge "portcullis_rate_limit_keys" ["limit"]
        "Keys of a rate limit that have a bucket now.";
    LIMIT_SHARED: Counter "portcullis_rate_limit_shared_bucket_total" ["limit", "reason"]
        "Requests that counted in a bucket shared by many: without the key (no_key), or for want of room (no_room).";
    LIMIT_STORE_ERRORS: Counter "portcullis_rate_limit_store_errors_total" ["store"]
        "Failed exchanges with the store of shared rate limits, attempts to reach it again included.";
    LIMIT_STORE_UP: Gauge "portcullis_rate_limit_store_up" ["store"]
        "Whether the store of shared rate limits answers (1) or its on_error holds (0).";
    REJECTIONS: Counter "portcullis_rejections_total" ["code"]
        "Responses that the gateway itself made to refuse a request, by the code in their problem type.";
    REQUEST_BODY: Counter "portcullis_request_body_bytes_total" ["route"]
        "Bytes of request content received from clients.";
    REQUEST_DURATION: Histogram "portcullis_request_duration_seconds" ["route"]
        "Time from the first byte of a request to the last of its response.";
    REQUESTS: Counter "portcullis_requests_total" ["route", "method", "code"]
        "Requests that have ended, by the status the client was sent; none when there was no response.";
    RESPONSE_BODY: Counter "portcullis_response_body_bytes_total" ["route"]
        "Bytes of response content sent to clients.";
    HANDSHAKES: Counter "portcullis_tls_handshakes_total" ["listener", "result"]
        "TLS handshakes with clients.";
    ATTEMPT_DURATION: Histogram "portcullis_upstream_attempt_duration_seconds" ["upstream"]
        "Time from the start of an attempt to its response head or its failure.";
    ATTEMPTS: Counter "portcullis_upstream_attempts_total" ["upstream", "outcome"]
        "Attempts to have a request answered by an upstream.";
    BREAKER_STATE: Gauge "portcullis_upstream_breaker_state" ["upstream"]
        "Phase of the circuit breaker: closed (0), half-open (1) or open (2).";
    BREAKER_TRANSITIONS: Counter "portcullis_upstream_breaker_transitions_total" ["upstream", "to"]
        "Changes of the circuit breaker into a phase; begins again when its settings change.";
    CONCURRENCY_IN_FLIGHT: Gauge "portcullis_upstream_concurrency_in_flight" ["upstream"]
        "Requests that hold a place of the concurrency limit.";
    CONCURRENCY_LIMIT: Gauge "portcullis_upstream_concurrency_limit" ["upstream"]
        "Requests that may be under way; moves when the limit is adaptive.";
    UPSTREAM_IDLE: Gauge "portcullis_upstream_connections_idle" ["upstream"]
        "Connections in the pool that no request uses.";
    UPSTREAM_OPENED: Counter "portcullis_upstream_connections_opened_total" ["upstream"]
        "Connections to the upstream that were opened.";
    UPSTREAM_REUSED: Counter "portcullis_upstream_connections_reused_total" ["upstream"]
        "Attempts that went out on a connection that had been used before.";
    EJECTIONS: Counter "portcullis_upstream_ejections_total" ["upstream", "reason"]
        "Endpoints that were left out for a while because their answers failed.";
    ENDPOINTS: Gauge "portcullis_upstream_endpoints" ["upstream", "state"]
        "Endpoints by their health.";
    HEALTH_CHECKS: Counter "portcullis_upstream_health_checks_total" ["upstream", "result"]
        "Health checks of endpoints.";
    HEDGES: Counter "portcullis_upstream_hedges_total" ["upstream", "result"]
        "Second attempts that were started beside a slow first one, by whether they were answered first.";
    QUEUE_LENGTH: Gauge "portcullis_upstream_queue_length" ["upstream"]
        "Requests that wait for a place of the concurrency limit.";
    RETRIES_DENIED: Counter "portcullis_upstream_retries_denied_total" ["upstream"]
        "Retries and hedges that were left out because the budget was spent.";
    RETRIES: Counter "portcullis_upstream_retries_total" ["upstream"]
        "Failed attempts that were made again.";
    SHED: Counter "portcullis_upstream_shed_total" ["upstream", "reason"]
        "Attempts that were not begun because the circuit breaker or the concurrency limit let none begin.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" []
        "Total user and system CPU time spent in seconds.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" []
        "Maximum number of open file descriptors.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" []
        "Number of open file descriptors.";
    PROCESS_RSS: Gauge "process_resident_memory_bytes" []
        "Resident memory size in bytes.";
    PROCESS_START: Gauge "process_start_time_seconds" []
        "Start time of the process since unix epoch in seconds.";
    PROCESS_THREADS: Gauge "process_threads" []
        "Number of OS threads in the process.";
    PROCESS_VSIZE: Gauge "process_virtual_memory_bytes" []
        "Virtual memory size in bytes.";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of `promtool check metrics` that a table can break.
    #[test]
    fn names_and_help_satisfy_promtool() {
        for family in families() {
            let name = family.name;
            assert!(!family.help.is_empty(), "{name} has no help");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}: only counters end in _total");
            for suffix in ["_bucket", "_count", "_sum"] {
                assert!(!name.ends_with(suffix), "{name}: {suffix} belongs to histograms' samples");
            }
            for word in name.split('_') {
                assert!(!["counter", "gauge", "histogram", "summary"].contains(&word), "{name} names its type");
                assert!(
                    !["ms", "milliseconds", "kb", "minutes", "percent"].contains(&word),
                    "{name}: {word} is no base unit"
                );
            }
            for label in family.labels {
                assert!(!["le", "quantile"].contains(label), "{name}: reserved label {label}");
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}: {label}");
            }
        }
    }

    #[test]
    fn stands_in_the_order_of_the_exposition() {
        assert!(families().is_sorted_by(|earlier, later| earlier.name < later.name));
    }
}
