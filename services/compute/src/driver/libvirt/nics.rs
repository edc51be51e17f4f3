//! NICs of a running machine, read from its live XML, which libvirt writes.

/// A NIC and its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicLink {
    /// Name of its tap.
    pub tap: String,
    /// Its address.
    pub mac: String,
    /// The guest sees a cable.
    pub up: bool,
    /// It is a port of a Linux bridge from its start on: management.
    pub on_bridge: bool,
}

impl NicLink {
    /// Reads an element; none when it is not of a NIC with a tap.
    pub fn read(element: &str) -> Option<NicLink> {
        let up = attribute(element, "<link ", "state") != Some("down");
        let mac = attribute(element, "<mac ", "address").unwrap_or_default().to_owned();
        let on_bridge = attribute(element, "<source ", "bridge").is_some();
        Some(NicLink { tap: attribute(element, "<target ", "dev")?.to_owned(), mac, up, on_bridge })
    }
}

/// The NICs of a machine.
pub fn read(xml: &str) -> Vec<NicLink> {
    elements(xml).filter_map(NicLink::read).collect()
}

/// The elements of a machine's NICs.
pub fn elements(xml: &str) -> impl Iterator<Item = &str> {
    each(xml, "<interface ", "</interface>")
}

/// The elements that begin and end so.
pub fn each<'a>(xml: &'a str, begin: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    xml.match_indices(begin).filter_map(move |(at, _)| {
        let rest = &xml[at..];
        Some(&rest[..rest.find(end)? + end.len()])
    })
}

/// The element with its link up or down, for libvirt to make it so: what it changes must be whole, and the same otherwise.
pub fn with_link(element: &str, up: bool) -> String {
    let link = format!("<link state='{}'/>", if up { "up" } else { "down" });
    match element.find("<link ").and_then(|at| Some((at, at + element[at..].find("/>")? + 2))) {
        Some((from, to)) => format!("{}{link}{}", &element[..from], &element[to..]),
        None => element.replace("</interface>", &format!("{link}</interface>")),
    }
}

/// An attribute of the first element that begins so.
pub fn attribute<'a>(xml: &'a str, element: &str, name: &str) -> Option<&'a str> {
    let inside = &xml[xml.find(element)? + element.len() - 1..];
    let inside = &inside[..inside.find('>')?];
    let value = &inside[inside.find(&format!(" {name}="))? + name.len() + 2..];
    let quote = value.chars().next().filter(|c| "'\"".contains(*c))?;
    value[1..].split(quote).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<domain>
    <interface type='ethernet'>
      <mac address='02:00:00:00:00:01'/>
      <target dev='nv01'/>
      <link state='down'/>
    </interface>
    <interface type='ethernet'>
      <target managed='no' dev=\"nl02\"/>
      <link state='up'/>
    </interface>
    <interface type='network'><source network='default'/></interface>
    <interface type='ethernet'><target dev='nl03'/></interface>
    <interface type='bridge'><source bridge='nlm1'/><target dev='nv04'/><link state='up'/></interface>
  </domain>";

    #[test]
    fn links_are_read_and_written() {
        let of = |tap: &str, mac: &str, up| NicLink {
            tap: tap.into(),
            mac: mac.into(),
            up,
            on_bridge: tap == "nv04",
        };
        let nics = read(XML);
        let first = of("nv01", "02:00:00:00:00:01", false);
        assert_eq!(nics, [first, of("nl02", "", true), of("nl03", "", true), of("nv04", "", true)]);
        for element in elements(XML).filter(|element| element.contains("target")) {
            let nic = NicLink::read(element).unwrap();
            for up in [true, false] {
                let other = with_link(element, up);
                assert_eq!(NicLink::read(&other), Some(of(&nic.tap, &nic.mac, up)));
                assert_eq!(other.matches("<link ").count(), 1, "{other}");
            }
            let same = with_link(element, nic.up);
            assert!(same == element || !element.contains("<link "), "{same}");
        }
    }
}
