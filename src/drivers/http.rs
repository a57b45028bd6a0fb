//! Rules that all HTTP requests of this server share: which failures mean that the connection was
//! lost, and where a redirect leads.
//!
//! It sends nothing by itself. `prompts` and `notify` each have clients and limits of their own.

use std::{error::Error, io, iter::successors};

use reqwest::{Response, header::LOCATION};
use url::{ParseError, Url};

/// Which connection a request may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connection {
    /// One that is kept open from an earlier request, if there is one.
    Kept,
    /// A new one.
    New,
}

/// Whether the server closed the connection before its answer was complete. Servers do this to
/// connections that were idle for some seconds, and cannot know that a request is on its way
/// (RFC 9112 section 9.3.1). The request may be repeated on a new connection if a second delivery
/// does no harm (RFC 9110 section 9.2.2).
pub fn is_lost_connection(error: &reqwest::Error) -> bool {
    let is_lost = |cause: &(dyn Error + 'static)| {
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
        }
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(
                io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::NotConnected
                    | io::ErrorKind::UnexpectedEof
            )
        )
    };
    let first: Option<&(dyn Error + 'static)> = error.source();
    let mut causes = successors(first, |error| (*error).source());
    !error.is_timeout() && !error.is_connect() && causes.any(is_lost)
}

/// The target of the `Location` of an answer to a request for `from`; `None` without that header.
///
/// The value should be a URI reference in ASCII (RFC 9110 section 10.2.2). Servers also send file
/// names unencoded, in UTF-8 or another encoding: such bytes are percent-encoded, as browsers do.
pub fn redirect_target(from: &Url, response: &Response) -> Option<Result<Url, ParseError>> {
    let location = response.headers().get(LOCATION)?;
    Some(resolved(from, location.as_bytes()))
}

fn resolved(from: &Url, location: &[u8]) -> Result<Url, ParseError> {
    let mut ascii = String::with_capacity(location.len());
    for byte in location {
        if byte.is_ascii() {
            ascii.push(char::from(*byte))
        } else {
            ascii.push_str(&format!("%{byte:02X}"))
        }
    }
    from.join(&ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_with_raw_bytes_is_percent_encoded() {
        let from = Url::parse("http://bot.example/prompts/now").unwrap();
        let latin1 = b"/gr\xFC\xDFe.wav?n=\xFC";
        for (location, target) in [
            ("/grüße.wav".as_bytes(), "http://bot.example/gr%C3%BC%C3%9Fe.wav"),
            (
                "früh.wav?an=Jörg#x".as_bytes(),
                "http://bot.example/prompts/fr%C3%BCh.wav?an=J%C3%B6rg#x",
            ),
            (
                "https://bücher.example/音.wav".as_bytes(),
                "https://xn--bcher-kva.example/%E9%9F%B3.wav",
            ),
            (latin1, "http://bot.example/gr%FC%DFe.wav?n=%FC"),
            (b"/a%20b c.wav", "http://bot.example/a%20b%20c.wav"),
            (b"//other.example/%C3%BC.wav", "http://other.example/%C3%BC.wav"),
        ] {
            assert_eq!(resolved(&from, location).unwrap().as_str(), target);
        }
        assert!(resolved(&from, b"http://[").is_err());
    }
}
