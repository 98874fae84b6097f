use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    Handle, ModelError, ModelState, Signature,
    queue::{Full, Order},
    registry::{Loading, Model},
};

/// What a model is thought to take before it was ever loaded, in sizes of its file. The shipped models take 1.5 to 6 of
/// them, so this is on the low side: a guess that is too low is put right after the load, one that is too high has
/// others leave for nothing.
const FORECAST: u64 = 2;

/// The memory of a device, as far as models have it.
pub(crate) struct Room {
    budget: u64,
    /// How long a load waits for models in use to become idle.
    patience: Duration,
    /// Whoever looks for room or takes it. Never held while waiting: a load that waits is in nobody's way.
    books: Mutex<()>,
    freed: Notify,
}

impl Room {
    pub(crate) fn new(budget: u64, patience: Duration) -> Self {
        Self { budget, patience, books: Mutex::default(), freed: Notify::new() }
    }

    /// What a model will take whose file has so many bytes. One that fits by its file is given a chance.
    pub(crate) fn forecast(&self, file: u64) -> u64 {
        file.saturating_mul(FORECAST).min(self.budget).max(file)
    }

    /// A model became idle, or left.
    pub(crate) fn freed(&self) {
        self.freed.notify_waiters();
    }
}

/// A place in the books for a load under way; where the load succeeds, the model that is ready keeps it.
struct Booked<'a>(&'a Model);

impl Drop for Booked<'_> {
    fn drop(&mut self) {
        self.0.book(false);
        self.0.device.room.freed();
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
        let until = Instant::now() + device.room.patience;
        loop {
            if let ModelState::Ready(signature) = model.state() {
                return Ok(signature);
            }
            let _booked = self.make_room(model, until).await?;
            model.set(ModelState::Loading);
            let began = Instant::now();
            let (reply, answer) = oneshot::channel();
            let loaded = match device.queue.order(Order::Load { model: Arc::clone(model), reply }) {
                Ok(()) => answer.await.unwrap_or(Err(ModelError::Draining)),
                Err(Full::Full) => Err(ModelError::Overloaded { device: device.name.to_string() }),
                Err(Full::Closed) => Err(ModelError::Draining),
            };
            model.took(began.elapsed());
            let signature = loaded?;
            if self.fits_after_all(model)? {
                return Ok(signature);
            }
        }
    }

    /// Has others leave, if a model took more than was forecast. Where that does not suffice it leaves itself, and comes
    /// back when there is room for what it takes; one that is already in use stays.
    fn fits_after_all(&self, model: &Arc<Model>) -> Result<bool, ModelError> {
        if let Err(error) = too_large(model) {
            model.set(ModelState::Failed(error.clone()));
            self.give_back(model);
            return Err(error);
        }
        if self.book(model) || !model.evict() {
            return Ok(true);
        }
        let (device, bytes) = (&*model.device.name, model.bytes());
        tracing::info!(device, model = %model.spec.key, bytes, "model takes more than forecast and waits for room");
        self.give_back(model);
        Ok(false)
    }

    /// Evicts until the model fits, and waits for models in use where that does not suffice.
    async fn make_room<'m>(&self, model: &'m Arc<Model>, until: Instant) -> Result<Booked<'m>, ModelError> {
        too_large(model)?;
        let room = &model.device.room;
        let fits = async {
            loop {
                let freed = room.freed.notified();
                tokio::pin!(freed);
                // From here on, so that what becomes idle while we look is not missed.
                freed.as_mut().enable();
                if self.book(model) {
                    return Booked(model);
                }
                freed.await;
            }
        };
        let (key, device) = (&model.spec.key, &model.device.name);
        let no_room =
            |_| ModelError::NoRoom { key: key.clone(), device: device.to_string(), budget: room.budget };
        timeout_at(until, fits).await.map_err(no_room)
    }

    /// Whether a model fits onto its device as it is.
    pub(crate) fn has_room(&self, model: &Arc<Model>) -> bool {
        let used = sum(&self.others(model));
        used.saturating_add(model.bytes()) <= model.device.room.budget
    }

    /// The models beside it on its device.
    fn others(&self, model: &Arc<Model>) -> Vec<Arc<Model>> {
        let mut others = self.inner.registry.all();
        others.retain(|other| {
            Arc::ptr_eq(&other.device, &model.device) && !Arc::ptr_eq(other, model) && other.counts()
        });
        others
    }

    /// Books room for a model. Evicts as many others as have to leave, the best spared first; none if that is not
    /// enough.
    fn book(&self, model: &Arc<Model>) -> bool {
        let room = &model.device.room;
        let _books = room.books.lock();
        let now = Instant::now();
        let mut others = self.others(model);
        let mut over = sum(&others).saturating_add(model.bytes()).saturating_sub(room.budget);
        others.retain(|other| matches!(other.state(), ModelState::Ready(_)) && !other.is_busy());
        if sum(&others) < over {
            return false;
        }
        others.sort_by(|a, b| b.spare(now).total_cmp(&a.spare(now)));
        for victim in others {
            if over == 0 {
                break;
            }
            if victim.evict() {
                over = over.saturating_sub(victim.bytes());
                tracing::info!(device = &*model.device.name, victim = %victim.spec.key, wanted = %model.spec.key, "model evicted");
                self.give_back(&victim);
            }
        }
        if over == 0 {
            model.book(true);
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

fn sum(models: &[Arc<Model>]) -> u64 {
    models.iter().fold(0, |sum, model| sum.saturating_add(model.bytes()))
}

/// No other model's leaving would help.
fn too_large(model: &Model) -> Result<(), ModelError> {
    let (bytes, budget) = (model.bytes(), model.device.room.budget);
    if bytes <= budget {
        return Ok(());
    }
    let (key, device) = (model.spec.key.clone(), model.device.name.to_string());
    Err(ModelError::TooLarge { key, device, bytes, budget })
}
