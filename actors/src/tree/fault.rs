//! Why an actor ended, as far as it may be told. ractor hands on the words of a panic, which may repeat what the actor worked
//! on; only errors of hookmill's own are told in full, as they hold no secrets. Where a panic was is in the log already.

use ractor::{ActorProcessingErr, SpawnErr};

use crate::ports::{config_store::ConfigStoreError, event_log::LogError};

/// All that is told of a panic.
pub(crate) const PANICKED: &str = "it panicked; the log has where";

/// Of an actor that ran.
pub(crate) fn of_failed(error: &ActorProcessingErr) -> String {
    let of_log = error.downcast_ref::<LogError>().map(ToString::to_string);
    let of_config = || error.downcast_ref::<ConfigStoreError>().map(ToString::to_string);
    of_log.or_else(of_config).unwrap_or_else(|| PANICKED.to_owned())
}

/// Of an actor that did not start.
pub(crate) fn of_start(error: &SpawnErr) -> String {
    match error {
        SpawnErr::StartupFailed(error) => of_failed(error),
        SpawnErr::ActorAlreadyStarted | SpawnErr::ActorAlreadyRegistered(_) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorRef};

    use super::*;

    struct Panics;

    impl Actor for Panics {
        type Msg = ();
        type State = ();
        type Arguments = String;

        async fn pre_start(&self, _: ActorRef<()>, what: String) -> Result<(), ActorProcessingErr> {
            panic!("could not work on {what}");
        }
    }

    #[tokio::test]
    async fn the_words_of_a_panic_are_not_told_and_those_of_an_error_are() {
        let Err(error) = Actor::spawn(None, Panics, "whsec_planted".to_owned()).await else { panic!("it panics") };
        assert!(error.to_string().contains("whsec_planted"), "else there is nothing to hide");
        assert_eq!(of_start(&error), PANICKED);
        assert_eq!(of_failed(&LogError::Closed.into()), LogError::Closed.to_string());
        let full = ConfigStoreError("the disk is full".to_owned());
        assert_eq!(of_start(&SpawnErr::StartupFailed(full.clone().into())), full.to_string());
    }
}
