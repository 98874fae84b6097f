use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use wasmeter_catalog::{Alias, Function, Revision, Weights};
use wasmeter_types::{AliasName, FunctionName, Limits, TenantName};
use wasmeter_usage::PriceSheet;

use crate::clock::rfc3339;
use crate::shared::Shared;

/// An immutable content of a function.
#[derive(Serialize, ToSchema)]
#[schema(as = Revision)]
pub(crate) struct RevisionView {
    tenant: String,
    function: String,
    /// The same component and manifest have the same id.
    revision: String,
    /// SHA-256 of the component.
    digest: String,
    /// Bytes of the component.
    size: u64,
    /// Interfaces that it imports.
    imports: Vec<String>,
    /// Interfaces that it exports.
    exports: Vec<String>,
    /// RFC 3339.
    created: String,
    /// Where the function is triggered.
    url: String,
    /// Whether a trigger needs no token.
    public: bool,
    /// Models that it may load.
    models: Vec<String>,
    limits: LimitsView,
}

/// Limits of one invocation.
#[derive(Serialize, ToSchema)]
#[schema(as = Limits)]
pub(crate) struct LimitsView {
    /// Bytes.
    memory: u64,
    /// Fuel units.
    fuel: u64,
    /// Milliseconds of wall time.
    deadline_ms: u64,
    /// Bytes.
    request_body: u64,
    /// Bytes.
    response_body: u64,
    /// Invocations at one time on one host.
    concurrency: u32,
    /// How many of them always find room.
    provisioned: u32,
}

/// A function.
#[derive(Serialize, ToSchema)]
#[schema(as = Function)]
pub(crate) struct FunctionView {
    tenant: String,
    function: String,
    /// Where it is triggered.
    url: String,
    /// Whether a trigger needs no token.
    public: bool,
    /// The revision that a trigger without an alias takes; of several the one with the largest weight.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<String>,
    /// How many revisions it has.
    revisions: usize,
    /// By alias, the weights of its revisions.
    aliases: BTreeMap<String, Weights>,
    /// Invocations at one time for which the host keeps room: the most that a revision behind an alias asks for.
    provisioned: u32,
    /// RFC 3339; when its newest revision was made.
    updated: String,
}

/// List prices, in 10^-12 of the currency unit, as strings of integers.
#[derive(Serialize, ToSchema)]
#[schema(as = PricePreview)]
pub(crate) struct PriceView {
    /// ISO 4217.
    currency: String,
    /// Hash of the price book.
    price_book: String,
    /// Per invocation.
    request_pico: String,
    /// Per million fuel units.
    fuel_million_pico: String,
    /// Per second of CPU time of models.
    cpu_second_pico: String,
    /// Per second of accelerator time.
    gpu_second_pico: String,
    /// Per token read.
    token_in_pico: String,
    /// Per token written.
    token_out_pico: String,
    /// Per GB of response bodies.
    egress_gb_pico: String,
}

pub(crate) fn url(shared: &Shared, tenant: &TenantName, function: &FunctionName) -> String {
    format!("{}/fn/{tenant}/{function}", shared.deps.base_url)
}

pub(crate) fn revision(
    shared: &Shared,
    tenant: &TenantName,
    function: &FunctionName,
    revision: &Revision,
) -> RevisionView {
    RevisionView {
        tenant: tenant.to_string(),
        function: function.to_string(),
        revision: revision.id.clone(),
        digest: revision.digest.to_string(),
        size: revision.size,
        imports: revision.imports.clone(),
        exports: revision.exports.clone(),
        created: rfc3339(revision.created_ns),
        url: url(shared, tenant, function),
        public: revision.manifest.function.public,
        models: revision.manifest.models.allow.iter().map(ToString::to_string).collect(),
        limits: limits(&revision.manifest.limits),
    }
}

fn limits(limits: &Limits) -> LimitsView {
    LimitsView {
        memory: limits.memory.0,
        fuel: limits.fuel,
        deadline_ms: u64::try_from(limits.deadline.0.as_millis()).unwrap_or(u64::MAX),
        request_body: limits.request_body.0,
        response_body: limits.response_body.0,
        concurrency: limits.concurrency,
        provisioned: limits.provisioned,
    }
}

pub(crate) fn function(
    shared: &Shared,
    tenant: &TenantName,
    name: &FunctionName,
    function: &Function,
) -> FunctionView {
    let live = function.aliases.get(&AliasName::live()).map(Alias::main);
    let newest = function.revisions.iter().map(|r| r.created_ns).max().unwrap_or(0);
    FunctionView {
        tenant: tenant.to_string(),
        function: name.to_string(),
        url: url(shared, tenant, name),
        public: live.is_some_and(|r| r.manifest.function.public),
        live: live.map(|r| r.id.clone()),
        revisions: function.revisions.len(),
        aliases: function.aliases.iter().map(|(name, alias)| (name.to_string(), alias.weights())).collect(),
        provisioned: function.provisioned,
        updated: rfc3339(newest),
    }
}

pub(crate) fn prices(sheet: PriceSheet) -> PriceView {
    let rates = sheet.rates;
    PriceView {
        currency: sheet.currency,
        price_book: sheet.hash,
        request_pico: rates.request.to_string(),
        fuel_million_pico: rates.fuel_million.to_string(),
        cpu_second_pico: rates.cpu_second.to_string(),
        gpu_second_pico: rates.gpu_second.to_string(),
        token_in_pico: rates.token_in.to_string(),
        token_out_pico: rates.token_out.to_string(),
        egress_gb_pico: rates.egress_gb.to_string(),
    }
}
