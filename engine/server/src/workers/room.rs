//! How many jobs may wait: past the bounds their callers wait, each tenant's apart.
//!
//! A caller may start to wait and not be asked for a long time whether it has got what it waits
//! for: the futures of a stream are polled only as far as its reader reads. So no caller is ever
//! given room. Where there is none at once, a task waits in the caller's place, and hands the job
//! in itself.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::threads::Entrance;

/// Jobs of one tenant that may wait: a longer queue would only make every answer late.
const TENANT_WAITING: usize = 256;
/// Those of them that need no room among the jobs of all: tenants that fill that room cannot keep
/// the others out.
const RESERVED: usize = 8;
/// Jobs of all tenants that may wait, the reserved ones apart: room for 32 tenants at their own
/// bound, with requests of some kilobytes each.
const WAITING: usize = 8_192;
/// Tenants that are remembered between two sweeps.
const REMEMBERED: usize = 4_096;

/// Where jobs wait: first for room, then for a thread.
pub(super) struct Hall<K, J> {
    rooms: Arc<Rooms<K>>,
    entrance: Entrance<K, Seated<J>>,
}

impl<K, J> Debug for Hall<K, J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hall").finish_non_exhaustive()
    }
}

/// A job that waits for a thread, with its room.
pub(super) struct Seated<J> {
    job: J,
    room: Option<Room>,
}

/// A job that waits for room; given up when this is dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the job up"]
pub(super) struct Waiting(AbortHandle);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<J> Seated<J> {
    /// The job, its room given back.
    pub(super) fn stand_up(self) -> J {
        drop(self.room);
        self.job
    }
}

impl<K, J> Hall<K, J>
where
    K: Ord + Clone + Debug + Send + Sync + 'static,
    J: Send + 'static,
{
    pub(super) fn new(entrance: Entrance<K, Seated<J>>) -> Self {
        Self { rooms: Arc::new(Rooms::new()), entrance }
    }

    /// Hands a job in as soon as there is room; what is returned, if anything, is to be kept until
    /// it is done. A job that comes when all is over is dropped. To be called on a Tokio runtime.
    pub(super) fn enter(&self, tenant: K, job: J) -> Option<Waiting> {
        if let Some(room) = self.rooms.try_enter(&tenant) {
            self.entrance.push(&tenant, Seated { job, room: Some(room) });
            return None;
        }
        let (rooms, entrance) = (Arc::clone(&self.rooms), self.entrance.clone());
        let waiting = tokio::spawn(async move {
            if let Some(room) = rooms.enter(&tenant).await {
                entrance.push(&tenant, Seated { job, room: Some(room) });
            }
        });
        Some(Waiting(waiting.abort_handle()))
    }

    /// Hands a job in that needs no room.
    pub(super) fn pass(&self, tenant: &K, job: J) {
        self.entrance.push(tenant, Seated { job, room: None });
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.rooms.close();
    }
}

/// The room in which jobs wait for a thread.
#[derive(Debug)]
struct Rooms<K> {
    all: Arc<Semaphore>,
    /// Of tenants with jobs that wait, or callers that wait for room.
    tenants: Mutex<Tenants<K>>,
}

#[derive(Debug)]
struct Tenants<K> {
    rooms: BTreeMap<K, Weak<Own>>,
    sweep_at: usize,
}

/// The room of one tenant.
#[derive(Debug)]
struct Own {
    reserved: Arc<Semaphore>,
    rest: Arc<Semaphore>,
}

/// Room for one job; given back when it is dropped.
#[derive(Debug)]
struct Room {
    _place: OwnedSemaphorePermit,
    /// Absent for a reserved place.
    _all: Option<OwnedSemaphorePermit>,
    /// Remembered as long as it has jobs that wait.
    _own: Arc<Own>,
}

impl<K: Ord + Clone> Rooms<K> {
    fn new() -> Self {
        let tenants = Tenants { rooms: BTreeMap::new(), sweep_at: REMEMBERED };
        Self { all: Arc::new(Semaphore::new(WAITING)), tenants: Mutex::new(tenants) }
    }

    /// Room, if there is any now.
    fn try_enter(&self, tenant: &K) -> Option<Room> {
        if self.all.is_closed() {
            return None;
        }
        let own = self.of(tenant);
        if let Ok(place) = Arc::clone(&own.reserved).try_acquire_owned() {
            return Some(Room { _place: place, _all: None, _own: own });
        }
        let place = Arc::clone(&own.rest).try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Room { _place: place, _all: Some(all), _own: own })
    }

    /// Waits for room, first among the tenant's own jobs, so that a tenant that floods holds up
    /// itself. None once closed. Whoever calls it must go on polling.
    async fn enter(&self, tenant: &K) -> Option<Room> {
        if self.all.is_closed() {
            return None;
        }
        let own = self.of(tenant);
        let among_all = async {
            let place = Arc::clone(&own.rest).acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some((place, Some(all)))
        };
        let (place, all) = tokio::select! {
            biased;
            reserved = Arc::clone(&own.reserved).acquire_owned() => (reserved.ok()?, None),
            entered = among_all => entered?,
        };
        Some(Room { _place: place, _all: all, _own: own })
    }

    /// Lets nobody in any more.
    fn close(&self) {
        self.all.close();
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        for own in tenants.rooms.values().filter_map(Weak::upgrade) {
            own.reserved.close();
            own.rest.close();
        }
    }

    fn of(&self, tenant: &K) -> Arc<Own> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = tenants.rooms.get(tenant).and_then(Weak::upgrade) {
            return own;
        }
        if tenants.rooms.len() >= tenants.sweep_at {
            tenants.rooms.retain(|_, own| own.strong_count() > 0);
            tenants.sweep_at = REMEMBERED.max(tenants.rooms.len().saturating_mul(2));
        }
        let own = Arc::new(Own {
            reserved: Arc::new(Semaphore::new(RESERVED)),
            rest: Arc::new(Semaphore::new(TENANT_WAITING - RESERVED)),
        });
        tenants.rooms.insert(tenant.clone(), Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests;
