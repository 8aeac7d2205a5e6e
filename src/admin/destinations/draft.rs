//! What requests ask for: a new destination, or a change of one. Pure.

use hookmill_actors::{
    domain::{
        config::{Destination, DestinationStatus, Meta},
        ids::DestinationId,
        secret::Secret,
        shaping::DestinationLimits,
    },
    ports::{provider::SettingsError, sealer::Owner},
};
use serde_json::{Map, Value};

use super::{
    super::{
        fields::{line, object, one_of, string},
        form::{Change, Form},
        integrations::NAME_CHARS_MAX,
        problem::Problem,
        redact,
        tools::Tools,
    },
    READ_ONLY, SETTINGS_BYTES_MAX, SETTINGS_DEPTH_MAX, STATUSES,
    credentials::{credentials, needed, stay},
    given_or_made,
    limits::LimitsPatch,
    signing_secret,
};

const KIND_DEFAULT: &str = "http";

/// A new destination as asked for.
pub(in crate::admin) struct Draft {
    name: String,
    kind: String,
    status: DestinationStatus,
    settings: Map<String, Value>,
    credentials: Option<Secret>,
    limits: Change<LimitsPatch>,
    signing_secret: Option<Secret>,
}

impl Draft {
    pub(in crate::admin) fn read(body: Value, tools: &Tools) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let name = form.required(&["name"], line(1..=NAME_CHARS_MAX));
        let kind = form.optional(&["type"], string).map_or_else(|| KIND_DEFAULT.to_owned(), |kind| kind.to_lowercase());
        let status = form.optional(&["status"], one_of(&STATUSES)).unwrap_or(DestinationStatus::Active);
        // What its type needs, the registry says.
        let settings = form.optional(&["settings"], object(SETTINGS_BYTES_MAX, SETTINGS_DEPTH_MAX)).unwrap_or_default();
        let credentials = form.clearable(&["credentials"], credentials).into_option();
        let limits = LimitsPatch::read(&mut form);
        let signing_secret = form.optional(&["signing_secret"], signing_secret);
        let draft =
            form.finish(|| Some(Self { name: name?, kind, status, settings, credentials, limits, signing_secret }))?;
        tools.destinations.validate(&draft.kind, &draft.settings, draft.credentials.as_ref()).map_err(refused)?;
        Ok(draft)
    }

    /// The destination, and the secret that was made for it.
    pub(in crate::admin) fn into_destination(self, id: DestinationId, tools: &Tools) -> (Destination, Option<Secret>) {
        let (secret, made_secret) = given_or_made(self.signing_secret, tools);
        let sealed = |secret: &Secret| tools.sealer.seal(Owner::DestinationCredentials(id), secret);
        let mut limits = DestinationLimits::default();
        if let Change::Set(asked) = &self.limits {
            asked.apply_to(&mut limits);
        }
        let destination = Destination {
            id,
            name: self.name,
            kind: self.kind,
            status: self.status,
            status_reason: None,
            settings: self.settings,
            signing_secret: tools.sealer.seal(Owner::SigningSecret(id), &secret),
            signing_fingerprint: tools.secrets.fingerprint(&secret),
            credentials: self.credentials.as_ref().map(sealed),
            limits,
            meta: Meta::default(),
        };
        (destination, made_secret)
    }
}

/// Names the member of the request that the registry's words are about.
pub(super) fn refused(error: SettingsError) -> Problem {
    let pointer = match error.field.strip_prefix("settings.").unwrap_or(&error.field) {
        field @ ("type" | "settings" | "signing_secret" | "credentials") => format!("/{field}"),
        field if field.starts_with("credentials.") => format!("/{}", field.replace('.', "/")),
        field => format!("/settings/{}", field.replace('.', "/")),
    };
    Problem::member(pointer, error.problem)
}

/// An update as asked for.
pub(in crate::admin) struct Patch {
    name: Option<String>,
    kind: Option<String>,
    status: Option<DestinationStatus>,
    settings: Option<Map<String, Value>>,
    credentials: Change<Secret>,
    limits: Change<LimitsPatch>,
}

impl Patch {
    pub(super) fn read(body: Value) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        form.read_only(&READ_ONLY);
        let patch = Self {
            name: form.optional(&["name"], line(1..=NAME_CHARS_MAX)),
            kind: form.optional(&["type"], string).map(|kind| kind.to_lowercase()),
            status: form.optional(&["status"], one_of(&STATUSES)),
            settings: form.optional(&["settings"], object(SETTINGS_BYTES_MAX, SETTINGS_DEPTH_MAX)),
            credentials: form.clearable(&["credentials"], credentials),
            limits: LimitsPatch::read(&mut form),
        };
        if form.optional(&["signing_secret"], |_| Ok(())).is_some() {
            form.fault("signing_secret", "is changed by `POST .../rotate-secret`; leave it out");
        }
        if patch.settings.as_ref().is_some_and(redact::is_redacted) {
            form.fault("settings", "holds `***`, which a reply shows in place of a secret; give the secret itself");
        }
        form.finish(|| Some(patch))
    }

    pub(super) fn applied_to(&self, current: &Destination, tools: &Tools) -> Result<Destination, Problem> {
        let mut next = current.clone();
        let other_kind = self.kind.as_ref().filter(|kind| **kind != current.kind);
        if let Some(kind) = other_kind {
            if self.settings.is_none() {
                return Err(Problem::member("/settings", "is missing; another `type` needs settings of its own"));
            }
            next.kind.clone_from(kind);
        }
        if let Some(name) = &self.name {
            next.name.clone_from(name);
        }
        if let Some(status) = self.status.filter(|status| *status != current.status) {
            next.status = status;
            next.status_reason = None;
        }
        if let Some(settings) = &self.settings {
            next.settings.clone_from(settings);
        }
        let sealed = |secret: &Secret| tools.sealer.seal(Owner::DestinationCredentials(current.id), secret);
        match &self.credentials {
            Change::Keep => stay(current, &next.kind, &next.settings)?,
            Change::Clear => next.credentials = None,
            Change::Set(secret) => next.credentials = Some(sealed(secret)),
        }
        match &self.limits {
            Change::Keep => {}
            Change::Clear => next.limits = DestinationLimits::default(),
            Change::Set(asked) => asked.apply_to(&mut next.limits),
        }
        if next.kind != current.kind || next.settings != current.settings || next.credentials != current.credentials {
            let credentials = needed(&next, tools)?;
            tools.destinations.validate(&next.kind, &next.settings, credentials.as_ref()).map_err(refused)?;
        }
        Ok(next)
    }
}
