//! The BMC itself: is it there, restart it, take its backup.

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::{
    BmcError, Capability, Generation, HttpBmcClient,
    wire::{Call, Method, answer},
};

/// Where a backup goes: a file, or anything else that can be written to.
pub type BackupSink<'a> = dyn AsyncWrite + Send + Unpin + 'a;

/// The command of a reboot is never sent with `fel`: that is the recovery mode, and the board stays dark in it.
const REBOOT: &str = "reboot";

impl HttpBmcClient {
    pub(crate) async fn reach(&self) -> Result<(), BmcError> {
        // `other` is the one question that every generation answers, firmware 1.x included.
        let call = Call::get("reach the BMC", "other");
        let reply = self.session().ping(&call).await?;
        let attempt = self.session().attempt(call.action());
        match answer::envelope(&reply, &attempt) {
            // Not logged in, and blocked even: it is there.
            Ok(_) | Err(BmcError::Auth { .. } | BmcError::Banned { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn restart_bmc(&self) -> Result<(), BmcError> {
        let call = Call::set("reboot the BMC", REBOOT);
        self.require(Capability::Reboot, &call.action()).await?;
        let reply = self.session().last_call(&call).await?;
        answer::ok(&reply, &self.session().attempt(call.action()))
    }

    pub(crate) async fn restart_daemon(&self) -> Result<(), BmcError> {
        let call = Call::set("restart the BMC's daemon", "reload");
        self.require(Capability::Reload, &call.action()).await?;
        match self.session().last_call(&call).await {
            Ok(reply) => answer::ok(&reply, &self.session().attempt(call.action())),
            // The daemon may be gone before its answer is out.
            Err(BmcError::Unreachable { source, .. }) if source.is::<hyper::Error>() => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn restart_network(&self) -> Result<(), BmcError> {
        // Firmware 1.x insists on `cmd`, later ones ignore it.
        let call = Call::set("reset the board's network", "network").with("cmd", "reset");
        self.session().command(&call).await?;
        // The board's own uplink goes through that switch: what is connected now will not stay so.
        self.session().hang_up().await;
        Ok(())
    }

    pub(crate) async fn fetch_backup(&self, into: &mut BackupSink<'_>) -> Result<u64, BmcError> {
        let call = Call::path("download the BMC's backup", Method::Get, "/backup");
        let about = self.require(Capability::Backup, &call.action()).await?;
        let attempt = self.session().attempt(call.action());
        let unsupported = || BmcError::Unsupported {
            attempt: attempt.clone(),
            capability: Capability::Backup,
            firmware: about.firmware_name(),
        };
        if about.generation == Generation::Legacy {
            return Err(unsupported());
        }
        let (reply, length) = self.session().download(&call, into).await?;
        answer::check_status(&reply, &attempt)?;
        if reply.html {
            return Err(unsupported());
        }
        if let Err(source) = into.flush().await {
            return Err(BmcError::Local { attempt, source });
        }
        if length == 0 {
            return Err(BmcError::Protocol { attempt, problem: "it is empty".into(), raw: String::new() });
        }
        Ok(length)
    }
}
