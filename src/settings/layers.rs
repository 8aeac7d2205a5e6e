//! Lays the layers over each other and remembers for each setting which layer it came from.
//!
//! Every layer's keys are checked against the keys of `config/default.toml` before anything is merged, so that a
//! misspelt key is told with the nearest right one and the place it stands, and all of them at once.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    util::nest,
    value::{Dict, Map, Value},
};

use super::{
    DEFAULT_TOML, Fault, Origin, Overrides, Settings, SettingsError, SettingsSources,
    known::{Known, OTHER_VARIABLES, PREFIX, leaves},
    validate,
};

/// Checked settings, and where each came from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What is in force.
    pub settings: Settings,
    origins: BTreeMap<String, Origin>,
}

impl Effective {
    /// Reads, merges and checks all layers.
    ///
    /// # Errors
    /// As [`Settings::load`].
    #[expect(clippy::missing_panics_doc, reason = "the embedded defaults are TOML, as a test holds")]
    pub fn load<E>(sources: SettingsSources<E>) -> Result<Self, SettingsError>
    where
        E: IntoIterator<Item = (String, String)>,
    {
        let defaults = toml::from_str::<Dict>(DEFAULT_TOML).expect("config/default.toml is TOML");
        let known = Known::of(&defaults);
        let mut faults = Vec::new();
        let mut layers = vec![Layer { origin: Origin::Default, values: defaults }];
        if let Some(path) = sources.config_file {
            let layer = Layer::file(path)?;
            faults.extend(layer.unknown_keys(&known));
            layers.push(layer);
        }
        for (variable, text) in sources.environment {
            if !variable.starts_with(PREFIX) || OTHER_VARIABLES.contains(&variable.as_str()) {
                continue;
            }
            match known.variable(&variable) {
                Some(key) => layers.push(Layer::variable(variable, key, &text, &known)),
                None => faults.push(known.unknown_variable(variable)),
            }
        }
        layers.extend(Layer::flags(&sources.overrides, &mut faults));
        if !faults.is_empty() {
            return Err(SettingsError::Faults(faults));
        }

        let mut effective = Self::merge(layers, &known)?;
        if sources.overrides.dev {
            validate::apply_dev(&mut effective.settings, &mut faults);
            effective.origins.insert("egress.allow".to_owned(), Origin::Flag("--dev"));
        }
        validate::check(&effective.settings, &mut faults);
        if faults.is_empty() {
            return Ok(effective);
        }
        for fault in &mut faults {
            fault.origin = effective.origin_unless_default(&fault.key);
        }
        Err(SettingsError::Faults(faults))
    }

    fn merge(layers: Vec<Layer>, known: &Known) -> Result<Self, SettingsError> {
        let mut origins = BTreeMap::new();
        let mut figment = Figment::new();
        for layer in layers {
            for (key, _) in leaves(&layer.values) {
                origins.insert(key, layer.origin.clone());
            }
            figment = figment.merge(layer);
        }
        match figment.extract() {
            Ok(settings) => Ok(Self { settings, origins }),
            Err(error) => {
                let key = known.setting_at(&error.path);
                let origin = origins.remove(&key).filter(|origin| *origin != Origin::Default);
                Err(SettingsError::Faults(vec![Fault { key, origin, problem: error.kind.to_string() }]))
            }
        }
    }

    /// Where a setting came from, by its dotted key.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn origin_unless_default(&self, key: &str) -> Option<Origin> {
        self.origins.get(key).filter(|origin| **origin != Origin::Default).cloned()
    }

    /// The settings as a TOML file that gives the same again, each that is not a default with its origin.
    #[expect(clippy::missing_panics_doc, reason = "checked settings came from texts, so they have one")]
    pub fn to_toml(&self) -> String {
        let table = toml::Table::try_from(&self.settings).expect("checked settings have a TOML form");
        let (sections, top): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
        let mut text = String::new();
        for (name, value) in top {
            self.write_setting(&mut text, name, name, value);
        }
        for (section, value) in sections {
            let _ = writeln!(text, "\n[{section}]");
            for (name, value) in value.as_table().into_iter().flatten() {
                self.write_setting(&mut text, &format!("{section}.{name}"), name, value);
            }
        }
        text
    }

    fn write_setting(&self, text: &mut String, key: &str, name: &str, value: &toml::Value) {
        let _ = match self.origin_unless_default(key) {
            Some(origin) => writeln!(text, "{name} = {value} # {origin}"),
            None => writeln!(text, "{name} = {value}"),
        };
    }
}

/// The process' environment as far as it concerns hookmill.
///
/// # Errors
/// A variable of hookmill whose value is no UTF-8.
pub fn process_environment() -> Result<Vec<(String, String)>, SettingsError> {
    utf8_environment(std::env::vars_os())
}

fn utf8_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<(String, String)>, SettingsError> {
    let ours = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    ours.filter(|(name, _)| name.starts_with(PREFIX) && !OTHER_VARIABLES.contains(&name.as_str()))
        .map(|(key, value)| match value.into_string() {
            Ok(value) => Ok((key, value)),
            Err(_) => Err(SettingsError::Faults(vec![Fault {
                key,
                origin: None,
                problem: "the value of this environment variable is not UTF-8".to_owned(),
            }])),
        })
        .collect()
}

/// The values of one source.
struct Layer {
    origin: Origin,
    values: Dict,
}

impl Layer {
    fn file(path: PathBuf) -> Result<Self, SettingsError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(SettingsError::Absent(path)),
            Err(source) => return Err(SettingsError::Unreadable { path, source }),
        };
        match toml::from_str(&text) {
            Ok(values) => Ok(Self { origin: Origin::File(path), values }),
            Err(error) => Err(SettingsError::Syntax {
                path,
                line: line_of(&text, error.span().map_or(0, |span| span.start)),
                problem: error.message().to_owned(),
            }),
        }
    }

    fn variable(variable: String, key: &str, text: &str, known: &Known) -> Self {
        let values = one(key, known.read(key, text));
        Self { origin: Origin::Environment(variable), values }
    }

    fn flags(overrides: &Overrides, faults: &mut Vec<Fault>) -> Vec<Self> {
        let data_dir = overrides.data_dir.as_deref().map(Path::to_str);
        if data_dir == Some(None) {
            faults.push(Fault {
                key: "data_dir".to_owned(),
                origin: Some(Origin::Flag("--data-dir")),
                problem: "the path is not UTF-8".to_owned(),
            });
        }
        let values = [
            ("--data-dir", "data_dir", data_dir.flatten().map(str::to_owned)),
            ("--ingress", "ingress.address", overrides.ingress.map(|address| address.to_string())),
            ("--admin", "admin.address", overrides.admin.map(|address| address.to_string())),
        ];
        let set = values.into_iter().filter_map(|(flag, key, value)| Some((flag, key, value?)));
        set.map(|(flag, key, value)| Self { origin: Origin::Flag(flag), values: one(key, Value::from(value)) })
            .collect()
    }

    fn unknown_keys(&self, known: &Known) -> Vec<Fault> {
        let keys = leaves(&self.values);
        let problems = keys.into_iter().filter_map(|(key, value)| Some((known.problem_with(&key, value)?, key)));
        problems.map(|(problem, key)| Fault { key, origin: Some(self.origin.clone()), problem }).collect()
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn one(key: &str, value: Value) -> Dict {
    nest(key, value).into_dict().unwrap_or_default()
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn load(file: Option<&str>, environment: &[(&str, &str)], overrides: Overrides) -> Result<Effective, String> {
        let folder = tempfile::tempdir().unwrap();
        let config_file = file.map(|text| {
            let path = folder.path().join("hookmill.toml");
            fs::write(&path, text).unwrap();
            path
        });
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Effective::load(SettingsSources { config_file, environment, overrides }).map_err(|error| error.to_string())
    }

    fn fails(file: &str) -> String {
        load(Some(file), &[], Overrides::default()).unwrap_err()
    }

    fn fails_env(name: &str, value: &str) -> String {
        load(None, &[(name, value)], Overrides::default()).unwrap_err()
    }

    #[test]
    fn the_default_file_is_the_default() {
        assert_eq!(load(None, &[], Overrides::default()).unwrap().settings, Settings::default());
        let file = toml::from_str::<Dict>(DEFAULT_TOML).unwrap();
        let code = toml::Table::try_from(Settings::default()).unwrap().to_string();
        let code = toml::from_str::<Dict>(&code).unwrap();
        let keys = |values: &Dict| leaves(values).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
        assert_eq!(keys(&file), keys(&code), "a setting is missing in the file");
    }

    #[test]
    fn every_setting_of_the_default_file_is_explained() {
        for (above, line) in DEFAULT_TOML.lines().zip(DEFAULT_TOML.lines().skip(1)) {
            if !line.is_empty() && !line.starts_with('#') {
                assert!(above.starts_with("# "), "no comment above `{line}`");
            }
        }
    }

    #[test]
    fn a_later_layer_wins_and_is_told_as_the_origin() {
        let file = "[ingress]\naddress = \"127.0.0.1:1001\"\nthreads = 1\nhops_max = 9\n";
        let environment = [("HOOKMILL_INGRESS__ADDRESS", "127.0.0.1:1002"), ("HOOKMILL_INGRESS__THREADS", "2")];
        let flag: SocketAddr = "127.0.0.1:1003".parse().unwrap();
        let overrides = Overrides { ingress: Some(flag), ..Overrides::default() };
        let effective = load(Some(file), &environment, overrides).unwrap();
        assert_eq!(effective.settings.ingress.address, flag);
        assert_eq!(effective.settings.ingress.threads, 2);
        assert_eq!(effective.settings.ingress.hops_max, 9);
        assert_eq!(effective.origin("ingress.address"), Origin::Flag("--ingress"));
        assert_eq!(effective.origin("ingress.threads"), Origin::Environment("HOOKMILL_INGRESS__THREADS".into()));
        assert!(matches!(effective.origin("ingress.hops_max"), Origin::File(_)));
        assert_eq!(effective.origin("ingress.idle_timeout"), Origin::Default);
    }

    #[test]
    fn the_environment_reaches_every_kind_of_setting() {
        let environment = [
            ("HOOKMILL_BACKEND", "embedded"),
            ("HOOKMILL_DATA_DIR", "123"),
            ("HOOKMILL_INGRESS__BODY_BYTES_MAX", "4096"),
            ("HOOKMILL_INGRESS__HEADER_BYTES_MAX", "16 KiB"),
            ("HOOKMILL_LOG__RETENTION", "2h"),
            ("HOOKMILL_RETRY__SCHEDULE", "1s, 2m"),
            ("HOOKMILL_EGRESS__ALLOW", "[\"10.0.0.0/8\", fd00::/8]"),
            ("HOOKMILL_ADMIN__ALLOWED_HOSTS", ""),
            ("HOOKMILL_TELEMETRY__LOG_LEVEL", "debug"),
            ("HOOKMILL_ADMIN_TOKEN", "read elsewhere"),
            ("HOOKMILL_KEY_FILE", "read elsewhere"),
            ("HOOKMILL_KEYRING", "read elsewhere"),
            ("PATH", "not ours"),
        ];
        let settings = load(None, &environment, Overrides::default()).unwrap().settings;
        assert_eq!(settings.data_dir, PathBuf::from("123"));
        assert_eq!(settings.ingress.body_bytes_max, 4_096);
        assert_eq!(settings.ingress.header_bytes_max, 16 << 10);
        assert_eq!(settings.log.retention.as_secs(), 7_200);
        assert_eq!(settings.retry.policy().schedule_s, [1, 120]);
        assert_eq!(settings.egress.allow, ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        assert!(settings.admin.allowed_hosts.is_empty());
        assert_eq!(settings.telemetry.log_level, super::super::LogLevel::Debug);
    }

    #[test]
    fn an_unknown_key_is_told_with_the_nearest_and_its_place() {
        for (file, key, meant) in [
            ("[ingres]\naddress = \"127.0.0.1:1\"", "`ingres.address`", "`ingress.address`"),
            ("[ingress]\nadress = \"127.0.0.1:1\"", "`ingress.adress`", "`ingress.address`"),
            ("[ingress]\nbody_max_bytes = 1", "`ingress.body_max_bytes`", "`ingress.body_bytes_max`"),
            ("[ingress]\nmax_body_bytes = 1", "`ingress.max_body_bytes`", "`ingress.body_bytes_max`"),
            ("header_count_max = 1", "`header_count_max`", "`ingress.header_count_max`"),
            ("[ingress.address]\nhost = 1", "`ingress.address.host`", "`ingress.address`"),
            ("[telemtry]", "`telemtry`", "no such setting"),
        ] {
            let text = fails(file);
            assert!(text.contains(key) && text.contains(meant) && text.contains("hookmill.toml"), "{file}: {text}");
        }
        assert!(!fails("zzzzzzzzzzzzzz = 1").contains("did you mean"));
        assert!(fails("ingress = 1").contains("`ingress` (file"));
    }

    #[test]
    fn every_unknown_key_is_told_at_once() {
        let text = load(Some("a1 = 1\nb1 = 2"), &[("HOOKMILL_C1", "3")], Overrides::default()).unwrap_err();
        assert!(text.starts_with("3 settings are wrong"), "{text}");
        assert!(text.contains("`a1`") && text.contains("`b1`") && text.contains("`HOOKMILL_C1`"), "{text}");
    }

    #[test]
    fn an_unknown_variable_is_told_without_its_value() {
        for (variable, meant) in [
            ("HOOKMILL_INGRESS__ADRESS", "`HOOKMILL_INGRESS__ADDRESS`"),
            ("HOOKMILL_INGRESS_ADDRESS", "`HOOKMILL_INGRESS__ADDRESS`"),
            ("HOOKMILL_ADMIN_TOKN", "`HOOKMILL_ADMIN_TOKEN`"),
            ("HOOKMILL_DATADIR", "`HOOKMILL_DATA_DIR`"),
            ("HOOKMILL_SERVICE_HOST", "`enableServiceLinks: false`"),
        ] {
            let text = fails_env(variable, "s3cret-value");
            assert!(text.contains(variable) && text.contains(meant), "{text}");
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_told_with_its_key_and_place() {
        for (file, key) in [
            ("[ingress]\nthreads = \"two\"", "`ingress.threads`"),
            ("[ingress]\nbody_bytes_max = \"1 MB\"", "`ingress.body_bytes_max`"),
            ("[ingress]\nhead_timeout = 10", "`ingress.head_timeout`"),
            ("[egress]\nallow = [\"10.0.0.0/99\"]", "`egress.allow`"),
            ("[retry]\nschedule = [\"soon\"]", "`retry.schedule`"),
            ("backend = \"redis\"", "`backend`"),
        ] {
            let text = fails(file);
            assert!(text.contains(key) && text.contains("hookmill.toml"), "{file}: {text}");
        }
        let text = fails_env("HOOKMILL_INGRESS__THREADS", "-1");
        assert!(text.contains("`ingress.threads` (environment variable HOOKMILL_INGRESS__THREADS)"), "{text}");
    }

    #[test]
    fn dev_is_checked_against_what_every_layer_set() {
        let dev = || Overrides { dev: true, ..Overrides::default() };
        let file = "[admin]\naddress = \"0.0.0.0:8081\"\n[egress]\nallow = [\"10.0.0.0/8\"]";
        let text = load(Some(file), &[], dev()).unwrap_err();
        assert!(text.contains("`admin.address` (file") && text.contains("`--dev`"), "{text}");
        let effective = load(Some(file), &[("HOOKMILL_ADMIN__ADDRESS", "[::1]:8081")], dev()).unwrap();
        assert_eq!(effective.settings.egress.allow.len(), 3);
        assert_eq!(effective.origin("egress.allow"), Origin::Flag("--dev"));
    }

    #[test]
    fn an_absent_file_is_no_empty_one() {
        let sources = SettingsSources {
            config_file: Some(PathBuf::from("/nonexistent/hookmill.toml")),
            environment: [],
            overrides: Overrides::default(),
        };
        assert!(matches!(Settings::load(sources), Err(SettingsError::Absent(_))));
    }

    #[test]
    fn a_file_that_is_no_toml_is_told_with_the_line() {
        assert!(fails("[ingress]\nthreads = = 1\n").contains("line 2"));
    }

    #[test]
    fn what_is_printed_gives_the_same_settings() {
        let environment = [("HOOKMILL_RETRY__SCHEDULE", "90s"), ("HOOKMILL_LOG__SEGMENT_BYTES", "3000000")];
        let effective = load(None, &environment, Overrides::default()).unwrap();
        let text = effective.to_toml();
        assert!(text.contains("schedule = [\"1m 30s\"] # environment variable HOOKMILL_RETRY__SCHEDULE"), "{text}");
        assert_eq!(load(Some(&text), &[], Overrides::default()).unwrap().settings, effective.settings);
    }

    #[test]
    fn a_variable_that_is_no_text_is_refused() {
        use std::os::unix::ffi::OsStringExt;
        let odd = || OsString::from_vec(vec![0xff]);
        assert!(utf8_environment([("HOOKMILL_DATA_DIR".into(), odd())].into_iter()).is_err());
        assert_eq!(utf8_environment([("OTHER".into(), odd())].into_iter()).unwrap(), []);
    }
}
