//! Has bodies judged: the request's before any of it goes upstream, the response's before any of it reaches the client.
//!
//! What is judged, and what comes of it, is the pipeline's to say. Here bodies are held, within the bound that it gives,
//! and paced as they are when they stream.

use std::future::poll_fn;
use std::task::Poll;

use super::downstream::ClientError;
use super::exchange::Run;
use super::relay::{Copy, Interruption, Relay, Source};
use super::upload::{Upload, UploadError};
use super::upstream_session::UpstreamSession;
use crate::model::verdict::Rejection;
use crate::pipeline::attempt::Plan;
use crate::pipeline::body;
use crate::pipeline::respond::{self as dress, ResponseTask};

/// Why a body does not go on.
pub(super) enum Stop {
    Refused(Rejection),
    Interrupted(Interruption),
}

impl<'a> Run<'a> {
    /// Has the request's body judged before any of it goes upstream, or scanned on its way, as `validate` asks.
    pub(super) async fn judge_body(&mut self, plan: &Plan<'a>, upload: &mut Upload) -> Result<(), Stop> {
        if let Some(most) = body::collects(&self.exchange) {
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let collected = self.collect(plan, upload, most).await;
            self.exchange.body_in = upload.received();
            let is_whole = collected.map_err(Stop::Interrupted)?;
            if let Some(rejection) = body::judge(&mut self.exchange, upload.collected(), is_whole) {
                return Err(Stop::Refused(rejection));
            }
            if is_whole {
                return Ok(());
            }
        }
        if let Some(scanner) = body::scanner(&self.exchange).filter(|_| upload.is_open()) {
            let is_enforced = body::is_enforced(&self.exchange);
            upload.scan(scanner, is_enforced).map_err(|error| Stop::Interrupted(Interruption::Upload(error)))?;
        }
        Ok(())
    }

    /// What a scan that does not end the upload has found so far.
    pub(super) fn take_found(&mut self, upload: &mut Upload) {
        if let Some(fault) = upload.found.take() {
            body::scanned(&mut self.exchange, fault);
        }
    }

    /// Waits for the whole body, or for more than `most` bytes of it. Whether it is whole.
    async fn collect(&mut self, plan: &Plan<'a>, upload: &mut Upload, most: usize) -> Result<bool, Interruption> {
        let clock = &self.ground.gateway.clock;
        let (down, timer) = (&mut self.down, &mut *self.timer);
        let (mut received, mut progress_at) = (upload.received(), clock.now());
        poll_fn(|cx| {
            match upload.poll_collect(cx, clock, down, most) {
                Poll::Ready(Ok(is_whole)) => return Poll::Ready(Ok(is_whole)),
                Poll::Ready(Err(UploadError::Client(ClientError::Gone))) => {
                    return Poll::Ready(Err(Interruption::ClientGone));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Interruption::Upload(error))),
                Poll::Pending => {}
            }
            // A `100 Continue` may be waiting to leave.
            if let Poll::Ready(Err(_)) = down.poll_flush(cx) {
                return Poll::Ready(Err(Interruption::ClientGone));
            }
            if received != upload.received() {
                (received, progress_at) = (upload.received(), clock.now());
            }
            let silent = progress_at.after(plan.timeouts.idle);
            let slow = upload.deadline().map_or(silent, |at| at.min(silent));
            match plan.deadline.filter(|deadline| deadline.at < slow) {
                Some(deadline) => {
                    timer.poll_until(cx, clock, deadline.at).map(|()| Err(Interruption::Timeout(deadline.limit)))
                }
                None => timer.poll_until(cx, clock, slow).map(|()| Err(Interruption::Upload(UploadError::TooSlow))),
            }
        })
        .await
    }

    /// Has the response's body judged before any of it reaches the client, or copied on its way to be judged in the end.
    pub(super) async fn judge_response(
        &mut self,
        task: Option<&ResponseTask>,
        plan: &Plan<'a>,
        session: &mut UpstreamSession,
        upload: &mut Upload,
    ) -> Result<Source, Stop> {
        let Some(task) = task else { return Ok(Source::default()) };
        if !task.holds() {
            return Ok(Source { copy: Some(Copy::new(task.most())), held: None });
        }
        let mut relay = Relay {
            down: &mut self.down,
            up: session,
            upload,
            timer: self.timer,
            clock: &self.ground.gateway.clock,
            deadline: plan.deadline,
            idle: plan.timeouts.idle,
        };
        let (held, is_whole) = relay.hold(task.most()).await.map_err(Stop::Interrupted)?;
        match dress::judge_body(&mut self.exchange, task, &held, is_whole) {
            Some(rejection) => Err(Stop::Refused(rejection)),
            None => Ok(Source { held: Some(held), copy: None }),
        }
    }
}
