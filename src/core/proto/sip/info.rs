//! Keys in INFO requests, as many phones send them (`application/dtmf-relay`, `application/dtmf`).

use crate::model::Tone;

/// The key that the body of an INFO tells, if it tells one: `Signal=5` or the key alone.
pub fn tone(content_type: &str, body: &[u8]) -> Option<Tone> {
    let text = std::str::from_utf8(body).ok()?;
    let key = match content_type {
        "application/dtmf-relay" => text.lines().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            name.trim().eq_ignore_ascii_case("signal").then_some(value)
        })?,
        _ => text,
    };
    let key = key.trim();
    // Some phones send the event's number in the place of `*` and `#`.
    match key {
        "10" => Tone::parse("*"),
        "11" => Tone::parse("#"),
        _ => Tone::parse(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_both_forms() {
        let relay = "application/dtmf-relay";
        for (kind, body, key) in [
            (relay, "Signal=5\r\nDuration=160\r\n", Some('5')),
            (relay, "Duration=160\r\nsignal = *\r\n", Some('*')),
            (relay, "Signal=11\r\n", Some('#')),
            (relay, "Duration=160\r\n", None),
            ("application/dtmf", "7", Some('7')),
            ("application/dtmf", "77", None),
            ("application/dtmf", "", None),
        ] {
            assert_eq!(tone(kind, body.as_bytes()).map(Tone::as_char), key, "{body:?}");
        }
        assert_eq!(tone(relay, &[0xff]), None);
    }
}
