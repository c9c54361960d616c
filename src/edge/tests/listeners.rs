//! Binding, keeping, changing and closing of listeners; caps; drains.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use super::*;

#[tokio::test]
async fn serves_on_the_port_that_the_system_chose() {
    let mut rig = Rig::start(2);
    let address = rig.apply(&[spec("a")]).await[0];
    assert_ne!(address.port(), 0);
    let mut client = connect(address).await;
    ping(&mut client).await;
    let info = rig.served().await;
    assert_eq!((info.peer, info.local), (client.local_addr().expect("bound"), address));
    assert_eq!((info.listener.name.as_str(), info.tls.is_none()), ("a", true));
}

#[tokio::test]
async fn each_worker_accepts_on_a_socket_of_its_own() {
    let mut rig = Rig::start(3);
    let address = rig.apply(&[spec("a")]).await[0];
    let mut threads = std::collections::HashSet::new();
    // the kernel spreads by a hash of the ports: 64 connections miss one of three workers once in 10^11
    for _ in 0..64 {
        ping(&mut connect(address).await).await;
        if let Seen::Served(_, thread) = rig.next().await {
            threads.insert(thread);
        }
    }
    assert_eq!(threads.len(), 3);
}

#[tokio::test]
async fn a_wildcard_listener_knows_the_address_that_was_asked_for() {
    let mut rig = Rig::start(1);
    let wildcard = ListenerSpec { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), ..spec("a") };
    let port = rig.apply(&[wildcard]).await[0].port();
    let asked = SocketAddr::from(([127, 0, 0, 2], port));
    ping(&mut connect(asked).await).await;
    assert_eq!(rig.served().await.local, asked);
}

#[tokio::test]
async fn accepted_connections_do_not_delay_small_writes() {
    struct Delays(mpsc::UnboundedSender<bool>);
    impl Application for Delays {
        type Worker = ();
        fn worker(&self, _: usize) {}
        async fn serve(self: Arc<Self>, _: Arc<()>, connection: Connection) {
            if let Io::Tcp(stream) = connection.io {
                let _ = self.0.send(stream.nodelay().expect("an open socket"));
            }
        }
        fn refused(&self, _: &ListenerName, _: Option<SocketAddr>, _: Refused) {}
    }
    let (sender, mut nodelay) = mpsc::unbounded_channel();
    let workers = Workers::start(NonZeroUsize::MIN, Arc::new(Delays(sender))).expect("threads");
    let bound = workers.apply(&[Arc::new(spec("a"))]).await.expect("bound");
    let _client = connect(bound[0].address).await;
    assert_eq!(nodelay.recv().await, Some(true));
}

#[tokio::test]
async fn ipv4_and_ipv6_listen_on_one_port_side_by_side() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // a machine without IPv6
    }
    let mut rig = Rig::start(2);
    let four = ListenerSpec { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), ..spec("four") };
    let port = rig.apply(std::slice::from_ref(&four)).await[0].port();
    let six = ListenerSpec { address: format!("[::]:{port}").parse().expect("an address"), ..spec("six") };
    rig.apply(&[four, six]).await;
    for (host, listener) in [("127.0.0.1", "four"), ("::1", "six")] {
        let host: IpAddr = host.parse().expect("an address");
        ping(&mut connect((host, port).into()).await).await;
        let info = rig.served().await;
        assert_eq!((info.listener.name.as_str(), info.peer.ip()), (listener, host));
    }
}

#[tokio::test]
async fn a_reload_keeps_the_port_and_the_connections() {
    let mut rig = Rig::start(2);
    let before = rig.apply(&[spec("a")]).await;
    let mut old = connect(before[0]).await;
    ping(&mut old).await;
    assert_eq!(rig.served().await.listener.limits.header_count, 128);

    let changed = Limits { header_count: 7, ..Limits::default() };
    let after = rig.apply(&[spec("b"), ListenerSpec { limits: changed, ..spec("a") }]).await;
    assert_eq!(after[1], before[0]);
    ping(&mut old).await; // and was not told to end: the next word would have been `drain`
    ping(&mut connect(after[1]).await).await;
    assert_eq!(rig.served().await.listener.limits.header_count, 7);
    ping(&mut connect(after[0]).await).await;
    assert_eq!(rig.served().await.listener.name.as_str(), "b");
}

#[tokio::test]
async fn a_renamed_listener_keeps_its_socket() {
    let mut rig = Rig::start(1);
    let address = rig.apply(&[spec("before")]).await[0];
    let mut old = connect(address).await;
    ping(&mut old).await;
    rig.served().await;
    assert_eq!(rig.apply(&[ListenerSpec { address, ..spec("after") }]).await, [address]);
    ping(&mut old).await;
    ping(&mut connect(address).await).await;
    assert_eq!(rig.served().await.listener.name.as_str(), "after");
}

#[tokio::test]
async fn listeners_can_exchange_their_addresses() {
    let mut rig = Rig::start(2);
    let addresses = rig.apply(&[spec("a"), spec("b")]).await;
    let swapped =
        [ListenerSpec { address: addresses[1], ..spec("a") }, ListenerSpec { address: addresses[0], ..spec("b") }];
    assert_eq!(rig.apply(&swapped).await, [addresses[1], addresses[0]]);
    ping(&mut connect(addresses[0]).await).await;
    assert_eq!(rig.served().await.listener.name.as_str(), "b");
}

#[tokio::test]
async fn a_removed_listener_closes_and_its_connections_are_told() {
    let mut rig = Rig::start(2);
    let addresses = rig.apply(&[spec("a"), spec("b")]).await;
    let mut gone = connect(addresses[0]).await;
    let mut kept = connect(addresses[1]).await;
    ping(&mut gone).await;
    ping(&mut kept).await;

    rig.apply(&[spec("b")]).await;
    expect(&mut gone, "drain").await;
    ping(&mut gone).await; // told, not cut
    ping(&mut kept).await;
    TcpStream::connect(addresses[0]).await.expect_err("nobody listens any more");
    rig.served().await;
    rig.served().await;
    ping(&mut connect(addresses[1]).await).await;
    rig.served().await;
}

#[tokio::test]
async fn a_new_address_is_bound_without_touching_others() {
    let mut rig = Rig::start(2);
    let before = rig.apply(&[spec("a"), spec("b")]).await;
    let mut other = connect(before[1]).await;
    ping(&mut other).await;
    let moved = ListenerSpec { address: SocketAddr::from(([127, 0, 0, 3], before[0].port())), ..spec("a") };
    let after = rig.apply(&[moved.clone(), spec("b")]).await;
    assert_eq!(after, [moved.address, before[1]]);
    TcpStream::connect(before[0]).await.expect_err("the old address is closed");
    ping(&mut connect(after[0]).await).await;
    ping(&mut other).await;
    rig.served().await;
    assert_eq!(rig.served().await.local, moved.address);
}

#[tokio::test]
async fn a_failed_bind_changes_nothing() {
    let mut rig = Rig::start(2);
    let address = rig.apply(&[spec("a")]).await[0];
    let foreign = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = ListenerSpec { address: foreign.local_addr().expect("bound"), ..spec("taken") };
    let limits = Limits { header_count: 7, ..Limits::default() };
    let wanted = [spec("new"), ListenerSpec { limits, ..spec("a") }, taken].map(Arc::new);

    let error = rig.workers.apply(&wanted).await.expect_err("the port is taken");
    assert!(error.to_string().contains("listener taken cannot listen on 127.0.0.1:"), "{error}");
    assert_eq!(rig.workers.bound(), [Bound { name: "a".into(), address }]);
    ping(&mut connect(address).await).await;
    assert_eq!(rig.served().await.listener.limits.header_count, 128);
}

#[tokio::test]
async fn an_address_of_another_gateway_is_refused() {
    let first = Rig::start(1);
    let address = first.apply(&[spec("a")]).await[0];
    let second = Rig::start(1);
    let error = second.workers.apply(&[Arc::new(ListenerSpec { address, ..spec("a") })]).await;
    assert!(matches!(error, Err(BindError::Address { .. })), "{error:?}");
}

#[tokio::test]
async fn a_change_that_was_given_up_does_not_stand_in_the_way_of_the_next() {
    let mut rig = Rig::start(2);
    let address = rig.apply(&[spec("a")]).await[0];
    {
        let mut removal = tokio_test::task::spawn(rig.workers.apply(&[]));
        assert!(removal.poll().is_pending(), "the sockets are closing");
    }
    assert_eq!(rig.apply(&[ListenerSpec { address, ..spec("a") }]).await, [address]);
    ping(&mut connect(address).await).await;
    rig.served().await;
}

#[tokio::test]
async fn a_name_or_an_address_is_listened_on_once() {
    let rig = Rig::start(1);
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    for twice in [[spec("a"), spec("a")], ["a", "b"].map(|name| ListenerSpec { address, ..spec(name) })] {
        let error = rig.workers.apply(&twice.map(Arc::new)).await;
        assert!(matches!(error, Err(BindError::Duplicate { .. })), "{error:?}");
    }
    assert!(rig.workers.bound().is_empty());
}

#[tokio::test]
async fn a_connection_over_the_cap_is_closed_at_once() {
    let mut rig = Rig::start(3);
    let limits = Limits { connections: 2, ..Limits::default() };
    let address = rig.apply(&[ListenerSpec { limits, ..spec("a") }]).await[0];
    let mut first = connect(address).await;
    let mut second = connect(address).await;
    ping(&mut first).await;
    ping(&mut second).await;
    rig.served().await;
    rig.served().await;
    let mut third = connect(address).await;
    expect_closed(&mut third).await;
    match rig.next().await {
        Seen::Refused(name, peer, Refused::ConnectionLimit) => {
            assert_eq!((name.as_str(), peer), ("a", Some(third.local_addr().expect("bound"))));
        }
        other => panic!("expected a refusal: {other:?}"),
    }

    drop(first);
    // the place is free when the worker has seen the end of the stream
    while rig.workers.connections() == 2 {
        tokio::task::yield_now().await;
    }
    ping(&mut connect(address).await).await;
    rig.served().await;
}

#[tokio::test]
async fn an_idle_drain_returns_at_once() {
    let rig = Rig::start(2);
    let address = rig.apply(&[spec("a")]).await[0];
    let report = timeout(PATIENCE, rig.workers.drain(PATIENCE * 10)).await.expect("not the grace period");
    assert_eq!((report.open, report.cut), (0, 0));
    TcpStream::connect(address).await.expect_err("nobody listens any more");
    assert!(matches!(rig.workers.apply(&[]).await, Err(BindError::Draining)));
}

#[tokio::test]
async fn a_drain_returns_after_the_last_connection() {
    let mut rig = Rig::start(2);
    let address = rig.apply(&[spec("a")]).await[0];
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(connect(address).await);
    }
    for client in &mut clients {
        ping(client).await;
        rig.served().await;
    }
    let mut drain = std::pin::pin!(rig.workers.drain(PATIENCE * 10));
    for mut client in clients {
        tokio::select! {
            () = expect(&mut client, "drain") => {}
            report = &mut drain => panic!("drained with open connections: {report:?}"),
        }
        ping(&mut client).await;
    }
    let report = timeout(PATIENCE, drain).await.expect("not the grace period");
    assert_eq!((report.open, report.cut), (8, 0));
    let mut dropped = rig.dropped.lock().clone();
    dropped.sort_unstable_by_key(|(index, _)| *index);
    assert_eq!(dropped.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
    assert!(dropped.iter().all(|(_, thread)| *thread != std::thread::current().id()), "dropped on its own thread");
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_after_the_grace_period() {
    let mut rig = Rig::start(1);
    let address = rig.apply(&[spec("a")]).await[0];
    let mut stubborn = connect(address).await;
    ping(&mut stubborn).await;
    rig.served().await;
    let grace = Duration::from_millis(50);
    let report = timeout(PATIENCE, rig.workers.drain(grace)).await.expect("the grace period and little more");
    assert_eq!((report.open, report.cut), (1, 1));
    assert!(report.took >= grace);
    expect(&mut stubborn, "drain").await;
    expect_closed(&mut stubborn).await;
    assert_eq!(rig.workers.connections(), 0);
}

#[tokio::test]
async fn a_drain_also_waits_for_connections_of_removed_listeners() {
    let mut rig = Rig::start(1);
    let address = rig.apply(&[spec("a")]).await[0];
    let mut client = connect(address).await;
    ping(&mut client).await;
    rig.served().await;
    rig.apply(&[]).await;
    let report = timeout(PATIENCE, rig.workers.drain(Duration::from_millis(50))).await.expect("in time");
    assert_eq!(report.cut, 1);
}

#[tokio::test]
async fn whoever_got_in_before_the_close_is_served() {
    for _ in 0..3 {
        let rig = Rig::start(2);
        let address = rig.apply(&[spec("a")]).await[0];
        // clients that connect as fast as they can, until the port is closed to them
        let crowd: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(async move {
                    let mut served = 0_u32;
                    while let Ok(Ok(mut client)) = timeout(Duration::from_millis(50), TcpStream::connect(address)).await
                    {
                        ping_or_drain(&mut client).await;
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        ping(&mut connect(address).await).await;
        timeout(PATIENCE, rig.workers.drain(PATIENCE * 10)).await.expect("all clients leave");
        for client in crowd {
            client.await.expect("no client was reset");
        }
    }
}

/// Like [`ping`], on a connection that may be told to end in the middle.
async fn ping_or_drain(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.expect("written");
    let mut first = [0; 1];
    timeout(PATIENCE, stream.read_exact(&mut first)).await.expect("in time").expect("an answer");
    assert!(first == *b"p" || first == *b"d", "{first:?}");
}
