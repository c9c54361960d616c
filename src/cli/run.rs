//! `portcullis run`

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::{Outcome, talk};
use crate::config::document::{AdminConfig, Document};
use crate::control::admin::{self, Access};
use crate::control::configuration::{self, Read};
use crate::control::supervisor::{Failure, Refused, Supervisor, Trigger};
use crate::control::watch::watch;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::snapshot::address;

pub(super) fn run(path: &Path) -> anyhow::Result<Outcome> {
    // The control plane has a thread of its own; requests are served by the workers.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(path));
    // A blocked read of a file must not keep the program from ending.
    runtime.shutdown_background();
    outcome
}

async fn serve(path: &Path) -> anyhow::Result<Outcome> {
    let mut read = configuration::read(path);
    let admin = admin_of(&mut read);
    let signals = Signals::new()?;
    let supervisor = match Supervisor::start(read).await {
        Ok(supervisor) => supervisor,
        Err(Failure::Refused(Refused { text, .. })) => {
            // The same findings as `check` prints.
            talk(&text);
            return Ok(Outcome::Refused);
        }
        Err(Failure::Broken(error)) => return Err(anyhow::anyhow!(error)),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let mut serving = None;
    if let Some(access) = admin {
        let listener = TcpListener::bind(access.address)
            .await
            .with_context(|| format!("the admin API can't listen on {} (see [admin] address)", access.address))?;
        tracing::info!(address = %listener.local_addr()?, "admin listening");
        let until = async {
            let _ = stopped.await;
        };
        serving = Some(tokio::spawn(admin::serve(listener, Arc::clone(&supervisor), access, until)));
    }
    tokio::spawn(watch(Arc::clone(&supervisor)));
    tracing::info!("ready");
    signals.until_end(&supervisor).await;
    drop(stop);
    if let Some(serving) = serving {
        serving.abort();
    }
    Ok(Outcome::Ok)
}

/// Where the admin API listens and what it asks for; mistakes join those of the document.
fn admin_of(read: &mut Read) -> Option<Access> {
    let Read { document, diagnostics, .. } = read;
    let config = resolve(document.as_ref()?)?;
    let address = address(&config.address, diagnostics)?;
    require_token(&config, address.ip().is_loopback(), diagnostics);
    Some(Access { token: config.token, address })
}

fn resolve(document: &Document) -> Option<AdminConfig> {
    match &document.admin {
        None => Some(AdminConfig::default()),
        Some(admin) => admin.resolved(),
    }
}

fn require_token(config: &AdminConfig, loopback: bool, diagnostics: &mut Diagnostics) {
    if !loopback && config.token.as_ref().is_none_or(String::is_empty) {
        let open = "the admin API would be open to everybody who reaches this address";
        diagnostics.push(
            Diagnostic::error("missing_key", config.address.span, open)
                .help("add token = \"${env:NAME}\" or \"${file:PATH}\", or use a loopback address"),
        );
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Reloads on SIGHUP; drains on SIGTERM and SIGINT. A second SIGINT ends at once.
    async fn until_end(mut self, supervisor: &Arc<Supervisor>) {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => {
                    supervisor.gateway().telemetry.access_log.reopen();
                    // An error is on the log and in the status already.
                    let _ = supervisor.reload(Trigger::Signal).await;
                }
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        tokio::select! {
            () = supervisor.drain() => {}
            _ = self.interrupt.recv() => tracing::warn!("interrupted while draining"),
        }
    }
}
