//! Configuration: embedded defaults, one file, the environment. It is read and checked once.
//!
//! Input: a path and the environment. Output: [`Config`], with types that cannot hold an invalid
//! value, or a [`ConfigError`] that names the source, the key and the correction. No other module
//! reads the environment.

mod api;
mod error;
mod keys;
mod nearest;
mod sections;
mod sip;
mod values;

use std::{collections::BTreeMap, fs, path::Path};

use config::{File, FileFormat, Source, Value, ValueKind};

pub use api::{ApiConfig, ApiTls, ApplicationConfig, IssuerConfig, RouteConfig, RouteTarget};
pub use error::ConfigError;
pub use sections::{CallsConfig, Config, FetchConfig, MediaConfig, StorageConfig, TelemetryConfig};
pub use sip::{SipConfig, TrunkConfig, UserConfig};
pub use values::{
    AllowedNetwork, Line, LogFormat, PortRange, SipListener, TrunkTransport, WebOrigin,
};

const PREFIX: &str = "AFTERTONE__";
const SYSTEM_FILE: &str = "/etc/aftertone/aftertone.toml";

impl Config {
    /// Reads the configuration: the defaults, then `file` (or the system's file if it exists), then
    /// the variables of `environment` that begin with `AFTERTONE__`.
    ///
    /// # Errors
    /// The first error, with its place.
    pub fn load(
        file: Option<&Path>,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut builder =
            config::Config::builder().add_source(File::from_str(keys::DEFAULTS, FileFormat::Toml));
        let system = Path::new(SYSTEM_FILE);
        let path = file.or_else(|| system.exists().then_some(system));
        if let Some(path) = path {
            let text = fs::read_to_string(path)
                .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
            let source = File::from_str(&text, FileFormat::Toml);
            let origin = path.display().to_string();
            let tree = source.collect().map_err(|error| invalid(&origin, error))?;
            check_keys(&tree, &origin, &text)?;
            builder = builder.add_source(source);
        }
        let mut variables = BTreeMap::new();
        for (name, value) in environment {
            let Some(key) = name.strip_prefix(PREFIX) else { continue };
            let key = key.to_ascii_lowercase().replace("__", ".");
            keys::check(&key).map_err(|wrong| wrong.at(name.clone(), &key))?;
            let value = if keys::is_list(&key) { list(&value) } else { Value::from(value) };
            builder = builder.set_override(&key, value).map_err(|error| invalid(&name, error))?;
            variables.insert(key, name);
        }
        let mut loaded: Self =
            builder.build().and_then(config::Config::try_deserialize).map_err(|error| {
                let variable = key_of(&error).and_then(|key| variables.get(key));
                let file = || path.map_or_else(String::new, |path| path.display().to_string());
                invalid(&variable.cloned().unwrap_or_else(file), error)
            })?;
        loaded.file = path.map(Path::to_owned);
        loaded.read_secrets()?;
        loaded.check()?;
        Ok(loaded)
    }
}

fn invalid(origin: &str, error: config::ConfigError) -> ConfigError {
    let message = with_dots(error).to_string();
    ConfigError::Invalid { origin: origin.to_owned(), message: message.trim().to_owned() }
}

/// The key that an error is about, without an index in a list.
fn key_of(error: &config::ConfigError) -> Option<&str> {
    match error {
        config::ConfigError::Type { key, .. } | config::ConfigError::At { key, .. } => {
            key.as_deref()?.split('[').next()
        }
        _ => None,
    }
}

/// Adds the dot after an index in a list, which the library leaves out.
fn with_dots(mut error: config::ConfigError) -> config::ConfigError {
    use config::ConfigError::{At, NotFound, Type};
    if let NotFound(key) | Type { key: Some(key), .. } | At { key: Some(key), .. } = &mut error {
        *key = key.replace(']', "].").trim_end_matches('.').to_owned();
    }
    error
}

fn list(text: &str) -> Value {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Value::from(items.map(str::to_owned).collect::<Vec<_>>())
}

/// Checks every key of a file against the known keys.
fn check_keys(
    tree: &config::Map<String, Value>,
    origin: &str,
    text: &str,
) -> Result<(), ConfigError> {
    let mut found = BTreeMap::new();
    for (name, value) in tree {
        collect_keys(name, value, &mut found);
    }
    for key in found.keys() {
        keys::check(key).map_err(|wrong| {
            let place = match line_of(text, key) {
                Some(line) => format!("{origin}:{line}"),
                None => origin.to_owned(),
            };
            wrong.at(place, key)
        })?;
    }
    Ok(())
}

fn collect_keys(key: &str, value: &Value, found: &mut BTreeMap<String, ()>) {
    match &value.kind {
        ValueKind::Table(table) => {
            if table.is_empty() {
                found.insert(key.to_owned(), ());
            }
            for (name, value) in table {
                collect_keys(&format!("{key}.{name}"), value, found);
            }
        }
        ValueKind::Array(items)
            if items.iter().any(|item| matches!(item.kind, ValueKind::Table(_))) =>
        {
            for item in items {
                collect_keys(key, item, found);
            }
        }
        _ => {
            found.insert(key.to_owned(), ());
        }
    }
}

/// The line that sets the last part of `key`, counted from 1.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let name = key.rsplit('.').next()?;
    let is_it = |line: &str| {
        let line = line.trim_start_matches(|c: char| c.is_whitespace() || c == '[' || c == '"');
        line.strip_prefix(name).is_some_and(|rest| {
            rest.trim_start_matches(['"', ' ', '\t']).starts_with(['=', ']', '.'])
        })
    };
    text.lines().position(is_it).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use aftertone_core::proto::sip::path::Transport;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        fs::write(&path, text).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Config::load(Some(&path), environment)
    }

    #[test]
    fn the_defaults_are_a_working_configuration() {
        let config = load("", &[]).unwrap();
        assert_eq!(config.storage.retention, Duration::from_secs(600));
        assert_eq!(config.media.ports, PortRange { first: 20_000, last: 20_999 });
        assert!(config.applications.is_empty());
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
        let config = load(
            "[storage]\nretention = \"1h\"\ndatabase = \"sqlite:x.db\"\n",
            &[
                ("AFTERTONE__STORAGE__RETENTION", "30s"),
                ("AFTERTONE__FETCH__ALLOW_NETWORKS", "127.0.0.0/8, 10.0.0.0/8:8080"),
                ("PATH", "/bin"),
            ],
        )
        .unwrap();
        assert_eq!(config.storage.retention, Duration::from_secs(30));
        assert_eq!(config.storage.database, "sqlite:x.db");
        assert_eq!(config.fetch.allow_networks.len(), 2);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_one() {
        let error = load("[storage]\n\nretenton = \"1h\"\n", &[]).unwrap_err().to_string();
        assert!(error.contains("a.toml:3"), "{error}");
        assert!(error.contains("did you mean `storage.retention`?"), "{error}");
        let error = load("", &[("AFTERTONE__SIP__LISEN", "udp:0.0.0.0:1")]).unwrap_err();
        assert!(error.to_string().contains("AFTERTONE__SIP__LISEN"), "{error}");
        assert!(error.to_string().contains("`sip.listen`"), "{error}");
    }

    #[test]
    fn the_known_keys_are_those_of_the_defaults_and_of_the_tables() {
        for key in [
            "sip.listen",
            "telemetry.format",
            "applications.tokens_file",
            "issuers.tenant",
            "routes.line",
            "users.password_file",
            "trunks.follow_redirects",
        ] {
            assert!(keys::check(key).is_ok(), "{key}");
        }
        let lists = ["sip.listen", "sip.digest", "sip.trusted_peers", "sip.web_origins"];
        for key in lists.into_iter().chain(["media.codecs", "fetch.allow_networks"]) {
            assert!(keys::is_list(key), "{key}");
        }
        assert!(!keys::is_list("sip.domain") && !keys::is_list("trunks.allow"));
    }

    #[test]
    fn a_reload_names_what_takes_a_restart() {
        let running = load("", &[]).unwrap();
        let changed = "[sip]\ntrusted_peers = [\"192.0.2.1\"]\ndomain = \"pbx.example\"\n\
                       [media]\nshards = 2\n[telemetry]\nlog = \"debug\"\n";
        let config = load(changed, &[]).unwrap();
        assert_eq!(config.needing_restart(&running), ["sip.domain", "media"]);
        assert!(config.needing_restart(&config).is_empty());
    }

    #[test]
    fn a_key_of_a_later_version_is_named_as_such() {
        let error = load("[storage]\nencrypt = true\n", &[]).unwrap_err();
        assert!(matches!(&error, ConfigError::NotYet { key, .. } if key == "storage.encrypt"));
    }

    #[test]
    fn wrong_values_name_the_key() {
        for (text, part) in [
            ("[storage]\nretention = \"soon\"\n", "storage.retention"),
            ("[media]\nports = \"20\"\n", "media.ports"),
            ("[media]\ncodecs = [\"gsm\"]\n", "media.codecs"),
            ("[sip]\ndigest = [\"sha-1\"]\n", "sip.digest"),
            ("[sip]\ndigest = []\n", "sip.digest"),
            ("[sip]\nlisten = [\"sctp:0.0.0.0:5060\"]\n", "sip.listen"),
            ("[sip]\nweb_origins = [\"*\"]\n", "sip.web_origins"),
            ("[api]\nlisten = 5\n", "api.listen"),
            ("[api]\nidentity_type = \"phone\"\n", "api.identity_type: \"phone\" is neither"),
            ("[fetch]\nallow_networks = [\"10.0.0.0/99\"]\n", "fetch.allow_networks"),
            ("[sip]\ntrusted_peers = [\"ten\"]\n", "sip.trusted_peers: \"ten\" is neither"),
            ("[[applications]]\nname = \"b\"\nid = \"1\"\n", "applications[0].callback_uri"),
            ("[[applications]]\nname = \"b\"\nid = 1\nroles = 5\n", "applications[0].roles"),
            ("[sip\n", "a.toml"),
        ] {
            let error = load(text, &[]).unwrap_err().to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_wrong_value_of_the_environment_names_its_variable() {
        for (name, value) in [
            ("AFTERTONE__STORAGE__RETENTION", "soon"),
            ("AFTERTONE__SIP__LISTEN", "udp:0.0.0.0:5060,sctp:0.0.0.0:5060"),
            ("AFTERTONE__SIP__TRUSTED_PEERS", "ten"),
            ("AFTERTONE__MEDIA__SHARDS", "many"),
            ("AFTERTONE__SIP__ANONYMOUS_CALLS", "perhaps"),
        ] {
            let error = load("[media]\nmax_calls = 5\n", &[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
            assert!(!error.contains("a.toml"), "{error}");
        }
    }

    #[test]
    fn an_address_is_a_network_of_one() {
        let text = "[sip]\ntrusted_peers = [\"192.0.2.5\", \"2001:db8::1\", \"10.0.0.0/8\"]\n";
        let trusted = load(text, &[]).unwrap().sip.trusted_peers;
        let written: Vec<String> = trusted.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["192.0.2.5/32", "2001:db8::1/128", "10.0.0.0/8"]);
    }

    #[test]
    fn a_role_that_graph_does_not_have_is_refused_with_the_nearest_one() {
        let bot = |roles: &str| {
            format!(
                "[[applications]]\nname = \"b\"\nid = \"1\"\nroles = [{roles}]\n\
                 callback_uri = \"http://127.0.0.1/\"\n"
            )
        };
        let error = load(&bot("\"Calls.AccessMedia\""), &[]).unwrap_err().to_string();
        assert!(error.contains("applications.roles"), "{error}");
        assert!(error.contains("did you mean \"Calls.AccessMedia.All\"?"), "{error}");
        let error = load(&bot("\"admin\""), &[]).unwrap_err().to_string();
        assert!(error.contains("Calls.Initiate.All"), "{error}");
        load(&bot("\"calls.accessmedia.all\", \"Calls.JoinGroupCalls.All\""), &[]).unwrap();
    }

    #[test]
    fn a_secret_that_cannot_be_read_names_its_key() {
        for (table, key) in [
            ("[[applications]]\nname = \"b\"\nid = \"1\"\ncallback_uri = \"\"\n", "secret_file"),
            ("[[applications]]\nname = \"b\"\nid = \"1\"\ncallback_uri = \"\"\n", "tokens_file"),
            ("[[users]]\nname = \"b\"\n", "password_file"),
            ("[[trunks]]\nname = \"b\"\nhost = \"h\"\nallow = []\n", "password_file"),
        ] {
            let error = load(&format!("{table}{key} = \"/nowhere\"\n"), &[]).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!(".{key}: cannot read /nowhere: No such")), "{error}");
        }
    }

    #[test]
    fn web_origins_are_as_browsers_write_them() {
        let read = |text: &str| text.parse::<WebOrigin>().map(|origin| origin.0);
        for (text, origin) in [
            ("https://Phone.example", "https://phone.example"),
            ("https://phone.example:443", "https://phone.example"),
            ("http://phone.example:8080", "http://phone.example:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("ionic://localhost", "ionic://localhost"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(origin));
        }
        for text in [
            "",
            "null",
            "phone.example",
            "https:phone.example",
            "https://",
            "https://phone.example/",
            "https://phone.example/phone",
            "https://user@phone.example",
            "https://*.example",
            "https://phone.example?",
            "wss://phone.example",
            "https://phone.example:x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sip_is_spoken_over_every_transport_and_a_secure_one_needs_a_certificate() {
        let config = load("", &[]).unwrap();
        let transports: Vec<_> = config.sip.listen.iter().map(|l| l.transport).collect();
        assert_eq!(transports, [Transport::Udp, Transport::Tcp]);

        let listen = "[sip]\nlisten = [\"tls:[::]:5061\", \"ws:0.0.0.0:5080\"]\n";
        let certificate = "tls_certificate = \"c.pem\"\n";
        let error = load(listen, &[]).unwrap_err().to_string();
        assert!(error.contains("sip.tls_certificate"), "{error}");
        let error = load(&format!("{listen}{certificate}"), &[]).unwrap_err().to_string();
        assert!(error.contains("sip.tls_key"), "{error}");
        let config = load(&format!("{listen}{certificate}tls_key = \"k.pem\"\n"), &[]).unwrap();
        assert_eq!(config.sip.listen[0].transport, Transport::Tls);
        assert_eq!(config.sip.listen[1].transport, Transport::Ws);
        assert!(load("[sip]\ntls_client_ca = \"ca.pem\"\n", &[]).is_err(), "it would do nothing");
    }

    #[test]
    fn routes_and_applications_must_go_together() {
        let bot = "[[applications]]\nname = \"b\"\nid = \"1\"\ntokens = [\"t\"]\n\
                   callback_uri = \"http://127.0.0.1/\"\n";
        assert!(load(&format!("{bot}[[routes]]\nto = \"1*\"\napplication = \"b\"\n"), &[]).is_ok());
        for text in [
            format!("{bot}[[routes]]\nto = \"1\"\napplication = \"c\"\n"),
            format!("{bot}[[routes]]\nto = \"1\"\n"),
            format!("{bot}[[routes]]\nto = \"1\"\napplication = \"b\"\nline = \"echo\"\n"),
            format!("{bot}{bot}"),
            "[[applications]]\nname = \"b\"\nid = \"1\"\ncallback_uri = \"ftp://x/\"\n".to_owned(),
            bot.replace("127.0.0.1/", "127.0.0.1/\\u0000"),
            bot.replace("127.0.0.1/", "127.0.0.1/\\n"),
            bot.replace("name = \"b\"", "name = \"b\\u0000\""),
        ] {
            assert!(load(&text, &[]).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_can_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        fs::write(&path, "one\n\ntwo\n").unwrap();
        let text = format!(
            "[[applications]]\nname = \"b\"\nid = \"1\"\ntokens_file = {path:?}\n\
             callback_uri = \"http://127.0.0.1/\"\n"
        );
        let config = load(&text, &[]).unwrap();
        assert_eq!(config.applications[0].tokens, ["one", "two"]);
    }
}
