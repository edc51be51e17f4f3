//! Virtual machines of one boot sector, put together here byte by byte: they boot in a fraction of a second also where everything is emulated. Each counts its boots in that sector, says so on its
//! first serial port, and is then a command line there, or ends. It hears its power button.

use std::collections::HashMap;
use std::path::Path;

use netloom_model::id::Digest;

/// Where the firmware puts the sector.
const ORIGIN: u16 = 0x7c00;
/// Of the disk: the firmware boots none that has not a cylinder.
const SIZE: usize = 512 << 10;
/// Ticks of its clock in a second.
pub const SECOND: u16 = 18;
/// What it says first, with how many boots its disk has seen.
pub const UP: &str = "tiny guest is up";
/// What it says to what it does not do.
pub const NO: &str = "% no";
/// Lines that the command `C` counts.
pub const COUNTED: u16 = 8000;

/// What a machine does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tiny<'a> {
    /// Ticks that it waits, and what it says then.
    pub says: &'a [(u16, &'a str)],
    /// It switches itself off so many ticks after that, instead of taking commands. A command is a line. `F…` fails, `T…` fails twice, `C` counts in four hexadecimal digits, and all else is done
    /// without a word.
    pub ends_after: Option<u16>,
}

impl Tiny<'_> {
    /// Puts its disk among the images of a data directory, and answers the digest.
    pub fn put(self, data_dir: &Path) -> Digest {
        let disk = self.disk();
        let (digest, images) = (Digest::of(&disk), data_dir.join("images"));
        std::fs::create_dir_all(&images).unwrap();
        let path = images.join(&digest.as_str()["sha256:".len()..]);
        if !path.exists() {
            std::fs::write(path, disk).unwrap();
        }
        digest
    }

    fn disk(self) -> Vec<u8> {
        let mut code = Code::default();
        self.begin(&mut code);
        for (n, (ticks, _)) in self.says.iter().enumerate() {
            code.wait(*ticks);
            code.say(&format!("says {n}"));
        }
        match self.ends_after {
            Some(ticks) => {
                code.wait(ticks);
                code.to(JMP, "off");
            }
            None => commands(&mut code),
        }
        routines(&mut code);
        code.at("up").op(format!("{UP} (boot ").as_bytes()).at("boots").op(b"0)\r\n\0");
        for (n, (_, text)) in self.says.iter().enumerate() {
            code.at(&format!("says {n}")).op(text.as_bytes()).op(b"\r\n\0");
        }
        code.at("prompt text").op(b"> \0").at("no text").op(NO.as_bytes()).at("line end").op(b"\r\n\0");
        // This sector, which is one block, from and to where it is.
        code.at("itself").op(&[16, 0, 1, 0]).op(&ORIGIN.to_le_bytes()).op(&[0; 10]);
        code.at("line").op(&[0]).at("tries").op(&[0]);
        code.sector()
    }

    /// Sets up what it needs, counts the boot, and says that it is there. The serial port stays as it is: to set its FIFO empties it, and what was typed before the boot is to be answered after it.
    fn begin(self, code: &mut Code) {
        // xor ax, ax; ds, es, ss = ax; mov sp, ORIGIN; sti; cld
        code.op(&[0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xfb, 0xfc]);
        // inc byte [boots]; mov si, itself; mov ax, 4300h; int 13h: write; dl is the disk, as the firmware left it.
        code.op(&[0xfe, 0x06]).absolute("boots").op(&[0xbe]).absolute("itself");
        code.op(&[0xb8, 0x00, 0x43, 0xcd, 0x13]);
        // mov dx, 602h; in ax, dx; or ah, 1; out dx, ax: the power button counts.
        code.op(&[0xba, 0x02, 0x06, 0xed, 0x80, 0xcc, 0x01, 0xef]);
        code.say("up");
    }
}

/// A command line.
fn commands(code: &mut Code) {
    // mov byte [line], 0
    code.at("prompt").say("prompt text").op(&[0xc6, 0x06]).absolute("line").op(&[0]);
    // cmp al, '\r'; cmp byte [line], 0; mov [line], al
    code.at("next").to(CALL, "key").op(&[0x3c, b'\r']).to(JZ, "entered");
    code.op(&[0x80, 0x3e]).absolute("line").op(&[0]).to(JNZ, "echo").op(&[0xa2]).absolute("line");
    code.at("echo").to(CALL, "put").to(JMP, "next");
    // mov al, [line]
    code.at("entered").say("line end").op(&[0xa0]).absolute("line");
    code.op(&[0x3c, b'F']).to(JZ, "refuse").op(&[0x3c, b'C']).to(JZ, "count");
    code.op(&[0x3c, b'T']).to(JNZ, "prompt");
    // inc byte [tries]; cmp byte [tries], 3
    code.op(&[0xfe, 0x06]).absolute("tries").op(&[0x80, 0x3e]).absolute("tries").op(&[3]).to(JNC, "prompt");
    code.at("refuse").say("no text").to(JMP, "prompt");
    // xor bx, bx; mov cx, 4; rol bx, 4; mov al, bl; and al, 15; add al, '0'; cmp al, '9' + 1; add al, 39
    code.at("count").op(&[0x31, 0xdb]).at("number").op(&[0xb9, 4, 0]);
    code.at("digit").op(&[0xc1, 0xc3, 4, 0x88, 0xd8, 0x24, 15, 0x04, b'0', 0x3c, b'9' + 1]).to(JC, "decimal");
    code.op(&[0x04, 39]);
    // dec cx; inc bx; cmp bx, COUNTED
    code.at("decimal").to(CALL, "put").op(&[0x49]).to(JNZ, "digit").say("line end").op(&[0x43, 0x81, 0xfb]);
    code.op(&COUNTED.to_le_bytes()).to(JNZ, "number").to(JMP, "prompt");
}

fn routines(code: &mut Code) {
    // What si points at, up to a zero. lodsb; test al, al
    code.at("print").op(&[0xac, 0x84, 0xc0]).to(JZ, "return").to(CALL, "put").to(JMP, "print");
    // push ax; mov dx, 3fdh; in al, dx; test al, 20h; pop ax; mov dx, 3f8h; out dx, al
    code.at("put").op(&[0x50, 0xba, 0xfd, 0x03]).at("full").op(&[0xec, 0xa8, 0x20]).to(JZ, "full");
    code.op(&[0x58, 0xba, 0xf8, 0x03, 0xee]).at("return").op(&[0xc3]);
    // Waits for cx ticks. hlt; dec cx
    code.at("wait").op(&[0xf4]).to(CALL, "button").op(&[0x49]).to(JNZ, "wait").op(&[0xc3]);
    // Waits for a byte. mov dx, 3fdh; in al, dx; test al, 1; hlt; mov dx, 3f8h; in al, dx
    code.at("key").op(&[0xba, 0xfd, 0x03, 0xec, 0xa8, 1]).to(JNZ, "came").op(&[0xf4]).to(CALL, "button");
    code.to(JMP, "key").at("came").op(&[0xba, 0xf8, 0x03, 0xec, 0xc3]);
    // mov dx, 600h; in ax, dx; test ah, 1
    code.at("button").op(&[0xba, 0x00, 0x06, 0xed, 0xf6, 0xc4, 1]).to(JZ, "return");
    // mov dx, 604h; mov ax, 2000h; out dx, ax; hlt
    code.at("off").op(&[0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4]).to(JMP, "off");
}

const CALL: &[u8] = &[0xe8];
const JMP: &[u8] = &[0xe9];
const JC: &[u8] = &[0x0f, 0x82];
const JNC: &[u8] = &[0x0f, 0x83];
const JZ: &[u8] = &[0x0f, 0x84];
const JNZ: &[u8] = &[0x0f, 0x85];

/// Code of the 8086's real mode, with names for its places.
#[derive(Default)]
struct Code {
    bytes: Vec<u8>,
    places: HashMap<String, u16>,
    /// Where addresses are missing, of which places, and whether from there on.
    missing: Vec<(usize, String, bool)>,
}

impl Code {
    fn op(&mut self, bytes: &[u8]) -> &mut Code {
        self.bytes.extend_from_slice(bytes);
        self
    }

    fn here(&self) -> u16 {
        u16::try_from(self.bytes.len()).unwrap()
    }

    fn at(&mut self, name: &str) -> &mut Code {
        let here = self.here();
        assert!(self.places.insert(name.to_owned(), here).is_none(), "{name} is at two places");
        self
    }

    fn absolute(&mut self, name: &str) -> &mut Code {
        self.missing.push((self.bytes.len(), name.to_owned(), false));
        self.op(&[0, 0])
    }

    /// Goes there.
    fn to(&mut self, how: &[u8], name: &str) -> &mut Code {
        self.op(how);
        self.missing.push((self.bytes.len(), name.to_owned(), true));
        self.op(&[0, 0])
    }

    /// mov si, the text; call print
    fn say(&mut self, text: &str) -> &mut Code {
        self.op(&[0xbe]).absolute(text).to(CALL, "print")
    }

    /// mov cx, ticks; call wait
    fn wait(&mut self, ticks: u16) {
        if ticks > 0 {
            self.op(&[0xb9]).op(&ticks.to_le_bytes()).to(CALL, "wait");
        }
    }

    fn sector(mut self) -> Vec<u8> {
        for (at, name, is_relative) in std::mem::take(&mut self.missing) {
            let place = *self.places.get(&name).unwrap_or_else(|| panic!("{name} is nowhere"));
            let value = match is_relative {
                true => place.wrapping_sub(u16::try_from(at + 2).unwrap()),
                false => ORIGIN + place,
            };
            self.bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        assert!(self.bytes.len() <= 510, "{} bytes do not fit a boot sector", self.bytes.len());
        self.bytes.resize(510, 0);
        self.bytes.extend([0x55, 0xaa]);
        self.bytes.resize(SIZE, 0);
        self.bytes
    }
}
