//! Another configuration at run time: by signal, by the file itself, by the admin API; and what must not notice.

use std::path::{Path, PathBuf};

use super::harness::client::get;
use super::harness::gateway::whole;
use super::harness::tls::replace;
use super::harness::upstream::ok;
use super::harness::wire::{End, Wire};
use super::harness::{Authority, Client, Conn, Gate, Gateway, H2Client, Upstream, all_to, eventually, within};

fn saying(text: &str) -> String {
    format!("[[route]]\nname = \"says\"\nmatch = \"/*\"\nrespond = {{ body = \"{text}\" }}\n")
}

async fn says(gateway: &Gateway, text: &str) {
    eventually(&format!("the gateway says {text}"), async || (gateway.get("/").await.text() == text).then_some(()))
        .await;
}

const RELOADS: &str = "portcullis_config_reloads_total";

#[tokio::test]
async fn sighup_loads_the_file() {
    let gateway = Gateway::start(&saying("one")).await;
    let before = gateway.metric(RELOADS, &[]).await;
    // nobody has touched the file, so only the signal can be the reason
    gateway.signal("HUP").await;
    gateway.metric_reaches(RELOADS, &[("result", "applied")], before + 1.0).await;
    gateway.write(&saying("two"));
    gateway.signal("HUP").await;
    says(&gateway, "two").await;
}

#[tokio::test]
async fn a_changed_file_is_noticed() {
    let gateway = Gateway::start(&saying("one")).await;
    gateway.write(&saying("two"));
    says(&gateway, "two").await;
    // in place as well, as an editor may do it
    std::fs::write(gateway.file(), whole(&saying("three"), gateway.folder())).unwrap();
    says(&gateway, "three").await;
}

/// Lays a configuration out as Kubernetes mounts a `ConfigMap`: `portcullis.toml -> ..data/portcullis.toml`,
/// `..data -> ..VERSION`.
fn mount(folder: &Path, version: &str, config: &str) -> PathBuf {
    let place = folder.join("config");
    std::fs::create_dir_all(place.join(format!("..{version}"))).unwrap();
    std::fs::write(place.join(format!("..{version}/portcullis.toml")), whole(config, folder)).unwrap();
    std::os::unix::fs::symlink(format!("..{version}"), place.join("..data_tmp")).unwrap();
    std::fs::rename(place.join("..data_tmp"), place.join("..data")).unwrap();
    let file = place.join("portcullis.toml");
    if !file.exists() {
        std::os::unix::fs::symlink("..data/portcullis.toml", &file).unwrap();
    }
    file
}

#[tokio::test]
async fn a_config_map_that_is_swapped_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    let file = mount(&path, "v1", &saying("one"));
    let gateway = Gateway::spawn_in(folder, file);
    says(&gateway, "one").await;
    for (version, text) in [("v2", "two"), ("v3", "three")] {
        mount(&path, version, &saying(text));
        says(&gateway, text).await;
    }
}

#[tokio::test]
async fn the_admin_api_loads_the_file() {
    let gateway = Gateway::start(&saying("one")).await;
    gateway.reload(&saying("two")).await;
    assert_eq!(gateway.get("/").await.text(), "two");
}

#[tokio::test]
async fn a_folder_is_a_configuration_and_its_files_may_come_and_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conf.d");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("base.toml"), whole(&saying("base"), folder.path())).unwrap();
    let gateway = Gateway::spawn_in(folder, path.clone());
    says(&gateway, "base").await;
    let more = "[[route]]\nname = \"more\"\nmatch = \"/more\"\nrespond = { body = \"more\" }\n";
    replace(&path.join("more.toml"), more);
    eventually("the new file counts", async || (gateway.get("/more").await.text() == "more").then_some(())).await;
    std::fs::remove_file(path.join("more.toml")).unwrap();
    eventually("it counts no longer", async || (gateway.get("/more").await.text() == "base").then_some(())).await;
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_reported() {
    let gateway = Gateway::start(&saying("good")).await;
    let before = gateway.generation().await;
    gateway.write("[[route]]\nmatch = \"/*\"\nrespnod = { body = \"bad\" }\n");
    let answer = gateway.admin_post("/api/v1/reload").await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert!(answer.text().contains("respnod"), "{}", answer.text());
    let state = gateway.admin_get("/api/v1/config").await.json();
    assert_eq!(state["generation"], before, "{state}");
    assert!(state["last_error"].to_string().contains("respnod"), "{state}");
    gateway.metric_becomes("portcullis_config_last_reload_successful", &[], 0.0).await;
    gateway.metric_reaches(RELOADS, &[("result", "refused")], 1.0).await;
    gateway.event("the refusal on the log", |event| event.level() == "error").await;
    assert_eq!(gateway.get("/").await.text(), "good");
    assert_eq!(gateway.admin_get("/readyz").await.status, 200, "what is in force works");

    gateway.reload(&saying("better")).await;
    assert_eq!(gateway.get("/").await.text(), "better");
    gateway.metric_becomes("portcullis_config_last_reload_successful", &[], 1.0).await;
    let generation = gateway.generation().await;
    assert!(generation > before);
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    gateway.metric_becomes("portcullis_config_generation", &[], generation as f64).await;
}

#[tokio::test]
async fn a_file_that_is_no_toml_or_gone_changes_nothing() {
    let gateway = Gateway::start(&saying("good")).await;
    replace(gateway.file(), "[[route\n");
    assert!((400..600).contains(&gateway.admin_post("/api/v1/reload").await.status));
    std::fs::remove_file(gateway.file()).unwrap();
    assert!((400..600).contains(&gateway.admin_post("/api/v1/reload").await.status));
    assert_eq!(gateway.get("/").await.text(), "good");
}

fn listener(name: &str, address: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\naddress = \"{address}:0\"\n")
}

#[tokio::test]
async fn a_listener_comes_and_goes_without_the_others_noticing() {
    let public = listener("public", "127.0.0.1");
    let gateway = Gateway::start(&format!("{public}{}", saying("hello"))).await;
    let address = gateway.public().await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.text(), "hello");

    gateway.reload(&format!("{public}{}{}", listener("extra", "127.0.0.1"), saying("hello"))).await;
    let extra = gateway.listener("extra").await;
    let mut on_extra = Client::connect(extra).await;
    assert_eq!(on_extra.get("/").await.text(), "hello");
    assert_eq!(gateway.public().await, address, "the port that the system chose is kept");

    gateway.reload(&format!("{public}{}", saying("hello"))).await;
    assert_eq!(on_extra.closed().await, End::Closed, "an idle connection of a listener that is gone");
    eventually("nobody listens any more", async || Wire::connect(extra).await.err()).await;
    assert_eq!(client.get("/").await.text(), "hello", "the other listener's connection has seen nothing of it");
    assert_eq!(get(address, "/").await.text(), "hello");
}

#[tokio::test]
async fn a_request_on_a_listener_that_goes_away_ends_in_order() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            conn.request().await?;
            held.passed().await;
            conn.send(ok("finished")).await
        }
    })
    .await;
    let public = listener("public", "127.0.0.1");
    let route = all_to(&upstream.url());
    let gateway = Gateway::start(&format!("{public}{}{route}", listener("extra", "127.0.0.1"))).await;
    let mut client = Client::connect(gateway.listener("extra").await).await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    gateway.reload(&format!("{public}{route}")).await;
    gate.open();
    assert_eq!(client.response().await.text(), "finished");
    client.closed().await;
}

#[tokio::test]
async fn a_listener_moves_to_another_address() {
    let gateway = Gateway::start(&format!("{}{}", listener("public", "127.0.0.1"), saying("hello"))).await;
    let old = gateway.public().await;
    gateway.reload(&format!("{}{}", listener("public", "127.0.0.2"), saying("hello"))).await;
    let moved = |event: &super::harness::gateway::Event| {
        event.message() == "listening" && event.field("address").is_some_and(|address| address.starts_with("127.0.0.2"))
    };
    let new = gateway.event("the new address", moved).await.field("address").unwrap().parse().unwrap();
    assert_eq!(get(new, "/").await.text(), "hello");
    eventually("the old address is given up", async || Wire::connect(old).await.err()).await;
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_changes_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let public = listener("public", "127.0.0.1");
    let gateway = Gateway::start(&format!("{public}{}", saying("one"))).await;
    let extra = format!("[[listener]]\nname = \"extra\"\naddress = \"{}\"\n", taken.local_addr().unwrap());
    gateway.write(&format!("{public}{extra}{}", saying("two")));
    let answer = gateway.admin_post("/api/v1/reload").await;
    assert!((400..600).contains(&answer.status), "{answer:?}");
    assert_eq!(gateway.get("/").await.text(), "one", "all of it or nothing");
}

#[tokio::test]
async fn limits_of_a_listener_change_for_new_connections() {
    let public = listener("public", "127.0.0.1");
    let gateway = Gateway::start(&format!("{public}{}", saying("hello"))).await;
    let address = gateway.public().await;
    let large = format!("/{}", "x".repeat(2_000));
    assert_eq!(gateway.get(&large).await.status, 200);
    gateway.reload(&format!("{public}limits = {{ header_size = \"1KiB\" }}\n{}", saying("hello"))).await;
    assert_eq!(gateway.public().await, address);
    assert_eq!(get(address, &large).await.status, 431);
}

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[tokio::test]
async fn an_upgraded_connection_lives_through_reloads() {
    let upstream = Upstream::start(|mut conn: Conn| async move {
        conn.request().await?;
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await?;
        loop {
            let bytes = conn.some().await?;
            conn.send(bytes).await?;
        }
    })
    .await;
    let chat = format!("[[route]]\nname = \"chat\"\nmatch = \"/chat\"\nupstream = \"{}\"\n", upstream.url());
    let gateway = Gateway::start(&format!("{chat}{}", saying("0"))).await;
    let mut client = gateway.client().await;
    client.send(ASK).await;
    assert_eq!(client.head().await.status, 101);
    for number in 1..=20 {
        gateway.reload(&format!("{chat}{}", saying(&number.to_string()))).await;
        client.send("still here?").await;
        assert_eq!(client.exactly(11).await, b"still here?", "after reload {number}");
    }
    assert_eq!(gateway.get("/").await.text(), "20");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_request_keeps_the_configuration_that_it_began_with() {
    let gate = Gate::new();
    let held = gate.clone();
    let upstream = Upstream::start(move |mut conn: Conn| {
        let held = held.clone();
        async move {
            conn.request().await?;
            held.passed().await;
            conn.send(ok("finished")).await
        }
    })
    .await;
    let headers = "headers = { response = { set = { \"x-generation\" = \"old\" } } }\n";
    let gateway = Gateway::start(&(all_to(&upstream.url()) + headers)).await;
    let mut client = gateway.client().await;
    client.send("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n").await;
    upstream.request(0).await;
    gateway.reload(&saying("new")).await;
    gate.open();
    let answer = client.response().await;
    assert_eq!((answer.text().as_str(), answer.field("x-generation")), ("finished", Some("old")));
    assert_eq!(client.get("/").await.text(), "new", "and its connection goes on with the new one");
}

#[tokio::test]
async fn idle_upstream_connections_outlive_a_reload_that_leaves_the_upstream_alone() {
    let upstream = Upstream::saying("hello").await;
    let config = format!("[upstream.api]\nendpoints = [\"{}\"]\n{}", upstream.url(), all_to("api"));
    let gateway = Gateway::start(&config).await;
    let mut client = gateway.client().await;
    assert_eq!(client.get("/").await.text(), "hello");
    gateway.reload(&(config + "[[route]]\nmatch = \"/other\"\nrespond = { body = \"other\" }\n")).await;
    assert_eq!(client.get("/").await.text(), "hello");
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_certificate_is_read_again_when_its_files_change() {
    let (old, new) = (Authority::new(), Authority::new());
    let issued = old.issue("localhost");
    let tls = format!("tls = {{ certificates = [{}] }}\n", issued.toml());
    let gateway = Gateway::start(&format!("{}{tls}{}", listener("public", "127.0.0.1"), saying("hello"))).await;
    let address = gateway.public().await;
    let (of_old, of_new) = (old.client(&["http/1.1"]), new.client(&["http/1.1"]));
    let mut client = Client::connect_tls(address, &of_old, "localhost").await;
    assert!(Client::try_connect_tls(address, &of_new, "localhost").await.is_err());

    new.issue_into("localhost", &issued);
    eventually("the new certificate is shown", async || {
        Client::try_connect_tls(address, &of_new, "localhost").await.ok()
    })
    .await;
    assert_eq!(client.get("/").await.text(), "hello", "a connection under the old one goes on");
}

#[tokio::test]
async fn a_broken_certificate_file_leaves_the_old_certificate() {
    let authority = Authority::new();
    let issued = authority.issue("localhost");
    let tls = format!("tls = {{ certificates = [{}] }}\n", issued.toml());
    let gateway = Gateway::start(&format!("{}{tls}{}", listener("public", "127.0.0.1"), saying("hello"))).await;
    replace(&issued.chain, "-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n");
    assert!((400..600).contains(&gateway.admin_post("/api/v1/reload").await.status));
    let mut client = Client::connect_tls(gateway.public().await, &authority.client(&[]), "localhost").await;
    assert_eq!(client.get("/").await.text(), "hello");
}

#[tokio::test]
async fn reloads_under_load_fail_no_request() {
    let upstream = Upstream::saying("hello").await;
    let config = |number: usize| {
        let more = format!("[[route]]\nname = \"n{number}\"\nmatch = \"/n/{number}\"\nrespond = {{ status = 204 }}\n");
        let h2 = "[[listener]]\nname = \"h2\"\naddress = \"127.0.0.1:0\"\nprotocols = [\"h2\"]\n";
        format!("{}{h2}{more}{}", listener("public", "127.0.0.1"), all_to(&upstream.url()))
    };
    let gateway = Gateway::start(&config(0)).await;
    let (address, h2) = (gateway.public().await, gateway.listener("h2").await);
    let stop = Gate::new();
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let stopped = stop.clone();
        load.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut over_h2 = H2Client::connect(h2).await;
            let mut stopped = Box::pin(async move { stopped.passed().await });
            let mut served = 0;
            while futures_util::poll!(stopped.as_mut()).is_pending() {
                assert_eq!(client.get("/kept").await.status, 200);
                assert_eq!(get(address, "/new").await.status, 200);
                assert_eq!(over_h2.get("http://example.com/h2").await.status, 200);
                served += 1;
            }
            served
        });
    }
    for number in 1..=30 {
        gateway.reload(&config(number)).await;
    }
    stop.open();
    while let Some(served) = within("the load ends", load.join_next()).await {
        assert!(served.unwrap() > 0);
    }
}
