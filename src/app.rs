//! Settings in, a running hookmill out: store, tree, admin API and ingress, started in that order and stopped in
//! reverse. Owns nothing itself; what it starts says what its crash costs.

mod address;
mod backup;
mod clock;
mod connections;
mod keys;
mod store;
mod tokens;
mod watchdog;

use std::{
    future::Future,
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use hookmill_actors::{
    domain::{config::Destination, secret::Secret},
    ports::{
        provider::SettingsError,
        transport::{AttemptReport, Consignment, Transports},
    },
    router::CommitBoard,
    scheduler::{Retention, TaskOptions},
    snapshot::Compiler,
    tree::{Ports, Tree, TreeHandle, TreeOptions, restart::RestartLimit},
};
use serde_json::{Map, Value};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

use self::{
    address::Published,
    backup::BackupService,
    keys::KeyService,
    store::Store,
    watchdog::{EndBounds, Watchdog},
};
pub use self::{
    address::{Listener, published as published_address},
    clock::SystemClock,
};
use crate::{
    admin::{AdminOptions, AdminPorts, AdminServer, DestinationRules, Keys, SecretTools, SubscriptionDefaults},
    cli::ServeOptions,
    connections::{Connections, Tester},
    destinations::{Destinations, Egress, HttpDefaults, OwnAddresses},
    ingress::{Ingress, IngressOptions, IngressPorts, Readiness},
    programs::{Engines, ProgramOptions},
    providers::registry,
    rejections::{RejectionDesk, RejectionOptions, Rejections},
    secrets::{AdminToken, AdminTokenOrigin, LiveRing, TokenHash, random_bytes},
    settings::Settings,
    storage::LogHealth,
    tokens::TokenRegistry,
};

/// Deliveries under way may take so long to end at a stop; the rest is delivered again after the next start.
const STOP_WAIT_MAX: Duration = Duration::from_secs(8);
/// What else a stop does, beside deliveries and webhooks under way; where the disk answers, it takes less than a second.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// How far the admin API's threads stand back behind those of webhooks: a search takes the time that they leave.
const CONTROL_NICENESS: i32 = 5;

/// Where a running hookmill is reached.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// Webhooks.
    pub ingress: SocketAddr,
    /// The admin API.
    pub admin: SocketAddr,
}

/// Serves until told to stop. 0 after a clean stop, 1 when the log failed or the tree gave up.
pub fn run(settings: &Settings, options: ServeOptions) -> anyhow::Result<ExitCode> {
    let runtime = control_runtime()?;
    let ended = runtime.block_on(async {
        let mut stop = StopSignal::listen()?;
        let origin = AdminToken::load(&prepare(&settings.data_dir)?, AdminToken::preset_from_environment().as_ref())?;
        let app = App::start(settings, options, origin.hash.clone()).await?;
        crate::cli::print(welcome(settings, app.addresses(), &origin.origin))?;
        app.until(async move { stop.received().await }).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// The runtime of the admin API, signals and timers; deliveries and webhooks have their own.
pub fn control_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        // Linux has it by thread. Where it is refused, who searches is as urgent as who sends.
        .on_thread_start(|| {
            let _ = rustix::process::nice(CONTROL_NICENESS);
        })
        .enable_all()
        .build()
        .context("no runtime for the admin API")
}

/// The data directory, made for its owner alone where it is missing.
fn prepare(data_dir: &Path) -> anyhow::Result<std::path::PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("cannot make the data directory {}", data_dir.display()))?;
    Ok(data_dir.to_owned())
}

/// A running hookmill.
pub struct App {
    store: Store,
    tree: Tree,
    keys: KeyService,
    deliveries: tokio::runtime::Runtime,
    ingress: Ingress,
    admin: tokio::task::JoinHandle<()>,
    admin_stop: watch::Sender<bool>,
    tokens: Arc<TokenRegistry>,
    uses: AbortOnDropHandle<()>,
    /// Connection tests; those under way at a stop are made again.
    tests: AbortOnDropHandle<()>,
    draining: Arc<AtomicBool>,
    addresses: Addresses,
    /// While it can be asked.
    published: [Published; 2],
    watchdog: Watchdog,
}

impl App {
    /// Starts everything; ready when it returns. `token` opens the admin API.
    pub async fn start(settings: &Settings, options: ServeOptions, token: TokenHash) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let board = Arc::new(CommitBoard::default());
        let data_dir = prepare(&settings.data_dir)?;
        let store = store::open(settings, &data_dir, options, board.clone(), clock.clone()).await?;
        let draining = Arc::new(AtomicBool::new(false));
        let watchdog = Watchdog::start(store.log.stall_watch(), end_bounds(settings), draining.clone())?;

        let own = OwnAddresses::new([settings.ingress.address, settings.admin.address]);
        let defaults = HttpDefaults {
            timeout: settings.delivery.total_timeout,
            connect_timeout: settings.delivery.connect_timeout,
        };
        let egress = Egress::new(settings.egress.allow.clone(), own.clone());
        let destinations = Arc::new(Destinations::new(egress, defaults, settings.destinations.files()));
        let compiler = Compiler {
            providers: Arc::new(*registry()),
            transports: destinations.clone(),
            sealer: store.keys.ring().clone(),
            programs: Arc::new(Engines::new(program_options(settings))),
        };
        let connections = connections::load(&settings.connection_tests, &store, destinations.prober()).await?;
        let tester = Tester { connections: connections.clone(), audit: store.config.clone() };
        let ports = Ports {
            log: store.log.clone(),
            state: store.state.clone(),
            config: store.config.clone(),
            compiler,
            connections: Arc::new(tester),
            clock: clock.clone(),
        };
        let deliveries = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.delivery.threads)
            .thread_name("delivery")
            .enable_all()
            .build()
            .context("no runtime for deliveries")?;
        let tree_options = tree_options(settings);
        let tree = deliveries
            .spawn(async move { Tree::start(ports, tree_options, board).await })
            .await
            .context("the actor tree was cut off while it started")??;

        let tokens = tokens::open(token, settings.admin.requests_per_minute, &store, clock.clone()).await?;
        let (rejections, refused) = open_rejections(settings, &tree)?;
        let readiness =
            Arc::new(Ready { tree: tree.handle().clone(), health: store.log.health(), draining: draining.clone() });
        let keys =
            KeyService::start(store.keys.clone(), tree.handle().clone(), connections.clone(), clock.clone()).await?;
        let outside = Outside {
            keys: keys.clone(),
            rules: Rules { destinations, deliveries: deliveries.handle().clone() },
            connections: connections.clone(),
            tokens: tokens.clone(),
            rejections,
        };
        let admin = bind_admin(settings, &tree, &store, outside, readiness.clone()).await?;
        let ingress = start_ingress(settings, &tree, &store, clock, readiness, refused)?;
        let addresses = Addresses { ingress: ingress.local_addr(), admin: admin.local_addr() };
        own.set([addresses.ingress, addresses.admin]);
        let published = [
            Published::write(&data_dir, Listener::Ingress, addresses.ingress),
            Published::write(&data_dir, Listener::Admin, addresses.admin),
        ];
        let (admin_stop, mut stopped) = watch::channel(false);
        let admin = tokio::spawn(admin.serve(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        let uses = tokens::store_uses_now_and_then(tokens.clone());
        let tests = tokio::spawn(connections.run(tree.handle().config().clone(), store.config.clone()));
        let tests = AbortOnDropHandle::new(tests);
        Ok(Self {
            store,
            tree,
            keys,
            deliveries,
            ingress,
            admin,
            admin_stop,
            tokens,
            uses,
            tests,
            draining,
            addresses,
            published,
            watchdog,
        })
    }

    /// Where it is reached.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// How the outside talks to its tree.
    pub fn tree(&self) -> &TreeHandle {
        self.tree.handle()
    }

    /// Serves until `stop` resolves, the log fails or the tree gives up; then stops.
    pub async fn until(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<ExitCode> {
        let mut health = self.store.log.health();
        let code = tokio::select! {
            () = stop => {
                tracing::info!("stopping");
                ExitCode::SUCCESS
            }
            failed = health.wait_for(|health| matches!(health, LogHealth::Failed(_))) => {
                let reason = failed.map(|health| format!("{:?}", *health)).unwrap_or_default();
                tracing::error!(reason, "the event log failed; nothing is accepted any more. Look at the disk, then start again");
                ExitCode::FAILURE
            }
            () = self.tree.ended() => {
                tracing::error!("the actor tree gave up: one of its parts keeps crashing");
                ExitCode::FAILURE
            }
        };
        self.stop().await?;
        Ok(code)
    }

    /// Answers what was accepted, records what is under way, closes the store.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.draining.store(true, Ordering::Relaxed);
        drop(self.tests);
        let tree = self.tree;
        let stopped = self.deliveries.spawn(async move { tree.stop(STOP_WAIT_MAX).await });
        self.ingress.drain().await;
        let _ = stopped.await;
        drop(self.published);
        self.admin_stop.send_replace(true);
        let _ = self.admin.await;
        self.keys.stop().await;
        drop(self.uses);
        tokens::store_uses(self.tokens).await;
        // A transport that is still busy must not hold up the stop.
        self.deliveries.shutdown_background();
        self.store.close().await?;
        drop(self.watchdog);
        Ok(())
    }
}

/// The disk may hang for as long during a stop as at any time.
fn end_bounds(settings: &Settings) -> EndBounds {
    let after_failure = STOP_WAIT_MAX.max(settings.ingress.drain_timeout) + STOP_SLACK;
    EndBounds { after_failure, after_stop: after_failure + settings.log.stall_limit }
}

fn program_options(settings: &Settings) -> ProgramOptions {
    let from = &settings.programs;
    ProgramOptions {
        workers: from.workers,
        deadline: from.deadline,
        memory_bytes: from.memory_bytes,
        output_bytes_max: from.output_bytes_max,
        ..ProgramOptions::default()
    }
}

fn tree_options(settings: &Settings) -> TreeOptions {
    TreeOptions {
        restarts: RestartLimit {
            restarts_max: settings.supervision.restarts_max as usize,
            window: settings.supervision.restarts_window,
        },
        retention: Retention {
            age_max: settings.log.retention,
            bytes_max: settings.log.bytes_max,
            backlog_bytes_max: settings.log.backlog_bytes_max(),
            dedup_keys_max: settings.log.dedup_keys_max,
            dead_letters_age_max: settings.retention.dead_letters,
            activities_age_max: settings.retention.activities,
        },
        deletion_grace: settings.retention.deleted,
        tasks: TaskOptions {
            test_all_active_integrations: settings.tasks.test_all_active_integrations.clone(),
            process_pending_webhook_events: settings.tasks.process_pending_webhook_events.clone(),
            collect_integration_metrics: settings.tasks.collect_integration_metrics.clone(),
            put_off_max: settings.tasks.put_off_max,
            tests_concurrent_max: settings.connection_tests.concurrent_max,
            tests_deadline: settings.tasks.tests_deadline,
            pending_limit: settings.tasks.pending_limit,
        },
    }
}

fn open_rejections(settings: &Settings, tree: &Tree) -> anyhow::Result<(Rejections, Arc<RejectionDesk>)> {
    let from = &settings.rejections;
    let options = RejectionOptions {
        count_max: from.count_max,
        bytes_max: from.bytes_max,
        body_bytes_max: from.body_bytes_max,
        per_second: from.per_second,
    };
    let dir = settings.rejections_dir();
    Rejections::open(dir.clone(), options, tree.handle().counters().clone())
        .with_context(|| format!("cannot keep rejections in {}", dir.display()))
}

/// What the admin API reaches beside the tree and the store.
struct Outside {
    keys: KeyService,
    rules: Rules,
    connections: Connections,
    tokens: Arc<TokenRegistry>,
    rejections: Rejections,
}

async fn bind_admin(
    settings: &Settings,
    tree: &Tree,
    store: &Store,
    outside: Outside,
    readiness: Arc<Ready>,
) -> anyhow::Result<AdminServer> {
    let options = AdminOptions {
        address: settings.admin.address,
        body_bytes_max: settings.admin.body_bytes_max,
        request_timeout: settings.admin.request_timeout,
        allowed_hosts: settings.admin.allowed_hosts.clone(),
        trusted_proxies: settings.admin.trusted_proxies.clone(),
    };
    let ports = AdminPorts {
        tree: tree.handle().clone(),
        sealer: store.keys.ring().clone(),
        providers: Arc::new(*registry()),
        destinations: Arc::new(outside.rules),
        tokens: outside.tokens,
        readiness: Arc::new(move || readiness.reasons()),
        secrets: Arc::new(RingTools(store.keys.ring().clone())),
        backup: Arc::new(BackupService {
            log: store.log.clone(),
            state: store.state.clone(),
            config: store.config.clone(),
            keys: store.keys.clone(),
            rejections: settings.rejections_dir(),
            clock: tree.handle().ports().clock.clone(),
            session: Arc::default(),
        }),
        keys: Arc::new(outside.keys),
        connections: outside.connections,
        subscription_defaults: SubscriptionDefaults {
            in_flight_max: settings.delivery.in_flight_max,
            retry: settings.retry.policy(),
        },
        rejections: outside.rejections,
        replies: store.config.clone(),
    };
    AdminServer::bind(options, ports)
        .await
        .with_context(|| format!("the admin API cannot listen on {} (setting `admin.address`)", settings.admin.address))
}

fn start_ingress(
    settings: &Settings,
    tree: &Tree,
    store: &Store,
    clock: Arc<SystemClock>,
    readiness: Arc<Ready>,
    refused: Arc<RejectionDesk>,
) -> anyhow::Result<Ingress> {
    let from = &settings.ingress;
    let options = IngressOptions {
        address: from.address,
        threads: from.thread_count(),
        connections_max: from.connections_max,
        header_count_max: from.header_count_max,
        header_bytes_max: from.header_bytes_max,
        header_line_bytes_max: from.header_line_bytes_max,
        target_bytes_max: from.target_bytes_max,
        body_bytes_max: from.body_bytes_max,
        body_bytes_in_flight_max: from.body_bytes_in_flight_max,
        head_timeout: from.head_timeout,
        request_timeout: from.request_timeout,
        idle_timeout: from.idle_timeout,
        body_rate_min: u32::try_from(from.body_rate_min).unwrap_or(u32::MAX),
        hops_max: u8::try_from(from.hops_max).unwrap_or(u8::MAX),
        drain_timeout: from.drain_timeout,
        http2_streams_max: from.http2_streams_max,
        redacted_headers: settings.log.redacted_headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
    };
    let ports = IngressPorts {
        snapshot: tree.handle().config().published(),
        log: store.log.clone(),
        clock,
        counters: tree.handle().counters().clone(),
        readiness,
        refused,
    };
    Ingress::start(options, ports)
        .with_context(|| format!("webhooks cannot be received on {} (setting `ingress.address`)", from.address))
}

/// Whether webhooks can be stored now.
struct Ready {
    tree: TreeHandle,
    health: watch::Receiver<LogHealth>,
    draining: Arc<AtomicBool>,
}

impl Readiness for Ready {
    fn reasons(&self) -> Vec<String> {
        let mut reasons = self.tree.readiness();
        match &*self.health.borrow() {
            LogHealth::Ready => {}
            LogHealth::DiskLow => reasons.push("the disk is nearly full (setting `log.reserve_bytes`)".to_owned()),
            LogHealth::Stalled(work) => reasons.push(format!("the disk does not answer: {work} takes unusually long")),
            LogHealth::Failed(reason) => reasons.push(format!("the event log failed: {reason}")),
        }
        if self.draining.load(Ordering::Relaxed) {
            reasons.push("stopping".to_owned());
        }
        reasons
    }
}

struct Rules {
    destinations: Arc<Destinations>,
    /// Connections are served where deliveries are, not beside the admin API.
    deliveries: tokio::runtime::Handle,
}

#[async_trait]
impl DestinationRules for Rules {
    fn validate(
        &self,
        kind: &str,
        settings: &Map<String, Value>,
        credentials: Option<&Secret>,
    ) -> Result<(), SettingsError> {
        self.destinations.validate(kind, settings, credentials)
    }

    async fn attempt(
        &self,
        destination: &Destination,
        keys: Keys,
        consignment: Consignment,
        now_ms: u64,
    ) -> Result<AttemptReport, SettingsError> {
        let transport = self.destinations.build(destination, &keys.signing_secret, keys.credentials.as_ref())?;
        // Dropped with the request: then the attempt ends too.
        let attempt =
            AbortOnDropHandle::new(self.deliveries.spawn(async move { transport.attempt(consignment, now_ms).await }));
        attempt.await.map_err(|_| SettingsError::new("type", "the attempt was abandoned; the log says why"))
    }
}

struct RingTools(Arc<LiveRing>);

impl SecretTools for RingTools {
    fn random(&self) -> [u8; 32] {
        random_bytes()
    }

    fn fingerprint(&self, secret: &Secret) -> String {
        self.0.fingerprint(secret)
    }
}

/// SIGTERM or SIGINT.
struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What an operator wants to know first: where it listens, where the token is, what to type next.
fn welcome(settings: &Settings, addresses: &Addresses, token: &AdminTokenOrigin) -> String {
    let admin = format!("http://{}/api/v1", addresses.admin);
    let (where_is, read) = match token {
        AdminTokenOrigin::Preset => {
            ("as preset in HOOKMILL_ADMIN_TOKEN".to_owned(), "$HOOKMILL_ADMIN_TOKEN".to_owned())
        }
        AdminTokenOrigin::File(path) | AdminTokenOrigin::Created(path) => {
            (path.display().to_string(), format!("$(cat {})", path.display()))
        }
    };
    format!(
        "hookmill {version} is ready\n  \
           webhooks   http://{ingress}/webhooks/receive/{{path}}\n  \
           admin API  {admin}\n  \
           token      {where_is}\n  \
           data       {data}\n\
         next: curl -H \"Authorization: Bearer {read}\" {admin}/integrations\n",
        version = env!("CARGO_PKG_VERSION"),
        ingress = addresses.ingress,
        data = settings.data_dir.display(),
    )
}
