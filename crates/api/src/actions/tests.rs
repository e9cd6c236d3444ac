//! The list as a whole: every action is tested, and open only to those it is for.

use std::{fs, path::Path, time::Duration};

use expect_test::expect;
use nova_db::dev::{self, pair::Pair};
use nova_db::{Db, Engine, Options, key_pairs};

use super::{ACTIONS, Needs};
use crate::testing::TestCloud;

#[test]
fn the_list_says_who_may_do_what() {
    let lines: Vec<String> = ACTIONS.iter().map(|entry| format!("{:<30}{:?}", entry.name, entry.needs)).collect();
    expect![[r#"
        DescribeAvailabilityZones     Member
        DescribeRegions               Member
        DescribeInstanceTypes         Member
        CreateKeyPair                 Member
        DeleteKeyPair                 Member
        DescribeKeyPairs              Member
        ImportKeyPair                 Member
        CreateSecurityGroup           NetAdmin
        DescribeSecurityGroups        Member
        DeleteSecurityGroup           NetAdmin
        AuthorizeSecurityGroupIngress NetAdmin
        RevokeSecurityGroupIngress    NetAdmin
        AllocateAddress               NetAdmin
        AssociateAddress              NetAdmin
        DescribeAddresses             Member
        DescribeAddressesAttribute    Member
        DisassociateAddress           NetAdmin
        ReleaseAddress                NetAdmin
        DescribeImages                Member
        RunInstances                  SysAdmin
        DescribeInstances             Member
        DescribeInstancesV6           Member
        DescribeInstanceStatus        Member
        TerminateInstances            SysAdmin
        RebootInstances               SysAdmin
        StopInstances                 SysAdmin
        StartInstances                SysAdmin
        GetConsoleOutput              SysAdmin"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn no_action_is_listed_twice() {
    let mut names: Vec<&str> = ACTIONS.iter().map(|entry| entry.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ACTIONS.len());
}

#[test]
fn every_action_is_called_by_a_test() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ec2"));
    for entry in ACTIONS {
        let called = |end: &str| sources.contains(&format!("\"{}{end}", entry.name));
        assert!(called(" ") || called("\"") || called("{"), "no test below src/ec2 calls {}", entry.name);
    }
}

/// What stands in files below `folder` that hold tests, from the first test on.
fn sources(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &sources(&path);
        } else if let text = fs::read_to_string(&path).unwrap()
            && let Some(start) = text.find("::test]")
        {
            all += &text[start..];
        }
    }
    all
}

#[tokio::test]
async fn an_action_is_refused_to_those_without_the_role_and_to_nobody_else() {
    let cloud = TestCloud::start().await;
    for entry in ACTIONS {
        let refused = async |access_key: &str| {
            let answer = cloud.client(access_key).call(&format!("{} DryRun=true", entry.name)).await;
            answer.outcome() == "401 UnauthorizedOperation"
        };
        let wanted = match entry.needs {
            Needs::Member => [false, false, false, false],
            Needs::SysAdmin => [true, false, false, false],
            Needs::NetAdmin => [true, false, true, false],
        };
        let got = [
            refused("ann-key:acme").await,   // a plain member
            refused("joe-key:acme").await,   // sysadmin and netadmin, and the manager
            refused("meg-key:solo").await,   // the manager only
            refused("admin-key:acme").await, // a superuser
        ];
        assert_eq!(got, wanted, "{}", entry.name);
    }
}

#[tokio::test]
async fn what_is_not_in_the_list_does_not_exist() {
    let cloud = TestCloud::start().await;
    for action in ["describeRegions", "describe_regions", "DescribeRegion", "GetMetadata", "%3Cb%3E"] {
        for client in [cloud.ann(), cloud.admin()] {
            assert_eq!(client.call(action).await.outcome(), "400 InvalidAction", "{action}");
        }
    }
}

#[tokio::test]
async fn a_dry_run_checks_everything_and_does_nothing() {
    let cloud = TestCloud::start().await;
    let joe = cloud.joe();
    assert_eq!(joe.call("CreateKeyPair KeyName=web DryRun=true").await.outcome(), "412 DryRunOperation");
    assert_eq!(joe.call("CreateKeyPair DryRun=true").await.outcome(), "400 MissingParameter");
    assert_eq!(joe.call("CreateKeyPair KeyName=web DryRun=maybe").await.outcome(), "400 InvalidParameterValue");
    assert_eq!(joe.call("DescribeKeyPairs").await.texts("keyName"), Vec::<&str>::new());
}

#[tokio::test]
async fn a_parameter_that_an_action_does_not_have_is_refused() {
    let cloud = TestCloud::start().await;
    let answer = cloud.joe().call("CreateKeyPair KeyName=web Colour=red").await;
    expect![[r#"
        400
        <Response>
          <Errors>
            <Error>
              <Code>UnknownParameter</Code>
              <Message>the parameter Colour is not recognized</Message>
            </Error>
          </Errors>
        </Response>
    "#]]
    .assert_eq(&answer.pretty());
}

#[tokio::test]
async fn the_version_asked_for_is_echoed_and_must_be_one() {
    let cloud = TestCloud::start().await;
    for (version, wanted) in [("2009-11-30", "200"), ("2016-11-15", "200"), ("nova", "400 NoSuchVersion")] {
        let answer = cloud.joe().version(version).call("DescribeRegions").await;
        assert_eq!(answer.outcome(), wanted, "{version}");
        let namespace =
            format!("<DescribeRegionsResponse xmlns=\"http://ec2.amazonaws.com/doc/{version}/\"><requestId>");
        assert_eq!(answer.body.contains(&namespace), wanted == "200", "{}", answer.body);
    }
}

#[tokio::test]
async fn replicas_answer_descriptions_except_to_those_who_just_wrote() {
    let Some(pair) = Pair::start(Engine::MySql, "api").await else { return };
    let lag = Duration::from_secs(60);
    let options = Options { read_urls: vec![pair.replica_url()], max_replica_lag: lag, ..Options::default() };
    let db = Db::open(&pair.primary_url(), &options).await.unwrap();
    db.migrate().await.unwrap();
    let cloud = TestCloud::start_on(dev::lent(db.clone()), db.clone(), &[]).await;
    while db.replica(&["eve"]).await.is_none() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    pair.hold_back(true).await;
    // Not through this API, so it knows nothing of it.
    let (user, name) = ("eve".parse().unwrap(), "elsewhere".parse().unwrap());
    let row = key_pairs::NewKeyPair { user: &user, name: &name, fingerprint: "f", public_key: "k" };
    key_pairs::create(&mut db.write().await.unwrap(), &row).await.unwrap();
    let eve = cloud.eve();
    assert_eq!(eve.call("DescribeKeyPairs").await.texts("keyName"), [""; 0], "a replica answers");
    let made = eve.call("CreateKeyPair KeyName=here").await;
    assert_eq!(made.outcome(), "200", "{}", made.body);
    assert_eq!(eve.call("DescribeKeyPairs").await.texts("keyName"), ["elsewhere", "here"]);
    assert!(db.replica(&["joe", "acme"]).await.is_some(), "others are still sent to the replica");
}
