//! The `aftertone` command: parses the arguments, reads the configuration, and runs the subcommand.

#![cfg_attr(not(test), warn(clippy::match_bool, clippy::unwrap_used, unreachable_pub))]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use aftertone::service::{
    app::{self, MintError},
    config::{Config, ConfigError},
    demo, telemetry,
};
use clap::{Args, Parser, Subcommand, error::ErrorKind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// A SIP/RTP media server: answers calls, prompts, beeps, records and forgets, behind a
/// Microsoft-Graph-shaped API.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Option<CliCommand>,
    /// Configuration file [default: /etc/aftertone/aftertone.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum CliCommand {
    /// Run the daemon in the foreground (the default command)
    Serve,
    /// Place one call on this machine, without any setup: a prompt, a beep, a recording, its purge
    Demo {
        /// Serve the API over HTTPS, with a new development certificate
        #[arg(long)]
        tls: bool,
    },
    /// Print a bearer token for an application, for curl
    Token(Token),
}

#[derive(Args)]
struct Token {
    /// Name of the application, as in the configuration
    #[arg(long, value_name = "NAME")]
    app: String,
    /// A role of the token; all of the application's if not given
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// How long the token is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
}

/// How long blocking tasks may continue when everything else has finished.
const LAST: Duration = Duration::from_secs(1);
/// Exit code of an error at run time.
const FAILED: u8 = 1;
/// sysexits(3): the command line is wrong.
const EX_USAGE: u8 = 64;
/// sysexits(3): the configuration is wrong.
const EX_CONFIG: u8 = 78;

fn main() -> ExitCode {
    keep_memory_private();
    raise_open_files();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_wanted =
                matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // If standard output is closed, the message is lost.
            let _ = error.print();
            return if is_wanted { ExitCode::SUCCESS } else { ExitCode::from(EX_USAGE) };
        }
    };
    match cli.command {
        None | Some(CliCommand::Serve) => serve(cli.config),
        Some(CliCommand::Demo { .. }) if cli.config.is_some() => {
            fail(EX_USAGE, &"the demo has a configuration of its own; leave --config out")
        }
        Some(CliCommand::Demo { tls }) => finish(run(demo::run(tls))),
        Some(CliCommand::Token(words)) => token(cli.config.as_deref(), &words),
    }
}

/// Our memory holds voices, numbers and secrets. So no core file is written, and no other process
/// of this user can read the memory (prctl(2), `PR_SET_DUMPABLE`).
fn keep_memory_private() {
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("aftertone: core files cannot be turned off: {error}");
    }
}

/// Calls, clips and connections need file descriptors. The low soft limit of a shell exists for
/// programs that use select(2), which we do not, so we raise it to the hard limit.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        eprintln!("aftertone: the limit of open files cannot be raised: {error}");
    }
}

fn serve(file: Option<PathBuf>) -> ExitCode {
    let config = match load(file.as_deref()) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let log = match telemetry::start(&config.telemetry) {
        Ok(log) => log,
        Err(error) => return fail(EX_CONFIG, &error),
    };
    finish(run(app::serve(config, file, log)))
}

fn token(file: Option<&Path>, words: &Token) -> ExitCode {
    let config = match load(file) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match app::mint_token(&config, &words.app, &words.roles, words.ttl) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let code = match error {
                MintError::NoApplication { .. } => EX_CONFIG,
                MintError::NoRole { .. } => EX_USAGE,
                MintError::NoKey { .. } | MintError::Unreadable { .. } | MintError::Unsigned(_) => {
                    FAILED
                }
            };
            fail(code, &error)
        }
    }
}

fn load(file: Option<&Path>) -> Result<Config, ExitCode> {
    Config::load(file, std::env::vars()).map_err(|error| fail(EX_CONFIG, &error))
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    // The message may quote a remote host that the start contacts, such as the database.
    eprintln!("aftertone: {}", telemetry::escaped_lines(&error.to_string()));
    ExitCode::from(code)
}

fn run<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(task);
    // A disk that does not answer may block a thread of the runtime forever.
    runtime.shutdown_timeout(LAST);
    result
}

fn finish(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = if error.is::<ConfigError>() { EX_CONFIG } else { FAILED };
            fail(code, &app::in_words(&error))
        }
    }
}
