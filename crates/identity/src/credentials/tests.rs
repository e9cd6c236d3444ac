//! The credentials as a shell and an unzip see them.

use std::io::Read;
use std::path::Path;

use expect_test::expect;

use super::{
    Credentials, Endpoint, VpnClient, ZipNames, credentials_zip, novarc, quote, vpn_user_data, write_private_below,
};
use crate::{AccessKey, Secret, UserCertificate};

fn endpoint(port: u16, path: &str) -> Endpoint {
    Endpoint { scheme: "http".into(), host: "192.168.0.1".into(), port, path: path.into() }
}

fn with<T>(folder: &Path, run: impl FnOnce(&Credentials<'_>) -> T) -> T {
    let access: AccessKey = "access".parse().unwrap();
    let (secret, names) = (Secret::new("secret"), ZipNames::default());
    run(&Credentials {
        access: &access,
        secret: &secret,
        user: "dub",
        project: "dubproject",
        ec2: endpoint(8773, "/services/Cloud"),
        s3: endpoint(3333, ""),
        openstack: endpoint(8774, "/v1.0/"),
        region: "nova",
        names: &names,
        key_folder: folder,
    })
}

#[test]
fn novarc_has_the_old_lines_and_the_new() {
    let lines = with(Path::new("/root/creds"), novarc);
    let exports: Vec<&str> = lines.lines().filter(|l| l.starts_with("export") && !l.contains("NOVA_KEY_DIR")).collect();
    expect![[r#"
        export EC2_ACCESS_KEY="access:dubproject"
        export EC2_SECRET_KEY="secret"
        export EC2_URL="http://192.168.0.1:8773/services/Cloud"
        export S3_URL="http://192.168.0.1:3333"
        export EC2_USER_ID=42 # nova does not use user id, but bundling requires it
        export EUCALYPTUS_CERT=${NOVA_CERT} # euca-bundle-image seems to require this set
        export CLOUD_SERVERS_API_KEY="access"
        export CLOUD_SERVERS_USERNAME="dub"
        export CLOUD_SERVERS_URL="http://192.168.0.1:8774/v1.0/"
        export NOVA_API_KEY="access"
        export NOVA_USERNAME="dub"
        export NOVA_URL="http://192.168.0.1:8774/v1.0/"
        export AWS_ACCESS_KEY_ID="access:dubproject"
        export AWS_SECRET_ACCESS_KEY="secret"
        export AWS_DEFAULT_REGION="nova"
        export AWS_ENDPOINT_URL_EC2="http://192.168.0.1:8773/services/Cloud"
        export AWS_ENDPOINT_URL_S3="http://192.168.0.1:3333""#]]
    .assert_eq(&exports.join("\n"));
}

/// Sources a script that holds the text, as each shell would, and prints what it set.
#[expect(clippy::disallowed_methods, reason = "a test asks the shells, which production code never runs")]
fn sourced(shell: &str, script: &Path) -> String {
    let line = format!(". {}; echo \"$EC2_PRIVATE_KEY $EC2_ACCESS_KEY\"", script.display());
    let out = std::process::Command::new(shell).args(["-ec", &line]).current_dir("/").output().unwrap();
    assert!(out.status.success(), "{shell}: {}", String::from_utf8_lossy(&out.stderr));
    assert!(out.stderr.is_empty(), "{shell}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_key_folder_survives_moving_and_pasting_into_bashrc() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let (creds, moved, home) =
        (folder.path().join("creds"), folder.path().join("moved to"), folder.path().join("home"));
    for f in [&creds, &moved, &home] {
        std::fs::create_dir(f).unwrap();
    }
    let text = with(&creds, novarc);
    for path in [creds.join("novarc"), home.join("bashrc")] {
        std::fs::write(path, &text).unwrap();
    }
    std::fs::write(creds.join("pk.pem"), "key").unwrap();
    std::fs::write(moved.join("pk.pem"), "key").unwrap();
    std::fs::write(folder.path().join("moved to/novarc"), &text).unwrap();

    assert_eq!(sourced("bash", &creds.join("novarc")), format!("{root}/creds/pk.pem access:dubproject"));
    assert_eq!(sourced("bash", &home.join("bashrc")), format!("{root}/creds/pk.pem access:dubproject"));
    assert_eq!(sourced("sh", &creds.join("novarc")), format!("{root}/creds/pk.pem access:dubproject"));
    let spaced = Path::new(root).join("moved\\ to/novarc");
    assert_eq!(sourced("bash", &spaced), format!("{root}/moved to/pk.pem access:dubproject"));
}

#[test]
fn the_zip_has_the_old_entries_in_the_old_order() {
    let certificate =
        UserCertificate { key_pem: Secret::new("KEY"), certificate_pem: "CERT".into(), file: "10.pem".into() };
    let list = |vpn: Option<&VpnClient>| {
        let bytes = with(Path::new("/root/creds"), |c| {
            let c = Credentials { ec2: c.ec2.clone(), s3: c.s3.clone(), openstack: c.openstack.clone(), ..*c };
            credentials_zip(&[c], &ZipNames::default(), &certificate, "CA", vpn)
        })
        .unwrap();
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        let mut out = String::new();
        for n in 0..zip.len() {
            let mut entry = zip.by_index(n).unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            out.push_str(&format!(
                "{} {:o} {}\n",
                entry.name().unwrap(),
                entry.unix_mode().unwrap(),
                text.lines().last().unwrap()
            ));
        }
        out
    };
    expect![[r#"
        novarc 100600 export AWS_ENDPOINT_URL_S3="http://192.168.0.1:3333"
        pk.pem 100600 KEY
        cert.pem 100644 CERT
        cacert.pem 100644 CA
    "#]]
    .assert_eq(&list(None));
    let vpn = VpnClient { address: "1.2.3.4".into(), port: 1000 };
    assert!(list(Some(&vpn)).contains("\nnova-vpn.conf 100644 persist-key\ncacert.pem"));
}

#[test]
fn nothing_in_a_name_is_read_by_the_shell() {
    assert_eq!(quote(r#"a"b$c`d\e"#), r#""a\"b\$c\`d\\e""#);
}

/// The judge of the certificate is openssl, as in the tests of the authority.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test asks openssl, which production code never runs")]
fn a_vpn_gets_its_files_and_a_certificate_of_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let now = time::macros::datetime!(2026-02-03 04:05:06 UTC);
    let ca = crate::Authority::open_or_create(&crate::CaFiles::in_folder(folder.path()), now).unwrap();
    let server = ca.issue_server("/C=US/CN=project-vpn-moon", now).unwrap();
    let revoked = ca.revoked_pem().unwrap();
    let data = vpn_user_data("#!/bin/sh\nexit 0\n", &server, ca.certificate_pem(), &revoked).unwrap();
    assert!(data.len() < 12_000, "user data may have 16384 bytes: {}", data.len());
    let zip = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).unwrap();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap();
    let mut modes = Vec::new();
    for n in 0..zip.len() {
        let mut entry = zip.by_index(n).unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let name = entry.name().unwrap().to_string();
        std::fs::write(folder.path().join(&name), &text).unwrap();
        modes.push(format!("{name} {:o}", entry.unix_mode().unwrap() & 0o777));
    }
    assert_eq!(modes, ["autorun.sh 755", "crl.pem 644", "server.key 600", "ca.crt 644", "server.crt 644"]);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(read("autorun.sh"), "#!/bin/sh\nexit 0\n");
    assert_eq!((read("server.key").as_str(), read("crl.pem")), (server.key_pem.expose(), revoked));
    let at = now.unix_timestamp().to_string();
    let verified = |purpose: &str| {
        let args = ["verify", "-attime", &at, "-purpose", purpose, "-crl_check", "-CRLfile", "crl.pem"];
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(args).args(["-CAfile", "ca.crt", "server.crt"]).current_dir(folder.path());
        openssl.output().unwrap().status.success()
    };
    assert!(verified("sslserver") && !verified("sslclient"));
}

#[test]
fn a_private_file_is_written_below_folders_that_are_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("keys");
    for content in [b"one", b"two"] {
        let path = write_private_below(&root, "joe", "k.pem", content).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), content);
        for (path, mode) in [(path, 0o600), (root.join("joe"), 0o700), (root.clone(), 0o700)] {
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
        }
    }
}
