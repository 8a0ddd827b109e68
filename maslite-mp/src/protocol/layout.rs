//! What mail is called in errors: who sent it to whom, and which fields it has, in the order in
//! which they are read.

use std::any::type_name;
use std::fmt;

use maslite_core::internal::MailKey;
use maslite_core::{AgentId, Receiver, Topic};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IntoDeserializer,
    VariantAccess, Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};

use crate::links::outline;
use crate::protocol::wire::{BadBody, MailHead};

/// Names mail by topic, sender, receiver and time.
pub(crate) fn name_mail(head: &MailHead, topic: Topic) -> String {
    name(head.key, head.sender, head.receiver, topic)
}

/// Names mail by topic, sender, receiver and time.
pub(crate) fn name(key: MailKey, sender: AgentId, receiver: Receiver, topic: Topic) -> String {
    format!("message {topic} {}", addresses(key, sender, receiver))
}

/// Names mail whose message cannot be read.
pub(crate) fn describe_mail<M: DeserializeOwned>(bad: &BadBody) -> String {
    let layout = layout::<M>(bad.variant);
    let layout = layout.unwrap_or_else(|| type_name::<M>().to_owned());
    let (key, sender, receiver) = (bad.head.key, bad.head.sender, bad.head.receiver);
    format!("message {layout} {}", addresses(key, sender, receiver))
}

fn addresses(key: MailKey, sender: AgentId, receiver: Receiver) -> String {
    let to = match receiver {
        Receiver::Agent(id) | Receiver::Direct(id) => format!("agent {id}"),
        Receiver::Subscribers => "all who listen".to_owned(),
    };
    let time = key.sent_at();
    format!("of agent {sender} to {to}, sent at {time},")
}

/// Why a value cannot be written, as far as it can be found out: postcard does not keep reasons.
pub(crate) fn reason<T: Serialize + ?Sized>(value: &T, why: postcard::Error) -> String {
    outline::of(value)
        .err()
        .map_or_else(|| why.to_string(), |why| why.to_string())
}

/// The fields of a type in the order in which they are read; of an enum those of one variant.
pub(crate) fn layout<T: DeserializeOwned>(variant: Option<u32>) -> Option<String> {
    let mut look = Look {
        variant,
        found: None,
    };
    let _ = T::deserialize(&mut look);
    look.found
}

/// Looks at what a type asks for first, and reads nothing.
struct Look {
    variant: Option<u32>,
    found: Option<String>,
}

impl Look {
    fn find<T>(&mut self, found: String) -> Result<T, Enough> {
        self.found = Some(found);
        Err(Enough)
    }
}

/// Ends a look.
#[derive(Debug)]
struct Enough;

impl fmt::Display for Enough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("enough was seen")
    }
}

impl std::error::Error for Enough {}

impl Error for Enough {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

fn braced(fields: &[&str]) -> String {
    format!("{{ {} }}", fields.join(", "))
}

impl<'de> Deserializer<'de> for &mut Look {
    type Error = Enough;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Enough> {
        Err(Enough)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Enough> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        length: usize,
        _: V,
    ) -> Result<V::Value, Enough> {
        self.find(format!("{name} with {length} fields"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Enough> {
        self.find(format!("{name} {}", braced(fields)))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Enough> {
        let Some(index) = self.variant else {
            return self.find(name.to_owned());
        };
        let Some(variant) = variants.get(index as usize) else {
            return self.find(format!("{name} (variant {index} of {})", variants.len()));
        };
        // What a variant without fields has to say.
        self.found = Some(format!("{name}::{variant}"));
        visitor.visit_enum(LookAtVariant { look: self, index })
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple map identifier ignored_any
    }
}

struct LookAtVariant<'a> {
    look: &'a mut Look,
    index: u32,
}

impl<'de> EnumAccess<'de> for LookAtVariant<'_> {
    type Error = Enough;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Enough> {
        let variant = seed.deserialize(self.index.into_deserializer())?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for LookAtVariant<'_> {
    type Error = Enough;

    fn unit_variant(self) -> Result<(), Enough> {
        Err(Enough)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Enough> {
        self.tuple_of(1)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, _: V) -> Result<V::Value, Enough> {
        self.tuple_of(length)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Enough> {
        let variant = self.look.found.take().unwrap_or_default();
        self.look.find(format!("{variant} {}", braced(fields)))
    }
}

impl LookAtVariant<'_> {
    fn tuple_of<T>(self, length: usize) -> Result<T, Enough> {
        let variant = self.look.found.take().unwrap_or_default();
        let fields = vec!["_"; length];
        self.look.find(format!("{variant}({})", fields.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is only looked at")]
    enum Msg {
        Begin,
        Credit { amount: i64, to: u8 },
        Debit(i64),
        Both(i64, i64),
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is only looked at")]
    struct Wrapped(Plain);

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "it is only looked at")]
    struct Plain {
        first: u8,
        second: String,
    }

    #[test]
    fn a_type_tells_its_fields_in_the_order_in_which_they_are_read() {
        for (variant, expected) in [
            (None, "Msg"),
            (Some(0), "Msg::Begin"),
            (Some(1), "Msg::Credit { amount, to }"),
            (Some(2), "Msg::Debit(_)"),
            (Some(3), "Msg::Both(_, _)"),
            (Some(4), "Msg (variant 4 of 4)"),
        ] {
            assert_eq!(layout::<Msg>(variant).as_deref(), Some(expected));
        }
        let plain = Some("Plain { first, second }");
        assert_eq!(layout::<Plain>(None).as_deref(), plain);
        assert_eq!(layout::<Wrapped>(Some(3)).as_deref(), plain);
        assert_eq!(layout::<u8>(None), None);
        assert_eq!(layout::<serde_json::Value>(None), None);
    }
}
