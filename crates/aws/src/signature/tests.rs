//! Vectors from `nova-api.md` §15.B, from botocore 1.44.5 and from boto 2.49, and what must be refused.
//!
//! All sign with the secret `secret` as `access:proj` at 2011-02-03T04:05:06Z.

use time::{Duration, OffsetDateTime, macros::datetime};

use super::{Claim, Policy, Scheme, SignatureError, SignedRequest};
use crate::query::decode;

const SIGNED_AT: OffsetDateTime = datetime!(2011-02-03 04:05:06 UTC);
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded; charset=utf-8");

/// A request that owns its parts, so that tests can change one at a time.
#[derive(Clone)]
struct Sample {
    method: &'static str,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
    body: String,
    now: OffsetDateTime,
    allow_v1: bool,
}

impl Sample {
    fn get(path: &str, query: &str) -> Self {
        let headers = vec![("host".to_owned(), "192.168.0.1:8773".to_owned())];
        let (path, query) = (path.to_owned(), query.to_owned());
        Self { method: "GET", path, query, headers, body: String::new(), now: SIGNED_AT, allow_v1: false }
    }

    fn post(path: &str, body: &str) -> Self {
        Self { method: "POST", body: body.to_owned(), ..Self::get(path, "") }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(header, _)| header != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn with<T>(&self, act: impl FnOnce(&SignedRequest<'_>, &Policy) -> T) -> T {
        let [query, form] = decode([self.query.as_bytes(), self.body.as_bytes()]).unwrap();
        let request = SignedRequest {
            method: self.method,
            path: &self.path,
            query: &query,
            form: &form,
            headers: &self.headers,
            body: self.body.as_bytes(),
        };
        act(&request, &Policy { now: self.now, allow_v1: self.allow_v1 })
    }

    fn find(&self) -> Result<Claim, SignatureError> {
        self.with(Claim::find)
    }

    fn verify(&self, secret: &str) -> Result<bool, SignatureError> {
        self.with(|request, policy| Ok(Claim::find(request, policy)?.is_signed_with(request, secret)))
    }
}

const NOVA_QUERY: &str = "AWSAccessKeyId=access%3Aproj&Action=DescribeInstances&InstanceId.1=i-0000000a&SignatureMethod=HmacSHA256\
    &SignatureVersion=2&Timestamp=2011-02-03T04%3A05%3A06Z&Version=2009-04-04&Signature=MjIBcv9wRszNojQbgK9SHFKYVanL5SHX6ZtG6%2F%2Bh3qc%3D";

fn nova_v2() -> Sample {
    Sample::get("/services/Cloud/", NOVA_QUERY)
}

fn nova_old(version: &str, signature: &str) -> Sample {
    let query = NOVA_QUERY.replace("SignatureVersion=2", &format!("SignatureVersion={version}"));
    let (unsigned, _) = query.split_once("&Signature=").unwrap();
    let query = format!("{unsigned}&Signature={}", crate::query::encode(signature));
    Sample { allow_v1: true, ..Sample::get("/services/Cloud/", &query) }
}

fn botocore_post() -> Sample {
    let body = "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1=a+b%2Ac";
    Sample::post("/services/Cloud", body).header(FORM.0, FORM.1).header("x-amz-date", "20110203T040506Z").header(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=access:proj/20110203/nova/ec2/aws4_request, \
         SignedHeaders=content-type;host;x-amz-date, \
         Signature=46d52c0979349c642790c5ded6df454655f858e7c38b721696e2f219755dab6c",
    )
}

fn botocore_get() -> Sample {
    let query = "Action=DescribeKeyPairs&Version=2016-11-15&KeyName.1=a%20b%2Ac~%2F%C3%A9";
    Sample::get("/services/Cloud/", query).header("x-amz-date", "20110203T040506Z").header(
        "authorization",
        "AWS4-HMAC-SHA256 Credential=access:proj/20110203/us-east-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, \
         Signature=f277755fe980e597097e8a7b23732185d705447ff5b7ed989074fd0cdd35e8bb",
    )
}

fn botocore_presigned() -> Sample {
    Sample::get(
        "/services/Cloud/",
        "Action=DescribeRegions&Version=2016-11-15&X-Amz-Algorithm=AWS4-HMAC-SHA256\
         &X-Amz-Credential=access%3Aproj%2F20110203%2Fnova%2Fec2%2Faws4_request&X-Amz-Date=20110203T040506Z&X-Amz-Expires=900\
         &X-Amz-SignedHeaders=host&X-Amz-Signature=e93364bcc7aa7d8e8d41f43f8271f3524f9eaa5937d88613b9c19c4cfa4ce752",
    )
}

fn botocore_v2() -> Sample {
    Sample::post(
        "/services/Cloud",
        "Action=DescribeRegions&Version=2010-08-31&X=%C3%A9+~%2A&AWSAccessKeyId=access%3Aproj&SignatureVersion=2\
         &SignatureMethod=HmacSHA256&Timestamp=2011-02-03T04%3A05%3A06Z&Signature=hpREdYv8pZ3hWEAU5vb6XO%2B5dElDlPe7fCtytV0T4yM%3D",
    )
}

fn boto_v4() -> Sample {
    Sample::post("/services/Cloud/", "Action=DescribeKeyPairs&KeyName.1=a%20b&Version=2014-10-01")
        .header("host", "127.0.0.1:8773")
        .header("x-amz-date", "20110203T040506Z")
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=access:proj/20110203/0/127/aws4_request,SignedHeaders=host;x-amz-date,\
             Signature=3d62ff14f64e08664ab63f25212cf227b328996da97981bfb86c253d9c2ff6a2",
        )
}

fn boto_v2() -> Sample {
    let body = "AWSAccessKeyId=access%3Aproj&Action=DescribeKeyPairs&KeyName.1=a%20b&SignatureMethod=HmacSHA256&SignatureVersion=2\
         &Timestamp=2011-02-03T04%3A05%3A06Z&Version=2010-08-31&Signature=2HRvlMQRw3GHnwOOkweEHzUaonNhx69n3TLjlQUY4m8%3D";
    Sample::post("/services/Cloud/", body).header("host", "127.0.0.1:8773")
}

fn v2_signed(signature: &str, method: &str) -> Sample {
    let query = NOVA_QUERY.replace("HmacSHA256", method);
    let (unsigned, _) = query.split_once("&Signature=").unwrap();
    Sample::get("/services/Cloud/", &format!("{unsigned}&Signature={}", crate::query::encode(signature)))
}

fn all() -> Vec<(&'static str, Scheme, Sample)> {
    vec![
        ("Nova's own vector", Scheme::V2, nova_v2()),
        ("the same with SHA1", Scheme::V2, v2_signed(SHA1, "HmacSHA1")),
        ("Net::Amazon::EC2: no port, path /", Scheme::V2, v2_signed(NET_AMAZON, "HmacSHA256")),
        ("boto 1.x: a stray header", Scheme::V2, nova_v2().header("authorization", "AWS access:proj:c2ln")),
        ("version 0", Scheme::V0, nova_old("0", "GchqSNbYJD4oLgcJNDSLAAerN30=")),
        ("version 1", Scheme::V1, nova_old("1", "YVA+gDtYYF1sI7s8MfTbaMPdo24=")),
        ("botocore v2", Scheme::V2, botocore_v2()),
        ("botocore v4 POST", Scheme::V4Header, botocore_post()),
        ("botocore v4 GET", Scheme::V4Header, botocore_get()),
        ("botocore v4 presigned", Scheme::V4Query, botocore_presigned()),
        ("boto 2.49 v4", Scheme::V4Header, boto_v4()),
        ("boto 2.49 v2", Scheme::V2, boto_v2()),
    ]
}

const SHA1: &str = "zjv6j+9c2XFbkJPJWX88+feTACQ=";
const NET_AMAZON: &str = "C691cL8yzGaP3Xi4HS1VFs3CQqMtNt7ZFBHuvKgUTXI=";

#[test]
fn what_real_clients_sign_is_accepted() {
    for (what, scheme, sample) in all() {
        let claim = sample.find().unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((claim.access_key(), claim.scheme()), ("access:proj", scheme), "{what}");
        assert_eq!(sample.verify("secret"), Ok(true), "{what}");
        assert_eq!(sample.verify("Secret"), Ok(false), "{what}: another secret");
    }
}

#[test]
fn nothing_signed_can_be_changed() {
    for (what, scheme, sample) in all() {
        if matches!(scheme, Scheme::V0) {
            continue; // which is why version 0 is refused by default
        }
        let mut changed = vec![
            Sample { query: format!("{}&Extra=1", sample.query), ..sample.clone() },
            Sample {
                query: sample.query.replace("=Describe", "=Delete"),
                body: sample.body.replace("=Describe", "=Delete"),
                ..sample.clone()
            },
        ];
        if !matches!(scheme, Scheme::V1) {
            changed.push(Sample { method: if sample.method == "GET" { "POST" } else { "GET" }, ..sample.clone() });
            changed.push(sample.clone().header("host", "10.9.9.9:8773"));
        }
        for sample in changed {
            assert_eq!(sample.verify("secret"), Ok(false), "{what}: {} {}", sample.query, sample.body);
        }
    }
}

#[test]
fn a_signature_is_good_for_five_minutes_either_way() {
    for (what, scheme, sample) in all() {
        let late = if scheme == Scheme::V4Query { 900 } else { 300 };
        for (seconds, good) in
            [(-301, false), (-300, true), (0, true), (late, true), (late + 1, false), (86_400, false)]
        {
            let sample = Sample { now: SIGNED_AT + Duration::seconds(seconds), ..sample.clone() };
            let wanted = if good { Ok(true) } else { Err(SignatureError::Expired) };
            assert_eq!(sample.verify("secret"), wanted, "{what} at {seconds} s");
        }
    }
}

#[test]
fn versions_0_and_1_are_refused_unless_allowed() {
    for version in ["0", "1", "3", "x"] {
        let sample = Sample { allow_v1: false, ..nova_old(version, "c2ln") };
        assert_eq!(sample.find().err(), Some(SignatureError::Unsupported(version.into())));
    }
}

#[test]
fn every_missing_part_is_named() {
    for name in ["AWSAccessKeyId", "SignatureMethod", "SignatureVersion", "Signature", "Timestamp"] {
        let kept: Vec<&str> = NOVA_QUERY.split('&').filter(|pair| !pair.starts_with(&format!("{name}="))).collect();
        let sample = Sample::get("/services/Cloud/", &kept.join("&"));
        assert_eq!(sample.find().err(), Some(SignatureError::Missing(name)));
    }
    let unsigned = Sample::get("/services/Cloud/", "Action=DescribeRegions&Version=2016-11-15");
    assert_eq!(unsigned.find().err(), Some(SignatureError::Missing("AWSAccessKeyId")));
    let undated = Sample { headers: vec![botocore_get().headers.remove(2)], ..botocore_get() };
    assert_eq!(undated.find().err(), Some(SignatureError::Missing("X-Amz-Date")));
}

#[test]
fn an_end_of_validity_stands_in_for_the_time() {
    let expires =
        |text: &str| Sample::get("/", &NOVA_QUERY.replace("Timestamp=2011-02-03T04%3A05%3A06Z", text)).find().err();
    assert_eq!(expires("Expires=2011-02-03T04:05:06Z"), None);
    assert_eq!(expires("Expires=2011-02-03T04:05:05Z"), Some(SignatureError::Expired));
    assert_eq!(expires("Expires=2011-02-11T04:05:06Z"), Some(SignatureError::Expired));
    assert_eq!(expires("Expires=soon"), Some(SignatureError::Malformed("Expires")));
    assert!(matches!(
        expires("Expires=2011-02-03T04:05:06Z&Timestamp=2011-02-03T04:05:06Z"),
        Some(SignatureError::Malformed(_))
    ));
}

#[test]
fn two_signatures_are_none() {
    let header = botocore_get().headers.remove(2).1;
    let both = nova_v2().header("authorization", &header).header("x-amz-date", "20110203T040506Z");
    assert_eq!(both.find().err(), Some(SignatureError::Ambiguous));
    let query = format!("{}&{}", botocore_presigned().query, "SignatureVersion=2");
    assert_eq!(Sample::get("/", &query).find().err(), Some(SignatureError::Ambiguous));
}

#[test]
fn headers_that_change_the_meaning_must_be_signed() {
    let unsigned = botocore_post().header("x-amz-security-token", "x");
    assert_eq!(unsigned.find().err(), Some(SignatureError::Unsigned("x-amz-security-token".into())));
    let (_, authorization) = botocore_post().headers.remove(3);
    let hostless = botocore_post().header("authorization", &authorization.replace(";host", ""));
    assert_eq!(hostless.find().err(), Some(SignatureError::Unsigned("host".into())));
}

#[test]
fn a_payload_hash_must_be_that_of_the_body() {
    for hash in ["UNSIGNED-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", &"0".repeat(64)] {
        let (_, authorization) = botocore_post().headers.remove(3);
        let sample = botocore_post()
            .header("authorization", &authorization.replace("host;", "host;x-amz-content-sha256;"))
            .header("x-amz-content-sha256", hash);
        assert_eq!(sample.find().err(), Some(SignatureError::Payload), "{hash}");
    }
}

#[test]
fn broken_credentials_are_malformed() {
    let (_, good) = botocore_get().headers.remove(2);
    for (from, to) in [
        ("aws4_request", "aws3_request"),
        ("20110203/", "20110204/"),
        ("20110203/", "2/"),
        ("/ec2/", "/"),
        ("access:proj/", "/"),
        ("Credential=", "Credentials="),
        ("Signature=f", "Signature="),
        ("Signature=f", "Signature=é"),
        ("SignedHeaders=host;x-amz-date, ", ""),
        (", Signature", ", Signature=1, Signature"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
    ] {
        let text = good.replacen(from, to, 1);
        let refused = botocore_get().header("authorization", &text).find();
        if to == "AWS4-HMAC-SHA256" {
            assert!(refused.is_ok(), "a missing blank changes nothing");
        } else {
            assert!(matches!(refused, Err(SignatureError::Malformed(_))), "{text}");
        }
    }
    for (from, to) in [
        ("Expires=900", "Expires=0"),
        ("Expires=900", "Expires=604801"),
        ("Expires=900", "Expires=x"),
        ("T040506Z", ""),
    ] {
        let query = botocore_presigned().query.replace(from, to);
        assert!(matches!(Sample::get("/", &query).find(), Err(SignatureError::Malformed(_))), "{to}");
    }
}

#[test]
fn a_claim_is_printed_without_its_signature() {
    let printed = format!("{:?}", nova_v2().find().unwrap());
    assert!(printed.contains("access:proj") && !printed.contains("MjIB"), "{printed}");
}
