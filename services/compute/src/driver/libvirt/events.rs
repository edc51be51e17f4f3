//! A connection and what libvirt tells on it unasked: domains that change, and that it was closed. The `virt` crate has no calls for either, so this file has the few that cross into C.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::transmute;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;
use virt::connect::Connect;
use virt::error::{Error as VirtError, ErrorNumber};
use virt_sys as sys;

/// Changes that a listener may lag behind.
const BACKLOG: usize = 1024;

/// Who tells of changes: none while there is no connection, so that listeners know that they missed some.
pub type Changes = Arc<Mutex<Option<broadcast::Sender<Change>>>>;

/// Is called with each change at once, before those who listen: it runs on libvirt's own thread, and waits for nothing.
pub type Hear = Arc<dyn Fn(&Change) + Send + Sync>;

/// A domain changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its id.
    pub id: String,
    /// What there is to say of it.
    pub event: Event,
}

/// How a domain changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its guest switched itself off, or was asked to and did.
    ShutDown,
    /// It is off, and cleared up after.
    Stopped,
    /// Otherwise.
    Other,
}

/// A connection, with its listeners.
pub struct Link {
    connect: Connect,
    heard: Arc<Heard>,
    /// Of the listener for domains; none when it could not be put up.
    listener: Option<c_int>,
}

/// What both listeners share.
struct Heard {
    changes: Changes,
    hear: Hear,
    /// What `changes` holds as long as this is the connection.
    sender: broadcast::Sender<Change>,
    lost: AtomicBool,
}

impl Heard {
    /// Ends what listens, unless it listens to a later connection already.
    fn end(&self) {
        let mut changes = self.changes.lock().expect("no holder panics");
        if changes.as_ref().is_some_and(|current| current.same_channel(&self.sender)) {
            *changes = None;
        }
    }
}

impl Link {
    /// Connects, with a keep-alive each so many seconds of which so many may stay unanswered, and gives `changes` who tells from then on.
    pub fn open(
        uri: &str,
        keep_alive: (i32, u32),
        changes: &Changes,
        hear: &Hear,
    ) -> Result<Link, VirtError> {
        let connect = Connect::open(Some(uri))?;
        let sender = broadcast::channel(BACKLOG).0;
        let lost = AtomicBool::new(false);
        let (changes, hear) = (changes.clone(), hear.clone());
        let heard = Arc::new(Heard { changes, hear, sender: sender.clone(), lost });
        // From here on dropping it closes the connection.
        let mut link = Link { connect, heard, listener: None };
        match link.connect.set_keep_alive(keep_alive.0, keep_alive.1) {
            // It is within this process, and cannot be lost.
            Err(e) if e.code() == ErrorNumber::NoSupport => link.listen_to_domains()?,
            other => {
                other?;
                link.listen_to_the_end()?;
                link.listen_to_domains()?;
            }
        }
        *link.heard.changes.lock().expect("no holder panics") = Some(sender);
        Ok(link)
    }

    fn listen_to_the_end(&self) -> Result<(), VirtError> {
        let connect = self.connect.as_ptr();
        let opaque = Arc::into_raw(self.heard.clone()).cast_mut().cast();
        // SAFETY: the connection is open; the callback gets one reference to `heard`, which `release` gives back when libvirt lets go of it.
        let closing =
            unsafe { sys::virConnectRegisterCloseCallback(connect, Some(closed), opaque, Some(release)) };
        if closing == -1 {
            let error = VirtError::last_error();
            // SAFETY: libvirt refused it, so the reference is still ours.
            unsafe { release(opaque) };
            return Err(error);
        }
        Ok(())
    }

    fn listen_to_domains(&mut self) -> Result<(), VirtError> {
        let connect = self.connect.as_ptr();
        let opaque = Arc::into_raw(self.heard.clone()).cast_mut().cast();
        // SAFETY: as above; for this event libvirt calls back with the arguments of `changed`, whatever the general type of callbacks says.
        let listener = unsafe {
            let callback: unsafe extern "C" fn(_, _, _, _, _) -> _ = changed;
            sys::virConnectDomainEventRegisterAny(
                connect,
                std::ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(transmute::<LifecycleCallback, GenericCallback>(callback)),
                opaque,
                Some(release),
            )
        };
        if listener == -1 {
            let error = VirtError::last_error();
            // SAFETY: libvirt refused it, so the reference is still ours.
            unsafe { release(opaque) };
            return Err(error);
        }
        self.listener = Some(listener);
        Ok(())
    }

    /// To call.
    pub fn connect(&self) -> &Connect {
        &self.connect
    }

    /// True when it is of no use any more.
    pub fn is_lost(&self) -> bool {
        self.heard.lost.load(Ordering::Acquire) || !self.connect.is_alive().unwrap_or(false)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.heard.end();
        let connect = self.connect.as_ptr();
        // SAFETY: the connection is open until the call after these; listeners that are not there any more are refused.
        unsafe {
            if let Some(listener) = self.listener {
                sys::virConnectDomainEventDeregisterAny(connect, listener);
            }
            sys::virConnectUnregisterCloseCallback(connect, Some(closed));
        }
        let _ = self.connect.close();
    }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type GenericCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// A domain changed.
unsafe extern "C" fn changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid: [c_char; sys::VIR_UUID_STRING_BUFLEN as usize] = [0; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: libvirt lends the domain for this call, and the buffer is as long as it asks for.
    if unsafe { sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) } == 0 {
        // SAFETY: it ends in a zero, and `opaque` is the reference that was given for this listener.
        let (id, heard) = unsafe { (CStr::from_ptr(uuid.as_ptr()), &*opaque.cast::<Heard>()) };
        // Nobody listening is fine.
        let event = match u32::try_from(event) {
            Ok(sys::VIR_DOMAIN_EVENT_SHUTDOWN) => Event::ShutDown,
            Ok(sys::VIR_DOMAIN_EVENT_STOPPED) => Event::Stopped,
            _ => Event::Other,
        };
        let change = Change { id: id.to_string_lossy().into_owned(), event };
        (heard.hear)(&change);
        let _ = heard.sender.send(change);
    }
    0
}

/// The connection was closed.
unsafe extern "C" fn closed(_: sys::virConnectPtr, _: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the reference that was given for this listener.
    let heard = unsafe { &*opaque.cast::<Heard>() };
    heard.lost.store(true, Ordering::Release);
    heard.end();
}

/// Gives back the reference of a listener.
unsafe extern "C" fn release(opaque: *mut c_void) {
    // SAFETY: each listener was given one reference, and libvirt calls this once for it.
    drop(unsafe { Arc::from_raw(opaque.cast::<Heard>()) });
}
