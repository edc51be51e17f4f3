//! Good files, broken at random: what comes of them is an answer with places that are in the text, and a clean spec if there is no error.

use netloom_model::kind::Catalogue;
use netloom_topology::{BundleFiles, MADE_FILES};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::{bundle, read, read_with, said};

/// What is put into files: words, values and signs that mean something somewhere.
const PIECES: [&str; 60] = [
    "name:",
    "topology:",
    "nodes:",
    "links:",
    "kinds:",
    "groups:",
    "defaults:",
    "mgmt:",
    "{",
    "}",
    "[",
    "]",
    ",",
    ": ",
    "- ",
    "\n",
    "  ",
    "\"",
    "'",
    "#",
    "&a ",
    "*a",
    "<<: *a",
    "|\n",
    "~",
    "null",
    "${X:-y}",
    "${",
    "$$",
    "{{",
    "0",
    "-1",
    "1e9",
    "999999999999",
    "80-90",
    "8080:80/udp",
    "10.0.0.0/8",
    "fd00::1/64",
    "host:x",
    "mgmt-net:x",
    "dummy",
    "macvlan:x",
    "n:eth1",
    "eth999",
    "container:n",
    "../../etc/shadow",
    "/",
    "r1",
    "__clabNodeDir__",
    "__gitHash__",
    "startup-config:",
    "stages:",
    "wait-for:",
    "healthy",
    "ports:",
    "é",
    "\u{202e}",
    "\u{feff}",
    "\0",
    "\t",
];

/// A change to a text.
#[derive(Debug, Clone)]
enum Change {
    Insert(Index, &'static str),
    Remove(Index, u8),
    Repeat(Index, Index, u8),
    SwapLines(Index, Index),
    /// The rest comes from another file.
    Splice(Index, Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), prop::sample::select(&PIECES[..])).prop_map(|(i, p)| Change::Insert(i, p)),
        3 => (at(), 1u8..40).prop_map(|(i, n)| Change::Remove(i, n)),
        2 => (at(), at(), 1u8..60).prop_map(|(i, j, n)| Change::Repeat(i, j, n)),
        2 => (at(), at()).prop_map(|(i, j)| Change::SwapLines(i, j)),
        1 => (at(), at(), at()).prop_map(|(f, i, j)| Change::Splice(f, i, j)),
    ]
}

/// The examples, and a good file for each key.
fn corpus() -> Vec<String> {
    let mut files: Vec<String> = crate::rows::good_files().collect();
    let examples = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples"));
    for dir in [examples.to_owned(), examples.join("host")] {
        let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        files.extend(entries.filter(|p| p.is_file()).map(|p| std::fs::read_to_string(p).unwrap()));
    }
    files
}

fn apply(text: &mut Vec<char>, change: &Change, corpus: &[String]) {
    let place = |i: &Index, text: &[char]| i.index(text.len() + 1);
    match change {
        Change::Insert(i, piece) => {
            let at = place(i, text);
            text.splice(at..at, piece.chars());
        }
        Change::Remove(i, n) => {
            let at = place(i, text);
            text.drain(at..(at + usize::from(*n)).min(text.len()));
        }
        Change::Repeat(i, j, n) => {
            let from = place(i, text);
            let piece: Vec<char> = text[from..(from + usize::from(*n)).min(text.len())].to_vec();
            let at = place(j, text);
            text.splice(at..at, piece);
        }
        Change::SwapLines(i, j) => {
            let whole: String = text.iter().collect();
            let mut lines: Vec<&str> = whole.split('\n').collect();
            let (a, b) = (i.index(lines.len()), j.index(lines.len()));
            lines.swap(a, b);
            *text = lines.join("\n").chars().collect();
        }
        Change::Splice(file, i, j) => {
            let other: Vec<char> = file.get(corpus).chars().collect();
            text.truncate(place(i, text));
            text.extend(&other[place(j, &other)..]);
        }
    }
}

/// What holds of every text.
pub(crate) fn holds(text: &str) {
    let parsed = read(text);
    let lines: Vec<&str> = text.split('\n').collect();
    for d in &parsed.diagnostics {
        let line = usize::try_from(d.line).unwrap();
        assert!(line <= lines.len() + 1, "{d} is beyond the text:\n{text}");
        assert!(!d.message.is_empty() && !d.message.chars().any(char::is_control), "{d:?}");
    }
    if !parsed.ok() {
        return;
    }
    assert!(parsed.lab.is_some(), "{text}");
    let wrong = (parsed.spec.check(), Catalogue::embedded().check(&parsed.spec));
    assert!(wrong.0.is_empty() && wrong.1.is_empty(), "{wrong:?}\n{text}");
    // Whoever is sent the text with the files it names reads the same.
    let sent = parsed.contents.iter().filter(|(path, _)| !path.starts_with(&format!("{MADE_FILES}/")));
    let mode = |path: &str| bundle().0.get(path).map_or(0o644, |(_, mode)| *mode);
    let there =
        read_with(text, &BundleFiles(sent.map(|(p, c)| (p.clone(), (c.to_vec(), mode(p)))).collect()));
    assert!(there.ok() && there.spec == parsed.spec, "{:?}\n{text}", said(&there));
}

#[test]
fn the_corpus_itself_holds() {
    for text in corpus() {
        holds(&text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn broken_files_are_answered(file in any::<Index>(), changes in prop::collection::vec(change(), 1..6)) {
        let corpus = corpus_once();
        let mut text: Vec<char> = file.get(corpus).chars().collect();
        for change in &changes {
            apply(&mut text, change, corpus);
        }
        holds(&text.iter().collect::<String>());
    }
}

fn corpus_once() -> &'static [String] {
    static CORPUS: std::sync::OnceLock<Vec<String>> = std::sync::OnceLock::new();
    CORPUS.get_or_init(corpus)
}
