//! image push, of what the Docker on this machine has.

use std::os::unix::fs::PermissionsExt as _;

use crate::fake::{Fake, Script};

/// Says what its standard output is: mode and names of the file.
const DOCKER: &str = "#!/bin/sh\nif [ \"$2\" = save ]; then told=$(stat -L -c '%F %a %h' /proc/$$/fd/1); echo \"$told\" > \"$TOLD\"; echo bytes; fi\n";

/// It was a file of a name that can be guessed in /tmp, for everybody to read, and stayed when the push was killed.
#[tokio::test]
async fn an_image_of_docker_is_saved_where_nobody_else_reads_it_and_nothing_of_it_stays() {
    let fake = Fake::start(Script::default()).await;
    fake.write("docker", DOCKER);
    let dir = fake.dir.path();
    std::fs::set_permissions(dir.join("docker"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    std::fs::create_dir(dir.join("tmp")).unwrap();
    let mut command = fake.command(&["image", "push", "private:1"]);
    let command = command.env("PATH", path).env("TMPDIR", dir.join("tmp")).env("TOLD", dir.join("told"));
    let ended = command.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("UNIMPLEMENTED"), "it was saved, and this server takes no images: {said}");
    let told = std::fs::read_to_string(dir.join("told")).unwrap();
    assert_eq!(told.trim_end(), "regular empty file 600 0");
    assert_eq!(std::fs::read_dir(dir.join("tmp")).unwrap().count(), 0);
}
