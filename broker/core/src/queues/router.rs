//! Which subscriptions a topic has.
//!
//! Topics are words separated by `.`. In a pattern `*` stands for one word and `#` for any number of words,
//! none included. The patterns form a tree of words, and a topic walks it with a set of places, so that no
//! pattern makes the walk take more than words times places.

use std::collections::{BTreeMap, BTreeSet};

const ROOT: usize = 0;

/// Longest topic or pattern, in bytes.
pub(super) const MAX_TOPIC_BYTES: usize = 1_024;
/// Most words in one.
pub(super) const MAX_TOPIC_WORDS: usize = 64;

#[derive(Debug, Default)]
struct Node {
    words: BTreeMap<Box<str>, usize>,
    one: Option<usize>,
    many: Option<usize>,
    /// It stands for any number of words.
    is_many: bool,
    here: BTreeSet<u32>,
}

/// All patterns.
#[derive(Debug)]
pub(super) struct Router {
    nodes: Vec<Node>,
    free: Vec<usize>,
    /// Changes with every pattern, so that what was looked up before can be told from what holds.
    version: u64,
}

impl Default for Router {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
            version: 1,
        }
    }
}

/// Says what is wrong with a topic, if anything is; patterns may hold wildcards.
pub(super) fn check(topic: &str, pattern: bool) -> Result<(), &'static str> {
    if topic.is_empty() {
        return Err("it is empty");
    }
    if topic.len() > MAX_TOPIC_BYTES {
        return Err("it is longer than 1,024 bytes");
    }
    if topic.split('.').count() > MAX_TOPIC_WORDS {
        return Err("it has more than 64 words");
    }
    if !pattern && topic.split('.').any(|word| word == "*" || word == "#") {
        return Err("it holds a wildcard");
    }
    Ok(())
}

impl Router {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn insert(&mut self, pattern: &str, subscription: u32) {
        self.version += 1;
        let mut at = ROOT;
        for word in pattern.split('.') {
            at = self.child(at, word).unwrap_or_else(|| self.grow(at, word));
        }
        self.nodes[at].here.insert(subscription);
    }

    fn child(&self, at: usize, word: &str) -> Option<usize> {
        let node = &self.nodes[at];
        match word {
            "*" => node.one,
            "#" => node.many,
            word => node.words.get(word).copied(),
        }
    }

    fn grow(&mut self, at: usize, word: &str) -> usize {
        let new = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            self.nodes.len() - 1
        });
        self.nodes[new].is_many = word == "#";
        let node = &mut self.nodes[at];
        match word {
            "*" => node.one = Some(new),
            "#" => node.many = Some(new),
            word => {
                node.words.insert(word.into(), new);
            }
        }
        new
    }

    pub(super) fn remove(&mut self, pattern: &str, subscription: u32) {
        self.version += 1;
        let mut path = vec![ROOT];
        for word in pattern.split('.') {
            let Some(next) = path.last().and_then(|&at| self.child(at, word)) else {
                return;
            };
            path.push(next);
        }
        if let Some(&last) = path.last() {
            self.nodes[last].here.remove(&subscription);
        }
        let words: Vec<&str> = pattern.split('.').collect();
        for depth in (1..path.len()).rev() {
            if !self.nodes[path[depth]].is_bare() {
                return;
            }
            let parent = &mut self.nodes[path[depth - 1]];
            match words[depth - 1] {
                "*" => parent.one = None,
                "#" => parent.many = None,
                word => {
                    parent.words.remove(word);
                }
            }
            self.nodes[path[depth]] = Node::default();
            self.free.push(path[depth]);
        }
    }

    /// The subscriptions whose pattern matches, each once, in a fixed order.
    pub(super) fn find(&self, topic: &str) -> Vec<u32> {
        let mut places = BTreeSet::new();
        self.enter(ROOT, &mut places);
        for word in topic.split('.') {
            let mut next = BTreeSet::new();
            for place in places {
                let node = &self.nodes[place];
                if node.is_many {
                    self.enter(place, &mut next);
                }
                for child in [node.words.get(word).copied(), node.one].into_iter().flatten() {
                    self.enter(child, &mut next);
                }
            }
            places = next;
        }
        let found: BTreeSet<u32> = places
            .iter()
            .flat_map(|&place| self.nodes[place].here.iter().copied())
            .collect();
        found.into_iter().collect()
    }

    /// Reaches a node and, as `#` may stand for nothing, what lies behind one.
    fn enter(&self, node: usize, places: &mut BTreeSet<usize>) {
        let mut at = Some(node);
        while let Some(node) = at {
            if !places.insert(node) {
                return;
            }
            at = self.nodes[node].many;
        }
    }
}

impl Node {
    fn is_bare(&self) -> bool {
        self.words.is_empty() && self.one.is_none() && self.many.is_none() && self.here.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The obvious and slow way.
    fn matches(pattern: &[&str], topic: &[&str]) -> bool {
        match pattern.split_first() {
            None => topic.is_empty(),
            Some((&"#", rest)) => (0..=topic.len()).any(|skip| matches(rest, &topic[skip..])),
            Some((&"*", rest)) => !topic.is_empty() && matches(rest, &topic[1..]),
            Some((word, rest)) => topic.first() == Some(word) && matches(rest, &topic[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_the_obvious_way_finds(
            patterns in prop::collection::vec("[ab*#](\\.[ab*#]){0,4}", 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            topic in "[abc](\\.[abc]){0,5}",
        ) {
            let mut router = Router::default();
            let mut left: BTreeMap<u32, &String> = (0..).zip(&patterns).collect();
            left.iter().for_each(|(&number, pattern)| router.insert(pattern, number));
            for index in removed {
                if !patterns.is_empty() {
                    let number = u32::try_from(index.index(patterns.len())).unwrap();
                    if let Some(pattern) = left.remove(&number) {
                        router.remove(pattern, number);
                    }
                }
            }
            let words: Vec<&str> = topic.split('.').collect();
            let expected: Vec<u32> = left
                .iter()
                .filter(|(_, pattern)| matches(&pattern.split('.').collect::<Vec<_>>(), &words))
                .map(|(number, _)| *number)
                .collect();
            prop_assert_eq!(router.find(&topic), expected);
            left.iter().for_each(|(&number, pattern)| router.remove(pattern, number));
            prop_assert_eq!(router.nodes.len() - router.free.len(), 1);
        }
    }

    #[test]
    fn a_topic_holds_no_wildcard_and_a_pattern_may() {
        assert_eq!(check("a.*", false), Err("it holds a wildcard"));
        assert_eq!(check("a.*", true), Ok(()));
        assert_eq!(check("", true), Err("it is empty"));
        assert_eq!(check(&"a.".repeat(64), true), Err("it has more than 64 words"));
    }
}
