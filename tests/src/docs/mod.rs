//! Documentation that is executed: pages are read into blocks (`page`), blocks are run in a sandbox (`session`, `terminal`), and what the programs say is compared with
//! what the page shows (`matching`).
//!
//! What a block may be:
//!
//! - `console`: lines that begin with `$ ` are run, each by a shell of its own; the lines below one are what it says. `…` or `...` stands for any text, on a line of
//!   its own for any lines. Nothing below a command means that only its exit code is looked at. Below `netloom shell` a line that begins with a prompt is typed.
//! - a file (`yaml`, `toml`, `conf` …): its first line, a comment, names the file; it is written there.
//! - a change (`diff`): its first line, `--- FILE`, names the file; the lines with `-` become those with `+`. `@@` stands between two places.
//! - `yaml` without a name that is a whole topology: it is validated.
//! - `text`: shown, never run.
//!
//! Comments directly above a block change how it is run: `<!-- within 60s -->` repeats each command until it says what is shown, `<!-- exit code 5 -->` expects that
//! code of the last command, and `<!-- not run: why -->` leaves the block out.

mod matching;
mod page;
mod session;
mod terminal;

pub use matching::compare;
pub use page::{Block, Page, Step, What, check_lines};
pub use session::Session;
