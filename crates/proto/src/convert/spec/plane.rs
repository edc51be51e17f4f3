//! What is to carry links.

use netloom_model::spec as m;

use crate::convert::ConvertError;
use crate::v1 as p;

/// A plane as a number of the enum; one that is not known is refused, in the field of this name.
pub fn plane(field: &str, value: i32) -> Result<Option<m::Plane>, ConvertError> {
    match p::Plane::try_from(value) {
        Ok(p::Plane::Unspecified) => Ok(None),
        Ok(p::Plane::Auto) => Ok(Some(m::Plane::Auto)),
        Ok(p::Plane::Ovs) => Ok(Some(m::Plane::Ovs)),
        Ok(p::Plane::Kernel) => Ok(Some(m::Plane::Kernel)),
        Err(_) => Err(ConvertError::new(field, format!("{value} is no plane: say {}", m::PLANES))),
    }
}

/// The number of the enum.
pub fn plane_value(plane: Option<m::Plane>) -> i32 {
    let value = match plane {
        None => p::Plane::Unspecified,
        Some(m::Plane::Auto) => p::Plane::Auto,
        Some(m::Plane::Ovs) => p::Plane::Ovs,
        Some(m::Plane::Kernel) => p::Plane::Kernel,
    };
    value.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_survive_the_wire_and_an_unknown_one_is_refused() {
        for one in [None, Some(m::Plane::Auto), Some(m::Plane::Ovs), Some(m::Plane::Kernel)] {
            assert_eq!(plane("spec.plane", plane_value(one)).unwrap(), one);
        }
        assert!(plane("spec.plane", 9).unwrap_err().to_string().contains("9 is no plane"));
    }
}
