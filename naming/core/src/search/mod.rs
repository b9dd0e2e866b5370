//! Searching bindings by their attributes.
//!
//! A search reads one state of the directory, which it holds by itself: writes go on meanwhile. It is carried
//! out in portions, so that whoever runs it can look at a clock or serve others in between. Links are
//! followed to the base and not below it; exports that are withheld are not found.

mod matching;

use std::sync::Arc;

use daymark_naming_proto::{Binding, Found, Name, NamingError, Scope, Search};

use crate::directory::Directory;
use crate::limits::attribute_bytes;
use matching::Matcher;

/// The bytes of attributes that cost one step for each part of the filter.
const STEP_BYTES: u64 = 256;

/// A search under way.
pub struct SearchRun {
    directory: Directory,
    base: Arc<Binding>,
    scope: Scope,
    matcher: Matcher,
    size_limit: Option<u64>,
    ids: Option<Vec<String>>,
    /// The name examined last; `None` before the first one.
    last: Option<Name>,
    entries: Vec<Arc<Binding>>,
    stopped: Option<NamingError>,
    is_over: bool,
}

impl Directory {
    /// Begins a search. The time limit is for whoever runs it, who has a clock.
    ///
    /// # Errors
    /// As for `lookup` of the base.
    pub fn search(&self, name: &Name, search: &Search) -> Result<SearchRun, NamingError> {
        Ok(SearchRun {
            base: self.lookup(name)?,
            directory: self.clone(),
            scope: search.scope,
            matcher: Matcher::new(&search.filter),
            size_limit: search.size_limit.filter(|&limit| limit > 0),
            ids: search.ids.clone(),
            last: None,
            entries: Vec::new(),
            stopped: None,
            is_over: false,
        })
    }
}

impl SearchRun {
    /// Examines bindings for `steps` steps, and at least one. A binding costs a step for each part of the
    /// filter and each 256 bytes of its attributes. Says whether there is more to do.
    pub fn advance(&mut self, steps: u64) -> bool {
        let directory = self.directory.clone();
        let (base, last) = (Arc::clone(&self.base), self.last.take());
        let mut left = steps;
        for binding in names(&directory, &base, self.scope, last.as_ref()) {
            if !self.examine(binding) {
                break;
            }
            left = left.saturating_sub(self.cost(binding));
            if left == 0 {
                self.last = Some(binding.name.clone());
                return true;
            }
        }
        self.is_over = true;
        false
    }

    fn cost(&self, binding: &Binding) -> u64 {
        self.matcher.parts() * (1 + attribute_bytes(&binding.attributes) / STEP_BYTES)
    }

    /// Ends the search because its time is over, unless it is done.
    pub fn stop_for_time(&mut self, limit_ms: u64) {
        if !self.is_over {
            self.is_over = true;
            self.stopped = Some(NamingError::TimeLimitExceeded { limit_ms });
        }
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Found {
        Found {
            name: self.base.name.clone(),
            revision: self.directory.revision(),
            entries: self.entries,
            stopped: self.stopped,
        }
    }

    /// Takes a binding that matches. False where that is one too many.
    fn examine(&mut self, binding: &Arc<Binding>) -> bool {
        if !self.matcher.matches(binding) || self.directory.withheld(binding).is_some() {
            return true;
        }
        if let Some(limit) = self
            .size_limit
            .filter(|&limit| self.entries.len() as u64 >= limit)
        {
            self.stopped = Some(NamingError::SizeLimitExceeded { limit });
            return false;
        }
        let entry = match &self.ids {
            None => Arc::clone(binding),
            Some(ids) => {
                let attributes = binding.attributes.selected(ids);
                Arc::new(Binding {
                    attributes,
                    ..Binding::clone(binding)
                })
            }
        };
        self.entries.push(entry);
        true
    }
}

/// What a search examines, in order, behind `last`.
fn names<'a>(
    directory: &'a Directory,
    base: &'a Arc<Binding>,
    scope: Scope,
    last: Option<&'a Name>,
) -> Box<dyn Iterator<Item = &'a Arc<Binding>> + 'a> {
    let tree = &directory.tree;
    match (scope, last) {
        (Scope::Object, None) => Box::new(std::iter::once(base)),
        (Scope::Object, Some(_)) => Box::new(std::iter::empty()),
        (Scope::OneLevel, last) => Box::new(tree.children(&base.name, last)),
        (Scope::Subtree, None) => Box::new(tree.subtree(&base.name)),
        (Scope::Subtree, Some(last)) => {
            let rest = tree.after(last);
            Box::new(rest.take_while(move |binding| binding.name.starts_with(&base.name)))
        }
    }
}
