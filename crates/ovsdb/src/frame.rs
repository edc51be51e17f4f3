//! Cuts a stream of JSON texts without delimiters into messages.

/// Collects bytes and gives out whole JSON objects. Every byte is looked at once, however it arrives.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    buffer: Vec<u8>,
    /// Bytes already looked at.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

/// An emptied buffer that has grown beyond this is given back: the first snapshot is far larger than what follows.
const KEEP: usize = 64 * 1024;

impl Frames {
    /// Where to append what was read.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    /// When the stream is not a sequence of JSON objects.
    pub(crate) fn next<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, String> {
        while let Some(&byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                match byte {
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match byte {
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' if self.depth > 1 => self.depth -= 1,
                    b'}' | b']' if self.depth == 1 => return self.cut().map(Some),
                    b'"' if self.depth > 0 => self.in_string = true,
                    _ if self.depth > 0 || byte.is_ascii_whitespace() => {}
                    _ => return Err(format!("unexpected byte {byte:#04x} between messages")),
                }
            }
        }
        Ok(None)
    }

    fn cut<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, String> {
        let message = serde_json::from_slice(&self.buffer[..self.seen]).map_err(|e| e.to_string());
        self.buffer.drain(..self.seen);
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP {
            self.buffer = Vec::new();
        }
        (self.seen, self.depth) = (0, 0);
        message
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::Frames;

    fn feed(chunks: impl IntoIterator<Item = Vec<u8>>) -> Result<Vec<Value>, String> {
        let (mut frames, mut messages) = (Frames::default(), Vec::new());
        for chunk in chunks {
            frames.buffer().extend(chunk);
            while let Some(message) = frames.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn braces_and_quotes_inside_strings_do_not_end_a_message() {
        let messages = [json!({"a": "}]\\\"{["}), json!({"b": [{"c": "\u{1F980}\\"}]})];
        let text = format!("{}\n {}", messages[0], messages[1]);
        assert_eq!(feed([text.into_bytes()]).unwrap(), messages);
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert!(feed([b"HTTP/1.1 400".to_vec()]).is_err());
        assert!(feed([b"}".to_vec()]).is_err());
        assert!(feed([b"{]".to_vec()]).is_err());
    }

    #[test]
    fn a_large_buffer_is_given_back() {
        let mut frames = Frames::default();
        frames.buffer().extend(json!({"a": "x".repeat(super::KEEP * 2)}).to_string().into_bytes());
        assert!(frames.next::<Value>().unwrap().is_some());
        assert_eq!(frames.buffer().capacity(), 0);
    }

    proptest! {
        #[test]
        fn cutting_does_not_depend_on_how_bytes_arrive(
            strings in proptest::collection::vec("\\PC*", 0..5),
            chunk in 1usize..20,
        ) {
            let messages: Vec<Value> = strings.iter().map(|s| json!({ "s": s, "n": [s] })).collect();
            let bytes: Vec<u8> = messages.iter().flat_map(|m| m.to_string().into_bytes()).collect();
            prop_assert_eq!(feed(bytes.chunks(chunk).map(<[u8]>::to_vec)).unwrap(), messages);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            let _ = feed([bytes]);
        }
    }
}
