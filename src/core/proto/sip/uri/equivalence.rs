//! Whether two URIs are equivalent (RFC 3261 §19.1.4, RFC 3966 §4).

use super::{Rest, Uri, find, unescape};

/// Parameters that are compared even when only one of the URIs has them.
const ALWAYS_COMPARED: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];

impl Uri {
    /// Whether both URIs mean the same resource. URIs other than SIP and `tel` are compared letter
    /// by letter.
    pub fn is_equivalent(&self, other: &Self) -> bool {
        if self == other {
            // Also for a URI that contradicts itself by having a parameter twice.
            return true;
        }
        if self.scheme != other.scheme {
            return false;
        }
        match (&self.rest, &other.rest) {
            (
                Rest::Sip { userinfo, host, port, params, headers },
                Rest::Sip {
                    userinfo: other_userinfo,
                    host: other_host,
                    port: other_port,
                    params: other_params,
                    headers: other_headers,
                },
            ) => {
                let is_same_user = match (userinfo, other_userinfo) {
                    (None, None) => true,
                    (Some((user, password)), Some((other_user, other_password))) => {
                        let password = password.as_deref().map(unescape);
                        unescape(user) == unescape(other_user)
                            && password == other_password.as_deref().map(unescape)
                    }
                    (None, Some(_)) | (Some(_), None) => false,
                };
                is_same_user
                    && host.eq_ignore_ascii_case(other_host)
                    && port == other_port
                    && params_agree(params, other_params)
                    && params_agree(other_params, params)
                    && has_headers(headers, other_headers)
                    && has_headers(other_headers, headers)
            }
            (
                Rest::Tel { number, params },
                Rest::Tel { number: other_number, params: other_params },
            ) => {
                let digits = |number: &str| -> String {
                    number.chars().filter(|c| !"-.()".contains(*c)).collect()
                };
                let context = |params| find(params, "phone-context").map(str::to_ascii_lowercase);
                digits(number).eq_ignore_ascii_case(&digits(other_number))
                    && context(params) == context(other_params)
            }
            (ours, theirs) => ours == theirs,
        }
    }
}

/// Whether no parameter of the first URI contradicts the second.
fn params_agree(params: &[(String, Option<String>)], others: &[(String, Option<String>)]) -> bool {
    params.iter().all(|(name, value)| match find(others, name) {
        Some(other) => {
            unescape(value.as_deref().unwrap_or_default()).eq_ignore_ascii_case(&unescape(other))
        }
        None => !ALWAYS_COMPARED.iter().any(|always| name.eq_ignore_ascii_case(always)),
    })
}

fn has_headers(headers: &[(String, String)], others: &[(String, String)]) -> bool {
    headers.iter().all(|(name, value)| {
        others.iter().any(|(other_name, other_value)| {
            name.eq_ignore_ascii_case(other_name) && unescape(value) == unescape(other_value)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_equivalent(one: &str, other: &str) -> bool {
        let (one, other): (Uri, Uri) = (one.parse().unwrap(), other.parse().unwrap());
        assert_eq!(one.is_equivalent(&other), other.is_equivalent(&one));
        one.is_equivalent(&other)
    }

    #[test]
    fn the_equal_uris_of_rfc_3261() {
        for (one, other) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com",
            ),
            (
                "sip:alice@atlanta.com?subject=project%20x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=project%20x",
            ),
            ("tel:+1-201-555-0123", "tel:+1(201)5550123"),
        ] {
            assert!(is_equivalent(one, other), "{one} {other}");
        }
    }

    #[test]
    fn the_different_uris_of_rfc_3261() {
        for (one, other) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4"),
            ("sip:carol@chicago.com;security=on", "sip:carol@chicago.com;security=off"),
            ("sip:bob@biloxi.com", "sip:biloxi.com"),
            ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
            ("sip:bob:x@biloxi.com", "sip:bob@biloxi.com"),
            ("tel:+12015550123", "tel:12015550123"),
        ] {
            assert!(!is_equivalent(one, other), "{one} {other}");
        }
    }
}
