//! An error and its causes in one line.

/// The text of an error, followed by each cause that the text does not contain yet.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let cause = anyhow::anyhow!("no such file");
        let error = cause.context("a.pem: no such file").context("sip.tls_key");
        assert_eq!(in_words(&error), "sip.tls_key: a.pem: no such file");
    }
}
