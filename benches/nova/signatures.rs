//! Verifying a signature, against one bare HMAC-SHA256 of the same bytes.

use hmac::{Hmac, KeyInit as _, Mac as _};
use nova_aws::{Claim, Pairs, Policy, SignedRequest};
use sha2::Sha256;
use time::macros::datetime;

use crate::measure::Sample;

const SECRET: &str = "secret";
const ROUNDS: u32 = 200;
const TIMES: u32 = 500;

/// A request as a client sent it; both are vectors of `crates/aws`.
struct Sent {
    name: &'static str,
    method: &'static str,
    path: &'static str,
    query: &'static str,
    body: &'static str,
    headers: &'static [(&'static str, &'static str)],
}

const SENT: [Sent; 2] = [
    Sent {
        name: "version 2",
        method: "GET",
        path: "/services/Cloud/",
        query: "AWSAccessKeyId=access%3Aproj&Action=DescribeInstances&InstanceId.1=i-0000000a&SignatureMethod=HmacSHA256\
                &SignatureVersion=2&Timestamp=2011-02-03T04%3A05%3A06Z&Version=2009-04-04\
                &Signature=MjIBcv9wRszNojQbgK9SHFKYVanL5SHX6ZtG6%2F%2Bh3qc%3D",
        body: "",
        headers: &[("host", "192.168.0.1:8773")],
    },
    Sent {
        name: "version 4",
        method: "POST",
        path: "/services/Cloud",
        query: "",
        body: "Action=DescribeInstances&Version=2016-11-15&Filter.1.Name=tag%3AName&Filter.1.Value.1=a+b%2Ac",
        headers: &[
            ("host", "192.168.0.1:8773"),
            ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
            ("x-amz-date", "20110203T040506Z"),
            (
                "authorization",
                "AWS4-HMAC-SHA256 Credential=access:proj/20110203/nova/ec2/aws4_request, \
                 SignedHeaders=content-type;host;x-amz-date, \
                 Signature=46d52c0979349c642790c5ded6df454655f858e7c38b721696e2f219755dab6c",
            ),
        ],
    },
];

pub(crate) fn bench() -> anyhow::Result<()> {
    for sent in &SENT {
        let headers: Vec<_> =
            sent.headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let [query, form]: [Pairs; 2] = nova_aws::decode([sent.query.as_bytes(), sent.body.as_bytes()])?;
        let request = SignedRequest {
            method: sent.method,
            path: sent.path,
            query: &query,
            form: &form,
            headers: &headers,
            body: sent.body.as_bytes(),
        };
        let policy = Policy { now: datetime!(2011-02-03 04:05:06 UTC), allow_v1: false };
        let verify = || Claim::find(&request, &policy).is_ok_and(|claim| claim.is_signed_with(&request, SECRET));
        anyhow::ensure!(verify(), "{} does not verify", sent.name);
        let bytes = [sent.method, sent.headers[0].1, sent.path, sent.query, sent.body].join("\n");
        let bare = || Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).map(|mac| mac.chain_update(&bytes).finalize());

        let (mut ours, mut peer) = (Sample::default(), Sample::default());
        for _ in 0..ROUNDS {
            ours.time_many(TIMES, verify);
            peer.time_many(TIMES, bare);
        }
        println!("  {:<34} {ours}  = {:.1} × a bare HMAC", sent.name, ours.ratio(peer.median()));
        println!("  {:<34} {peer}", format!("bare HMAC-SHA256 of {} bytes", bytes.len()));
    }
    Ok(())
}
