//! Flags about users, roles, keys and certificates.

use std::path::PathBuf;

use super::flags;

flags! {
    "Users and certificates"
    /// Roles, and where certificates and keys are kept.
    IdentityFlags {
        /// Folder of the certificate authority.
        ca_path: PathBuf = "$state_path/CA",
        /// Its certificate, in that folder and in the credentials.
        ca_file: String = "cacert.pem",
        /// Its private key, in that folder.
        key_file: String = "private/cakey.pem",
        /// Folder of private keys made for users.
        keys_path: PathBuf = "$state_path/keys",
        /// File with the key that user secrets are encrypted with; made when first needed.
        secret_key_file: PathBuf = "$state_path/secret.key",
        /// Give each project a certificate authority of its own.
        use_project_ca: bool = "false",
        /// Subject of user certificates: project, user and time take the place of %s.
        user_cert_subject: String = "/C=US/ST=California/L=MountainView/O=AnsoLabs/OU=NovaDev/CN=%s-%s-%s",
        /// Subject of project certificates: project and time take the place of %s.
        project_cert_subject: String = "/C=US/ST=California/L=MountainView/O=AnsoLabs/OU=NovaDev/CN=project-ca-%s-%s",
        /// Subject of VPN certificates: project and time take the place of %s.
        vpn_cert_subject: String = "/C=US/ST=California/L=MountainView/O=AnsoLabs/OU=NovaDev/CN=project-vpn-%s-%s",
        /// Name of the environment file in the credentials; the region takes the place of %s.
        credential_rc_file: String = "%src",
        /// Name of the private key in the credentials.
        credential_key_file: String = "pk.pem",
        /// Name of the certificate in the credentials.
        credential_cert_file: String = "cert.pem",
        /// Name of the VPN's configuration in the credentials.
        credential_vpn_file: String = "nova-vpn.conf",
        /// Roles that exist; others are refused.
        allowed_roles: Vec<String> = "cloudadmin,itsec,sysadmin,netadmin,developer",
        /// Roles whose holders may do everything; others are refused.
        superuser_roles: Vec<String> = "cloudadmin",
        /// Roles that count in every project; others are refused.
        global_roles: Vec<String> = "cloudadmin,itsec",
    }
}
