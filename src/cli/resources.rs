//! The commands over the admin API. Each resource is a table in a file of its own: its actions, their paths, flags and
//! columns. What is typed, called and shown is made from the tables, by [`command`] and [`run`].

mod activity;
mod command;
mod deadletters;
mod destinations;
mod events;
mod follow;
mod input;
mod integrations;
mod metrics;
mod paging;
mod providers;
mod rejections;
mod replay;
mod run;
mod subscriptions;
mod tasks;
mod tokens;
mod versions;
mod webhooks;

use super::show::Column;
use clap::ArgMatches;
use hyper::Method;

pub(super) use self::{
    input::{NotThere, resolved},
    run::run,
};

/// All there are, in the order of `--help`.
pub(super) const ALL: [&Resource; 14] = [
    &integrations::INTEGRATIONS,
    &webhooks::WEBHOOKS,
    &destinations::DESTINATIONS,
    &subscriptions::SUBSCRIPTIONS,
    &events::EVENTS,
    &deadletters::DEAD_LETTERS,
    &replay::REPLAY,
    &rejections::REJECTIONS,
    &versions::VERSIONS,
    &activity::ACTIVITY,
    &tasks::TASKS,
    &tokens::TOKENS,
    &providers::PROVIDERS,
    &metrics::METRICS,
];

/// A word of the command line with what can be done to it.
pub(super) struct Resource {
    pub(super) name: &'static str,
    about: &'static str,
    actions: &'static [Action],
}

/// One request, or the same repeated, and how its reply is shown.
pub(super) struct Action {
    name: &'static str,
    about: &'static str,
    /// What may be typed behind the action's name, one a line.
    examples: &'static [&'static str],
    method: Verb,
    /// Below `/api/v1`; each `{NAME}` is an argument.
    path: &'static str,
    /// Flags that go into the query.
    query: &'static [Flag],
    /// Flags that go into the body.
    members: &'static [Flag],
    body: Body,
    /// Members that may only come from a file or the environment.
    secrets: &'static [SecretFlag],
    /// Whether the reply has a secret that is shown this once, and in which member.
    once: Option<&'static str>,
    /// Whether it may be made to depend on the version that it was based on.
    conditional: bool,
    reply: Reply,
}

/// A request's method. (Those of HTTP cannot stand in a table: they have destructors.)
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Delete => Self::DELETE,
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Nothing.
    None,
    /// An object of the flags alone.
    Flags,
    /// A document, with the flags over it, of which nothing is made.
    Question,
    /// A document, with the flags over it, of what is to be made.
    Document,
    /// The same, of which only what differs from what stands is sent.
    Change,
}

impl Body {
    fn takes_document(self) -> bool {
        matches!(self, Self::Question | Self::Document | Self::Change)
    }
}

/// What is done with the reply.
#[derive(Clone, Copy)]
enum Reply {
    /// There is none; it is said what was done, with the path's arguments behind.
    Done(&'static str),
    /// One thing, member by member.
    One,
    /// A list, page by page.
    List(&'static [Column], Paging),
    /// A list that comes whole.
    Whole(&'static [Column]),
    /// Bytes as they are.
    Bytes,
    /// Lines as they come, without end or until all are there.
    Lines,
    /// A replay, which may be followed.
    Replay,
    /// Repeated until nothing is left; these members are added up, or counted where they are lists.
    Repeated(&'static [&'static str]),
}

/// How the next page is asked for.
#[derive(Clone, Copy)]
enum Paging {
    /// By how many were seen, or by the cursor that the page before gave.
    Skip,
    /// By the `next` of the page before, in this parameter.
    Cursor(&'static str),
}

/// A flag with the parameter or member that it sets.
struct Flag {
    name: &'static str,
    /// A parameter's name; of a member, a pointer.
    to: &'static str,
    kind: Kind,
    help: &'static str,
}

/// What may stand behind a flag.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Bool,
    /// Several texts, with commas or by repeating the flag.
    Texts,
    /// JSON.
    Json,
    /// A resource of that collection, by number or name.
    Ref(&'static str),
    /// One of these.
    Choice(&'static [&'static str]),
}

/// A secret member.
struct SecretFlag {
    /// The flags, for a file and for a variable.
    file: &'static str,
    variable: &'static str,
    /// Pointer.
    member: &'static str,
    /// Whether it has names within: `--credential-file NAME=FILE`.
    named: bool,
}

/// Of lists of what may come back after it was deleted.
const DELETED: Flag =
    Flag::new("deleted", "deleted", Kind::Bool, "Those that are deleted and may come back, in place of the others");
/// Of deleting what would else be kept for a while.
const PURGE: Flag = Flag::new("purge", "purge", Kind::Bool, "For good, at once, also where it is deleted already");

impl Flag {
    const fn new(name: &'static str, to: &'static str, kind: Kind, help: &'static str) -> Self {
        Self { name, to, kind, help }
    }
}

impl Action {
    const BASE: Self = Self {
        name: "",
        about: "",
        examples: &[],
        method: Verb::Get,
        path: "",
        query: &[],
        members: &[],
        body: Body::None,
        secrets: &[],
        once: None,
        conditional: false,
        reply: Reply::One,
    };

    const fn list(path: &'static str, columns: &'static [Column], paging: Paging) -> Self {
        Self { name: "list", path, reply: Reply::List(columns, paging), ..Self::BASE }
    }

    const fn get(path: &'static str) -> Self {
        Self { name: "get", path, ..Self::BASE }
    }

    const fn create(path: &'static str) -> Self {
        Self { name: "create", method: Verb::Post, path, body: Body::Document, ..Self::BASE }
    }

    const fn update(path: &'static str) -> Self {
        Self { name: "update", method: Verb::Put, path, body: Body::Change, conditional: true, ..Self::BASE }
    }

    const fn delete(path: &'static str) -> Self {
        Self {
            name: "delete",
            method: Verb::Delete,
            path,
            conditional: true,
            reply: Reply::Done("deleted"),
            ..Self::BASE
        }
    }

    /// Brings back what is deleted: by its number, as a deleted one's name may be another's by now.
    const fn restore(path: &'static str) -> Self {
        Self { name: "restore", method: Verb::Post, path, ..Self::BASE }
    }

    /// A `POST` with no more than flags.
    const fn act(name: &'static str, path: &'static str) -> Self {
        Self { name, method: Verb::Post, path, body: Body::Flags, ..Self::BASE }
    }

    /// The names between braces of the path.
    fn arguments(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }
}

/// The command of a resource, for the parser.
pub(super) fn command(resource: &Resource) -> clap::Command {
    command::of(resource)
}

/// The resource and action that were typed.
pub(super) fn typed(matches: &ArgMatches) -> Option<(&'static Action, &ArgMatches)> {
    let (name, matches) = matches.subcommand()?;
    let resource = ALL.into_iter().find(|resource| resource.name == name)?;
    if let [only] = resource.actions
        && only.name.is_empty()
    {
        return Some((only, matches));
    }
    let (name, matches) = matches.subcommand()?;
    let action = resource.actions.iter().find(|action| action.name == name)?;
    Some((action, matches))
}
