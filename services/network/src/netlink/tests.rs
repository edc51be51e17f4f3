use super::*;

#[test]
fn the_loopback_interface_is_found() {
    let links = Netlink::open().unwrap().links().unwrap();
    assert!(links.iter().any(|l| l.name == "lo" && l.index == 1), "{links:?}");
}

#[test]
fn each_request_of_a_batch_has_its_own_outcome() {
    // Interface numbers that cannot exist; more than one chunk.
    let requests = (0..150).map(|n| Request::delete_link(0x7fff_0000 + n)).collect();
    let outcomes = Netlink::open().unwrap().batch(requests).unwrap();
    assert_eq!(outcomes.len(), 150);
    let allowed = [libc::ENODEV, libc::EPERM];
    assert!(outcomes.iter().all(|o| o.as_ref().is_err_and(|e| allowed.contains(&e.errno))), "{outcomes:?}");
}

#[test]
fn what_a_bridge_tells_of_a_port_is_not_taken_for_the_interface() {
    let mut message = vec![0; LINK_HEADER];
    message[4] = 9;
    // Its name, "br0".
    message.extend([8, 0, 3, 0, b'b', b'r', b'0', 0]);
    assert_eq!(Link::parse(&message).map(|link| link.index), Some(9));
    message[0] = AF_BRIDGE;
    assert!(Link::parse(&message).is_none());
}

#[test]
fn a_generic_family_is_told_from_none() {
    assert!(has_generic_family("nlctrl").unwrap());
    assert!(!has_generic_family("no-such-family").unwrap());
}

#[test]
fn any_bytes_are_cut_without_harm() {
    for length in 0..40 {
        let bytes = vec![0xff; length];
        assert!(messages(&bytes).count() <= length);
        assert!(Link::parse(&bytes).is_none());
    }
}

#[test]
fn an_interface_is_read_by_its_number_here_and_elsewhere() {
    let mut netlink = Netlink::open().unwrap();
    // Loopback; one that cannot be; and one in a namespace that has no number here.
    let read = netlink.read(&[(None, 1), (None, 0x7fff_0000), (Some(0x7fff_fff0), 1)]).unwrap();
    assert_eq!(read.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(read[0].as_ref().unwrap().name, "lo");
}
