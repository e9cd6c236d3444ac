//! Why a request fails, and the one table of EC2 codes.

use nova_aws::{NoSuchVersion, ParamError, QueryError, SignatureError, Subject, XmlError};
use nova_bus::BusError;
use nova_db::{DbError, floating_ips::FloatingError, security_groups::GroupError};
use nova_identity::{KeyPairError, SecretBoxError};
use nova_types::{ImageId, InstanceId, KeyName, rule::RuleError};

/// Everything that can go wrong between a request and its answer.
///
/// The text is what the user reads, except for defects of ours, whose text and causes go to the log only.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    // Reading the request.
    #[error("the body may have at most 1 MiB")]
    BodyTooLarge,
    #[error("the body did not arrive in time or was cut off")]
    BodyIncomplete,
    #[error("the body must be application/x-www-form-urlencoded")]
    BodyNotForm,
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Param(#[from] ParamError),
    #[error(transparent)]
    Version(#[from] NoSuchVersion),
    #[error("the action {0} is not valid for this web service")]
    NoSuchAction(String),

    // Who is it, and may they.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// One text for an unknown key, a wrong signature, no such project and no membership: none of them may be probed for.
    #[error("access was denied: the credentials are not valid for this project")]
    AuthFailure,
    #[error("you are not authorized to perform this operation")]
    Unauthorized,
    #[error("the request would have succeeded, but the DryRun flag is set")]
    DryRun,

    // Key pairs.
    #[error("the key pair '{0}' already exists")]
    KeyPairExists(KeyName),
    #[error("the key pair '{0}' does not exist")]
    NoSuchKeyPair(String),
    #[error("key is not in a valid OpenSSH public key format: {0}")]
    BadKeyMaterial(&'static str),
    #[error("the key pair name '{0}' is reserved")]
    ReservedKeyName(KeyName),

    // Zones and regions.
    #[error("the availability zone '{0}' does not exist")]
    NoSuchZone(String),
    #[error("the region '{0}' does not exist")]
    NoSuchRegion(String),

    // Instance types.
    #[error("the instance type '{0}' does not exist")]
    NoSuchInstanceType(String),

    // Instances.
    #[error("the instance ID '{0}' does not exist")]
    NoSuchInstance(InstanceId),
    #[error("the instance '{0}' is not in a state from which it can do that")]
    IncorrectState(InstanceId),
    #[error(
        "{least} to {most} instances were asked for: MinCount and MaxCount must be 1 to 1000, the first not above the second"
    )]
    BadCount { least: u32, most: u32 },
    #[error("the instance type '{0}' does not exist")]
    NoSuchFlavor(String),
    #[error("the user data is not valid base64")]
    UserDataNotBase64,
    #[error("user data is limited to 16384 bytes, and there are {0}")]
    UserDataTooLong(usize),
    #[error("Instance quota exceeded. You can only run {allowed} more instances of this type.")]
    InstanceLimit { allowed: u32 },
    #[error("the client token was used before, for a different request")]
    TokenReused,
    #[error("the client token was used before, for instances that are terminated")]
    TokenSpent,
    #[error("the request with this client token is being accepted, please try again")]
    TryAgain,
    #[error("reading the console of {instance}")]
    Console {
        instance: InstanceId,
        #[source]
        source: BusError,
    },

    // Images.
    #[error("the image ID '{0}' does not exist")]
    NoSuchImage(ImageId),
    #[error("'{0}' is not an image ID (expected aki-0000000a)")]
    MalformedImageId(String),
    #[error("the image '{image}' is not a {wanted} image")]
    WrongImageKind { image: ImageId, wanted: &'static str },
    #[error("the image '{image}' is {state}, not available")]
    ImageNotAvailable { image: ImageId, state: &'static str },

    // Security groups.
    #[error("the security group '{0}' does not exist")]
    NoSuchGroup(String),
    #[error(transparent)]
    Group(#[from] GroupError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error("rules were given in two forms: use either IpPermissions or IpProtocol and CidrIp")]
    TwoFormsOfRules,

    // Addresses.
    #[error(transparent)]
    Floating(#[from] FloatingError),
    #[error("no instance of this project has the private address '{0}'")]
    NoSuchPrivateAddress(std::net::Ipv4Addr),
    #[error("the allocation ID '{0}' does not exist: addresses here are named by PublicIp")]
    NoSuchAllocation(String),
    #[error("the association ID '{0}' does not exist: addresses here are named by PublicIp")]
    NoSuchAssociation(String),

    // Ours.
    #[error("asking the database")]
    Db(#[from] DbError),
    #[error("rendering the answer")]
    Xml(#[from] XmlError),
    #[error("opening the secret of a user")]
    Secret(#[from] SecretBoxError),
    #[error("making a key pair")]
    KeyPair(#[source] KeyPairError),
    #[error("the action panicked")]
    Panic,
}

impl Error {
    /// Returns the EC2 error code and the HTTP status. The only such table.
    ///
    /// A client's mistake is always 4xx: a 5xx makes boto try again for a minute.
    #[rustfmt::skip]
    pub(crate) const fn ec2(&self) -> (&'static str, u16) {
        match self {
            Self::BodyTooLarge          => ("RequestEntityTooLarge",          413),
            Self::BodyIncomplete        => ("RequestTimeout",                 408),
            Self::BodyNotForm           => ("MalformedQueryString",           400),
            Self::Query(error)          => query_code(error),
            Self::Param(error)          => param_code(error),
            Self::Version(_)            => ("NoSuchVersion",                  400),
            Self::NoSuchAction(_)       => ("InvalidAction",                  400),

            Self::Signature(error)      => signature_code(error),
            Self::AuthFailure           => ("AuthFailure",                    403),
            Self::Unauthorized          => ("UnauthorizedOperation",          401),
            Self::DryRun                => ("DryRunOperation",                412),

            Self::KeyPairExists(_)      => ("InvalidKeyPair.Duplicate",       400),
            Self::NoSuchKeyPair(_)      => ("InvalidKeyPair.NotFound",        400),
            Self::BadKeyMaterial(_)     => ("InvalidKeyPair.Format",          400),
            Self::ReservedKeyName(_)    => ("InvalidParameterValue",          400),

            Self::NoSuchZone(_)
            | Self::NoSuchRegion(_)     => ("InvalidParameterValue",          400),

            Self::NoSuchInstanceType(_) => ("InvalidInstanceType",            400),

            Self::NoSuchInstance(_)     => ("InvalidInstanceID.NotFound",     400),
            Self::IncorrectState(_)     => ("IncorrectInstanceState",         400),
            Self::UserDataNotBase64     => ("InvalidUserData.Malformed",      400),
            Self::BadCount { .. }
            | Self::NoSuchFlavor(_)
            | Self::UserDataTooLong(_)  => ("InvalidParameterValue",          400),
            Self::InstanceLimit { .. }  => ("InstanceLimitExceeded",          400),
            Self::TokenReused           => ("IdempotentParameterMismatch",    400),
            Self::TokenSpent            => ("IdempotentInstanceTerminated",   400),
            Self::TryAgain
            | Self::Console { .. }      => ("Unavailable",                    503),

            Self::NoSuchImage(_)        => ("InvalidAMIID.NotFound",          400),
            Self::MalformedImageId(_)   => ("InvalidAMIID.Malformed",         400),
            Self::WrongImageKind { .. } => ("InvalidParameterValue",          400),
            Self::ImageNotAvailable { .. } => ("InvalidAMIID.Unavailable",    400),

            Self::NoSuchGroup(_)        => ("InvalidGroup.NotFound",          400),
            Self::Group(error)          => group_code(error),
            Self::Rule(error)           => rule_code(error),
            Self::TwoFormsOfRules       => ("InvalidParameterCombination",    400),

            Self::Floating(error)       => floating_code(error),
            Self::NoSuchPrivateAddress(_) => ("InvalidParameterValue",        400),
            Self::NoSuchAllocation(_)   => ("InvalidAllocationID.NotFound",   400),
            Self::NoSuchAssociation(_)  => ("InvalidAssociationID.NotFound",  400),

            Self::Db(error)             => db_code(error),
            Self::Xml(_)
            | Self::Secret(_)
            | Self::KeyPair(_)
            | Self::Panic               => ("InternalError",                  500),
        }
    }

    /// What the user reads.
    pub(crate) fn message(&self) -> String {
        match self.ec2() {
            ("Unavailable", _) => "the service is unavailable for a moment, please try again".to_owned(),
            (_, 500..) => "an internal error has occurred".to_owned(),
            _ => self.to_string(),
        }
    }
}

impl Error {
    /// Says of the instance `id` what the database says of "the instance".
    pub(crate) fn of_instance(id: InstanceId, error: DbError) -> Self {
        match error {
            DbError::NotFound(_) => Self::NoSuchInstance(id),
            DbError::Stale(_) => Self::IncorrectState(id),
            other => Self::Db(other),
        }
    }
}

#[rustfmt::skip]
const fn group_code(error: &GroupError) -> (&'static str, u16) {
    match error {
        GroupError::Exists(_)           => ("InvalidGroup.Duplicate",          400),
        GroupError::NotFound(_)
        | GroupError::NoSuchSource(_)   => ("InvalidGroup.NotFound",           400),
        GroupError::DefaultGroup        => ("CannotDelete",                    400),
        GroupError::InUse { .. }        => ("InvalidGroup.InUse",              400),
        GroupError::DuplicateRules(_)   => ("InvalidPermission.Duplicate",     400),
        GroupError::MissingRules(_)     => ("InvalidPermission.NotFound",      400),
        GroupError::RuleLimit { .. }    => ("RulesPerSecurityGroupLimitExceeded", 400),
        GroupError::GroupLimit { .. }   => ("SecurityGroupLimitExceeded",      400),
        GroupError::Db(error)           => db_code(error),
    }
}

#[rustfmt::skip]
const fn floating_code(error: &FloatingError) -> (&'static str, u16) {
    match error {
        FloatingError::NotFound(_)          => ("InvalidAddress.NotFound",      400),
        FloatingError::NoneFree             => ("InsufficientAddressCapacity",  400),
        FloatingError::NoInstance           => ("InvalidInstanceID.NotFound",   400),
        FloatingError::NoFixedAddress       => ("IncorrectInstanceState",       400),
        FloatingError::AlreadyAssociated(_) => ("Resource.AlreadyAssociated",   400),
        // Only who makes and removes pools meets these.
        FloatingError::Exists(_)
        | FloatingError::Allocated { .. }   => ("InternalError",                500),
        FloatingError::Db(DbError::OverQuota(_)) => ("AddressLimitExceeded",    400),
        FloatingError::Db(error)            => db_code(error),
    }
}

#[rustfmt::skip]
const fn rule_code(error: &RuleError) -> (&'static str, u16) {
    match error {
        RuleError::Protocol(_)     => ("InvalidPermission.Malformed", 400),
        RuleError::PortsMissing(_) => ("MissingParameter",            400),
        RuleError::Ports { .. }
        | RuleError::Icmp { .. }
        | RuleError::Family(_)
        | RuleError::Range(_)      => ("InvalidParameterValue",       400),
    }
}

#[rustfmt::skip]
const fn query_code(error: &QueryError) -> (&'static str, u16) {
    match error {
        QueryError::Escape
        | QueryError::NotUtf8       => ("MalformedQueryString",  400),
        QueryError::TooMany
        | QueryError::LongName(_)
        | QueryError::LongValue(_)
        | QueryError::Duplicate(_)  => ("InvalidQueryParameter", 400),
    }
}

#[rustfmt::skip]
const fn param_code(error: &ParamError) -> (&'static str, u16) {
    match error {
        ParamError::Missing(_)                => ("MissingParameter",            400),
        ParamError::Unknown(_)                => ("UnknownParameter",            400),
        ParamError::Twice(_)                  => ("InvalidParameterCombination", 400),
        ParamError::Filter(_)                 => ("InvalidParameterValue",       400),
        ParamError::NextToken                 => ("InvalidNextToken",            400),
        ParamError::Malformed { subject, .. } => match subject {
            Subject::Value                    => ("InvalidParameterValue",       400),
            Subject::Instance                 => ("InvalidInstanceID.Malformed", 400),
            Subject::Image                    => ("InvalidAMIID.Malformed",      400),
            Subject::Volume                   => ("InvalidVolumeID.Malformed",   400),
            Subject::Snapshot                 => ("InvalidSnapshotID.Malformed", 400),
            Subject::Group                    => ("InvalidGroupId.Malformed",    400),
            Subject::KeyPair                  => ("InvalidKeyPairId.Malformed",  400),
        },
    }
}

#[rustfmt::skip]
const fn signature_code(error: &SignatureError) -> (&'static str, u16) {
    match error {
        SignatureError::Missing(_)     => ("MissingParameter",       400),
        SignatureError::Ambiguous
        | SignatureError::Malformed(_) => ("IncompleteSignature",    400),
        SignatureError::Unsupported(_) => ("InvalidParameterValue",  400),
        SignatureError::Expired        => ("RequestExpired",         400),
        SignatureError::Unsigned(_)
        | SignatureError::Payload      => ("SignatureDoesNotMatch",  403),
    }
}

/// What a row refused and an action did not expect is our defect; an absent database is nobody's.
#[rustfmt::skip]
const fn db_code(error: &DbError) -> (&'static str, u16) {
    match error {
        DbError::Unavailable(_)
        | DbError::Conflict(_)
        | DbError::InDoubt(_)  => ("Unavailable",   503),
        _                      => ("InternalError", 500),
    }
}
