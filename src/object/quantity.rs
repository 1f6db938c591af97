//! Kubernetes quantities: `100m`, `1.5Gi`, `12e6`.
//!
//! Kept as whole billionths, as upstream keeps them (finer parts round away from zero), in an
//! i128: the largest number anybody may write is 2^63-1 units. Source: apimachinery
//! `api/resource/quantity.go`.

use std::fmt;
use std::str::FromStr;

/// Parts of one unit that are kept.
const NANO: i128 = 1_000_000_000;
const NANO_DIGITS: i32 = 9;
/// Larger ones are cut to this, as upstream does.
const MAX: i128 = i64::MAX as i128 * NANO;
/// Digits beyond these carry nothing: refuses endless numbers.
const TEXT_MAX: usize = 64;

/// How a quantity was written, and thus is written again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Format {
    /// `Ki`, `Mi` …
    Binary,
    /// `m`, `k`, `M` …
    Decimal,
    /// `e3`
    Exponent,
}

/// An amount of something: CPU seconds, bytes, pieces.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// The text is no quantity. Upstream's sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAQuantity;

impl fmt::Display for NotAQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "quantities must match the regular expression \
             '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        )
    }
}

impl std::error::Error for NotAQuantity {}

const BINARY: [(&str, u32); 6] = [
    ("Ki", 10),
    ("Mi", 20),
    ("Gi", 30),
    ("Ti", 40),
    ("Pi", 50),
    ("Ei", 60),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

impl FromStr for Quantity {
    type Err = NotAQuantity;

    fn from_str(text: &str) -> Result<Quantity, NotAQuantity> {
        if text.is_empty() || text.len() > TEXT_MAX {
            return Err(NotAQuantity);
        }
        let (negative, unsigned) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number_ends = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_ends);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(NotAQuantity);
        }
        let (format, scale) = suffix_scale(suffix).ok_or(NotAQuantity)?;
        let amount = scaled(whole, fraction, scale).min(MAX);
        Ok(Quantity {
            nano: if negative { -amount } else { amount },
            format,
        })
    }
}

#[derive(Clone, Copy)]
enum Scale {
    Two(u32),
    Ten(i32),
}

fn suffix_scale(suffix: &str) -> Option<(Format, Scale)> {
    if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Binary, Scale::Two(*bits)));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        return Some((Format::Decimal, Scale::Ten(*power)));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let power: i32 = exponent.parse().ok()?;
    Some((Format::Exponent, Scale::Ten(power)))
}

/// Billionths of `whole.fraction` times the scale, rounded away from zero, cut where it is absurd.
fn scaled(whole: &str, fraction: &str, scale: Scale) -> i128 {
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let (bits, power) = match scale {
        Scale::Two(bits) => (bits, 0),
        Scale::Ten(power) => (0, power),
    };
    // value = digits * 10^shift * 2^bits billionths
    let shift = power.saturating_add(NANO_DIGITS) - fraction.len() as i32;
    if digits.is_empty() {
        return 0;
    }
    if digits.len() as i32 + shift > 38 {
        return MAX;
    }
    // Too many digits for an i128 can only be fraction: keep 30, remember that there was more.
    let kept = digits.len().min(30);
    let mut amount: i128 = digits[..kept].parse().expect("at most 30 digits");
    let lost = digits.len() - kept;
    let mut rest = digits[kept..].bytes().any(|b| b != b'0');
    let shift = shift.saturating_add(lost as i32);
    match amount.checked_mul(1i128 << bits) {
        Some(more) => amount = more,
        None => return MAX,
    }
    if shift >= 0 {
        let factor = 10i128.checked_pow(shift as u32);
        return factor.and_then(|f| amount.checked_mul(f)).unwrap_or(MAX);
    }
    for _ in 0..shift.unsigned_abs().min(40) {
        rest |= amount % 10 != 0;
        amount /= 10;
    }
    amount + i128::from(rest)
}

impl Default for Quantity {
    fn default() -> Quantity {
        Quantity::ZERO
    }
}

impl Quantity {
    pub const ZERO: Quantity = Quantity {
        nano: 0,
        format: Format::Decimal,
    };

    pub fn from_units(units: i64) -> Quantity {
        Quantity {
            nano: i128::from(units) * NANO,
            format: Format::Decimal,
        }
    }

    pub fn from_millis(millis: i64) -> Quantity {
        Quantity {
            nano: i128::from(millis) * (NANO / 1000),
            format: Format::Decimal,
        }
    }

    /// Bytes; written with `Ki`, `Mi` …
    pub fn from_bytes(bytes: i64) -> Quantity {
        Quantity {
            nano: i128::from(bytes) * NANO,
            format: Format::Binary,
        }
    }

    /// Whole units, rounded up (away from zero): bytes, pieces.
    pub fn value(self) -> i64 {
        divide_up(self.nano, NANO)
    }

    /// Thousandths, rounded up (away from zero): CPU.
    pub fn millis(self) -> i64 {
        divide_up(self.nano, NANO / 1000)
    }

    pub fn is_negative(self) -> bool {
        self.nano < 0
    }

    pub fn is_zero(self) -> bool {
        self.nano == 0
    }

    /// Whether it is a whole number of units.
    pub fn is_whole(self) -> bool {
        self.nano % NANO == 0
    }

    /// The difference, written as `self` is.
    pub fn minus(self, other: Quantity) -> Quantity {
        Quantity {
            nano: (self.nano - other.nano).clamp(-MAX, MAX),
            format: self.format,
        }
    }

    /// How many times `other`, which must not be zero, it is.
    pub fn ratio_to(self, other: Quantity) -> f64 {
        self.nano as f64 / other.nano as f64
    }

    /// The sum, written as `self` is.
    pub fn plus(self, other: Quantity) -> Quantity {
        Quantity {
            nano: (self.nano + other.nano).clamp(-MAX, MAX),
            format: self.format,
        }
    }
}

fn divide_up(amount: i128, by: i128) -> i64 {
    let up = (amount.unsigned_abs()).div_ceil(by.unsigned_abs());
    let up = i64::try_from(up).unwrap_or(i64::MAX);
    if amount < 0 { -up } else { up }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl fmt::Display for Quantity {
    /// Canonical: the largest suffix that leaves a whole number. Binary amounts that are below
    /// 1024 or not whole are written in decimal, as upstream does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let whole = self.nano / NANO;
        if self.format == Format::Binary && self.nano % NANO == 0 && whole.abs() >= 1024 {
            let fits = |(_, bits): &&(&str, u32)| whole % (1i128 << bits) == 0;
            return match BINARY.iter().rev().find(fits) {
                Some((suffix, bits)) => write!(f, "{}{suffix}", whole >> bits),
                None => write!(f, "{whole}"),
            };
        }
        let (amount, power) = DECIMAL
            .iter()
            .rev()
            .find_map(|(_, power)| {
                let unit = 10i128.pow((power + NANO_DIGITS).unsigned_abs());
                (self.nano % unit == 0).then_some((self.nano / unit, *power))
            })
            .expect("every amount is a whole number of billionths");
        if self.format == Format::Exponent {
            return match power {
                0 => write!(f, "{amount}"),
                power => write!(f, "{amount}e{power}"),
            };
        }
        let suffix = DECIMAL.iter().find(|(_, p)| *p == power);
        write!(f, "{amount}{}", suffix.expect("from the same table").0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_upstreams_values_and_canonical_forms() {
        // text, value, millis, canonical
        let table: &[(&str, i64, i64, &str)] = &[
            ("0", 0, 0, "0"),
            ("1", 1, 1000, "1"),
            ("-1", -1, -1000, "-1"),
            ("100m", 1, 100, "100m"),
            ("1500m", 2, 1500, "1500m"),
            ("2000m", 2, 2000, "2"),
            ("0.5", 1, 500, "500m"),
            (".5", 1, 500, "500m"),
            ("1.", 1, 1000, "1"),
            ("1Ki", 1024, 1_024_000, "1Ki"),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000, "1536Mi"),
            ("1000Ki", 1_024_000, 1_024_000_000, "1000Ki"),
            ("512", 512, 512_000, "512"),
            ("0.5Ki", 512, 512_000, "512"),
            ("0.1Ki", 103, 102_400, "102400m"),
            ("1k", 1000, 1_000_000, "1k"),
            ("1e3", 1000, 1_000_000, "1e3"),
            ("12E6", 12_000_000, 12_000_000_000, "12e6"),
            ("1E", 1_000_000_000_000_000_000, i64::MAX, "1E"),
            ("100n", 1, 1, "100n"),
            ("1u", 1, 1, "1u"),
            ("0.0000000001", 1, 1, "1n"),
            ("1e-10", 1, 1, "1e-9"),
            ("100Ei", i64::MAX, i64::MAX, "9223372036854775807"),
            ("1e100", i64::MAX, i64::MAX, "9223372036854775807"),
            ("1e-100", 1, 1, "1e-9"),
            ("-0.5", -1, -500, "-500m"),
        ];
        for (text, value, millis, canonical) in table {
            let q: Quantity = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(q.value(), *value, "{text}");
            assert_eq!(q.millis(), *millis, "{text}");
            assert_eq!(q.to_string(), *canonical, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "", " ", "1 ", "a", "1K", "1ki", "1.2.3", "--1", "e3", "1e", "1e1.5", ".", "m", "1mm",
            "0x10", "1_000",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text:?}");
        }
        let endless = "1".repeat(TEXT_MAX + 1);
        assert!(endless.parse::<Quantity>().is_err());
    }

    #[test]
    fn quantities_compare_by_amount() {
        let q = |text: &str| text.parse::<Quantity>().expect(text);
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1Gi") > q("1G"));
        assert!(q("-1") < Quantity::ZERO);
        assert_eq!(q("1Gi").plus(q("1Gi")).to_string(), "2Gi");
    }
}
