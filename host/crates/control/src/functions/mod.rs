mod alias;
mod delete;
mod deploy;
#[cfg(test)]
mod fuzz;
pub(crate) mod list;
mod progress;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::shared::Shared;

pub use deploy::MAX_COMPONENT;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(deploy::deploy, list::get, delete::delete))
        .routes(routes!(list::revisions))
        .routes(routes!(list::revision))
        .routes(routes!(list::component))
        .routes(routes!(alias::set, alias::remove))
        .routes(routes!(alias::rollback))
}
