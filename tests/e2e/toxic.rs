//! Upstreams that misbehave in every way: each yields its documented status and code, no pooled connection is poisoned,
//! and nothing is left over when it is done.

use crate::harness::upstream::{ok, response};
use crate::harness::{Client, Conn, Gateway, Refusing, Upstream, eventually};

/// What a toxin makes of a request, and what the client is told: status and code, or a body that is cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Refusal(u16, &'static str),
    CutShort,
    Whole,
}

const TOXINS: [(&str, Told); 12] = [
    ("silent", Told::Refusal(504, "upstream_timeout")),
    ("closes", Told::Refusal(502, "upstream_unreachable")),
    ("resets", Told::Refusal(502, "upstream_unreachable")),
    ("half-a-head", Told::Refusal(502, "upstream_unreachable")),
    ("garbage", Told::Refusal(502, "upstream_invalid")),
    ("two-lengths", Told::Refusal(502, "upstream_invalid")),
    ("flood-of-1xx", Told::Refusal(502, "upstream_invalid")),
    ("endless-head", Told::Refusal(502, "upstream_invalid")),
    ("short-body", Told::CutShort),
    ("reset-in-body", Told::CutShort),
    ("long-body", Told::Whole),
    ("well", Told::Whole),
];

async fn poison(mut conn: Conn) -> std::io::Result<()> {
    loop {
        let request = conn.request().await?;
        match request.target.trim_start_matches('/') {
            "silent" => {
                conn.closed().await;
                return Ok(());
            }
            "closes" => return Ok(()),
            "resets" => {
                conn.reset();
                return Ok(());
            }
            "half-a-head" => return conn.send("HTTP/1.1 200 OK\r\nContent-Le").await,
            "garbage" => {
                conn.send("SSH-2.0-OpenSSH_9.9\r\n\r\n").await?;
                conn.closed().await;
                return Ok(());
            }
            "two-lengths" => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc").await?;
                conn.closed().await;
                return Ok(());
            }
            "flood-of-1xx" => {
                for _ in 0..1000 {
                    if conn.send("HTTP/1.1 102 Processing\r\n\r\n").await.is_err() {
                        break;
                    }
                }
                return Ok(());
            }
            "endless-head" => {
                conn.send("HTTP/1.1 200 OK\r\n").await?;
                let lines = format!("X-Filler: {}\r\n", "y".repeat(1000)).repeat(100);
                // Bounded here; the gateway is expected to give up long before.
                for _ in 0..100 {
                    if conn.send(&lines).await.is_err() {
                        break;
                    }
                }
                return Ok(());
            }
            "short-body" => return conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await,
            "reset-in-body" => {
                conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await?;
                conn.reset();
                return Ok(());
            }
            // Bytes beyond the length would be the beginning of the next answer.
            "long-body" => conn.send([ok("yes"), response("200 OK", "", b"poison")].concat()).await?,
            _ => conn.send(ok("yes")).await?,
        }
    }
}

async fn ask(client: &mut Option<Client>, address: std::net::SocketAddr, toxin: &str) -> Told {
    let connection = match client {
        Some(client) => client,
        None => client.insert(Client::connect(address).await),
    };
    let answer = connection.get(&format!("/{toxin}")).await;
    let told = match answer.status {
        200 if !answer.whole => Told::CutShort,
        200 => {
            assert_eq!(answer.text(), "yes", "{toxin}");
            Told::Whole
        }
        status => {
            let code = answer.code();
            let known = TOXINS.iter().find_map(|(_, told)| match told {
                Told::Refusal(_, known) if *known == code => Some(*known),
                _ => None,
            });
            Told::Refusal(status, known.unwrap_or_else(|| panic!("{toxin}: {status} {code}")))
        }
    };
    if told == Told::CutShort {
        *client = None;
    }
    told
}

fn config(upstream: &str) -> String {
    // Only silence has to wait for its limit; all else must be found out before a patient one.
    format!(
        "[defaults]\nretry = false\n[[route]]\nmatch = \"/*\"\nupstream = \"{upstream}\"\n\
         [[route]]\nmatch = \"/silent\"\nupstream = \"{upstream}\"\ntimeout = {{ attempt = \"60ms\" }}\n"
    )
}

#[tokio::test]
async fn each_toxin_yields_its_documented_answer() {
    let upstream = Upstream::start(poison).await;
    let gateway = Gateway::start(&config(&upstream.url())).await;
    let address = gateway.public().await;
    for (toxin, expected) in TOXINS {
        assert_eq!(ask(&mut None, address, toxin).await, expected, "{toxin}");
    }
    let refusing = Refusing::new();
    let gateway = Gateway::start(&config(&refusing.url())).await;
    let told = ask(&mut None, gateway.public().await, "refuses").await;
    assert_eq!(told, Told::Refusal(502, "upstream_unreachable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_rounds_leave_nothing_behind() {
    const CLIENTS: usize = 20;
    const ROUNDS: usize = 10_000;
    let upstream = Upstream::start(poison).await;
    let gateway = Gateway::start(&config(&upstream.url())).await;
    let address = gateway.public().await;
    let descriptors = || async { gateway.metric("process_open_fds", &[]).await };
    let memory = || async { gateway.metric("process_resident_memory_bytes", &[]).await };
    // The allocator's own pools are filled by the first thousand.
    let round = |rounds: usize| async move {
        let clients = (0..CLIENTS).map(|number| {
            tokio::spawn(async move {
                let mut client = None;
                for turn in 0..rounds / CLIENTS {
                    let (toxin, expected) = TOXINS[(number + turn) % TOXINS.len()];
                    assert_eq!(ask(&mut client, address, toxin).await, expected, "{toxin}");
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    };
    let idle_descriptors = descriptors().await;
    round(ROUNDS / 5).await;
    let settled = memory().await;
    round(ROUNDS * 4 / 5).await;
    let after = memory().await;
    assert!(after < settled * 1.25 + 8e6, "memory grew from {settled} to {after}");
    // What is left is the pool's: at most its idle connections, and those end as well.
    eventually("the descriptors return", async || (descriptors().await <= idle_descriptors + 2.0 * 64.0).then_some(()))
        .await;
    gateway.metric_becomes("portcullis_connections_active", &[], 0.0).await;
    let mut client = None;
    assert_eq!(ask(&mut client, address, "well").await, Told::Whole);
}
