//! Answers in XML: the envelope, lists of `<item>`, and the error document.

use quick_xml::se::Serializer;
use serde::{Serialize, ser::SerializeStruct as _};

use crate::{request_id::RequestId, version::ApiVersion};

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// An answer that cannot be written as XML: a defect of the answer's type, never of its data.
#[derive(Debug, thiserror::Error)]
#[error("writing the answer as XML")]
pub struct XmlError(#[source] quick_xml::SeError);

/// A list the EC2 way: `<fooSet><item>…</item></fooSet>`, or `<fooSet/>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Set<T> {
    item: Vec<T>,
}

impl<T> Set<T> {
    /// Whether the list has no items: for lists that are left out when empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.item.is_empty()
    }

    /// The items, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.item.iter()
    }
}

impl<T> Default for Set<T> {
    fn default() -> Self {
        Self { item: Vec::new() }
    }
}

impl<T> From<Vec<T>> for Set<T> {
    fn from(item: Vec<T>) -> Self {
        Self { item }
    }
}

impl<T> FromIterator<T> for Set<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { item: items.into_iter().collect() }
    }
}

/// The whole answer of actions that only succeed: `<return>true</return>`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Return;

impl Serialize for Return {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Return", 1)?;
        fields.serialize_field("return", &true)?;
        fields.end()
    }
}

#[derive(Serialize)]
struct Envelope<'a, T> {
    #[serde(rename = "@xmlns")]
    xmlns: String,
    #[serde(rename = "requestId")]
    request_id: RequestId,
    #[serde(flatten)]
    body: &'a T,
}

/// Writes the answer to `action`: `<ActionResponse xmlns="…/doc/<version>/"><requestId>…</requestId>` and the fields of `body`.
///
/// # Errors
/// When the type of `body` has no form in XML, such as a list of lists.
pub fn response_document<T: Serialize>(
    action: &str,
    version: ApiVersion,
    request_id: RequestId,
    body: &T,
) -> Result<String, XmlError> {
    // The slash at the end matters: libcloud finds nothing without it.
    let envelope = Envelope { xmlns: format!("http://ec2.amazonaws.com/doc/{version}/"), request_id, body };
    let mut out = DECLARATION.to_owned();
    let root = format!("{action}Response");
    let serializer = Serializer::with_root(&mut out, Some(&root)).map_err(XmlError)?;
    envelope.serialize(serializer).map_err(XmlError)?;
    Ok(without_controls(out))
}

/// Writes the document that every client reads when a call fails.
#[must_use]
pub fn error_document(code: &str, message: &str, request_id: RequestId) -> String {
    let (code, message) = (quick_xml::escape::escape(code), quick_xml::escape::escape(message));
    without_controls(format!(
        "{DECLARATION}<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>\
         <RequestID>{request_id}</RequestID></Response>"
    ))
}

/// Writes the document that clients of S3 read when a call fails. `resource` is the path that was asked for.
#[must_use]
pub fn s3_error_document(code: &str, message: &str, resource: &str, request_id: RequestId) -> String {
    let [code, message, resource] = [code, message, resource].map(quick_xml::escape::escape);
    without_controls(format!(
        "{DECLARATION}<Error><Code>{code}</Code><Message>{message}</Message><Resource>{resource}</Resource>\
         <RequestId>{request_id}</RequestId></Error>"
    ))
}

/// Drops what XML 1.0 has no way to write. Such text is refused at the door; this is for rows that old Nova wrote.
fn without_controls(text: String) -> String {
    let illegal =
        |c: char| matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    if text.contains(illegal) { text.replace(illegal, "") } else { text }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde::Serialize;
    use time::macros::datetime;

    use super::{Return, Set, error_document, response_document, s3_error_document};
    use crate::{request_id::RequestId, timestamp::Timestamp};

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Thing {
        name: String,
        count: u32,
        good: bool,
        made_at: Timestamp,
        #[serde(skip_serializing_if = "Option::is_none")]
        absent: Option<String>,
        empty: Option<String>,
        group_set: Set<Group>,
        tag_set: Set<String>,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Group {
        group_id: String,
    }

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Things {
        thing_info: Set<Thing>,
        next_token: Option<String>,
    }

    fn id() -> RequestId {
        RequestId::from_random([0; 20])
    }

    fn render<T: Serialize>(body: &T) -> String {
        response_document("DescribeThings", "2009-11-30".parse().unwrap(), id(), body).unwrap().replace("><", ">\n<")
    }

    #[test]
    fn an_answer_has_namespace_request_id_and_items() {
        let thing = Thing {
            name: "a<b>&\"c\" é\u{1}\u{0}".into(),
            count: 3,
            good: true,
            made_at: Timestamp(datetime!(2011-02-03 04:05:06 UTC)),
            absent: None,
            empty: None,
            group_set: vec![Group { group_id: "default".into() }, Group { group_id: "web".into() }].into(),
            tag_set: Set::default(),
        };
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <DescribeThingsResponse xmlns="http://ec2.amazonaws.com/doc/2009-11-30/">
            <requestId>AAAAAAAAAAAAAAAAAAAA</requestId>
            <thingInfo>
            <item>
            <name>a&lt;b&gt;&amp;"c" é</name>
            <count>3</count>
            <good>true</good>
            <madeAt>2011-02-03T04:05:06.000Z</madeAt>
            <empty/>
            <groupSet>
            <item>
            <groupId>default</groupId>
            </item>
            <item>
            <groupId>web</groupId>
            </item>
            </groupSet>
            <tagSet/>
            </item>
            </thingInfo>
            <nextToken/>
            </DescribeThingsResponse>"#]]
        .assert_eq(&render(&Things { thing_info: vec![thing].into(), next_token: None }));
    }

    #[test]
    fn success_without_more_is_return_true() {
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <DescribeThingsResponse xmlns="http://ec2.amazonaws.com/doc/2009-11-30/">
            <requestId>AAAAAAAAAAAAAAAAAAAA</requestId>
            <return>true</return>
            </DescribeThingsResponse>"#]]
        .assert_eq(&render(&Return));
    }

    #[test]
    fn an_error_has_exactly_the_shape_clients_parse() {
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <Response><Errors><Error><Code>InvalidParameterValue</Code><Message>&lt;/Message&gt; &amp; more</Message></Error></Errors><RequestID>AAAAAAAAAAAAAAAAAAAA</RequestID></Response>"#]]
        .assert_eq(&error_document("InvalidParameterValue", "</Message> & \u{b}more", id()));
    }

    #[test]
    fn an_error_of_s3_is_a_document_of_its_own_and_its_texts_are_escaped() {
        expect![[r#"
            <?xml version="1.0" encoding="UTF-8"?>
            <Error><Code>NoSuchKey</Code><Message>no &lt;such&gt; key</Message><Resource>/b/&amp;&lt;/Resource&gt;</Resource><RequestId>AAAAAAAAAAAAAAAAAAAA</RequestId></Error>"#]].assert_eq(&s3_error_document("NoSuchKey", "no <such> key", "/b/\u{b}&</Resource>", id()));
    }
}
