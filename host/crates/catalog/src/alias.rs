use std::collections::BTreeMap;
use std::sync::Arc;

use wasmeter_types::{AliasName, FunctionName, TenantName};

use crate::catalog::{Catalog, CatalogError};
use crate::event::Event;
use crate::snapshot::{Function, Revision};

/// The most revisions that one alias spreads its traffic over.
const MOST_REVISIONS: usize = 10;

/// The largest weight.
const MOST_WEIGHT: u32 = 10_000;

/// Weights by revision id. A revision gets its weight's part of the sum.
pub type Weights = BTreeMap<String, u32>;

/// One revision's part of an alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The revision.
    pub revision: Arc<Revision>,
    /// Its weight, at least 1.
    pub weight: u32,
}

/// Where an alias points: to one revision, or to several with weights (a canary).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alias {
    /// In the order of revision ids; never empty.
    parts: Vec<Part>,
    /// Where it pointed before its last change.
    before: Option<Vec<Part>>,
}

impl Alias {
    /// The same alias after it was pointed elsewhere; pointing it to where it is changes nothing.
    fn moved(&self, parts: Vec<Part>) -> Self {
        if parts == self.parts {
            return self.clone();
        }
        Self { parts, before: Some(self.parts.clone()) }
    }

    /// Its revisions' weights.
    #[must_use]
    pub fn weights(&self) -> Weights {
        weights(&self.parts)
    }

    /// Its revisions with their weights.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Where a rollback would take it.
    #[must_use]
    pub fn before(&self) -> Option<&[Part]> {
        self.before.as_deref()
    }

    /// The revision of one invocation. `draw` is a number that is spread evenly over 64 bits: the same draw takes the
    /// same revision for as long as the alias stays, so an invocation's id decides and nothing is kept.
    #[must_use]
    pub fn choose(&self, draw: u64) -> &Arc<Revision> {
        let sum: u64 = self.parts.iter().map(|p| u64::from(p.weight)).sum();
        let mut place = (u128::from(draw) * u128::from(sum)) >> 64;
        for part in &self.parts {
            let weight = u128::from(part.weight);
            if place < weight {
                return &part.revision;
            }
            place -= weight;
        }
        // Unreachable: `place` is below the sum. The last one is as good an answer as a panic is a bad one.
        &self.parts[self.parts.len() - 1].revision
    }

    /// The revision with the largest part.
    #[must_use]
    pub fn main(&self) -> &Arc<Revision> {
        let main = self.parts.iter().max_by_key(|p| p.weight);
        &main.unwrap_or(&self.parts[0]).revision
    }
}

impl Function {
    /// Points the alias; the log holds only what was checked, so ids that are unknown here are left out.
    pub(crate) fn point(&mut self, alias: AliasName, weights: &Weights) {
        let part = |(id, weight): (&String, &u32)| {
            let revision = self.revisions.iter().find(|r| r.id == *id)?.clone();
            Some(Part { revision, weight: (*weight).max(1) })
        };
        let parts: Vec<Part> = weights.iter().filter_map(part).collect();
        if parts.is_empty() {
            return;
        }
        let next = match self.aliases.get(&alias) {
            Some(now) => now.moved(parts),
            None => Alias { parts, before: None },
        };
        self.aliases.insert(alias, next);
    }

    fn check(&self, weights: &Weights) -> Result<(), CatalogError> {
        let refused = |text: String| Err(CatalogError::Invalid(text));
        if weights.is_empty() || weights.len() > MOST_REVISIONS {
            return refused(format!(
                "an alias points to 1 to {MOST_REVISIONS} revisions, not {}",
                weights.len()
            ));
        }
        let mut public = None;
        for (id, weight) in weights {
            let Some(revision) = self.revisions.iter().find(|r| r.id == *id) else {
                let id: String = id.chars().take(80).collect();
                return Err(CatalogError::NotFound(format!("revision {id:?}")));
            };
            if !(1..=MOST_WEIGHT).contains(weight) {
                return refused(format!(
                    "the weight of revision {id} is {weight}; it must be 1 to {MOST_WEIGHT}"
                ));
            }
            let this = revision.manifest.function.public;
            if *public.get_or_insert(this) != this {
                let text = "some of these revisions are public and some need a token: callers would be refused at random";
                return refused(text.to_owned());
            }
        }
        Ok(())
    }
}

fn weights(parts: &[Part]) -> Weights {
    parts.iter().map(|p| (p.revision.id.clone(), p.weight)).collect()
}

impl Catalog {
    /// Points an alias of a function to revisions that it has.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` for weights that cannot be, or the log's.
    pub async fn set_alias(
        &self,
        tenant: TenantName,
        function: FunctionName,
        alias: AliasName,
        weights: Weights,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let known = now
            .function(tenant.as_str(), function.as_str())
            .ok_or_else(|| CatalogError::NotFound(format!("function {function}")))?;
        known.check(&weights)?;
        if known.aliases.get(&alias).is_some_and(|a| a.weights() == weights) {
            return Ok(());
        }
        writer.commit(Event::AliasSet { tenant, function, alias, weights }).await
    }

    /// Takes an alias away. `live` stays: it is what the function's plain address means.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for `live`, or the log's.
    pub async fn remove_alias(
        &self,
        tenant: TenantName,
        function: FunctionName,
        alias: AliasName,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let known = now.function(tenant.as_str(), function.as_str());
        if known.is_none_or(|f| !f.aliases.contains_key(&alias)) {
            return Err(CatalogError::NotFound(format!("alias {alias} of function {function}")));
        }
        if alias == AliasName::live() {
            let text =
                "alias live is the function's plain address: point it elsewhere, or remove the function";
            return Err(CatalogError::Conflict(text.to_owned()));
        }
        writer.commit(Event::AliasRemoved { tenant, function, alias }).await
    }

    /// Points an alias to where it pointed before its last change. A second rollback takes the first one back.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` if there is no way back, or the log's.
    pub async fn roll_back(
        &self,
        tenant: TenantName,
        function: FunctionName,
        alias: AliasName,
    ) -> Result<(), CatalogError> {
        let writer = self.writer().await;
        let now = writer.now();
        let known = now.function(tenant.as_str(), function.as_str());
        let known = known.and_then(|f| f.aliases.get(&alias));
        let known =
            known.ok_or_else(|| CatalogError::NotFound(format!("alias {alias} of function {function}")))?;
        let Some(before) = known.before() else {
            return Err(CatalogError::Conflict(format!(
                "alias {alias} of function {function} has pointed nowhere else: there is nothing to roll back to"
            )));
        };
        let weights = weights(before);
        writer.commit(Event::AliasSet { tenant, function, alias, weights }).await
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wasmeter_types::{Digest, FunctionManifest};

    use super::*;

    fn function(revisions: &[(&str, bool)]) -> Function {
        let revision = |(id, public): &(&str, bool)| {
            let mut manifest = FunctionManifest::new("f".parse().unwrap());
            manifest.function.public = *public;
            let (digest, id) = (Digest::of(id.as_bytes()), (*id).to_owned());
            Arc::new(Revision {
                id,
                digest,
                manifest,
                imports: vec![],
                exports: vec![],
                size: 1,
                created_ns: 0,
            })
        };
        Function { revisions: revisions.iter().map(revision).collect(), ..Function::default() }
    }

    fn of(parts: &[(&str, u32)]) -> Weights {
        parts.iter().map(|(id, weight)| ((*id).to_owned(), *weight)).collect()
    }

    #[test]
    fn refuses_what_callers_would_suffer_from() {
        let f = function(&[("a", true), ("b", true), ("c", false)]);
        let text = |weights: &[(&str, u32)]| f.check(&of(weights)).unwrap_err().to_string();
        assert!(f.check(&of(&[("a", 9), ("b", 1)])).is_ok());
        assert!(text(&[]).contains("1 to 10 revisions"));
        assert!(text(&[("a", 0)]).contains("weight of revision a"));
        assert!(text(&[("a", 10_001)]).contains("weight of revision a"));
        assert!(text(&[("x", 1)]).contains("\"x\" is not there"));
        assert!(text(&[("a", 1), ("c", 1)]).contains("public"));
    }

    #[test]
    fn a_rollback_goes_back_and_forth() {
        let (live, mut f) = (AliasName::live(), function(&[("a", true), ("b", true)]));
        f.point(live.clone(), &of(&[("a", 1)]));
        assert!(f.aliases[&live].before().is_none());
        f.point(live.clone(), &of(&[("a", 3), ("b", 1)]));
        f.point(live.clone(), &of(&[("a", 3), ("b", 1)]));
        assert_eq!(
            weights(f.aliases[&live].before().unwrap()),
            of(&[("a", 1)]),
            "the same again is no change"
        );
        assert_eq!(f.aliases[&live].main().id, "a");
        f.point(live.clone(), &of(&[("a", 1)]));
        assert_eq!(weights(f.aliases[&live].before().unwrap()), of(&[("a", 3), ("b", 1)]));
    }

    proptest! {
        #[test]
        fn every_draw_finds_a_revision_and_parts_are_as_large_as_their_weights(
            weights in proptest::collection::vec(1u32..=10_000, 1..=5),
        ) {
            let names = ["a", "b", "c", "d", "e"];
            let mut f = function(&names.map(|n| (n, true)));
            let parts: Vec<_> = names.iter().copied().zip(weights.iter().copied()).collect();
            f.point(AliasName::live(), &of(&parts));
            let alias = &f.aliases["live"];
            let sum: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            // The first and the last draw of each part's range lie in it.
            let mut below = 0u64;
            for (name, weight) in parts {
                let first = (u128::from(below) << 64).div_ceil(u128::from(sum));
                below += u64::from(weight);
                let last = (u128::from(below) << 64).div_ceil(u128::from(sum)) - 1;
                for draw in [first, last] {
                    prop_assert_eq!(&alias.choose(u64::try_from(draw).unwrap()).id, name);
                }
            }
        }
    }
}
