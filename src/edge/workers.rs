//! The worker threads, and which addresses they listen on.
//!
//! A change of listeners is all or nothing: every new socket is bound on behalf of every worker before anything else
//! happens. What stays is not touched: a listener whose address is unchanged keeps its sockets, its port and its
//! connections while its limits and certificates are exchanged under it.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::accept::{Census, Door, Listening};
use super::{Application, socket};
use crate::model::drain::Drain;
use crate::model::ids::ListenerName;
use crate::model::listener::ListenerSpec;

/// How long a drain waits for a worker's thread after its connections are gone or cut: long enough to drop them, and a
/// bound on what a task that never yields can hold up.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// The workers of one process. Dropping them cuts every connection; [`Workers::drain`] lets them end.
pub struct Workers<A: Application> {
    app: Arc<A>,
    census: Arc<Census>,
    state: Mutex<State<A>>,
    /// Accept loops that are closing. Whoever changes the listeners holds the lock until they have closed: one change
    /// after the other, and what one that was given up half-way left behind is waited for by the next.
    closing: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
}

struct State<A: Application> {
    threads: Vec<Thread<A>>,
    opened: Vec<Opened>,
    draining: bool,
}

/// One worker. `worker` goes before `stop`, so that its last owner is the thread.
struct Thread<A: Application> {
    runtime: Handle,
    worker: Arc<A::Worker>,
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// A listening address with its accept loops, one per worker.
struct Opened {
    listening: Arc<Listening>,
    doors: Vec<(Drain, JoinHandle<()>)>,
}

/// Sockets that are ready, before anything is changed.
struct Prepared {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// A listener and the address that it got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Its name.
    pub name: ListenerName,
    /// Where it listens; never port 0.
    pub address: SocketAddr,
}

/// Why a change of listeners was refused. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The system refused the address.
    #[error("listener {listener} cannot listen on {address}: {error}")]
    Address {
        /// Which listener.
        listener: ListenerName,
        /// Which address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Two listeners have the same name, or the same address and port.
    #[error("listener {listener} has the name or the address of another: {address}")]
    Duplicate {
        /// The second of the two.
        listener: ListenerName,
        /// Its address.
        address: SocketAddr,
    },
    /// The process is ending.
    #[error("the workers are draining")]
    Draining,
}

/// How a drain went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainReport {
    /// Connections that were open when it began.
    pub open: usize,
    /// Connections that were cut because the grace period was over.
    pub cut: usize,
    /// How long it took.
    pub took: Duration,
}

impl<A: Application> Workers<A> {
    /// Starts the threads; returns when each has made its state. They listen nowhere yet.
    pub fn start(count: NonZeroUsize, app: Arc<A>) -> io::Result<Self> {
        let threads = (0..count.get()).map(|index| Thread::start(index, &app)).collect::<io::Result<_>>()?;
        let state = State { threads, opened: Vec::new(), draining: false };
        Ok(Self { app, census: Arc::default(), state: Mutex::new(state), closing: tokio::sync::Mutex::default() })
    }

    /// Listens on exactly these; returns what is bound, in the same order. Nothing is changed on an error.
    ///
    /// A listener keeps its sockets while its address is unchanged, whatever else is new: new connections get the new
    /// settings, old ones keep theirs. A listener that is gone, or whose address is another, lets in whoever waits in
    /// its queue and closes before this returns; its connections live on and are told to end.
    pub async fn apply(&self, listeners: &[Arc<ListenerSpec>]) -> Result<Vec<Bound>, BindError> {
        let mut closing = self.closing.lock().await;
        all_closed(&mut closing).await;
        closing.extend(self.change(listeners)?);
        all_closed(&mut closing).await;
        Ok(self.bound())
    }

    /// What is bound now.
    pub fn bound(&self) -> Vec<Bound> {
        let bound = |opened: &Opened| {
            let name = opened.listening.spec.load().name.clone();
            Bound { name, address: opened.listening.address }
        };
        self.state.lock().opened.iter().map(bound).collect()
    }

    /// Connections that are open now, TLS handshakes included, also those of listeners that are gone.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.census.open()
    }

    /// Closes all listeners, tells all connections to end and waits until they have, at most `grace`; then ends the
    /// threads. Returns as soon as there is nothing to wait for, which is after the tenth of a second that a closing
    /// socket gives to handshakes under way. The second call finds nothing to do.
    pub async fn drain(&self, grace: Duration) -> DrainReport {
        let mut closing = self.closing.lock().await;
        let (opened, threads) = {
            let mut state = self.state.lock();
            state.draining = true;
            (std::mem::take(&mut state.opened), std::mem::take(&mut state.threads))
        };
        let began = Instant::now();
        let open = self.census.open();
        closing.extend(opened.into_iter().flat_map(Opened::close));
        let all_ended = async {
            all_closed(&mut closing).await;
            self.census.emptied().await;
        };
        let cut = if timeout(grace, all_ended).await.is_ok() { 0 } else { self.census.open() };
        let ended: Vec<_> = threads.into_iter().map(Thread::stop).collect();
        for thread in ended {
            let _ = timeout(STOP_LIMIT, thread).await;
        }
        DrainReport { open, cut, took: began.elapsed() }
    }

    /// The part of [`Workers::apply`] that must not be interrupted; returns the accept loops that are closing.
    fn change(&self, listeners: &[Arc<ListenerSpec>]) -> Result<Vec<JoinHandle<()>>, BindError> {
        refuse_duplicates(listeners)?;
        let mut state = self.state.lock();
        if state.draining {
            return Err(BindError::Draining);
        }
        let plan = keep_by_address(&state.opened, listeners);
        let prepared = prepare(&state, listeners, &plan)?;

        let mut old: Vec<Option<Opened>> = std::mem::take(&mut state.opened).into_iter().map(Some).collect();
        let mut prepared = prepared.into_iter();
        for (spec, kept) in listeners.iter().zip(plan) {
            let opened = match kept.and_then(|index| old.get_mut(index)).and_then(Option::take) {
                Some(opened) => {
                    opened.listening.spec.store(Arc::clone(spec));
                    Some(opened)
                }
                None => prepared.next().map(|prepared| self.open(&state.threads, spec, prepared)),
            };
            state.opened.extend(opened);
        }
        Ok(old.into_iter().flatten().flat_map(Opened::close).collect())
    }

    fn open(&self, threads: &[Thread<A>], spec: &Arc<ListenerSpec>, prepared: Prepared) -> Opened {
        let listening = Arc::new(Listening::new(Arc::clone(spec), prepared.address));
        let doors = threads
            .iter()
            .zip(prepared.sockets)
            .map(|(thread, socket)| {
                let drain = Drain::default();
                let door = Arc::new(Door {
                    app: Arc::clone(&self.app),
                    worker: Arc::clone(&thread.worker),
                    listening: Arc::clone(&listening),
                    census: Arc::clone(&self.census),
                    drain: drain.watch(),
                });
                (drain, thread.runtime.spawn(door.keep(socket)))
            })
            .collect();
        Opened { listening, doors }
    }
}

impl Opened {
    /// Tells the accept loops and the connections to end; returns the loops.
    fn close(self) -> impl Iterator<Item = JoinHandle<()>> {
        self.doors.into_iter().map(|(drain, door)| {
            drain.begin();
            door
        })
    }
}

/// Waits for these accept loops; safe to give up and to go on later.
async fn all_closed(closing: &mut Vec<JoinHandle<()>>) {
    while let Some(door) = closing.last_mut() {
        let _ = door.await; // one that panicked has closed as well
        closing.pop();
    }
}

impl<A: Application> Thread<A> {
    fn start(index: usize, app: &Arc<A>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = oneshot::channel::<()>();
        let (ready, started) = sync_channel(1);
        let app = Arc::clone(app);
        thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            run(index, &*app, &ready, stopped);
            drop(ending);
        })?;
        let ended_early = || io::Error::other(format!("a worker ended before it began: {index}"));
        let (runtime, worker) = started.recv().map_err(|_| ended_early())??;
        Ok(Self { runtime, worker, stop, ended })
    }

    /// Tells the thread to end; the receiver closes when it has.
    fn stop(self) -> oneshot::Receiver<()> {
        let Self { runtime: _, worker, stop, ended } = self;
        drop(worker);
        drop(stop);
        ended
    }
}

type Ready<W> = io::Result<(Handle, Arc<W>)>;

/// A worker's thread, from its runtime to the end of its last connection.
fn run<A: Application>(index: usize, app: &A, ready: &SyncSender<Ready<A::Worker>>, stopped: oneshot::Receiver<()>) {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(ready.send(Err(error))),
    };
    let worker = runtime.block_on(async { Arc::new(app.worker(index)) });
    if ready.send(Ok((runtime.handle().clone(), Arc::clone(&worker)))).is_ok() {
        let _ = runtime.block_on(stopped);
    }
    // not a plain drop: that would wait for a blocking call without end
    runtime.shutdown_background();
    drop(worker);
}

fn refuse_duplicates(listeners: &[Arc<ListenerSpec>]) -> Result<(), BindError> {
    for (index, spec) in listeners.iter().enumerate() {
        let same = |earlier: &&Arc<ListenerSpec>| {
            earlier.name == spec.name || (earlier.address == spec.address && spec.address.port() != 0)
        };
        if listeners.iter().take(index).find(same).is_some() {
            return Err(BindError::Duplicate { listener: spec.name.clone(), address: spec.address });
        }
    }
    Ok(())
}

/// For each listener the opened one whose sockets it keeps: the same name and address first, so that listeners on
/// port 0 keep theirs, then the same address under another name, so that renaming closes nothing.
fn keep_by_address(opened: &[Opened], listeners: &[Arc<ListenerSpec>]) -> Vec<Option<usize>> {
    let mut plan = vec![None; listeners.len()];
    claim(&mut plan, opened, listeners, |old, new| {
        let old = old.spec.load();
        old.name == new.name && old.address == new.address
    });
    claim(&mut plan, opened, listeners, |old, new| old.address == new.address);
    plan
}

/// Gives each listener that has none yet the first opened one that fits and that nobody has.
fn claim(
    plan: &mut [Option<usize>],
    opened: &[Opened],
    listeners: &[Arc<ListenerSpec>],
    fits: impl Fn(&Listening, &ListenerSpec) -> bool,
) {
    for (index, spec) in listeners.iter().enumerate() {
        let free = |old: usize| !plan.contains(&Some(old));
        let found = (0..).zip(opened).find(|(old, opened)| free(*old) && fits(&opened.listening, spec));
        if let Some(none @ None) = plan.get_mut(index) {
            *none = found.map(|(old, _)| old);
        }
    }
}

/// Opens what is not kept. All sockets are bound before the first one listens: until nothing can fail any more, no
/// client is let into a queue that might be thrown away.
fn prepare<A: Application>(
    state: &State<A>,
    listeners: &[Arc<ListenerSpec>],
    plan: &[Option<usize>],
) -> Result<Vec<Prepared>, BindError> {
    let mut ours: Vec<u16> = state.opened.iter().map(|opened| opened.listening.address.port()).collect();
    let mut bound = Vec::new();
    for (spec, _) in listeners.iter().zip(plan).filter(|(_, kept)| kept.is_none()) {
        // a port of our own on another address is not somebody else's
        let exclusive = !ours.contains(&spec.address.port());
        let sockets =
            socket::bind(spec.address, state.threads.len(), exclusive).map_err(|error| refused(spec, error))?;
        ours.push(sockets.0.port());
        bound.push((spec, sockets));
    }
    let listen = |(spec, (address, sockets)): (&Arc<ListenerSpec>, (SocketAddr, Vec<socket2::Socket>))| {
        let on_its_worker = |(thread, socket): (&Thread<A>, socket2::Socket)| {
            let _entered = thread.runtime.enter();
            socket::listen(socket)
        };
        let sockets = state.threads.iter().zip(sockets).map(on_its_worker).collect::<io::Result<_>>();
        sockets.map(|sockets| Prepared { address, sockets }).map_err(|error| refused(spec, error))
    };
    bound.into_iter().map(listen).collect()
}

fn refused(spec: &ListenerSpec, error: io::Error) -> BindError {
    BindError::Address { listener: spec.name.clone(), address: spec.address, error }
}
