//! A disk that hangs: no commit fails, and none comes to its end. Whoever waits for one waits with it, so that what must not wait
//! asks here first.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::audit::JournalError;
use crate::audit::journal::Journal;

/// How long the writer may take for one answer, twice in a row: a process that stood still finds the first one over.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOKS: u32 = 2;
/// Between two attempts to get into a queue that is full.
const AGAIN: Duration = Duration::from_secs(1);

impl Journal {
    /// Whether the writer answers, or commits at least what came before. While it does not, that is known as [`Journal::trouble`],
    /// until it is asked again and answers.
    pub async fn answers(&self) -> bool {
        let mut answers = false;
        let commits = self.commits();
        for _ in 0..LOOKS {
            // It drafts nothing, so that nothing is left of it when nobody waits any more.
            let look = async {
                loop {
                    match self.transact(|_| (Vec::new(), ())).await {
                        Err(JournalError::Overloaded) => tokio::time::sleep(AGAIN).await,
                        answer => break answer,
                    }
                }
            };
            // Whatever went wrong, somebody said so; but for a writer that is gone.
            let answered = |answer| !matches!(answer, Err(JournalError::Closed));
            answers = tokio::time::timeout(PATIENCE, look).await.is_ok_and(answered);
            if answers {
                break;
            }
        }
        // A long queue before a slow disk.
        answers |= self.commits() != commits;
        let published = &self.inner.published;
        if published.hangs.swap(!answers, Ordering::Relaxed) == answers {
            if !answers {
                tracing::error!("the journal's writer does not answer");
            }
            published.seq.send_modify(|_| {});
        }
        answers
    }

    /// The writer did not answer when it was asked last.
    pub fn hangs(&self) -> bool {
        self.inner.published.hangs.load(Ordering::Relaxed)
    }
}

pub(super) fn said() -> String {
    format!("the journal's disk has not answered for {} s", (PATIENCE * LOOKS).as_secs())
}
