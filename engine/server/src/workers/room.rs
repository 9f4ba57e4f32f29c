//! How many jobs may wait: past the bounds their callers wait, each tenant's apart.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Jobs of one tenant that may wait: a longer queue would only make every answer late.
pub(super) const TENANT_WAITING: usize = 256;
/// Jobs of all tenants that may wait: room for 32 tenants at their own bound, with requests of some
/// kilobytes each.
pub(super) const WAITING: usize = 8_192;
/// Tenants that are remembered between two sweeps.
const REMEMBERED: usize = 4_096;

/// The room in which jobs wait for a thread.
#[derive(Debug)]
pub(super) struct Rooms<K> {
    all: Arc<Semaphore>,
    /// Of tenants with jobs that wait, or callers that wait for room.
    tenants: Mutex<Tenants<K>>,
}

#[derive(Debug)]
struct Tenants<K> {
    rooms: BTreeMap<K, Weak<Semaphore>>,
    sweep_at: usize,
}

/// Room for one job; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    _tenant: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl<K: Ord + Clone> Rooms<K> {
    pub(super) fn new() -> Self {
        let tenants = Tenants { rooms: BTreeMap::new(), sweep_at: REMEMBERED };
        Self { all: Arc::new(Semaphore::new(WAITING)), tenants: Mutex::new(tenants) }
    }

    /// Waits for room, first among the tenant's own jobs, so that a tenant that floods holds up
    /// itself. None once closed.
    pub(super) async fn enter(&self, tenant: &K) -> Option<Room> {
        let own = self.of(tenant).acquire_owned().await.ok()?;
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Room { _tenant: own, _all: all })
    }

    /// Lets nobody in any more.
    pub(super) fn close(&self) {
        self.all.close();
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        for room in tenants.rooms.values().filter_map(Weak::upgrade) {
            room.close();
        }
    }

    fn of(&self, tenant: &K) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = tenants.rooms.get(tenant).and_then(Weak::upgrade) {
            return room;
        }
        if tenants.rooms.len() >= tenants.sweep_at {
            tenants.rooms.retain(|_, room| room.strong_count() > 0);
            tenants.sweep_at = REMEMBERED.max(tenants.rooms.len().saturating_mul(2));
        }
        let room = Arc::new(Semaphore::new(TENANT_WAITING));
        tenants.rooms.insert(tenant.clone(), Arc::downgrade(&room));
        room
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_fills_its_room_waits_alone_and_all_together_are_bounded() {
        let rooms = Rooms::new();
        let mut inside = Vec::new();
        let full = WAITING / TENANT_WAITING;
        for tenant in 0..full {
            for _ in 0..TENANT_WAITING {
                inside.push(rooms.enter(&tenant).now_or_never().expect("there is room").unwrap());
            }
            if tenant + 1 < full {
                assert!(rooms.enter(&tenant).now_or_never().is_none(), "its own room is full");
            }
        }
        let mut waits = Box::pin(rooms.enter(&full));
        assert!(waits.as_mut().now_or_never().is_none(), "all rooms together are full");
        inside.pop();
        assert!(waits.now_or_never().expect("there is room again").is_some());
    }

    #[test]
    fn closing_sends_those_away_that_wait() {
        let rooms = Rooms::new();
        let inside: Vec<_> =
            (0..TENANT_WAITING).map(|_| rooms.enter(&'a').now_or_never().unwrap()).collect();
        let mut waits = Box::pin(rooms.enter(&'a'));
        assert!(waits.as_mut().now_or_never().is_none());
        rooms.close();
        assert!(waits.now_or_never().expect("told at once").is_none());
        assert!(rooms.enter(&'b').now_or_never().expect("told at once").is_none());
        drop(inside);
    }

    #[test]
    fn tenants_that_wait_for_nothing_are_forgotten() {
        let rooms = Rooms::new();
        let busy = rooms.enter(&0).now_or_never().unwrap();
        for tenant in 1..10 * REMEMBERED {
            assert!(rooms.enter(&tenant).now_or_never().unwrap().is_some());
        }
        let tenants = rooms.tenants.lock().unwrap();
        assert!(tenants.rooms.len() <= REMEMBERED, "{}", tenants.rooms.len());
        assert!(tenants.rooms[&0].strong_count() > 0, "a busy one is not");
        drop(busy);
    }
}
