//! Multiples of points, computed once: with those of a key, a signature is checked in a third of
//! the time. Only keys whose signatures come again and again have them, and few at once.
//!
//! All of it takes as long as the numbers want: keys, signatures and digests are public.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use k256::elliptic_curve::BatchNormalize;
use k256::{AffinePoint, ProjectivePoint, Scalar};

/// Bits of a scalar that are looked up at once; a table has 118 KiB then.
const BITS: usize = 6;

/// Multiples of each power: a digit is at least `-HALF + 1` and at most `HALF`.
const HALF: usize = 1 << (BITS - 1);

/// Digits of a scalar. There are more bits in them than it has, so that nothing is carried out
/// of the last.
const DIGITS: usize = 256_usize.div_ceil(BITS);

/// Keys that have a table at once: less than a MiB.
const MAX_TABLES: usize = 8;

/// Checks after which a key gets one. To make it takes as long as a dozen checks save, and others
/// may have to go for it.
const WORTH_IT: u32 = 64;

/// Keys that are counted at once; of two in one place the later counts.
const COUNTED: usize = 64;

/// `digit · 2^(BITS · n)` times a point, for each place `n` and positive digit.
#[derive(Debug)]
pub(super) struct Table(Vec<AffinePoint>);

static GENERATOR: LazyLock<Table> = LazyLock::new(|| Table::new(&AffinePoint::GENERATOR));

impl Table {
    pub(super) fn new(point: &AffinePoint) -> Self {
        let mut multiples = Vec::with_capacity(DIGITS * HALF);
        let mut power = ProjectivePoint::from(*point);
        for _ in 0..DIGITS {
            let mut multiple = power;
            for _ in 0..HALF {
                multiples.push(multiple);
                multiple += power;
            }
            for _ in 0..BITS {
                power = power.double();
            }
        }
        Self(<ProjectivePoint as BatchNormalize<[_]>>::batch_normalize(
            &multiples[..],
        ))
    }

    /// Whose it is.
    fn point(&self) -> Option<&AffinePoint> {
        self.0.first()
    }

    /// Adds `scalar` times the point to `sum`.
    fn add_to(&self, mut sum: ProjectivePoint, scalar: &Scalar) -> ProjectivePoint {
        let mut carry = 0;
        let digits = digits(scalar);
        for (multiples, digit) in self.0.chunks_exact(HALF).zip(digits) {
            let digit = digit + carry;
            // The upper half is written as what is missing to the next place's one.
            let (negative, size) = match digit > HALF {
                true => (true, 2 * HALF - digit),
                false => (false, digit),
            };
            carry = usize::from(negative);
            let Some(multiple) = size.checked_sub(1).and_then(|at| multiples.get(at)) else {
                continue;
            };
            match negative {
                true => sum -= multiple,
                false => sum += multiple,
            }
        }
        sum
    }

    /// `of_generator` times the generator and `of_key` times the table's point.
    pub(super) fn sum(&self, of_generator: &Scalar, of_key: &Scalar) -> ProjectivePoint {
        self.add_to(
            GENERATOR.add_to(ProjectivePoint::IDENTITY, of_generator),
            of_key,
        )
    }
}

/// The digits of a scalar to the base `2^BITS`, the lowest first.
fn digits(scalar: &Scalar) -> impl Iterator<Item = usize> {
    let mut bytes = [0; 34];
    let big_endian = scalar.to_bytes();
    for (byte, of_scalar) in bytes.iter_mut().zip(big_endian.iter().rev()) {
        *byte = *of_scalar;
    }
    (0..DIGITS).map(move |place| {
        let (byte, bit) = (place * BITS / 8, place * BITS % 8);
        let two = usize::from(bytes[byte]) | usize::from(bytes[byte + 1]) << 8;
        (two >> bit) % (1 << BITS)
    })
}

/// The keys that have tables, and those that may get one.
#[derive(Debug, Default)]
struct Hot {
    /// The one that was used last is the last.
    tables: Vec<Arc<Table>>,
    counted: Vec<Option<(AffinePoint, u32)>>,
}

enum Found {
    Table(Arc<Table>),
    /// It is time to make one.
    WorthIt,
    Nothing,
}

impl Hot {
    /// The table of a key, which is looked for under a number that is as good as random.
    fn find(&mut self, key: &AffinePoint, number: usize) -> Found {
        let its = |table: &Arc<Table>| table.point() == Some(key);
        if let Some(at) = self.tables.iter().rposition(its) {
            self.tables[at..].rotate_left(1);
            return match self.tables.last() {
                Some(table) => Found::Table(table.clone()),
                None => Found::Nothing,
            };
        }
        self.counted.resize(COUNTED, None);
        let place = &mut self.counted[number % COUNTED];
        let before = place.filter(|(counted, _)| counted == key);
        let count = before.map_or(1, |(_, count)| count + 1);
        let worth_it = count >= WORTH_IT;
        *place = (!worth_it).then_some((*key, count));
        match worth_it {
            true => Found::WorthIt,
            false => Found::Nothing,
        }
    }

    /// Keeps a table; the one that was not used for longest makes room.
    fn keep(&mut self, table: Arc<Table>) {
        if self.tables.iter().any(|held| held.point() == table.point()) {
            return;
        }
        if self.tables.len() >= MAX_TABLES {
            self.tables.remove(0);
        }
        self.tables.push(table);
    }
}

static HOT: LazyLock<Mutex<Hot>> = LazyLock::new(Mutex::default);

fn hot() -> MutexGuard<'static, Hot> {
    // Whoever panicked with it left tables that are whole.
    HOT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The table of a key if its signatures come so often that it has one; made at the time when
/// that turns out. `number` is one that other keys are unlikely to have too.
pub(super) fn of(key: &AffinePoint, number: usize) -> Option<Arc<Table>> {
    let found = hot().find(key, number);
    match found {
        Found::Table(table) => Some(table),
        Found::WorthIt => {
            let table = Arc::new(Table::new(key));
            hot().keep(table.clone());
            Some(table)
        }
        Found::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k256::U256;
    use k256::elliptic_curve::ops::Reduce;
    use proptest::prelude::*;

    fn scalar(bytes: [u8; 32]) -> Scalar {
        <Scalar as Reduce<U256>>::reduce_bytes(&bytes.into())
    }

    fn key(number: u64) -> AffinePoint {
        (ProjectivePoint::GENERATOR * Scalar::from(number)).to_affine()
    }

    #[test]
    fn a_table_multiplies_at_the_edges() {
        let (table, point) = (Table::new(&key(7)), ProjectivePoint::from(key(7)));
        let powers = (0..256).map(|bit| {
            let mut bytes = [0; 32];
            bytes[31 - bit / 8] = 1 << (bit % 8);
            scalar(bytes)
        });
        let bytes = [0, 0x1f, 0x20, 0x55, 0x7f, 0x80, 0x82, 0xaa, 0xff].map(|b| scalar([b; 32]));
        let mut scalars: Vec<_> = powers.chain(bytes).collect();
        for scalar in scalars.clone() {
            scalars.extend([-scalar, scalar + Scalar::ONE, scalar - Scalar::ONE]);
        }
        for scalar in scalars {
            let product = table.add_to(ProjectivePoint::IDENTITY, &scalar);
            assert_eq!(product, point * scalar, "{scalar:?}");
            let nothing = table.add_to(point * -scalar, &scalar);
            assert_eq!(nothing, ProjectivePoint::IDENTITY);
        }
    }

    proptest! {
        #[test]
        fn sums_are_those_of_k256(a: [u8; 32], b: [u8; 32], secret in 1..u64::MAX) {
            let (a, b, key) = (scalar(a), scalar(b), key(secret));
            let expected = ProjectivePoint::GENERATOR * a + ProjectivePoint::from(key) * b;
            prop_assert_eq!(Table::new(&key).sum(&a, &b), expected);
        }
    }

    #[test]
    fn keys_that_come_often_have_tables_and_few_at_once() {
        let mut hot = Hot::default();
        let mut come = |key: u64, number: usize| {
            let key = self::key(key);
            match hot.find(&key, number) {
                Found::Table(table) => {
                    assert_eq!(table.point(), Some(&key), "no other key's");
                    true
                }
                Found::WorthIt => {
                    hot.keep(Arc::new(Table::new(&key)));
                    hot.keep(Arc::new(Table::new(&key)));
                    assert!(hot.tables.len() <= MAX_TABLES);
                    false
                }
                Found::Nothing => false,
            }
        };
        // Two in one place take the count from each other.
        for _ in 0..2 * WORTH_IT {
            assert!(!come(1, 5) && !come(2, 5 + COUNTED));
        }
        for _ in 0..WORTH_IT {
            assert!(!come(1, 5));
        }
        assert!(come(1, 5));
        let others = 2..2 + MAX_TABLES as u64;
        for key in others.clone() {
            for _ in 0..WORTH_IT {
                come(key, key as usize);
            }
        }
        assert!(others.into_iter().all(|key| come(key, key as usize)));
        assert!(!come(1, 5), "the one that was not used for longest went");
    }
}
