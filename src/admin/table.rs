//! The form of the route table: a path's methods, each with the least role that it needs and its description.
//!
//! A method cannot be put in without saying who may use it, and what it takes and answers. Where a path names what belongs to an integration, tokens
//! with scopes come in if they see that. Other paths are closed to them, unless [`Methods::scoped`] says that the handlers
//! heed scopes themselves: what is forgotten is closed.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    handler::Handler,
    http::Method,
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{MethodFilter, MethodRouter},
};

use super::{
    access::{Access, Admits, Subjects, admit},
    openapi::Describe,
    paging::Params,
    problem::Problem,
};
use crate::tokens::Role;

/// What a method asks of the token it is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: not even that there is one.
    Open,
    /// A token with this role, or one above it.
    Role(Role),
}

/// A method as the table has it.
#[derive(Clone, Debug)]
pub(super) struct Described {
    pub(super) method: Method,
    pub(super) need: Need,
    pub(super) doc: Describe,
}

/// The methods of one path.
pub(super) struct Methods<S> {
    router: MethodRouter<S>,
    described: Vec<Described>,
    scoped: bool,
    shape: Option<fn(MethodRouter<S>) -> MethodRouter<S>>,
}

/// `GET` for everybody; the gate must know the path too.
pub(super) fn open<S, H, T>(handler: H, doc: Describe) -> Methods<S>
where
    S: Clone + Send + Sync + 'static,
    H: Handler<T, S>,
    T: 'static,
{
    let router = MethodRouter::new().get(handler);
    let described = vec![Described { method: Method::GET, need: Need::Open, doc }];
    Methods { router, described, scoped: true, shape: None }
}

macro_rules! methods {
    ($($name:ident $method:ident,)*) => {$(
        #[doc = concat!("`", stringify!($method), "` for a role.")]
        pub(super) fn $name<H, T>(self, role: Role, handler: H, doc: Describe) -> Self
        where
            H: Handler<T, S>,
            T: 'static,
        {
            self.on((Method::$method, MethodFilter::$method), role, handler, doc)
        }
    )*};
}

macro_rules! beginnings {
    ($($name:ident $method:ident,)*) => {$(
        #[doc = concat!("Of a path whose first method is `", stringify!($method), "`.")]
        pub(super) fn $name<S, H, T>(role: Role, handler: H, doc: Describe) -> Methods<S>
        where
            S: Clone + Send + Sync + 'static,
            H: Handler<T, S>,
            T: 'static,
        {
            Methods::new().$name(role, handler, doc)
        }
    )*};
}

beginnings! { get GET, post POST, delete DELETE, }

impl<S: Clone + Send + Sync + 'static> Methods<S> {
    fn new() -> Self {
        Self { router: MethodRouter::new(), described: Vec::new(), scoped: false, shape: None }
    }

    methods! { get GET, post POST, put PUT, patch PATCH, delete DELETE, }

    /// Tokens with scopes may come here: the handlers show and touch only what [`Access`] sees.
    pub(super) fn scoped(mut self) -> Self {
        self.scoped = true;
        self
    }

    /// What is put around all methods, and around what refuses them.
    pub(super) fn shaped(mut self, shape: fn(MethodRouter<S>) -> MethodRouter<S>) -> Self {
        self.shape = Some(shape);
        self
    }

    /// The methods, what each needs, and what is said of it.
    pub(super) fn described(&self) -> &[Described] {
        &self.described
    }

    fn on<H, T>(mut self, (method, filter): (Method, MethodFilter), role: Role, handler: H, doc: Describe) -> Self
    where
        H: Handler<T, S>,
        T: 'static,
    {
        self.router = self.router.on(filter, handler);
        self.described.push(Described { method, need: Need::Role(role), doc });
        self
    }

    /// Puts them on a router, with and without a slash at the end, as the original's paths have it.
    pub(super) fn put_on(self, router: Router<S>, path: &str, state: &S) -> Router<S>
    where
        S: Admits,
    {
        let subjects = Subjects::of(path);
        let methods = match (subjects.are_none(), self.scoped) {
            (false, _) => self.router.route_layer(from_fn_with_state((state.clone(), subjects), admit::<S>)),
            (true, true) => self.router,
            (true, false) => self.router.route_layer(from_fn(check_everything)),
        };
        let asked: Arc<[Asked]> = self.described.iter().filter_map(Asked::of).collect();
        let methods = methods.route_layer(from_fn_with_state(asked, check));
        let methods = match self.shape {
            Some(shape) => shape(methods),
            None => methods,
        };
        router.route(path, methods.clone()).route(&format!("{path}/"), methods)
    }
}

/// What is asked of a request before anything is looked for or read: who may use its method, and whether that takes a
/// query.
struct Asked {
    method: Method,
    role: Role,
    /// Then its handler refuses the parameters that it does not know.
    takes_query: bool,
}

impl Asked {
    /// Of what is not open: there everybody may ask, and probes and browsers add parameters of their own.
    fn of(Described { method, need, doc }: &Described) -> Option<Self> {
        match need {
            Need::Open => None,
            Need::Role(role) => Some(Self { method: method.clone(), role: *role, takes_query: doc().takes_query() }),
        }
    }
}

async fn check(
    State(asked): State<Arc<[Asked]>>,
    access: Option<Access>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    // `HEAD` is answered by what answers `GET`.
    let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
    if let Some(asked) = asked.iter().find(|asked| asked.method == *method) {
        access.ok_or_else(|| Problem::internal(&"a method for a role is behind an open path"))?.needs(asked.role)?;
        if !asked.takes_query {
            Params::of(request.uri())?.finish()?;
        }
    }
    Ok(next.run(request).await)
}

async fn check_everything(access: Access, request: Request, next: Next) -> Result<Response, Problem> {
    access.needs_everything()?;
    Ok(next.run(request).await)
}
