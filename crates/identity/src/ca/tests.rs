//! The authority against its files, and against openssl where it is installed.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use expect_test::expect;
use time::OffsetDateTime;
use time::macros::datetime;

use super::{Authority, CaFiles, Revoked, fill_subject};

const NOW: OffsetDateTime = datetime!(2026-02-03 04:05:06 UTC);
const SUBJECT: &str = "/C=US/ST=California/L=MountainView/O=AnsoLabs/OU=NovaDev/CN=proj-dub-2026-02-03T04:05:06Z";

fn open(folder: &Path) -> Authority {
    Authority::open_or_create(&CaFiles::in_folder(folder), NOW).unwrap()
}

#[test]
fn an_authority_is_made_once_with_the_old_names() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    assert_eq!(open(folder.path()).certificate_pem(), first.certificate_pem());
    let key = folder.path().join("private/cakey.pem");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    for name in ["cacert.pem", "crl.pem"] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(text.starts_with("-----BEGIN "), "{name}: {text}");
    }
}

#[test]
fn a_crash_between_key_and_certificate_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    let key = std::fs::read(folder.path().join("private/cakey.pem")).unwrap();
    std::fs::remove_file(folder.path().join("cacert.pem")).unwrap();
    std::fs::remove_file(folder.path().join("crl.pem")).unwrap();
    open(folder.path()).issue(SUBJECT, NOW).unwrap();
    assert_eq!(std::fs::read(folder.path().join("private/cakey.pem")).unwrap(), key);
}

#[test]
fn a_certificate_without_its_key_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path());
    std::fs::remove_file(folder.path().join("private/cakey.pem")).unwrap();
    let error = Authority::open_or_create(&CaFiles::in_folder(folder.path()), NOW).unwrap_err();
    let text = error.to_string().replace(folder.path().to_str().unwrap(), "CA");
    expect!["CA/cacert.pem is there but its key CA/private/cakey.pem is gone; restore the key, or move the certificate away to get a new authority"].assert_eq(&text);
    assert!(!folder.path().join("private/cakey.pem").exists(), "nothing was made");
}

#[test]
fn serials_start_at_ten_and_none_is_given_twice() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path());
    let mut names: Vec<String> = std::thread::scope(|s| {
        let issued: Vec<_> = (0..4).map(|_| s.spawn(|| ca.issue(SUBJECT, NOW).unwrap().file)).collect();
        issued.into_iter().map(|t| t.join().unwrap().file_name().unwrap().to_str().unwrap().to_owned()).collect()
    });
    names.sort();
    assert_eq!(names, ["10.pem", "11.pem", "12.pem", "13.pem"]);
}

#[test]
fn subjects_are_filled_and_checked() {
    let filled = fill_subject("/C=US/CN=%s-%s-%s", &["p", "u", "t"]).unwrap();
    assert_eq!(filled, "/C=US/CN=p-u-t");
    assert!(fill_subject("/CN=%s%s", &["p"]).is_err());
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path());
    for bad in ["", "CN=x", "/CN", "/XX=y", "/CN=a/evil"] {
        assert!(ca.issue(bad, NOW).is_err(), "{bad:?}");
    }
}

/// The one judge that is not ours. Without it the test cannot say anything, so it must be there.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test asks openssl, which production code never runs")]
fn openssl_accepts_the_chain() {
    let folder = tempfile::tempdir().unwrap();
    let ca = open(folder.path());
    let user = ca.issue(SUBJECT, NOW).unwrap();
    let openssl = |arguments: &[&str]| {
        let out = std::process::Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    std::fs::write(folder.path().join("cert.pem"), &user.certificate_pem).unwrap();
    std::fs::write(folder.path().join("pk.pem"), user.key_pem.expose()).unwrap();
    let at = NOW.unix_timestamp().to_string();
    expect!["cert.pem: OK\n"].assert_eq(&openssl(&["verify", "-attime", &at, "-CAfile", "cacert.pem", "cert.pem"]));
    expect!["cert.pem: OK\n"].assert_eq(&openssl(&[
        "verify",
        "-attime",
        &at,
        "-crl_check",
        "-CRLfile",
        "crl.pem",
        "-CAfile",
        "cacert.pem",
        "cert.pem",
    ]));
    ca.revoke(&[Revoked { file: user.file.clone(), at: NOW }], NOW).unwrap();
    let listed = openssl(&["crl", "-in", "crl.pem", "-noout", "-text"]);
    assert!(listed.contains("Serial Number: 10\n"), "{listed}");
    let other = ca.issue(SUBJECT, NOW).unwrap();
    std::fs::write(folder.path().join("other.pem"), &other.certificate_pem).unwrap();
    let check = ["verify", "-attime", &at, "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "cacert.pem"];
    expect!["other.pem: OK\n"].assert_eq(&openssl(&[&check[..], &["other.pem"]].concat()));
    let mut revoked = std::process::Command::new("openssl");
    let revoked = revoked.args(check).arg("cert.pem").current_dir(folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&revoked.stderr).contains("certificate revoked"), "{revoked:?}");

    let described = openssl(&["x509", "-in", "cert.pem", "-noout", "-subject", "-issuer", "-serial", "-enddate"]);
    expect![[r#"
        subject=C = US, ST = California, L = MountainView, O = AnsoLabs, OU = NovaDev, CN = proj-dub-2026-02-03T04:05:06Z
        issuer=O = NOVA ROOT, L = Mountain View, ST = California, C = US
        serial=10
        notAfter=Feb  3 04:05:06 2027 GMT
    "#]].assert_eq(&described);
    let text = openssl(&["x509", "-in", "cacert.pem", "-noout", "-text"]);
    for wanted in ["Version: 3 (0x2)", "sha256WithRSAEncryption", "Public-Key: (2048 bit)", "CA:TRUE"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let of_key = openssl(&["rsa", "-in", "pk.pem", "-noout", "-modulus"]);
    let of_certificate = openssl(&["x509", "-in", "cert.pem", "-noout", "-modulus"]);
    assert_eq!(of_key, of_certificate);
    assert!(user.key_pem.expose().starts_with("-----BEGIN RSA PRIVATE KEY-----"));
}
