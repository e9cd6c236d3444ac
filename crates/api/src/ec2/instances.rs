//! Instances: `RunInstances`, `DescribeInstances`, `DescribeInstancesV6`, `DescribeInstanceStatus`, `GetConsoleOutput`, and the calls that
//! terminate, reboot, stop and start them.

mod change;
mod console;
mod describe;
mod item;
mod launch;
mod run;

pub(crate) use change::{RebootInstances, StartInstances, StopInstances, TerminateInstances};
pub(crate) use console::GetConsoleOutput;
pub(crate) use describe::{DescribeInstanceStatus, DescribeInstances, DescribeInstancesV6};
pub(crate) use run::RunInstances;

#[cfg(test)]
mod tests;
