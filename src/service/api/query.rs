//! The OData query options that this server supports: `$select`, `$top`, `$skip`, `$count`, and
//! `$expand` for calls.
//!
//! Input: the query of a request, and the members that may be selected. Output: the parts of an
//! object or collection to show. Any other option that begins with `$` is refused, so that no
//! client relies on a filter that was not applied. A parameter that does not begin with `$` is
//! ignored.

use serde_json::{Map, Value, json};
use url::form_urlencoded;

use aftertone_core::graph;

/// Maximum size of a page; the rest follows by `@odata.nextLink`.
const PAGE: usize = 1000;

/// A query option that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidQuery {
    /// The option is unknown, or not supported on this path.
    #[error("The query option {0:?} is not supported here.")]
    Unsupported(String),
    /// The object has no such member.
    #[error("The query option $select names {0:?}, which is not a member here.")]
    Unknown(String),
    /// The value does not fit the option.
    #[error("The query option {option} must be {expected}.")]
    Value {
        /// The option.
        option: &'static str,
        /// The values that the option accepts.
        expected: &'static str,
    },
}

/// The parsed query options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct QueryOptions {
    select: Option<Vec<String>>,
    top: Option<usize>,
    skip: usize,
    count: bool,
    expand: Vec<Expanded>,
}

/// Position of a page in its collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of objects in the collection.
    total: usize,
    /// Position where the next page begins.
    end: usize,
    has_next: bool,
}

/// A relation of a call that can be expanded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expanded {
    /// Its operations.
    Operations,
    /// Its participants.
    Participants,
}

impl QueryOptions {
    /// Parses the options for one object: `$select`.
    ///
    /// # Errors
    /// Names the option that is not supported.
    pub(super) fn for_entity(query: Option<&str>, members: &[&str]) -> Result<Self, InvalidQuery> {
        Self::for_collection(query, members)?.unpaged()
    }

    /// Parses the options for one call: `$select` and `$expand`.
    ///
    /// # Errors
    /// Names the option that is not supported.
    pub(super) fn for_call(query: Option<&str>) -> Result<Self, InvalidQuery> {
        Self::for_calls(query)?.unpaged()
    }

    /// Parses the options for the collection of calls: all five.
    ///
    /// # Errors
    /// Names the option that is not supported.
    pub(super) fn for_calls(query: Option<&str>) -> Result<Self, InvalidQuery> {
        Self::read(query, &graph::Call::MEMBERS, true)
    }

    fn unpaged(self) -> Result<Self, InvalidQuery> {
        let paged = self.top.is_some() || self.skip > 0 || self.count;
        if paged {
            Err(InvalidQuery::Unsupported("$top, $skip or $count".to_owned()))
        } else {
            Ok(self)
        }
    }

    /// Checks the query of an action, which supports no options.
    ///
    /// # Errors
    /// Names the option that is not supported.
    pub(super) fn for_action(query: Option<&str>) -> Result<(), InvalidQuery> {
        match options(query).next() {
            None => Ok(()),
            Some((name, _)) => Err(InvalidQuery::Unsupported(shortened(&name))),
        }
    }

    /// Parses the options for a collection of objects with these members: all but `$expand`.
    ///
    /// # Errors
    /// Names the option that is not supported.
    pub(super) fn for_collection(
        query: Option<&str>,
        members: &[&str],
    ) -> Result<Self, InvalidQuery> {
        Self::read(query, members, false)
    }

    fn read(query: Option<&str>, members: &[&str], may_expand: bool) -> Result<Self, InvalidQuery> {
        const WHOLE: &str = "a whole number";
        let number = |option, value: &str| {
            value.parse().map_err(|_| InvalidQuery::Value { option, expected: WHOLE })
        };
        let mut read = Self::default();
        for (name, value) in options(query) {
            match name.as_str() {
                "$select" => read.select = Some(selected(&value, members)?),
                "$top" => read.top = Some(number("$top", &value)?),
                "$skip" => read.skip = number("$skip", &value)?,
                "$expand" if may_expand => read.expand = expanded(&value)?,
                "$count" => {
                    read.count = value.parse().map_err(|_| InvalidQuery::Value {
                        option: "$count",
                        expected: "true or false",
                    })?;
                }
                _ => return Err(InvalidQuery::Unsupported(shortened(&name))),
            }
        }
        Ok(read)
    }

    /// Whether the relation is to be expanded in the call.
    pub(super) fn expands(&self, what: Expanded) -> bool {
        self.expand.contains(&what)
    }

    /// Reduces an object to the selected members; an expanded relation counts as selected.
    pub(super) fn entity(&self, thing: Value) -> Value {
        let Some(select) = &self.select else { return thing };
        match thing {
            Value::Object(members) => {
                let shown = |name: &str| {
                    let expanded = self.expand.iter().any(|expanded| expanded.name() == name);
                    name.starts_with('@') || expanded || select.iter().any(|s| s == name)
                };
                Value::Object(members.into_iter().filter(|(name, _)| shown(name)).collect())
            }
            other => other,
        }
    }

    /// The objects on the requested page, and the position of the page. Only these objects need to
    /// be converted to JSON.
    pub(super) fn on_page<T>(&self, things: Vec<T>) -> (Vec<T>, Place) {
        let total = things.len();
        let (skip, size) = self.window();
        let things: Vec<T> = things.into_iter().skip(skip).take(size).collect();
        let place = self.place(total, things.len());
        (things, place)
    }

    /// The requested part of a collection: how many objects to skip, and how many to return at
    /// most.
    pub(super) fn window(&self) -> (usize, usize) {
        (self.skip, self.top.unwrap_or(PAGE).min(PAGE))
    }

    /// The position of the requested page, which has `on_page` of the `total` objects.
    pub(super) fn place(&self, total: usize, on_page: usize) -> Place {
        let end = self.skip.saturating_add(on_page);
        Place { total, end, has_next: end < total && on_page > 0 }
    }

    /// The page at `place` of the collection at `url`, with the objects in `shown`.
    pub(super) fn page(
        &self,
        context: String,
        url: &str,
        place: Place,
        shown: Vec<Value>,
    ) -> Value {
        let Place { total, end, has_next } = place;
        let value = shown.into_iter().map(|thing| self.entity(thing)).collect();
        let mut page = Map::new();
        page.insert("@odata.context".to_owned(), json!(context));
        if self.count {
            page.insert("@odata.count".to_owned(), json!(total));
        }
        // As in the rest of Graph, `$top` is the size of a page. An empty page has no next link.
        if has_next {
            page.insert("@odata.nextLink".to_owned(), json!(self.next_link(url, end)));
        }
        page.insert("value".to_owned(), Value::Array(value));
        Value::Object(page)
    }

    fn next_link(&self, url: &str, skip: usize) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if let Some(select) = &self.select {
            query.append_pair("$select", &select.join(","));
        }
        if !self.expand.is_empty() {
            let names: Vec<&str> = self.expand.iter().map(|expanded| expanded.name()).collect();
            query.append_pair("$expand", &names.join(","));
        }
        if let Some(top) = self.top {
            query.append_pair("$top", &top.to_string());
        }
        if self.count {
            query.append_pair("$count", "true");
        }
        query.append_pair("$skip", &skip.to_string());
        format!("{url}?{}", query.finish())
    }
}

impl Expanded {
    /// Name of the member.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Operations => "operations",
            Self::Participants => "participants",
        }
    }
}

fn expanded(value: &str) -> Result<Vec<Expanded>, InvalidQuery> {
    let known = |name: &str| {
        let all = [Expanded::Operations, Expanded::Participants];
        all.into_iter().find(|expanded| expanded.name() == name.trim())
    };
    let all: Option<Vec<_>> = value.split(',').map(known).collect();
    all.ok_or(InvalidQuery::Value {
        option: "$expand",
        expected: "operations, participants or both",
    })
}

/// The OData options in a query.
fn options(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name.starts_with('$'))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn selected(value: &str, members: &[&str]) -> Result<Vec<String>, InvalidQuery> {
    let known = |name: &str| {
        if members.contains(&name.trim()) {
            Ok(name.trim().to_owned())
        } else {
            Err(InvalidQuery::Unknown(shortened(name.trim())))
        }
    };
    value.split(',').map(known).collect()
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: [&str; 3] = ["id", "state", "subject"];

    fn page(query: &str, count: u32) -> Value {
        let options = QueryOptions::for_collection(Some(query), &MEMBERS).unwrap();
        let (things, place) = options.on_page((0..count).collect());
        let shown = |n| json!({"@odata.type": "t", "id": n, "state": "established"});
        let shown = things.into_iter().map(shown).collect();
        options.page("c".to_owned(), "https://h/calls", place, shown)
    }

    fn ids(page: &Value) -> Vec<u64> {
        page["value"].as_array().unwrap().iter().filter_map(|v| v["id"].as_u64()).collect()
    }

    #[test]
    fn a_page_is_cut_and_says_where_it_goes_on() {
        let first = page("$top=2&$skip=1&$count=true", 5);
        assert_eq!(ids(&first), [1, 2]);
        assert_eq!(first["@odata.count"], 5);
        assert_eq!(first["@odata.nextLink"], "https://h/calls?%24top=2&%24count=true&%24skip=3");
        let last = page("$top=2&$skip=3", 5);
        assert_eq!(ids(&last), [3, 4]);
        assert_eq!(last.get("@odata.nextLink"), None);
        assert_eq!(last.get("@odata.count"), None);
    }

    #[test]
    fn a_collection_is_never_sent_whole_when_it_is_huge() {
        let first = page("", 1001);
        assert_eq!(ids(&first).len(), 1000);
        assert_eq!(first["@odata.nextLink"], "https://h/calls?%24skip=1000");
    }

    #[test]
    fn pages_beyond_the_end_are_empty() {
        assert_eq!(ids(&page("$skip=18446744073709551615", 3)), [0_u64; 0]);
        assert_eq!(page("$top=0", 3).get("@odata.nextLink"), None);
    }

    #[test]
    fn selecting_keeps_the_annotations() {
        let query = Some("%24select=id,%20state&x=1");
        let options = QueryOptions::for_entity(query, &MEMBERS).unwrap();
        let thing = json!({"@odata.type": "t", "id": 1, "state": 2, "subject": 3});
        assert_eq!(options.entity(thing), json!({"@odata.type": "t", "id": 1, "state": 2}));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused =
            |query| QueryOptions::for_collection(Some(query), &MEMBERS).unwrap_err().to_string();
        assert_eq!(
            refused("$select=id,sate"),
            "The query option $select names \"sate\", which is not a member here."
        );
        assert_eq!(refused("$filter=x"), "The query option \"$filter\" is not supported here.");
        assert_eq!(refused("$top=-1"), "The query option $top must be a whole number.");
        assert_eq!(refused("$count=maybe"), "The query option $count must be true or false.");
        assert!(QueryOptions::for_entity(Some("$top=1"), &MEMBERS).is_err());
        assert!(QueryOptions::for_entity(Some("$expand=operations"), &MEMBERS).is_err());
        let refused = QueryOptions::for_call(Some("$expand=operations($select=id)")).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "The query option $expand must be operations, participants or both."
        );
        assert!(QueryOptions::for_action(Some("$select=id")).is_err());
        assert_eq!(QueryOptions::for_action(Some("debug=1")), Ok(()));
        assert_eq!(QueryOptions::for_action(None), Ok(()));
    }
}
