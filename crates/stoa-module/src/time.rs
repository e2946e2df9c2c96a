//! Times in the two forms that Go writes and reads them in.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

/// Reads a time as Go's `time.Parse` with `RFC3339` does, and so its JSON decoder: an hour may have one digit, a comma
/// may stand for the point, an offset may go up to 24:60, and what is finer than a nanosecond is dropped.
pub(crate) fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    let month = after(b'-', &mut rest)?;
    let day = after(b'-', &mut rest)?;
    literal(b'T', &mut rest)?;
    let two = rest.get(1).is_some_and(u8::is_ascii_digit);
    let hour = digits(&mut rest, if two { 2 } else { 1 })?;
    let minute = after(b':', &mut rest)?;
    let second = after(b':', &mut rest)?;
    let mut nanosecond = 0;
    if let [b'.' | b',', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if length == 0 {
            return None;
        }
        for at in 0..9 {
            let digit = fraction[..length].get(at).map_or(0, |b| b - b'0');
            nanosecond = nanosecond * 10 + i32::from(digit);
        }
        rest = &fraction[length..];
    }
    let offset = match rest {
        b"Z" => SignedDuration::ZERO,
        [sign @ (b'+' | b'-'), ..] => {
            rest = &rest[1..];
            let hours = digits(&mut rest, 2)?;
            let minutes = after(b':', &mut rest)?;
            if !rest.is_empty() || hours > 24 || minutes > 60 {
                return None;
            }
            let offset = SignedDuration::from_mins(i64::from(hours) * 60 + i64::from(minutes));
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let civil = civil([year, month, day, hour, minute, second], nanosecond)?;
    Some(instant(civil, offset))
}

/// Reads the `YYYYMMDDhhmmss` of a pseudo-version, which is UTC.
pub(crate) fn parse_compact(text: &str) -> Option<Timestamp> {
    let mut rest = text.as_bytes();
    let mut fields = [0; 6];
    for (field, length) in fields.iter_mut().zip([4, 2, 2, 2, 2, 2]) {
        *field = digits(&mut rest, length)?;
    }
    rest.is_empty().then_some(())?;
    Some(instant(civil(fields, 0)?, SignedDuration::ZERO))
}

/// A number of exactly so many digits, at most four.
fn digits(rest: &mut &[u8], count: usize) -> Option<i16> {
    let (number, after) = rest.split_at_checked(count)?;
    *rest = after;
    number.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i16::from(byte - b'0'))
    })
}

fn literal(byte: u8, rest: &mut &[u8]) -> Option<()> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    (*first == byte).then_some(())
}

/// Two digits behind a character.
fn after(byte: u8, rest: &mut &[u8]) -> Option<i16> {
    literal(byte, rest)?;
    digits(rest, 2)
}

/// `None` for a date or a time of day that does not exist; there are no leap seconds.
fn civil(fields: [i16; 6], nanosecond: i32) -> Option<DateTime> {
    let [year, ..] = fields;
    let [_, month, day, hour, minute, second] =
        fields.map(|field| i8::try_from(field).unwrap_or(-1));
    DateTime::new(year, month, day, hour, minute, second, nanosecond).ok()
}

/// The last two days of the year 9999 and the first of the year 0 may be more than a timestamp holds: then it is the
/// last or the first that there is.
fn instant(civil: DateTime, offset: SignedDuration) -> Timestamp {
    let utc = Offset::UTC.to_timestamp(civil).unwrap_or(Timestamp::MAX);
    utc.saturating_sub(offset).unwrap_or(utc)
}
