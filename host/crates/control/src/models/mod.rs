mod bench;
mod delete;
mod grants;
mod labels;
mod lift;
mod list;
mod put;
mod view;

use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::shared::Shared;

pub use bench::{Bench, BenchReport, BenchStep, Recommended, Spread};
pub use put::MAX_MODEL;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list::list))
        .routes(routes!(list::get))
        .routes(routes!(put::put, delete::delete))
        .routes(routes!(labels::set, labels::remove))
        .routes(routes!(lift::lift))
        .routes(routes!(bench::bench))
        .routes(routes!(grants::put))
        .routes(routes!(list::list_own))
        .routes(routes!(list::get_own))
        .routes(routes!(put::put_own, delete::delete_own))
        .routes(routes!(labels::set_own, labels::remove_own))
        .routes(routes!(lift::lift_own))
        .routes(routes!(bench::bench_own))
}
