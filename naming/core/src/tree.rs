//! The tree of names: an ordered map in which a context is followed by everything below it.
//!
//! It decides where a name stands, what is directly below a context and where a walk through links ends.
//! It knows nothing of groups. Invariant: the root is there, and the parent of every other name is there
//! and is a context.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use daymark_naming_proto::{Binding, Components, Name, Object, Revision};
use imbl::OrdMap;

/// Bindings by name. A clone is O(1).
#[derive(Clone)]
pub(crate) struct Tree(OrdMap<Name, Arc<Binding>>);

impl Tree {
    /// A tree of the root context alone.
    pub(crate) fn new() -> Self {
        let root = Binding {
            name: Name::root(),
            object: Object::Context,
            attributes: daymark_naming_proto::Attributes::new(),
            created: Revision(0),
            revision: Revision(0),
            owner: None,
        };
        Self(OrdMap::unit(Name::root(), Arc::new(root)))
    }

    /// How many names are bound, the root not counted.
    pub(crate) fn len(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    pub(crate) fn find(&self, name: &Name) -> Option<&Arc<Binding>> {
        if name.is_root() {
            // It sorts before every other name, and nothing is compared on the way to it.
            return self.0.get_min().map(|(_, root)| root);
        }
        self.0.get(name)
    }

    pub(crate) fn insert(&mut self, binding: Arc<Binding>) {
        self.0.insert(binding.name.clone(), binding);
    }

    pub(crate) fn remove(&mut self, name: &Name) {
        self.0.remove(name);
    }

    /// The binding of the longest beginning of `name` that is bound, with its number of components.
    /// `None` only where not even the root is there.
    pub(crate) fn deepest(&self, name: &Name) -> Option<(&Arc<Binding>, usize)> {
        if let Some(binding) = self.find(name) {
            return Some((binding, name.components().len()));
        }
        let mut above = name.parent();
        while let Some(place) = above {
            if let Some(binding) = self.find(&place) {
                return Some((binding, place.components().len()));
            }
            above = place.parent();
        }
        None
    }

    /// Whether nothing is bound below `name`.
    pub(crate) fn is_empty_below(&self, name: &Name) -> bool {
        self.after(name)
            .next()
            .is_none_or(|binding| !binding.name.starts_with(name))
    }

    /// Everything that sorts after `name`.
    pub(crate) fn after(&self, name: &Name) -> impl Iterator<Item = &Arc<Binding>> {
        let range = (Bound::Excluded(name), Bound::Unbounded);
        self.0.range::<_, Name>(range).map(|(_, binding)| binding)
    }

    /// `name`, if it is bound, and everything below it, sorted.
    pub(crate) fn subtree<'a>(&'a self, name: &'a Name) -> impl Iterator<Item = &'a Arc<Binding>> {
        let range = (Bound::Included(name), Bound::Unbounded);
        let from = self.0.range::<_, Name>(range).map(|(_, binding)| binding);
        from.take_while(move |binding| binding.name.starts_with(name))
    }

    /// What stands directly below `name`, sorted; with `last`, what follows this child. Costs a seek for each
    /// child that has names below it, not a step for each of those names.
    pub(crate) fn children<'a>(&'a self, name: &'a Name, last: Option<&Name>) -> Children<'a> {
        let start = Point {
            components: last.unwrap_or(name).components(),
            is_past: last.is_some(),
        };
        let range = (Bound::Excluded(&start as &dyn Place), Bound::Unbounded);
        Children {
            tree: self,
            above: name,
            rest: self.0.range::<_, dyn Place>(range),
        }
    }
}

/// The children of one context, in order.
pub(crate) struct Children<'a> {
    tree: &'a Tree,
    above: &'a Name,
    rest: imbl::ordmap::RangedIter<'a, Name, Arc<Binding>, imbl::shared_ptr::DefaultSharedPtr>,
}

impl<'a> Iterator for Children<'a> {
    type Item = &'a Arc<Binding>;

    fn next(&mut self) -> Option<Self::Item> {
        let depth = self.above.components().len() + 1;
        let (mut name, mut binding) = self.rest.next()?;
        if name.components().len() > depth {
            // The child before this name has names below it: go on behind the last of them.
            let child = name.prefix(depth);
            let point = Point {
                components: child.components(),
                is_past: true,
            };
            let range = (Bound::Excluded(&point as &dyn Place), Bound::Unbounded);
            self.rest = self.tree.0.range::<_, dyn Place>(range);
            (name, binding) = self.rest.next()?;
        }
        name.starts_with(self.above).then_some(binding)
    }
}

/// A place in the order of names: a name, or the gap behind everything below a name.
trait Place {
    fn components(&self) -> Components<'_>;
    /// Whether it is the gap behind everything below the name.
    fn is_past(&self) -> bool;
}

/// A place that borrows its components.
struct Point<'a> {
    components: Components<'a>,
    is_past: bool,
}

impl Place for Point<'_> {
    fn components(&self) -> Components<'_> {
        self.components.clone()
    }

    fn is_past(&self) -> bool {
        self.is_past
    }
}

impl Place for Name {
    fn components(&self) -> Components<'_> {
        self.components()
    }

    fn is_past(&self) -> bool {
        false
    }
}

impl<'a> Borrow<dyn Place + 'a> for Name {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let (mut mine, mut theirs) = (self.components(), other.components());
        loop {
            match (mine.next(), theirs.next()) {
                (Some(mine), Some(theirs)) if mine == theirs => {}
                (Some(mine), Some(theirs)) => return mine.cmp(theirs),
                // The gap behind a name lies behind everything below it.
                (None, Some(_)) if self.is_past() => return Ordering::Greater,
                (None, Some(_)) => return Ordering::Less,
                (Some(_), None) if other.is_past() => return Ordering::Less,
                (Some(_), None) => return Ordering::Greater,
                (None, None) => return self.is_past().cmp(&other.is_past()),
            }
        }
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for dyn Place + '_ {}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    #[test]
    fn the_gap_behind_a_name_lies_after_everything_below_it_and_before_what_follows() {
        let (a, deep) = (name("a"), name("a/b"));
        let [behind_a, behind_deep] = [&a, &deep].map(|name| Point {
            components: name.components(),
            is_past: true,
        });
        let order: [&dyn Place; 7] = [
            &name(""),
            &a,
            &deep,
            &behind_deep,
            &behind_a,
            &name("a "),
            &name("b"),
        ];
        for (i, left) in order.iter().enumerate() {
            for (j, right) in order.iter().enumerate() {
                assert_eq!(left.cmp(right), i.cmp(&j), "{i} and {j}");
            }
        }
    }
}
