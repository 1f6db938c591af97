//! Verbs for nodes.

use crate::ctl::{Ctl, cells, with_node};

#[test]
fn a_node_is_cordoned_drained_and_given_back() {
    with_node(|place| {
        let ctl = Ctl::started(place);
        let status = || cells(&ctl.ok(&["get", "nodes"]))[1][1].to_owned();
        assert_eq!(status(), "Ready");
        assert_eq!(ctl.ok(&["cordon", "n"]), "node/n cordoned\n");
        assert_eq!(status(), "Ready,SchedulingDisabled");
        assert_eq!(ctl.ok(&["uncordon", "n"]), "node/n uncordoned\n");
        ctl.pod("web");
        let drain = ["drain", "n", "--force", "--grace-period=1", "--timeout=60s"];
        let (text, _) = ctl.ok_with_errors(&drain);
        assert!(text.contains("evicting pod default/web"), "{text}");
        assert!(text.ends_with("node/n drained\n"), "{text}");
        ctl.fails(&["get", "pod", "web"]);
        assert_eq!(ctl.ok(&["uncordon", "n"]), "node/n uncordoned\n");
        assert_eq!(
            ctl.ok(&["taint", "nodes", "n", "a=b:NoExecute"]),
            "node/n tainted\n"
        );
        assert_eq!(ctl.ok(&["taint", "nodes", "n", "a-"]), "node/n untainted\n");
        ctl.finish();
    });
}
