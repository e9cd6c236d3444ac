//! Whole configurations, from files and command lines.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use nova_types::network::ManagerKind;

use crate::{
    ApiConfig, CombinedConfig, ComputeConfig, Config, ConfigError, DhcpbridgeConfig, Loaded, ManageConfig,
    NetworkConfig, ObjectstoreConfig, SchedulerConfig, Surroundings,
};

/// The configuration of the guide: its five default lines, then its block to cut and paste, filled in, trailing
/// blanks and all.
const GUIDE: &str = "\
--daemonize=1
--dhcpbridge_flagfile=/etc/nova/nova.conf
--dhcpbridge=/usr/bin/nova-dhcpbridge
--logdir=/var/log/nova
--state_path=/var/lib/nova
 
--sql_connection=mysql://root:nova@10.1.0.1/nova
--s3_host=10.1.0.2
--rabbit_host=10.1.0.3
--cc_host=10.1.0.4  
--verbose             
--ec2_url=http://10.1.0.4:8773/services/Cloud
--network_manager=nova.network.manager.VlanManager
--fixed_range=192.168.0.0/12
--network_size=5000     
";

fn load<C: Config>(folder: &Path, file: &str, args: &[&str]) -> Result<Loaded<C>, ConfigError> {
    let path = folder.join("nova.conf");
    fs::write(&path, file).unwrap();
    let surroundings = Surroundings { default_flagfile: Some(path), ..Surroundings::bare() };
    C::load_in([C::BINARY].iter().chain(args).map(Into::into), &surroundings)
}

/// Loads the combined configuration and shows what `show` picks, then warnings or the error.
fn check(file: &str, args: &[&str], show: fn(&CombinedConfig) -> String, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let told = match load::<CombinedConfig>(folder.path(), file, args) {
        Ok(loaded) => {
            let mut told = show(&loaded.config);
            loaded.warnings.iter().for_each(|warning| write!(told, "\n{warning}").unwrap());
            told
        }
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&told.replace(folder.path().to_str().unwrap(), ""));
}

fn rabbit(config: &CombinedConfig) -> String {
    format!("{} verbose={}", config.bus.rabbit_host, config.common.verbose)
}

#[test]
fn the_guides_file_is_accepted_exactly_as_written() {
    let show = |c: &CombinedConfig| {
        format!(
            "{} {} {} {}\n{} {} {} {} {:?}\n{:?} {} {} {:?}",
            c.common.state_path.display(),
            c.database.sql_connection.expose(),
            c.endpoint.s3_host,
            c.bus.rabbit_host,
            c.endpoint.ec2_host,
            c.endpoint.ec2_dmz_host,
            c.endpoint.ec2_port,
            c.endpoint.ec2_path,
            c.common.verbose,
            c.network.network_manager,
            c.network.fixed_range,
            c.network.network_size,
            c.common.logdir,
        )
    };
    check(
        GUIDE,
        &[],
        show,
        expect![[r#"
            /var/lib/nova mysql://root:nova@10.1.0.1/nova 10.1.0.2 10.1.0.3
            10.1.0.4 10.1.0.4 8773 /services/Cloud true
            Vlan 192.160.0.0/12 5000 Some("/var/log/nova")
            /nova.conf:14: --fixed_range: understood as 192.160.0.0/12"#]],
    );
}

#[test]
fn every_program_reads_the_guides_file_without_a_word_about_unknown_flags() {
    fn warnings<C: Config>() -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let former = "--volume_group=nova-volumes\n--nouse_s3\n--osapi_port=8774\n--redis_host=x\n";
        let file = format!("{GUIDE}{former}");
        let loaded = load::<C>(folder.path(), &file, &[]).unwrap();
        loaded.warnings.iter().map(ToString::to_string).filter(|text| text.contains("ignoring")).collect()
    }
    let all = [
        warnings::<ApiConfig>(),
        warnings::<ObjectstoreConfig>(),
        warnings::<SchedulerConfig>(),
        warnings::<NetworkConfig>(),
        warnings::<ComputeConfig>(),
        warnings::<CombinedConfig>(),
        warnings::<ManageConfig>(),
        warnings::<DhcpbridgeConfig>(),
    ];
    assert_eq!(all.concat(), Vec::<String>::new());
}

#[test]
fn the_explained_lines_of_the_guide_are_not_taken_for_values() {
    check(
        "--s3_host ###  This is where Nova is hosting the objectstore service\n\
         --verbose   ###  Optional but very helpful during initial setup\n\
         --control_exchange=h### ### This is where\n",
        &[],
        |config| format!("{} verbose={}", config.bus.control_exchange, config.common.verbose),
        expect![[r"
            h### verbose=true
            /nova.conf:1: ignoring --s3_host, which has no value"]],
    );
}

#[test]
fn the_sample_file_is_good_for_every_program() {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../etc/nova.conf");
    let text = fs::read_to_string(sample).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let loaded = load::<CombinedConfig>(folder.path(), &text, &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.network.network_manager, ManagerKind::FlatDhcp);
    assert_eq!(loaded.config.database.sql_connection.expose(), "sqlite:////var/lib/nova/nova.sqlite");
    // What is commented out there must be right as well.
    let live: String = text
        .lines()
        .map(|line| line.strip_prefix("# --").map_or(format!("{line}\n"), |flag| format!("--{flag}\n")))
        .collect();
    let loaded = load::<CombinedConfig>(folder.path(), &live, &[]).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.endpoint.ec2_dmz_host, "192.0.2.10");
    assert_eq!(loaded.config.database.sql_connection.expose(), "mysql://nova:PASSWORD@192.0.2.10/nova");
}

#[test]
fn a_line_may_be_written_in_many_ways() {
    for line in [
        "--rabbit_host=h",
        "   --rabbit_host = h  ",
        "--rabbit_host h",
        "--rabbit-host=h\r",
        "-rabbit_host=h",
        "rabbit_host = h",
        "--rabbit_h=h",
        "\u{feff}--rabbit_host=h # the broker",
        "--rabbit_host=x\n--rabbit_host=h",
        "# --rabbit_host=x\n  # indented\n// other\n\n\t\n--rabbit_host=h",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let loaded = load::<CombinedConfig>(folder.path(), line, &[]).unwrap();
        assert_eq!(loaded.config.bus.rabbit_host.to_string(), "h", "{line}");
        assert_eq!(loaded.warnings, [], "{line}");
    }
}

#[test]
fn a_hash_inside_a_value_is_no_comment() {
    let show = |c: &CombinedConfig| c.bus.rabbit_password.expose().to_owned();
    check("--rabbit_password=a#b # mine", &[], show, expect!["a#b"]);
    check("--rabbit_password=p$$w", &[], show, expect!["p$w"]);
    check("--rabbit_password=a$ b$1", &[], show, expect!["a$ b$1"]);
}

#[test]
fn what_is_wrong_in_a_file_is_told_with_its_line() {
    for (file, expected) in [
        ("\n[DEFAULT]", expect![[r#"/nova.conf:2: expected --name=value or a comment, found "[DEFAULT]""#]]),
        (
            "nova.network.manager.FlatManager  # Simple",
            expect![[r#"/nova.conf:1: expected --name=value or a comment, found "nova.network.manager.FlatManager""#]],
        ),
        ("colour = blue", expect![[r#"/nova.conf:1: expected --name=value or a comment, found "colour = blue""#]]),
        ("--=x", expect![[r#"/nova.conf:1: expected --name=value or a comment, found "--=x""#]]),
        ("--rabbit_host", expect!["/nova.conf:1: --rabbit_host needs a value"]),
        ("--network_size=abc", expect!["--network_size=abc (/nova.conf:1): expected a number from 0 to 4294967295"]),
        ("--network_size=0", expect!["--network_size=0 (/nova.conf:1): must be greater than 0"]),
        ("--report_interval=0", expect!["--report_interval=0 (/nova.conf:1): must be greater than 0"]),
        ("--region_list=a=b,c", expect![[r#"--region_list=a=b,c (/nova.conf:1): "c" is not NAME=HOST"#]]),
        ("--region_list=../x=b", expect![[r#"--region_list=../x=b (/nova.conf:1): "../x=b" is not NAME=HOST"#]]),
        (
            "--trusted_proxies=10.0.0.1,proxy",
            expect![[r#"--trusted_proxies=10.0.0.1,proxy (/nova.conf:1): "proxy" is not an IP address"#]],
        ),
        (
            "--default_instance_type=m9.huge",
            expect![
                "--default_instance_type=m9.huge (/nova.conf:1): expected one of m1.tiny, m1.small, m1.medium, m1.large, m1.xlarge"
            ],
        ),
        ("--superuser_roles=", expect!["--superuser_roles= (/nova.conf:1): expected cloudadmin: the roles are fixed"]),
        (
            "--allowed_roles=sysadmin",
            expect![
                "--allowed_roles=sysadmin (/nova.conf:1): expected cloudadmin,itsec,sysadmin,netadmin,developer: the roles are fixed"
            ],
        ),
        ("--ec2_scheme=ftp", expect!["--ec2_scheme=ftp (/nova.conf:1): expected http or https"]),
        ("--ec2_path=services", expect!["--ec2_path=services (/nova.conf:1): expected a path that begins with /"]),
        (
            "--flat_network_bridge=../br100",
            expect![
                "--flat_network_bridge=../br100 (/nova.conf:1): expected the name of an interface: 1 to 15 letters, digits and characters of ._-"
            ],
        ),
        (
            "--flat_network_bridge=",
            expect![
                "--flat_network_bridge= (/nova.conf:1): expected the name of an interface: 1 to 15 letters, digits and characters of ._-"
            ],
        ),
        (
            "--public_interface=a-name-of-16-let",
            expect![
                "--public_interface=a-name-of-16-let (/nova.conf:1): expected the name of an interface: 1 to 15 letters, digits and characters of ._-"
            ],
        ),
        ("--verbose=maybe", expect!["--verbose=maybe (/nova.conf:1): expected true, t, 1, false, f or 0"]),
        ("--noverbose=1", expect!["/nova.conf:1: --noverbose takes no value"]),
        (
            "--network_manager=X",
            expect![
                "--network_manager=X (/nova.conf:1): expected nova.network.manager.FlatManager, .FlatDHCPManager, .VlanManager or .VxlanManager"
            ],
        ),
        (
            "--sql_connection=mysql://root:hush@h",
            expect!["--sql_connection=*** (/nova.conf:1): names no database: expected …@HOST/NAME"],
        ),
        (
            "--sql_connection=mysql://root:pa$word@h/n",
            expect!["--sql_connection (/nova.conf:1): $word is no flag; write $$ for a dollar sign"],
        ),
        (
            "--ec2_host=$ec2_dmz_host\n--ec2_dmz_host=${ec2_host}",
            expect!["--ec2_host (/nova.conf:1): $ec2_dmz_host leads back to itself; write $$ for a dollar sign"],
        ),
        ("--ec2_host=$logdir", expect!["--ec2_host (/nova.conf:1): $logdir is not set; write $$ for a dollar sign"]),
        ("--ec2_url=<CC_ADDR>", expect!["--ec2_url=<CC_ADDR> (/nova.conf:1): expected http://HOST:PORT/PATH"]),
        ("--host=a/b", expect![[r#"--host=a/b (/nova.conf:1): a host name may not contain '/'"#]]),
        ("--flagfile=missing.conf", expect!["cannot read the flag file /missing.conf (/nova.conf:1)"]),
    ] {
        check(file, &[], rabbit, expected);
    }
}

#[test]
fn an_unknown_flag_is_named_with_its_line_unless_it_may_be_unknown() {
    check(
        "--bogus=1\n--s3_hots=x\n--nobogus2",
        &["--undefok=bogus2,nobogus2"],
        rabbit,
        expect![[r"
            localhost verbose=false
            /nova.conf:1: ignoring --bogus, which is no flag of Nova
            /nova.conf:2: ignoring --s3_hots, which is no flag of Nova (did you mean --s3_host?)"]],
    );
}

#[test]
fn the_command_line_wins_over_the_file() {
    let file = "--verbose\n--rabbit_host=file\n";
    check(file, &["--rabbit_host=a", "--rabbit_host", "b", "--noverbose"], rabbit, expect!["b verbose=false"]);
    check(file, &["--rabbit-h=c", "--noverbose", "--verbose=T"], rabbit, expect!["c verbose=true"]);
    check(file, &["--volume_group", "x", "--nouse_s3"], rabbit, expect!["file verbose=true"]);
}

#[test]
fn what_is_wrong_on_the_command_line_is_told_in_one_line() {
    for (args, expected) in [
        (
            &["--rabbit_hots=x"][..],
            expect!["unexpected argument '--rabbit_hots' found; tip: a similar argument exists: '--rabbit_host'"],
        ),
        (&["stray"], expect!["unexpected argument 'stray' found"]),
        (&["-v"], expect!["unexpected argument '-v' found"]),
        (&["--rabbit_host"], expect!["a value is required for '--rabbit_host <HOSTS>' but none was supplied"]),
        (&["--rabbit_port=99999"], expect!["--rabbit_port=99999 (command line): expected a number from 0 to 65535"]),
        (&["--flagfile=/no/such/file"], expect!["cannot read the flag file /no/such/file (command line)"]),
    ] {
        check("", args, rabbit, expected);
    }
}

#[test]
fn files_may_name_files_and_of_several_the_first_wins() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.conf"), "--rabbit_host=a\n--flagfile=c.conf\n").unwrap();
    fs::write(at("b.conf"), "--rabbit_host=b\n--verbose\n").unwrap();
    fs::write(at("c.conf"), "--s3_host=c\n--flagfile=a.conf\n").unwrap();
    let args =
        ["nova-combined".into(), "-flagfile".into(), at("a.conf").into(), "--flagfile".into(), at("b.conf").into()];
    let loaded = CombinedConfig::load_in(args, &Surroundings::bare()).unwrap();
    let config = &loaded.config;
    assert_eq!((rabbit(config), &*config.endpoint.s3_host), ("a verbose=true".to_owned(), "c"));
    assert_eq!(loaded.warnings.len(), 1);
    let warning = loaded.warnings[0].to_string().replace(folder.path().to_str().unwrap(), "");
    expect!["/c.conf:2: /a.conf is being read already"].assert_eq(&warning);
    assert_eq!(loaded.flagfiles, [at("a.conf"), at("b.conf")]);
}

#[test]
fn former_addresses_give_way_to_the_present_ones() {
    let show = |c: &CombinedConfig| {
        let e = &c.endpoint;
        format!(
            "{}://{} {} {}{} listen {}",
            e.ec2_scheme, e.ec2_host, e.ec2_dmz_host, e.ec2_port, e.ec2_path, c.api.ec2_listen_port
        )
    };
    check("", &[], show, expect!["http://127.0.0.1 127.0.0.1 8773/services/Cloud listen 8773"]);
    check("--cc_host=a\n--ec2_host=b", &[], show, expect!["http://b a 8773/services/Cloud listen 8773"]);
    check("--ec2_url=https://a:1/x/", &[], show, expect!["https://a a 1/x listen 1"]);
    check(
        "--cc_port=5\n--ec2_url=http://a",
        &["--ec2_listen_port=0"],
        show,
        expect!["http://a a 5/services/Cloud listen 0"],
    );
}

#[test]
fn defaults_follow_the_state_folder() {
    let show = |c: &CombinedConfig| {
        format!(
            "{} {} {}",
            c.database.sql_connection,
            c.network.networks_path.display(),
            c.compute.instances_path.display()
        )
    };
    check("", &["--state_path=/srv/n"], show, expect!["sqlite:////srv/n/nova.sqlite /srv/n/networks /srv/n/instances"]);
}

#[test]
fn every_replica_counts_and_those_of_the_command_line_replace_the_files() {
    let show = |c: &CombinedConfig| {
        let urls = c.database.sql_read_connection.iter().map(crate::DatabaseUrl::expose);
        format!("{} within {:?}", urls.collect::<Vec<_>>().join(" and "), c.database.sql_max_replica_lag)
    };
    let file = "--sql_read_connection=mysql://u:p$$@a/n\n--sql_read_connection=mysql://b/n";
    check(file, &["--sql_max_replica_lag=2"], show, expect!["mysql://u:p$@a/n and mysql://b/n within 2s"]);
    let given = ["--sql_read_connection=mysql://c/n", "--sql_read_connection=mysql://d/n"];
    check(file, &given, show, expect!["mysql://c/n and mysql://d/n within 5s"]);
    check("", &[], show, expect![" within 5s"]);
}

#[test]
fn words_after_the_flags_belong_to_the_command() {
    let args = ["nova-manage", "--verb", "--host", "h", "user", "create", "--verbose=no", "-x"].map(Into::into);
    let loaded = ManageConfig::load_in(args, &Surroundings::bare()).unwrap();
    assert_eq!(loaded.rest, ["user", "create", "--verbose=no", "-x"]);
    assert!(loaded.config.common.verbose);
    assert_eq!(loaded.config.common.host.as_str(), "h");
}

#[test]
fn the_dhcp_helper_finds_its_file_by_the_environment_and_minds_no_other_flags_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nova.conf");
    fs::write(&path, "--networks_path=/run/n\n--network_size=abc\n").unwrap();
    let surroundings = Surroundings { flagfile_variable: Some(path), ..Surroundings::bare() };
    let args = ["nova-dhcpbridge", "add", "02:16:3e:00:00:01", "10.0.0.3", "web"].map(Into::into);
    let loaded = DhcpbridgeConfig::load_in(args, &surroundings).unwrap();
    assert_eq!(loaded.config.dhcpbridge.networks_path, Path::new("/run/n"));
    assert_eq!(loaded.rest, ["add", "02:16:3e:00:00:01", "10.0.0.3", "web"]);
}

#[test]
fn help_lists_the_programs_own_flags_only() {
    let args = ["nova-scheduler", "--help"].map(Into::into);
    let Err(ConfigError::Answered(help)) = SchedulerConfig::load_in(args, &Surroundings::bare()) else {
        panic!("help is an answer");
    };
    assert!(help.starts_with("Chooses a host for each new instance"), "{help}");
    assert!(help.contains("--max_cores <NUMBER>"), "{help}");
    assert!(help.contains("[default: sqlite:///$state_path/nova.sqlite]"), "{help}");
    assert!(!help.contains("--connection_type") && !help.contains("--volume_group"), "{help}");
    let args = ["nova-scheduler", "--version"].map(Into::into);
    let Err(ConfigError::Answered(version)) = SchedulerConfig::load_in(args, &Surroundings::bare()) else {
        panic!("the version is an answer");
    };
    assert_eq!(version, format!("nova-scheduler {}\n", env!("CARGO_PKG_VERSION")));
}
