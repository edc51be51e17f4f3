//! What is written for readers works: every block of every page is run, or says why not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use netloom_tests::docs::{Page, Session};
use netloom_tests::{Mode, Output, Sandbox, binaries, run};

/// Pages whose blocks are left out, with the reasons, as a person reviewed them.
const NOT_RUN: &str = include_str!("not-run.txt");

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// All pages of the repository, also those not yet committed.
fn pages() -> Vec<Page> {
    let root = root();
    let mut directories = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory").flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let below_root = directory == root;
            if path.is_dir() && !name.starts_with('.') && !(below_root && name == "target") {
                directories.push(path);
            } else if name.ends_with(".md") {
                let file = path.strip_prefix(&root).expect("below the root");
                files.push(file.display().to_string());
            }
        }
    }
    files.sort();
    files.iter().map(|file| Page::read(&root, file)).collect()
}

#[test]
fn every_block_is_run_or_says_why_not() {
    let pages = pages();
    assert!(pages.iter().any(|p| p.file == "README.md" && p.runs()), "the README is looked at");
    let problems: Vec<&String> = pages.iter().flat_map(|p| &p.problems).collect();
    assert!(problems.is_empty(), "{problems:#?}");
    // Each reason was looked at by somebody: what is left out stands in a list of its own.
    let reviewed: BTreeSet<&str> = NOT_RUN.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).collect();
    let left_out: Vec<String> = pages.iter().flat_map(Page::left_out).collect();
    let left_out: BTreeSet<&str> = left_out.iter().map(String::as_str).collect();
    let new: Vec<_> = left_out.difference(&reviewed).collect();
    assert!(new.is_empty(), "not run, and not in tests/tests/main/not-run.txt: {new:#?}");
    let gone: Vec<_> = reviewed.difference(&left_out).collect();
    assert!(gone.is_empty(), "in tests/tests/main/not-run.txt, and nowhere else: {gone:#?}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let root = root();
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(root.join(&page.file)).expect("a page");
        let directory = root.join(&page.file).parent().expect("a directory").to_owned();
        for (n, line) in text.lines().enumerate() {
            for link in line.split("](").skip(1) {
                let target = link.split([')', '#', ' ']).next().unwrap_or("");
                if !target.is_empty() && !target.contains("://") && !directory.join(target).exists() {
                    broken.push(format!("{}:{}: {target}", page.file, n + 1));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The commands of netloom in the text of a page, as `netloom word word … --option`.
fn commands_in(text: &str) -> Vec<String> {
    let prose = text.split("```").step_by(2).flat_map(str::lines);
    let spans =
        prose.flat_map(|line| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    spans.filter(|s| s.starts_with("netloom ")).collect()
}

#[test]
fn no_page_speaks_of_a_command_or_an_option_that_is_not_there() {
    let netloom = binaries().join("netloom").display().to_string();
    let mut asked: BTreeMap<Vec<String>, Output> = BTreeMap::new();
    let mut wrong = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(root().join(&page.file)).expect("a page");
        for command in commands_in(&text) {
            let own = command.split(" -- ").next().unwrap_or(&command);
            let words: Vec<&str> =
                own.split([' ', '[', ']', '|', '(', ')', ',']).filter(|w| !w.is_empty()).collect();
            let plain =
                |w: &&&str| w.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !w.starts_with('-');
            let mut line: Vec<String> =
                words[1..].iter().take_while(plain).take(2).map(|w| (*w).to_owned()).collect();
            line.push("--help".to_owned());
            let said = asked.entry(line.clone()).or_insert_with(|| run(&netloom, &line));
            let known = |option: &str| said.stdout.split([' ', ',', '=', '\n', '[']).any(|w| w == option);
            let options =
                words.iter().filter(|w| w.len() > 1 && w.starts_with('-')).map(|w| w.trim_end_matches('…'));
            let unknown: Vec<&str> = options.filter(|o| !known(o)).collect();
            if !said.ok() || !unknown.is_empty() {
                wrong.push(format!("{}: `{command}` {unknown:?}", page.file));
            }
        }
    }
    assert!(asked.len() > 10, "commands were found: {asked:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Runs one page in a sandbox of its own, and demands that nothing is left once its labs are destroyed.
pub fn run_page(page: &Page) -> Result<(), String> {
    let sandbox = Sandbox::start(Mode::One);
    let outcome = Session::open(&sandbox, &root(), "work").run(page);
    sandbox.netloom(&["destroy", "--all", "--yes"]);
    outcome?;
    let left = sandbox.leftovers();
    if left.is_empty() { Ok(()) } else { Err(format!("{}: it leaves behind {left:?}", page.file)) }
}

#[test]
fn what_pages_show_is_what_happens() {
    if !crate::real("main::docs::what_pages_show_is_what_happens") {
        return;
    }
    // The tutorial has a test of its own.
    let pages: Vec<Page> =
        pages().into_iter().filter(|p| p.runs() && p.file != super::tutorial::PAGE).collect();
    assert!(!pages.is_empty());
    let failed: Vec<String> = pages.iter().filter_map(|page| run_page(page).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The programs that a page may need beside netloom's own.
#[test]
fn the_tools_of_the_pages_are_there() {
    for tool in ["bash", "timeout", "setsid", "curl", "jq"] {
        run("which", &[tool]).must();
    }
}
