//! Holds the borders of the house (docs/architecture.md) against its sources.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Room → rooms that it may use. `model` is open to all. What is not listed is a mistake.
const MAY_USE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("tls", &[]),
    ("http", &[]),
    ("config", &[]),
    ("clock", &[]),
    ("telemetry", &["config"]),
    ("proto", &[]),
    ("audio", &[]),
    ("graph", &["proto"]),
    ("store", &["clock", "config"]),
    ("operation", &["audio"]),
    ("call", &["proto"]),
    ("signalling", &["proto", "tls"]),
    ("prompts", &["audio", "http"]),
    ("recordings", &["audio", "store"]),
    ("notify", &["graph", "http", "store"]),
    ("tokens", &["store"]),
    ("media", &["operation", "proto", "audio"]),
    (
        "switchboard",
        &[
            "call",
            "clock",
            "media",
            "signalling",
            "prompts",
            "recordings",
            "store",
            "config",
            "audio",
            "operation",
            "proto",
        ],
    ),
    ("api", &["switchboard", "graph", "store", "recordings", "tokens"]),
    (
        "app",
        &[
            "api",
            "call",
            "config",
            "graph",
            "http",
            "media",
            "notify",
            "prompts",
            "proto",
            "recordings",
            "signalling",
            "store",
            "switchboard",
            "telemetry",
            "tls",
            "tokens",
        ],
    ),
    // A client of the house: it uses the audio tools, and starts a daemon as `main` does.
    ("demo", &["app", "audio", "config", "prompts", "telemetry"]),
    ("main", &["app", "config", "demo", "telemetry"]),
];

/// Rooms that know no runtime, socket, file, thread or clock.
const PURE: &[&str] = &["model", "proto", "audio", "operation", "call", "graph"];

/// What a pure room must not mention outside its tests.
const IMPURE: &[&str] = &[
    "tokio::",
    "std::net::UdpSocket",
    "std::net::TcpStream",
    "std::fs",
    "std::thread",
    "Instant::now",
    "SystemTime::now",
    "rand::random",
    "rand::rng()",
    "reqwest::",
    "sqlx::",
    "axum::",
];

#[test]
fn imports_run_to_lower_floors_only() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (path, room, code) in sources() {
        if room == "lib" {
            continue;
        }
        let Some(may_use) = allowed.get(room.as_str()) else {
            wrong.push(format!("{}: room {room:?} is not in the table", path.display()));
            continue;
        };
        for used in rooms_used(&code, &allowed) {
            let is_own = used == room || used == "model";
            if !is_own && !may_use.contains(&used.as_str()) {
                wrong.push(format!("{}: {room} must not use {used}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_know_no_runtime_socket_file_or_clock() {
    let mut wrong = Vec::new();
    for (path, room, code) in sources() {
        if !PURE.contains(&room.as_str()) {
            continue;
        }
        for (number, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap_or_default();
            for impure in IMPURE {
                if line.contains(impure) {
                    wrong.push(format!("{}:{}: {impure}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_unbounded_channel_and_nothing_left_undone() {
    let mut wrong = Vec::new();
    for (path, _, code) in sources() {
        for (number, line) in code.lines().enumerate() {
            for word in ["unbounded", "todo!(", "unimplemented!(", "allow(dead_code)"] {
                if line.split("//").next().unwrap_or_default().contains(word) {
                    wrong.push(format!("{}:{}: {word}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_promise_names_tests_that_exist() {
    let mut files = Vec::new();
    collect(Path::new("src"), &mut files);
    collect(Path::new("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let promises = fs::read_to_string("docs/trust.md").unwrap();
    let rows = promises.lines().filter(|line| line.starts_with("| ")).skip(1);
    let mut named = 0;
    for row in rows {
        let tests = row.split('|').nth(2).unwrap();
        let mut of_row = 0;
        for test in tests.split('`').skip(1).step_by(2) {
            assert!(code.contains(&format!("fn {test}(")), "there is no test {test}");
            of_row += 1;
        }
        assert!(of_row > 0, "no test is named: {row}");
        named += of_row;
    }
    assert!(named > 30, "{named} tests were found");
}

/// Path, room and code without its tests, of every source file.
fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    files
        .into_iter()
        .map(|path| {
            let inside = path.strip_prefix(&root).unwrap();
            let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
            let room = first.trim_end_matches(".rs").to_owned();
            // Files of tests stand beside what they test.
            if inside
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with("tests"))
            {
                return (path.clone(), room, String::new());
            }
            let code = fs::read_to_string(&path).unwrap();
            let code = code.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            (path.clone(), room, code)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The rooms that follow `crate::` or `aftertone::`, in a path or in a group of a `use`.
fn rooms_used(code: &str, rooms: &BTreeMap<&str, &[&str]>) -> Vec<String> {
    let code: String = code
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut used = Vec::new();
    for marker in ["crate::", "aftertone::"] {
        for (at, _) in code.match_indices(marker) {
            let rest = &code[at + marker.len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                Some(group) => first_words(group),
                None => vec![word(rest)],
            };
            used.extend(names.iter().filter(|n| rooms.contains_key(**n)).map(|n| (*n).to_owned()));
        }
    }
    used.sort();
    used.dedup();
    used
}

/// The first word of each member of a `use` group, nested groups passed over.
fn first_words(group: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (index, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                words.push(word(group[start..index].trim()));
                return words;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                words.push(word(group[start..index].trim()));
                start = index + 1;
            }
            _ => {}
        }
    }
    words
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}
