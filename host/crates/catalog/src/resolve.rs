use std::sync::Arc;

use wasmeter_types::{LabelName, ModelName, TenantName};

use crate::model::{Granted, ModelEntry, ModelVersion};
use crate::snapshot::{Models, Snapshot};

/// What a caller asks for: `minilm`, `minilm@canary` or `minilm@3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelRef<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Which of its versions.
    pub which: Which<'a>,
}

/// Which version of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The one labelled `stable`; where that label is not set, the highest that can be used.
    Default,
    /// The one with this label.
    Label(&'a str),
    /// Exactly this.
    Version(u32),
}

impl<'a> ModelRef<'a> {
    /// Takes the text apart. What is neither a number nor a label that is set is found to be nothing later.
    #[must_use]
    pub fn parse(text: &'a str) -> Self {
        match text.split_once('@') {
            None => Self { name: text, which: Which::Default },
            Some((name, at)) => match at.parse() {
                Ok(version) if at.bytes().all(|b| b.is_ascii_digit()) => {
                    Self { name, which: Which::Version(version) }
                }
                _ => Self { name, which: Which::Label(at) },
            },
        }
    }
}

impl ModelEntry {
    /// The version that is meant. `usable` matters only where neither a label nor a number is asked for: the highest
    /// usable version, and if there is none the highest, whose failure then says why.
    pub fn choose(
        &self,
        which: Which<'_>,
        usable: impl Fn(&ModelVersion) -> bool,
    ) -> Option<&Arc<ModelVersion>> {
        let labelled = |label: &str| self.versions.get(self.labels.get(label)?);
        match which {
            Which::Version(version) => self.versions.get(&version),
            Which::Label(label) => labelled(label),
            Which::Default => labelled(LabelName::STABLE)
                .or_else(|| self.versions.values().rev().find(|v| usable(v)))
                .or_else(|| self.versions.values().next_back()),
        }
    }
}

impl Snapshot {
    /// The operator's models, or a tenant's own; none for a tenant that is not there.
    #[must_use]
    pub fn models_of(&self, owner: Option<&str>) -> Option<&Models> {
        match owner {
            None => Some(&self.models),
            Some(tenant) => self.tenants.get(tenant).map(|t| &t.models),
        }
    }

    /// One version of the operator's model, or of a tenant's own.
    #[must_use]
    pub fn model_version(&self, owner: Option<&str>, name: &str, version: u32) -> Option<&Arc<ModelVersion>> {
        self.models_of(owner)?.get(name)?.versions.get(&version)
    }

    /// The model that a tenant means by a name, and whose it is: its own shadows the operator's of the same name, of
    /// which it sees those that it was granted.
    #[must_use]
    pub fn model_for(&self, tenant: &str, name: &str) -> Option<(Option<&TenantName>, &Arc<ModelEntry>)> {
        if let Some((key, tenant)) = self.tenants.get_key_value(tenant)
            && let Some(own) = tenant.models.get(name)
        {
            return Some((Some(key), own));
        }
        if !self.granted_to(name, tenant) {
            return None;
        }
        self.models.get(name).map(|entry| (None, entry))
    }

    /// Whether the tenant may use the operator's models of this name.
    #[must_use]
    pub fn granted_to(&self, model: &str, tenant: &str) -> bool {
        self.granted.get(model).is_none_or(|granted| granted.to(tenant))
    }

    /// Who may use the operator's model.
    #[must_use]
    pub fn granted(&self, model: &ModelName) -> Granted {
        self.granted.get(model).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wasmeter_types::ModelCard;

    use super::*;
    use crate::Event;

    fn version(model: &str, version: u32) -> Box<ModelVersion> {
        let card = format!("[model]\nname = \"{model}\"\nbackend = \"onnx\"\nfiles = [\"m.onnx\"]");
        let card = ModelCard::from_toml(&card).unwrap();
        let model = model.parse().unwrap();
        Box::new(ModelVersion { model, version, card, files: BTreeMap::new(), created_ns: 0 })
    }

    fn label(tenant: Option<&str>, label: &str, version: u32) -> Event {
        let tenant = tenant.map(|t| t.parse().unwrap());
        Event::ModelLabelSet { tenant, model: "m".parse().unwrap(), label: label.parse().unwrap(), version }
    }

    fn snapshot(events: Vec<Event>) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for tenant in ["a", "b"] {
            snapshot.apply(0, Event::TenantPut { tenant: tenant.parse().unwrap(), at_ns: 0 });
        }
        events.into_iter().for_each(|event| snapshot.apply(0, event));
        snapshot
    }

    #[test]
    fn names_labels_and_numbers() {
        let mut events: Vec<Event> =
            [1, 2, 3].into_iter().map(|n| Event::ModelPut { version: version("m", n) }).collect();
        let found = |snapshot: &Snapshot, text: &str, broken: u32| {
            let ModelRef { name, which } = ModelRef::parse(text);
            let (_, entry) = snapshot.model_for("a", name)?;
            entry.choose(which, |v| v.version < broken).map(|v| v.version)
        };
        let now = snapshot(events.clone());
        assert_eq!(found(&now, "m", 9), Some(3));
        assert_eq!(found(&now, "m", 3), Some(2), "the highest that can be used");
        assert_eq!(found(&now, "m", 0), Some(3), "none can: the highest says why");
        assert_eq!(found(&now, "m@3", 0), Some(3));
        for nothing in ["m@4", "m@stable", "m@", "m@+1", "m@99999999999", "n", "@1", "m@1@2"] {
            assert_eq!(found(&now, nothing, 9), None, "{nothing}");
        }
        events.push(label(None, "stable", 1));
        events.push(label(None, "canary", 2));
        let now = snapshot(events.clone());
        assert_eq!(found(&now, "m", 9), Some(1));
        assert_eq!(found(&now, "m@canary", 9), Some(2));
        // The label goes with its version, and with it the meaning of the name.
        events.push(Event::ModelDeleted { model: "m".parse().unwrap(), version: 1 });
        let now = snapshot(events);
        assert_eq!(found(&now, "m", 9), Some(3));
        assert_eq!(now.models["m"].labels.len(), 1);
    }

    #[test]
    fn own_models_shadow_and_grants_restrict() {
        let (a, m): (TenantName, ModelName) = ("a".parse().unwrap(), "m".parse().unwrap());
        let own = Event::TenantModelPut { tenant: a.clone(), version: version("m", 7) };
        let granted = |to: &[&str]| {
            let granted = Granted::Tenants(to.iter().map(|t| t.parse().unwrap()).collect());
            Event::ModelGranted { model: m.clone(), granted }
        };
        let operator = Event::ModelPut { version: version("m", 1) };
        let now = snapshot(vec![operator.clone(), own.clone()]);
        assert_eq!(now.model_for("a", "m").unwrap().0, Some(&a));
        assert_eq!(now.model_for("b", "m").unwrap().0, None);
        let now = snapshot(vec![operator.clone(), own, granted(&[])]);
        assert!(now.model_for("b", "m").is_none() && now.model_for("a", "m").is_some());
        let gone = Event::TenantDeleted { tenant: a.clone() };
        let back = Event::TenantPut { tenant: a, at_ns: 1 };
        let now = snapshot(vec![operator, granted(&["a", "b"]), gone, back]);
        assert!(now.model_for("a", "m").is_none(), "a later tenant of that name inherits no grant");
        assert!(now.model_for("b", "m").is_some());
    }
}
