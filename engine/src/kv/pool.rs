//! The slots of a KV cache by reference count. A slot holds the keys and values of one token in every layer. Knows no
//! device memory, no token and no prefix.

use crate::error::EngineError;
use crate::kv::Slot;

/// Who may use which slot. A running call holds one reference to each slot it allocated, the prefix index one to each
/// slot of its entries; a slot is free when nobody holds it.
#[derive(Clone, Debug)]
pub struct SlotPool {
    /// References per slot; 0 is free.
    references: Vec<u32>,
    n_free: usize,
    /// No slot below this one is free.
    first_free: usize,
}

impl SlotPool {
    /// A pool of `n_slots` free slots, numbered from 0.
    pub fn new(n_slots: u32) -> Self {
        Self { references: vec![0; n_slots as usize], n_free: n_slots as usize, first_free: 0 }
    }

    /// Slots in all.
    pub fn n_slots(&self) -> usize {
        self.references.len()
    }

    /// Slots that nobody holds.
    pub const fn free_slots(&self) -> usize {
        self.n_free
    }

    /// Slots that somebody holds.
    pub fn used_slots(&self) -> usize {
        self.n_slots() - self.n_free
    }

    /// References to `slot`; 0 for a free slot and for one outside the pool.
    pub fn references(&self, slot: Slot) -> u32 {
        self.references.get(slot.0 as usize).copied().unwrap_or(0)
    }

    /// Takes the `n` lowest free slots, ascending, with one reference each; `None`, and nothing changed, if there are
    /// fewer.
    pub fn alloc(&mut self, n: usize) -> Option<Vec<Slot>> {
        if n > self.n_free {
            return None;
        }
        let mut taken = Vec::with_capacity(n);
        let mut at = self.first_free;
        while taken.len() < n {
            if self.references[at] == 0 {
                self.references[at] = 1;
                taken.push(Slot(at as u32));
            }
            at += 1;
        }
        self.n_free -= n;
        self.first_free = at;
        Some(taken)
    }

    /// Adds a reference to each of `slots`.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] at the first slot that is free or outside the pool.
    pub fn retain(&mut self, slots: &[Slot]) -> Result<(), EngineError> {
        for &slot in slots {
            *self.held(slot, "retain")? += 1;
        }
        Ok(())
    }

    /// Takes a reference from each of `slots`; those that nobody holds any more become free.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] at the first slot that is already free or outside the pool.
    pub fn release(&mut self, slots: &[Slot]) -> Result<(), EngineError> {
        for &slot in slots {
            let references = self.held(slot, "release")?;
            *references -= 1;
            if *references == 0 {
                self.n_free += 1;
                self.first_free = self.first_free.min(slot.0 as usize);
            }
        }
        Ok(())
    }

    /// Recounts everything.
    ///
    /// # Errors
    /// [`EngineError::KvBookkeeping`] naming the count that is wrong.
    pub fn check_invariants(&self) -> Result<(), EngineError> {
        let free = self.references.iter().filter(|&&references| references == 0).count();
        if free != self.n_free {
            let detail = format!("{free} slots are free, {} are counted", self.n_free);
            return Err(EngineError::KvBookkeeping { subject: "slot pool", detail });
        }
        if let Some(slot) =
            self.references.iter().take(self.first_free).position(|&references| references == 0)
        {
            let detail = format!("slot {slot} is free below the first free slot {}", self.first_free);
            return Err(EngineError::KvBookkeeping { subject: "slot pool", detail });
        }
        Ok(())
    }

    fn held(&mut self, slot: Slot, action: &'static str) -> Result<&mut u32, EngineError> {
        match self.references.get_mut(slot.0 as usize) {
            Some(references) if *references > 0 => Ok(references),
            _ => Err(EngineError::KvBookkeeping {
                subject: "slot pool",
                detail: format!("{action} of slot {}, which nobody holds", slot.0),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SlotPool;
    use crate::kv::Slot;
    use proptest::prelude::*;

    fn ids(slots: &[Slot]) -> Vec<u32> {
        slots.iter().map(|slot| slot.0).collect()
    }

    #[test]
    fn the_lowest_free_slots_come_first() {
        let mut pool = SlotPool::new(6);
        let first = pool.alloc(4).unwrap();
        assert_eq!(ids(&first), [0, 1, 2, 3]);
        pool.release(&[first[1], first[3]]).unwrap();
        assert_eq!(ids(&pool.alloc(3).unwrap()), [1, 3, 4]);
        assert_eq!((pool.free_slots(), pool.used_slots(), pool.n_slots()), (1, 5, 6));
    }

    #[test]
    fn too_many_is_refused_whole() {
        let mut pool = SlotPool::new(3);
        assert_eq!(pool.alloc(4), None);
        assert_eq!(pool.free_slots(), 3);
        assert_eq!(ids(&pool.alloc(3).unwrap()), [0, 1, 2]);
        assert_eq!(pool.alloc(1), None);
        assert_eq!(pool.alloc(0), Some(Vec::new()));
    }

    #[test]
    fn a_slot_is_free_only_when_its_last_holder_lets_go() {
        let mut pool = SlotPool::new(2);
        let slots = pool.alloc(2).unwrap();
        pool.retain(&slots[..1]).unwrap();
        pool.release(&slots).unwrap();
        assert_eq!((pool.references(slots[0]), pool.references(slots[1])), (1, 0));
        assert_eq!(pool.free_slots(), 1);
    }

    #[test]
    fn a_slot_nobody_holds_can_be_neither_released_nor_retained() {
        let mut pool = SlotPool::new(2);
        for slot in [Slot(0), Slot(2), Slot(u32::MAX)] {
            assert!(pool.release(&[slot]).is_err());
            assert!(pool.retain(&[slot]).is_err());
        }
        pool.check_invariants().unwrap();
        assert_eq!(pool.references(Slot(9)), 0);
    }

    #[test]
    fn a_wrong_count_is_found() {
        let mut pool = SlotPool::new(2);
        pool.n_free = 1;
        assert!(pool.check_invariants().unwrap_err().to_string().contains("2 slots are free"));
        let mut pool = SlotPool::new(2);
        pool.first_free = 1;
        assert!(pool.check_invariants().unwrap_err().to_string().contains("slot 0"));
    }

    proptest! {
        /// Against a plain vector of counts, over random allocations, retains and releases.
        #[test]
        fn equals_a_plain_count(operations in prop::collection::vec((0u8..3, 0usize..12), 0..60)) {
            let mut pool = SlotPool::new(10);
            let mut counts = [0u32; 10];
            for (kind, n) in operations {
                let held: Vec<usize> = (0..10).filter(|&slot| counts[slot] > 0).take(n).collect();
                let slots: Vec<Slot> = held.iter().map(|&slot| Slot(slot as u32)).collect();
                match kind {
                    0 => {
                        let lowest: Vec<usize> = (0..10).filter(|&slot| counts[slot] == 0).take(n).collect();
                        let got = pool.alloc(n).map(|slots| ids(&slots));
                        if lowest.len() < n {
                            prop_assert_eq!(got, None);
                        } else {
                            prop_assert_eq!(got, Some(lowest.iter().map(|&slot| slot as u32).collect()));
                            lowest.iter().for_each(|&slot| counts[slot] = 1);
                        }
                    }
                    1 => {
                        pool.retain(&slots).unwrap();
                        held.iter().for_each(|&slot| counts[slot] += 1);
                    }
                    _ => {
                        pool.release(&slots).unwrap();
                        held.iter().for_each(|&slot| counts[slot] -= 1);
                    }
                }
                pool.check_invariants().unwrap();
                prop_assert_eq!(pool.free_slots(), counts.iter().filter(|&&count| count == 0).count());
                for (slot, &count) in counts.iter().enumerate() {
                    prop_assert_eq!(pool.references(Slot(slot as u32)), count);
                }
            }
        }
    }
}
