//! The OData error body (contract section 7).

use serde::Serialize;

use crate::model::UnixMillis;

/// `{"error": {..}}`, as Graph's SDKs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    error: MainError,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct MainError {
    code: String,
    message: String,
    #[serde(rename = "innerError")]
    inner: InnerError,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct InnerError {
    date: String,
    request_id: String,
    client_request_id: String,
}

/// The ids of the failed request: ours and the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorIds<'a> {
    /// Our id of the request.
    pub request_id: &'a str,
    /// The client's id of the request, or ours if there is none.
    pub client_request_id: &'a str,
}

impl ErrorBody {
    /// The body for an error that happened at `at`.
    pub fn new(code: &str, message: String, at: UnixMillis, ids: ErrorIds<'_>) -> Self {
        Self {
            error: MainError {
                code: code.to_owned(),
                message,
                inner: InnerError {
                    date: date_without_zone(at),
                    request_id: ids.request_id.to_owned(),
                    client_request_id: ids.client_request_id.to_owned(),
                },
            },
        }
    }
}

/// `2026-01-01T00:00:00Z`, a `DateTimeOffset` of OData.
pub fn date_time(at: UnixMillis) -> String {
    format!("{}Z", date_without_zone(at))
}

/// `2026-01-01T00:00:00` in UTC, as the real service prints it.
fn date_without_zone(at: UnixMillis) -> String {
    const DAY: i64 = 86_400;
    let seconds = at.0.div_euclid(1000);
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = civil_date(day);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// Year, month and day of a count of days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Counts in years that begin in March, so that the leap day is the last of its year, and in eras
/// of 400 years, which all have the same length. `days` comes from milliseconds in an `i64`, so no
/// sum below can overflow.
fn civil_date(days: i64) -> (i64, i64, i64) {
    const ERA: i64 = 146_097;
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_has_exactly_the_members_of_a_real_one() {
        let ids = ErrorIds { request_id: "r", client_request_id: "c" };
        let body = ErrorBody::new("8522", "Call not found.".to_owned(), UnixMillis(0), ids);
        assert_eq!(
            serde_json::to_value(body).unwrap(),
            json!({"error": {
                "code": "8522",
                "message": "Call not found.",
                "innerError": {
                    "date": "1970-01-01T00:00:00",
                    "request-id": "r",
                    "client-request-id": "c"
                }
            }})
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        let table = [
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_799, "2000-02-29T23:59:59"),
            (1_767_225_600, "2026-01-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (-1, "1969-12-31T23:59:59"),
        ];
        for (seconds, text) in table {
            assert_eq!(date_without_zone(UnixMillis(seconds * 1000)), text);
        }
    }

    proptest! {
        #[test]
        fn each_day_follows_the_day_before(day in -1_000_000_i64..1_000_000) {
            let (today, tomorrow) = (civil_date(day), civil_date(day + 1));
            prop_assert!(today < tomorrow);
            prop_assert!((1..=12).contains(&today.1) && (1..=31).contains(&today.2));
        }

        #[test]
        fn no_time_makes_the_date_panic(millis: i64) {
            let _ = date_without_zone(UnixMillis(millis));
        }
    }
}
