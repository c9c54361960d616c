//! `portcullis health`

use super::admin_client::ask;
use super::{AdminAddress, Outcome, data};

pub(super) fn health(admin: &AdminAddress) -> anyhow::Result<Outcome> {
    let (status, body) = ask(admin, "GET", "/readyz")?;
    data(&body);
    Ok(if status == 200 { Outcome::Ok } else { Outcome::Refused })
}
