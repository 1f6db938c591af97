//! The flags of node-pressure eviction, which depend on each other.

use std::time::Duration;

use super::super::value;
use super::{BadValue, Given};
use crate::kubelet::pressure::thresholds::{self, Amount, Policy, TRANSITION_DEFAULT};

/// Node-pressure eviction. One hard threshold that is given replaces all defaults, as upstream.
pub fn policy(given: &Given) -> Result<Policy, BadValue> {
    let joined = |name: &str| {
        let settings = given.all(name).map(|setting| setting.text.as_str());
        settings.collect::<Vec<_>>().join(",")
    };
    let last = |name: &'static str| {
        move |why: String| match given.last(name) {
            Some(setting) => setting.bad(&why),
            None => BadValue(format!("--{name}: {why}")),
        }
    };
    let mut policy = Policy {
        transition: given.parse(
            "eviction-pressure-transition-period",
            TRANSITION_DEFAULT,
            value::duration,
        )?,
        grace_max: Duration::from_secs(
            given
                .number("eviction-max-pod-grace-period", 0, 0, i64::from(i32::MAX))?
                .unsigned_abs(),
        ),
        ..Policy::default()
    };
    if given.last("eviction-hard").is_some() {
        let amounts = thresholds::pairs(&joined("eviction-hard"), '<');
        let hard = amounts.and_then(|amounts| thresholds::hard(&amounts));
        policy.thresholds = hard.map_err(last("eviction-hard"))?;
    }
    let graces = thresholds::pairs(&joined("eviction-soft-grace-period"), '=').and_then(|texts| {
        let parsed = texts
            .into_iter()
            .map(|(s, text)| Ok((s, value::duration(&text)?)));
        parsed.collect()
    });
    let graces = graces.map_err(last("eviction-soft-grace-period"))?;
    let amounts = thresholds::pairs(&joined("eviction-soft"), '<');
    let soft = amounts.and_then(|amounts| thresholds::soft(&amounts, &graces));
    policy
        .thresholds
        .extend(soft.map_err(last("eviction-soft"))?);
    let reclaims = thresholds::pairs(&joined("eviction-minimum-reclaim"), '=');
    for (signal, text) in reclaims.map_err(last("eviction-minimum-reclaim"))? {
        let amount = Amount::parse(&text).map_err(last("eviction-minimum-reclaim"))?;
        for threshold in policy.thresholds.iter_mut().filter(|t| t.signal == signal) {
            threshold.reclaim = amount;
        }
    }
    Ok(policy)
}
