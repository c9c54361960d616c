//! Names from the configuration, as types of their own, so that a route's name is never taken for an upstream's.

use std::fmt;
use std::sync::Arc;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as the operator wrote it (or as it was derived when none was written).
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<Arc<str>>> From<T> for $name {
            fn from(name: T) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type! {
    /// Names a `[[route]]`.
    RouteName
}
name_type! {
    /// Names an `[upstream.NAME]`, or an inline upstream by its URL.
    UpstreamName
}
name_type! {
    /// Names a rate limit: `NAME` of a named one, `NAME@ROUTE` of a route's own.
    LimitName
}
name_type! {
    /// Names a `[[listener]]`.
    ListenerName
}
