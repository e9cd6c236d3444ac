//! Sending, typed: what a daemon writes instead of bytes and routing keys.

use std::time::Duration;

use nova_wire::{Address, Call, ComputeCall, Context, NetworkCall, Reply, ReplyError, Request, SchedulerCall};
use serde::de::DeserializeOwned;

use crate::bus::Bus;
use crate::error::BusError;

impl dyn Bus {
    /// Tells the scheduler, whichever of them is free.
    ///
    /// # Errors
    /// As [`Bus::publish`]. The rows are written already and their owner's tick finds them: log it and go on.
    pub async fn cast_scheduler(&self, call: SchedulerCall) -> Result<(), BusError> {
        self.cast(None, call, Context::service()).await
    }

    /// Tells the compute daemon of `host`.
    ///
    /// # Errors
    /// As [`Bus::publish`]. The rows are written already and their owner's tick finds them: log it and go on.
    pub async fn cast_compute(&self, host: &str, call: ComputeCall) -> Result<(), BusError> {
        self.cast(Some(host), call, Context::service()).await
    }

    /// Tells the network daemon of `host`.
    ///
    /// # Errors
    /// As [`Bus::publish`]. The rows are written already and their owner's tick finds them: log it and go on.
    pub async fn cast_network(&self, host: &str, call: NetworkCall) -> Result<(), BusError> {
        self.cast(Some(host), call, Context::service()).await
    }

    /// Tells every daemon of the call's topic that listens now.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn fanout<C: Call>(&self, call: C) -> Result<(), BusError> {
        let body = Request::cast(call, Context::service()).encode().map_err(BusError::Unwritable)?;
        self.publish(&Address::Every(C::TOPIC), body.into()).await
    }

    /// Tells the daemon of `host`, or any of the topic, on behalf of `context`.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn cast<C: Call>(&self, host: Option<&str>, call: C, context: Context) -> Result<(), BusError> {
        let body = Request::cast(call, context).encode().map_err(BusError::Unwritable)?;
        self.publish(&address::<C>(host), body.into()).await
    }

    /// Asks the compute daemon of `host` and waits at most `deadline` for its answer.
    ///
    /// # Errors
    /// All of [`BusError`].
    pub async fn call_compute<R: DeserializeOwned>(
        &self,
        host: &str,
        call: ComputeCall,
        deadline: Duration,
    ) -> Result<R, BusError> {
        self.ask(Some(host), call, Context::service(), deadline).await
    }

    /// Asks the daemon of `host`, or any of the topic, on behalf of `context`, and waits at most `deadline`.
    ///
    /// # Errors
    /// All of [`BusError`].
    pub async fn ask<C: Call, R: DeserializeOwned>(
        &self,
        host: Option<&str>,
        call: C,
        context: Context,
        deadline: Duration,
    ) -> Result<R, BusError> {
        let address = address::<C>(host);
        let id = nova_wire::MessageId::random();
        let request = Request { call, context, id: Some(id.clone()) };
        let body = request.encode().map_err(BusError::Unwritable)?;
        let answer = self.call(&address, &id, body.into(), deadline).await?;
        Reply::decode(&answer).map_err(|error| match error {
            ReplyError::Failed(failure) => BusError::Refused { to: address.to_string(), failure },
            ReplyError::Unreadable(source) => BusError::Unreadable { to: address.to_string(), source },
        })
    }
}

fn address<C: Call>(host: Option<&str>) -> Address {
    match host {
        Some(host) => Address::Host(C::TOPIC, host.to_owned()),
        None => Address::Any(C::TOPIC),
    }
}
