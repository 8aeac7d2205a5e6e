//! What an operator hears of a breaker: each change is counted, but one that goes to and fro is told of once a minute.
//! Pure.

use std::time::Duration;

use tokio::time::Instant;

use crate::flow::breaker::Change;

const QUIET: Duration = Duration::from_secs(60);

/// A breaker's changes since they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Diary {
    opened: u64,
    closed: u64,
    /// Openings since the last news.
    unsaid: u64,
    said: Option<(News, Instant)>,
}

/// What happened since the last look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) opened: u64,
    pub(super) closed: u64,
    pub(super) news: Option<News>,
}

/// What an operator should hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It is left alone now; it opened so many times since the last news.
    Opened { times: u64 },
    /// It is well again; it opened so many times since the last news.
    Closed { times: u64 },
}

impl Diary {
    pub(super) fn note(&mut self, change: Change) {
        match change {
            Change::Opened => {
                self.opened += 1;
                self.unsaid += 1;
            }
            Change::Closed => self.closed += 1,
        }
    }

    /// Everything since the last time; the news only when it is not too soon for more.
    pub(super) fn tear_off(&mut self, closed: bool, now: Instant) -> Entry {
        let entry = Entry {
            opened: std::mem::take(&mut self.opened),
            closed: std::mem::take(&mut self.closed),
            news: self.news(closed, now),
        };
        if let Some(news) = entry.news {
            self.said = Some((news, now));
            self.unsaid = 0;
        }
        entry
    }

    fn news(&self, closed: bool, now: Instant) -> Option<News> {
        let said_closed = !matches!(self.said, Some((News::Opened { .. }, _)));
        let too_soon = self.said.is_some_and(|(_, at)| now < at + QUIET);
        let times = self.unsaid;
        match (said_closed, closed) {
            _ if too_soon => None,
            (true, false) => Some(News::Opened { times }),
            (false, true) => Some(News::Closed { times }),
            (true, true) | (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_counts_but_news_come_once_a_minute() {
        let begin = Instant::now();
        let mut diary = Diary::default();
        assert_eq!(diary.tear_off(true, begin), Entry::default());
        diary.note(Change::Opened);
        let first = diary.tear_off(false, begin);
        assert_eq!(first, Entry { opened: 1, closed: 0, news: Some(News::Opened { times: 1 }) });
        for second in 1..60 {
            diary.note(Change::Closed);
            diary.note(Change::Opened);
            let entry = diary.tear_off(false, begin + Duration::from_secs(second));
            assert_eq!(entry, Entry { opened: 1, closed: 1, news: None });
        }
        diary.note(Change::Closed);
        let last = diary.tear_off(true, begin + QUIET);
        assert_eq!(last, Entry { opened: 0, closed: 1, news: Some(News::Closed { times: 59 }) });
    }
}
