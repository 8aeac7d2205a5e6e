//! integrations
pub(crate) enum IntegrationsMsg {
    Reconcile,
}
