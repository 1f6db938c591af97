//! A cluster that answers the kubelet's port, and not what it was asked.

use crate::kubelet_port::{NOBODY, Place, SILENT};

#[test]
fn a_cluster_that_is_sick_has_not_said_no_and_one_that_believes_nobody_has() {
    let place = Place::open();
    place.cluster(|state| {
        state.tokens.push(("m3tr1cs".to_owned(), "prometheus"));
        state.rights.push(("prometheus", "get", "metrics"));
    });
    let ask = |token: &str| place.bearer(token, "GET", "/metrics");
    assert_eq!(ask("m3tr1cs").0, 200);
    for (code, known, stranger) in [
        (401, 401, NOBODY),
        (403, 401, NOBODY),
        (429, 200, SILENT),
        (500, 200, SILENT),
        (503, 200, SILENT),
    ] {
        place.cluster(|state| state.refuses = Some(code));
        // What was learned is no longer fresh, and counts where nobody says otherwise.
        place.later(6);
        let asked = place.cluster(|state| state.asked.len());
        assert_eq!(ask("m3tr1cs").0, known, "{code}");
        assert!(place.cluster(|state| state.asked.len()) > asked, "{code}");
        assert_eq!(ask("new"), (401, stranger.to_owned()), "{code}");
    }
    place.cluster(|state| state.refuses = None);
    assert_eq!(ask("m3tr1cs").0, 200);
    place.later(6);
    // Its rights are asked about too.
    place.cluster(|state| state.rights.clear());
    assert_eq!(ask("m3tr1cs").0, 403);
}
