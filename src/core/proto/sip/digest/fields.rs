//! The header fields of digest authentication: challenges (RFC 7616 §3.3, RFC 3261 §20.44, §20.27)
//! and their answers (RFC 7616 §3.4, RFC 3261 §20.7, §20.28).
//!
//! Comes in: one header field value. Goes out: values, and the same text again by `Display`. Values
//! may be quoted or not, whatever the RFC says, because peers differ. A parameter that is there
//! twice, empty or missing is an error, because two readers could take it for two things.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::algorithm::Algorithm;
use crate::proto::sip::uri::is_token;

/// Most parameters of a value: more than any peer sends. RFC 7616 defines about a dozen.
const MAX_PARAMETERS: usize = 32;

/// Why a header field value is neither a challenge nor an answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FieldError {
    /// Another scheme than Digest.
    #[error("the authentication scheme is not Digest")]
    Scheme,
    /// A parameter cannot be read, or there are too many.
    #[error("a parameter is malformed")]
    Parameter,
    /// A parameter is there twice.
    #[error("a parameter is there twice")]
    Duplicate,
    /// A required parameter is missing, empty or malformed.
    #[error("the parameter {name} is missing or malformed")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The algorithm is not supported.
    #[error("the algorithm is not known")]
    Algorithm,
    /// The quality of protection is not supported.
    #[error("the quality of protection is not known")]
    Qop,
}

/// The value of a WWW-Authenticate or Proxy-Authenticate header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The realm that the password belongs to; shown to people.
    pub realm: String,
    /// The nonce, which is hashed into the answer.
    pub nonce: String,
    /// A value that the answer returns unchanged.
    pub opaque: Option<String>,
    /// Only the nonce was too old: the same password may be right.
    pub stale: bool,
    /// MD5 when none is named.
    pub algorithm: Algorithm,
    /// `qop=auth` is offered; otherwise the challenger follows RFC 2069.
    pub offers_auth: bool,
}

impl FromStr for Challenge {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut parameters = Parameters::read(text)?;
        let offers_auth = match parameters.take("qop") {
            Some(offered) => {
                let mut offered = offered.split(',').map(str::trim);
                if !offered.any(|qop| qop.eq_ignore_ascii_case("auth")) {
                    return Err(FieldError::Qop);
                }
                true
            }
            None => false,
        };
        Ok(Self {
            algorithm: parameters.take_algorithm()?,
            // Empty realms exist, and do no harm.
            realm: parameters.take("realm").ok_or(FieldError::Missing { name: "realm" })?,
            nonce: parameters.take_filled("nonce")?,
            opaque: parameters.take("opaque"),
            stale: parameters.take("stale").is_some_and(|stale| stale.eq_ignore_ascii_case("true")),
            offers_auth,
        })
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest realm={}, nonce={}", Quoted(&self.realm), Quoted(&self.nonce))?;
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", Quoted(opaque))?;
        }
        if self.stale {
            f.write_str(", stale=true")?;
        }
        write!(f, ", algorithm={}", self.algorithm.name())?;
        if self.offers_auth {
            f.write_str(", qop=\"auth\"")?;
        }
        Ok(())
    }
}

/// The value of an Authorization or Proxy-Authorization header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The user name.
    pub username: String,
    /// The realm of the challenge.
    pub realm: String,
    /// The nonce of the challenge.
    pub nonce: String,
    /// The URI of the request; usually the Request-URI, letter by letter.
    pub uri: String,
    /// The hash that proves the password, in hexadecimal digits.
    pub response: String,
    /// MD5 when none is named.
    pub algorithm: Algorithm,
    /// The value of the challenge.
    pub opaque: Option<String>,
    /// The parameters that come with `qop`.
    pub protection: Protection,
}

/// The `qop` parameter, with those that come with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// RFC 2069: no `qop`.
    None,
    /// `qop=auth`.
    Auth {
        /// Chosen by the client.
        cnonce: String,
        /// How often the nonce has been used.
        nonce_count: NonceCount,
    },
}

/// The `nc` parameter: exactly eight hexadecimal digits, which are hashed as they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonceCount(String);

impl NonceCount {
    /// How often the nonce has been used, this time included.
    pub fn value(&self) -> u32 {
        u32::from_str_radix(&self.0, 16).unwrap_or_default()
    }
}

impl From<u32> for NonceCount {
    fn from(count: u32) -> Self {
        Self(format!("{count:08x}"))
    }
}

impl FromStr for NonceCount {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FieldError::Missing { name: "nc" });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for NonceCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Authorization {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        let mut parameters = Parameters::read(text)?;
        let protection = match parameters.take("qop") {
            Some(qop) if qop.eq_ignore_ascii_case("auth") => Protection::Auth {
                cnonce: parameters.take_filled("cnonce")?,
                nonce_count: parameters.take_filled("nc")?.parse()?,
            },
            Some(_) => return Err(FieldError::Qop),
            None => Protection::None,
        };
        Ok(Self {
            algorithm: parameters.take_algorithm()?,
            username: parameters.take_filled("username")?,
            realm: parameters.take("realm").ok_or(FieldError::Missing { name: "realm" })?,
            nonce: parameters.take_filled("nonce")?,
            uri: parameters.take_filled("uri")?,
            response: parameters.take_filled("response")?,
            opaque: parameters.take("opaque"),
            protection,
        })
    }
}

impl fmt::Display for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Digest username={}, realm={}, nonce={}, uri={}, response=\"{}\", algorithm={}",
            Quoted(&self.username),
            Quoted(&self.realm),
            Quoted(&self.nonce),
            Quoted(&self.uri),
            self.response,
            self.algorithm.name(),
        )?;
        if let Some(opaque) = &self.opaque {
            write!(f, ", opaque={}", Quoted(opaque))?;
        }
        match &self.protection {
            Protection::None => Ok(()),
            Protection::Auth { cnonce, nonce_count } => {
                write!(f, ", qop=auth, cnonce={}, nc={nonce_count}", Quoted(cnonce))
            }
        }
    }
}

/// The parameters of one value, by their names in lower case; no name occurs twice.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(text: &str) -> Result<Self, FieldError> {
        let (scheme, mut rest) = text.trim().split_once([' ', '\t']).ok_or(FieldError::Scheme)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(FieldError::Scheme);
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        loop {
            let (name, after) = rest.split_once('=').ok_or(FieldError::Parameter)?;
            let name = name.trim();
            let (value, after) = read_value(after.trim_start()).ok_or(FieldError::Parameter)?;
            if !is_token(name) || parameters.len() >= MAX_PARAMETERS {
                return Err(FieldError::Parameter);
            }
            let name = name.to_ascii_lowercase();
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(FieldError::Duplicate);
            }
            parameters.push((name, value));
            match after.trim_start() {
                "" => return Ok(Self(parameters)),
                after => rest = after.strip_prefix(',').ok_or(FieldError::Parameter)?,
            }
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn take_filled(&mut self, name: &'static str) -> Result<String, FieldError> {
        self.take(name).filter(|value| !value.is_empty()).ok_or(FieldError::Missing { name })
    }

    fn take_algorithm(&mut self) -> Result<Algorithm, FieldError> {
        match self.take("algorithm") {
            Some(name) => Algorithm::from_name(&name).ok_or(FieldError::Algorithm),
            None => Ok(Algorithm::Md5),
        }
    }
}

/// The value at the start of `text`, without quotes and escapes, and the text after it.
fn read_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        let is_value = !value.is_empty() && !value.contains(|c: char| c == '"' || c.is_control());
        return is_value.then(|| (value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next().filter(|c| !c.is_control())?),
            '\t' => value.push('\t'),
            c if c.is_control() => return None,
            c => value.push(c),
        }
    }
}

/// Prints a quoted string (RFC 3261 §25.1). Control characters except the tab become blanks,
/// because they could end the line.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() && c != '\t' => f.write_str(" ")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        "[ -~äß]{1,20}"
    }

    fn algorithm() -> impl Strategy<Value = Algorithm> {
        prop::sample::select(Algorithm::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn a_challenge_that_is_printed_is_read_again(
            realm in text(),
            nonce in text(),
            opaque in prop::option::of(text()),
            stale in any::<bool>(),
            algorithm in algorithm(),
            offers_auth in any::<bool>(),
        ) {
            let challenge = Challenge { realm, nonce, opaque, stale, algorithm, offers_auth };
            prop_assert_eq!(challenge.to_string().parse::<Challenge>(), Ok(challenge));
        }

        #[test]
        fn an_answer_that_is_printed_is_read_again(
            texts in [text(), text(), text(), text(), text()],
            response in "[0-9a-f]{32}",
            opaque in prop::option::of(text()),
            algorithm in algorithm(),
            count in prop::option::of(any::<u32>()),
        ) {
            let [username, realm, nonce, uri, cnonce] = texts;
            let protection = match count {
                Some(count) => Protection::Auth { cnonce, nonce_count: count.into() },
                None => Protection::None,
            };
            let authorization = Authorization {
                username, realm, nonce, uri, response, algorithm, opaque, protection,
            };
            prop_assert_eq!(authorization.to_string().parse::<Authorization>(), Ok(authorization));
        }

        #[test]
        fn no_text_panics_or_is_printed_as_two_lines(text in "(Digest )?[\\PC\r\n\\\\\",=]{0,60}") {
            if let Ok(challenge) = text.parse::<Challenge>() {
                prop_assert!(!challenge.to_string().contains(['\r', '\n']));
            }
            if let Ok(authorization) = text.parse::<Authorization>() {
                prop_assert!(!authorization.to_string().contains(['\r', '\n']));
            }
        }

        #[test]
        fn no_mutation_of_an_answer_panics(at in 0_usize..200, with in "\\PC{0,3}") {
            let mut text = ANSWER.to_owned();
            let at = at.min(text.len());
            text.replace_range(at..text.len().min(at + 1), &with);
            let _ = text.parse::<Authorization>();
        }
    }

    const ANSWER: &str = "Digest username=\"bob\", realm=\"a\\\"b\", nonce=\"ea9c\", opaque=\"\", \
                          uri=\"sip:b@c\", qop=auth, nc=0000000A, cnonce=\"x\", response=\"dfe5\"";

    #[test]
    fn quotes_are_taken_off_and_escapes_resolved() {
        let authorization: Authorization = ANSWER.parse().unwrap();
        assert_eq!(authorization.realm, "a\"b");
        assert_eq!(authorization.opaque.as_deref(), Some(""));
        assert_eq!(authorization.algorithm, Algorithm::Md5);
        let Protection::Auth { nonce_count, .. } = authorization.protection else { panic!() };
        assert_eq!((nonce_count.value(), nonce_count.to_string().as_str()), (10, "0000000A"));
    }

    #[test]
    fn phones_quote_what_should_not_be_quoted_and_the_other_way_round() {
        let loose = "digest\tUSERNAME=bob,realm=x,nonce=n,uri=sip:b@c,response=\"0\" , \
                     algorithm=\"md5\",QOP=\"auth\",nc=\"00000001\",cnonce=c";
        let authorization: Authorization = loose.parse().unwrap();
        assert_eq!(authorization.uri, "sip:b@c");
        assert!(matches!(authorization.protection, Protection::Auth { .. }));
    }

    #[test]
    fn what_could_be_taken_for_two_things_is_refused() {
        let read = |text: &str| text.parse::<Authorization>().map(|_| ()).unwrap_err();
        let missing = |name| FieldError::Missing { name };
        assert_eq!(read("Basic QWxhZGRpbg=="), FieldError::Scheme);
        assert_eq!(read("Digest"), FieldError::Scheme);
        assert_eq!(read("Digest ,"), FieldError::Parameter);
        assert_eq!(read(&ANSWER.replace("nonce=", "nonce=\"x\", Nonce=")), FieldError::Duplicate);
        assert_eq!(read(&ANSWER.replace("\"bob\"", "\"\"")), missing("username"));
        assert_eq!(read(&ANSWER.replace("username", "username*")), missing("username"));
        assert_eq!(read(&ANSWER.replace("cnonce", "x")), missing("cnonce"));
        assert_eq!(read(&ANSWER.replace("0000000A", "+000000A")), missing("nc"));
        assert_eq!(read(&ANSWER.replace("0000000A", "1")), missing("nc"));
        assert_eq!(read(&ANSWER.replace("=auth", "=auth-int")), FieldError::Qop);
        assert_eq!(read(&format!("{ANSWER},")), FieldError::Parameter);
        assert_eq!(read(&format!("{ANSWER}, x=")), FieldError::Parameter);
        assert_eq!(read(&format!("{ANSWER}, x=\"")), FieldError::Parameter);
        assert_eq!(read(&format!("{ANSWER}, x=\"\\")), FieldError::Parameter);
        assert_eq!(read(&format!("{ANSWER}, algorithm=MD5-sess")), FieldError::Algorithm);
        let many: String = (0..40).map(|n| format!(", x{n}=1")).collect();
        assert_eq!(read(&format!("{ANSWER}{many}")), FieldError::Parameter);
    }

    #[test]
    fn one_quality_of_protection_of_a_list_is_enough() {
        let challenge = |qop: &str| format!("Digest realm=\"\", nonce=\"n\"{qop}").parse();
        let offered: Challenge = challenge(", qop=\"auth-int, auth\"").unwrap();
        assert!(offered.offers_auth);
        let old: Challenge = challenge("").unwrap();
        assert!(!old.offers_auth);
        let refused: Result<Challenge, FieldError> = challenge(", qop=\"auth-int\"");
        assert_eq!(refused, Err(FieldError::Qop));
    }
}
