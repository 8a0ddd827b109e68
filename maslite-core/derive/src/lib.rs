//! ```
//! use maslite_core::{Message, Topic};
//!
//! #[derive(Clone, Message)]
//! enum Msg {
//!     Order { pieces: u32 },
//!     #[message(topic = "Arrival")]
//!     Delivered,
//! }
//!
//! assert_eq!(Msg::Order { pieces: 3 }.topic(), Topic::new("Order"));
//! assert_eq!(Msg::Delivered.topic(), Topic::new("Arrival"));
//! ```
//!
//! `#[derive(Message)]` for the crates `maslite-core` and `maslite-mp`, which re-export it.
//!
//! It implements their trait `Message`. The topic of an enum's message is the name of the variant,
//! that of a struct's message the name of the struct. `#[message(topic = "…")]` on a variant or on
//! a struct gives another topic.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Code;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitStr, Result, parse_macro_input};

/// Implements `maslite_core::Message`: the topic is the name of the variant or the struct, or what
/// `#[message(topic = "…")]` says.
#[proc_macro_derive(Message, attributes(message))]
pub fn message_of_core(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), &quote!(::maslite_core))
}

/// Implements `Message` for programs that depend on `maslite-mp`, which re-exports this macro as
/// `Message`.
#[proc_macro_derive(MpMessage, attributes(message))]
pub fn message_of_mp(input: TokenStream) -> TokenStream {
    expand(&parse_macro_input!(input), &quote!(::maslite_mp::core))
}

fn expand(input: &DeriveInput, core: &Code) -> TokenStream {
    let topic = topic_of(input, core).unwrap_or_else(Error::into_compile_error);
    let name = &input.ident;
    let (generics, arguments, bounds) = input.generics.split_for_impl();
    quote! {
        impl #generics #core::Message for #name #arguments #bounds {
            #[inline]
            fn topic(&self) -> #core::Topic {
                #topic
            }
        }
    }
    .into()
}

/// The body of `topic`.
fn topic_of(input: &DeriveInput, core: &Code) -> Result<Code> {
    match &input.data {
        Data::Struct(_) => {
            let name = topic_name(&input.ident, &input.attrs)?;
            Ok(quote!(#core::Topic::new(#name)))
        }
        Data::Enum(data) if data.variants.is_empty() => Ok(quote!(match *self {})),
        Data::Enum(data) => {
            let arms = data.variants.iter().map(|variant| {
                let (ident, name) = (&variant.ident, topic_name(&variant.ident, &variant.attrs)?);
                let fields = match variant.fields {
                    Fields::Named(_) => quote!({ .. }),
                    Fields::Unnamed(_) => quote!((..)),
                    Fields::Unit => Code::new(),
                };
                Ok(quote!(Self::#ident #fields => #name,))
            });
            let arms: Code = arms.collect::<Result<_>>()?;
            Ok(quote!(#core::Topic::new(match self { #arms })))
        }
        Data::Union(data) => Err(Error::new(
            data.union_token.span,
            "a message is an enum or a struct",
        )),
    }
}

/// What `#[message(topic = "…")]` says, or else the name.
fn topic_name(name: &Ident, attributes: &[Attribute]) -> Result<String> {
    let plain = name.to_string();
    let mut topic = plain.strip_prefix("r#").unwrap_or(&plain).to_owned();
    for attribute in attributes {
        if !attribute.path().is_ident("message") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("topic") {
                return Err(meta.error("expected `topic = \"…\"`"));
            }
            topic = meta.value()?.parse::<LitStr>()?.value();
            Ok(())
        })?;
    }
    Ok(topic)
}
