//! `portcullis reload`

use super::admin_client::ask;
use super::{AdminAddress, Outcome, data, talk};

pub(super) fn reload(admin: &AdminAddress) -> anyhow::Result<Outcome> {
    let (status, body) = ask(admin, "POST", "/api/v1/reload")?;
    data(&format!("{}\n", body.trim_end()));
    match status {
        200 => Ok(Outcome::Ok),
        422 => {
            talk("the configuration was refused; the one before stays in force\n");
            Ok(Outcome::Refused)
        }
        _ => anyhow::bail!("the gateway answered {status}"),
    }
}
