//! What parameters come out as, and what is refused.

use super::{ParamError, Params, Subject};
use crate::query::decode;

fn params(query: &str) -> Params {
    let [pairs] = decode([query.as_bytes()]).unwrap();
    Params::new(pairs)
}

#[test]
fn an_empty_parameter_is_given_only_to_those_who_ask_for_it() {
    let mut params =
        Params::new(vec![("A".into(), String::new()), ("B".into(), String::new()), ("C".into(), "1".into())]);
    assert_eq!(params.take::<String>("A"), Ok(Some(String::new())));
    assert_eq!(params.given::<u32>("B"), Ok(None));
    assert_eq!(params.given::<u32>("C"), Ok(Some(1)));
    assert_eq!(params.given::<u32>("D"), Ok(None));
    assert_eq!(params.finish(), Ok(()));
}

#[test]
fn a_list_is_read_in_numeric_order() {
    let cases: &[(&str, &[&str])] = &[
        ("", &[]),
        ("X=a", &["a"]),
        ("X.1=a", &["a"]),
        ("X.1=a&X.10=c&X.2=b", &["a", "b", "c"]),
        ("X.5=e&X.3=c", &["c", "e"]),
        ("X.0=z&X.1=a", &["z", "a"]),
    ];
    for (query, wanted) in cases {
        let mut params = params(query);
        assert_eq!(params.list::<String>("X").unwrap(), *wanted, "{query}");
        params.finish().unwrap();
    }
}

#[test]
fn a_list_given_twice_is_refused() {
    assert_eq!(params("X=a&X.1=b").list::<String>("X"), Err(ParamError::Twice("X".into())));
}

#[test]
fn what_is_left_over_is_refused() {
    let unknown = |name: &str| Err(ParamError::Unknown(name.into()));
    for (query, left) in [
        ("X.1=a&Y=b", "Y"),
        ("X.01=a", "X.01"),
        ("X.%2B1=a", "X.+1"),
        ("X.1.Z=a", "X.1.Z"),
        ("X.a=a", "X.a"),
        ("XY=a", "XY"),
        ("X.99999999999=a", "X.99999999999"),
    ] {
        let mut params = params(query);
        let _ = params.list::<String>("X");
        assert_eq!(params.finish(), unknown(left), "{query}");
    }
    params("AddressingType=public").finish().unwrap();
}

#[test]
fn numbers_are_read_and_never_guessed() {
    for (text, wanted) in [("0", Some(0)), ("42", Some(42)), ("010", Some(10)), ("-1", Some(-1))] {
        assert_eq!(params(&format!("N={text}")).take::<i32>("N"), Ok(wanted), "{text}");
    }
    for text in ["", "0x1F", "1e5", "1.0", "nan", "None", "True", "%201", "99999999999"] {
        let refused = params(&format!("N={text}")).take::<i32>("N");
        assert!(matches!(refused, Err(ParamError::Malformed { subject: Subject::Value, .. })), "{text}");
    }
}

#[test]
fn texts_stay_texts() {
    for text in ["007", "1e5", "True", "None", "café", ""] {
        assert_eq!(params(&format!("T={text}")).take::<String>("T"), Ok(Some(text.to_owned())));
    }
    for text in ["a%00b", "%1b[31m", "%7f", "%c2%85"] {
        assert!(params(&format!("T={text}")).take::<String>("T").is_err(), "{text}");
    }
}

#[test]
fn flags_are_true_or_false() {
    for (query, wanted) in
        [("", false), ("F=true", true), ("F=True", true), ("F=1", true), ("F=false", false), ("F=0", false)]
    {
        assert_eq!(params(query).flag("F"), Ok(wanted), "{query}");
    }
    assert!(params("F=yes").flag("F").is_err());
    assert!(params("F=").flag("F").is_err());
}

#[test]
fn a_required_parameter_must_be_there_and_say_something() {
    for query in ["", "K=", "k=a"] {
        assert_eq!(params(query).required::<String>("K"), Err(ParamError::Missing("K".into())), "{query}");
    }
    assert_eq!(params("K=a").required::<String>("K"), Ok("a".to_owned()));
}

#[derive(Debug, PartialEq)]
struct Permission {
    protocol: String,
    ranges: Vec<String>,
}

fn permission(params: &mut Params) -> Result<Permission, ParamError> {
    let ranges = params.structs("IpRanges", |range| range.required("CidrIp"))?;
    Ok(Permission { protocol: params.required("IpProtocol")?, ranges })
}

#[test]
fn nested_structures_come_in_numeric_order_at_every_depth() {
    let mut params = params(
        "IpPermissions.2.IpProtocol=udp&IpPermissions.10.IpProtocol=icmp&IpPermissions.1.IpProtocol=tcp\
         &IpPermissions.1.IpRanges.2.CidrIp=b&IpPermissions.1.IpRanges.1.CidrIp=a",
    );
    let got = params.structs("IpPermissions", permission).unwrap();
    params.finish().unwrap();
    let wanted = [("tcp", vec!["a", "b"]), ("udp", vec![]), ("icmp", vec![])];
    for (got, (protocol, ranges)) in got.iter().zip(wanted) {
        assert_eq!(
            (got.protocol.as_str(), &got.ranges[..]),
            (protocol, &ranges.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>()[..])
        );
    }
}

#[test]
fn errors_inside_a_structure_name_the_whole_path() {
    let missing = params("P.3.IpRanges.7.CidrIpX=a&P.3.IpProtocol=tcp").structs("P", permission);
    assert_eq!(missing, Err(ParamError::Missing("P.3.IpRanges.7.CidrIp".into())));
    let unknown = params("P.3.IpProtocol=tcp&P.3.Colour=red").structs("P", permission);
    assert_eq!(unknown, Err(ParamError::Unknown("P.3.Colour".into())));
}

#[test]
fn values_do_not_show_when_parameters_are_printed() {
    assert_eq!(format!("{:?}", params("UserData=c2VjcmV0")), r#"Params("", ["UserData"])"#);
}
