//! What is needed of what this host keeps, once it is known what it is to run and what exists on it: anything else may go.

use std::collections::BTreeSet;

use netloom_model::id::{Digest, LabUid};

use super::{Inner, Table};
use crate::images::pinned;

impl Table {
    /// Labs of which an instance is in the slice or exists; none as long as that is not known.
    pub fn labs(&self) -> Option<BTreeSet<LabUid>> {
        let inner = self.lock();
        inner.knows_all().then(|| inner.entries.values().map(|e| e.lab_uid).collect())
    }

    /// Digests of the images that instances of the slice, or that exist, are made from; none as long as those are not known.
    pub fn images(&self) -> Option<BTreeSet<Digest>> {
        let inner = self.lock();
        let slice = inner.entries.values().filter_map(|e| e.instance());
        // A name may mean an image that was judged by its digest.
        let of_slice = slice.flat_map(|i| [i.spec.image.as_str(), i.image_digest.as_str()]);
        let found = inner.entries.values().filter_map(|e| e.found.as_ref()).map(|f| f.image_digest.as_str());
        inner.knows_all().then(|| pinned(of_slice.chain(found)))
    }
}

impl Inner {
    /// True when a Sync was taken and it is known what exists.
    fn knows_all(&self) -> bool {
        self.synced && self.sees_all()
    }

    /// True when it is known what exists: all drivers answer.
    pub(super) fn sees_all(&self) -> bool {
        (0..self.answers.len()).all(|driver| self.sees(driver))
    }

    /// True when it is known what exists of a driver: it answers, or it never did and neither the configuration nor what an earlier run left says that it is on this
    /// host.
    pub(super) fn sees(&self, driver: usize) -> bool {
        self.answers[driver] || !self.needed[driver]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use netloom_model::id::NodeUid;

    use super::*;
    use crate::config::Config;
    use crate::driver::testing::instance;
    use crate::files::Files;

    /// A table over these drivers, after a Sync of one instance of this image.
    fn table(config: &Config, image: &str, digest: &str) -> Table {
        let dir = tempfile::tempdir().unwrap();
        table_in(dir.path(), config, image, digest)
    }

    fn table_in(dir: &Path, config: &Config, image: &str, digest: &str) -> Table {
        let drivers = config.drivers(dir).into_iter().map(|(name, needed)| (name.source(), needed)).collect();
        let table = Table::new(drivers, Default::default(), Arc::new(Files::open(dir).unwrap()));
        let mut one = instance();
        (one.spec.image, one.image_digest) = (image.to_owned(), digest.to_owned());
        table.sync(vec![(0, one)], "");
        table
    }

    #[tokio::test]
    async fn a_runtime_that_never_answered_keeps_no_removal_of_what_nobody_knows_from_its_end() {
        let table = table(&Config::default(), "i:1", "");
        let removed = || table.remove(&[NodeUid::new()], &[], "").remove(0).1;
        assert!(removed().await.unwrap().is_err(), "Docker has not answered: it may be there");
        table.answers(0, true, Default::default());
        assert_eq!(removed().await.unwrap(), Ok(()), "libvirt is not on this host");
        table.answers(1, true, Default::default());
        table.answers(1, false, Default::default());
        assert!(removed().await.unwrap().is_err(), "libvirt is away: it may be there");
    }

    #[tokio::test]
    async fn machines_that_outlived_a_service_are_not_taken_for_gone_while_libvirt_is_silent() {
        let dir = tempfile::tempdir().unwrap();
        let machine = dir.path().join("instances").join(NodeUid::new().to_string());
        std::fs::create_dir_all(&machine).unwrap();
        let table = table_in(dir.path(), &Config::default(), "i:1", "");
        table.answers(0, true, Default::default());
        table.answers(1, false, Default::default());
        let removed = |table: &Table| table.remove(&[NodeUid::new()], &[], "").remove(0).1;
        assert!(removed(&table).await.unwrap().is_err(), "it may be a machine that runs on");
        let mut vm = instance();
        (vm.uid, vm.spec.image) = (NodeUid::new(), String::new());
        let (uid, lab) = (vm.uid, vm.lab_uid);
        table.ensure(vec![(1, vm)], "");
        for (_, gone) in table.remove(&[uid], &[lab], "").into_iter().filter(|(u, _)| *u == uid) {
            assert!(gone.await.unwrap().is_err(), "it runs on, for all that is known");
        }
        assert_eq!((table.labs(), table.images()), (None, None), "and its lab's files and its base stay");
        std::fs::remove_dir(machine).unwrap();
        let table = table_in(dir.path(), &Config::default(), "i:1", "");
        table.answers(0, true, Default::default());
        assert_eq!(removed(&table).await.unwrap(), Ok(()), "no machine was left");
    }

    #[test]
    fn a_runtime_that_nobody_named_and_that_is_not_there_keeps_nothing_from_being_collected() {
        let table = table(&Config::default(), "i:1", "");
        let answers = |driver, answers| table.answers(driver, answers, Default::default());
        assert_eq!((table.labs(), table.images()), (None, None), "Docker has not answered");
        answers(0, true);
        answers(1, false);
        let labs = BTreeSet::from([instance().lab_uid]);
        assert_eq!((table.labs(), table.images()), (Some(labs), Some(BTreeSet::new())));
        answers(1, true);
        assert!(table.labs().is_some());
        answers(1, false);
        assert_eq!((table.labs(), table.images()), (None, None), "it has answered, and may have something");
    }

    #[test]
    fn a_runtime_that_was_named_is_waited_for() {
        use crate::config::DriverName::{Docker, Libvirt};
        let config = Config { drivers: Some(vec![Docker, Libvirt]), ..Config::default() };
        let table = table(&config, "i:1", "");
        table.answers(0, true, Default::default());
        assert_eq!((table.labs(), table.images()), (None, None));
    }

    #[test]
    fn an_image_that_is_named_by_a_tag_is_kept_by_its_digest() {
        let digest = Digest::of(b"a disk");
        let table = table(&Config::default(), "router:1", digest.as_str());
        table.answers(0, true, Default::default());
        assert_eq!(table.images(), Some(BTreeSet::from([digest])));
    }
}
