//! containerlab's own variables: `__clabNodeName__` and its kin in the values of a node, `__gitBranch__` and `__gitHash__` in the lab's name.

use crate::diagnostic::{Pos, Report};

/// Those of the repository that the file is in; whoever reads the file gives their values with the environment.
pub const GIT_VARIABLES: [&str; 2] = ["__gitBranch__", "__gitHash__"];

/// The lab and the node that the variables stand for.
#[derive(Clone, Copy)]
pub(crate) struct Magic<'a> {
    pub lab: &'a str,
    pub node: &'a str,
}

impl Magic<'_> {
    /// Fills in a path: the directories are those beside the topology file.
    pub fn path(self, text: &str) -> String {
        if !text.contains("__clab") {
            return text.to_owned();
        }
        let filled = self.names(text);
        filled
            .replace("__clabNodeDir__", &format!("clab-{}/{}", self.lab, self.node))
            .replace("__clabDir__", &format!("clab-{}", self.lab))
    }

    /// Fills in a text that the node gets; the directories are not there, which is told.
    pub fn text(self, text: &str, pos: Pos, report: &mut Report) -> String {
        if !text.contains("__clab") {
            return text.to_owned();
        }
        for variable in ["__clabDir__", "__clabNodeDir__"] {
            if text.contains(variable) {
                let message = format!(
                    "{variable} stands for a directory beside the topology file, which the node does not have: mount what it needs with \
                     binds, and write the path inside the node here"
                );
                report.error(pos, "MAGIC_VARIABLE", message);
            }
        }
        self.names(text)
    }

    fn names(self, text: &str) -> String {
        text.replace("__clabNodeName__", self.node).replace("__clabLabName__", self.lab)
    }
}

/// Fills in a lab's name.
pub(crate) fn git(
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
    pos: Pos,
    report: &mut Report,
) -> Option<String> {
    let mut filled = text.to_owned();
    for variable in GIT_VARIABLES.into_iter().filter(|v| text.contains(v)) {
        let Some(value) = env(variable).filter(|v| !v.is_empty()) else {
            let message = format!(
                "{variable} has no value: the file is not in a git repository with a commit, or its sender left it out of env. Write a name of your own"
            );
            report.error(pos, "MAGIC_VARIABLE", message);
            return None;
        };
        // A branch may be called feature/x.
        let good = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '-' };
        filled = filled.replace(variable, &value.chars().map(good).collect::<String>());
    }
    Some(filled)
}
