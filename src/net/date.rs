//! Dates as HTTP writes them.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Reads an IMF-fixdate (RFC 9110 section 5.6.7), the only form that servers may still send. The
/// day of the week is not looked at.
pub fn http_date(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
    let mut words = rest.split([' ', ':']);
    let day = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)?;
    let year = words.next()?.parse().ok()?;
    let mut number = || words.next()?.parse::<i8>().ok();
    let (hour, minute, second) = (number()?, number()?, number()?);
    let month = i8::try_from(month + 1).ok()?;
    let date = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let zoned = date.to_zoned(TimeZone::UTC).ok()?;
    words.next().is_none().then(|| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_fixed_form_is_a_date() {
        let expected = "1994-11-06T08:49:37Z".parse().ok();
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), expected);
        for text in [
            "",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37 0 GMT",
            "Sun, 06 Nov 99999 08:49:37 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }
}
