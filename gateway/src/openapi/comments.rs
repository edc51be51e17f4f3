//! What the contracts say of their parts, from the descriptors' source information.

use std::collections::HashMap;

use prost_reflect::DescriptorPool;

/// Comments by file and by the part's path in it.
pub struct Comments(HashMap<(String, Vec<i32>), String>);

impl Comments {
    /// All comments before the parts of a pool's files.
    pub fn read(pool: &DescriptorPool) -> Comments {
        let mut comments = HashMap::new();
        for file in pool.files() {
            let locations = file.file_descriptor_proto().source_code_info.iter().flat_map(|i| &i.location);
            for location in locations {
                let text = location.leading_comments().trim();
                if !text.is_empty() {
                    comments.insert((file.name().to_owned(), location.path.clone()), joined(text));
                }
            }
        }
        Comments(comments)
    }

    /// The comment of one part; empty without one.
    pub fn of(&self, file: &str, path: &[i32]) -> &str {
        self.0.get(&(file.to_owned(), path.to_owned())).map_or("", String::as_str)
    }
}

/// Lines of one paragraph become one line.
fn joined(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|p| p.lines().map(str::trim).collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}
