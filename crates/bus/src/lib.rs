//! How the daemons reach each other: a [`Bus`] that carries bytes at least once, and typed sending and serving over it.
//!
//! One kind is here, [`InProcess`], for `nova-combined` and for tests; a broker's is the same trait and passes the same
//! [`contract`]. A message is a hint, so the rules are few: it is acknowledged after the work; one that its consumer
//! drops comes again, three times in all, and is then set aside; one that nobody can ever take is refused to its sender
//! at once; whoever waits for an answer says for how long.

mod bus;
#[cfg(any(test, feature = "contract"))]
pub mod contract;
mod delivery;
#[cfg(any(test, feature = "dev"))]
pub mod dev;
mod error;
#[cfg(any(test, feature = "failpoints"))]
mod faulty;
mod in_process;
mod rabbit;
mod send;
mod serve;

pub use bus::{Bus, Consumer, Subscription};
pub use delivery::{DeadLetter, Delivery, MAX_DELIVERIES, Settle};
pub use error::BusError;
#[cfg(any(test, feature = "failpoints"))]
pub use faulty::Faulty;
pub use in_process::{Faults, InProcess};
pub use rabbit::{RabbitMq, RabbitOptions};
pub use serve::{Handler, serve};
