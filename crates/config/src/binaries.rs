//! One struct per program, made of the groups of flags that it uses.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use crate::command_line::{self, Program};
use crate::groups::{
    ApiFlags, BusFlags, CommonFlags, ComputeFlags, DatabaseFlags, DhcpbridgeFlags, EndpointFlags, IdentityFlags,
    ImageFlags, NetworkFlags, ObjectstoreFlags, SchedulerFlags,
};
use crate::known::{Flag, Known};
use crate::settings::{Reader, Settings};
use crate::{ConfigError, Origin, Surroundings, Warning, flagfile};

/// A configuration, with what is odd about it.
#[derive(Debug)]
pub struct Loaded<C> {
    /// The values.
    pub config: C,
    /// To be logged once logging is set up.
    pub warnings: Vec<Warning>,
    /// The words after the flags; none for daemons.
    pub rest: Vec<String>,
    /// The flag files that were asked for, so that children can be given the same.
    pub flagfiles: Vec<PathBuf>,
}

/// A program's configuration: it can be read from a command line and the flag files that this names.
pub trait Config: Sized {
    /// The program's name.
    const BINARY: &'static str;

    /// Reads the configuration of a program started with `args`, its own name first, on a machine that is described.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    fn load_in(
        args: impl IntoIterator<Item = OsString>,
        surroundings: &Surroundings,
    ) -> Result<Loaded<Self>, ConfigError>;

    /// The same on this machine.
    ///
    /// # Errors
    /// Any [`ConfigError`].
    fn load(args: impl IntoIterator<Item = OsString>) -> Result<Loaded<Self>, ConfigError> {
        Self::load_in(args, &Surroundings::here())
    }
}

/// Reads this process's configuration. Help and version are printed, an error is told in one line on stderr, and the
/// process ends: status 0 for help, 2 for a command line that makes no sense, 1 for the rest.
pub fn load_or_exit<C: Config>() -> Loaded<C> {
    match C::load(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(ConfigError::Answered(text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            std::process::exit(0)
        }
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "{}: {error}{cause}", C::BINARY);
            std::process::exit(if matches!(error, ConfigError::Usage(_)) { 2 } else { 1 })
        }
    }
}

/// How a program differs from the others: its command line, its flags, and the struct made of them.
struct Recipe<C> {
    program: Program,
    /// Whether the environment's `FLAGFILE` counts.
    heeds_variable: bool,
    groups: Vec<&'static [Flag]>,
    read: fn(&Reader<'_>) -> Result<C, ConfigError>,
}

impl<C> Recipe<C> {
    fn load(
        &self,
        args: impl IntoIterator<Item = OsString>,
        surroundings: &Surroundings,
    ) -> Result<Loaded<C>, ConfigError> {
        let known = Known::new();
        let line = command_line::parse(self.program, &self.groups, &known, args)?;
        let (files, asked_by) = match (&*line.flagfiles, &surroundings.flagfile_variable) {
            ([], Some(path)) if self.heeds_variable => (vec![path.clone()], Origin::Default),
            ([], _) => (surroundings.default_flagfile.iter().cloned().collect(), Origin::Default),
            (files, _) => (files.iter().map(PathBuf::from).collect(), Origin::CommandLine),
        };
        let mut settings = Settings::default();
        // The earlier of several files wins, as it always did; so it is read last.
        for file in files.iter().rev() {
            flagfile::read(file, &asked_by, &known, surroundings.home.as_deref(), &mut settings)?;
        }
        for (name, value) in line.set {
            match known.is_many(name) {
                true => settings.add(name, &value, Origin::CommandLine),
                false => settings.set(name, &value, Origin::CommandLine),
            }
        }
        line.undefok.iter().for_each(|names| settings.allow_unknown(names));
        settings.translate_former()?;
        let mut warnings = settings.take_warnings();
        let reader = Reader { settings: &settings, known: &known, surroundings, remarks: RefCell::default() };
        let config = (self.read)(&reader)?;
        warnings.extend(reader.remarks.into_inner());
        warnings.dedup();
        Ok(Loaded { config, warnings, rest: line.rest, flagfiles: files })
    }
}

macro_rules! programs {
    ($(
        $(#[doc = $doc:literal])+
        $config:ident($binary:literal, $about:literal, rest: $rest:expr, heeds_variable: $heeds:literal) {
            $($field:ident: $group:ident,)+
        }
    )+) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Debug)]
        pub struct $config {
            $(
                #[doc = concat!("See [`", stringify!($group), "`].")]
                pub $field: $group,
            )+
        }

        impl Config for $config {
            const BINARY: &'static str = $binary;

            fn load_in(
                args: impl IntoIterator<Item = OsString>,
                surroundings: &Surroundings,
            ) -> Result<Loaded<Self>, ConfigError> {
                let recipe = Recipe {
                    program: Program { binary: $binary, about: $about, rest: $rest },
                    heeds_variable: $heeds,
                    groups: vec![$($group::FLAGS),+],
                    read: |reader| Ok(Self { $($field: $group::read(reader)?),+ }),
                };
                recipe.load(args, surroundings)
            }
        }
    )+ };
}

programs! {
    /// How `nova-api` behaves.
    ApiConfig("nova-api", "Serves the EC2 API and the metadata of instances", rest: None, heeds_variable: false) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        endpoint: EndpointFlags,
        api: ApiFlags,
        identity: IdentityFlags,
        images: ImageFlags,
    }
    /// How `nova-objectstore` behaves.
    ObjectstoreConfig("nova-objectstore", "Gives images to compute hosts", rest: None, heeds_variable: false) {
        common: CommonFlags,
        database: DatabaseFlags,
        endpoint: EndpointFlags,
        images: ImageFlags,
        objectstore: ObjectstoreFlags,
    }
    /// How `nova-scheduler` behaves.
    SchedulerConfig("nova-scheduler", "Chooses a host for each new instance", rest: None, heeds_variable: false) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        network: NetworkFlags,
        scheduler: SchedulerFlags,
    }
    /// How `nova-network` behaves.
    NetworkConfig(
        "nova-network", "Gives instances their network: bridges, addresses, DHCP, NAT", rest: None, heeds_variable: false
    ) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        endpoint: EndpointFlags,
        network: NetworkFlags,
    }
    /// How `nova-compute` behaves.
    ComputeConfig("nova-compute", "Runs instances on this host", rest: None, heeds_variable: false) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        endpoint: EndpointFlags,
        network: NetworkFlags,
        images: ImageFlags,
        compute: ComputeFlags,
    }
    /// How `nova-combined` behaves: as all daemons together.
    CombinedConfig(
        "nova-combined", "All of Nova in one process, with its own database and no broker", rest: None,
        heeds_variable: false
    ) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        endpoint: EndpointFlags,
        api: ApiFlags,
        identity: IdentityFlags,
        images: ImageFlags,
        objectstore: ObjectstoreFlags,
        scheduler: SchedulerFlags,
        network: NetworkFlags,
        compute: ComputeFlags,
    }
    /// What `nova-manage` works on; its command is in [`Loaded::rest`].
    ManageConfig(
        "nova-manage", "Administers users, projects, networks, images and services", rest: Some("COMMAND"),
        heeds_variable: false
    ) {
        common: CommonFlags,
        database: DatabaseFlags,
        bus: BusFlags,
        endpoint: EndpointFlags,
        api: ApiFlags,
        identity: IdentityFlags,
        images: ImageFlags,
        network: NetworkFlags,
        compute: ComputeFlags,
    }
    /// What `nova-dhcpbridge` must know; few flags, for a mistake in another must not stop DHCP.
    DhcpbridgeConfig(
        "nova-dhcpbridge", "Tells nova-network of DHCP leases; called by dnsmasq", rest: Some("ACTION"),
        heeds_variable: true
    ) {
        dhcpbridge: DhcpbridgeFlags,
    }
}

impl CombinedConfig {
    /// The part of the API.
    pub fn api_config(&self) -> ApiConfig {
        let Self { common, database, bus, endpoint, api, identity, images, .. } = self.clone();
        ApiConfig { common, database, bus, endpoint, api, identity, images }
    }

    /// The part of the object store.
    pub fn objectstore_config(&self) -> ObjectstoreConfig {
        let Self { common, database, endpoint, images, objectstore, .. } = self.clone();
        ObjectstoreConfig { common, database, endpoint, images, objectstore }
    }

    /// The part of the scheduler.
    pub fn scheduler_config(&self) -> SchedulerConfig {
        let Self { common, database, bus, network, scheduler, .. } = self.clone();
        SchedulerConfig { common, database, bus, network, scheduler }
    }

    /// The part of the network daemon.
    pub fn network_config(&self) -> NetworkConfig {
        let Self { common, database, bus, endpoint, network, .. } = self.clone();
        NetworkConfig { common, database, bus, endpoint, network }
    }

    /// The part of the compute daemon.
    pub fn compute_config(&self) -> ComputeConfig {
        let Self { common, database, bus, endpoint, network, images, compute, .. } = self.clone();
        ComputeConfig { common, database, bus, endpoint, network, images, compute }
    }
}
