//! Public resources are built in `view.rs` and nowhere else.

use std::path::{Path, PathBuf};

const RESOURCES: [&str; 11] = [
    "Lab",
    "Node",
    "NodeConfig",
    "Interface",
    "Link",
    "Host",
    "Image",
    "ImagePresence",
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
    for file in files {
        let built = built(&std::fs::read_to_string(&file).unwrap());
        if file.ends_with("view.rs") {
            assert_eq!(built, RESOURCES, "this test no longer sees what the view builds");
        } else {
            assert!(built.is_empty(), "{} builds {built:?}", file.display());
        }
    }
}
