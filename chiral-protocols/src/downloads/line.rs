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

/// Lets a limited number have their turn at once: the most important first, of those that
/// matter as much whoever came first. Whoever has a turn keeps it, also when somebody comes
/// who matters more or when the number is made smaller.
#[derive(Debug, Default)]
pub struct Line {
    max: Option<usize>,
    members: BTreeMap<TransferId, Member>,
    waiting: BTreeSet<(Reverse<Priority>, u64, TransferId)>,
    running: usize,
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
        self.members.insert(
            id,
            Member {
                priority,
                number,
                place: Place::Waiting,
            },
        );
        self.waiting.insert((Reverse(priority), number, id));
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
        match std::mem::replace(&mut member.place, Place::Aside) {
            Place::Running => self.running -= 1,
            Place::Waiting => {
                let key = (Reverse(member.priority), member.number, id);
                self.waiting.remove(&key);
            }
            Place::Aside => {}
        }
    }

    /// Somebody who stepped aside wants a turn again.
    pub fn step_back(&mut self, id: TransferId) {
        if let Some(member) = self.members.get_mut(&id)
            && member.place == Place::Aside
        {
            member.place = Place::Waiting;
            let key = (Reverse(member.priority), member.number, id);
            self.waiting.insert(key);
        }
    }

    /// Changes how much somebody matters; false if it is not there.
    pub fn set_priority(&mut self, id: TransferId, priority: Priority) -> bool {
        let Some(member) = self.members.get_mut(&id) else {
            return false;
        };
        let old = (Reverse(member.priority), member.number, id);
        member.priority = priority;
        if self.waiting.remove(&old) {
            self.waiting.insert((Reverse(priority), member.number, id));
        }
        true
    }

    /// The next one to have its turn, if there is room; it has it from now on.
    pub fn admit(&mut self) -> Option<TransferId> {
        if self.max.is_some_and(|max| self.running >= max) {
            return None;
        }
        let (_, _, id) = self.waiting.pop_first()?;
        let member = self.members.get_mut(&id)?;
        member.place = Place::Running;
        self.running += 1;
        Some(id)
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
        std::iter::from_fn(|| line.admit()).collect()
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
            order.push(next);
            line.leave(next);
        }
        assert_eq!(order, [3, 2, 4, 1].map(id));
    }

    #[test]
    fn priorities_change_while_waiting_and_nobody_loses_a_turn() {
        let mut line = Line::new();
        line.set_max(Some(2));
        for n in 1..=4 {
            line.enter(id(n), Priority::Normal);
        }
        assert_eq!(admitted(&mut line), [1, 2].map(id));
        assert!(line.set_priority(id(4), Priority::High));
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
                while line.admit().is_some() {}
                let count = |place| {
                    (0..8).filter(|n| line.place(id(*n)) == Some(place)).count()
                };
                let (running, waiting) = (count(Place::Running), count(Place::Waiting));
                prop_assert!(running <= max.max(1));
                prop_assert!(waiting == 0 || running == max.max(1));
                prop_assert_eq!((running, waiting), (line.running, line.waiting.len()));
            }
        }
    }
}
