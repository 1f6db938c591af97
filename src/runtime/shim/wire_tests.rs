//! What agent and shim write stays readable for the release before and the one after.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::super::record::{ContainerRecord, ExitCause, ExitRecord};
use super::*;

fn identity() -> Value {
    serde_json::to_value(ProcessIdentity::of(crate::os::process::own_pid()).unwrap()).unwrap()
}

fn stamp() -> Value {
    let stamp = Stamp {
        boot: crate::world::BootTime::default(),
        wall: jiff::Timestamp::UNIX_EPOCH,
    };
    serde_json::to_value(stamp).unwrap()
}

/// As a later release would write it: one more field in each structure. The tag of an enum, which
/// begins with a capital, stands alone.
fn of_the_next_release(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(of_the_next_release),
        Value::Object(fields) => {
            fields.values_mut().for_each(of_the_next_release);
            let is_tag = |name: &String| name.starts_with(|c: char| c.is_ascii_uppercase());
            // A span of time is the standard library's, in every release.
            if !fields.keys().any(is_tag) && !fields.contains_key("nanos") {
                fields.insert("later".to_owned(), json!({"more": [1]}));
            }
            if let Some(version) = fields.get_mut("version") {
                *version = json!(VERSION + 1);
            }
        }
        _ => {}
    }
}

/// Reads `text` as it is and as the next release would write it; all of it must be understood.
/// What is written again may have more fields: those that came after version 1.
fn both<T: Serialize + DeserializeOwned>(text: Value) {
    let mut later = text.clone();
    of_the_next_release(&mut later);
    for written in [&text, &later] {
        let read: T = serde_json::from_value(written.clone())
            .unwrap_or_else(|error| panic!("{error}: {written}"));
        let mut again = serde_json::to_value(read).unwrap();
        if let Some(version) = again.get_mut("version") {
            *version = json!(VERSION);
        }
        assert!(holds(&again, &text), "{again}\n{text}");
    }
}

fn holds(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part
            .iter()
            .all(|(name, value)| whole.get(name).is_some_and(|found| holds(found, value))),
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(w, p)| holds(w, p))
        }
        _ => whole == part,
    }
}

/// Written down as version 1 has it. A field that becomes necessary later fails here: an older
/// side does not send it.
#[test]
fn messages_of_both_neighbours_are_understood() {
    let started = json!({"process": identity(), "at": stamp()});
    for request in [
        json!({"number": 1, "call": "List"}),
        json!({"number": 2, "call": {"Signal": {"container": "c", "signal": 15}}}),
        json!({"number": 3, "call": {"StartPause": {
            "network": "Pod", "ipc": "Pod", "uts": "Pod", "pid": "Host", "hostname": "h",
            "sysctls": [["a.b", "1"]], "cgroup": CgroupJoin::default(), "oom_score_adj": -998,
            "deadline_ms": 5,
        }}}),
        json!({"number": 4, "call": {"Run": run_request()}}),
        json!({"number": 5, "call": {"Exec": {
            "container": "c", "id": "i", "runtime": ["runc"], "process_file": "/p",
            "terminal": "No", "timeout_ms": null, "deadline_ms": 5,
        }}}),
        json!({"number": 6, "call": {"Attach": {
            "container": "c", "stdin": true, "stdout": true, "stderr": false,
        }}}),
        json!({"number": 7, "call": {"CloseInput": {"container": "c"}}}),
    ] {
        both::<Request>(request);
    }
    for message in [
        json!("Changed"),
        json!({"Ended": {"number": 1, "end": {"Exited": {"code": 3}}}}),
        json!({"Answer": {"number": 1, "result": {"Ok": "Done"}}}),
        json!({"Answer": {"number": 1, "result": {"Ok": {"Started": started}}}}),
        json!({"Answer": {"number": 1, "result": {"Ok": {"Attached": {
            "terminal": "No", "stdin": "Open",
        }}}}}),
        json!({"Answer": {"number": 1, "result": {"Err": {"Start": {"code": 127, "message": "m"}}}}}),
        json!({"Answer": {"number": 1, "result": {"Ok": {"Listing": {
            "pause": identity(),
            "containers": [{"container": "c", "id": "i", "state": {"Running": started}}],
        }}}}}),
    ] {
        both::<Message>(message);
    }
}

fn run_request() -> Value {
    json!({
        "container": "c", "id": "i", "runtime": ["runc", "--root", "/r"], "terminal": "No",
        "stdin": "Closed", "log": {"path": "/l/0.log", "bytes_max": 10, "files_max": 5},
        "oom_events": "/sys/fs/cgroup/x", "deadline_ms": 5,
    })
}

#[test]
fn records_of_both_neighbours_are_read() {
    let started = json!({"process": identity(), "at": stamp()});
    let container = json!({
        "version": VERSION, "request": run_request(), "runtime": identity(), "started": started,
    });
    both::<ContainerRecord>(container);
    let exit = json!({
        "version": VERSION, "code": 137, "signal": 9, "oom_killed": true,
        "cause": ExitCause::Seen, "started": null, "finished": stamp(),
    });
    both::<ExitRecord>(exit);
}

#[test]
fn neighbours_greet_each_other_and_strangers_do_not() {
    for (own, other, understood) in [
        (1, 1, true),
        (2, 1, true),
        (1, 2, true),
        (3, 1, false),
        (1, 3, false),
    ] {
        assert_eq!(is_understood(own, other), understood, "{own} {other}");
    }
}
