//! Messages ↔ model types.
//!
//! Towards the wire nothing can fail. From the wire a number, an id or a required part may be wrong: [`ConvertError`] names the field, so that a caller
//! is told which one.

mod host;
mod spec;
mod state;

pub use self::host::{acceleration, ages, read_ago, told};

use netloom_model::{Code, Failure};
use prost_types::Timestamp;

/// Both directions for enumerations whose values have the same names. One that is not set is an error that names the field, or means a value.
macro_rules! words {
    (@there $model:ty, $proto:ty { $($variant:ident),+ }) => {
        impl From<$model> for $proto {
            fn from(v: $model) -> Self {
                match v { $(<$model>::$variant => <$proto>::$variant),+ }
            }
        }
    };
    ($model:ty, $proto:ty, $field:literal { $($variant:ident),+ $(,)? }) => {
        words!(@there $model, $proto { $($variant),+ });

        impl TryFrom<$proto> for $model {
            type Error = ConvertError;
            fn try_from(v: $proto) -> Result<Self, ConvertError> {
                match v {
                    $(<$proto>::$variant => Ok(<$model>::$variant),)+
                    <$proto>::Unspecified => Err(ConvertError::new($field, "is not set")),
                }
            }
        }
    };
    ($model:ty, $proto:ty, else $default:ident { $($variant:ident),+ $(,)? }) => {
        words!(@there $model, $proto { $($variant),+ });

        impl From<$proto> for $model {
            fn from(v: $proto) -> Self {
                match v {
                    $(<$proto>::$variant => <$model>::$variant,)+
                    <$proto>::Unspecified => <$model>::$default,
                }
            }
        }
    };
}
use words;

/// A message that does not mean anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConvertError {
    /// The field.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl ConvertError {
    fn new(field: &str, what: impl std::fmt::Display) -> Self {
        ConvertError { field: field.to_owned(), what: what.to_string() }
    }
}

impl std::fmt::Display for ConvertError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl std::error::Error for ConvertError {}

impl From<ConvertError> for Failure {
    fn from(e: ConvertError) -> Failure {
        Failure::new(Code::InvalidArgument, "INVALID_REQUEST", e.to_string()).violation(e.field, e.what)
    }
}

/// Reads an id from a text field.
pub fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, ConvertError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e| ConvertError::new(field, e))
}

/// Microseconds since 1970 as a timestamp; none for 0, which means "never".
pub fn timestamp(us: i64) -> Option<Timestamp> {
    let nanos = i32::try_from(us.rem_euclid(1_000_000) * 1_000).expect("less than a second of nanoseconds");
    (us != 0).then(|| Timestamp { seconds: us.div_euclid(1_000_000), nanos })
}

/// A timestamp as microseconds since 1970; 0 for none.
pub fn micros(t: Option<Timestamp>) -> i64 {
    t.map_or(0, |t| t.seconds.saturating_mul(1_000_000).saturating_add(i64::from(t.nanos) / 1_000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_survives_the_wire(us in -4_000_000_000_000_000i64..4_000_000_000_000_000) {
            prop_assert_eq!(micros(timestamp(us)), us);
        }
    }
}
