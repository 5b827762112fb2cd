//! What the hand-written gradients of all families share.

/// Registers `gradient` for the parent, if that requires one.
macro_rules! give {
    ($grads:expr, $parent:expr, $gradient:expr) => {
        if let Some(parent) = $parent {
            $grads.register::<B>(parent.id, $gradient);
        }
    };
}
