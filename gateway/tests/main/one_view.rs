//! Public resources are built in `view.rs` and below it, and nowhere else.

use std::path::{Path, PathBuf};

const RESOURCES: [&str; 16] = [
    "Lab",
    "Node",
    "NodeConfig",
    "Interface",
    "Link",
    "Host",
    "Image",
    "ImagePresence",
    "StoredImage",
    "ImageKind",
    "ImageSuggestion",
    "Upload",
    "Garbage",
    "Kind",
    "Operation",
    "WatchLabsResponse",
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// The resources that a source text builds, its unit tests aside.
fn built(text: &str) -> Vec<&'static str> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let builds = |resource: &&&str| {
        [format!("v1::{resource} {{"), format!("v1::{resource}::default()")].iter().any(|p| text.contains(p))
    };
    RESOURCES.iter().filter(builds).copied().collect()
}

#[test]
fn only_the_view_builds_resources() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20);
    let mut by_the_view = Vec::new();
    for file in files {
        let built = built(&std::fs::read_to_string(&file).unwrap());
        if file == src.join("view.rs") || file.starts_with(src.join("view")) {
            by_the_view.extend(built);
        } else {
            assert!(built.is_empty(), "{} builds {built:?}", file.display());
        }
    }
    by_the_view.sort_by_key(|built| RESOURCES.iter().position(|r| r == built));
    assert_eq!(by_the_view, RESOURCES, "this test no longer sees what the view builds");
}
