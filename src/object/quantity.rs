//! Kubernetes quantities: `500m`, `1.5Gi`, `2e3` as exact numbers.
//!
//! Amounts are kept in billionths (the smallest suffix, `n`), so no rounding happens before a
//! caller asks for whole units. Never a float: 0.1 must stay 0.1.
//! Source: k8s.io/apimachinery pkg/api/resource, "serialization format".

/// Billionths in one unit.
const NANO: i128 = 1_000_000_000;
/// More digits than any amount that fits; longer texts are refused.
const DIGITS_MAX: usize = 36;
/// Largest power of ten that is multiplied out; beyond it every amount overflows.
const EXPONENT_MAX: i32 = 27;

/// An exact amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0 };

    /// `None` if the text is no quantity, or too large for 128 bits of billionths.
    /// Digits below a billionth are rounded up in magnitude, as upstream does.
    pub fn parse(text: &str) -> Option<Quantity> {
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let number_end = unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = whole.len() + fraction.len();
        if digits == 0 || digits > DIGITS_MAX || fraction.contains('.') {
            return None;
        }
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let (factor, power) = scale(suffix)?;
        let exponent = power + 9 - i32::try_from(fraction.len()).ok()?;
        let scaled = mantissa.checked_mul(factor)?;
        let nanos = if exponent >= 0 {
            scaled.checked_mul(ten_to(exponent)?)?
        } else {
            ceil_div(scaled, ten_to(-exponent)?)
        };
        Some(Quantity {
            nanos: if negative { -nanos } else { nanos },
        })
    }

    pub const fn from_units(units: i64) -> Quantity {
        Quantity {
            nanos: units as i128 * NANO,
        }
    }

    pub const fn from_milli(milli: i64) -> Quantity {
        Quantity {
            nanos: milli as i128 * (NANO / 1000),
        }
    }

    /// Whole units, rounded up; saturates at the ends of i64.
    pub fn units(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up; saturates at the ends of i64.
    pub fn milli(self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    pub fn is_positive(self) -> bool {
        self.nanos > 0
    }

    pub fn saturating_add(self, other: Quantity) -> Quantity {
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos),
        }
    }
}

/// Multiplier and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    let binary = |shift: u32| (1i128 << shift, 0);
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (exponent.abs() <= EXPONENT_MAX).then_some((1, exponent))?
        }
    })
}

fn ten_to(exponent: i32) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// Rounds towards positive infinity.
fn ceil_div(amount: i128, by: i128) -> i128 {
    amount.div_euclid(by) + i128::from(amount.rem_euclid(by) != 0)
}

fn saturate(amount: i128) -> i64 {
    amount.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_exact_amounts() {
        for (text, units, milli) in [
            ("0", 0, 0),
            ("1", 1, 1000),
            ("500m", 1, 500),
            ("1.5", 2, 1500),
            ("0.1", 1, 100),
            (".5", 1, 500),
            ("5.", 5, 5000),
            ("100u", 1, 1),
            ("1k", 1000, 1_000_000),
            ("2e3", 2000, 2_000_000),
            ("2E3", 2000, 2_000_000),
            ("1e-3", 1, 1),
            ("1Ki", 1024, 1_024_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("128Mi", 134_217_728, 134_217_728_000),
            ("-1", -1, -1000),
            ("-1500m", -1, -1500),
            ("+3", 3, 3000),
            ("1E", 1_000_000_000_000_000_000, i64::MAX),
        ] {
            let quantity = Quantity::parse(text).unwrap_or_else(|| panic!("{text} is a quantity"));
            assert_eq!(
                (quantity.units(), quantity.milli()),
                (units, milli),
                "{text}"
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "-",
            ".",
            "Ki",
            "1 ",
            " 1",
            "1.2.3",
            "1Kb",
            "1e",
            "1e99",
            "0x10",
            "1,5",
            "--1",
            "9999999999999999999999999999999999999",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text:?}");
        }
    }
}
