//! Shows errors with all their causes on one line, also where a program prints `Debug`.

use std::error::Error;
use std::fmt;

use crate::plain::Lines;

/// Shows an error with all its causes on one line, as a program prints it to its user. It escapes
/// characters that a terminal would obey. It keeps the line ends of texts that have lines, such as
/// the output of a child.
///
/// `{:?}` of every error of this crate and of `maslite-mp` shows the same line, because
/// `fn main() -> Result<(), Error>` and `unwrap` print `{:?}`. `{:#?}` shows the fields of the
/// error, for developers.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        // Agents choose parts of the text: no character of them may control the reader's terminal.
        write!(f, "{}", Lines(&text))?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let further = error.to_string();
            // Some errors repeat their cause in their own text.
            if !text.contains(&further) {
                write!(f, ": {}", Lines(&further))?;
            }
            text = further;
            cause = error.source();
        }
        Ok(())
    }
}

/// Implements `Debug` of an error: the text of [`Chain`], and with `{:#?}` the structure. The
/// caller must list every variant and field.
#[doc(hidden)]
#[macro_export]
macro_rules! readable_debug {
    (enum $error:ident {
        $($variant:ident $(($($place:ident),*))? $({ $($field:ident),* })?),* $(,)?
    }) => {
        impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                if !f.alternate() {
                    return ::std::fmt::Display::fmt(&$crate::Chain(self), f);
                }
                match self {
                    $(Self::$variant $(($($place),*))? $({ $($field),* })? => {
                        $(return f.debug_tuple(stringify!($variant))$(.field($place))*.finish();)?
                        #[allow(unreachable_code, reason = "a variant with places has returned")]
                        f.debug_struct(stringify!($variant))
                            $($(.field(stringify!($field), $field))*)?
                            .finish()
                    })*
                }
            }
        }
    };
    (struct $error:ident { $($field:ident),* }) => {
        impl ::std::fmt::Debug for $error {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                if !f.alternate() {
                    return ::std::fmt::Display::fmt(&$crate::Chain(self), f);
                }
                let Self { $($field),* } = self;
                f.debug_struct(stringify!($error))$(.field(stringify!($field), $field))*.finish()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    #[derive(thiserror::Error)]
    enum Outer {
        #[error("the harbour is closed")]
        Closed(#[source] Inner),
        #[error("pier {pier}: {source}")]
        Named { pier: u32, source: Inner },
        #[error("no ships")]
        Empty,
    }

    #[derive(thiserror::Error)]
    #[error("ice is {thickness} m thick")]
    struct Inner {
        thickness: f64,
    }

    readable_debug!(enum Outer { Closed(source), Named { pier, source }, Empty });
    readable_debug!(struct Inner { thickness });

    #[test]
    fn debug_is_the_text_with_all_causes_and_the_long_form_the_structure() {
        let ice = || Inner { thickness: 0.5 };
        let closed = Outer::Closed(ice());
        assert_eq!(
            format!("{closed:?}"),
            "the harbour is closed: ice is 0.5 m thick"
        );
        assert_eq!(
            format!("{closed:#?}"),
            "Closed(\n    Inner {\n        thickness: 0.5,\n    },\n)"
        );
        let (pier, source) = (3, ice());
        let named = Outer::Named { pier, source };
        assert_eq!(format!("{named:?}"), "pier 3: ice is 0.5 m thick");
        assert_eq!(
            format!("{named:#?}"),
            "Named {\n    pier: 3,\n    source: Inner {\n        thickness: 0.5,\n    },\n}"
        );
        assert_eq!(
            format!("{:?} {:#?}", Outer::Empty, Outer::Empty),
            "no ships Empty"
        );
        assert_eq!(
            format!("{:?}", std::result::Result::<(), _>::Err(ice())),
            "Err(ice is 0.5 m thick)"
        );
    }
}
