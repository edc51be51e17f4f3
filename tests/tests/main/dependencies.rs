//! The direction of dependencies, as `docs/architecture.md` draws it.

use std::collections::BTreeMap;

use cargo_metadata::{DependencyKind, MetadataCommand};

#[test]
fn dependencies_point_one_way() {
    let metadata = MetadataCommand::new().no_deps().exec().expect("cargo metadata");
    let crates: BTreeMap<String, Vec<String>> = metadata
        .packages
        .iter()
        .map(|p| {
            let normal = p.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
            (p.name.to_string(), normal.map(|d| d.name.clone()).collect())
        })
        .collect();
    let services = [
        "netloom-scheduler",
        "netloom-image-registry",
        "netloom-network",
        "netloom-compute",
        "netloom-gateway",
    ];
    let depends = |who: &str, on: &str| crates[who].iter().any(|d| d == on);
    for who in services {
        for on in services {
            assert!(!depends(who, on), "{who} depends on {on}: services talk over channels only");
        }
    }
    for who in crates.keys() {
        // The benches ask the placement itself.
        let assembles = ["netloomd", "netloom-host", "netloom-benches"].contains(&who.as_str());
        assert!(assembles || !services.iter().any(|s| depends(who, s)), "{who} depends on a service");
        if depends(who, "netloom-api") {
            assert!(
                ["netloom-gateway", "netloom-cli", "netloom-benches"].contains(&who.as_str()),
                "{who} uses public messages"
            );
        }
        for (heavy, only) in [
            ("bollard", "netloom-compute"),
            ("virt", "netloom-compute"),
            ("virt-sys", "netloom-compute"),
            ("netloom-ovsdb", "netloom-network"),
            ("netloom-openflow", "netloom-network"),
            ("saphyr-parser", "netloom-topology"),
            ("redis", "netloom-bus"),
        ] {
            let measures = who == "netloom-benches";
            assert!(
                !depends(who, heavy) || who == only || measures,
                "{who} depends on {heavy}, which is {only}'s"
            );
        }
    }
    for pure in ["netloom-image", "netloom-model", "netloom-topology"] {
        assert!(!depends(pure, "tokio"), "{pure} is pure");
    }
}
