//! Checks of docs/architecture.md that the compiler does not make: which module may use which
//! inside `drivers` and `service`, that no files import each other in a circle, and that promises
//! have tests.

#[path = "architecture/sources.rs"]
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sources::{ModulePath, Sources};

/// Module of `drivers` or `service` → modules of these layers that it may use. Every module may use
/// the core. An import that is not listed is an error, and so is a permission that no file needs.
const MAY_USE: &[(&str, &[&str])] = &[
    ("tls", &[]),
    ("http", &[]),
    ("clock", &[]),
    ("store", &["clock"]),
    ("media", &[]),
    ("signalling", &["tls"]),
    ("prompts", &["http"]),
    ("recordings", &["store"]),
    ("notify", &["http", "store"]),
    ("tokens", &["store"]),
    ("config", &[]),
    ("telemetry", &["config"]),
    ("switchboard", &["clock", "media", "signalling", "prompts", "recordings", "store", "config"]),
    ("api", &["switchboard", "prompts", "recordings", "signalling", "store", "tokens"]),
    (
        "app",
        &[
            "api",
            "config",
            "media",
            "notify",
            "prompts",
            "recordings",
            "signalling",
            "store",
            "switchboard",
            "telemetry",
            "tls",
            "tokens",
        ],
    ),
    // A client of the API: it uses the audio tools, and starts a daemon as `main` does.
    ("demo", &["app", "config", "prompts", "telemetry"]),
    ("main", &["app", "config", "demo", "telemetry"]),
];

/// Packages that the core must not depend on.
const RUNTIMES: &[&str] =
    &["tokio", "sqlx", "axum", "hyper", "reqwest", "socket2", "nix", "mio", "rustls"];

#[test]
fn the_core_is_built_without_a_runtime() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--offline", "-p", "aftertone-core", "-e", "normal", "--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let packages: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(packages.contains("rsip"), "{tree}");
    let wrong: Vec<&&str> = RUNTIMES.iter().filter(|name| packages.contains(**name)).collect();
    assert!(wrong.is_empty(), "the core depends on {wrong:?}");
}

#[test]
fn modules_use_what_they_may() {
    let sources = read();
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        MAY_USE.iter().map(|(name, used)| (*name, used.iter().copied().collect())).collect();
    let mut needed: BTreeSet<(String, String)> = BTreeSet::new();
    let mut wrong = Vec::new();
    for (module, imports) in sources.imports() {
        let Some(name) = module_of(module) else { continue };
        let Some(may_use) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for used in imports.iter().filter_map(|used| module_of(used)) {
            if used == name {
                continue;
            }
            if !may_use.contains(used) {
                wrong.push(format!(
                    "{}: {name} must not use {used}",
                    sources.path(module).display()
                ));
            }
            needed.insert((name.to_owned(), used.to_owned()));
        }
    }
    for (name, may_use) in &allowed {
        for used in may_use {
            if !needed.contains(&((*name).to_owned(), (*used).to_owned())) {
                wrong.push(format!("no file of {name} uses {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let sources = read();
    let imports = sources.imports();
    let reached: BTreeMap<&ModulePath, BTreeSet<&ModulePath>> =
        imports.keys().map(|module| (*module, reached_from(module, &imports))).collect();
    let mut circles: BTreeSet<BTreeSet<&ModulePath>> = BTreeSet::new();
    for (module, others) in &reached {
        if others.contains(*module) {
            circles
                .insert(others.iter().copied().filter(|o| reached[*o].contains(*module)).collect());
        }
    }
    let mut told = String::new();
    for circle in &circles {
        told.push_str("a circle:\n");
        for module in circle {
            for used in imports[*module].iter().filter(|used| circle.contains(*used)) {
                told.push_str(&format!(
                    "  {} uses {}: {:?}\n",
                    module[1..].join("::"),
                    used[1..].join("::"),
                    sources.reasons(module, used)
                ));
            }
        }
    }
    assert!(circles.is_empty(), "{told}");
}

/// All modules that `module` imports, and what those import.
fn reached_from<'a>(
    module: &'a ModulePath,
    imports: &BTreeMap<&'a ModulePath, BTreeSet<&'a ModulePath>>,
) -> BTreeSet<&'a ModulePath> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![module];
    while let Some(next) = waiting.pop() {
        for used in &imports[next] {
            if reached.insert(*used) {
                waiting.push(used);
            }
        }
    }
    reached
}

/// `store` for `aftertone::drivers::store::journal`, `main` for the binary; `None` for the core and
/// for the roots.
fn module_of(module: &ModulePath) -> Option<&str> {
    match module[0].as_str() {
        "main" => Some("main"),
        "aftertone" => module.get(2).map(String::as_str),
        _ => None,
    }
}

/// Type names that are used more than once: the same idea in two layers, such as `model::Call` and
/// `graph::Call`, or a word that its module qualifies, such as `sip::registrar::Event`.
const QUALIFIED_BY_MODULE: &[&str] = &[
    "Application",
    "Call",
    "Change",
    "Command",
    "Connection",
    "Credentials",
    "Delivery",
    "Direction",
    "Due",
    "Event",
    "Format",
    "Frame",
    "Heard",
    "Identity",
    "IssuerConfig",
    "Limits",
    "MediaState",
    "Operation",
    "Origin",
    "Output",
    "Pace",
    "Packet",
    "Place",
    "PortRange",
    "Received",
    "Refusal",
    "Reply",
    "ResultInfo",
    "Sent",
    "Settings",
    "SipListener",
    "Tape",
    "Target",
    "Transport",
    "Turn",
    "Verdict",
    "Way",
];

#[test]
fn a_type_name_is_used_once() {
    let sources = read();
    let mut files: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
    for (path, types) in sources.types() {
        for name in types {
            files.entry(name).or_default().push(path);
        }
    }
    let mut wrong = Vec::new();
    for (name, files) in &files {
        match (files.len(), QUALIFIED_BY_MODULE.contains(name)) {
            (1, true) => wrong.push(format!("{name} is used once and need not be in the list")),
            (2.., false) => wrong.push(format!("{name}: {files:?}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{} names:\n{}", wrong.len(), wrong.join("\n"));
}

fn read() -> Sources {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(sources.len() > 200, "{} files were read", sources.len());
    sources
}

#[test]
fn no_unbounded_channel_and_nothing_left_undone() {
    let mut wrong = Vec::new();
    for (path, words) in read().words() {
        for word in words {
            let is_wrong = word.contains("unbounded")
                || matches!(word.as_str(), "todo" | "unimplemented" | "dead_code");
            if is_wrong {
                wrong.push(format!("{}: {word}", path.display()));
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
