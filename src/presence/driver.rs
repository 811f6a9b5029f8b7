//! The port to one PBX.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::model::{Disposition, Extension, Generation, Language, Profile, Readback, Shown, Wanted};

/// What a PBX of this kind can express and tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Longest text it shows, in characters; 0: none.
    pub text_chars: usize,
    /// Whether it takes the return time as a value of its own (besides the text).
    pub until: bool,
    /// Whether what shows can be read back.
    pub read_back: bool,
    /// Whether it reports changes by itself; where not, it is read back each minute.
    pub watches: bool,
    /// Whether a restart of the PBX can be told from a change by hand.
    pub tells_restart: bool,
}

/// Whether the lease under which a write is done surely stands for some time more.
#[derive(Clone, Copy)]
pub struct Stands<'a>(&'a (dyn Fn(Duration) -> bool + Sync));

impl<'a> Stands<'a> {
    /// By what `lasts` says whenever it is asked.
    pub fn new(lasts: &'a (dyn Fn(Duration) -> bool + Sync)) -> Self {
        Self(lasts)
    }

    /// Whether it surely stands for so long from now on.
    pub fn lasts(self, long: Duration) -> bool {
        (self.0)(long)
    }
}

impl fmt::Debug for Stands<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stands")
    }
}

/// One change to be made on the PBX.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Whose.
    pub extension: &'a Extension,
    /// What should show.
    pub wanted: &'a Wanted,
    /// What we know it to show now: what we last wrote, or found.
    pub previous: Option<&'a Shown>,
    /// The lease it is done under; grows with time.
    pub generation: Generation,
    /// The same for all attempts at this very change; unique otherwise.
    pub transition: &'a str,
    /// Give up after this long, from when its turn at the PBX has come. Until then it waits for as long as whoever asked does: very many
    /// may be wanted of one PBX at the same instant.
    pub within: Duration,
    /// What it rests on. The driver asks once its turn has come and before it sends anything, whether that lasts for [`within`](Self::within);
    /// where not, it gives up and has sent nothing: what it sent might come after what is done under the next lease (I3).
    pub stands: Stands<'a>,
}

/// Something that happened on the PBX's side, unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PbxSignal {
    /// An extension may show something else than before. A hint: read it back.
    Changed(Extension),
    /// The link is up (again): everything is to be read back.
    LinkUp,
    /// The link is gone.
    LinkDown,
}

/// How the link to the PBX stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// Nothing has been tried yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not, and why, in words for a technician.
    Down {
        /// The cause, without secrets.
        cause: String,
    },
    /// It answers, and does not let us in.
    Denied {
        /// Its words, without secrets.
        reason: String,
    },
}

/// Why a PBX did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum PbxError {
    /// No connection, or it broke, or no answer in time. Whether the change was made is not known.
    #[error("the PBX did not answer")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It asks for patience.
    #[error("the PBX asks us to slow down")]
    Throttled {
        /// Its own wish, if it named one.
        retry_after: Option<Duration>,
    },
    /// It does not accept our credentials, or they do not allow this.
    #[error("the PBX refuses our credentials: {reason}")]
    Denied {
        /// Its words, without secrets.
        reason: String,
    },
    /// It does not know the extension.
    #[error("the PBX does not know extension `{extension}`")]
    NoSuchExtension {
        /// Which.
        extension: Extension,
    },
    /// It understood and refused; trying the same again is useless.
    #[error("the PBX refused: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// Its answer could not be understood.
    #[error("the PBX answered something unexpected: {reason}")]
    Unexpected {
        /// What was unexpected, without payload.
        reason: String,
    },
}

impl PbxError {
    /// What the queue does next.
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Unreachable(_) | Self::Unexpected { .. } => Disposition::Retry { after: None },
            Self::Throttled { retry_after } => Disposition::Retry { after: *retry_after },
            Self::Denied { .. } | Self::NoSuchExtension { .. } | Self::Refused { .. } => Disposition::Park,
        }
    }
}

/// One PBX, spoken to in its own tongue.
#[async_trait]
pub trait PbxDriver: Send + Sync + 'static {
    /// What this PBX can express and tell.
    fn abilities(&self) -> Abilities;

    /// What the PBX will show, in canonical fields, once told `wanted`: equal to what [`read_back`](Self::read_back) then gives.
    fn render(&self, wanted: &Wanted) -> Shown;

    /// What people read of a state that is no profile of ours, in words and never in the PBX's own tokens; `None` where
    /// nothing is to be read.
    fn label(&self, shown: &Shown, _language: Language) -> Option<String> {
        shown.0.values().find(|value| !value.is_empty()).cloned()
    }

    /// Makes the change and returns once the PBX has acknowledged it.
    ///
    /// # Errors
    /// [`PbxError::disposition`] says whether to try again.
    async fn set(&self, write: Write<'_>) -> Result<Shown, PbxError>;

    /// What the extension shows now; `profiles` are the ones it may be recognised as.
    ///
    /// # Errors
    /// As [`set`](Self::set); [`PbxError::Refused`] where the PBX cannot be read.
    async fn read_back(&self, extension: &Extension, profiles: &[Profile]) -> Result<Readback, PbxError>;

    /// What happens on the PBX's side from now on.
    fn signals(&self) -> broadcast::Receiver<PbxSignal>;

    /// How the link stands.
    fn link(&self) -> LinkState;

    /// When a link that was up was lost, the last time in this process; `None` where that cannot be told.
    fn lost_at(&self) -> Option<Timestamp> {
        None
    }

    /// Holds the link until `shutdown`; a driver without a standing connection returns at once.
    async fn run(self: Arc<Self>, shutdown: CancellationToken);

    /// Tries the PBX and says in a sentence what was found (version, account, rights).
    ///
    /// # Errors
    /// What a technician has to mend.
    async fn check(&self) -> Result<String, PbxError>;
}
