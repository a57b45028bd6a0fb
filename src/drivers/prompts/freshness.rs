//! HTTP caching of one copy (RFC 9111): how long it is fresh, and how it is checked after that.
//!
//! The rules are those of `http-cache-semantics`; this module adds what that library leaves to its
//! users. The clock is an argument.

use std::time::{Duration, SystemTime};

use http_cache_semantics::{CacheOptions, CachePolicy};
use hyper::{Request, Response};
use reqwest::header::{
    AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, LAST_MODIFIED, PRAGMA, VARY,
};
use url::Url;

/// The answer that a copy came with: its URL, and the header fields that matter for caching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachedAnswer {
    url: Url,
    headers: HeaderMap,
}

/// Longest time that a copy is used without a check, whatever the server says.
const MAX_FRESH: Duration = Duration::from_secs(24 * 3600);
/// The header fields that matter for caching.
const FIELDS: [HeaderName; 8] =
    [AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, LAST_MODIFIED, PRAGMA, VARY];
/// The fields that state a caching policy; a permanent redirect without them may be cached by
/// default.
const EXPLICIT: [HeaderName; 3] = [CACHE_CONTROL, EXPIRES, PRAGMA];

impl CachedAnswer {
    /// Approximate memory of the answer, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.url.as_str().len() + self.headers.iter().map(field).sum::<usize>()
    }

    /// The answer of `url` with these header fields.
    pub(super) fn new(url: Url, headers: &HeaderMap) -> Self {
        let mut kept = HeaderMap::new();
        replace(&mut kept, headers);
        Self { url, headers: kept }
    }

    /// The answer after a 304 (RFC 9111 section 4.3.4): the fields of the 304 replace the known
    /// ones. The age always counts from the 304.
    pub(super) fn confirmed(mut self, not_modified: &HeaderMap) -> Self {
        self.headers.remove(AGE);
        self.headers.remove(DATE);
        replace(&mut self.headers, not_modified);
        self
    }

    /// The header fields that make a request for `url` conditional. A validator applies only to the
    /// URL that it came from (RFC 9110 section 8.8): for another URL there are none.
    pub(super) fn conditions(&self, url: &Url) -> HeaderMap {
        let mut conditions = HeaderMap::new();
        if self.url == *url {
            let validators = [(ETAG, IF_NONE_MATCH), (LAST_MODIFIED, IF_MODIFIED_SINCE)];
            for (validator, condition) in validators {
                if let Some(value) = self.headers.get(validator) {
                    conditions.insert(condition, value.clone());
                }
            }
        }
        conditions
    }

    /// Whether the copy can be checked at all.
    pub(super) fn can_be_checked(&self) -> bool {
        self.headers.contains_key(ETAG) || self.headers.contains_key(LAST_MODIFIED)
    }

    /// Whether the copy may be kept.
    pub(super) fn may_be_stored(&self) -> bool {
        self.policy(SystemTime::UNIX_EPOCH).is_storable()
    }

    /// How long the copy is fresh without a check if it was received at `now`; zero = check it each
    /// time.
    pub(super) fn fresh_for(&self, now: SystemTime) -> Duration {
        self.policy(now).time_to_live(now).min(MAX_FRESH)
    }

    /// The same for a permanent redirect. A redirect without caching fields is fresh for as long as
    /// its target: it may be cached by default (RFC 9110 section 15.4.2).
    pub(super) fn redirects_for(&self, now: SystemTime) -> Duration {
        if EXPLICIT.iter().any(|field| self.headers.contains_key(field)) {
            self.fresh_for(now)
        } else {
            MAX_FRESH
        }
    }

    fn policy(&self, now: SystemTime) -> CachePolicy {
        let mut headers = self.headers.clone();
        headers.insert(AGE, HeaderValue::from(self.age_seconds(now)));
        // All our requests are alike, so the defaults suffice: GET without header fields.
        let request = Request::new(());
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let options = CacheOptions {
            // Each application has its own copies.
            shared: false,
            // A prompt without explicit freshness is checked each time.
            cache_heuristic: 0.0,
            immutable_min_time_to_live: Duration::ZERO,
            ignore_cargo_cult: false,
        };
        CachePolicy::new_options(&request, &response, now, options)
    }

    /// RFC 9111 section 4.2.3: the larger of the stated and the apparent age. The caller counts the
    /// time that the request took.
    fn age_seconds(&self, now: SystemTime) -> u32 {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let stated = text(AGE).map_or(0, |text| {
            let first = text.split(',').next().unwrap_or_default().trim();
            if first.bytes().all(|byte| byte.is_ascii_digit()) && !first.is_empty() {
                // RFC 9111 section 1.2.2: a value that is too large counts as the largest possible.
                first.parse().unwrap_or(u32::MAX)
            } else {
                0
            }
        });
        let sent = text(DATE).and_then(|text| httpdate::parse_http_date(text).ok());
        let apparent = sent.and_then(|sent| now.duration_since(sent).ok()).unwrap_or_default();
        stated.max(u32::try_from(apparent.as_secs()).unwrap_or(u32::MAX))
    }
}

/// Copies the caching fields of `from` to `kept`, where they replace fields of the same name.
fn replace(kept: &mut HeaderMap, from: &HeaderMap) {
    for field in &FIELDS {
        if from.contains_key(field) {
            kept.remove(field);
        }
        for value in from.get_all(field) {
            let value = if *field == CACHE_CONTROL {
                // RFC 9111 section 5.2: directives are case-insensitive. The library compares lower
                // case.
                HeaderValue::from_bytes(&value.as_bytes().to_ascii_lowercase())
            } else {
                Ok(value.clone())
            };
            if let Ok(value) = value {
                kept.append(field, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(fields: &[(&'static str, &str)]) -> CachedAnswer {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        CachedAnswer::new(Url::parse("http://bot.example/a.wav").unwrap(), &headers)
    }

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
    }

    fn seconds(fields: &[(&'static str, &str)]) -> u64 {
        answer(fields).fresh_for(now()).as_secs()
    }

    #[test]
    fn a_copy_that_was_old_already_is_good_for_the_rest_of_its_time() {
        for (age, rest) in [("0", 60), ("55", 5), ("60", 0), ("61", 0), ("4000000000", 0)] {
            assert_eq!(seconds(&[("cache-control", "max-age=60"), ("age", age)]), rest, "{age}");
        }
        for age in ["18446744073709551615", "99999999999999999999999"] {
            assert_eq!(seconds(&[("cache-control", "max-age=60"), ("age", age)]), 0, "{age}");
        }
        for age in ["", "x", "-5", "5.5"] {
            assert_eq!(seconds(&[("cache-control", "max-age=60"), ("age", age)]), 60, "{age}");
        }
        // Without an Age field, the server's Date counts.
        let sent = ("date", "Sun, 06 Nov 1994 08:49:07 GMT");
        assert_eq!(seconds(&[("cache-control", "max-age=60"), sent]), 30);
        assert_eq!(seconds(&[("cache-control", "max-age=60"), sent, ("age", "50")]), 10);
        let ahead = ("date", "Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(seconds(&[("cache-control", "max-age=60"), ahead]), 60);
    }

    #[test]
    fn each_cache_control_line_counts() {
        for (lines, rest) in [
            (["public", "max-age=60"], 60),
            (["max-age=60", "no-cache"], 0),
            (["max-age=60", "no-store"], 0),
            (["Public", "Max-Age=60"], 60),
            (["max-age=60", "NO-CACHE"], 0),
            (["max-age=\"60\"", "must-revalidate"], 60),
            (["s-maxage=5", "private, max-age=60"], 60),
        ] {
            let fields = lines.map(|line| ("cache-control", line));
            assert_eq!(seconds(&fields), rest, "{lines:?}");
        }
        let secret = [("cache-control", "max-age=60"), ("cache-control", "No-Store")];
        assert!(!answer(&secret).may_be_stored());
        assert!(answer(&[]).may_be_stored());
    }

    #[test]
    fn other_fields_say_how_long_a_copy_is_good() {
        let soon = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
        let sent = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (fields, rest) in [
            (&[soon, sent][..], 60),
            (&[soon], 60),
            (&[soon, sent, ("cache-control", "max-age=5")], 5),
            (&[("expires", "0")], 0),
            (&[("expires", "Sun, 06 Nov 1994 08:48:37 GMT")], 0),
            (&[("pragma", "no-cache"), soon], 0),
            (&[("vary", "*"), ("cache-control", "max-age=60")], 0),
            (&[("vary", "accept-encoding"), ("cache-control", "max-age=60")], 60),
            (&[("cache-control", "max-age=31536000, immutable")], 24 * 3600),
            // No heuristic freshness.
            (&[("cache-control", "immutable")], 0),
            (&[("last-modified", "Sun, 06 Nov 1984 08:49:37 GMT"), sent], 0),
            (&[], 0),
        ] {
            assert_eq!(seconds(fields), rest, "{fields:?}");
        }
    }

    #[test]
    fn a_permanent_redirect_is_good_for_as_long_as_it_says() {
        let redirects_for = |fields| answer(fields).redirects_for(now());
        assert_eq!(redirects_for(&[]), MAX_FRESH);
        assert_eq!(redirects_for(&[("cache-control", "max-age=5")]), Duration::from_secs(5));
        assert_eq!(redirects_for(&[("cache-control", "no-store")]), Duration::ZERO);
    }

    #[test]
    fn validators_are_sent_to_the_url_that_they_came_from() {
        let known =
            answer(&[("etag", "\"ü\""), ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let url = |text| Url::parse(text).unwrap();
        assert!(known.can_be_checked());
        let conditions = known.conditions(&url("http://bot.example/a.wav"));
        assert_eq!(conditions[IF_NONE_MATCH].as_bytes(), "\"ü\"".as_bytes());
        assert_eq!(conditions[IF_MODIFIED_SINCE], "Sun, 06 Nov 1994 08:49:37 GMT");
        for other in ["http://bot.example/b.wav", "https://bot.example/a.wav"] {
            assert!(known.conditions(&url(other)).is_empty(), "{other}");
        }
        assert!(!answer(&[("cache-control", "max-age=60")]).can_be_checked());
    }

    #[test]
    fn what_a_304_says_takes_the_place_of_what_was_known() {
        let known = answer(&[
            ("etag", "\"1\""),
            ("age", "50"),
            ("date", "Sun, 06 Nov 1994 08:40:00 GMT"),
            ("cache-control", "max-age=60"),
        ]);
        let mut not_modified = HeaderMap::new();
        let kept = known.clone().confirmed(&not_modified);
        assert_eq!(kept.fresh_for(now()), Duration::from_secs(60));
        assert!(kept.can_be_checked());
        not_modified.append(CACHE_CONTROL, "public".parse().unwrap());
        not_modified.append(CACHE_CONTROL, "max-age=20".parse().unwrap());
        not_modified.append(AGE, "5".parse().unwrap());
        assert_eq!(known.confirmed(&not_modified).fresh_for(now()), Duration::from_secs(15));
    }

    proptest! {
        #[test]
        fn no_header_makes_a_copy_older_than_it_may_be_or_panics(
            control in "[a-zA-Z=\", 0-9-]{0,60}",
            age in "[0-9, -]{0,25}",
            date in "[A-Za-z0-9:, ]{0,40}",
            year in 0_u32..20_000,
        ) {
            let expires = format!("Sun, 06 Nov {year:04} 08:49:37 GMT");
            for age in [age.as_str(), "18446744073709551615"] {
                let fields = [
                    ("cache-control", control.as_str()),
                    ("age", age),
                    ("date", &date),
                    ("expires", &expires),
                ];
                prop_assert!(answer(&fields).fresh_for(now()) <= MAX_FRESH);
                prop_assert!(answer(&fields[1..]).fresh_for(SystemTime::now()) <= MAX_FRESH);
            }
        }
    }
}
