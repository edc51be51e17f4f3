//! The image that tests run: the one that is built for them, or a busybox put together here.

use std::io::Write as _;

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use tokio::sync::OnceCell;

use crate::rig::connect;

/// Its name.
pub const NAME: &str = "netloom/test:local";
const PROGRAMS: [&str; 18] = [
    "sh", "sleep", "cat", "ls", "true", "touch", "wc", "stty", "printf", "tr", "ip", "id", "hostname",
    "mount", "grep", "kill", "rm", "ln",
];

static THERE: OnceCell<()> = OnceCell::const_new();

/// Makes sure that the image is there. It stays, as images do.
pub async fn ensure() {
    THERE.get_or_init(make).await;
}

async fn make() {
    let docker = connect().await.unwrap();
    if docker.inspect_image(NAME).await.is_ok() {
        return;
    }
    let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
    let mut tar = Vec::new();
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        entry(&mut tar, dir, b'5', "", &[]);
    }
    entry(&mut tar, "bin/busybox", b'0', "", &busybox);
    for program in PROGRAMS {
        entry(&mut tar, &format!("bin/{program}"), b'2', "busybox", &[]);
    }
    tar.extend([0; 1024]);
    let (repo, tag) = NAME.split_once(':').unwrap();
    let options = CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(repo)
        .tag(tag)
        .changes(vec!["ENV PATH=/bin".to_owned(), "CMD [\"/bin/sleep\",\"1000000\"]".to_owned()])
        .build();
    let answers = docker.create_image(Some(options), Some(bollard::body_full(tar.into())), None);
    let answers: Vec<_> = answers.collect().await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

/// One entry of a tar archive (POSIX pax, "ustar Interchange Format").
pub fn entry(tar: &mut Vec<u8>, name: &str, kind: u8, link: &str, content: &[u8]) {
    let mut head = [0u8; 512];
    let mut put = |at: usize, text: &str| (&mut head[at..]).write_all(text.as_bytes()).unwrap();
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    head[156] = kind;
    let sum: u32 = head.iter().map(|b| u32::from(*b)).sum();
    (&mut head[148..]).write_all(format!("{sum:06o}\0 ").as_bytes()).unwrap();
    tar.extend(head);
    tar.extend(content);
    tar.resize(tar.len().next_multiple_of(512), 0);
}
