//! The OData query options that this server knows: `$select`, `$top`, `$skip`, `$count`, and of one
//! call `$expand`.
//!
//! In: the query of a request. Out: what to show of a thing or of a collection. Other options that
//! begin with `$` are refused, so that nobody believes in a filter that was not applied; what does
//! not begin with `$` is not ours and is ignored.

use serde_json::{Map, Value, json};
use url::form_urlencoded;

/// The largest page; more is behind `@odata.nextLink`.
const PAGE: usize = 1000;

/// A query option that cannot be honoured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    /// An option that is not there, or not here.
    #[error("The query option {0:?} is not supported here.")]
    Unsupported(String),
    /// A value that does not fit its option.
    #[error("The query option {option} must be {expected}.")]
    Value {
        /// The option.
        option: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryOptions {
    select: Option<Vec<String>>,
    top: Option<usize>,
    skip: usize,
    count: bool,
    expand: Vec<Expanded>,
}

/// What belongs to a call and may be shown in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expanded {
    /// Its operations.
    Operations,
    /// Its participants.
    Participants,
}

impl QueryOptions {
    /// Reads the options for one thing: `$select`.
    ///
    /// # Errors
    /// Names the option that cannot be honoured.
    pub fn for_entity(query: Option<&str>) -> Result<Self, InvalidQuery> {
        let options = Self::for_collection(query)?;
        options.unpaged()
    }

    /// Reads the options for one call: `$select` and `$expand`.
    ///
    /// # Errors
    /// Names the option that cannot be honoured.
    pub fn for_call(query: Option<&str>) -> Result<Self, InvalidQuery> {
        Self::read(query, true)?.unpaged()
    }

    fn unpaged(self) -> Result<Self, InvalidQuery> {
        let paged = self.top.is_some() || self.skip > 0 || self.count;
        match paged {
            true => Err(InvalidQuery::Unsupported("$top, $skip or $count".to_owned())),
            false => Ok(self),
        }
    }

    /// Reads the options for an action: there are none.
    ///
    /// # Errors
    /// Names the option that cannot be honoured.
    pub fn for_action(query: Option<&str>) -> Result<(), InvalidQuery> {
        match options(query).next() {
            None => Ok(()),
            Some((name, _)) => Err(InvalidQuery::Unsupported(shortened(&name))),
        }
    }

    /// Reads the options for a collection: all four.
    ///
    /// # Errors
    /// Names the option that cannot be honoured.
    pub fn for_collection(query: Option<&str>) -> Result<Self, InvalidQuery> {
        Self::read(query, false)
    }

    fn read(query: Option<&str>, may_expand: bool) -> Result<Self, InvalidQuery> {
        const WHOLE: &str = "a whole number";
        let number = |option, value: &str| {
            value.parse().map_err(|_| InvalidQuery::Value { option, expected: WHOLE })
        };
        let mut read = Self::default();
        for (name, value) in options(query) {
            match name.as_str() {
                "$select" => read.select = Some(selected(&value)),
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

    /// Whether this is to be shown in the call.
    pub fn expands(&self, what: Expanded) -> bool {
        self.expand.contains(&what)
    }

    /// One thing with the members that were asked for; what was expanded was asked for too.
    pub fn entity(&self, thing: Value) -> Value {
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

    /// The asked-for page of a collection at `url`; only the things on it are made.
    pub fn page<T>(
        &self,
        context: String,
        url: &str,
        things: Vec<T>,
        shown: impl Fn(T) -> Value,
    ) -> Value {
        let total = things.len();
        let size = self.top.unwrap_or(PAGE).min(PAGE);
        let value: Vec<Value> = things
            .into_iter()
            .skip(self.skip)
            .take(size)
            .map(|thing| self.entity(shown(thing)))
            .collect();
        let end = self.skip.saturating_add(value.len());

        let mut page = Map::new();
        page.insert("@odata.context".to_owned(), json!(context));
        if self.count {
            page.insert("@odata.count".to_owned(), json!(total));
        }
        // As in the rest of Graph `$top` is the size of a page; an empty page leads nowhere.
        if end < total && !value.is_empty() {
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
    /// The member's name.
    pub fn name(self) -> &'static str {
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

/// The options of OData in a query.
fn options(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name.starts_with('$'))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
}

fn selected(value: &str) -> Vec<String> {
    value.split(',').map(|name| name.trim().to_owned()).collect()
}

fn shortened(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(query: &str, count: u32) -> Value {
        let options = QueryOptions::for_collection(Some(query)).unwrap();
        options.page(
            "c".to_owned(),
            "https://h/calls",
            (0..count).collect(),
            |n| json!({"@odata.type": "t", "id": n, "state": "established"}),
        )
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
        let options = QueryOptions::for_entity(Some("%24select=id,%20state&x=1")).unwrap();
        let thing = json!({"@odata.type": "t", "id": 1, "state": 2, "subject": 3});
        assert_eq!(options.entity(thing), json!({"@odata.type": "t", "id": 1, "state": 2}));
    }

    #[test]
    fn what_cannot_be_honoured_is_refused() {
        let refused = |query| QueryOptions::for_collection(Some(query)).unwrap_err().to_string();
        assert_eq!(refused("$filter=x"), "The query option \"$filter\" is not supported here.");
        assert_eq!(refused("$top=-1"), "The query option $top must be a whole number.");
        assert_eq!(refused("$count=maybe"), "The query option $count must be true or false.");
        assert!(QueryOptions::for_entity(Some("$top=1")).is_err());
        assert!(QueryOptions::for_entity(Some("$expand=operations")).is_err());
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
