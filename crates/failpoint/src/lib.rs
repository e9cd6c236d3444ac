//! Places where tests let a process die, as a power cut does: one list of all of them.
//!
//! Without the feature `failpoints` a place costs nothing, for it is not there. With it, the process aborts where
//! `--failpoint=NAME` says, the first time it comes there, or with `NAME:N` the N-th time. A build without debug
//! assertions refuses the feature, so that nothing shipped has it.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("failpoints end the process on purpose: they are for tests, never for a release build");

/// Makes the list.
macro_rules! points {
    ($($point:ident = $name:literal,)+) => {
        /// A place in the program, named after what is true there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each variant's name is the second column of the list")]
        pub enum Point {
            $($point,)+
        }

        impl Point {
            /// Every place.
            pub const ALL: &[Self] = &[$(Self::$point,)+];

            /// Returns the name: the operation, then what is about to happen or has happened.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name,)+
                }
            }
        }
    };
}

points! {
    LaunchAccepting          = "launch.accepting",
    LaunchAccepted           = "launch.accepted",
    LaunchHinted             = "launch.hinted",
    LaunchScheduling         = "launch.scheduling",
    LaunchPlacing            = "launch.placing",
    LaunchPlaced             = "launch.placed",
    LaunchToldNetwork        = "launch.told-network",
    LaunchToldCompute        = "launch.told-compute",
    LaunchTaken              = "launch.taken",
    LaunchBeforeFirewall     = "launch.before-firewall",
    LaunchAfterFirewall      = "launch.after-firewall",
    LaunchBeforeBridge       = "launch.before-bridge",
    LaunchAfterBridge        = "launch.after-bridge",
    LaunchBeforeImages       = "launch.before-images",
    LaunchAfterImages        = "launch.after-images",
    LaunchBeforeDisks        = "launch.before-disks",
    LaunchAfterDisks         = "launch.after-disks",
    LaunchBeforeBoot         = "launch.before-boot",
    LaunchAfterBoot          = "launch.after-boot",
    LaunchRecording          = "launch.recording",
    LaunchRecorded           = "launch.recorded",

    TerminateAccepting       = "terminate.accepting",
    TerminateAccepted        = "terminate.accepted",
    TerminateHinted          = "terminate.hinted",
    TerminateTaken           = "terminate.taken",
    TerminateBeforeBoot      = "terminate.before-boot",
    TerminateAfterBoot       = "terminate.after-boot",
    TerminateBeforeDisks     = "terminate.before-disks",
    TerminateAfterDisks      = "terminate.after-disks",
    TerminateBeforeImages    = "terminate.before-images",
    TerminateAfterImages     = "terminate.after-images",
    TerminateBeforeBridge    = "terminate.before-bridge",
    TerminateAfterBridge     = "terminate.after-bridge",
    TerminateBeforeFirewall  = "terminate.before-firewall",
    TerminateAfterFirewall   = "terminate.after-firewall",
    TerminateRecording       = "terminate.recording",
    TerminateRecorded        = "terminate.recorded",

    // What never had a host is ended by the scheduler, and so is what finds none.
    UnplacedEnding           = "unplaced.ending",
    UnplacedEnded            = "unplaced.ended",
    RefuseRecording          = "refuse.recording",
    RefuseRecorded           = "refuse.recorded",

    StopAccepting            = "stop.accepting",
    StopAccepted             = "stop.accepted",
    StopTaken                = "stop.taken",
    StopHalted               = "stop.halted",
    StopRecording            = "stop.recording",
    StopRecorded             = "stop.recorded",

    StartAccepting           = "start.accepting",
    StartAccepted            = "start.accepted",
    StartTaken               = "start.taken",
    StartBooted              = "start.booted",
    StartRecording           = "start.recording",
    StartRecorded            = "start.recorded",

    RebootAccepting          = "reboot.accepting",
    RebootAccepted           = "reboot.accepted",
    RebootTaken              = "reboot.taken",
    RebootBooted             = "reboot.booted",
    RebootRecording          = "reboot.recording",
    RebootRecorded           = "reboot.recorded",

    AllocateAccepting        = "allocate.accepting",
    AllocateAccepted         = "allocate.accepted",
    ReleaseAccepting         = "release.accepting",
    ReleaseAccepted          = "release.accepted",
    ReleaseHinted            = "release.hinted",
    AssociateAccepting       = "associate.accepting",
    AssociateAccepted        = "associate.accepted",
    AssociateHinted          = "associate.hinted",
    DisassociateAccepting    = "disassociate.accepting",
    DisassociateAccepted     = "disassociate.accepted",
    DisassociateHinted       = "disassociate.hinted",

    // What the network's host does with a floating address, in this order.
    AddressUnbinding         = "address.unbinding",
    AddressUnbound           = "address.unbound",
    AddressTranslating       = "address.translating",
    AddressTranslated        = "address.translated",
    AddressForgotten         = "address.forgotten",
    AddressBinding           = "address.binding",
    AddressAnnounced         = "address.announced",
    AddressBound             = "address.bound",

    // An interface that carries the host's own addresses comes onto a bridge.
    AttachJoined             = "attach.joined",
    AttachAddressed          = "attach.addressed",
    AttachRouted             = "attach.routed",
    AttachLeaving            = "attach.leaving",
    AttachLeft               = "attach.left",

    // An interface is there and does not say yet whose it is.
    LinkBridgeMade           = "link.bridge-made",
    LinkSegmentMade          = "link.segment-made",

    ImageNamed               = "image.named",
    ImageCopying             = "image.copying",
    ImageCopied              = "image.copied",
    ImageKept                = "image.kept",
    ImageRegistered          = "image.registered",
}

/// Marks a place. The process ends here if it was told to.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub const fn hit(_: Point) {}

#[cfg(feature = "failpoints")]
pub use armed::{NoSuchPoint, arm, hit};

#[cfg(feature = "failpoints")]
mod armed {
    //! The one place where this process is to end.

    use std::fmt;
    use std::io::Write as _;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::Point;

    static ARMED: OnceLock<Armed> = OnceLock::new();

    #[derive(Debug)]
    struct Armed {
        point: Point,
        left: AtomicU32,
    }

    /// The text names no place.
    #[derive(Debug, PartialEq, Eq)]
    pub struct NoSuchPoint(String);

    impl fmt::Display for NoSuchPoint {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "there is no failpoint {}: see --list-failpoints", self.0)
        }
    }

    impl std::error::Error for NoSuchPoint {}

    /// Lets this process end at `NAME`, or with `NAME:N` the N-th time it comes there. Only the first call counts.
    ///
    /// # Errors
    /// [`NoSuchPoint`].
    pub fn arm(text: &str) -> Result<(), NoSuchPoint> {
        let (point, times) = read(text).ok_or_else(|| NoSuchPoint(text.to_owned()))?;
        let _ = ARMED.set(Armed { point, left: AtomicU32::new(times) });
        Ok(())
    }

    pub(super) fn read(text: &str) -> Option<(Point, u32)> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let point = Point::ALL.iter().find(|point| point.name() == name)?;
        Some((*point, times.parse().ok().filter(|times| *times > 0)?))
    }

    /// Marks a place. The process ends here if it was told to.
    pub fn hit(point: Point) {
        if let Some(armed) = ARMED.get()
            && armed.point == point
            && armed.left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            // The standard error of a process that ends is all there is to tell.
            let _ = writeln!(std::io::stderr(), "Failpoint {} is reached.", point.name());
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn a_point_is_read_with_the_number_of_times() {
        assert_eq!(armed::read("launch.placed"), Some((Point::LaunchPlaced, 1)));
        assert_eq!(armed::read("launch.placed:3"), Some((Point::LaunchPlaced, 3)));
        for text in ["", "launch", "launch.placed:0", "launch.placed:x", "nothing:1"] {
            assert_eq!(armed::read(text), None, "{text}");
        }
        // Not armed: nothing happens.
        hit(Point::LaunchPlaced);
    }
}
