//! Values as elements: what serde's data model is in the XML of EC2. A document of thousands of instances is written in one
//! pass, each byte once.

use std::fmt::{self, Display, Write as _};

use serde::ser::{self, Impossible, Serialize};

/// What a type asks for that has no form in XML.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// A kind of value, such as a list of lists.
    #[error("{0} has no form in XML")]
    Kind(&'static str),
    /// A name that no element can have.
    #[error("{0:?} cannot be the name of an element")]
    Name(String),
    /// The type's own error.
    #[error("{0}")]
    Own(String),
}

impl ser::Error for Unfit {
    fn custom<T: Display>(message: T) -> Self {
        Self::Own(message.to_string())
    }
}

/// Writes the fields of `body`, a struct, without an element around them.
///
/// # Errors
/// [`Unfit`]; part of it is written then.
pub(super) fn write_fields<T: Serialize>(out: &mut String, body: &T) -> Result<(), Unfit> {
    body.serialize(Fields(out))
}

/// Writes text, escaped, without what XML 1.0 has no way to write. Such text is refused at the door; this is for rows
/// that old Nova wrote.
pub(super) fn write_text(out: &mut String, text: &str) {
    let special = |byte: u8| matches!(byte, b'<' | b'>' | b'&' | 0..=8 | 0xb | 0xc | 0xe..=0x1f | 0xef);
    if !text.bytes().any(special) {
        return out.push_str(text);
    }
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            c => out.push(c),
        }
    }
}

/// Text that is written while it is formatted.
struct Text<'a>(&'a mut String);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_text(self.0, text);
        Ok(())
    }
}

/// Writes a value as the element `name`; a list as one element for each of its items.
struct Element<'a> {
    out: &'a mut String,
    name: &'a str,
    in_list: bool,
}

/// An element that was opened. One without content ends as `<name/>`.
struct Open<'a> {
    out: &'a mut String,
    name: &'a str,
    content: usize,
}

impl<'a> Open<'a> {
    fn new(out: &'a mut String, name: &'a str) -> Self {
        out.push('<');
        out.push_str(name);
        out.push('>');
        let content = out.len();
        Self { out, name, content }
    }

    fn close(self) {
        if self.out.len() == self.content {
            self.out.pop();
            self.out.push_str("/>");
        } else {
            self.out.push_str("</");
            self.out.push_str(self.name);
            self.out.push('>');
        }
    }
}

impl Element<'_> {
    fn text(self, text: &str) -> Result<(), Unfit> {
        let open = Open::new(self.out, self.name);
        write_text(open.out, text);
        open.close();
        Ok(())
    }

    fn display(self, value: impl Display) -> Result<(), Unfit> {
        let open = Open::new(self.out, self.name);
        let written = write!(Text(open.out), "{value}");
        written.map_err(|_| Unfit::Own("a value that cannot be displayed".to_owned()))?;
        open.close();
        Ok(())
    }
}

macro_rules! displayed {
    ($($method:ident: $type:ty),*) => {$(
        fn $method(self, value: $type) -> Result<(), Unfit> {
            self.display(value)
        }
    )*};
}

macro_rules! refused {
    ($($method:ident($($arg:ty),*) -> $ok:ty, $kind:literal;)*) => {$(
        fn $method(self, $(_: $arg),*) -> Result<$ok, Unfit> {
            Err(Unfit::Kind($kind))
        }
    )*};
}

impl<'a> ser::Serializer for Element<'a> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = List<'a>;
    type SerializeTuple = List<'a>;
    type SerializeTupleStruct = Impossible<(), Unfit>;
    type SerializeTupleVariant = Impossible<(), Unfit>;
    type SerializeMap = Map<'a>;
    type SerializeStruct = Struct<'a>;
    type SerializeStructVariant = Impossible<(), Unfit>;

    displayed!(
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64, serialize_f32: f32,
        serialize_f64: f64, serialize_char: char
    );
    refused! {
        serialize_bytes(&[u8]) -> (), "a list of bytes";
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct, "a struct without names";
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant, "a variant with fields";
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant, "a variant with fields";
    }

    fn serialize_str(self, text: &str) -> Result<(), Unfit> {
        self.text(text)
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        self.display(value)
    }

    fn serialize_none(self) -> Result<(), Unfit> {
        self.text("")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unfit> {
        self.text("")
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unfit> {
        self.text("")
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unfit> {
        self.text(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unfit> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Unfit> {
        Err(Unfit::Kind("a variant with a value"))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<List<'a>, Unfit> {
        if self.in_list { Err(Unfit::Kind("a list of lists")) } else { Ok(List { out: self.out, name: self.name }) }
    }

    fn serialize_tuple(self, length: usize) -> Result<List<'a>, Unfit> {
        self.serialize_seq(Some(length))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map<'a>, Unfit> {
        let open = Open::new(self.out, self.name);
        Ok(Map { open: Some((open.name, open.content)), out: open.out, key: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Struct<'a>, Unfit> {
        let open = Open::new(self.out, self.name);
        Ok(Struct { open: Some((open.name, open.content)), out: open.out })
    }
}

/// Elements of one name.
struct List<'a> {
    out: &'a mut String,
    name: &'a str,
}

impl ser::SerializeSeq for List<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Unfit> {
        item.serialize(Element { out: self.out, name: self.name, in_list: true })
    }

    fn end(self) -> Result<(), Unfit> {
        Ok(())
    }
}

impl ser::SerializeTuple for List<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Unfit> {
        ser::SerializeSeq::serialize_element(self, item)
    }

    fn end(self) -> Result<(), Unfit> {
        Ok(())
    }
}

/// The fields of a struct, and the element around them if there is one: its name, and where its content begins.
struct Struct<'a> {
    out: &'a mut String,
    open: Option<(&'a str, usize)>,
}

impl ser::SerializeStruct for Struct<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Unfit> {
        value.serialize(Element { out: self.out, name, in_list: false })
    }

    fn end(self) -> Result<(), Unfit> {
        if let Some((name, content)) = self.open {
            Open { out: self.out, name, content }.close();
        }
        Ok(())
    }
}

/// The same for a struct whose names are not known before: one that has others' fields among its own.
struct Map<'a> {
    out: &'a mut String,
    open: Option<(&'a str, usize)>,
    key: String,
}

impl ser::SerializeMap for Map<'_> {
    type Ok = ();
    type Error = Unfit;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unfit> {
        self.key.clear();
        key.serialize(Name(&mut self.key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unfit> {
        value.serialize(Element { out: self.out, name: &self.key, in_list: false })
    }

    fn end(self) -> Result<(), Unfit> {
        if let Some((name, content)) = self.open {
            Open { out: self.out, name, content }.close();
        }
        Ok(())
    }
}

/// Refuses all kinds of values but those that an implementation names.
macro_rules! only {
    ($kind:literal) => {
        refused! {
            serialize_bool(bool) -> (), $kind;
            serialize_i8(i8) -> (), $kind;
            serialize_i16(i16) -> (), $kind;
            serialize_i32(i32) -> (), $kind;
            serialize_i64(i64) -> (), $kind;
            serialize_u8(u8) -> (), $kind;
            serialize_u16(u16) -> (), $kind;
            serialize_u32(u32) -> (), $kind;
            serialize_u64(u64) -> (), $kind;
            serialize_f32(f32) -> (), $kind;
            serialize_f64(f64) -> (), $kind;
            serialize_char(char) -> (), $kind;
            serialize_bytes(&[u8]) -> (), $kind;
            serialize_none() -> (), $kind;
            serialize_unit() -> (), $kind;
            serialize_unit_variant(&'static str, u32, &'static str) -> (), $kind;
            serialize_seq(Option<usize>) -> Self::SerializeSeq, $kind;
            serialize_tuple(usize) -> Self::SerializeTuple, $kind;
            serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct, $kind;
            serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant, $kind;
            serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant, $kind;
        }

        fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unfit> {
            value.serialize(self)
        }

        fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unfit> {
            value.serialize(self)
        }

        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<(), Unfit> {
            Err(Unfit::Kind($kind))
        }
    };
}

/// A body, which has fields.
struct Fields<'a>(&'a mut String);

impl<'a> ser::Serializer for Fields<'a> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Impossible<(), Unfit>;
    type SerializeTuple = Impossible<(), Unfit>;
    type SerializeTupleStruct = Impossible<(), Unfit>;
    type SerializeTupleVariant = Impossible<(), Unfit>;
    type SerializeMap = Map<'a>;
    type SerializeStruct = Struct<'a>;
    type SerializeStructVariant = Impossible<(), Unfit>;

    only!("a body without fields");

    fn serialize_str(self, _: &str) -> Result<(), Unfit> {
        Err(Unfit::Kind("a body without fields"))
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Unfit> {
        Ok(())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Map<'a>, Unfit> {
        Ok(Map { out: self.0, open: None, key: String::new() })
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Struct<'a>, Unfit> {
        Ok(Struct { out: self.0, open: None })
    }
}

/// The name of an element, which is text of letters and digits.
struct Name<'a>(&'a mut String);

impl ser::Serializer for Name<'_> {
    type Ok = ();
    type Error = Unfit;
    type SerializeSeq = Impossible<(), Unfit>;
    type SerializeTuple = Impossible<(), Unfit>;
    type SerializeTupleStruct = Impossible<(), Unfit>;
    type SerializeTupleVariant = Impossible<(), Unfit>;
    type SerializeMap = Impossible<(), Unfit>;
    type SerializeStruct = Impossible<(), Unfit>;
    type SerializeStructVariant = Impossible<(), Unfit>;

    only!("a name that is no text");
    refused! {
        serialize_unit_struct(&'static str) -> (), "a name that is no text";
        serialize_map(Option<usize>) -> Self::SerializeMap, "a name that is no text";
        serialize_struct(&'static str, usize) -> Self::SerializeStruct, "a name that is no text";
    }

    fn serialize_str(self, name: &str) -> Result<(), Unfit> {
        let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Unfit::Name(name.to_owned()));
        }
        self.0.push_str(name);
        Ok(())
    }
}
