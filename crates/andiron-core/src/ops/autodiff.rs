//! Shared by the hand-written gradients of all families.

/// Registers `gradient` for the parent, if the parent requires one.
macro_rules! give {
    ($grads:expr, $parent:expr, $gradient:expr) => {
        if let Some(parent) = $parent {
            $grads.register::<B>(parent.id, $gradient);
        }
    };
}
