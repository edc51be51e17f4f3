//! Every reason that a caller can be told, in one table: what `ErrorInfo.reason` says, with which code, what it means and what to do.
//!
//! A reason is a promise to programs: it is never renamed. One that is told anywhere and is not here fails a test (`gateway/tests/main/errors.rs`), and so does one without
//! its answer on record; `docs/errors.md` is written from this table.

use crate::failure::Code;

/// One reason.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    /// As `ErrorInfo.reason` says it.
    pub name: &'static str,
    /// The code it comes with.
    pub code: Code,
    /// HTTP's status, where it is not the one of the code.
    pub http: Option<u16>,
    /// Facts that come with it, as examples: keys of `ErrorInfo.metadata` with a value.
    pub facts: &'static [(&'static str, &'static str)],
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// Finds a reason.
pub fn find(name: &str) -> Option<&'static Reason> {
    REASONS.iter().chain(INTERNAL).find(|r| r.name == name)
}

const fn reason(
    name: &'static str,
    code: Code,
    facts: &'static [(&'static str, &'static str)],
    meaning: &'static str,
    advice: &'static str,
) -> Reason {
    Reason { name, code, http: None, facts, meaning, advice }
}

const fn http(status: u16, reason: Reason) -> Reason {
    Reason { http: Some(status), ..reason }
}

/// What users of the API are told, by name.
#[rustfmt::skip]
pub const REASONS: &[Reason] = &[
    reason("BIDI_NEEDS_GRPC", Code::Unimplemented, &[], "The method streams in both directions, which HTTP/JSON cannot.", "Call it over gRPC."),
    reason("BLOB_CORRUPT", Code::FailedPrecondition, &[("digest", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")], "An image's bytes in the store are not the ones that were stored; they were set aside.", "Push the image again."),
    reason("BLOB_MENDED", Code::Aborted, &[("digest", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")], "An image was pushed again while its former, wrong bytes were read.", "Nothing for a deploy, which asks anew; who read it by themselves reads it again."),
    reason("BLOB_NOT_FOUND", Code::NotFound, &[("digest", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")], "The store has no such bytes.", "Push the image again."),
    reason("BLOB_STORE_DENIED", Code::Unavailable, &[], "The bucket that images are kept in does not let the image registry in.", "See to the keys of `[image_registry.s3]`, and to what they may do."),
    reason("BLOB_STORE_FAILED", Code::Unavailable, &[], "The disk or the bucket that images are kept in does not work.", "Read the image registry's log; see to `blobs` or `s3` of `[image_registry]`."),
    reason("BLOB_STORE_FOREIGN", Code::FailedPrecondition, &[("found", "installation 0190a1b2-0000-7000-8000-000000000001, database 0190a1b2-0000-7000-8000-000000000002"), ("owner", "installation 0190a1b2-0000-7000-8000-000000000001, database 0190a1b2-0000-7000-8000-000000000003")], "The bucket's prefix or the directory that images are kept in is another installation's, or of a database that was lost.", "Set another `prefix` or `blobs` in `[image_registry]`; where the database was lost, restore it, or remove the `owner` that the message names."),
    http(413, reason("BODY_TOO_LARGE", Code::ResourceExhausted, &[("limit", "4194304")], "The request's body has more bytes than are taken here.", "Send less; large files belong into images.")),
    reason("BUSY", Code::Aborted, &[], "An earlier thing of the same name is still going away.", "Try again in a moment."),
    reason("CANCELLED", Code::Cancelled, &[], "The call was given up by its caller.", "Nothing, or ask again."),
    reason("CAPABILITY_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A node asks, itself or by its kind, for a capability that its host does not give.", "Name it in `capabilities` of `[compute]`, or do without it."),
    reason("CAPTURE_NOT_FOUND", Code::NotFound, &[("capture", "one")], "No capture with that id runs: it has ended.", "Nothing: what it brought is complete."),
    reason("CERTIFICATE_INVALID", Code::InvalidArgument, &[], "A lab's certificate authority, or a certificate that a node asks for, cannot be used.", "Give a key and its certificate in PEM; correct what the message names."),
    reason("CERTIFICATE_MISSING", Code::Unauthenticated, &[], "A program on another machine shows no certificate where one is needed.", "Let the machine join: netloom host token."),
    reason("CERTIFICATE_REVOKED", Code::PermissionDenied, &[("host", "h2")], "The host was removed, and its certificate with it.", "Let it join again: netloom host token."),
    reason("CONFIG_FAILED", Code::FailedPrecondition, &[("node", "r1")], "The node did not tell its running configuration.", "See the message, which is the node's; try again when it is ready."),
    reason("CONFIG_NOT_SUPPORTED", Code::FailedPrecondition, &[("node", "r1")], "The node's kind has no way to tell its configuration.", "Say in the topology file which of its files that is (`save-file`), or read it in the node, by a command of its own."),
    reason("CONSOLE_FAILED", Code::FailedPrecondition, &[], "A command could not be typed at the console of the virtual machine, or its end was not seen.", "See the message; look at the console (netloom console, netloom logs). Who logs in is USERNAME and PASSWORD of the node's `env`."),
    reason("CONSOLE_IN_USE", Code::FailedPrecondition, &[], "Somebody else writes to the console of the virtual machine.", "Read it only, or take it over (--take)."),
    reason("CONSOLE_NOT_SUPPORTED", Code::FailedPrecondition, &[], "The node has no serial console.", "Open a terminal in it (netloom shell), where it is a container."),
    http(415, reason("CONTENT_TYPE_UNSUPPORTED", Code::InvalidArgument, &[], "The body is not JSON, or does not say that it is.", "Send `Content-Type: application/json`.")),
    reason("DATABASE_FAILED", Code::Unavailable, &[], "The image registry's database does not work.", "Read the image registry's log; see to disk space and file rights in its data directory."),
    reason("DEADLINE_EXCEEDED", Code::DeadlineExceeded, &[], "The time that the caller gave was over first.", "Give more time. A change that was asked for may still come about: read it back."),
    reason("DEPLOY_INCOMPLETE", Code::FailedPrecondition, &[("lab", "ospf"), ("links", "r1:eth1--r2:eth1"), ("nodes", "r1")], "A deploy is over, and not all of it came up. It is an operation's error, not a call's.", "See each node's and link's reason; correct the topology and apply again."),
    reason("DEVICE_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A node asks for a device that its host does not give.", "Name the device in `devices` of `[compute]`, or do without it."),
    reason("DIGEST_MISMATCH", Code::InvalidArgument, &[], "The content of a file or an image is not what its digest says.", "Compare it with its source, and send it again with its SHA-256."),
    reason("DISK_FULL", Code::ResourceExhausted, &[], "There is no room left on the disk that netloom keeps its data on. Nothing was changed.", "Make room on the disk of `data_dir`, then ask again; what runs runs on meanwhile."),
    reason("ETAG_MISMATCH", Code::Aborted, &[("lab", "ospf")], "Somebody else changed the object since its etag was read.", "Read it again, decide anew, and send the new etag."),
    reason("EXEC_NOT_SUPPORTED", Code::FailedPrecondition, &[], "That cannot be run inside the virtual machine: its kind does not say how commands are typed at its console, or it is not one plain command.", "Use its console (netloom console), or give its kind a table `command_line`."),
    reason("FILES_MISSING", Code::FailedPrecondition, &[("digests", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")], "The spec names files whose content was never sent.", "Send the content in `files`."),
    reason("FILE_TOO_LARGE", Code::InvalidArgument, &[], "A file has more bytes than a lab may have.", "Put it into an image, or mount it from an allowed directory of the host."),
    reason("FILTER_INVALID", Code::InvalidArgument, &[], "The filter of a capture cannot be compiled.", "Correct it; the message has libpcap's own words. The language is pcap-filter(7)."),
    reason("HOST_CONFIGURED", Code::FailedPrecondition, &[], "The host stands in the scheduler's configuration, and is not removed by a call.", "Take it out of `[[hosts]]`, and start the scheduler again."),
    reason("HOST_CORDONED", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "The host takes no new nodes. It is why a node is UNSCHEDULABLE, not a call's error.", "Uncordon it (netloom host uncordon), or give others room."),
    reason("HOST_ERROR", Code::Internal, &[], "A system call on the host failed.", "Read the compute service's log on that host."),
    reason("HOST_EXISTS", Code::AlreadyExists, &[("host", "h2")], "A machine asks to join under an id that a host has.", "Join under another id (--id), or remove that host first."),
    reason("HOST_FOREIGN", Code::PermissionDenied, &[], "The request names a host that this gateway is not called.", "Use 127.0.0.1 or localhost, or add the name to `allowed_hosts` of `[gateway]`."),
    reason("HOST_INTERFACE_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A link ends in an interface of the host, which the host does not allow.", "Set `host_interfaces` of `[network]`, or end the link elsewhere."),
    reason("HOST_IN_USE", Code::FailedPrecondition, &[("host", "h2"), ("labs", "ospf")], "The host cannot be removed while nodes are on it.", "Destroy these labs first, or remove the host with `force`."),
    reason("HOST_LABEL_MISSING", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "A node asks for labels that its host, and every other one, lacks.", "Correct the labels in `placement`, or give a host these (netloom host label)."),
    reason("HOST_NETWORK_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A node asks for the host's own network, which the host does not allow.", "Set `host_network` of `[compute]`, or do without it."),
    reason("HOST_NOT_FOUND", Code::NotFound, &[("host", "h1")], "There is no such host.", "See ListHosts."),
    reason("HOST_NOT_NAMED", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "The node is to be on another host. It is why a node is UNSCHEDULABLE, not a call's error.", "Name another host in `placement`, or see why that one does not take it."),
    reason("HOST_PATH_NOT_ALLOWED", Code::FailedPrecondition, &[], "A node mounts a path of the host that is not below an allowed directory.", "Put the file beside the topology, or add the directory to `allowed_host_paths` of `[compute]`."),
    reason("HOST_PORT_TAKEN", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A node that is to be made anew publishes a port of the host that somebody else has. What runs is left as it is.", "Give the node another host port, or free this one."),
    reason("HOST_REFUSED", Code::FailedPrecondition, &[("host", "local"), ("lab", "ospf"), ("service", "network")], "A host's service will not take what a lab asks, however often it is told. It is an operation's error, not a call's.", "Change what the message names and deploy again, or destroy the lab."),
    reason("HOST_TAINTED", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "The host has a taint that the node does not tolerate. It is why a node is UNSCHEDULABLE, not a call's error.", "Tolerate it in `placement`, or take it away (netloom host taint)."),
    reason("HOST_UNAVAILABLE", Code::Unavailable, &[("host", "local"), ("service", "compute")], "A host's service does not answer.", "Check that netloom runs on that host, then try again."),
    reason("HOST_UNKNOWN", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A running node's host is not heard of, so it cannot be given more.", "Try again when the host is back."),
    reason("IMAGE_ARCHITECTURE_MISMATCH", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "An image is for another processor than its host has.", "Use an image of the host's architecture."),
    reason("IMAGE_CORRUPT", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "An image's bytes in the store are not the ones that were stored.", "Push the image again."),
    reason("IMAGE_DAMAGED", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed image's own tables contradict themselves.", "Get it anew, or convert it with `qemu-img convert`."),
    reason("IMAGE_DIFFERS", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "Hosts that nodes of one deploy go to have different images under one name.", "Push the one that is meant, which all hosts fetch then, or load the same on each."),
    reason("IMAGE_ENCRYPTED", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed disk is encrypted, and no host has its key.", "Make a plain one with `qemu-img convert`."),
    reason("IMAGE_FORMAT_MISMATCH", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "An image is of a format that the node's runtime cannot start.", "Use another image, or another kind."),
    reason("IMAGE_FORMAT_OTHER", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed image is not what it is said to be.", "Leave the format out, or push the file that was meant."),
    reason("IMAGE_FORMAT_UNKNOWN", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed file's content tells no format.", "Say that it is `raw` or `iol`, if it is."),
    reason("IMAGE_HAS_BACKING_FILE", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed qcow2 disk is an overlay of another file, which a host would read in its place.", "Make it whole with `qemu-img convert -O qcow2 FILE WHOLE`."),
    reason("IMAGE_HAS_DATA_FILE", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed qcow2 disk keeps its data in another file, which a host would read in its place.", "Make it whole with `qemu-img convert -O qcow2 FILE WHOLE`."),
    reason("IMAGE_IN_USE", Code::FailedPrecondition, &[("image", "example/router:1"), ("labs", "ospf")], "Labs use the image that is to be removed.", "Destroy them, or give their nodes another image, first."),
    reason("IMAGE_MISSING", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "An image is not on the node's host and may not be pulled.", "Pull or build it there, or set the node's `image-pull-policy`."),
    reason("IMAGE_NOT_FOUND", Code::NotFound, &[("image", "example/router:1")], "There is no such image.", "See ListImages; for a node: pull it, or build it under this name."),
    reason("IMAGE_NOT_STORED", Code::FailedPrecondition, &[("image", "example/router:1")], "The store has no bytes of the image.", "Push it with `netloom image push`."),
    reason("IMAGE_NOT_SUPPORTED", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed image is compressed, or of a format that is not used here.", "Unpack or convert it; the message says how."),
    reason("IMAGE_REFERENCE_INVALID", Code::InvalidArgument, &[], "A text is no image reference.", "Write `[registry/]name[:tag]`."),
    reason("IMAGE_REGISTRY_UNAVAILABLE", Code::Unavailable, &[], "The image registry does not answer.", "Check that it runs, then try again."),
    reason("IMAGE_TOO_LARGE", Code::FailedPrecondition, &[("images", "example/router:1"), ("nodes", "r1")], "An image has more bytes than the node's host has room for, beside others that have to come there.", "Make room on the host's disk, or place the node elsewhere."),
    reason("IMAGE_TRUNCATED", Code::InvalidArgument, &[("image", "example/router:1")], "A pushed image ends before it should.", "Get it anew, and compare its size and SHA-256 with its source."),
    reason("IMPAIRMENT_NOT_SUPPORTED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A link asks for an impairment that the host's kernel cannot do.", "Do without it, or use a host that can."),
    reason("INSUFFICIENT_CPU", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A running node asks for more CPU than its host has free.", "Ask for less, or make room on the host."),
    reason("INSUFFICIENT_DISK", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A running node asks for more disk than its host has free.", "Ask for less, or make room on the host."),
    reason("INSUFFICIENT_MEMORY", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A running node asks for more memory than its host has free.", "Ask for less, or make room on the host."),
    reason("INTERNAL", Code::Internal, &[], "A fault of netloom's own.", "Read the service's log, by the trace id of the call, and report it."),
    reason("INVALID_REQUEST", Code::InvalidArgument, &[], "Fields of the request are wrong; `BadRequest` names each.", "Correct them; sending the same again cannot help."),
    reason("JOIN_DISABLED", Code::FailedPrecondition, &[], "Hosts cannot join here.", "Set `join_listen` of `[scheduler]`, and start the scheduler again."),
    reason("JOIN_TOKEN_EXPIRED", Code::FailedPrecondition, &[], "The token that a machine joins with is no longer good.", "Make another one: netloom host token."),
    reason("JOIN_TOKEN_UNKNOWN", Code::Unauthenticated, &[], "The token that a machine joins with was never made here.", "Copy it whole, or make another one: netloom host token."),
    reason("JOIN_TOKEN_USED", Code::FailedPrecondition, &[], "A machine has joined with this token already.", "Make another one for this machine: netloom host token."),
    reason("KIND_NOT_FOUND", Code::NotFound, &[("kind", "nosuch")], "There is no such kind.", "See ListKinds."),
    reason("KVM_MISSING", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "The node is a virtual machine that needs KVM, and those of the host are emulated, or it does not tell. It is why a node is UNSCHEDULABLE, not a call's error.", "See to KVM on the host (netloom doctor there says what is wrong); the node is placed once guests run by it. Or let it be emulated: `kvm: preferred` in `placement`."),
    reason("LAB_DOES_NOT_FIT", Code::ResourceExhausted, &[("lab", "ospf"), ("nodes", "r1,r2")], "The lab is to run as a whole or not at all, and some of its nodes fit on no host. Nothing was changed; `BadRequest` has each host's reason.", "Make room, ask for less, or let what fits run: `placement-policy: best-effort`."),
    reason("LAB_EXISTS", Code::AlreadyExists, &[("lab", "ospf")], "A lab of this name is there already.", "Take another name, or use ApplyLab to change it."),
    reason("LAB_NOT_FOUND", Code::NotFound, &[("lab", "ospf")], "There is no such lab.", "See ListLabs."),
    reason("LAB_REMOVED", Code::FailedPrecondition, &[], "The lab was removed while this was under way.", "Deploy it again."),
    reason("LINK_EXISTS", Code::AlreadyExists, &[("link", "r1:eth1--r2:eth1")], "The lab has a link between these ends already.", "Update it to change it."),
    reason("LINK_NOT_FOUND", Code::NotFound, &[("link", "r1:eth1--r2:eth1")], "There is no such link in the lab.", "See ListLinks; a link's id is its sorted ends."),
    http(405, reason("METHOD_NOT_ALLOWED", Code::Unimplemented, &[("allow", "GET, HEAD, OPTIONS")], "The path does not take this HTTP method.", "Use one of the header `Allow`.")),
    reason("NAME_TAKEN", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "Something that is not this installation's has the name that a node's container needs.", "Remove it, or give the lab another name or prefix."),
    reason("NIC_NOT_FOUND", Code::NotFound, &[("nic", "17")], "An interface that was to be captured went away meanwhile.", "Look at the lab's links, and ask again."),
    reason("NODE_APART", Code::FailedPrecondition, &[("host", "h2"), ("nodes", "r1")], "A node that this one is to be apart from is on the host. It is why a node is UNSCHEDULABLE, not a call's error.", "Give the lab another host, or leave `apart-from` out."),
    reason("NODE_HAS_NO_PROCESS", Code::FailedPrecondition, &[("node", "sw")], "The node is a segment, which cannot be started or stopped.", "Take its links down instead."),
    reason("NODE_NOT_FOUND", Code::NotFound, &[("node", "r1")], "There is no such node in the lab.", "See ListNodes."),
    reason("NODE_NOT_MOVABLE", Code::FailedPrecondition, &[("nodes", "r1"), ("why", "DISK_ON_HOST")], "None of the nodes that are to move can: `why` is the code of the first, as in a plan.", "The message says what to do for each, for instance `--lose-disks` for a virtual machine."),
    reason("NODE_NOT_RUNNING", Code::FailedPrecondition, &[("node", "r1"), ("state", "STOPPED")], "The node does not run, so nothing can be run in it.", "Start it, or see why it does not run."),
    reason("NODE_SET_ASIDE", Code::FailedPrecondition, &[("node", "r1")], "The node is not part of what the lab was last asked to be, and its container is kept until a deploy succeeds.", "Deploy the file that has it: its container comes back."),
    reason("NOT_CANCELLABLE", Code::FailedPrecondition, &[("operation", "019aa000-0000-7000-8000-000000000001")], "A removal cannot be taken back, nor a deploy of which everything is there: what was before it is being removed.", "Wait for its end and deploy what you want."),
    reason("NOT_CHOSEN", Code::FailedPrecondition, &[], "A host would take the node, and another one was chosen. A plan says so; it is no call's error.", "Nothing; pin the node with `placement` where it has to be there."),
    reason("NOT_THE_LEADER", Code::Unavailable, &[], "Another scheduler leads on the database; the one that was asked did nothing.", "Ask again: the one that leads answers. Where it comes each time, name all of them in `[endpoints] scheduler`."),
    reason("NO_DIRECT_IO", Code::FailedPrecondition, &[], "The file system that the disks of virtual machines would be on cannot bypass the page cache (`O_DIRECT`), without which a base image that several share can be damaged.", "Put `data_dir` on ext4, xfs or another file system that has it."),
    reason("OPERATION_ACTIVE", Code::FailedPrecondition, &[("lab", "ospf"), ("operation", "019aa000-0000-7000-8000-000000000001")], "Another operation works on the lab.", "Wait for it, or cancel it; `operation` names it."),
    reason("OPERATION_DONE", Code::FailedPrecondition, &[("operation", "019aa000-0000-7000-8000-000000000001")], "The operation is over and cannot be cancelled.", "Nothing."),
    reason("OPERATION_NOT_FOUND", Code::NotFound, &[("operation", "019aa000-0000-7000-8000-000000000001")], "There is no such operation.", "See ListOperations; old ones are forgotten."),
    reason("ORIGIN_FOREIGN", Code::PermissionDenied, &[], "A web page of another origin asks.", "Add the page's origin to `allowed_origins` of `[gateway]` if it may."),
    reason("OUT_OF_RANGE", Code::OutOfRange, &[], "A message has more bytes than are taken here.", "Send less at once."),
    reason("PAGE_TOKEN_INVALID", Code::InvalidArgument, &[], "The page token was not given out for this list.", "Begin again without one, or pass `next_page_token` unchanged."),
    reason("PATH_NOT_FOUND", Code::NotFound, &[], "There is nothing at this path.", "See `/openapi.json`."),
    reason("PEER_REFUSED", Code::PermissionDenied, &[], "A program shows a valid certificate, of somebody who may not ask for this.", "See who calls: only the controller calls hosts, and hosts call only what is theirs."),
    reason("PLAN_OVERTAKEN", Code::Aborted, &[], "The lab or its hosts kept changing while it was planned.", "Try again."),
    reason("PULL_FAILED", Code::Unavailable, &[], "A registry did not give an image.", "See the message; check name, network and rights, then try again."),
    reason("QUOTA_EXCEEDED", Code::ResourceExhausted, &[("project", "course"), ("resources", "nodes,cpu")], "The lab asks for more than its project's quota leaves. Nothing was changed; `BadRequest` has what is asked for, used and allowed of each resource.", "Ask for less, destroy other labs of the project, or have its quota raised (netloom quota set)."),
    reason("QUOTA_NOT_FOUND", Code::NotFound, &[("project", "course")], "The project has no quota.", "See ListQuotas."),
    reason("REGISTRY_DENIED", Code::PermissionDenied, &[("image", "registry.example/router:1")], "A registry does not give an image to whoever asks as this.", "Name credentials: `--auth-file`, or `docker_config` of `[image_registry]`."),
    reason("RELIST_NEEDED", Code::OutOfRange, &[("since", "41")], "Events after this number are not kept any more, or there was no such number yet.", "Watch again without a number: a snapshot comes first."),
    reason("REQUEST_ID_REUSED", Code::InvalidArgument, &[("operation", "019aa000-0000-7000-8000-000000000001")], "The request id was used for something else.", "Use a new UUID for a new request."),
    reason("RUNTIME_MISSING", Code::FailedPrecondition, &[], "No host runs what the nodes need.", "Start it (Docker, say) on a host, then try again."),
    reason("RUNTIME_OVERLOADED", Code::ResourceExhausted, &[], "So many calls wait for the runtime of the node's host that no more are taken.", "Try again in a moment; see whether libvirtd hangs there."),
    reason("RUNTIME_REFUSED", Code::FailedPrecondition, &[], "The runtime does not take what was asked of it.", "See the message, which is the runtime's."),
    reason("RUNTIME_UNREACHABLE", Code::Unavailable, &[], "The runtime on the node's host does not answer.", "Check that Docker runs there, then try again."),
    reason("SECURITY_OPTION_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A node asks for a security option that its host does not give.", "Name it in `security_opts` of `[compute]`, or do without it."),
    reason("SERVICE_UNREACHABLE", Code::Unavailable, &[("service", "the scheduler at unix:/run/netloom/scheduler.sock")], "A service behind the gateway does not answer.", "Check that it runs, then try again."),
    reason("SHUTTING_DOWN", Code::Unavailable, &[], "The gateway is ending.", "Ask again."),
    reason("SNAPSHOT_EXISTS", Code::AlreadyExists, &[], "The node has a snapshot of that name already.", "Delete it, or give the new one another name."),
    reason("SNAPSHOT_NOT_FOUND", Code::NotFound, &[], "The node has no snapshot of that name.", "List those that it has (netloom node snapshot list)."),
    reason("SNAPSHOT_NOT_SUPPORTED", Code::FailedPrecondition, &[], "The node is no virtual machine: only a disk of its own can be kept as it is.", "Make an image of a container with docker commit."),
    reason("STREAM_ENDED", Code::Unavailable, &[("service", "the scheduler at unix:/run/netloom/scheduler.sock")], "A service ended a stream that has no end.", "Ask again; a watch resumes from its last number."),
    reason("SUBNET_TAKEN", Code::FailedPrecondition, &[("host", "local"), ("nodes", "r1")], "A management network is to have addresses that another Docker network of the host has. What runs is left as it is.", "Give `mgmt` another subnet, or remove that network."),
    reason("TICKET_EXPIRED", Code::Unauthenticated, &[], "A way into a node was opened too late.", "Ask again; see whether the clocks of the hosts agree."),
    reason("TICKET_KEY_REFUSED", Code::PermissionDenied, &[], "The image registry knows another scheduler than the one that asks it.", "Where the scheduler was set up anew, start the image registry once with `new_scheduler = true` in `[image_registry]`."),
    reason("TOKEN_INVALID", Code::Unauthenticated, &[], "No token was shown, or not the right one.", "Send `Authorization: Bearer` and the content of `admin.token`, or use the Unix socket."),
    reason("TOPOLOGY_INVALID", Code::InvalidArgument, &[], "The topology file has errors; `BadRequest` names each with file, line and column.", "Correct them."),
    reason("UNIMPLEMENTED", Code::Unimplemented, &[], "There is no such method here.", "See the contract, or use a server of the client's version."),
    reason("UPLINK_NOT_ALLOWED", Code::FailedPrecondition, &[("host", "local"), ("nodes", "sw")], "A bridge is to be joined to an interface of a host that lets labs use no such one.", "Name it in `uplinks` of `[network]` of the host that has it, or leave `uplink` out."),
    reason("UPLINK_NOT_FREE", Code::FailedPrecondition, &[("host", "local"), ("nodes", "sw")], "The uplink of a bridge is not there, is in use by the host, or is another bridge's. It is why a node is UNSCHEDULABLE, not a call's error.", "See the host's reason; the node is placed once the uplink can be had."),
    reason("UPLOAD_DIGEST_MISSING", Code::FailedPrecondition, &[("upload", "019aa000-0000-7000-8000-000000000001")], "An upload that was gone on with by the name of its file is to be finished without its SHA-256: what came may be of two files of that name.", "Say the `digest` of the whole file, or delete the upload and begin again."),
    reason("UPLOAD_INCOMPLETE", Code::InvalidArgument, &[("offset", "1048576")], "An upload is to be finished before all its bytes have come.", "Send the rest, from `offset` on."),
    reason("UPLOAD_NOT_FOUND", Code::NotFound, &[("upload", "019aa000-0000-7000-8000-000000000001")], "There is no such upload: it is finished, or was given up.", "Begin again with CreateUpload."),
    reason("UPLOAD_OFFSET_MISMATCH", Code::FailedPrecondition, &[("offset", "1048576")], "Bytes of an upload do not follow on those before.", "Go on at `offset`."),
    reason("UPLOAD_SILENT", Code::DeadlineExceeded, &[("upload", "019aa000-0000-7000-8000-000000000001")], "Whoever sent bytes of an upload said nothing for a minute, and lost its turn.", "Ask how far the upload is, and go on there: what came is kept."),
    reason("UPLOAD_TOO_LONG", Code::InvalidArgument, &[], "More bytes came than the upload was said to have.", "Begin again with the right size."),
    reason("VNI_EXHAUSTED", Code::ResourceExhausted, &[("lab", "ospf"), ("link", "r1:eth1--r2:eth1")], "A link between two hosts needs a network identifier, and all that may be used are in use.", "Destroy labs with links between hosts, or widen `first_vni` and `last_vni` of `[scheduler]`."),
];

/// What services tell each other only. A caller who is told one of these has found a fault.
#[rustfmt::skip]
pub const INTERNAL: &[Reason] = &[
    reason("DISK_CUT_OFF", Code::Unavailable, &[], "Not all of a disk came to the host that it moves to, or other bytes than were read.", "The scheduler copies it again."),
    reason("DISK_NOT_HERE", Code::FailedPrecondition, &[], "A virtual machine is to begin on a disk that was not copied to its host.", "The scheduler copies it first."),
    reason("DISK_NOT_SUPPORTED", Code::FailedPrecondition, &[], "The disk of what is no virtual machine was to be copied, or to a host that runs none.", "The scheduler leaves the node where it is."),
    reason("NOT_SYNCED", Code::FailedPrecondition, &[], "A host was asked to remove something before it was told what it is to have.", "The scheduler sends Sync."),
    reason("OVERTAKEN", Code::Aborted, &[], "A host was told something that was made out before what it was told since, or before it lost its leases.", "The scheduler tells it anew."),
    reason("REMOVAL_FAILED", Code::Unavailable, &[], "A host could not remove everything yet.", "The scheduler asks again."),
    reason("STALE_TERM", Code::FailedPrecondition, &[("current", "2"), ("given", "1")], "A scheduler that was replaced asked.", "It ends."),
    reason("TICKET_INVALID", Code::PermissionDenied, &[], "A ticket does not open what was asked for.", "The gateway asks for a new one."),
    reason("TIMED_OUT", Code::DeadlineExceeded, &[], "A host did not answer in time.", "The scheduler asks again."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_unique_and_well_formed() {
        for table in [REASONS, INTERNAL] {
            assert!(table.is_sorted_by(|a, b| a.name < b.name));
            for r in table {
                assert!(r.name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), "{}", r.name);
                assert!(r.meaning.ends_with('.') && r.advice.ends_with('.'), "{}", r.name);
                assert!(r.facts.is_sorted(), "{}", r.name);
            }
        }
        assert!(INTERNAL.iter().all(|i| REASONS.iter().all(|r| r.name != i.name)));
        assert_eq!(find("LAB_NOT_FOUND").map(|r| r.code), Some(Code::NotFound));
    }
}
