//! The known keys, and the errors for others.

use std::{collections::BTreeMap, sync::LazyLock};

use config::{File, FileFormat, Source, ValueKind};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor, value::Error},
    forward_to_deserialize_any,
};

use super::{
    ConfigError,
    api::{ApplicationConfig, IssuerConfig, RouteConfig},
    nearest::nearest,
    sip::{TrunkConfig, UserConfig},
};

/// Every section with its keys and their defaults.
pub(super) const DEFAULTS: &str = include_str!("../../../config/default.toml");

/// Every key, with dots, and whether its value is a list. A key in a list of tables occurs once.
///
/// The keys of the sections are those of the defaults, which set each of them; the keys in lists of
/// tables are the fields of their types.
static KNOWN: LazyLock<BTreeMap<String, bool>> = LazyLock::new(|| {
    let mut known = BTreeMap::new();
    let defaults = File::from_str(DEFAULTS, FileFormat::Toml).collect().unwrap_or_default();
    for (section, keys) in defaults {
        for (name, value) in keys.into_table().unwrap_or_default() {
            let is_list = matches!(value.kind, ValueKind::Array(_));
            known.insert(format!("{section}.{name}"), is_list);
        }
    }
    for (list, fields) in [
        ("applications", fields_of::<ApplicationConfig>()),
        ("issuers", fields_of::<IssuerConfig>()),
        ("routes", fields_of::<RouteConfig>()),
        ("users", fields_of::<UserConfig>()),
        ("trunks", fields_of::<TrunkConfig>()),
    ] {
        // The environment cannot set them, so it does not matter which of them are lists.
        known.extend(fields.iter().map(|name| (format!("{list}.{name}"), false)));
    }
    known
});

/// Planned keys that this version does not support. Ignoring them would suggest that they work.
const LATER: &[&str] = &["storage.encrypt", "telemetry.metrics", "telemetry.otlp_endpoint"];

/// Why a key is refused.
pub(super) enum Wrong {
    Unknown { nearest: Option<String> },
    NotYet,
}

impl Wrong {
    /// The error for `key` given at `origin`.
    pub(super) fn at(self, origin: String, key: &str) -> ConfigError {
        let key = key.to_owned();
        match self {
            Self::Unknown { nearest } => ConfigError::UnknownKey { origin, key, nearest },
            Self::NotYet => ConfigError::NotYet { origin, key },
        }
    }
}

/// Checks whether a key is known.
pub(super) fn check(key: &str) -> Result<(), Wrong> {
    let section = key.split('.').next().unwrap_or(key);
    if KNOWN.contains_key(key) {
        return Ok(());
    }
    // An empty section or list sets nothing.
    if key == section && KNOWN.keys().any(|known| known.starts_with(&format!("{key}."))) {
        return Ok(());
    }
    if LATER.contains(&key) || LATER.contains(&section) {
        return Err(Wrong::NotYet);
    }
    let known: Vec<&str> = KNOWN.keys().map(String::as_str).collect();
    let nearest = nearest(&known, key).map(str::to_owned);
    Err(Wrong::Unknown { nearest })
}

/// Whether the key's value is a list, which an environment variable separates by commas.
pub(super) fn is_list(key: &str) -> bool {
    KNOWN.get(key).copied().unwrap_or_default()
}

/// The names of the fields that a struct is deserialised from.
fn fields_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &[&str] = &[];
    // Always fails, after the struct has named its fields.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

/// A deserialiser that notes the names of the fields, and has no values for them.
struct FieldNames<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("there are only names"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}
