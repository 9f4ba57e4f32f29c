//! Keys in tokens that are reached through PKCS#11: hardware security modules and their kin.
//!
//! A token may be slow, lose its sessions or never answer. So threads of the key's own talk to it,
//! and whoever wants a signature waits for them no longer than [`SIGN_WAIT`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_channel::{Receiver, Sender, bounded};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use placet_core::{KeyError, SigningKey, VerifyingKey};

use super::SignerError;
use super::manifest::{Pin, Token, id_bytes};
use super::private::{read_secret, variable_text};

/// Longest wait for a signature: a network module answers within milliseconds, and whoever asked
/// for a decision is told within seconds that there is none.
const SIGN_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for a token to be opened.
const OPEN_WAIT: Duration = Duration::from_secs(15);
/// Longest wait for the threads of a key that is no longer used: they are idle, or a token hangs.
const END_WAIT: Duration = Duration::from_secs(2);
/// Threads that talk to a token, each with a session of its own: as many as sign a batch.
const THREADS: usize = 4;
/// Most signatures that wait for a thread: several times those who can ask at once.
const QUEUE: usize = 64;
/// Longest PIN in bytes, with room.
const MAX_PIN_BYTES: u64 = 256;
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;
/// Bytes of an Ed25519 public key.
const PUBLIC_BYTES: usize = 32;
/// How a public key is told: an octet string of 32 bytes in DER (PKCS #11 3.0 §2.3.5), or without
/// its head, as some modules do.
const POINT_HEAD: [u8; 2] = [0x04, 0x20];

/// Why a key in a token cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The library cannot be loaded.
    #[error("the module `{module}` cannot be loaded")]
    Module {
        /// Its path.
        module: String,
        /// Why.
        source: Error,
    },
    /// There is no such token.
    #[error("no token is called `{token}`; there are: {found}")]
    Absent {
        /// Which was named.
        token: String,
        /// Which there are.
        found: String,
    },
    /// More than one token has that label.
    #[error("{count} tokens are called `{token}`\nhint: give one of them another label")]
    Ambiguous {
        /// Which was named.
        token: String,
        /// How many.
        count: usize,
    },
    /// The PIN is not that of the token.
    #[error(
        "the token `{token}` refuses the PIN\n\
         hint: it was tried once; most tokens lock themselves after a few wrong ones"
    )]
    Pin {
        /// Which token.
        token: String,
    },
    /// The PIN cannot be read as text.
    #[error("the PIN of the token `{token}` is not UTF-8, or is empty")]
    PinText {
        /// Which token.
        token: String,
    },
    /// There is no such key, or more than one.
    #[error("the token `{token}` has {count} {class} keys of that label and id, one is needed")]
    Keys {
        /// Which token.
        token: String,
        /// `private` or `public`.
        class: &'static str,
        /// How many.
        count: usize,
    },
    /// The key is of another kind.
    #[error("the key in the token `{token}` is not an Ed25519 key (CKK_EC_EDWARDS)")]
    Kind {
        /// Which token.
        token: String,
    },
    /// The key is another one than the manifest says.
    #[error("the key in the token `{token}` does not sign as `{kid}`")]
    Other {
        /// Which token.
        token: String,
        /// Which key was expected.
        kid: String,
    },
    /// It did not answer in time.
    #[error("the token `{token}` did not answer within {} seconds", OPEN_WAIT.as_secs())]
    Silent {
        /// Which token.
        token: String,
    },
    /// The token or its module failed.
    #[error("the token `{token}` failed")]
    Failed {
        /// Which token.
        token: String,
        /// How.
        source: Error,
    },
    /// The system gives no thread.
    #[error("no thread can be started")]
    Thread(#[source] std::io::Error),
}

/// The key of a token that signs as that public key. Has it sign a probe.
///
/// # Errors
/// [`SignerError`].
pub(super) fn open(token: &Token, public: &VerifyingKey) -> Result<SigningKey, SignerError> {
    let name = || token.token.clone();
    let (desk, told) = Desk::start(Way::new(token)?)?;
    match told.recv_timeout(OPEN_WAIT) {
        Ok(result) => result?,
        Err(_silent) => return Err(TokenError::Silent { token: name() }.into()),
    }
    let sign = move |message: &[u8]| desk.ask(message);
    SigningKey::elsewhere(public.clone(), sign)
        .map_err(|_wrong| TokenError::Other { token: name(), kid: public.id().to_string() }.into())
}

/// The public half of a key in a token.
///
/// # Errors
/// [`SignerError`].
pub(super) fn public_key(token: &Token) -> Result<VerifyingKey, SignerError> {
    let way = Way::new(token)?;
    let (answer, answered) = sync_channel(1);
    let thread = std::thread::Builder::new().name("token".to_owned());
    let look = move || drop(answer.try_send(way.public_key()));
    let thread = thread.spawn(look).map_err(TokenError::Thread)?;
    match answered.recv_timeout(OPEN_WAIT) {
        Ok(found) => {
            // It ends now; see `Desk`.
            thread.join().map_err(|_panic| TokenError::Silent { token: token.token.clone() })?;
            Ok(found?)
        }
        Err(_silent) => Err(TokenError::Silent { token: token.token.clone() }.into()),
    }
}

fn pin(token: &Token) -> Result<AuthPin, SignerError> {
    let text = match &token.pin {
        Pin::Env(variable) => variable_text(variable)?,
        Pin::File(path) => {
            let text = String::from_utf8(read_secret(path, MAX_PIN_BYTES)?);
            // What it holds stands in no message.
            text.map_err(|_bytes| TokenError::PinText { token: token.token.clone() })?
        }
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(TokenError::PinText { token: token.token.clone() }.into());
    }
    Ok(AuthPin::from(text.to_owned()))
}

/// What is to be signed, and where the signature goes.
struct Job {
    message: Vec<u8>,
    answer: SyncSender<Result<[u8; SIGNATURE_BYTES], KeyError>>,
}

/// The threads that talk to a token for one key.
///
/// They are waited for when the key is dropped: a module that is still in use while the process
/// ends takes it down.
struct Desk {
    jobs: Sender<Job>,
    is_stuck: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    /// Closed when all threads have come to their end.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// What the first thread says of a token: whether it can be reached at all.
type Opened = mpsc::Receiver<Result<(), TokenError>>;

impl Desk {
    fn start(way: Way) -> Result<(Self, Opened), TokenError> {
        let way = Arc::new(way);
        let (jobs, queue) = bounded(QUEUE);
        let is_stuck = Arc::new(AtomicBool::new(false));
        let (opened, told) = sync_channel(1);
        let (alive, ended) = mpsc::channel();
        let mut desk =
            Self { jobs, is_stuck, threads: Vec::with_capacity(THREADS), ended: Mutex::new(ended) };
        for number in 0..THREADS {
            let (way, queue, alive) = (Arc::clone(&way), queue.clone(), alive.clone());
            let is_stuck = Arc::clone(&desk.is_stuck);
            let opened = (number == 0).then(|| opened.clone());
            let thread = std::thread::Builder::new().name("token".to_owned());
            let spawned = thread.spawn(move || {
                serve(&way, &queue, &is_stuck, opened);
                drop((way, alive));
            });
            desk.threads.push(spawned.map_err(TokenError::Thread)?);
        }
        Ok((desk, told))
    }

    /// Asks for a signature. After one that did not come in time nobody waits for another until the
    /// token has answered again: a batch would wait once for each decision.
    fn ask(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], KeyError> {
        let (answer, answered) = sync_channel(1);
        if self.jobs.try_send(Job { message: message.to_vec(), answer }).is_err() {
            return Err(KeyError::Elsewhere);
        }
        if self.is_stuck.load(Ordering::Relaxed) {
            // It is queued all the same: its answer, which nobody reads, tells that the token is
            // back.
            return Err(KeyError::Elsewhere);
        }
        answered.recv_timeout(SIGN_WAIT).unwrap_or_else(|_silent| {
            tracing::error!("a token did not answer: nothing is signed until it does");
            self.is_stuck.store(true, Ordering::Relaxed);
            Err(KeyError::Elsewhere)
        })
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.jobs.close();
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        if ended.recv_timeout(END_WAIT) == Err(RecvTimeoutError::Timeout) {
            // One that the token does not answer is left behind.
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that talks to a token died");
            }
        }
    }
}

/// Signs for whoever asks, until nobody can any more.
fn serve(
    way: &Way,
    queue: &Receiver<Job>,
    is_stuck: &AtomicBool,
    opened: Option<SyncSender<Result<(), TokenError>>>,
) {
    let mut seat = None;
    if let Some(opened) = opened {
        let reached = way.reach().map(|reached| seat = Some(reached));
        way.note(reached.as_ref().err());
        // Whoever opens the key may have given up.
        drop(opened.try_send(reached));
    }
    while let Ok(Job { message, answer }) = queue.recv_blocking() {
        let mut signed = Err(KeyError::Elsewhere);
        // Once more, if the token has lost the session.
        for _ in 0..2 {
            if way.is_locked_out.load(Ordering::Relaxed) || signed.is_ok() {
                break;
            }
            let reached = match seat.take() {
                Some(reached) => Ok(reached),
                None => way.reach(),
            };
            match reached.and_then(|reached| Ok((way.sign(&reached, &message)?, reached))) {
                Ok((signature, reached)) => {
                    signed = Ok(signature);
                    seat = Some(reached);
                }
                Err(error) => {
                    way.note(Some(&error));
                    let error = crate::activation::chain(&error).replace('\n', "; ");
                    tracing::error!(error, "a token gave no signature");
                }
            }
        }
        is_stuck.store(false, Ordering::Relaxed);
        if answer.try_send(signed).is_err() {
            tracing::warn!("a token answered when nobody waited any more");
        }
    }
}

/// The way to a key in a token.
struct Way {
    token: Token,
    pin: AuthPin,
    module: OnceLock<Pkcs11>,
    /// Whether the PIN was refused: no thread tries it again, since tokens lock themselves.
    is_locked_out: AtomicBool,
}

/// A session, logged in, and the key.
struct Seat {
    session: Session,
    key: ObjectHandle,
}

impl Way {
    fn new(token: &Token) -> Result<Self, SignerError> {
        let (module, is_locked_out) = (OnceLock::new(), AtomicBool::new(false));
        Ok(Self { pin: pin(token)?, token: token.clone(), module, is_locked_out })
    }

    /// Remembers a PIN that was refused.
    fn note(&self, error: Option<&TokenError>) {
        if matches!(error, Some(TokenError::Pin { .. })) {
            self.is_locked_out.store(true, Ordering::Relaxed);
        }
    }

    fn failed(&self) -> impl Fn(Error) -> TokenError + Copy {
        |source| TokenError::Failed { token: self.token.token.clone(), source }
    }

    fn slot(&self, module: &Pkcs11) -> Result<Slot, TokenError> {
        let slots = module.get_slots_with_token().map_err(self.failed())?;
        let (mut slots_of_name, mut labels) = (Vec::new(), Vec::new());
        for slot in slots {
            // One that cannot be asked is none that could sign.
            let Ok(about) = module.get_token_info(slot) else { continue };
            if about.label().trim_end() == self.token.token {
                slots_of_name.push(slot);
            } else if !about.label().trim_end().is_empty() {
                labels.push(format!("`{}`", about.label().trim_end().escape_default()));
            }
        }
        match *slots_of_name {
            [slot] => Ok(slot),
            [] => {
                let found = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
                Err(TokenError::Absent { token: self.token.token.clone(), found })
            }
            _ => Err(TokenError::Ambiguous {
                token: self.token.token.clone(),
                count: slots_of_name.len(),
            }),
        }
    }

    /// The module, loaded once and never unloaded: what it registered with the system stays.
    fn module(&self) -> Result<&Pkcs11, TokenError> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let path = &self.token.module;
        let unloaded = |source| TokenError::Module { module: path.display().to_string(), source };
        let module = Pkcs11::new(path).map_err(unloaded)?;
        match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Another key of this process is reached through the same module, or another thread
            // was faster.
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(source) => return Err(unloaded(source)),
        }
        std::mem::forget(module.clone());
        Ok(self.module.get_or_init(|| module))
    }

    fn session(&self) -> Result<Session, TokenError> {
        let module = self.module()?;
        let slot = self.slot(module)?;
        let session = module.open_ro_session(slot).map_err(self.failed())?;
        match session.login(UserType::User, Some(&self.pin)) {
            // One login counts for all sessions of a process.
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinLenRange
                | RvError::PinLocked
                | RvError::PinInvalid,
                _,
            )) => Err(TokenError::Pin { token: self.token.token.clone() }),
            Err(source) => Err(self.failed()(source)),
        }
    }

    /// The one object of that class with the label and id of the key.
    fn object(
        &self,
        session: &Session,
        class: ObjectClass,
        name: &'static str,
    ) -> Result<ObjectHandle, TokenError> {
        let mut template = vec![Attribute::Class(class)];
        template.extend(self.token.label.iter().map(|it| Attribute::Label(it.clone().into())));
        let id = self.token.id.as_deref().and_then(id_bytes);
        template.extend(id.map(Attribute::Id));
        let found = session.find_objects(&template).map_err(self.failed())?;
        let token = || self.token.token.clone();
        let [object] = *found else {
            return Err(TokenError::Keys { token: token(), class: name, count: found.len() });
        };
        let kind = session.get_attributes(object, &[AttributeType::KeyType]);
        match kind.map_err(self.failed())?.as_slice() {
            [Attribute::KeyType(KeyType::EC_EDWARDS)] => Ok(object),
            _ => Err(TokenError::Kind { token: token() }),
        }
    }

    fn reach(&self) -> Result<Seat, TokenError> {
        let session = self.session()?;
        let key = self.object(&session, ObjectClass::PRIVATE_KEY, "private")?;
        Ok(Seat { session, key })
    }

    fn sign(&self, seat: &Seat, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], TokenError> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        let signed = seat.session.sign(&mechanism, seat.key, message).map_err(self.failed())?;
        signed.try_into().map_err(|_length| TokenError::Kind { token: self.token.token.clone() })
    }

    fn public_key(&self) -> Result<VerifyingKey, TokenError> {
        let session = self.session()?;
        let object = self.object(&session, ObjectClass::PUBLIC_KEY, "public")?;
        let found = session.get_attributes(object, &[AttributeType::EcPoint]);
        let kind = || TokenError::Kind { token: self.token.token.clone() };
        let found = found.map_err(self.failed())?;
        let [Attribute::EcPoint(point)] = found.as_slice() else { return Err(kind()) };
        let bytes = match point.strip_prefix(&POINT_HEAD) {
            Some(bytes) if bytes.len() == PUBLIC_BYTES => bytes,
            _ => point,
        };
        VerifyingKey::from_bytes(bytes).map_err(|_point| kind())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_hangs_is_waited_for_once() {
        let (jobs, queue) = bounded(QUEUE);
        let (alive, ended) = mpsc::channel();
        let is_stuck = Arc::new(AtomicBool::new(false));
        let (threads, ended) = (Vec::new(), Mutex::new(ended));
        let desk = Desk { jobs, is_stuck: Arc::clone(&is_stuck), threads, ended };
        // Nobody serves: the first waits, and none behind it.
        assert_eq!(desk.ask(b"first"), Err(KeyError::Elsewhere));
        assert!(is_stuck.load(Ordering::Relaxed));
        for _ in 1..QUEUE {
            assert_eq!(desk.ask(b"more"), Err(KeyError::Elsewhere));
        }
        assert_eq!(queue.len(), QUEUE, "they stay queued, so that an answer tells of itself");
        assert_eq!(desk.ask(b"too many"), Err(KeyError::Elsewhere));
        assert_eq!(queue.len(), QUEUE, "but no more than these");
        drop(alive);
    }
}
