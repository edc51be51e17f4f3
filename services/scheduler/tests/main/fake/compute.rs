//! The fake host's compute service.

use std::collections::BTreeMap;

use netloom_model::failure::{Code, Failure};
use netloom_model::id::Digest;
use netloom_model::observed::{ExecPhase, Phase};
use netloom_proto::compute::v1 as pc;
use netloom_proto::compute::v1::compute_service_server::ComputeService;
use netloom_service::order::Decision;
use netloom_service::status::to_status;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Answer, Host, State, Stream_, changed, observe, overtaken};

#[tonic::async_trait]
impl ComputeService for Host {
    async fn sync(&self, request: Request<pc::SyncRequest>) -> Answer<pc::SyncResponse> {
        let request = request.into_inner();
        self.called("compute.sync", Some(request.term), request.encoded_len()).await?;
        self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            s.instance_order.admit_all(of).map_err(overtaken)?;
            s.keep_leases(&request.beat, &request.instances, true)?;
            s.wanted = request.instances.into_iter().map(|i| (i.uid.clone(), i)).collect();
            s.ticket_key = request.ticket_key;
            s.synced = true;
            Ok::<_, Status>(())
        })?;
        Ok(Response::new(pc::SyncResponse {}))
    }

    async fn ensure(&self, request: Request<pc::EnsureRequest>) -> Answer<pc::EnsureResponse> {
        let request = request.into_inner();
        self.called("compute.ensure", Some(request.term), request.encoded_len()).await?;
        self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            let objects = request.instances.iter().flat_map(|i| [&i.uid, &i.lab_uid]);
            s.instance_order.admit(of, objects.cloned()).map_err(overtaken)?;
            s.keep_leases(&request.beat, &request.instances, false)?;
            s.wanted.extend(request.instances.into_iter().map(|i| (i.uid.clone(), i)));
            Ok::<_, Status>(())
        })?;
        Ok(Response::new(pc::EnsureResponse {}))
    }

    async fn remove(&self, request: Request<pc::RemoveRequest>) -> Answer<pc::RemoveResponse> {
        let request = request.into_inner();
        self.called("compute.remove", Some(request.term), request.encoded_len()).await?;
        let mut version = self.version.subscribe();
        while self.read(|s| s.hold_removals) {
            let _ = version.changed().await;
        }
        let failures = self.with(|s| {
            let of = Decision { term: request.term, number: request.decision };
            let objects = request.uids.iter().chain(&request.lab_uids).cloned();
            s.instance_order.admit(of, objects).map_err(overtaken)?;
            let mut failures = Vec::new();
            for uid in &request.uids {
                s.wanted.remove(uid);
                s.leases.remove(uid);
                if s.busy && s.exists.contains_key(uid) {
                    failures.push(pc::RemoveFailure { uid: uid.clone(), message: "it is busy".into() });
                } else {
                    s.exists.remove(uid);
                    s.disks.remove(uid);
                    s.removed.insert(uid.clone());
                }
            }
            for lab in request.lab_uids {
                if s.stuck.is_empty() {
                    s.calls.push(format!("lab gone {lab}"));
                    s.files.clear();
                } else {
                    failures.push(pc::RemoveFailure { uid: lab, message: s.stuck.clone() });
                }
            }
            Ok::<_, Status>(failures)
        })?;
        Ok(Response::new(pc::RemoveResponse { failures }))
    }

    async fn settle(&self, request: Request<pc::SettleRequest>) -> Answer<pc::SettleResponse> {
        let request = request.into_inner();
        self.called("compute.settle", Some(request.term), 0).await?;
        self.with(|s| {
            for start in request.starts {
                let Some(e) = s.exists.get_mut(&start.uid).filter(|e| e.start == start.start_id) else {
                    continue;
                };
                if e.reached.starts_with(&start.reached) {
                    // Said before, or late.
                    continue;
                }
                assert!(start.reached.starts_with(&e.reached), "points only grow");
                for point in &start.reached[e.reached.len()..] {
                    let how = if point.on_exit { "over" } else { "entered" };
                    let stage = point.stage().as_str_name().trim_start_matches("STAGE_").to_ascii_lowercase();
                    s.calls.push(format!("{} {stage} {how}", e.node));
                    if point.stage() == netloom_proto::v1::Stage::Configure && !point.on_exit {
                        e.exec = ExecPhase::Done;
                        s.calls.push(format!("settled {}", e.node));
                    }
                }
                e.reached = start.reached;
            }
        });
        Ok(Response::new(pc::SettleResponse {}))
    }

    async fn renew(&self, request: Request<pc::RenewRequest>) -> Answer<pc::RenewResponse> {
        let request = request.into_inner();
        self.called("compute.renew", Some(request.term), 0).await?;
        self.with(|s| {
            s.look_at_leases();
            let said = s.said(&request.beat);
            if !s.over.is_empty() {
                s.since = s.since.max(said);
            }
            s.renewed = s.renewed.max(said);
            s.look_at_leases();
        });
        Ok(Response::new(pc::RenewResponse {}))
    }

    type ObserveStream = Stream_<pc::ObserveResponse>;

    async fn observe(&self, _: Request<pc::ObserveRequest>) -> Answer<Self::ObserveStream> {
        self.called("compute.observe", None, 0).await?;
        use pc::observe_response::Event as E;
        type Seen = Option<(BTreeMap<String, pc::Observed>, pc::Inventory, bool)>;
        let look = move |s: &State, seen: &mut Seen, due: bool| {
            let now = (s.observed(), s.inventory(), s.synced);
            let messages = match seen {
                Some((old, inventory, synced)) if *synced <= s.synced => {
                    let gone = old.keys().filter(|k| !now.0.contains_key(*k)).cloned().map(E::Gone);
                    let events = changed(old, &now.0).into_iter().map(E::Changed).chain(gone);
                    let news = (*inventory != now.1).then(|| now.1.clone());
                    let beat = (due || news.is_some())
                        .then_some(E::Heartbeat(pc::Heartbeat { inventory: news, ..Default::default() }));
                    events.chain(beat).collect::<Vec<_>>()
                }
                _ => {
                    // A part for each instance, then one that says the rest.
                    let part = |o: &pc::Observed| pc::Snapshot {
                        instances: vec![o.clone()],
                        more: true,
                        ..pc::Snapshot::default()
                    };
                    let inventory = Some(now.1.clone());
                    let last = pc::Snapshot { inventory, synced: s.synced, ..pc::Snapshot::default() };
                    now.0.values().map(part).chain([last]).map(E::Snapshot).collect()
                }
            };
            *seen = Some(now);
            let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
            let clock_us = i64::try_from(now).unwrap() + s.ahead_us;
            let beat = s.beat();
            let said = |event| pc::ObserveResponse { event: Some(event), clock_us, beat: beat.clone() };
            messages.into_iter().map(said).collect()
        };
        Ok(Response::new(observe(self.clone(), look)))
    }

    async fn put_files(
        &self,
        request: Request<Streaming<pc::PutFilesRequest>>,
    ) -> Answer<pc::PutFilesResponse> {
        self.called("compute.put_files", None, 0).await?;
        let mut parts = request.into_inner();
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        while let Some(part) = parts.message().await? {
            self.called("file part", Some(part.term), part.encoded_len()).await?;
            self.with(|s| s.deploys = part.deploys);
            files.entry(part.file.unwrap_or_default().path).or_default().extend(part.content);
        }
        let mut version = self.version.subscribe();
        while self.read(|s| s.hold_files) {
            let _ = version.changed().await;
        }
        if self.read(|s| s.cuts_files) {
            files.values_mut().for_each(|content| content.truncate(content.len() / 2));
            self.with(|s| s.files.extend(files));
            return Err(to_status(Failure::new(Code::FailedPrecondition, "REFUSED", "no space left")));
        }
        self.with(|s| s.files.extend(files));
        Ok(Response::new(pc::PutFilesResponse::default()))
    }

    async fn remove_files(
        &self,
        request: Request<pc::RemoveFilesRequest>,
    ) -> Answer<pc::RemoveFilesResponse> {
        self.called("compute.remove_files", None, 0).await?;
        let pc::RemoveFilesRequest { directories, files, .. } = request.into_inner();
        let below = |path: &str| directories.iter().any(|d| path.starts_with(&format!("{d}/")));
        self.with(|s| s.files.retain(|path, _| files.contains(path) || !below(path)));
        Ok(Response::new(pc::RemoveFilesResponse::default()))
    }

    async fn inspect_images(
        &self,
        request: Request<pc::InspectImagesRequest>,
    ) -> Answer<pc::InspectImagesResponse> {
        self.called("compute.inspect_images", None, 0).await?;
        let mut version = self.version.subscribe();
        while self.read(|s| s.hold_images) {
            let _ = version.changed().await;
        }
        if self.read(|s| s.hides_images) {
            return Err(Status::unavailable("nobody answers"));
        }
        let facts = |q: pc::ImageQuery| pc::ImageFacts {
            present: self.read(|s| s.images.contains(&q.reference)),
            reference: q.reference,
            runtime: q.runtime,
            ..pc::ImageFacts::default()
        };
        let images = request.into_inner().images.into_iter().map(facts).collect();
        Ok(Response::new(pc::InspectImagesResponse { images, room_bytes: None }))
    }

    async fn check_instances(
        &self,
        request: Request<pc::CheckInstancesRequest>,
    ) -> Answer<pc::CheckInstancesResponse> {
        self.called("compute.check_instances", None, 0).await?;
        let request = request.into_inner();
        let why = |i: &pc::Instance| {
            let of = i.spec.iter().flat_map(|s| &s.ports);
            of.map(|p| p.host_port).find(|p| self.read(|s| s.taken_ports.contains(p)))
        };
        let failures = request.instances.iter().filter_map(|i| {
            let message = format!("host port {} is taken", why(i)?);
            Some(pc::CheckFailure { uid: i.uid.clone(), reason: "HOST_PORT_TAKEN".into(), message })
        });
        Ok(Response::new(pc::CheckInstancesResponse { failures: failures.collect() }))
    }

    type PullImageStream = Stream_<pc::PullImageResponse>;

    async fn pull_image(&self, request: Request<pc::PullImageRequest>) -> Answer<Self::PullImageStream> {
        use pc::pull_image_response::Event as E;
        let request = request.into_inner();
        self.called("compute.pull_image", Some(request.term), 0).await?;
        let reference = request.reference;
        if !self.read(|s| s.pullable.contains(&reference)) {
            let why = format!("{reference}: not found upstream");
            return Err(to_status(Failure::new(Code::Unavailable, "PULL_FAILED", why)));
        }
        let mut version = self.version.subscribe();
        while self.read(|s| s.hold_pulls) {
            let _ = version.changed().await;
        }
        if self.read(|s| s.no_registry) {
            let why = "the image registry at unix:/r does not answer; see `image_registry` of [endpoints]";
            return Err(to_status(Failure::new(Code::Unavailable, "IMAGE_REGISTRY_UNAVAILABLE", why)));
        }
        if let Some(reason) = self.with(|s| s.refused_pulls.pop()) {
            return Err(to_status(Failure::new(Code::Aborted, reason, "ask again")));
        }
        let is_cut = self.with(|s| {
            let is_cut = s.cut_pulls > 0;
            s.cut_pulls = s.cut_pulls.saturating_sub(1);
            is_cut
        });
        if is_cut {
            let cut = Status::unknown("h2 protocol error: error reading a body from connection");
            return Ok(Response::new(Box::pin(futures::stream::iter([Err(cut)]))));
        }
        self.with(|s| {
            s.images.insert(reference.clone());
            s.lost_images.retain(|_, lost| !reference.ends_with(&*lost));
            s.aside_images.retain(|aside| !reference.ends_with(&**aside));
            s.spoiled_images.retain(|spoiled| !reference.ends_with(&**spoiled));
        });
        let meant = format!("{reference}{}", if self.read(|s| s.pulls_others) { " of others" } else { "" });
        let facts = pc::ImageFacts {
            digest: Digest::of(meant.as_bytes()).to_string(),
            reference,
            runtime: request.runtime,
            present: true,
            ..pc::ImageFacts::default()
        };
        let events = [E::Progress("half of it".into()), E::Done(facts)];
        let events = events.map(|event| Ok(pc::PullImageResponse { event: Some(event) }));
        Ok(Response::new(Box::pin(futures::stream::iter(events))))
    }

    type VerifyImagesStream = Stream_<pc::VerifyImagesResponse>;

    async fn verify_images(
        &self,
        request: Request<pc::VerifyImagesRequest>,
    ) -> Answer<Self::VerifyImagesStream> {
        use netloom_proto::v1::ImageCheckResult as R;
        use pc::verify_images_response::Event as E;
        let request = request.into_inner();
        self.called("compute.verify_images", Some(request.term), 0).await?;
        let checked = |digest: String| {
            let (result, message) = match self.read(|s| s.spoiled_images.contains(&digest)) {
                true => (R::SetAside, "it was set aside".to_owned()),
                false => (R::Right, String::new()),
            };
            let lies = |i: &&pc::Instance| i.image_digest == digest && result == R::SetAside;
            let node_uids = self.read(|s| s.wanted.values().filter(lies).map(|i| i.uid.clone()).collect());
            pc::CheckedImage { digest, result: result.into(), size_bytes: 1, message, node_uids }
        };
        let far = pc::VerifyProgress { digest: String::new(), done_bytes: 1, total_bytes: 2 };
        let events: Vec<_> = std::iter::once(E::Progress(far))
            .chain(request.digests.into_iter().map(|digest| E::Checked(checked(digest))))
            .map(|event| Ok(pc::VerifyImagesResponse { event: Some(event) }))
            .collect();
        Ok(Response::new(Box::pin(futures::stream::iter(events))))
    }

    type ExecStream = Stream_<pc::ExecResponse>;

    async fn exec(&self, _: Request<Streaming<pc::ExecRequest>>) -> Answer<Self::ExecStream> {
        Err(Status::unimplemented("not part of these tests"))
    }

    type ConsoleStream = Stream_<pc::ConsoleResponse>;

    async fn console(&self, _: Request<Streaming<pc::ConsoleRequest>>) -> Answer<Self::ConsoleStream> {
        Err(Status::unimplemented("not part of these tests"))
    }

    async fn list_snapshots(
        &self,
        _: Request<pc::ListSnapshotsRequest>,
    ) -> Result<Response<pc::ListSnapshotsResponse>, Status> {
        Err(Status::unimplemented("the scheduler does not call this"))
    }

    async fn create_snapshot(
        &self,
        _: Request<pc::CreateSnapshotRequest>,
    ) -> Result<Response<pc::DiskSnapshot>, Status> {
        Err(Status::unimplemented("the scheduler does not call this"))
    }

    async fn delete_snapshot(
        &self,
        _: Request<pc::DeleteSnapshotRequest>,
    ) -> Result<Response<pc::DeleteSnapshotResponse>, Status> {
        Err(Status::unimplemented("the scheduler does not call this"))
    }

    type ReadDiskStream = Stream_<pc::DiskPart>;

    async fn read_disk(&self, request: Request<pc::ReadDiskRequest>) -> Answer<Self::ReadDiskStream> {
        use pc::disk_part::Part;
        let request = request.into_inner();
        let call = if request.size_only { "compute.disk_size" } else { "compute.read_disk" };
        self.called(call, Some(request.term), 0).await?;
        let runs = self.read(|s| s.exists.get(&request.uid).is_some_and(|e| e.phase == Phase::Running));
        if runs && !request.size_only {
            return Err(to_status(Failure::new(Code::Aborted, "BUSY", "it runs")));
        }
        let content = self.read(|s| s.disks.get(&request.uid).cloned().unwrap_or_default()).join("\n");
        let begin = Part::Begin(pc::DiskBegin { size_bytes: content.len() as u64 });
        let file = pc::DiskFile { name: "disk".into(), size_bytes: content.len() as u64 };
        let digest = Digest::of(content.as_bytes()).to_string();
        let data = Part::Data(pc::DiskData { offset: 0, content: content.into_bytes() });
        let rest = [Part::File(file), data, Part::End(pc::DiskEnd { digest })];
        let host = self.clone();
        let rest = futures::stream::once(async move {
            let mut version = host.version.subscribe();
            while host.read(|s| s.hold_disks) {
                let _ = version.changed().await;
            }
            rest.into_iter().filter(|_| !request.size_only).collect::<Vec<_>>()
        });
        let rest = futures::StreamExt::flat_map(rest, futures::stream::iter);
        let parts = futures::StreamExt::chain(futures::stream::iter([begin]), rest);
        let parts = futures::StreamExt::map(parts, |part| Ok(pc::DiskPart { part: Some(part) }));
        Ok(Response::new(Box::pin(parts)))
    }

    async fn write_disk(
        &self,
        request: Request<Streaming<pc::WriteDiskRequest>>,
    ) -> Answer<pc::WriteDiskResponse> {
        use pc::disk_part::Part;
        let mut parts = request.into_inner();
        let mut disk = Vec::new();
        while let Some(part) = parts.message().await? {
            self.called("disk part", Some(part.term), 0).await?;
            if self.read(|s| s.disks.contains_key(&part.uid)) {
                self.with(|s| s.calls.push("disk is here".into()));
                return Ok(Response::new(pc::WriteDiskResponse {}));
            }
            let is_cut = self.with(|s| {
                let is_cut = s.cut_disks > 0;
                s.cut_disks = s.cut_disks.saturating_sub(1);
                is_cut
            });
            let why = self.read(|s| s.refuses_disks.clone());
            match part.part.and_then(|part| part.part) {
                _ if is_cut => return Err(Status::unavailable("it breaks off")),
                _ if !why.is_empty() => {
                    return Err(to_status(Failure::new(Code::ResourceExhausted, "DISK_FULL", why)));
                }
                Some(Part::Data(data)) => disk.extend(data.content),
                Some(Part::End(end)) => {
                    assert_eq!(Digest::of(&disk).to_string(), end.digest);
                    let lines = String::from_utf8(disk).unwrap();
                    let lines = lines.lines().map(str::to_owned).collect();
                    self.with(|s| {
                        if !s.removed.contains(&part.uid) {
                            s.disks.insert(part.uid.clone(), lines);
                        }
                        s.calls.push("disk came".into());
                    });
                    return Ok(Response::new(pc::WriteDiskResponse {}));
                }
                _ => {}
            }
        }
        Err(to_status(Failure::new(Code::Unavailable, "DISK_CUT_OFF", "it ended before its end")))
    }

    type LogsStream = Stream_<pc::LogsResponse>;

    async fn logs(&self, _: Request<pc::LogsRequest>) -> Answer<Self::LogsStream> {
        Err(Status::unimplemented("not part of these tests"))
    }
}
