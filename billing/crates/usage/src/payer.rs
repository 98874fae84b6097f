use crate::Outcome;

/// Who pays for some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// The tenant: it is in the record's charged quantities.
    Tenant,
    /// The platform: it is in no record's charged quantities, whatever was spent on it.
    Platform,
}

/// What work was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The guest's own: its fuel, its answer's bytes, and computes that completed at its request, each up to what it
    /// costs alone.
    Guest,
    /// Waiting for a permit, a device or a model.
    Queueing,
    /// Making an instance.
    ColdStart,
    /// Compiling a component, also one that is refused in the end.
    Compilation,
    /// Loading, warming up and checking a model, also one that is refused in the end.
    ModelLoad,
    /// What a batch took beyond its entries alone, such as padding.
    Batching,
    /// Doing again what we did not finish.
    Retry,
    /// A compute that its device did not live through, whoever's model it was: what does not complete is not charged.
    LostCompute,
}

/// The table of who pays for what, all of it: work that an outcome does not charge, and work that is no guest's own, is
/// the platform's.
///
/// A refused request never becomes an invocation, or is one of outcome [`Outcome::Refused`]; our 5xx, and a stream that
/// a failure of ours cut off, are of outcome [`Outcome::Platform`]; the death of a device that a guest did not get over
/// is [`Outcome::DeviceLost`], and of one that it got over, or caused by a model of its own and answered, charges the
/// rest.
#[must_use]
pub fn payer(outcome: Outcome, work: Work) -> Payer {
    let charged = match outcome {
        Outcome::Ok
        | Outcome::Trap
        | Outcome::OutOfFuel
        | Outcome::Budget
        | Outcome::Deadline
        | Outcome::Disconnect => true,
        Outcome::Refused | Outcome::Platform | Outcome::DeviceLost => false,
    };
    match work {
        Work::Guest if charged => Payer::Tenant,
        Work::Guest
        | Work::Queueing
        | Work::ColdStart
        | Work::Compilation
        | Work::ModelLoad
        | Work::Batching
        | Work::Retry
        | Work::LostCompute => Payer::Platform,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pays(outcome: Outcome) -> bool {
        payer(outcome, Work::Guest) == Payer::Tenant
    }

    fn never(work: Work) {
        for outcome in Outcome::ALL {
            assert_eq!(payer(outcome, work), Payer::Platform, "{outcome:?} {work:?}");
        }
    }

    #[test]
    fn completed_work_is_paid() {
        assert!(pays(Outcome::Ok));
    }

    #[test]
    fn work_until_a_trap_is_paid() {
        assert!(pays(Outcome::Trap));
    }

    #[test]
    fn work_until_the_end_of_fuel_is_paid() {
        assert!(pays(Outcome::OutOfFuel));
    }

    #[test]
    fn work_until_the_end_of_the_budget_is_paid() {
        assert!(pays(Outcome::Budget));
    }

    #[test]
    fn work_until_the_deadline_is_paid() {
        assert!(pays(Outcome::Deadline));
    }

    #[test]
    fn work_until_the_caller_left_is_paid() {
        assert!(pays(Outcome::Disconnect));
    }

    #[test]
    fn a_refused_request_is_free() {
        assert!(!pays(Outcome::Refused));
    }

    #[test]
    fn our_failure_and_a_stream_that_it_cut_off_are_free() {
        assert!(!pays(Outcome::Platform));
    }

    #[test]
    fn a_device_that_died_under_a_call_is_free() {
        assert!(!pays(Outcome::DeviceLost));
    }

    #[test]
    fn a_compute_that_did_not_complete_is_free() {
        never(Work::LostCompute);
    }

    #[test]
    fn queueing_is_free() {
        never(Work::Queueing);
    }

    #[test]
    fn a_cold_start_is_free() {
        never(Work::ColdStart);
    }

    #[test]
    fn compilation_and_refused_uploads_are_free() {
        never(Work::Compilation);
    }

    #[test]
    fn loading_models_is_free() {
        never(Work::ModelLoad);
    }

    #[test]
    fn padding_is_free() {
        never(Work::Batching);
    }

    #[test]
    fn our_retries_are_free() {
        never(Work::Retry);
    }
}
