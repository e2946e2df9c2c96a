//! `Server-Timing`: what an answer that had to be waited for has spent where (W3C Server Timing). What is served from the
//! store has none: it is over before a figure would mean anything, and its headers are made once for all.

use std::fmt::Write as _;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use stoa_core::Timing;
use stoa_upstream::journey::Leg;

pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const MAX_BYTES: usize = 300;
/// Less than this rounds to nothing.
const LEAST: Duration = Duration::from_micros(50);

/// The stages of the work that was waited for, which others may have begun before this request came, and the `total` that
/// the request itself took; in milliseconds. No name of a source, which a private module may have for itself.
pub fn tell(headers: &mut HeaderMap, timing: &Timing) {
    if let Ok(value) = HeaderValue::try_from(text(timing)) {
        headers.insert(SERVER_TIMING, value);
    }
}

fn text(timing: &Timing) -> String {
    let part = |name: &str, time: Duration| format!("{name};dur={:.1}", time.as_secs_f64() * 1e3);
    let total = part("total", timing.total);
    let mut text = String::new();
    let counts = |(_, time): &(Leg, Duration)| *time >= LEAST;
    for (leg, time) in timing.spent.legs().filter(counts) {
        let part = part(leg.as_str(), time);
        if text.len() + part.len() + total.len() + 4 <= MAX_BYTES {
            let _ = write!(text, "{part}, ");
        }
    }
    text + &total
}

#[cfg(test)]
mod tests {
    use stoa_upstream::journey::{Journey, Spent, enter};

    use super::*;

    #[tokio::test]
    async fn stages_and_total_fit_a_short_header() {
        let journey = Journey::begin();
        let work = async {
            for leg in Leg::ALL {
                enter(leg);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        journey.scope(work).await;
        let total = Duration::from_micros(1_234_560);
        let text = text(&Timing { spent: journey.spent(), total });
        assert!(text.starts_with("disk;dur=") && text.ends_with(", total;dur=1234.6"), "{text}");
        assert_eq!(text.split(", ").count(), Leg::ALL.len() + 1, "{text}");
        let days = (0..30).fold(journey.spent(), |spent, _| spent.and(&spent));
        let text = super::text(&Timing { spent: days, total: Duration::from_hours(9999) });
        assert!(text.len() <= MAX_BYTES && text.contains(", total;dur="), "{text}");
        let none = super::text(&Timing { spent: Spent::default(), total });
        assert_eq!(none, "total;dur=1234.6");
    }
}
