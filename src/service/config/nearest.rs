//! The correction that an error suggests.

/// The known word that is most similar to the given one, if it is similar enough.
pub(super) fn nearest<'a>(known: &[&'a str], given: &str) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, given), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}
