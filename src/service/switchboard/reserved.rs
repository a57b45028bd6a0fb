//! A reserved entry in the registry for a dialog that is not established yet.

use aftertone_core::proto::sip::endpoint::DialogId;

/// The registry's entry for a dialog that a call is about to get. The entry is removed when this
/// value is dropped, unless it is kept.
pub(super) struct Reserved {
    dialog: DialogId,
    remove: Option<Box<dyn FnOnce() + Send>>,
}

impl Reserved {
    /// Reserves the entry of `dialog`; `remove` removes it.
    pub(super) fn new(dialog: DialogId, remove: impl FnOnce() + Send + 'static) -> Self {
        Self { dialog, remove: Some(Box::new(remove)) }
    }

    /// Id of the dialog.
    pub(super) fn dialog(&self) -> DialogId {
        self.dialog
    }

    /// Keeps the entry, because the call now has the dialog. The last event of the dialog removes
    /// it.
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
