//! The rules of what nodes have as texts: Docker, or the kernel, would refuse others in the middle of a deploy.

use super::{Wrong, is_sysctl, is_word};
use crate::spec::{NodeSpec, is_capability};
use crate::words;

/// Mount options of a tmpfs that are a word each.
const TMPFS_WORDS: [&str; 20] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];

/// Checks them. What Docker refuses is refused here, before anything of the lab is made.
pub(super) fn check(field: &str, node: &NodeSpec, wrong: &mut Wrong) {
    if !node.hostname.is_empty() && !is_word(&node.hostname, 63) {
        wrong.say(format!("{field}.hostname"), format!("\"{}\" is not a host name", node.hostname));
    }
    for name in node.sysctls.keys().filter(|n| !is_sysctl(n)) {
        wrong.say(
            format!("{field}.sysctls"),
            format!(
                "\"{name}\" is not a kernel parameter that a container has for itself: those begin with net., fs.mqueue., kernel.msg, \
                 kernel.sem or kernel.shm"
            ),
        );
    }
    for option in node.security_opts.iter().filter(|o| !is_printable_word(o, 4_096)) {
        wrong.say(format!("{field}.security_opts"), format!("\"{option}\" is not a security option"));
    }
    let parent = &node.cgroup_parent;
    if !parent.is_empty() && (!is_printable_word(parent, 255) || parent.split('/').any(|p| p == "..")) {
        wrong.say(format!("{field}.cgroup_parent"), format!("\"{parent}\" is not the name of a cgroup"));
    }
    for (name, value) in &node.env {
        if name.is_empty() || name.contains(['=', '\0']) {
            wrong.say(format!("{field}.env"), format!("{name:?} is not the name of a variable"));
        } else if value.contains('\0') {
            wrong.say(
                format!("{field}.env"),
                format!("the value of {name} holds a NUL character, which no variable can"),
            );
        }
    }
    for (name, value) in &node.sysctls {
        if value.is_empty() || value.contains(char::is_control) {
            wrong.say(
                format!("{field}.sysctls"),
                format!("{value:?} is not a value for {name}: write it on one line"),
            );
        }
    }
    for (name, words) in [("cmd", &node.cmd), ("entrypoint", &node.entrypoint)] {
        if words.iter().any(|word| word.contains('\0')) {
            wrong.say(format!("{field}.{name}"), "a word of a command holds no NUL character");
        }
    }
    if !node.user.is_empty() && !is_user(&node.user) {
        wrong.say(
            format!("{field}.user"),
            format!(
                "{:?} is not a user: write a name or a number, and a group after a ':' if need be",
                node.user
            ),
        );
    }
    for name in node.cap_add.iter().filter(|name| !is_capability(name)) {
        wrong.say(
            format!("{field}.cap_add"),
            format!(
                "{name:?} is not the name of a capability without CAP_, such as NET_ADMIN: see capabilities(7); there is no way to ask for all"
            ),
        );
    }
    for (name, value) in &node.labels {
        if !is_label(name) {
            wrong.say(
                format!("{field}.labels"),
                format!("{name:?} is not the name of a label: 1 to 255 characters without spaces and '='"),
            );
        } else if value.contains('\0') {
            wrong.say(
                format!("{field}.labels"),
                format!("the value of {name} holds a NUL character, which no label can"),
            );
        }
    }
    if !node.image.is_empty() && !is_printable_word(&node.image, 512) {
        wrong.say(format!("{field}.image"), format!("{:?} is not the name of an image", node.image));
    }
    for command in &node.exec {
        if let Err(why) = words::split(command) {
            wrong.say(format!("{field}.exec"), format!("\"{command}\" is not a command: {why}"));
        }
    }
}

/// True for a name or number of a user, and of a group after a colon.
fn is_user(text: &str) -> bool {
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    let is_part = |part: &str| is_printable_word(part, 255) && !part.contains([':', '/']);
    is_part(user) && group.is_none_or(is_part)
}

fn is_label(name: &str) -> bool {
    is_printable_word(name, 255) && !name.contains('=')
}

/// True for mount options of a tmpfs, with commas between them; none are some too.
pub(super) fn is_tmpfs_options(options: &str) -> bool {
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 19 && text.bytes().all(|b| b.is_ascii_digit());
    let is_amount = |text: &str, units: &[char]| is_number(text.strip_suffix(units).unwrap_or(text));
    let units = ['k', 'K', 'm', 'M', 'g', 'G'];
    options.is_empty()
        || options.split(',').all(|option| match option.split_once('=') {
            None => TMPFS_WORDS.contains(&option),
            Some(("size", value)) => is_amount(value, &units) || is_amount(value, &['%']),
            Some(("nr_inodes" | "nr_blocks", value)) => is_amount(value, &units),
            Some(("uid" | "gid", value)) => value.parse::<u32>().is_ok() && is_number(value),
            Some(("mode", value)) => {
                (1..=5).contains(&value.len()) && value.bytes().all(|b| (b'0'..=b'7').contains(&b))
            }
            Some(("mpol", value)) => is_printable_word(value, 64),
            Some(_) => false,
        })
}

/// True for a text without spaces and control characters.
pub(super) fn is_printable_word(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
