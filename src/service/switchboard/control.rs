//! Call control: what the REST API asks of the switchboard.

use async_trait::async_trait;

use super::{NewCall, TransferTarget};
use crate::drivers::signalling::{Traced, TrunkReport};
use aftertone_core::{
    call::{CallError, NewOperation},
    model::{Call, CallId, Operation, OperationId, Party, PromptSource, RejectReason},
};

/// Calls and their operations. A trait, so that the tests of the API need no sockets.
///
/// A method that concerns a call takes the name of an application; a call of another application
/// is not found.
#[async_trait]
pub trait CallControl: Send + Sync + 'static {
    /// The application's calls that have not ended.
    async fn calls(&self, application: &str) -> Result<Vec<Call>, CallError>;

    /// One of the application's calls.
    ///
    /// # Errors
    /// The call does not exist, belongs to another application, or is over.
    async fn call(&self, application: &str, id: CallId) -> Result<Call, CallError>;

    /// Places a call for an application. When this returns, the call's row and first notification
    /// are committed.
    ///
    /// # Errors
    /// No trunk allows the target, or a limit is reached. Nothing was done.
    async fn place(&self, application: &str, new: NewCall) -> Result<Call, CallError>;

    /// Answers an incoming call. The prompts in `prefetch` are fetched meanwhile. Later
    /// notifications go to `callback_uri`, or to the application's own callback when absent.
    ///
    /// # Errors
    /// The call does not exist, or was answered already.
    async fn answer(
        &self,
        application: &str,
        id: CallId,
        callback_uri: Option<String>,
        media_config: Option<String>,
        prefetch: Vec<PromptSource>,
    ) -> Result<(), CallError>;

    /// Rejects an incoming call. Later notifications go to `callback_uri`, if there is one.
    ///
    /// # Errors
    /// The call does not exist, or was answered already.
    async fn reject(
        &self,
        application: &str,
        id: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> Result<(), CallError>;

    /// Redirects an incoming caller to another target. The caller places the new call itself, so no
    /// trunk has to allow the target. A telephone number is put at the host of the caller's own
    /// URI. The last notification goes to `callback_uri`, if there is one.
    ///
    /// # Errors
    /// The call does not exist or was answered already, or the target cannot be named to a peer.
    async fn redirect(
        &self,
        application: &str,
        id: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> Result<(), CallError>;

    /// Ends a call in any state for an application.
    ///
    /// # Errors
    /// The call does not exist or is already ending.
    async fn hang_up(&self, application: &str, id: CallId) -> Result<(), CallError>;

    /// Asks the peer by REFER to talk to another party.
    ///
    /// # Errors
    /// The call does not exist or is not established, no trunk allows the target, or the other call
    /// belongs to another application or is not established.
    async fn transfer(
        &self,
        application: &str,
        id: CallId,
        to: TransferTarget,
    ) -> Result<(), CallError>;

    /// Renews the lease of the call.
    ///
    /// # Errors
    /// The call does not exist or is over.
    async fn keep_alive(&self, application: &str, id: CallId) -> Result<(), CallError>;

    /// Accepts an operation. When this returns, the operation is committed, and the file of a
    /// recording is open.
    ///
    /// # Errors
    /// The call's state does not allow the operation, or the disk cannot take a recording. Nothing
    /// was done.
    async fn submit(
        &self,
        application: &str,
        id: CallId,
        new: NewOperation,
    ) -> Result<Operation, CallError>;

    /// All operations of a call, in the order in which they were accepted.
    ///
    /// # Errors
    /// The call does not exist or is over.
    async fn operations(&self, application: &str, id: CallId) -> Result<Vec<Operation>, CallError>;

    /// One operation of a call.
    ///
    /// # Errors
    /// The call or the operation does not exist, or the call is over.
    async fn operation(
        &self,
        application: &str,
        id: CallId,
        operation: OperationId,
    ) -> Result<Operation, CallError> {
        let all = self.operations(application, id).await?;
        all.into_iter().find(|known| known.id == operation).ok_or(CallError::NotFound)
    }

    /// The last SIP messages of one of the application's calls. Works for an ended call as long as
    /// its messages are kept.
    ///
    /// # Errors
    /// The call does not exist or belongs to another application.
    async fn trace(&self, application: &str, id: CallId) -> Result<Vec<Traced>, CallError>;

    /// Checks whether a new call would be accepted now.
    ///
    /// # Errors
    /// The reason why not, in words.
    async fn ready(&self) -> Result<(), String>;

    /// The state of the trunks that we register at.
    async fn trunks(&self) -> Vec<TrunkReport>;
}
