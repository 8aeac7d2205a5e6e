//! Static settings: what an operator decides before the start. (Integrations, destinations and the rest of the
//! dynamic configuration live in the store.)
//!
//! Layers, each over the one before: `config/default.toml`, the file named by `--config`, the environment, flags.
//! Read once at the start by the command line; the parts of hookmill are handed their section. A fault stops the
//! start, with every fault named by its dotted key and the place it was set.

mod durations;
mod fault;
mod known;
mod layers;
mod sections;
mod size;
mod validate;

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use self::{
    fault::{Fault, Origin, SettingsError},
    layers::{Effective, process_environment},
    sections::{
        AdminSettings, ConnectionTestSettings, DeliverySettings, DestinationsSettings, EgressSettings, IngressSettings,
        LogFormat, LogLevel, LogSettings, ProgramSettings, RejectionSettings, RetentionSettings, RetrySettings,
        SecretsSettings, SupervisionSettings, TaskSettings, TelemetrySettings,
    },
    size::format as format_size,
};

/// Every setting with its default and its explanation: the lowest layer, and the reference for operators.
pub const DEFAULT_TOML: &str = include_str!("../config/default.toml");

/// Names the key ring's file; no setting, because it may not stand in a file that is passed around.
pub const KEY_FILE_VARIABLE: &str = "HOOKMILL_KEY_FILE";
/// Holds the key ring itself; no setting, because it is a secret.
pub const KEY_RING_VARIABLE: &str = "HOOKMILL_KEYRING";
/// Presets the admin token; no setting, because it is a secret.
pub const ADMIN_TOKEN_VARIABLE: &str = "HOOKMILL_ADMIN_TOKEN";

/// All static settings, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Where events and configuration are stored.
    pub backend: Backend,
    /// Folder of the store, the key ring and the first admin token.
    pub data_dir: PathBuf,
    /// The public listener that receives webhooks.
    pub ingress: IngressSettings,
    /// The listener of the admin API.
    pub admin: AdminSettings,
    /// The event log.
    pub log: LogSettings,
    /// Sending events to destinations.
    pub delivery: DeliverySettings,
    /// Retries where the subscription names no schedule.
    pub retry: RetrySettings,
    /// Programs that operators write.
    pub programs: ProgramSettings,
    /// What is kept of requests that the ingress refused.
    pub rejections: RejectionSettings,
    /// How long what is done with is kept.
    pub retention: RetentionSettings,
    /// Where destinations may lie.
    pub egress: EgressSettings,
    /// What destinations on this machine may do.
    pub destinations: DestinationsSettings,
    /// Where the key ring comes from.
    pub secrets: SecretsSettings,
    /// Whether the third parties that integrations belong to answer.
    pub connection_tests: ConnectionTestSettings,
    /// What is done by schedule.
    pub tasks: TaskSettings,
    /// What happens when a part crashes.
    pub supervision: SupervisionSettings,
    /// Logs.
    pub telemetry: TelemetrySettings,
}

impl Settings {
    /// Reads and checks all layers. [`Effective::load`] also tells where each setting came from.
    ///
    /// # Errors
    /// A file that is absent, unreadable or no TOML; else all faults that can be found at once.
    pub fn load<E>(sources: SettingsSources<E>) -> Result<Self, SettingsError>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        Ok(Effective::load(sources)?.settings)
    }

    /// The store's folder.
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// The folder of refused requests.
    pub fn rejections_dir(&self) -> PathBuf {
        self.data_dir.join(crate::rejections::FOLDER)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: Backend::Embedded,
            data_dir: PathBuf::from("./hookmill-data"),
            ingress: IngressSettings::default(),
            admin: AdminSettings::default(),
            log: LogSettings::default(),
            delivery: DeliverySettings::default(),
            retry: RetrySettings::default(),
            programs: ProgramSettings::default(),
            rejections: RejectionSettings::default(),
            retention: RetentionSettings::default(),
            egress: EgressSettings::default(),
            destinations: DestinationsSettings::default(),
            secrets: SecretsSettings::default(),
            connection_tests: ConnectionTestSettings::default(),
            tasks: TaskSettings::default(),
            supervision: SupervisionSettings::default(),
            telemetry: TelemetrySettings::default(),
        }
    }
}

/// Where events and configuration are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// In files below `data_dir`.
    Embedded,
}

/// Where settings come from, beside the built-in defaults.
#[derive(Clone, Debug, Default)]
pub struct SettingsSources<E> {
    /// A TOML file; it must exist.
    pub config_file: Option<PathBuf>,
    /// Environment variables, name and value; those that do not begin with `HOOKMILL_` are passed over.
    pub environment: E,
    /// Flags.
    pub overrides: Overrides,
}

/// Settings that have a flag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--ingress`.
    pub ingress: Option<SocketAddr>,
    /// `--admin`.
    pub admin: Option<SocketAddr>,
    /// `--dev`: destinations may be on loopback, and both listeners must be.
    pub dev: bool,
}
