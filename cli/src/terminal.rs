//! The user's terminal: its size, and raw mode that never outlives the program's interest in it.

use std::io::{self, IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;

use nix::libc;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, libc::winsize);

/// Columns and rows of the terminal on standard output; 80 × 24 where there is none.
pub fn size() -> (u16, u16) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the call writes one winsize to the place it is given, which lives until it returns.
    let answered = unsafe { get_window_size(libc::STDOUT_FILENO, &raw mut size) }.is_ok();
    if answered && size.ws_col > 0 && size.ws_row > 0 { (size.ws_col, size.ws_row) } else { (80, 24) }
}

/// Raw mode on standard input, until dropped: also on an error, a signal that the program handles, or a panic.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Enters raw mode; nothing happens where standard input is no terminal.
    pub fn enter() -> io::Result<Option<Raw>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Some(Raw { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}

/// Lines that are drawn over each other.
#[derive(Debug, Default)]
pub struct Canvas {
    drawn: usize,
}

impl Canvas {
    /// Draws these lines over the ones before. None wipes them.
    pub fn draw(&mut self, lines: &[String]) -> io::Result<()> {
        // One write, so that no half of a frame is ever seen.
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A\r\u{1b}[J", self.drawn));
        }
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}
