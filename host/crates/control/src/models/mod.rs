mod delete;
mod list;
mod put;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::shared::Shared;

pub use put::MAX_MODEL;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(list::get))
        .routes(routes!(put::put, delete::delete))
}
