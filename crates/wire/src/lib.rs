//! What the daemons say to each other, and how it is written: one enum per topic, the envelope of a request, the
//! form of a reply. No I/O. The method names, the `_context_*` keys and the reply's `result` and `failure` are those
//! of the first Nova; arguments are lists where many rows can be meant, and a single `instance_id` is understood too.
//!
//! A message is a hint to look at rows. Nothing in it grants a right: the receiver asks the database.

mod address;
mod call;
mod compute;
mod context;
mod network;
mod reply;
mod request;
mod scheduler;
mod signature;
mod timestamp;

pub use address::{Address, Topic};
pub use call::{Call, WireError};
pub use compute::{ComputeCall, ConsoleOutput};
pub use context::Context;
pub use network::NetworkCall;
pub use reply::{Failure, Reply, ReplyError};
pub use request::{MessageId, Request};
pub use scheduler::SchedulerCall;
pub use signature::{AccessError, CloudKey, Signed};
