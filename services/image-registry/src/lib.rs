//! The image catalogue: references, digests, formats, presence and validation.
