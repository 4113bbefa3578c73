//! Which blocks of device memory are held: counted for reports, and asked by recordings before they run.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One allocation, told apart from a later one at the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Block {
    address: u64,
    serial: u64,
}

/// All blocks held on a device.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes and serial number by first address.
    blocks: BTreeMap<u64, (u64, u64)>,
    bytes: u64,
    bytes_peak: u64,
    n_added: u64,
    n_removed: u64,
}

impl Ledger {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a new block.
    pub(super) fn add(&self, address: u64, bytes: u64) {
        let mut held = self.held();
        held.n_added += 1;
        held.bytes += bytes;
        held.bytes_peak = held.bytes_peak.max(held.bytes);
        let serial = held.n_added;
        held.blocks.insert(address, (bytes, serial));
    }

    /// Forgets a block that is about to be freed.
    pub(super) fn remove(&self, address: u64) {
        let mut held = self.held();
        if let Some((bytes, _)) = held.blocks.remove(&address) {
            held.n_removed += 1;
            held.bytes -= bytes;
        }
    }

    /// Bytes held.
    pub(super) fn bytes_in_use(&self) -> u64 {
        self.held().bytes
    }

    /// The most bytes held since the last call.
    pub(super) fn take_bytes_peak(&self) -> u64 {
        let mut held = self.held();
        let now = held.bytes;
        std::mem::replace(&mut held.bytes_peak, now)
    }

    /// The blocks that addresses point into, each once.
    pub(super) fn blocks_at(&self, addresses: Vec<u64>) -> Vec<Block> {
        let held = self.held();
        let block = |address: u64| {
            let (&first, &(_, serial)) = held.blocks.range(..=address).next_back()?;
            Some(Block { address: first, serial })
        };
        let mut blocks: Vec<Block> = addresses.into_iter().filter_map(block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        blocks
    }

    /// Blocks freed so far: as long as it does not change, what was held still is.
    pub(super) fn n_removed(&self) -> u64 {
        self.held().n_removed
    }

    /// Whether every block is still held.
    pub(super) fn holds_all(&self, blocks: &[Block]) -> bool {
        let held = self.held();
        blocks.iter().all(|block| held.blocks.get(&block.address).is_some_and(|(_, s)| *s == block.serial))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_freed_and_made_again_is_another_one() {
        let ledger = Ledger::default();
        ledger.add(1000, 100);
        ledger.add(2000, 50);
        let blocks = ledger.blocks_at(vec![1040, 1000, 2000]);
        assert_eq!(blocks.len(), 2);
        assert!(ledger.holds_all(&blocks));
        ledger.remove(1000);
        assert!(!ledger.holds_all(&blocks));
        ledger.add(1000, 100);
        assert!(!ledger.holds_all(&blocks));
        assert_eq!((ledger.bytes_in_use(), ledger.n_removed()), (150, 1));
    }
}
