//! Sets of request methods, as bits of one word.
//!
//! The table numbers the methods that the routes name; a request's method is looked up in it once per request.

use http::{HeaderValue, Method};

/// The methods that the routes of one router name, each with its bit.
#[derive(Debug)]
pub(super) struct MethodTable {
    methods: Vec<Method>,
}

/// Some of the methods of a [`MethodTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct MethodSet(u64);

impl MethodTable {
    /// How many different methods the routes may name, the standard ones included.
    pub(super) const MAX: usize = 63;

    /// The methods that routes commonly name, the commonest first.
    pub(super) fn new() -> Self {
        let standard =
            [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
        Self { methods: standard.to_vec() }
    }

    /// The method's set, numbered if it is new; `None` when there are more than [`MethodTable::MAX`].
    pub(super) fn insert(&mut self, method: &Method) -> Option<MethodSet> {
        let known = self.of(method);
        if known.is_empty() && self.methods.len() < Self::MAX {
            self.methods.push(method.clone());
            return Some(self.of(method));
        }
        (!known.is_empty()).then_some(known)
    }

    /// The set of this method alone; empty when no route names it.
    pub(super) fn of(&self, method: &Method) -> MethodSet {
        match self.methods.iter().position(|known| known == method) {
            Some(bit) => MethodSet(1 << bit),
            None => MethodSet(0),
        }
    }

    fn iter(&self, set: MethodSet) -> impl Iterator<Item = &Method> {
        self.methods.iter().enumerate().filter(move |(bit, _)| set.0 & 1 << bit != 0).map(|(_, method)| method)
    }
}

impl MethodSet {
    /// Every method, also those that no route names.
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it has any of `methods`; the set of all has those that no table knows, too.
    pub(super) const fn has(self, methods: Self) -> bool {
        self.0 == Self::ALL.0 || self.0 & methods.0 != 0
    }
}

/// The methods that would have matched, for the `Allow` field of a 405 (RFC 9110 §15.5.6).
#[derive(Debug, Clone, Copy)]
pub struct Allow<'r> {
    pub(super) table: &'r MethodTable,
    pub(super) set: MethodSet,
}

impl<'r> Allow<'r> {
    /// The methods, in an order that does not depend on the routes' order.
    pub fn iter(self) -> impl Iterator<Item = &'r Method> {
        let mut methods: Vec<&Method> = self.table.iter(self.set).collect();
        methods.sort_unstable_by_key(|method| method.as_str());
        methods.into_iter()
    }

    /// The value of the `Allow` field.
    #[must_use]
    pub fn header_value(self) -> HeaderValue {
        let list = self.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
        // methods are tokens (RFC 9110 §9.1), so that they always make a field value
        HeaderValue::from_str(&list).unwrap_or(HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_bounded_and_unknown_methods_are_in_no_set_but_all() {
        let mut table = MethodTable::new();
        let named: Vec<_> = (0..MethodTable::MAX)
            .map(|n| table.insert(&Method::from_bytes(format!("M{n}").as_bytes()).expect("a token")))
            .collect();
        assert_eq!(named.iter().flatten().count(), MethodTable::MAX - 7);
        assert!(named.last().is_some_and(Option::is_none));
        let get = table.of(&Method::GET);
        assert!(table.of(&Method::TRACE).is_empty() && !get.is_empty());
        assert!(get.has(get) && !get.has(table.of(&Method::TRACE)));
        assert!(MethodSet::ALL.has(get) && MethodSet::ALL.has(table.of(&Method::TRACE)));
    }

    #[test]
    fn allow_lists_the_methods_in_alphabetical_order() {
        let table = MethodTable::new();
        let set = table.of(&Method::PUT).with(table.of(&Method::GET)).with(table.of(&Method::DELETE));
        assert_eq!(Allow { table: &table, set }.header_value(), "DELETE, GET, PUT");
    }
}
