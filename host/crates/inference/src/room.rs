use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Mutex, Notify, oneshot, watch},
    time::{Instant, timeout},
};

use crate::{
    Handle, ModelError, ModelState, Signature,
    queue::{Full, Order},
    registry::{Loading, Model},
};

/// How long a load waits for models in use to become idle.
const PATIENCE: Duration = Duration::from_secs(10);

/// The memory of a device, as far as models have it.
pub(crate) struct Room {
    budget: AtomicU64,
    /// Whose turn it is to make room. One load at a time: the lane does no two at once either.
    turn: Mutex<()>,
    freed: Notify,
}

impl Default for Room {
    fn default() -> Self {
        Self { budget: AtomicU64::new(u64::MAX), turn: Mutex::new(()), freed: Notify::new() }
    }
}

impl Room {
    pub(crate) fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// A model became idle.
    pub(crate) fn freed(&self) {
        self.freed.notify_waiters();
    }
}

impl Handle {
    /// Brings a model onto its device: begins a load, or joins the one under way. It goes on if all who wait for it
    /// leave.
    pub(crate) fn bring(&self, model: &Arc<Model>) -> Loading {
        let mut loading = model.loading.lock();
        if let Some(under_way) = loading.as_ref().filter(|l| l.borrow().is_none() && l.has_changed().is_ok())
        {
            return under_way.clone();
        }
        let (done, outcome) = watch::channel(None);
        *loading = Some(outcome.clone());
        drop(loading);
        let (handle, model) = (self.clone(), Arc::clone(model));
        tokio::spawn(async move {
            let result = handle.load_now(&model).await;
            if let Err(error) = &result {
                model.set_failed(error);
            }
            let _ = done.send(Some(result));
        });
        outcome
    }

    async fn load_now(&self, model: &Arc<Model>) -> Result<Arc<Signature>, ModelError> {
        let device = &model.device;
        let _turn = device.room.turn.lock().await;
        if let ModelState::Ready(signature) = model.state() {
            return Ok(signature);
        }
        self.make_room(model).await?;
        model.set(ModelState::Loading);
        let began = Instant::now();
        let (reply, answer) = oneshot::channel();
        let loaded = match device.queue.order(Order::Load { model: Arc::clone(model), reply }) {
            Ok(()) => answer.await.unwrap_or(Err(ModelError::Draining)),
            Err(Full::Full) => Err(ModelError::Overloaded { device: device.name.to_string() }),
            Err(Full::Closed) => Err(ModelError::Draining),
        };
        model.took(began.elapsed());
        loaded
    }

    /// Evicts until the model fits, and waits for models in use where that does not suffice.
    async fn make_room(&self, model: &Arc<Model>) -> Result<(), ModelError> {
        let room = &model.device.room;
        let (key, device, budget) = (&model.spec.key, &model.device.name, room.budget());
        if model.bytes > budget {
            let (key, device, bytes) = (key.clone(), device.to_string(), model.bytes);
            return Err(ModelError::TooLarge { key, device, bytes, budget });
        }
        let fits = async {
            loop {
                let freed = room.freed.notified();
                tokio::pin!(freed);
                // From here on, so that what becomes idle while we look is not missed.
                freed.as_mut().enable();
                if self.evict_for(model, budget) {
                    return;
                }
                freed.await;
            }
        };
        let no_room = |_| ModelError::NoRoom { key: key.clone(), device: device.to_string(), budget };
        timeout(PATIENCE, fits).await.map_err(no_room)
    }

    /// Evicts as many models as have to leave, the best spared first; none if that is not enough.
    fn evict_for(&self, model: &Arc<Model>, budget: u64) -> bool {
        let now = Instant::now();
        let here = |other: &Arc<Model>| {
            Arc::ptr_eq(&other.device, &model.device)
                && !Arc::ptr_eq(other, model)
                && matches!(other.state(), ModelState::Ready(_) | ModelState::Loading)
        };
        let mut others = self.inner.registry.all();
        others.retain(here);
        let used = others.iter().fold(0u64, |sum, other| sum.saturating_add(other.bytes));
        let mut over = used.saturating_add(model.bytes).saturating_sub(budget);
        others.retain(|other| matches!(other.state(), ModelState::Ready(_)) && !other.is_busy());
        if others.iter().fold(0u64, |sum, other| sum.saturating_add(other.bytes)) < over {
            return false;
        }
        others.sort_by(|a, b| b.spare(now).total_cmp(&a.spare(now)));
        for victim in others {
            if over == 0 {
                return true;
            }
            if victim.evict() {
                over = over.saturating_sub(victim.bytes);
                tracing::info!(device = &*model.device.name, victim = %victim.spec.key, wanted = %model.spec.key, "model evicted");
                self.give_back(&victim);
            }
        }
        over == 0
    }

    /// Has the lane forget a model that the books no longer have on the device.
    pub(crate) fn give_back(&self, model: &Model) -> Option<oneshot::Receiver<()>> {
        let (reply, done) = oneshot::channel();
        // A full or closed queue leaves the model to the next restart of the worker.
        model.device.queue.order(Order::Unload { key: model.spec.key.clone(), reply }).ok().map(|()| done)
    }
}
