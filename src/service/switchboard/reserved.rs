//! A place in the registry for a dialog that is not up yet.

use aftertone_core::proto::sip::endpoint::DialogId;

/// The registry's entry of a dialog that a call is about to get. Unless it is kept, the entry is
/// removed when this value is dropped.
pub(super) struct Reserved {
    dialog: DialogId,
    remove: Option<Box<dyn FnOnce() + Send>>,
}

impl Reserved {
    /// For the entry of `dialog`, which `remove` removes.
    pub(super) fn new(dialog: DialogId, remove: impl FnOnce() + Send + 'static) -> Self {
        Self { dialog, remove: Some(Box::new(remove)) }
    }

    /// The dialog.
    pub(super) fn dialog(&self) -> DialogId {
        self.dialog
    }

    /// The call has the dialog now: the entry goes with the last event of the dialog.
    pub(super) fn keep(mut self) {
        self.remove = None;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(remove) = self.remove.take() {
            remove();
        }
    }
}

impl std::fmt::Debug for Reserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reserved").field(&self.dialog).finish()
    }
}
