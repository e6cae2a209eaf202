//! [`Line`]: whose turn it is. No clock, no waiting.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use chiral_core::{Priority, TransferId};

/// Where a member of a [`Line`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It has its turn.
    Running,
    /// It waits for its turn.
    Waiting,
    /// It stepped aside: it neither has nor wants a turn.
    Aside,
}

#[derive(Debug)]
struct Member {
    priority: Priority,
    /// Which one it is to have come: kept when it steps aside, so that it comes back to where
    /// it was.
    number: u64,
    place: Place,
}

impl Member {
    fn key(&self, id: TransferId) -> Key {
        (Reverse(self.priority), self.number, id)
    }
}

/// Somebody has a turn from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who.
    pub id: TransferId,
    /// Who has none any more for it, and waits again.
    pub instead_of: Option<TransferId>,
}

/// How a line is sorted: the most important first, of those that matter as much whoever came
/// first.
type Key = (Reverse<Priority>, u64, TransferId);

/// Lets a limited number have their turn at once: the most important first, of those that
/// matter as much whoever came first. Who matters more than somebody who has a turn takes it,
/// from the last one of those who matter least; that one goes back to where it was in the
/// line. Whoever matters as much as those who wait keeps its turn, also when the number is made
/// smaller.
#[derive(Debug, Default)]
pub struct Line {
    max: Option<usize>,
    members: BTreeMap<TransferId, Member>,
    waiting: BTreeSet<Key>,
    running: BTreeSet<Key>,
    next: u64,
}

impl Line {
    /// A line in which everybody has a turn at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many may have their turn at once; at least one always may.
    pub fn set_max(&mut self, max: Option<usize>) {
        self.max = max.map(|max| max.max(1));
    }

    /// How many may have their turn at once.
    pub fn max(&self) -> Option<usize> {
        self.max
    }

    /// Somebody comes and waits. Nothing happens if it is there already.
    pub fn enter(&mut self, id: TransferId, priority: Priority) {
        if self.members.contains_key(&id) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let member = Member {
            priority,
            number,
            place: Place::Waiting,
        };
        self.waiting.insert(member.key(id));
        self.members.insert(id, member);
    }

    /// Somebody goes.
    pub fn leave(&mut self, id: TransferId) {
        self.step_aside(id);
        self.members.remove(&id);
    }

    /// Somebody gives its turn, or its wish for one, to others.
    pub fn step_aside(&mut self, id: TransferId) {
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        member.place = Place::Aside;
        let key = member.key(id);
        self.running.remove(&key);
        self.waiting.remove(&key);
    }

    /// Somebody who stepped aside wants a turn again.
    pub fn step_back(&mut self, id: TransferId) {
        if let Some(member) = self.members.get_mut(&id)
            && member.place == Place::Aside
        {
            member.place = Place::Waiting;
            self.waiting.insert(member.key(id));
        }
    }

    /// Changes how much somebody matters; false if it is not there.
    pub fn set_priority(&mut self, id: TransferId, priority: Priority) -> bool {
        let Some(member) = self.members.get_mut(&id) else {
            return false;
        };
        let old = member.key(id);
        member.priority = priority;
        for place in [&mut self.waiting, &mut self.running] {
            if place.remove(&old) {
                place.insert(member.key(id));
            }
        }
        true
    }

    /// The next one to have its turn, if there is room for it or it matters more than one that
    /// has its turn; it has it from now on.
    pub fn admit(&mut self) -> Option<Admitted> {
        let &first = self.waiting.first()?;
        let mut instead_of = None;
        if self.max.is_some_and(|max| self.running.len() >= max) {
            let &last = self.running.last()?;
            // Reversed: what is greater matters less.
            if last.0 <= first.0 {
                return None;
            }
            self.running.remove(&last);
            self.waiting.insert(last);
            instead_of = Some(last.2);
            self.put(last.2, Place::Waiting);
        }
        self.waiting.remove(&first);
        self.running.insert(first);
        self.put(first.2, Place::Running);
        let id = first.2;
        Some(Admitted { id, instead_of })
    }

    fn put(&mut self, id: TransferId, place: Place) {
        if let Some(member) = self.members.get_mut(&id) {
            member.place = place;
        }
    }

    /// Where somebody stands.
    pub fn place(&self, id: TransferId) -> Option<Place> {
        self.members.get(&id).map(|member| member.place)
    }

    /// How much somebody matters.
    pub fn priority(&self, id: TransferId) -> Option<Priority> {
        self.members.get(&id).map(|member| member.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u8) -> TransferId {
        TransferId::from_bytes([n; 16])
    }

    fn admitted(line: &mut Line) -> Vec<TransferId> {
        std::iter::from_fn(|| line.admit())
            .map(|admitted| {
                assert_eq!(admitted.instead_of, None);
                admitted.id
            })
            .collect()
    }

    #[test]
    fn the_most_important_first_and_of_equals_whoever_came_first() {
        let mut line = Line::new();
        line.set_max(Some(1));
        for (n, priority) in [
            (1, Priority::Low),
            (2, Priority::Normal),
            (3, Priority::High),
            (4, Priority::Normal),
        ] {
            line.enter(id(n), priority);
        }
        let mut order = Vec::new();
        while let Some(next) = line.admit() {
            assert_eq!(line.admit(), None);
            order.push(next.id);
            line.leave(next.id);
        }
        assert_eq!(order, [3, 2, 4, 1].map(id));
    }

    #[test]
    fn a_smaller_number_takes_nobodys_turn_and_priorities_change_while_waiting() {
        let mut line = Line::new();
        line.set_max(Some(2));
        for n in 1..=4 {
            line.enter(id(n), Priority::High);
        }
        assert_eq!(admitted(&mut line), [1, 2].map(id));
        assert!(line.set_priority(id(3), Priority::Normal));
        assert!(!line.set_priority(id(9), Priority::High));
        line.set_max(Some(1));
        assert_eq!(admitted(&mut line), []);
        assert_eq!(line.place(id(2)), Some(Place::Running));
        line.leave(id(1));
        assert_eq!(admitted(&mut line), []);
        line.leave(id(2));
        assert_eq!(admitted(&mut line), [id(4)]);
        line.set_max(None);
        assert_eq!(admitted(&mut line), [id(3)]);
    }

    #[test]
    fn who_matters_more_takes_the_turn_of_the_last_of_those_who_matter_least() {
        let mut line = Line::new();
        line.set_max(Some(3));
        for (n, priority) in [
            (1, Priority::Normal),
            (2, Priority::Low),
            (3, Priority::Low),
            (4, Priority::Low),
        ] {
            line.enter(id(n), priority);
        }
        assert_eq!(admitted(&mut line), [1, 2, 3].map(id));
        let swapped = |one: u8, other: u8| {
            let (id, instead_of) = (id(one), Some(id(other)));
            Some(Admitted { id, instead_of })
        };
        line.enter(id(5), Priority::High);
        assert_eq!(line.admit(), swapped(5, 3));
        assert_eq!(line.admit(), None);
        assert_eq!(line.place(id(3)), Some(Place::Waiting));
        // Also by a change; and it comes back before those that came later.
        assert!(line.set_priority(id(4), Priority::Normal));
        assert_eq!(line.admit(), swapped(4, 2));
        assert!(line.set_priority(id(4), Priority::Low));
        assert_eq!(line.admit(), None, "as much is not more");
        assert!(line.set_priority(id(2), Priority::Normal));
        assert_eq!(line.admit(), swapped(2, 4));
        line.leave(id(5));
        assert_eq!(admitted(&mut line), [id(3)]);
        // One that has its turn and matters less than before gives it to those who wait.
        line.enter(id(6), Priority::Normal);
        assert_eq!(line.admit(), swapped(6, 3));
        assert!(line.set_priority(id(1), Priority::Low));
        assert_eq!(line.admit(), None);
        line.enter(id(7), Priority::Normal);
        assert_eq!(line.admit(), swapped(7, 1));
    }

    #[test]
    fn one_that_steps_aside_gives_its_turn_and_comes_back_to_where_it_was() {
        let mut line = Line::new();
        line.set_max(Some(1));
        for n in 1..=3 {
            line.enter(id(n), Priority::Normal);
        }
        assert_eq!(admitted(&mut line), [id(1)]);
        line.step_aside(id(1));
        line.step_aside(id(1));
        assert_eq!(admitted(&mut line), [id(2)]);
        line.step_back(id(1));
        line.step_back(id(1));
        assert_eq!(line.place(id(1)), Some(Place::Waiting));
        line.leave(id(2));
        assert_eq!(admitted(&mut line), [id(1)]);
        line.step_aside(id(3));
        line.leave(id(1));
        assert_eq!(admitted(&mut line), []);
    }

    proptest! {
        #[test]
        fn never_too_many_and_room_is_never_left(
            max in 0..4usize,
            steps in proptest::collection::vec((0..6u8, 0..8u8, 0..3u8), 0..200),
        ) {
            let mut line = Line::new();
            line.set_max(Some(max));
            for (step, n, priority) in steps {
                let priorities = [Priority::Low, Priority::Normal, Priority::High];
                let priority = priorities[usize::from(priority)];
                match step {
                    0 | 1 => line.enter(id(n), priority),
                    2 => line.leave(id(n)),
                    3 => line.step_aside(id(n)),
                    4 => line.step_back(id(n)),
                    _ => { line.set_priority(id(n), priority); }
                }
                let mut changes = 0;
                while line.admit().is_some() {
                    changes += 1;
                    prop_assert!(changes <= 8, "it goes round in circles");
                }
                let line = &line;
                let at = |place| (0..8).filter(move |n| line.place(id(*n)) == Some(place));
                let (running, waiting) = (at(Place::Running).count(), at(Place::Waiting).count());
                // Nobody waits who matters more than somebody who does not.
                let matters = |n| line.priority(id(n));
                let least = at(Place::Running).filter_map(matters).min();
                let most = at(Place::Waiting).filter_map(matters).max();
                prop_assert!(most <= least || waiting == 0);
                prop_assert!(running <= max.max(1));
                prop_assert!(waiting == 0 || running == max.max(1));
                prop_assert_eq!((running, waiting), (line.running.len(), line.waiting.len()));
            }
        }
    }
}
