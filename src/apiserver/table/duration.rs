//! Spans of time as kubectl shows them. Source: Kubernetes apimachinery, util/duration. Pure.

use jiff::Timestamp;
use serde_json::Value;

/// `5m3s`, `2d3h`, `45d`: two units where the first one is small.
pub fn human(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// Time from an RFC 3339 text until `now`; `<unknown>` where there is none.
pub fn since(time: &Value, now: Timestamp) -> String {
    match parse(time) {
        Some(then) => human(now.as_second() - then.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// The moment that a JSON string names.
pub fn parse(time: &Value) -> Option<Timestamp> {
    time.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_in_kubectl() {
        let (minute, hour, day) = (60, 3600, 86_400);
        let table = [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (2 * minute, "2m"),
            (5 * minute + 3, "5m3s"),
            (10 * minute + 3, "10m"),
            (3 * hour, "3h"),
            (3 * hour + 20 * minute, "3h20m"),
            (8 * hour + 20 * minute, "8h"),
            (47 * hour, "47h"),
            (2 * day, "2d"),
            (2 * day + 3 * hour, "2d3h"),
            (8 * day + 3 * hour, "8d"),
            (45 * day, "45d"),
            (2 * 365 * day, "2y"),
            (2 * 365 * day + 9 * day, "2y9d"),
            (8 * 365 * day + 9 * day, "8y"),
        ];
        for (seconds, text) in table {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn a_missing_time_is_unknown() {
        let now = "2026-01-01T00:01:30Z".parse().expect("time");
        assert_eq!(since(&Value::Null, now), "<unknown>");
        assert_eq!(since(&Value::from("2026-01-01T00:00:00Z"), now), "90s");
    }
}
